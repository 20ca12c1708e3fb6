package local_test

import (
	"testing"

	"github.com/slipwayhq/slipway/internal/runner/local"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	runnertest.Run(t, runnertest.Setup{Executor: local.New()})
}
