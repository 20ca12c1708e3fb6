package ci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// workingFolder is folder without its made-up .git: a working copy that git does not know yet.
func workingFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := folder(t, files)
	if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func runJSON(t *testing.T, args ...string) (statuses map[string]string, output string, code int) {
	t.Helper()
	out, errs, code := run(t, append([]string{"run", "--json"}, args...)...)
	var r runResult
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %q %q", err, out, errs)
	}
	statuses = map[string]string{"": r.Status}
	for _, j := range r.Jobs {
		statuses[j.Name] = j.Status
	}
	return statuses, errs, code
}

func TestRun(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := workingFolder(t, map[string]string{"data.txt": "not committed\n", "ci.yml": `
build:
  stage: build
  script: [cat data.txt, mkdir out, echo built > out/app, echo "VERSION=$NUMBER.2" > v.env]
  variables: {NUMBER: "1"}
  artifacts: {paths: [out], reports: {dotenv: v.env}}
test:
  parallel: {matrix: [{A: [x, y]}]}
  before_script: [WORD=shared]
  script: ['echo "$A $VERSION $WORD $(cat out/app)"']
  after_script: [echo "after $CI_JOB_STATUS"]
allowed: {script: [exit 3], allow_failure: {exit_codes: [3]}}
again: {script: ['test "$(cat count 2>/dev/null)" && exit 0', echo 1 > count, exit 1], retry: 1, allow_failure: true}
manual: {script: [echo manual ran], when: manual}
deploy: {stage: deploy, script: [echo deployed], environment: prod, needs: [build]}
cleanup: {stage: deploy, script: [echo cleanup], when: on_failure}
child: {stage: deploy, trigger: {include: x.yml}}
`})
	file := filepath.Join(dir, "ci.yml")
	got, output, code := runJSON(t, file)
	for name, want := range map[string]string{
		"": "success", "build": "success", "test: [x]": "success", "test: [y]": "success", "allowed": "failed", "again": "failed",
		"manual": "manual", "deploy": "skipped", "cleanup": "skipped", "child": "skipped",
	} {
		if got[name] != want {
			t.Errorf("%q is %s, want %s", name, got[name], want)
		}
	}
	for _, want := range []string{
		"[build] not committed\n", "[test: [x]] x 1.2 shared built\n", "[test: [y]] y 1.2 shared built\n", "[test: [x]] after success\n",
		"[again] » failed; it is tried again\n",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in\n%s", want, output)
		}
	}
	if code != 0 || strings.Contains(output, "deployed") || strings.Contains(output, "manual ran") {
		t.Errorf("%d\n%s", code, output)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("the working copy was changed")
	}

	kept := filepath.Join(t.TempDir(), "kept")
	got, output, code = runJSON(t, file, "deploy", "--artifacts", kept)
	if code != 0 || len(got) != 3 || got["deploy"] != "success" || got["build"] != "success" || !strings.Contains(output, "[deploy] deployed\n") {
		t.Errorf("%d %v\n%s", code, got, output)
	}
	if text, err := os.ReadFile(filepath.Join(kept, "build", "out", "app")); err != nil || string(text) != "built\n" {
		t.Errorf("%q %v", text, err)
	}
}

func TestRunFails(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := workingFolder(t, map[string]string{"ci.yml": "a: {stage: build, script: [echo bad; exit 7]}\nb: {script: [echo b]}\nc: {script: [echo rescue], when: on_failure}\n"})
	file := filepath.Join(dir, "ci.yml")
	got, output, code := runJSON(t, file)
	if code != 1 || got[""] != "failed" || got["a"] != "failed" || got["b"] != "skipped" || got["c"] != "success" || !strings.Contains(output, "[c] rescue\n") {
		t.Errorf("%d %v\n%s", code, got, output)
	}
	out, _, code := run(t, "run", file, "a")
	if code != 1 || !strings.Contains(out, "exit code 7") || !strings.Contains(out, "Pipeline: failed") {
		t.Errorf("%d %s", code, out)
	}
	if _, errs, code := run(t, "run", file, "nobody"); code != 2 || !strings.Contains(errs, `no job "nobody" would run`) {
		t.Errorf("%d %s", code, errs)
	}
}

func TestRunTellsThatImagesAreNotUsed(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := workingFolder(t, map[string]string{"ci.yml": "a: {image: debian, script: [echo here]}\nb: {inputs: {word: {default: plain}}, run: [{name: say, script: 'echo ${{ job.inputs.word }}'}]}\n"})
	file := filepath.Join(dir, "ci.yml")
	const notice = "Jobs run as processes of this host, without their images and services"
	if out, errs, code := run(t, "run", file); code != 0 || !strings.Contains(errs, notice) || !strings.Contains(out, "here") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	for _, args := range [][]string{{"run", file, "b"}, {"run", file, "--executor", "host"}} {
		if out, errs, code := run(t, args...); code != 0 || strings.Contains(errs, notice) || !strings.Contains(out, "plain") {
			t.Errorf("%v: %d %q %q", args, code, out, errs)
		}
	}
	if _, errs, code := run(t, "run", file, "--executor", "containers"); code != 1 || !strings.Contains(errs, "There are no containers here") {
		t.Errorf("%d %q", code, errs)
	}
	if _, errs, code := run(t, "run", file, "--executor", "cloud"); code != 2 || !strings.Contains(errs, "--executor is auto") {
		t.Errorf("%d %q", code, errs)
	}
}
