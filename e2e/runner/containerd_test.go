//go:build e2e

// Package runner_test runs the built-in runner against a real containerd and a
// real BuildKit. It needs root and the programs of bin/; without them it is
// skipped.
package runner_test

import (
	"os"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

func TestMain(m *testing.M) { os.Exit(host.Main(m)) }

func TestConformance(t *testing.T) {
	h := host.Need(t)
	runnertest.Run(t, runnertest.Setup{Executor: h.Executor(t, nil), BuildsDir: containerd.BuildsDir, Image: "debian:bookworm-slim"})
}
