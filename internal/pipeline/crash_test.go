package pipeline_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

const crashJobs = 40

// crashServer is the program that TestKilledServer kills: an engine on a data
// directory, with a push of a pipeline of crashJobs jobs in two stages.
func crashServer(dir string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		return err
	}
	forge := pipelinetest.NewForge()
	forge.AddProject(7, "group/app")
	sha, before := forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": fmt.Sprintf(
		"stages: [one, two]\none: {stage: one, script: x, parallel: %d}\ntwo: {stage: two, script: x, parallel: %d}\n", crashJobs/2, crashJobs/2)})
	s := pipelinedb.New(db)
	e, err := pipeline.New(ctx, pipeline.Config{Store: s, Projects: forge, Users: forge, Repositories: pipelinetest.Repositories{Forge: forge},
		Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: "http://slipway.test", LongPoll: time.Second})
	if err != nil {
		return err
	}
	token := filepath.Join(dir, "token")
	if _, err := os.Stat(token); errors.Is(err, os.ErrNotExist) {
		_, secret, err := e.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, RunUntagged: true})
		if err != nil {
			return err
		}
		if err := os.WriteFile(token, []byte(secret), 0o600); err != nil {
			return err
		}
		if err := db.Write(ctx, func(tx *store.Tx) error {
			return tx.Emit(delivery.EventPushed, 7, delivery.Pushed{Ref: "refs/heads/main", Before: before, After: sha, UserID: 1})
		}); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	e.RegisterRunnerRoutes(mux)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go e.Run(ctx)
	fmt.Println("http://" + l.Addr().String())
	return http.Serve(l, mux)
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("SLIPWAY_TEST_CRASH_SERVER"); dir != "" {
		fmt.Fprintln(os.Stderr, crashServer(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// startCrashServer starts the program and returns its address and a function
// that kills it without warning.
func startCrashServer(t *testing.T, ctx context.Context, dir string) (string, func()) {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "SLIPWAY_TEST_CRASH_SERVER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kill := func() {
		once.Do(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	t.Cleanup(kill)
	return strings.TrimSpace(line), kill
}

// TestKilledServer kills the server again and again while runners work: what
// it acknowledged must stay, and no finished job may run again.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	dir := t.TempDir()
	url, kill := startCrashServer(t, ctx, dir)
	secret, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	finished := map[int64]bool{} // by acknowledgement
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r := &pipelinetest.Runner{URL: url, Token: string(secret), System: "s_1", Client: client}
	var held *delivery.JobSpec // accepted, its end not acknowledged
	deaths := 0
	restart := func() {
		kill()
		deaths++
		r.URL, kill = startCrashServer(t, ctx, dir)
	}
	for calls := 1; len(finished) < crashJobs; calls++ {
		if ctx.Err() != nil {
			t.Fatalf("only %d jobs ended after %d deaths", len(finished), deaths)
		}
		if calls%9 == 0 && deaths < 8 { // in the middle of a call
			go func(kill func(), after time.Duration) {
				time.Sleep(after)
				kill()
			}(kill, time.Duration(calls%5)*time.Millisecond)
		}
		if held == nil {
			spec, err := r.Request(ctx)
			if err != nil {
				restart()
				continue
			}
			if spec == nil {
				continue
			}
			if finished[spec.ID] {
				t.Fatalf("job %d ran again after it had ended", spec.ID)
			}
			code, status, err := r.Update(ctx, spec, "running", "", 0, nil)
			if err != nil {
				restart()
				// Whether the job was accepted is open: the server says.
				if code, _, err = r.Update(ctx, spec, "running", "", 0, nil); err != nil || code != 200 && code != 403 {
					t.Fatalf("after a restart: %d %v", code, err)
				}
			}
			if code == 200 && (status == "running" || status == "") {
				held = spec
			}
			continue
		}
		code, _, err := r.Update(ctx, held, "success", "", 0, nil)
		if err != nil {
			restart()
			continue
		}
		if code != 200 {
			t.Fatalf("the end of job %d, which was acknowledged as running, is refused: %d", held.ID, code)
		}
		finished[held.ID] = true
		held = nil
	}
	kill()
	if deaths == 0 {
		t.Error("the server never died")
	}
	checkAfterCrash(t, dir)
}

// checkAfterCrash reads the database that the killed server left.
func checkAfterCrash(t *testing.T, dir string) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(dir, "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := pipelinedb.New(db)
	err = s.View(t.Context(), func(tx pipeline.Tx) error {
		list, n, err := tx.Pipelines(pipeline.PipelineFilter{ProjectID: 7}, pipeline.Page{Limit: 10})
		if err != nil || n != 1 || list[0].Status != "success" {
			t.Errorf("%d pipelines, %+v, %v", n, list, err)
		}
		jobs, all, err := tx.Jobs(pipeline.JobFilter{ProjectID: 7, Retried: true}, pipeline.Page{Limit: 1000})
		if all != crashJobs {
			t.Errorf("%d jobs; want %d", all, crashJobs)
		}
		for _, j := range jobs {
			if j.Status != "success" {
				t.Errorf("job %d is %s", j.ID, j.Status)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int64]int{}
	ctx, cancel := context.WithCancel(t.Context())
	err = db.Consume(ctx, "test", nil, func(_ context.Context, ev delivery.Event) error {
		var change delivery.JobChanged
		if ev.Kind == delivery.EventJobChanged {
			if err := ev.Decode(&change); err != nil {
				return err
			}
			if change.Status == "success" {
				ends[change.ID]++
			}
		}
		if ev.Kind == delivery.EventPipelineChanged {
			var p delivery.PipelineChanged
			if err := ev.Decode(&p); err != nil {
				return err
			}
			if p.Status == "success" {
				cancel()
			}
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for id, n := range ends {
		if n != 1 {
			t.Errorf("job %d has %d events of its end", id, n)
		}
	}
	if len(ends) != crashJobs {
		t.Errorf("%d jobs have an event of their end", len(ends))
	}
}
