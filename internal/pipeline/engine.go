package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
)

// Config is what an Engine needs. Store, Projects, Users, Repositories, Key,
// DataDir and ExternalURL are required.
type Config struct {
	Store         Store
	Projects      Projects
	Users         Users
	Repositories  Repositories
	MergeRequests MergeRequests // nil: no merge request pipelines
	Releases      Releases      // nil: release jobs fail with a reason
	Clock         Clock         // nil: the system's
	Log           *slog.Logger  // nil: none
	Key           []byte        // KeySize bytes that seal variables and secrets
	DataDir       string        // traces/ and artifacts/ are made in it
	ExternalURL   string        // scheme://host[:port] of the platform, without a slash at the end
	RegistryHost  string        // host[:port] of the image registry; empty: that of ExternalURL
	SSHHost       string
	SSHPort       int
	Version       string
	Templates     func(name string) ([]byte, error) // files of include:template; fs.ErrNotExist for others
	HTTPClient    *http.Client                      // for include:remote; nil: a client with limits

	ArtifactExpiry time.Duration // of artifacts that name none; 0: 30 days; negative: never
	ArtifactLimit  int64         // bytes of one upload; 0: 5 GiB
	TraceLimit     int64         // bytes of one trace; 0: 100 MiB
	LongPoll       time.Duration // how long a request for a job may wait; 0: 50 s
	Clusters       Clusters      // nil: jobs get no access to a cluster
}

// Engine runs pipelines. Create it with New, let Run run, and register its
// HTTP routes. Its methods are safe for concurrent use.
type Engine struct {
	cfg     Config
	store   Store
	clock   Clock
	log     *slog.Logger
	seal    *seal.Box
	queue   *queue
	wheel   *wheel
	keysMu  sync.Mutex
	keys    *tokenKeys      // nil until needed
	live    map[int64]*live // used by the store's one writer only
	work    chan struct{}   // wakes the goroutine that starts downstream pipelines
	watch   watchers        // of logs, by job
	changes watchers        // of pipelines by number, of projects by their number negated
	server  serverFacts
	mirrors atomic.Bool // jobs may wait for the status of another pipeline
	files   sync.Mutex  // held while stored files are added or removed

	mu      sync.Mutex
	runs    map[int64]*run   // running jobs by number
	offers  map[int64]*offer // jobs that were handed out and not accepted yet
	runners map[string]*Runner
	touched map[string]time.Time // when a runner process was last noted
}

// serverFacts are the parts of the external address that variables show.
type serverFacts struct {
	protocol, fqdn, host, port string
}

// New returns an engine. It starts nothing.
func New(_ context.Context, cfg Config) (*Engine, error) {
	if cfg.Clock == nil {
		cfg.Clock = SystemClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.ArtifactExpiry, 30*24*time.Hour)
	setDefault(&cfg.LongPoll, 50*time.Second)
	setDefault(&cfg.ArtifactLimit, 5<<30)
	setDefault(&cfg.TraceLimit, 100<<20)
	u, err := url.Parse(cfg.ExternalURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("pipeline: external URL %q: want scheme://host[:port]", cfg.ExternalURL)
	}
	cfg.ExternalURL = strings.TrimRight(cfg.ExternalURL, "/")
	setDefault(&cfg.RegistryHost, u.Host)
	setDefault(&cfg.SSHHost, u.Hostname())
	setDefault(&cfg.SSHPort, 22)
	setDefault(&cfg.Version, "0.0.0")
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{Timeout: 20 * time.Second}
	}
	box, err := seal.New(cfg.Key)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, store: cfg.Store, clock: cfg.Clock, log: cfg.Log, seal: box,
		queue: newQueue(), wheel: newWheel(cfg.Clock), live: map[int64]*live{}, work: make(chan struct{}, 1),
		runs: map[int64]*run{}, offers: map[int64]*offer{}, runners: map[string]*Runner{}, touched: map[string]time.Time{},
		server: serverFacts{protocol: u.Scheme, fqdn: u.Host, host: u.Hostname(), port: u.Port()},
	}
	if e.server.port == "" {
		e.server.port = map[string]string{"https": "443"}[u.Scheme]
		if e.server.port == "" {
			e.server.port = "80"
		}
	}
	return e, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func (e *Engine) tracePath(j *Job) string {
	return filepath.Join(e.cfg.DataDir, "traces", strconv.FormatInt(j.ProjectID, 10), strconv.FormatInt(j.ID/1000, 10), strconv.FormatInt(j.ID, 10)+".log")
}

func (e *Engine) artifactPath(sha256 string) string {
	return filepath.Join(e.cfg.DataDir, "artifacts", sha256[:2], sha256)
}

// Run re-lists what the store holds, then follows events, starts downstream
// pipelines and does what is due, until ctx ends. It returns ctx's error, or
// that of the first listing.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.recover(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { e.wheel.run(ctx) })
	wg.Go(func() { e.downstreamLoop(ctx) })
	wg.Go(func() {
		report := func(err error) { e.log.Error("event not handled", "err", err) }
		if err := e.store.Consume(ctx, "pipelines", report, e.handle); err != nil && ctx.Err() == nil {
			e.log.Error("events are no longer read", "err", err)
		}
	})
	wg.Wait()
	e.closeRuns()
	return ctx.Err()
}

// recover rebuilds what is kept in memory: the queue, the timers and the jobs
// that run.
func (e *Engine) recover(ctx context.Context) error {
	type found struct {
		job Job
		p   Pipeline
	}
	var list []found
	err := e.store.View(ctx, func(tx Tx) error {
		jobs, err := tx.JobsWithStatus("pending", "running", "canceling", "scheduled")
		if err != nil {
			return err
		}
		cache := map[int64]Pipeline{}
		for _, j := range jobs {
			p, ok := cache[j.PipelineID]
			if !ok {
				if p, err = tx.Pipeline(j.PipelineID); err != nil {
					return err
				}
				cache[j.PipelineID] = p
			}
			list = append(list, found{j, p})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pipeline: re-list jobs: %w", err)
	}
	for _, f := range list {
		switch {
		case f.job.Bridge:
			e.wakeDownstream()
		case f.job.Status == "pending":
			e.enqueue(&f.p, &f.job)
		case f.job.Status == "scheduled":
			e.planStart(&f.job)
		default:
			e.adopt(&f.job)
		}
	}
	var unstarted []Pipeline
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		unstarted, err = tx.UnstartedPipelines()
		return err
	}); err != nil {
		return fmt.Errorf("pipeline: re-list pipelines: %w", err)
	}
	for _, p := range unstarted {
		if _, err := e.start(ctx, p.ID); err != nil {
			e.log.Error("pipeline not started", "pipeline", p.ID, "err", err)
		}
	}
	e.wheel.set("schedules", e.clock.Now(), e.runSchedules)
	e.wheel.set("sweep", e.clock.Now().Add(time.Minute), e.sweep)
	return nil
}

// enqueue offers a pending job to runners.
func (e *Engine) enqueue(p *Pipeline, j *Job) {
	e.queue.push(newQueued(p, j))
}

func newQueued(p *Pipeline, j *Job) *queued {
	return &queued{jobID: j.ID, pipelineID: j.PipelineID, projectID: j.ProjectID, tags: j.Tags,
		protected: p.Protected, groups: factGroups(p.Facts), at: j.QueuedAt}
}

// planStart sets the timer of a delayed job.
func (e *Engine) planStart(j *Job) {
	id, pipelineID := j.ID, j.PipelineID
	e.wheel.set("delayed "+strconv.FormatInt(id, 10), j.ScheduledAt, func(ctx context.Context) {
		if err := e.startDelayed(ctx, pipelineID, id); err != nil {
			e.log.Error("delayed job not started", "job", id, "err", err)
		}
	})
}

func (e *Engine) wakeDownstream() {
	select {
	case e.work <- struct{}{}:
	default:
	}
}

// factGroups reads the ancestors of the project that creation noted.
func factGroups(facts map[string]string) []int64 {
	var ids []int64
	for _, s := range strings.Split(facts[factAncestors], ",") {
		if id, err := strconv.ParseInt(s, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// handle is the consumer of the outbox.
func (e *Engine) handle(ctx context.Context, ev delivery.Event) error {
	switch ev.Kind {
	case delivery.EventPushed:
		return e.handlePushed(ctx, ev)
	case delivery.EventMergeRequest:
		return e.handleMergeRequest(ctx, ev)
	case delivery.EventProjectDeleted:
		return e.forgetProject(ctx, ev.ProjectID)
	}
	return nil
}
