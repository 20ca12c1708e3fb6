package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipwayhq/slipway/internal/runner"
)

// TestAProcessThatNeverComes has containerd not answer to the creation of a
// job's first process: the job's time ends the wait, and what is left is
// removed when the answer comes.
func TestAProcessThatNeverComes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "1")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		e := &Executor{left: newLeftovers(20 * time.Second), config: Config{AnswerTimeout: 20 * time.Second}}
		e.left.start()
		defer e.left.stop()
		pending := make(chan launched, 1)
		env := &environment{executor: e, dir: dir, pending: pending, request: runner.EnvironmentRequest{JobID: 1, Log: quietLog()}}
		over := errors.New("the time is over")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, over)
		defer cancel()
		if err := env.Exec(ctx, runner.Script{}); !errors.Is(err, over) {
			t.Errorf("the script ended with %v", err)
		}
		closing, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := env.Close(closing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closed with %v", err)
		}
		pending <- launched{err: errors.New("transport is closing")}
		time.Sleep(time.Minute)
		e.left.mu.Lock()
		defer e.left.mu.Unlock()
		if len(e.left.list) != 0 {
			t.Error("the environment is still there")
		}
	})
}

func TestOutlast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		lasting, cancel := outlast(ctx, 20*time.Second)
		defer cancel()
		time.Sleep(time.Hour)
		if lasting.Err() != nil {
			t.Error("ended before the other did")
		}
		end()
		time.Sleep(19 * time.Second)
		if lasting.Err() != nil {
			t.Error("ended at once")
		}
		time.Sleep(2 * time.Second)
		if lasting.Err() == nil {
			t.Error("did not end")
		}
	})
}
