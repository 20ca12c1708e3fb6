package gitlabci

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// FuzzCompile feeds any text to the YAML front end: it must end, and every error needs a place. What
// is accepted must plan, encode and be readable again in its merged form.
func FuzzCompile(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.yml")
	for _, c := range cases {
		text, err := os.ReadFile(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("a: &a {b: *a}\n"))
	f.Add([]byte("? [x]\n: y\n"))
	event := Context{Source: "push", Ref: "main", Predefined: map[string]string{"CI_COMMIT_BRANCH": "main"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		src := &Folder{Files: fstest.MapFS{"a.yml": {Data: []byte("included: {script: x}")}}}
		c, diags := Compile(context.Background(), "fuzz.yml", text, src, event)
		if (c == nil) != diags.Failed() {
			t.Fatal("a Config goes with no errors")
		}
		for _, d := range diags {
			if d.Line == 0 || d.Column == 0 {
				t.Fatalf("no place in: %s", d)
			}
		}
		if c == nil {
			return
		}
		p, diags := Plan(context.Background(), c, event)
		if diags.Failed() {
			return
		}
		text1, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Pipeline
		if err := json.Unmarshal(text1, &back); err != nil {
			t.Fatal(err)
		}
		merged, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if _, diags := Compile(context.Background(), "merged.yml", merged, src, event); diags.Failed() {
			t.Fatalf("%v in\n%s\nof\n%q", diags.Err(), merged, text)
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{`$A == "x" && ($B =~ /^a\/b/i || !null)`, `"a" != 'b'`, "((", "/", "$", `$A =~ $B`} {
		f.Add(s)
	}
	lookup := mapLookup(map[string]string{"A": "x", "B": "/y/"})
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpression(text)
		if err != nil {
			return
		}
		if e.True(lookup) != truthful(e.Value(lookup)) {
			t.Fatal("truth and value differ")
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"**/*.go", "{a,b}/[!x]?", `\*`, "[", "{{,}}", "a/**"} {
		f.Add(s, "a/b.go")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		NewGlob(pattern).Match(path)
		if !strings.ContainsAny(path, `*?[]{}\,`) && !NewGlob(path).Match(path) {
			t.Fatalf("%q does not match itself", path)
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$A${B}%A%$$", "${", "%%A%", "$A$", "${A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		none := func(string) (string, bool) { return "", false }
		if got := ExpandExisting(text, none); got != text {
			t.Fatalf("%q becomes %q though nothing is defined", text, got)
		}
		vs, err := Variables{{Key: "A", Value: text}, {Key: "B", Value: "$A"}, {Key: "C", Value: text + "$B"}}.Expanded(true)
		if err == nil && len(vs) != 3 {
			t.Fatal(vs)
		}
	})
}

// FuzzInterpolation checks that every place in the result leads back into the file.
func FuzzInterpolation(f *testing.F) {
	for _, s := range []string{"a: $[[ inputs.a ]]\nb: x", "$[[inputs.a|truncate(1,2)|posix_escape]]", "$[[ ]]", "$[[ inputs.a | expand_vars ]]\n\n$[["} {
		f.Add(s, "value\nwith lines", 2, 3)
	}
	f.Fuzz(func(t *testing.T, text, value string, line, column int) {
		ip := &interpolation{inputs: map[string]*node{"a": {kind: stringKind, text: value}}, names: []string{"a"}, variables: mapLookup(nil)}
		lines := strings.Count(text, "\n") + 1
		result, m := ip.apply(text, 1, func(line, column int, message string) {
			if line < 1 || line > lines || column < 1 || message == "" {
				t.Fatalf("%d:%d %q", line, column, message)
			}
		})
		l, c := m.at(line, column)
		if l < 1 || l > lines || c < 1 {
			t.Fatalf("%d:%d of %q leads to %d:%d of %q", line, column, result, l, c, text)
		}
	})
}
