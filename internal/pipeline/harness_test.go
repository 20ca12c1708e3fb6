package pipeline_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

// world is an engine with a database, a forge in memory and an HTTP server.
type world struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	db     *store.DB
	store  *pipelinedb.Store
	forge  *pipelinetest.Forge
	clock  *pipelinetest.Clock
	engine *pipeline.Engine
	server *httptest.Server
	stop   func()
	runner *pipelinetest.Runner
	change func(*pipeline.Config)
}

func newWorld(t *testing.T, change func(*pipeline.Config)) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, dir: t.TempDir(), forge: pipelinetest.NewForge(), clock: pipelinetest.NewClock(), change: change}
	w.forge.AddProject(7, "group/app")
	w.start()
	t.Cleanup(func() { w.stop() })
	_, token, err := w.engine.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, Description: "test", RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	w.runner = &pipelinetest.Runner{URL: w.server.URL, Token: token, System: "s_1"}
	return w
}

// start opens the database and runs the engine; stop ends both.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.db, err = store.Open(w.ctx, filepath.Join(w.dir, "slipway.db"), store.WithClock(w.clock.Now))
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = pipelinedb.New(w.db)
	cfg := pipeline.Config{Store: w.store, Projects: w.forge, Users: w.forge, Repositories: pipelinetest.Repositories{Forge: w.forge},
		MergeRequests: w.forge, Clock: w.clock, Key: make([]byte, pipeline.KeySize), DataDir: w.dir, ExternalURL: "http://slipway.test:8080",
		Log: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if w.change != nil {
		w.change(&cfg)
	}
	if w.engine, err = pipeline.New(w.ctx, cfg); err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	w.engine.RegisterRunnerRoutes(mux)
	w.server = httptest.NewServer(mux)
	if w.runner != nil {
		w.runner.URL = w.server.URL
	}
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.engine.Run(ctx)
	}()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.server.CloseClientConnections()
		w.server.Close()
		cancel()
		<-done
		w.db.Close()
	}
}

// restart is what a crash and a new start leave.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// push commits files and emits the event that the forge would.
func (w *world) push(branch string, files map[string]string) string {
	w.t.Helper()
	sha, before := w.forge.Commit(7, branch, "change", files)
	err := w.db.Write(w.ctx, func(tx *store.Tx) error {
		return tx.Emit(delivery.EventPushed, 7, delivery.Pushed{Ref: "refs/heads/" + branch, Before: before, After: sha, UserID: 1})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return sha
}

// create makes a pipeline of a configuration on main.
func (w *world) create(config string) pipeline.Pipeline {
	w.t.Helper()
	w.forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": config})
	p, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// take requests a job and accepts it.
func (w *world) take() *delivery.JobSpec {
	w.t.Helper()
	spec, err := w.runner.Request(w.ctx)
	if err != nil || spec == nil {
		w.t.Fatalf("request: %v, %v", spec, err)
	}
	if code, status, err := w.runner.Update(w.ctx, spec, "running", "", 0, nil); err != nil || code != 200 || status != "running" {
		w.t.Fatalf("accept: %d %s %v", code, status, err)
	}
	return spec
}

// run takes a job and ends it.
func (w *world) run(name, state string) *delivery.JobSpec {
	w.t.Helper()
	spec := w.take()
	if name != "" && spec.JobInfo.Name != name {
		w.t.Fatalf("got job %s; want %s", spec.JobInfo.Name, name)
	}
	w.end(spec, state)
	return spec
}

func (w *world) end(spec *delivery.JobSpec, state string) {
	w.t.Helper()
	reason := ""
	if state == "failed" {
		reason = pipeline.ReasonScript
	}
	if code, _, err := w.runner.Update(w.ctx, spec, state, reason, 0, nil); err != nil || code != 200 {
		w.t.Fatalf("end of %s: %d %v", spec.JobInfo.Name, code, err)
	}
}

func (w *world) pipeline(id int64) pipeline.Pipeline {
	w.t.Helper()
	var p pipeline.Pipeline
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		var err error
		p, err = tx.Pipeline(id)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) jobs(id int64) map[string]pipeline.Job {
	w.t.Helper()
	out := map[string]pipeline.Job{}
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		jobs, err := tx.PipelineJobs(id)
		for _, j := range jobs {
			out[j.Name] = j
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// eventually waits until the condition holds, woken by events.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	for !cond() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("never happened: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (w *world) wantJobs(id int64, want map[string]string) {
	w.t.Helper()
	jobs := w.jobs(id)
	for name, status := range want {
		if jobs[name].Status != status {
			w.t.Errorf("job %s is %q; want %s", name, jobs[name].Status, status)
		}
	}
}

// createFiles is create with several files.
func (w *world) createFiles(files map[string]string) pipeline.Pipeline {
	w.t.Helper()
	w.forge.Commit(7, "main", "change", files)
	p, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) count() int {
	w.t.Helper()
	n := 0
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		var err error
		_, n, err = tx.Pipelines(pipeline.PipelineFilter{ProjectID: 7}, pipeline.Page{Limit: 1})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) emit(kind delivery.EventKind, payload any) error {
	return w.db.Write(w.ctx, func(tx *store.Tx) error { return tx.Emit(kind, 7, payload) })
}
