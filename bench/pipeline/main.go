// Command pipeline measures the CI engine on this machine: jobs through
// simulated runners over HTTP, the time until a waiting runner learns of a job,
// the intake of logs, and the list of a project with many pipelines. It prints
// one line of JSON per measurement; the last field says whether the bound holds.
//
// Everything runs in this process on 127.0.0.1 with its own data directory,
// which is removed at the end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

func main() {
	only := flag.String("only", "", "measure one of: jobs, wakeup, traces, list")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	ok := true
	for _, m := range []struct {
		name string
		fn   func(context.Context, *bench) (result, error)
	}{{"jobs", jobs}, {"wakeup", wakeup}, {"traces", traces}, {"list", list}} {
		if *only != "" && *only != m.name {
			continue
		}
		r, err := measure(ctx, m.fn)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err)
			os.Exit(1)
		}
		r.Name = "pipeline/" + m.name
		line, err := json.Marshal(r)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(string(line))
		ok = ok && r.Holds
	}
	if !ok {
		pprof.StopCPUProfile()
		os.Exit(2)
	}
}

type result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Bound string  `json:"bound"`
	Note  string  `json:"note,omitempty"`
	Holds bool    `json:"holds"`
}

type bench struct {
	engine *pipeline.Engine
	forge  *pipelinetest.Forge
	db     *store.DB
	url    string
	client *http.Client
	token  string
}

// measure runs fn on a fresh engine.
func measure(parent context.Context, fn func(context.Context, *bench) (result, error)) (r result, err error) {
	dir, err := os.MkdirTemp("", "slipway-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(parent)
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		cancel()
		return r, err
	}
	b := &bench{db: db, forge: pipelinetest.NewForge(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	b.forge.AddProject(7, "group/app")
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	b.url = srv.URL
	b.engine, err = pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: b.forge, Users: b.forge,
		Repositories: pipelinetest.Repositories{Forge: b.forge}, Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: srv.URL})
	if err != nil {
		cancel()
		return r, err
	}
	b.engine.RegisterRunnerRoutes(mux)
	done := make(chan struct{})
	go func() { defer close(done); b.engine.Run(ctx) }()
	defer func() {
		cancel()
		srv.CloseClientConnections()
		srv.Close()
		<-done
		err = errors.Join(err, db.Close())
	}()
	_, b.token, err = b.engine.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, Description: "bench", RunUntagged: true})
	if err != nil {
		return r, err
	}
	return fn(ctx, b)
}

func (b *bench) runner(n int) *pipelinetest.Runner {
	return &pipelinetest.Runner{URL: b.url, Token: b.token, System: fmt.Sprintf("s_%d", n), Client: b.client}
}

func (b *bench) create(ctx context.Context, config string) error {
	b.forge.Commit(7, "main", "bench", map[string]string{".gitlab-ci.yml": config})
	_, err := b.engine.Create(ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
	return err
}

// parallelism is the most instances one job may have.
const parallelism = 200

// jobs sends 1,000 empty jobs of one pipeline through 8 runners: request,
// accept, one piece of log, end.
func jobs(ctx context.Context, b *bench) (result, error) {
	const total, runners = 1000, 8
	var config strings.Builder
	for i := range total / parallelism {
		fmt.Fprintf(&config, "job%d: {script: 'true', parallel: %d}\n", i, parallelism)
	}
	if err := b.create(ctx, config.String()); err != nil {
		return result{}, err
	}
	var wg sync.WaitGroup
	errs := make([]error, runners)
	work := make(chan struct{}, total)
	for range total {
		work <- struct{}{}
	}
	close(work)
	start := time.Now()
	for i := range runners {
		wg.Go(func() {
			r := b.runner(i)
			log := []byte("done\n")
			for range work {
				spec, err := r.Request(ctx)
				if err == nil && spec == nil {
					err = errors.New("no job")
				}
				if err == nil {
					err = want(200)(r.Update(ctx, spec, "running", "", 0, nil))
				}
				if err == nil {
					err = want(202)(r.Trace(ctx, spec, 0, log))
				}
				if err == nil {
					err = want(200)(r.Update(ctx, spec, "success", "", 0, log))
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	elapsed := time.Since(start)
	p, err := b.engine.ProjectPipeline(ctx, 7, 1)
	if err != nil || p.Status != "success" {
		return result{}, fmt.Errorf("the pipeline is %s: %w", p.Status, err)
	}
	rate := total / elapsed.Seconds()
	return result{Value: rate, Unit: "jobs/s", Bound: ">= 300", Note: fmt.Sprintf("%d jobs of one pipeline, %d runners over HTTP", total, runners), Holds: rate >= 300}, nil
}

func want(code int) func(int, string, error) error {
	return func(got int, _ string, err error) error {
		if err == nil && got != code {
			err = fmt.Errorf("status %d instead of %d", got, code)
		}
		return err
	}
}

// wakeup measures the time from the request for a pipeline of one job to that
// job's arrival at a runner that is waiting.
func wakeup(ctx context.Context, b *bench) (result, error) {
	const rounds = 300
	r := b.runner(1)
	var times []time.Duration
	for range rounds {
		got := make(chan error, 1)
		var spec *delivery.JobSpec
		go func() {
			var err error
			spec, err = r.Request(ctx)
			got <- err
		}()
		time.Sleep(5 * time.Millisecond) // the runner is waiting by now
		b.forge.Commit(7, "main", "bench", map[string]string{".gitlab-ci.yml": "job: {script: 'true'}"})
		start := time.Now()
		if _, err := b.engine.Create(ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb}); err != nil {
			return result{}, err
		}
		if err := <-got; err != nil || spec == nil {
			return result{}, fmt.Errorf("no job: %w", err)
		}
		times = append(times, time.Since(start))
		if err := want(200)(r.Update(ctx, spec, "running", "", 0, nil)); err != nil {
			return result{}, err
		}
		if err := want(200)(r.Update(ctx, spec, "success", "", 0, nil)); err != nil {
			return result{}, err
		}
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	ms := float64(p99.Microseconds()) / 1000
	return result{Value: ms, Unit: "ms p99", Bound: "<= 50", Note: fmt.Sprintf("from the request for the pipeline to the job at the runner; median %.1f ms", float64(times[len(times)/2].Microseconds())/1000), Holds: p99 <= 50*time.Millisecond}, nil
}

// traces sends logs of 20 jobs at once, with masked variables to look for.
func traces(ctx context.Context, b *bench) (result, error) {
	const writers, piece, pieces = 20, 512 << 10, 60
	for i := range 5 {
		v := pipeline.Variable{Owner: pipeline.OwnerInstance, Key: fmt.Sprintf("SECRET_%d", i), Value: fmt.Sprintf("a-secret-value-%d", i), Masked: true}
		if err := b.engine.CheckVariable(&v); err != nil {
			return result{}, err
		}
		if err := b.engine.Update(ctx, func(tx pipeline.Tx) error { return tx.InsertVariable(&v) }); err != nil {
			return result{}, err
		}
	}
	if err := b.create(ctx, fmt.Sprintf("job: {script: 'true', parallel: %d}", writers)); err != nil {
		return result{}, err
	}
	specs := make([]*delivery.JobSpec, writers)
	for i := range specs {
		r := b.runner(i)
		var err error
		if specs[i], err = r.Request(ctx); err != nil || specs[i] == nil {
			return result{}, fmt.Errorf("no job: %w", err)
		}
		if err := want(200)(r.Update(ctx, specs[i], "running", "", 0, nil)); err != nil {
			return result{}, err
		}
	}
	line := []byte(strings.Repeat("2026-11-23T05:28:45.495403Z 01O compiling a file of the project, nothing to see here\n", piece/85+1))[:piece]
	errs := make([]error, writers)
	var wg sync.WaitGroup
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := range writers {
		wg.Go(func() {
			r := b.runner(i)
			for n := range pieces {
				if err := want(202)(r.Trace(ctx, specs[i], int64(n*piece), line)); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	rate := float64(writers*piece*pieces) / elapsed.Seconds() / 1e6
	grown := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / 1e6
	return result{Value: rate, Unit: "MB/s", Bound: ">= 50", Note: fmt.Sprintf("%d jobs, %d MB in all, 5 masked values; heap %+.1f MB, %.0f MB from the system", writers, writers*piece*pieces/1000000, grown, float64(after.Sys)/1e6), Holds: rate >= 50}, nil
}

// list measures the first page of a project with 100,000 pipelines.
func list(ctx context.Context, b *bench) (result, error) {
	const total = 100000
	s := pipelinedb.New(b.db)
	for i := 0; i < total; i += 1000 {
		if err := s.Update(ctx, func(tx pipeline.Tx) error {
			for n := range 1000 {
				p := pipeline.Pipeline{ProjectID: 7, Ref: "main", SHA: fmt.Sprintf("%040x", i+n), Source: "push", Status: "success", UserID: 1, Key: fmt.Sprintf("bench:%d", i+n),
					Stages: []pipeline.StageStatus{{Name: "build", Status: "success"}, {Name: "test", Status: "success"}}, Facts: map[string]string{"CI_COMMIT_TITLE": "a commit"}}
				if err := tx.InsertPipeline(&p); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return result{}, err
		}
	}
	child := false
	var times []time.Duration
	for range 100 {
		start := time.Now()
		page, n, err := b.engine.Pipelines(ctx, pipeline.PipelineFilter{ProjectID: 7, Child: &child}, pipeline.Page{Limit: 20})
		if err != nil || len(page) != 20 || n != total {
			return result{}, fmt.Errorf("%d of %d: %w", len(page), n, err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	p99 := times[98]
	ms := float64(p99.Microseconds()) / 1000
	return result{Value: ms, Unit: "ms p99", Bound: "<= 50", Note: fmt.Sprintf("first page of %d pipelines with the count; median %.1f ms", total, float64(times[50].Microseconds())/1000), Holds: ms <= 50}, nil
}
