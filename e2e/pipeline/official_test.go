//go:build e2e

// Package pipeline_test drives the pipeline engine with the official GitLab
// Runner: registration, jobs, logs, artifacts between jobs and cancellation.
//
// It owns nothing. It needs the runner's program, named by
// SLIPWAY_GITLAB_RUNNER or found in PATH, and skips, saying so, without it.
package pipeline_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

const config = `
stages: [build, test, slow]
variables: {GIT_STRATEGY: none, GREETING: "hello from $CI_PROJECT_PATH"}
build:
  stage: build
  before_script: ["mkdir -p out"]
  script:
    - echo "$GREETING"
    - echo "the secret is $SECRET"
    - echo made > out/file.txt
    - echo "VERSION=1.2.3" > build.env
    - echo '<testsuite><testcase name="works" time="0.1"/></testsuite>' > junit.xml
  after_script: ["echo after"]
  artifacts: {paths: [out], reports: {dotenv: build.env, junit: junit.xml}}
test:
  stage: test
  script: ["cat out/file.txt", "test \"$VERSION\" = 1.2.3"]
fails:
  stage: test
  allow_failure: {exit_codes: [7]}
  script: ["exit 7"]
sleeper:
  stage: slow
  script: ["echo started", "sleep 300"]
`

// program finds the official runner.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SLIPWAY_GITLAB_RUNNER")
	if path == "" {
		found, err := exec.LookPath("gitlab-runner")
		if err != nil {
			t.Skip("no gitlab-runner in PATH: set SLIPWAY_GITLAB_RUNNER to its program")
		}
		path = found
	}
	return path
}

// server is an engine with one project and an HTTP address.
func server(t *testing.T, ctx context.Context) (*pipeline.Engine, *pipelinetest.Forge, string) {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	forge := pipelinetest.NewForge()
	forge.AddProject(7, "group/app")
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	e, err := pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: forge, Users: forge, Repositories: pipelinetest.Repositories{Forge: forge},
		Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	e.RegisterRunnerRoutes(mux)
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); e.Run(run) }()
	t.Cleanup(func() {
		cancel()
		<-done
		srv.CloseClientConnections()
		srv.Close()
		db.Close()
	})
	return e, forge, srv.URL
}

func TestOfficialRunner(t *testing.T) {
	bin := program(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	e, forge, url := server(t, ctx)
	secret := pipeline.Variable{Owner: pipeline.OwnerProject, OwnerID: 7, Key: "SECRET", Value: "hunter2-hunter2", Masked: true}
	if err := e.CheckVariable(&secret); err != nil {
		t.Fatal(err)
	}
	if err := e.Update(ctx, func(tx pipeline.Tx) error { return tx.InsertVariable(&secret) }); err != nil {
		t.Fatal(err)
	}
	_, token, err := e.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.ProjectRunner, OwnerID: 7, Description: "official", RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	settings := filepath.Join(home, "config.toml")
	register := exec.CommandContext(ctx, bin, "register", "--non-interactive", "--config", settings, "--url", url, "--token", token, "--executor", "shell", "--shell", "bash")
	register.Env = append(os.Environ(), "HOME="+home)
	if out, err := register.CombinedOutput(); err != nil {
		t.Fatalf("register: %v\n%s", err, out)
	}
	runner := exec.Command(bin, "run", "--config", settings, "--working-directory", home)
	runner.Env = append(os.Environ(), "HOME="+home)
	runner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(home, "runner.log"))
	if err != nil {
		t.Fatal(err)
	}
	runner.Stdout, runner.Stderr = log, log
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-runner.Process.Pid, syscall.SIGKILL)
		runner.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("runner's log:\n%s", text)
		}
	})
	forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": config})
	p, err := e.Create(ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
	if err != nil {
		t.Fatal(err)
	}
	jobs := wait(t, ctx, e, p.ID, func(jobs map[string]pipeline.Job) bool { return jobs["sleeper"].Status == "running" })
	for name, status := range map[string]string{"build": "success", "test": "success", "fails": "failed"} {
		if jobs[name].Status != status {
			t.Errorf("%s is %s; want %s\n%s", name, jobs[name].Status, status, text(t, ctx, e, jobs[name]))
		}
	}
	if j := jobs["fails"]; j.ExitCode != 7 || !j.AllowFailure || j.FailureReason != pipeline.ReasonScript {
		t.Errorf("the failed job: exit code %d, allowed %v, %s", j.ExitCode, j.AllowFailure, j.FailureReason)
	}
	build := text(t, ctx, e, jobs["build"])
	if !strings.Contains(build, "hello from group/app") || !strings.Contains(build, "after") || strings.Contains(build, "hunter2") || !strings.Contains(build, "section_start") {
		t.Errorf("log of build:\n%s", build)
	}
	if report, err := e.TestReport(ctx, p.ID); err != nil || report.TotalCount != 1 {
		t.Errorf("test report %+v %v", report, err)
	}
	if _, err := e.CancelPipeline(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, ctx, e, p.ID, func(jobs map[string]pipeline.Job) bool { return jobs["sleeper"].Status == "canceled" })
	got, err := e.ProjectPipeline(ctx, 7, p.ID)
	if err != nil || got.Status != "canceled" {
		t.Errorf("pipeline is %s, %v", got.Status, err)
	}
}

// wait follows the pipeline until its jobs are as wanted.
func wait(t *testing.T, ctx context.Context, e *pipeline.Engine, id int64, ok func(map[string]pipeline.Job) bool) map[string]pipeline.Job {
	t.Helper()
	for {
		changed := e.Changed(id)
		g, err := e.Graph(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		jobs := map[string]pipeline.Job{}
		for _, s := range g.Stages {
			for _, group := range s.Groups {
				for _, j := range group.Jobs {
					jobs[j.Name] = j
				}
			}
		}
		if ok(jobs) {
			return jobs
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for name, j := range jobs {
				t.Logf("%s is %s", name, j.Status)
			}
			t.Fatal("the pipeline did not get there in time")
		}
	}
}

func text(t *testing.T, ctx context.Context, e *pipeline.Engine, j pipeline.Job) string {
	t.Helper()
	l, err := e.OpenLog(ctx, &j)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := io.ReadAll(io.NewSectionReader(l, 0, l.Size))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
