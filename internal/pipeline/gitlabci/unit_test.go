package gitlabci

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.md", "README.md", true},
		{"*.md", "docs/README.md", false},
		{"**/*.md", "README.md", true},
		{"**/*.md", "a/b/README.md", true},
		{"docs/**/*", "docs/a/b", true},
		{"docs/**/*", "docs", false},
		{"docs/**", "docs/a", true},
		{"docs/**", "docs/a/b", false}, // "**" spans folders only in front of a slash
		{"a/**/b/**/c", "a/x/b/y/z/c", true},
		{"a/**/b/**/c", "a/b/c", true},
		{"a/**/b", "a/x/c", false},
		{"src/*", "src/.hidden", true},
		{"**/*.rb", ".config/x.rb", true},
		{"*.{js,ts}", "a.ts", true},
		{"*.{js,ts}", "a.rb", false},
		{"{a,b/{c,d}}/x", "b/d/x", true},
		{"file[0-9].txt", "file7.txt", true},
		{"file[!0-9].txt", "file7.txt", false},
		{"file[^0-9].txt", "filex.txt", true},
		{"file[]].txt", "file].txt", true},
		{"?", "ä", true},
		{"?", "/", false},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"a[", "a[", false},
		{"Dockerfile", "Dockerfile", true},
		{"", "", true},
		{"{a", "{a", true},
		{"[a-z]*", "b/c", false},
	} {
		if got := NewGlob(c.pattern).Match(c.path); got != c.want {
			t.Errorf("%q against %q is %v", c.pattern, c.path, got)
		}
	}
}

func TestGlobBounded(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("*a", 200) + strings.Repeat("{a,b}", 40)
	if NewGlob(pattern).Match(strings.Repeat("a", 1000)) {
		t.Error("must not match")
	}
	if NewGlob(strings.Repeat("**/", 200) + "x").Match(strings.Repeat("a/", 2000)) {
		t.Error("must not match")
	}
}

func TestGlobSetLimit(t *testing.T) {
	t.Parallel()
	set := newGlobSet([]string{"x"})
	paths := make([]string, maxComparisons+1)
	if !set.matchAny(paths) {
		t.Error("beyond the limit a match is claimed")
	}
	if set.matchAny(paths[:10]) {
		t.Error("within the limit there is none")
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"1 week": 7 * day, "3 mins 4 sec": 184 * time.Second, "2 hrs 20 min": 140 * time.Minute, "2h20min": 140 * time.Minute,
		"6 mos 1 day": 181 * day, "3 weeks and 2 days": 23 * day, "1h 30m 12s": 5412 * time.Second, "42": 42 * time.Second,
		"1:30:00": 90 * time.Minute, "4:30": 270 * time.Second, "never": Forever, "1.5 hours": 90 * time.Minute,
		"one day": day, "10 Minutes": 10 * time.Minute, "1 day, 2 hours": 26 * time.Hour,
		"47 yrs 6 mos and 4d": 47*(365*day+6*time.Hour) + 184*day, "0": 0,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "1 fortnight", "minutes", "5 5", "-1 day", "1e9 years", "9999999999999 years", "$TIME"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}

func TestExpandEscapes(t *testing.T) {
	t.Parallel()
	vars := mapLookup(map[string]string{"A": "x", "B": "$A"})
	for text, want := range map[string]string{
		"$A$$A%%A%%": "x$$A%%A%%", "${A}b": "xb", "$": "$", "$1": "$1", "${": "${", "100%": "100%", "${}": "", "%A%": "x", "$B": "$A", "a%A": "a%A",
	} {
		if got := Expand(text, vars); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestVariablesExpanded(t *testing.T) {
	t.Parallel()
	vs := Variables{{Key: "A", Value: "$B-$C"}, {Key: "B", Value: "${D}"}, {Key: "D", Value: "deep"}, {Key: "R", Value: "$D", Raw: true}, {Key: "S", Value: "$R $S"}}
	got, err := vs.Expanded(true)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"A": "deep-$C", "B": "deep", "R": "$D", "S": "$D $S"} {
		if v, _ := got.Get(key); v.Value != want {
			t.Errorf("%s is %q, want %q", key, v.Value, want)
		}
	}
	got, _ = vs.Expanded(false)
	if v, _ := got.Get("A"); v.Value != "deep-" {
		t.Errorf("undefined is kept: %q", v.Value)
	}
	_, err = Variables{{Key: "A", Value: "$B"}, {Key: "B", Value: "$C"}, {Key: "C", Value: "$A"}}.Expanded(true)
	var cycle *CycleError
	if !errors.As(err, &cycle) || err.Error() != "circular variable reference: A -> B -> C -> A" {
		t.Error(err)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	got := Merge(Variables{{Key: "A", Value: "1"}, {Key: "B", Value: "1"}}, Variables{{Key: "B", Value: "2"}, {Key: "C", Value: "3", Raw: true}})
	text, err := got.MarshalJSON()
	if err != nil || string(text) != `{"A":"1","B":"2","C":{"value":"3","expand":false}}` {
		t.Error(string(text), err)
	}
}

func TestNot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`!$EMPTY_VARIABLE`: true, `!$PRESENT_VARIABLE`: false, `!!$PRESENT_VARIABLE`: true,
		`!($PRESENT_VARIABLE == "my variable") || $UNDEFINED == null`: true,
		`!$PRESENT_VARIABLE == "x"`:                                   true,
		`true && !false`:                                              true,
		`$TRUE == true`:                                               true,
	} {
		e, err := ParseExpression(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		vars := map[string]string{"TRUE": "true"}
		for k, v := range conformanceVariables {
			vars[k] = v
		}
		if e.True(mapLookup(vars)) != want {
			t.Errorf("%s is not %v", text, want)
		}
	}
	if _, err := ParseExpression(strings.Repeat("(", 100_000)); err == nil {
		t.Error("unbounded nesting is accepted")
	}
}

func TestSlugs(t *testing.T) {
	t.Parallel()
	if got := Slug("Feature/Größe_" + strings.Repeat("x", 80)); len(got) > 63 || strings.ToLower(got) != got {
		t.Error(got)
	}
	for name, want := range map[string]string{
		"staging-12345678901234567": "staging-123456789-s729ne", "9-staging-123456789012345": "env-9-staging-123-f6hm7j",
		"staging-1234567890123456": "staging-1234567890123456", "production": "production", "staging-": "staging",
	} {
		if got := EnvironmentSlug(name); got != want {
			t.Errorf("%s becomes %s", name, got)
		}
	}
	for name, want := range map[string]string{"production": "production", "review/x": "development", "staging": "staging", "qa": "testing", "acme": "other"} {
		if got := EnvironmentTier(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
}

func TestIncludeLimit(t *testing.T) {
	t.Parallel()
	src := &Folder{Files: fstest.MapFS{"self.yml": {Data: []byte("include: self.yml\njob: {script: x}\n")}}}
	_, diags := Compile(context.Background(), "root.yml", []byte("include: self.yml\n"), src, Context{})
	if !diags.Failed() || !strings.Contains(diags.Err().Error(), "more than 150 included files") {
		t.Error(diags)
	}
}

// TestAliasBomb reads a small file that would be a billion values without aliases.
func TestAliasBomb(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("a00: &a00 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		prev := "*a" + itoa(i-1)
		b.WriteString("a" + itoa(i) + ": &a" + itoa(i) + " [" + strings.Repeat(prev+",", 9) + prev + "]\n")
	}
	b.WriteString("job: {script: *a11}\n")
	_, diags := Compile(context.Background(), "root.yml", []byte(b.String()), &Folder{Files: fstest.MapFS{}}, Context{})
	if !diags.Failed() || !strings.Contains(diags.Err().Error(), "too large") {
		t.Error(diags)
	}
}

func itoa(i int) string { return string(rune('0'+i/10)) + string(rune('0'+i%10)) }

func TestFolderStaysInside(t *testing.T) {
	t.Parallel()
	src := &Folder{Files: fstest.MapFS{"a.yml": {Data: []byte("x")}}}
	for _, name := range []string{"../a.yml", "/../a.yml", "b.yml"} {
		if _, err := src.ReadFile(context.Background(), Location{}, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConcurrentPlan plans one Config from many goroutines; run it with -race.
func TestConcurrentPlan(t *testing.T) {
	t.Parallel()
	text, files := largePipeline(100)
	event := Context{Ref: "main", Source: "push", Predefined: map[string]string{"CI_COMMIT_BRANCH": "main"}}
	c, diags := Compile(context.Background(), "root.yml", text, &Folder{Files: files}, event)
	if diags.Failed() {
		t.Fatal(diags.Err())
	}
	done := make(chan int)
	for range 4 {
		go func() {
			p, _ := Plan(context.Background(), c, event)
			done <- len(p.Jobs)
		}()
	}
	for range 4 {
		if n := <-done; n != 100 {
			t.Error(n)
		}
	}
}
