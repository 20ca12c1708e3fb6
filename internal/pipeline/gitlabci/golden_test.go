package gitlabci

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenEvent is the first line of a case: "# event: {...}".
type goldenEvent struct {
	Ref, Source, Default string
	Tag, MergeRequest    bool
	Changed              []string
	Variables            map[string]string
	Project              map[string]string
	Inputs               map[string]any
}

func goldenContext(t *testing.T, text []byte) Context {
	t.Helper()
	e := goldenEvent{Ref: "main", Source: "push", Default: "main"}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if event, ok := bytes.CutPrefix(first, []byte("# event: ")); ok {
		dec := json.NewDecoder(bytes.NewReader(event))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil {
			t.Fatalf("event line: %v", err)
		}
	}
	c := Context{Source: e.Source, Ref: e.Ref, Tag: e.Tag, MergeRequest: e.MergeRequest, Inputs: e.Inputs}
	c.Predefined = map[string]string{
		"CI_COMMIT_REF_NAME": e.Ref, "CI_COMMIT_REF_SLUG": Slug(e.Ref), "CI_DEFAULT_BRANCH": e.Default,
		"CI_PIPELINE_SOURCE": e.Source, "CI_PROJECT_PATH": "group/project", "CI_SERVER_FQDN": "ci.example.com",
	}
	switch {
	case e.Tag:
		c.Predefined["CI_COMMIT_TAG"] = e.Ref
	case !e.MergeRequest:
		c.Predefined["CI_COMMIT_BRANCH"] = e.Ref
	}
	if e.Changed != nil {
		c.ChangedPaths = func(string) ([]string, bool, error) { return e.Changed, true, nil }
	}
	for _, key := range sortedKeys(e.Variables) {
		c.Pipeline = append(c.Pipeline, Variable{Key: key, Value: e.Variables[key]})
	}
	if e.Project != nil {
		c.Configured = func(string) Variables {
			var out Variables
			for _, key := range sortedKeys(e.Project) {
				out = append(out, Variable{Key: key, Value: e.Project[key]})
			}
			return out
		}
	}
	return c
}

func sortedKeys(m map[string]string) []string {
	n, _ := nodeOf(toAny(m), place{})
	out := make([]string, 0, len(m))
	for _, f := range n.fields {
		out = append(out, f.key)
	}
	return out
}

func toAny(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// goldenSources reads local files from testdata, projects from testdata/projects/<path>.
func goldenSources() *Folder {
	projects := os.DirFS("testdata/projects")
	src := &Folder{Files: os.DirFS("testdata"), Templates: os.DirFS("testdata/templates")}
	src.Projects = func(at Location) (fs.FS, error) { return fs.Sub(projects, at.Project) }
	src.Fetch = func(_ context.Context, url string) ([]byte, error) {
		return os.ReadFile("testdata/remote/" + filepath.Base(url))
	}
	return src
}

func goldenCases(t *testing.T, suffix string) []string {
	t.Helper()
	cases, err := filepath.Glob("testdata/*" + suffix)
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases %s: %v", suffix, err)
	}
	return cases
}

func compareGolden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update to write it", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", file, got, want)
	}
}

// TestGoldenGood plans every *.good.yml and compares the plan, and reads its merged form again.
func TestGoldenGood(t *testing.T) {
	t.Parallel()
	for _, file := range goldenCases(t, ".good.yml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".good.yml"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			event := goldenContext(t, text)
			plan := goldenPlan(t, filepath.Base(file), text, event)
			compareGolden(t, strings.TrimSuffix(file, ".good.yml")+".plan.json", plan)
		})
	}
}

func goldenPlan(t *testing.T, name string, text []byte, event Context) []byte {
	t.Helper()
	c, diags := Compile(context.Background(), name, text, goldenSources(), event)
	if diags.Failed() {
		t.Fatal(diags.Err())
	}
	p, diags := Plan(context.Background(), c, event)
	if diags.Failed() {
		t.Fatal(diags.Err())
	}
	out := planText(t, p)
	merged, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	event.Inputs = nil
	again, diags := Compile(context.Background(), "merged.yml", merged, goldenSources(), event)
	if diags.Failed() {
		t.Fatalf("the merged form: %v\n%s", diags.Err(), merged)
	}
	q, diags := Plan(context.Background(), again, event)
	if diags.Failed() {
		t.Fatalf("the merged form: %v\n%s", diags.Err(), merged)
	}
	if second := planText(t, q); !bytes.Equal(out, second) {
		t.Errorf("the merged form plans differently:\n%s\n%s", second, merged)
	}
	return out
}

// planText is the plan without places, and proves that JSON loses nothing.
func planText(t *testing.T, p *Pipeline) []byte {
	t.Helper()
	for i := range p.Jobs {
		p.Jobs[i].File, p.Jobs[i].Line = "", 0
	}
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	var back Pipeline
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	second, err := json.MarshalIndent(&back, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, second) {
		t.Errorf("JSON changes the plan:\n%s\n%s", text, second)
	}
	return append(text, '\n')
}

// TestGoldenBad compares every message of every *.bad.yml, warnings included.
func TestGoldenBad(t *testing.T) {
	t.Parallel()
	for _, file := range goldenCases(t, ".bad.yml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yml"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			event := goldenContext(t, text)
			c, diags := Compile(context.Background(), filepath.Base(file), text, goldenSources(), event)
			if !diags.Failed() {
				_, diags = Plan(context.Background(), c, event)
			}
			if !diags.Failed() {
				t.Fatal("the file is accepted")
			}
			var out strings.Builder
			for _, d := range diags {
				if d.Line == 0 || d.Column == 0 || d.File == "" {
					t.Errorf("no place in: %s", d)
				}
				if d.Warning {
					d.Message = "warning: " + d.Message
				}
				out.WriteString(d.String() + "\n")
			}
			compareGolden(t, strings.TrimSuffix(file, ".bad.yml")+".errors.txt", []byte(out.String()))
		})
	}
}
