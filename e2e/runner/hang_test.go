//go:build e2e

package runner_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// TestHungContainerd stops containerd in the middle of a job: the job's timeout
// ends it with the reason and gives its place to the next, and what it left is
// removed when containerd goes on.
func TestHungContainerd(t *testing.T) {
	h := host.Need(t)
	executor := h.Executor(t, func(c *containerd.Config) { c.AnswerTimeout = 2 * time.Second })
	b := runnertest.Start(t, runnertest.Setup{Executor: executor, BuildsDir: containerd.BuildsDir, Image: "debian:bookworm-slim", Deadline: host.Deadline},
		func(c *runner.Config) { c.Concurrent, c.CloseTimeout = 1, 2*time.Second })
	idle := count(t, h)
	script, setup := b.Job("echo it runs", "sleep 1000"), b.Job("true")
	script.RunnerInfo.Timeout, setup.RunnerInfo.Timeout = 4, 2
	b.Push(script)
	b.Says(script.ID, "\nit runs")
	h.Signal(t, syscall.SIGSTOP)
	defer h.Signal(t, syscall.SIGCONT) // however the test ends
	job := b.End(script.ID)
	check(t, job, "failed", "containerd does not answer", "execution took longer than 4s seconds")
	if job.Update.FailureReason != runner.ReasonTimeout {
		t.Errorf("reported %+v", job.Update)
	}
	check(t, b.Do(setup), "failed", "execution took longer than 2s seconds")
	h.Signal(t, syscall.SIGCONT)
	settle(t, h, idle)
	check(t, b.Do(b.Job("echo works again")), "success", "works again")
}

// TestHungBuildkitd stops buildkitd between two builds: the second one gets
// another.
func TestHungBuildkitd(t *testing.T) {
	h := host.Need(t)
	b := host.Service(t, host.Registry(t), nil)
	build := func() *delivery.JobSpec {
		return b.Job("printf 'FROM debian:bookworm-slim\\nRUN echo it-builds\\n' >Dockerfile", "docker build --no-cache --progress plain .")
	}
	check(t, b.Do(build()), "success", "it-builds")
	raw, err := os.ReadFile(filepath.Join(h.Dir, "runner", "buildkit", "buildkitd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	check(t, b.Do(build()), "success", "it-builds")
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the stopped buildkitd %d is still there", pid)
	}
}
