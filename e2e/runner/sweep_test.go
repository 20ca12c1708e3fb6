//go:build e2e

package runner_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// TestSweep removes an image that no job used for long, and none before.
func TestSweep(t *testing.T) {
	h := host.Need(t)
	t.Cleanup(func() { h.ImportBase(t) })
	e := h.Executor(t, nil)
	b := runnertest.Start(t, runnertest.Setup{Executor: e, BuildsDir: containerd.BuildsDir, Image: "debian:bookworm-slim"}, nil)
	check(t, b.Do(b.Job("true")), "success")
	ctx := context.Background()
	if removed, err := e.Sweep(ctx, time.Now().Add(6*24*time.Hour)); err != nil || slices.Contains(removed, host.BaseImage) {
		t.Fatalf("removed %v: %v", removed, err)
	}
	if removed, err := e.Sweep(ctx, time.Now().Add(8*24*time.Hour)); err != nil || !slices.Contains(removed, host.BaseImage) {
		t.Fatalf("removed %v: %v", removed, err)
	}
	job := b.Do(b.Job("true"))
	check(t, job, "failed", "failed to pull image")
	if job.Update.FailureReason != "image_pull_failure" {
		t.Errorf("reported %+v", job.Update)
	}
}
