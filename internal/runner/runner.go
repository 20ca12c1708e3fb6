package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Config configures a Runner. Dir, Session and Name are required.
type Config struct {
	Dir          string // the runner's folder: jobs in hand and caches
	BuildsDir    string // where jobs see their builds folder (default /builds); executors without a file system of their own ignore it
	Session      delivery.RunnerSession
	Name         string // shown in traces
	Version      string // shown in traces, such as "slipway 1.0.0 (abcdef)"
	Hostname     string // of this host, shown in traces
	Repositories Repositories
	// CAFile is the certificate of the authority that the platform's addresses
	// SecureURLs (https://host[:port]) are verified with when git fetches, and
	// that jobs find as CI_SERVER_TLS_CA_FILE. It may be empty, or appear later.
	CAFile     string
	SecureURLs []string

	Concurrent    int   // most jobs at a time (default 4)
	MemoryBudget  int64 // bytes shared by all jobs; 0: unlimited
	ServiceMemory int64 // bytes that each service counts for (default 512 MiB)
	Limits        Limits
	MaxLimits     Limits // caps what a job asks for by variables; 0: no cap
	Privileged    bool   // an administrator's setting
	Tools         []ToolMount

	CacheBudget   int64         // bytes of all caches; 0: unlimited
	DiskReserve   int64         // bytes that jobs must leave free on the disk of Dir (default: 5 % of it, at most 512 MiB)
	TraceLimit    int64         // bytes of one trace (default 64 MiB)
	TraceInterval time.Duration // between two pieces of a trace (default 200 ms)
	KeepAlive     time.Duration // between two signs of life (default 10 s)
	CloseTimeout  time.Duration // to end a job's environment (default 60 s)
	ReportTimeout time.Duration // to deliver a job's result (default 10 min)

	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default: discard
}

func (c *Config) setDefaults() {
	def := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	def(&c.TraceInterval, 200*time.Millisecond)
	def(&c.KeepAlive, 10*time.Second)
	def(&c.CloseTimeout, time.Minute)
	def(&c.ReportTimeout, 10*time.Minute)
	if c.Concurrent == 0 {
		c.Concurrent = 4
	}
	if c.ServiceMemory == 0 {
		c.ServiceMemory = 512 << 20
	}
	if c.TraceLimit == 0 {
		c.TraceLimit = 64 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Version == "" {
		c.Version = "slipway"
	}
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname() // shown only
	}
}

// Runner takes jobs from a coordinator and has an executor run them.
type Runner struct {
	config      Config
	coordinator Coordinator
	executor    Executor
	caches      *cacheStore
	budget      *budget
	disk        disk
	logger      *slog.Logger
	ready       chan struct{}

	mu     sync.Mutex
	inHand map[*job]struct{} // accepted and not ended
}

// New checks the configuration. Run starts the work.
func New(config Config, coordinator Coordinator, executor Executor) (*Runner, error) {
	config.setDefaults()
	if config.Dir == "" {
		return nil, errors.New("runner: no folder is configured")
	}
	return &Runner{
		config: config, coordinator: coordinator, executor: executor, logger: config.Logger,
		caches: &cacheStore{dir: filepath.Join(config.Dir, "cache"), budget: config.CacheBudget},
		budget: &budget{total: config.MemoryBudget}, ready: make(chan struct{}),
		disk: disk{dir: config.Dir, reserve: config.DiskReserve}, inHand: map[*job]struct{}{},
	}, nil
}

// Ready is closed when the runner has recovered and asks for jobs.
func (r *Runner) Ready() <-chan struct{} { return r.ready }

// Run recovers from an earlier process, then takes and executes jobs until ctx
// ends. Jobs in hand are then stopped and reported; Run returns when all are.
// A nil error means that ctx ended.
func (r *Runner) Run(ctx context.Context) error {
	for _, dir := range []string{r.config.Dir, filepath.Join(r.config.Dir, "jobs")} {
		// Others may pass: containers of other users reach their builds folder.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("runner: %w", err)
		}
	}
	if err := os.MkdirAll(r.caches.dir, 0o700); err != nil {
		return fmt.Errorf("runner: %w", err)
	}
	if err := r.executor.Recover(ctx); err != nil {
		return fmt.Errorf("runner: recover the executor: %w", err)
	}
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("runner: recover jobs: %w", err)
	}
	close(r.ready)
	jobs, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var running sync.WaitGroup
	watching, stopWatching := context.WithCancel(jobs)
	var watchers sync.WaitGroup
	watchers.Go(func() { r.watchDisk(watching) })
	defer watchers.Wait()
	defer stopWatching()
	slots := make(chan struct{}, r.config.Concurrent)
	for {
		select {
		case <-ctx.Done():
		case slots <- struct{}{}:
			spec, err := r.request(ctx)
			if err == nil {
				admitted := make(chan struct{})
				running.Go(func() {
					defer func() { <-slots }()
					r.runOne(jobs, spec, admitted)
				})
				// The next job is asked for when this one has its memory: jobs
				// wait in the coordinator's order, where everyone sees them.
				select {
				case <-admitted:
				case <-ctx.Done():
				}
				continue
			}
			<-slots
			if ctx.Err() == nil {
				r.logger.Warn("request job", "error", err)
				_ = r.sleep(ctx, time.Second) // then ctx is looked at
				continue
			}
		}
		stop(errInterrupted)
		running.Wait()
		return nil
	}
}

func (r *Runner) request(ctx context.Context) (*delivery.JobSpec, error) {
	spec, err := r.coordinator.RequestJob(ctx, r.config.Session)
	if err == nil && spec == nil {
		err = errors.New("the coordinator returned no job")
	}
	return spec, err
}

func (r *Runner) runOne(ctx context.Context, spec *delivery.JobSpec, admitted chan struct{}) {
	started := r.config.Now()
	if err := r.run(ctx, spec, sync.OnceFunc(func() { close(admitted) })); err != nil {
		r.logger.Error("run job", "job", spec.ID, "error", err)
	}
	r.logger.Info("job done", "job", spec.ID, "name", spec.JobInfo.Name, "seconds", r.config.Now().Sub(started).Seconds())
}

// sleep waits or returns ctx's error.
func (r *Runner) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
