//go:build e2e

package runner_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

// fillers are scripts that fill the disk in every place that a job can write
// to.
const fillers = `
builds: {script: ["echo fills", "dd if=/dev/zero of=big bs=1M", "sleep 60"]}
rootfs: {script: ["dd if=/dev/zero of=/big bs=1M || true", "sleep 60"]}
small: {script: ["for i in $(seq 100000); do head -c 2000000 /dev/zero > file$i || exit 1; done", "sleep 60"]}
log: {script: ["sleep 0.2; dd if=/dev/zero of=big bs=1M & while true; do echo a line of the log; done"]}
`

// TestFullDisk gives the platform's store and the runner a small disk of their
// own and lets jobs fill it: each fails with a clear word, the store is whole,
// and the next job works.
func TestFullDisk(t *testing.T) {
	host.Need(t)
	dir, err := os.MkdirTemp("", "sw-disk-")
	if err != nil {
		t.Fatal(err)
	}
	release, err := host.Claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(dir), release()); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=700m"); err != nil {
		t.Skipf("cannot mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := host.Start(t, filepath.Join(dir, "data"))
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	forge := pipelinetest.NewForge()
	forge.AddProject(7, "group/app")
	engine, err := pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: forge, Users: forge, Repositories: pipelinetest.Repositories{Forge: forge},
		MergeRequests: forge, Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: "http://slipway.test:8080", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- engine.Run(running) }()
	session, err := engine.EnsureBuiltinRunner(ctx, "built-in", nil, 0, delivery.RunnerInfo{})
	if err != nil {
		t.Fatal(err)
	}
	e := h.Executor(t, func(c *containerd.Config) { c.Network.Instance = "swf" })
	r, err := runner.New(runner.Config{Dir: filepath.Join(dir, "runner"), BuildsDir: containerd.BuildsDir, Session: session, Name: "test", Concurrent: 1,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, engine, e)
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- r.Run(running) }()
	defer func() {
		stop()
		<-done
		<-done
	}()

	run := func(config string) map[string]pipeline.Job {
		t.Helper()
		// Without a repository there is nothing to check out.
		forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": "variables: {GIT_STRATEGY: none}\n" + config})
		p, err := engine.Create(ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
		if err != nil {
			t.Fatal(err)
		}
		for {
			changed := engine.ProjectChanged(7)
			jobs, ended := map[string]pipeline.Job{}, true
			if err := engine.View(ctx, func(tx pipeline.Tx) error {
				list, err := tx.PipelineJobs(p.ID)
				for _, j := range list {
					jobs[j.Name] = j
					ended = ended && (j.Status == "success" || j.Status == "failed")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if ended {
				return jobs
			}
			select {
			case <-changed:
			case <-time.After(time.Second):
			case <-ctx.Done():
				t.Fatalf("the jobs did not end: %+v", jobs)
			}
		}
	}
	for name, j := range run(fillers) {
		opened, err := engine.OpenLog(ctx, &j)
		if err != nil {
			t.Fatal(err)
		}
		log, err := io.ReadAll(io.NewSectionReader(opened, 0, opened.Size))
		if err := errors.Join(err, opened.Close()); err != nil {
			t.Fatal(err)
		}
		plain := runnertest.Plain(log)
		if j.Status != "failed" || j.FailureReason != "runner_system_failure" || !strings.Contains(plain, "no space left on the runner's disk") {
			t.Errorf("%s is %s, %s:\n%s", name, j.Status, j.FailureReason, plain[max(0, len(plain)-1500):])
		}
	}
	verdict := ""
	if err := db.Read(ctx, func(tx *store.Tx) error { return tx.QueryRow("PRAGMA integrity_check").Scan(&verdict) }); err != nil || verdict != "ok" {
		t.Errorf("the store: %q, %v", verdict, err)
	}
	if after := run("next: {script: ['echo works again']}")["next"]; after.Status != "success" {
		t.Errorf("the next job is %s, %s", after.Status, after.FailureReason)
	}
}
