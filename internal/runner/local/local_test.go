package local_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/local"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	runnertest.Run(t, runnertest.Setup{Executor: local.New()})
}

// TestJobsThatWaitForMemoryStayPending: the second job is not accepted while the
// first has all the memory, says what it waits for, and can be canceled.
func TestJobsThatWaitForMemoryStayPending(t *testing.T) {
	t.Parallel()
	b := runnertest.Start(t, runnertest.Setup{Executor: local.New()}, func(c *runner.Config) {
		c.MemoryBudget, c.Limits.Memory = 1_600_000_000, 1_000_000_000
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	gate := filepath.Join(t.TempDir(), "gate")
	first := b.Job("echo begun", "while [ ! -e "+gate+" ]; do sleep 0.02; done")
	second, third := b.Job("echo at last"), b.Job("true")
	b.Push(first)
	b.Says(first.ID, "\nbegun")
	b.Push(second)
	b.Push(third)
	// It says so again and again, which keeps the offer.
	waiting, err := b.Wait(ctx, second.ID, func(j runnertest.Job) bool { return len(j.Waiting) > 1 })
	if err != nil {
		t.Fatal(err)
	}
	if waiting.Status != "pending" || waiting.Waiting[0] != "waiting for 1.0 GB, 0.6 GB free" {
		t.Errorf("the job is %s, waiting for %q", waiting.Status, waiting.Waiting)
	}
	b.Cancel(second.ID)
	if _, err := b.Wait(ctx, third.ID, func(j runnertest.Job) bool { return len(j.Waiting) > 0 }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if job := b.End(third.ID); job.Status != "success" || !strings.Contains(runnertest.Plain(job.Trace), "Job was waiting for 1.0 GB, 0.6 GB free") {
		t.Errorf("the job is %s:\n%s", job.Status, runnertest.Plain(job.Trace))
	}
	b.End(first.ID)
}
