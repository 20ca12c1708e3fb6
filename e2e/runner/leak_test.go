//go:build e2e

package runner_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// count is how much of everything there is that a job could leave behind.
func count(t testing.TB, h *host.Host) map[string]int {
	t.Helper()
	ctx := context.Background()
	counts := map[string]int{}
	c, err := client.New(h.Config.ContainerdSocket, client.WithDefaultNamespace("slipway-jobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	containers, err := c.Containers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	counts["containers"] = len(containers)
	steps, err := c.Containers(namespaces.WithNamespace(ctx, "buildkit"))
	if err != nil {
		t.Fatal(err)
	}
	counts["build steps"] = len(steps)
	if err := c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive {
			counts["snapshots"]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// Other instances on this host have names of their own.
	interfaces := regexp.MustCompile(` (swrj\d+|swrv[0-9a-f]{6})[:@]`)
	lines := func(name string, command ...string) {
		out, err := exec.Command(command[0], command[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, h.Dir) || interfaces.MatchString(line) {
				counts[name]++
			}
		}
	}
	lines("interfaces", "ip", "-o", "link")
	lines("mounts", "cat", "/proc/mounts")
	lines("processes", "ps", "-eo", "args")
	for name, pattern := range map[string]string{"job folders": "runner/jobs/*", "endpoints": "runner/endpoints/*", "files": "runner/containers/files/*",
		"pipes": "runner/containers/fifo/*", "namespaces": "runner/containers/netns/*"} {
		found, err := filepath.Glob(filepath.Join(h.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		counts[name] = len(found)
	}
	groups, err := exec.Command("find", "/sys/fs/cgroup", "-ignore_readdir_race", "-type", "d", "-path", "*/swr/jobs/*").Output()
	if err != nil {
		t.Fatal(err)
	}
	counts["cgroups"] = strings.Count(string(groups), "\n")
	return counts
}

// settle waits until the counts are as wanted: the kernel removes namespaces
// and interfaces a moment after their last user.
func settle(t testing.TB, h *host.Host, wanted map[string]int) {
	t.Helper()
	var now map[string]int
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now = count(t, h)
		if fmt.Sprint(now) == fmt.Sprint(wanted) {
			return
		}
	}
	t.Errorf("something was left behind:\n got %v\nwant %v", now, wanted)
}

// TestNothingLeaks runs jobs that end in every way and counts what is left.
func TestNothingLeaks(t *testing.T) {
	total := 200
	if text := os.Getenv("SLIPWAY_LEAK_JOBS"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	registry := host.Registry(t)
	b := host.Service(t, registry, nil)
	h := host.Need(t)
	b.Do(b.Job("docker version")) // what is made once is made
	// The warming job's own folder goes a moment after its report.
	before := count(t, h)
	before["job folders"] = 0
	settle(t, h, before)
	kinds := []func(int) *delivery.JobSpec{
		func(int) *delivery.JobSpec { return b.Job("true") },
		func(int) *delivery.JobSpec { return b.Job("exit 3") },
		func(int) *delivery.JobSpec { return b.Job("sleep 1000 &", "setsid sleep 1000 &", "true") },
		func(int) *delivery.JobSpec {
			spec := b.Job("sleep 1000")
			spec.RunnerInfo.Timeout = 1
			return spec
		},
		func(int) *delivery.JobSpec {
			spec := b.Job("true")
			spec.Image = &delivery.JobImage{Name: registry + "/no/such:image"}
			return spec
		},
		func(int) *delivery.JobSpec {
			spec := b.Job("getent hosts db")
			spec.Services = []delivery.JobImage{{Name: "debian:bookworm-slim", Alias: "db", Command: []string{"sleep", "1000"}}}
			return spec
		},
		func(int) *delivery.JobSpec {
			return b.Job("docker run --rm -v $PWD:/w debian:bookworm-slim true")
		},
		func(i int) *delivery.JobSpec {
			spec := b.Job("echo started", "sleep 1000")
			go func() {
				b.Says(spec.ID, "\nstarted")
				b.Cancel(spec.ID)
			}()
			return spec
		},
	}
	var ids []int64
	for i := range total {
		spec := kinds[i%len(kinds)](i)
		ids = append(ids, spec.ID)
		b.Push(spec)
	}
	failed := 0
	for _, id := range ids {
		job := b.End(id)
		if job.Update.FailureReason == "runner_system_failure" {
			failed++
			t.Errorf("job %d failed by the system:\n%s", id, runnertest.Plain(job.Trace))
		}
	}
	settle(t, h, before)
}
