package runnertest

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

// Setup is what an executor's test gives the suite.
type Setup struct {
	Executor  runner.Executor
	BuildsDir string // as in runner.Config
	Image     string // an image with sh and coreutils; empty for executors without images
	// Sleep is a command line that outlives any test.
	Deadline time.Duration // for one job (default 30 s)
}

// Bench is one runner with its coordinator and repository, for tests.
type Bench struct {
	*Coordinator
	// Repository is the bare repository of all jobs; empty: it is not on disk.
	Repository string

	t        testing.TB
	setup    Setup
	dir      string
	sha      string
	nextID   int64
	deadline time.Duration
}

// NewBench makes a coordinator and a repository without a runner.
func NewBench(t testing.TB, setup Setup) *Bench {
	t.Helper()
	b := &Bench{Coordinator: NewCoordinator(), t: t, setup: setup, dir: t.TempDir(), deadline: setup.Deadline}
	if b.deadline == 0 {
		b.deadline = 30 * time.Second
	}
	b.Repository = filepath.Join(b.dir, "repository.git")
	b.makeRepository()
	return b
}

// Start runs a runner until the test ends.
func Start(t testing.TB, setup Setup, change func(*runner.Config)) *Bench {
	t.Helper()
	b := NewBench(t, setup)
	config := runner.Config{
		Dir: filepath.Join(b.dir, "runner"), BuildsDir: setup.BuildsDir, Name: "test",
		Session: delivery.RunnerSession{SystemID: "s_test"}, Repositories: b, TraceInterval: 5 * time.Millisecond,
		KeepAlive: 50 * time.Millisecond, ReportTimeout: 10 * time.Second,
	}
	if change != nil {
		change(&config)
	}
	r, err := runner.New(config, b.Coordinator, setup.Executor)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-r.Ready():
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return b
}

// GitDir implements runner.Repositories.
func (b *Bench) GitDir(context.Context, int64) (string, error) {
	if b.Repository == "" {
		return "", delivery.Errorf(delivery.NotFound, "the repository is elsewhere")
	}
	return b.Repository, nil
}

func (b *Bench) makeRepository() {
	work, bare := filepath.Join(b.dir, "work"), filepath.Join(b.dir, "repository.git")
	script := `set -e
git init -q --bare "$2"; git init -q -b main "$1"; cd "$1"
git config user.name T; git config user.email t@example.com
for i in 1 2 3; do echo "$i" > file.txt; mkdir -p sub; echo hello > sub/hello.txt; git add -A; git commit -qm "change $i"; done
printf '#!/bin/sh\necho tool\n' > tool.sh; chmod +x tool.sh; git add -A; git commit -qm tool
git push -q "$2" main HEAD:refs/pipelines/7; git rev-parse HEAD`
	command := exec.Command("sh", "-c", script, "sh", work, bare)
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		b.t.Fatalf("make repository: %v\n%s", err, errs.String())
	}
	b.sha = strings.TrimSpace(string(out))
}

// Job returns a job of one script.
func (b *Bench) Job(script ...string) *delivery.JobSpec {
	b.nextID++
	spec := &delivery.JobSpec{
		ID: b.nextID, Token: fmt.Sprintf("token-of-job-%d", b.nextID), AllowGitFetch: true,
		JobInfo: delivery.JobInfo{Name: "job", Stage: "test", ProjectID: 7, ProjectFullPath: "group/project"},
		GitInfo: delivery.GitInfo{RepoURL: "http://127.0.0.1:1/group/project.git", Ref: "main", SHA: b.sha, RefType: "branch", Depth: 2,
			Refspecs: []string{"+refs/pipelines/7:refs/pipelines/7", "+refs/heads/main:refs/remotes/origin/main"}},
		RunnerInfo: delivery.JobRunnerInfo{Timeout: 300},
		Steps:      []delivery.JobStep{{Name: "script", Script: script}},
		Features:   delivery.JobFeatures{TraceSections: true},
	}
	if b.setup.Image != "" {
		spec.Image = &delivery.JobImage{Name: b.setup.Image}
	}
	return spec
}

// Do runs a job to its end.
func (b *Bench) Do(spec *delivery.JobSpec) Job {
	b.t.Helper()
	b.Push(spec)
	return b.End(spec.ID)
}

// End waits for a job's end.
func (b *Bench) End(id int64) Job {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), b.deadline)
	defer cancel()
	job, err := b.Finished(ctx, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// Says waits until the job's trace has the text.
func (b *Bench) Says(id int64, text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), b.deadline)
	defer cancel()
	if _, err := b.Wait(ctx, id, func(job Job) bool { return strings.Contains(Plain(job.Trace), text) || job.Status == "failed" }); err != nil {
		b.t.Fatal(err)
	}
}

// Run is the conformance suite of executors: what the official runner does
// with its shell and docker executors.
func Run(t *testing.T, setup Setup) {
	tests := []struct {
		name string
		test func(*testing.T, *Bench)
	}{
		{"Success", testSuccess}, {"ExitCode", testExitCode}, {"AfterScript", testAfterScript}, {"Variables", testVariables},
		{"Masking", testMasking}, {"Artifacts", testArtifacts}, {"Cache", testCache}, {"Strategies", testStrategies},
		{"Cancel", testCancel}, {"Timeout", testTimeout}, {"Background", testBackground}, {"LostTrace", testLostTrace},
		{"Shell", testShell}, {"Hostile", testHostile},
	}
	bench := Start(t, setup, nil)
	for _, one := range tests {
		t.Run(one.name, func(t *testing.T) {
			b := *bench
			b.t = t
			one.test(t, &b)
			bench.nextID = b.nextID
		})
	}
}

func want(t *testing.T, job Job, status string, texts ...string) {
	t.Helper()
	plain := Plain(job.Trace)
	if job.Status != status {
		t.Errorf("the job is %s (%s), want %s; trace:\n%s", job.Status, job.Update.FailureReason, status, plain)
	}
	for _, text := range texts {
		if !strings.Contains(plain, text) {
			t.Errorf("the trace has no %q:\n%s", text, plain)
		}
	}
}

func testSuccess(t *testing.T, b *Bench) {
	job := b.Do(b.Job("echo hello from $CI_PROJECT_DIR", "cat file.txt sub/hello.txt", "./tool.sh"))
	want(t, job, "success", "<start step_script>Executing \"step_script\" stage of the job script", "$ cat file.txt sub/hello.txt\n3\nhello\n",
		"$ ./tool.sh\ntool\n", "Fetching changes with git depth set to 2...", "Checking out "+b.sha[:8]+" as detached HEAD (ref is main)...",
		"Skipping Git submodules setup", "Job succeeded")
}

func testExitCode(t *testing.T, b *Bench) {
	job := b.Do(b.Job("echo before", "exit 42", "echo never"))
	want(t, job, "failed", "before", "ERROR: Job failed: exit code 42")
	if job.Update.ExitCode != 42 || job.Update.FailureReason != runner.ReasonScript {
		t.Errorf("reported %+v", job.Update)
	}
	if strings.Contains(Plain(job.Trace), "\nnever") {
		t.Error("the script went on after its failure")
	}
	want(t, b.Do(b.Job("false | true", "echo passed")), "failed", "exit code 1")
}

func testAfterScript(t *testing.T, b *Bench) {
	spec := b.Job("echo kept > left.txt", "exit 3")
	spec.Steps = append(spec.Steps, delivery.JobStep{Name: "after_script", Script: []string{"echo status $CI_JOB_STATUS", "cat left.txt", "exit 9"}, When: "always"})
	want(t, b.Do(spec), "failed", "Running after script...", "status failed", "kept", "after_script failed, but job will continue unaffected", "Job failed: exit code 3")
}

func testVariables(t *testing.T, b *Bench) {
	spec := b.Job("echo a=$A b=$B", `test "$RAW" = '$A'`, `cat "$FILE"`, "echo X=from-env >> $GITLAB_ENV", "echo 'multi\nline'",
		`test "$TRICKY" = "it's \"quoted\" \\ $(printf '\140')x"`)
	spec.Variables = []delivery.JobVariable{{Key: "A", Value: "one"}, {Key: "B", Value: "$A-two"}, {Key: "RAW", Value: "$A", Raw: true},
		{Key: "FILE", Value: "content of file\nsecond", File: true}, {Key: "A", Value: "last"}, {Key: "TRICKY", Value: "it's \"quoted\" \\ `x", Raw: true}}
	spec.Steps = append(spec.Steps, delivery.JobStep{Name: "after_script", Script: []string{"echo X is $X"}})
	want(t, b.Do(spec), "success", "a=last b=last-two", "content of file\nsecond", "X is from-env")
}

func testMasking(t *testing.T, b *Bench) {
	spec := b.Job("echo $SECRET", "printf hun; printf 'ter2 and more\\n'", "echo glpat-abcdefgh", "echo $SECRET >&2")
	spec.Variables = []delivery.JobVariable{{Key: "SECRET", Value: "hunter2", Masked: true}}
	spec.Features.TokenMaskPrefixes = []string{"glpat-"}
	job := b.Do(spec)
	want(t, job, "success", "[MASKED] and more")
	for _, secret := range []string{"hunter2", "abcdefgh", spec.Token} {
		if bytes.Contains(job.Trace, []byte(secret)) {
			t.Errorf("the trace shows %q:\n%s", secret, job.Trace)
		}
	}
}

func testArtifacts(t *testing.T, b *Bench) {
	producer := b.Job("mkdir -p out/deep", "echo result > out/deep/a.txt", "echo no > out/skip.log", "ln -s deep/a.txt out/link", "echo '<testsuites/>' > report.xml")
	producer.Artifacts = []delivery.JobArtifact{
		{Name: "$CI_JOB_NAME-x", Paths: []string{"out/", "none/*.txt"}, Exclude: []string{"out/*.log"}, Type: "archive", Format: "zip"},
		{Paths: []string{"report.xml"}, Type: "junit", Format: "gzip", When: "always"},
		{Paths: []string{"out"}, Type: "dotenv", Format: "gzip", When: "on_failure"},
	}
	job := b.Do(producer)
	want(t, job, "success", "out/: found 4 matching artifact files and directories", "none/*.txt: no matching files", "out/*.log: excluded 1 files", "201 Created")
	names := zipNames(t, job.Artifacts["archive"])
	if got := strings.Join(names, " "); got != "out/ out/deep/ out/deep/a.txt out/link" {
		t.Errorf("the archive has %q", got)
	}
	if job.Artifacts["junit"] == nil || job.Artifacts["dotenv"] != nil {
		t.Error("the wrong reports were uploaded")
	}
	consumer := b.Job("cat out/link", "test -L out/link")
	consumer.Dependencies = []delivery.JobDependency{{ID: producer.ID, Token: producer.Token, Name: "producer", ArtifactsFile: delivery.JobArtifactFile{Filename: "x.zip"}}}
	want(t, b.Do(consumer), "success", fmt.Sprintf("Downloading artifacts for producer (%d)...", producer.ID), "result")
	untracked := b.Job("echo new > new.txt", "echo 4 > file.txt")
	untracked.Artifacts = []delivery.JobArtifact{{Untracked: true}}
	job = b.Do(untracked)
	if got := strings.Join(zipNames(t, job.Artifacts["archive"]), " "); got != "new.txt" {
		t.Errorf("the untracked files are %q", got)
	}
}

func zipNames(t *testing.T, raw []byte) (names []string) {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range archive.File {
		names = append(names, file.Name)
		if file.Mode().IsRegular() {
			content, err := file.Open()
			if err == nil {
				_, err = io.Copy(io.Discard, content)
			}
			if err != nil {
				t.Errorf("%s: %v", file.Name, err)
			}
		}
	}
	return names
}

func testCache(t *testing.T, b *Bench) {
	first := b.Job("test ! -e deps", "mkdir deps", "echo cached > deps/x")
	first.Cache = []delivery.JobCache{{Key: "key/../$CI_JOB_STAGE", Paths: []string{"deps"}}}
	want(t, b.Do(first), "success", "Checking cache for key/../", "Failed to extract cache", "Creating cache key/../", "Created cache")
	second := b.Job("cat deps/x")
	second.Cache = []delivery.JobCache{{Key: "other", FallbackKeys: []string{"key/../"}, Paths: []string{"deps"}, Policy: "pull"}}
	want(t, b.Do(second), "success", "Successfully extracted cache", "cached", "Not uploading cache other due to policy")
}

func testStrategies(t *testing.T, b *Bench) {
	none := b.Job("test ! -e file.txt", "pwd")
	none.Variables = []delivery.JobVariable{{Key: "GIT_STRATEGY", Value: "none"}}
	want(t, b.Do(none), "success", "Skipping Git repository setup")
	wrong := b.Job("true")
	wrong.Variables = []delivery.JobVariable{{Key: "GIT_STRATEGY", Value: "copy"}}
	want(t, b.Do(wrong), "failed", `unknown GIT_STRATEGY "copy"`)
	unsafe := b.Job("true")
	unsafe.Variables = []delivery.JobVariable{{Key: "GIT_FETCH_EXTRA_FLAGS", Value: "--quiet --upload-pack=/bin/false"}}
	want(t, b.Do(unsafe), "success", "--upload-pack=/bin/false is ignored by this runner")
	missing := b.Job("true")
	missing.GitInfo.SHA = strings.Repeat("1", 40)
	want(t, b.Do(missing), "failed", "Job failed: exit code 128")
}

func testCancel(t *testing.T, b *Bench) {
	spec := b.Job("echo started", "sleep 1000")
	spec.Steps = append(spec.Steps, delivery.JobStep{Name: "after_script", Script: []string{"echo after: $CI_JOB_STATUS"}})
	b.Push(spec)
	b.Says(spec.ID, "\nstarted")
	b.Cancel(spec.ID)
	job := b.End(spec.ID)
	want(t, job, "failed", "script canceled externally (UI, API)", "after: canceled", "Job failed: canceled")
	if job.Update.FailureReason != runner.ReasonCanceled {
		t.Errorf("reported %+v", job.Update)
	}
}

func testTimeout(t *testing.T, b *Bench) {
	spec := b.Job("sleep 1000")
	spec.RunnerInfo.Timeout = 1
	job := b.Do(spec)
	want(t, job, "failed", "ERROR: Job failed: execution took longer than 1s seconds")
	if job.Update.FailureReason != runner.ReasonTimeout {
		t.Errorf("reported %+v", job.Update)
	}
	spec = b.Job("sleep 1000")
	spec.Variables = []delivery.JobVariable{{Key: "RUNNER_SCRIPT_TIMEOUT", Value: "500ms"}}
	spec.Steps = append(spec.Steps, delivery.JobStep{Name: "after_script", Script: []string{"echo cleaning"}})
	want(t, b.Do(spec), "failed", "script timeout", "cleaning")
}

func testBackground(t *testing.T, b *Bench) {
	want(t, b.Do(b.Job("sleep 1000 & echo $!", "echo left it running")), "success", "left it running")
}

func testLostTrace(t *testing.T, b *Bench) {
	b.mu.Lock()
	b.LoseTraces = 2
	b.mu.Unlock()
	want(t, b.Do(b.Job("echo told again")), "success", "\ntold again\n", "Job succeeded")
}

func testShell(t *testing.T, b *Bench) {
	want(t, b.Do(b.Job("cat <<EOF\nheredoc $((1+1))\nEOF", "for i in 1 2; do\n  echo loop $i\ndone", "", "echo \"tab\there\"", "read line || echo no input")), "success",
		"# collapsed multi-line command", "heredoc 2", "loop 2", "no input")
}

// testHostile leaves traps for the work that follows on the host.
func testHostile(t *testing.T, b *Bench) {
	spec := b.Job(`d="$CI_PROJECT_DIR"; cd ..; rm -rf "$d"; ln -s /etc "$d"`)
	spec.Artifacts = []delivery.JobArtifact{{Paths: []string{"passwd"}, Type: "archive", Format: "zip"}}
	job := b.Do(spec)
	want(t, job, "failed", "the project folder is gone")
	if job.Artifacts["archive"] != nil {
		t.Error("a file of the host was uploaded")
	}
	spec = b.Job("ln -s /etc etc", "ln -s /etc/passwd secret", "mkfifo pipe", "git config core.fsmonitor 'touch /tmp/slipway-runner-owned' || true", "echo x > ok")
	spec.Artifacts = []delivery.JobArtifact{{Paths: []string{"etc/passwd", "secret", "pipe", "ok", "../../../../etc/passwd"}, Untracked: true, Type: "archive", Format: "zip"}}
	job = b.Do(spec)
	want(t, job, "success", "artifact path is not a subpath of project directory")
	if bytes.Contains(job.Artifacts["archive"], []byte("root:")) {
		t.Error("a file of the host was uploaded")
	}
	if _, err := os.Lstat("/tmp/slipway-runner-owned"); err == nil {
		t.Error("the job's git configuration ran a command on the host")
	}
}
