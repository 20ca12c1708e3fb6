package ci

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	templates "github.com/slipwayhq/slipway/gitlab-ci"
)

// run executes `slipway ci ARGS` and returns both outputs and the exit status.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	root := &cobra.Command{Use: "slipway", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(New())
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"ci"}, args...))
	if err := root.ExecuteContext(t.Context()); err != nil {
		var coded interface{ ExitCode() int }
		if !errors.As(err, &coded) {
			t.Fatalf("an error without exit status: %v", err)
		}
		code = coded.ExitCode()
	}
	return out.String(), errs.String(), code
}

// folder writes files into a new working copy of the branch topic and returns its path.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files[".git/HEAD"] = "ref: refs/heads/topic\n"
	files[".git/refs/heads/topic"] = "0123456789abcdef0123456789abcdef01234567\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLint(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"good.yml":    "include: parts/a.yml\njob: {script: x}\n",
		"bad.yml":     "include: parts/b.yml\njob: {scrip: x}\n",
		"parts/a.yml": "a: {script: x}\n", "parts/b.yml": "b: {script: x, whne: manual}\n",
	})
	good, bad := filepath.Join(dir, "good.yml"), filepath.Join(dir, "bad.yml")
	if out, errs, code := run(t, "lint", good); code != 0 || out != good+" is valid\n" || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	out, errs, code := run(t, "lint", bad)
	for _, want := range []string{
		bad + ":2:1: error: job job: needs script or trigger",
		bad + ":2:7: error: job job: unknown keyword scrip; did you mean script?",
		filepath.Join(dir, "parts/b.yml") + ":1:16: error: job b: unknown keyword whne; did you mean when?",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in %q", want, errs)
		}
	}
	if code != 1 || out != "" {
		t.Errorf("%d %q", code, out)
	}
	out, errs, code = run(t, "lint", "--json", bad)
	var r struct {
		Valid  bool
		Errors []struct {
			Message, File string
			Line, Column  int
		}
		Warnings []any
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 1 || r.Valid || len(r.Errors) != 3 || r.Warnings == nil || errs != "" {
		t.Errorf("%v %d %s %s", err, code, out, errs)
	}
	if e := r.Errors[0]; e.File != bad || e.Line != 2 || e.Column != 1 {
		t.Errorf("%+v", e)
	}
	if out, _, code := run(t, "lint", "--json", good); code != 0 || !strings.Contains(out, `"valid": true`) || !strings.Contains(out, `"errors": []`) {
		t.Errorf("%d %s", code, out)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{".gitlab-ci.yml": `
stages: [build, test]
test: {stage: test, script: test, needs: [build], tags: [a], image: alpine}
build: {stage: build, script: [one, two], variables: {A: "1"}}
on tag: {script: x, rules: [{if: $CI_COMMIT_TAG}]}
on topic: {script: x, rules: [{if: $CI_COMMIT_BRANCH == "topic", when: manual}]}
on docs: {script: x, rules: [{changes: ["docs/**/*"]}]}
nightly: {script: x, rules: [{if: '$CI_PIPELINE_SOURCE == "schedule" && $NIGHTLY'}]}
`})
	file := filepath.Join(dir, ".gitlab-ci.yml")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "build test on topic on docs"},
		{[]string{"--changed", "src/a.go"}, "build test on topic"},
		{[]string{"--changed", "docs/a/b.md", "--ref", "main"}, "build test on docs"},
		{[]string{"--changed", ""}, "build test on topic"},
		{[]string{"--tag", "v1"}, "build test on tag on docs"},
		{[]string{"--source", "schedule", "--var", "NIGHTLY=1", "--changed", "src/x"}, "build test on topic on docs nightly"},
	} {
		out, errs, code := run(t, append([]string{"plan", file, "--json"}, c.args...)...)
		var p struct {
			Run  bool
			Jobs []struct {
				Name, Stage, When string
				AllowFailure      *bool `json:"allow_failure"`
				Needs, Tags       []string
				Image             any
				Variables         map[string]string
			}
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 || !p.Run {
			t.Fatalf("%v: %v %d %s %s", c.args, err, code, out, errs)
		}
		var names []string
		for _, j := range p.Jobs {
			names = append(names, j.Name)
			if j.AllowFailure == nil || j.Stage == "" || j.When == "" {
				t.Errorf("%+v", j)
			}
			if j.Name == "test" && (len(j.Needs) != 1 || j.Needs[0] != "build" || j.Image != "alpine" || j.Tags[0] != "a") {
				t.Errorf("%+v", j)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%v runs %q, want %q", c.args, got, c.want)
		}
	}
	out, _, code := run(t, "plan", file)
	if want := "build\n  build\ntest\n  test (needs build)\n  on topic (manual)\n  on docs\n"; code != 0 || out != want {
		t.Errorf("%d %q", code, out)
	}
}

func TestPlanFails(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"a.yml": "build: {script: x, rules: [{if: $NO}]}\ntest: {script: x, needs: [build]}\n",
		"b.yml": "job: {script: x, rules: [{if: $NO}]}\n",
	})
	_, errs, code := run(t, "plan", filepath.Join(dir, "a.yml"))
	if code != 1 || !strings.Contains(errs, "a.yml:2:27: error: job test: needs the job build, but it does not exist in this pipeline") {
		t.Errorf("%d %q", code, errs)
	}
	out, _, code := run(t, "plan", filepath.Join(dir, "a.yml"), "--json")
	if code != 1 || !strings.Contains(out, `"valid": false`) {
		t.Errorf("%d %q", code, out)
	}
	out, _, code = run(t, "plan", filepath.Join(dir, "b.yml"))
	if code != 0 || out != "No pipeline: no job would run.\n" {
		t.Errorf("%d %q", code, out)
	}
	out, _, code = run(t, "plan", filepath.Join(dir, "b.yml"), "--json")
	if code != 0 || !strings.Contains(out, `"run":false`) || !strings.Contains(out, `"jobs":[]`) {
		t.Errorf("%d %q", code, out)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"ci.yml":   "include: part.yml\n.base: &b {tags: [x]}\njob: {extends: .base, script: [!reference [part, script]]}\n",
		"part.yml": "part: {script: [echo part]}\n",
	})
	out, errs, code := run(t, "expand", filepath.Join(dir, "ci.yml"))
	want := "part:\n  script:\n    - echo part\n.base:\n  tags:\n    - x\njob:\n  tags:\n    - x\n  script:\n    - - echo part\n"
	if code != 0 || out != want {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"ci.yml": "job: {script: x}\n"})
	file := filepath.Join(dir, "ci.yml")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"lint", file, file}, "one file at a time"},
		{[]string{"lint", "--jsn"}, "unknown flag: --jsn"},
		{[]string{"plan", file, "--source", "psh"}, "--source psh is not one of"},
		{[]string{"plan", file, "--ref", "a", "--tag", "b"}, "exclude each other"},
		{[]string{"plan", file, "--var", "A"}, "must be written NAME=VALUE"},
		{[]string{"lnt"}, `unknown command "lnt"`},
	} {
		if _, errs, code := run(t, c.args...); code != 2 || !strings.Contains(errs, c.want) || !strings.Contains(errs, "--help") {
			t.Errorf("%v: %d %q", c.args, code, errs)
		}
	}
	if _, errs, code := run(t, "lint", filepath.Join(dir, "none.yml")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("%d %q", code, errs)
	}
}

// TestTemplates reads every shipped template with the inputs it needs.
func TestTemplates(t *testing.T) {
	t.Parallel()
	needed := map[string]string{
		"Test.gitlab-ci.yml":   "{image: python}",
		"Deploy.gitlab-ci.yml": "{repository: a/b, file: kustomization.yaml, name: app}",
	}
	text := ""
	err := fs.WalkDir(templates.Templates(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			text += "  - {template: " + name + ", inputs: " + needed[name] + "}\n"
		}
		return err
	})
	if err != nil || text == "" {
		t.Fatal(err)
	}
	dir := folder(t, map[string]string{"ci.yml": "include:\n" + text})
	out, errs, code := run(t, "plan", filepath.Join(dir, "ci.yml"), "--ref", "main")
	if code != 0 || errs != "" {
		t.Errorf("%d %q", code, errs)
	}
	for _, want := range []string{"  build-image (starts at once)\n", "  deploy\n", "  secret_detection (may fail)\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}
