//go:build e2e

package runner_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/host"
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
