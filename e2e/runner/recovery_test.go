//go:build e2e

package runner_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// victimDir tells the test binary to be the runner that gets killed.
const victimDir = "SLIPWAY_TEST_VICTIM"

// TestVictim is no test: TestKilledRunner starts it as a process of its own.
func TestVictim(t *testing.T) {
	if os.Getenv(victimDir) == "" {
		t.Skip("started by TestKilledRunner only")
	}
	b := host.Service(t, host.Registry(t), nil)
	spec := b.Job("docker run --rm debian:bookworm-slim true",
		`printf 'FROM debian:bookworm-slim\nRUN echo building; sleep 1000\n' | docker build - 2>/tmp/log & while ! grep -q '[0-9] building' /tmp/log; do sleep 0.1; done`,
		"echo it runs", "sleep 1000")
	spec.Services = []delivery.JobImage{{Name: "debian:bookworm-slim", Alias: "db", Command: []string{"sleep", "1000"}}}
	b.Push(spec)
	b.Says(spec.ID, "\nit runs")
	os.Stdout.WriteString("\nthe job runs\n")
	time.Sleep(time.Hour) // until it is killed
}

// TestKilledRunner kills a runner in the middle of a job, as a reboot would,
// and starts it again: the job is reported with the reason and nothing is left.
func TestKilledRunner(t *testing.T) {
	h := host.Need(t)
	registry := host.Registry(t)
	// The counts of a runner that has done nothing.
	idle := func() map[string]int {
		var counts map[string]int
		t.Run("idle", func(t *testing.T) {
			host.Service(t, registry, nil)
			counts = count(t, h)
		})
		return counts
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command(self, "-test.run=^TestVictim$", "-test.timeout=5m")
	victim.Env = append(os.Environ(), victimDir+"=1", host.AttachVariable+"="+h.Dir)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	victim.Stderr = os.Stderr
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if lines.Text() == "the job runs" {
			break
		}
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	_ = victim.Wait() // killed
	if !strings.Contains(said.String(), "the job runs") {
		t.Fatalf("the job did not run:\n%s", said.String())
	}
	if left := count(t, h); left["containers"] < 2 || left["build steps"] < 1 {
		t.Fatalf("there is nothing to recover from: %v", left)
	}
	b := host.Service(t, registry, func(b *runnertest.Bench) {
		b.Adopt(&delivery.JobSpec{ID: 1, Token: "token-of-job-1"})
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	job, err := b.Finished(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	check(t, job, "failed", "it runs", "Job failed (system failure): the runner was stopped or restarted while the job ran")
	if job.Update.FailureReason != "runner_system_failure" {
		t.Errorf("reported %+v", job.Update)
	}
	settle(t, h, idle)
	check(t, b.Do(b.Job("echo works again")), "success", "works again")
}
