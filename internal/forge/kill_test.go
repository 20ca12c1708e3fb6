package forge_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// TestMain also serves as the program that is killed in the middle of a push.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FORGE_TEST_DIR"); dir != "" {
		serveUntilKilled(dir, os.Getenv("FORGE_TEST_KILL"))
		return
	}
	os.Exit(m.Run())
}

// killer ends its own process, as kill -9 does, at a point of a push.
type killer struct {
	forge.Store
	at string
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (k killer) BeginPush(ctx context.Context, p forge.Push) (int64, error) {
	id, err := k.Store.BeginPush(ctx, p)
	if k.at == "begun" {
		die()
	}
	return id, err
}

func (k killer) FinishPush(ctx context.Context, p forge.Push, done []forge.RefUpdate) error {
	if k.at == "moved" && len(done) > 0 {
		die()
	}
	err := k.Store.FinishPush(ctx, p, done)
	if k.at == "finished" && len(done) > 0 {
		die()
	}
	return err
}

// fatal stands for a test in the program that is killed.
type fatal struct{ testing.TB }

func (fatal) Helper()           {}
func (fatal) Cleanup(func())    {}
func (fatal) Fatal(args ...any) { fmt.Fprintln(os.Stderr, args...); os.Exit(1) }

func serveUntilKilled(dir, at string) {
	w := &world{t: fatal{}, dir: dir, jobs: &fakeJobs{claims: map[string]delivery.JobClaim{}}, people: map[string]delivery.Identity{}, tokens: map[string]string{}}
	w.open(func(o *forge.Options) { o.Store = killer{o.Store, at} })
	fmt.Println(w.server.URL)
	time.Sleep(time.Minute) // the longest that the test may take
}

func TestKilledInTheMiddleOfAPush(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at     string
		events int
	}{{"begun", 0}, {"moved", 1}, {"finished", 1}} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.person("ann")
			p := w.project("ann", "", "app")
			dir := w.workingCopy(p, "ann")
			sha := strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))
			w.close()

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			child := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
			child.Env = append(os.Environ(), "FORGE_TEST_DIR="+w.dir, "FORGE_TEST_KILL="+c.at)
			child.Stderr = os.Stderr
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			address, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			url := strings.Replace(strings.TrimSpace(address), "http://", "http://ann:"+w.tokens["ann"]+"@", 1) + "/ann/app.git"
			pushed, pushErr := w.tryGit(dir, "push", url, "main")
			if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the program was not killed: %v; push said %s", err, pushed)
			}

			w.open()
			got := w.events(p)
			_, there, err := w.forge.RefExists(t.Context(), p.ID, "refs/heads/main")
			if err != nil {
				t.Fatal(err)
			}
			if there != (c.events == 1) || len(got) != c.events {
				t.Errorf("ref there: %t, events %+v, push: %v %s", there, got, pushErr, pushed)
			}
			if len(got) == 1 && (got[0].After != sha || got[0].Ref != "refs/heads/main") {
				t.Errorf("%+v", got[0])
			}
			if pushErr == nil && len(got) != 1 {
				t.Error("an acknowledged push has no event")
			}
			// A further start must not tell it again.
			if err := w.forge.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			if again := w.events(p); len(again) != c.events {
				t.Errorf("told again: %+v", again)
			}
			// And the project works on.
			w.git(dir, "push", "-q", w.url(p, "ann"), "main", "main:again")
		})
	}
}
