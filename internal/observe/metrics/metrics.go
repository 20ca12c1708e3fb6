package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	configutil "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// The limits of queries, against those that would take the platform's memory:
// 10 million samples are about 160 MB.
const (
	queriesAtOnce = 8
	querySamples  = 10_000_000
	queryTimeout  = time.Minute
)

// How alerts go on after an outage, as Prometheus' defaults.
const (
	outageTolerance = time.Hour
	forGrace        = 10 * time.Minute
)

// Config is what the metrics need to run. Zero values take the defaults named
// at each field.
type Config struct {
	// DataDir holds the time series database. It is created with mode 0700.
	DataDir string
	// Retention is how long samples are kept; default 15 days.
	Retention time.Duration
	// RetentionBytes limits the size of the blocks on disk; default 4 GiB.
	RetentionBytes int64
	// Interval is how often targets are scraped; default 15 s. The ingress,
	// whose metrics decide about releases, is scraped every 5 s.
	Interval time.Duration
	// ExternalURL is the address under which Handler is reached from outside,
	// such as http://10.0.0.1:8080/prometheus; it appears in alerts.
	ExternalURL string
	// Kubeconfig is the path of the cluster's administrator kubeconfig. The
	// file may appear after start and may be replaced at any time. Empty
	// means that there is no cluster.
	Kubeconfig string
	// Instance is the value of the label instance for what runs in the
	// platform itself; default the host's name.
	Instance string
	// Targets are the platform's own components and other fixed targets.
	Targets []Target
	// Node scrapes node_exporter's collectors, in process.
	Node bool
	// SampleLimit is the largest number of samples taken from one scrape of an
	// application; default 5000. A larger scrape is refused as a whole, and
	// the targets page says so.
	SampleLimit uint
	// Notify receives the alerts that fire or were resolved; may be nil.
	Notify func(ctx context.Context, alerts []Alert)
	// Log receives warnings and errors; default slog.Default().
	Log *slog.Logger
}

// Target is one endpoint that is known without discovery. Exactly one of
// Gatherer, Handler and URL is set.
type Target struct {
	// Job is the value of the label job. Several targets may share it.
	Job string
	// Instance is the value of the label instance; default Config.Instance.
	Instance string
	// Gatherer is a registry in this process.
	Gatherer prometheus.Gatherer
	// Handler answers GET with the text format, in this process.
	Handler http.Handler
	// URL is an http or https address, or unix:///path/to/socket:/http/path.
	URL string
	// Insecure accepts any certificate of an https URL.
	Insecure bool
	// ClusterCredentials presents the kubeconfig's client certificate or token.
	ClusterCredentials bool
	// Interval overrides Config.Interval.
	Interval time.Duration
	// Keep, when set, are the only metrics that are asked for. The target has
	// to honour the parameter name[], as everything that promhttp serves does.
	Keep Families
}

// Alert is an alert that fires, or was resolved when EndsAt is in the past.
type Alert struct {
	Labels       map[string]string
	Annotations  map[string]string
	Value        float64
	StartsAt     time.Time
	EndsAt       time.Time // zero while it fires
	GeneratorURL string
}

// Metrics is the running Prometheus.
type Metrics struct {
	cfg      Config
	log      *slog.Logger
	registry atomic.Pointer[prometheus.Registry] // of the current Run
	parser   parser.Parser
	external *url.URL
	started  time.Time

	db        *tsdb.DB
	kept      atomic.Pointer[keeping] // of the current Run; nil before
	stats     *tsdb.DBStats
	engine    *promql.Engine
	scrapes   *scrape.Manager
	rules     *rules.Manager
	discovery *discovery.Manager
	handler   http.Handler
	local     *localTargets
	cluster   *cluster

	opened  atomic.Bool
	openErr atomic.Pointer[error]

	mu       sync.Mutex
	current  *config.Config
	problems []Problem
	lastLoad time.Time
	loadErr  error // of the last load
}

// New returns Metrics that are ready to Run. It fails when the configuration
// is wrong or the data directory cannot be made.
func New(cfg Config) (*Metrics, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("metrics: no data directory is configured")
	}
	cfg.defaults()
	external, err := url.Parse(cfg.ExternalURL)
	if err != nil {
		return nil, fmt.Errorf("metrics: external URL: %w", err)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("metrics: data directory: %w", err)
	}
	m := &Metrics{
		cfg:      cfg,
		log:      cfg.Log,
		parser:   parser.NewParser(parser.Options{}),
		external: external,
		started:  time.Now(),
		current:  &config.Config{},
		stats:    tsdb.NewDBStats(),
	}
	if m.local, err = newLocalTargets(cfg); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	m.registry.Store(prometheus.NewRegistry())
	m.local.gather("prometheus", m.gatherer())
	if cfg.Node {
		reg, err := nodeRegistry(cfg.Log)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		m.local.gather("node-exporter", reg)
	}
	m.cluster = newCluster(m)
	m.handler = m.newHandler()
	return m, nil
}

func (c *Config) defaults() {
	if c.Retention <= 0 {
		c.Retention = 15 * 24 * time.Hour
	}
	if c.RetentionBytes <= 0 {
		c.RetentionBytes = 4 << 30
	}
	if c.Interval <= 0 {
		c.Interval = 15 * time.Second
	}
	if c.SampleLimit == 0 {
		c.SampleLimit = 5000
	}
	if c.Instance == "" {
		c.Instance, _ = os.Hostname() // empty is what a host without a name gets
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// Run opens the database (reading back what the last run had not yet made into
// blocks), then scrapes and evaluates until ctx ends. It returns an error when
// the database cannot be opened. It may be called again after it returned.
func (m *Metrics) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.open(ctx); err != nil {
		err = fmt.Errorf("metrics: %w", err)
		m.openErr.Store(&err)
		return err
	}
	m.openErr.Store(nil)
	m.opened.Store(true)
	err := m.reload(ctx)
	if err == nil {
		err = m.serve(ctx, cancel)
	}
	m.opened.Store(false)
	return errors.Join(err, m.db.Close())
}

// registerOwn adds the figures that Prometheus' main program has: its build,
// its process, and whether the targets' configuration was applied.
func (m *Metrics) registerOwn() error {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_build_info", Help: "A metric with a constant '1' value labeled by the version of Prometheus that is linked.",
		ConstLabels: prometheus.Labels{"version": prometheusVersion, "goversion": runtime.Version(), "goos": runtime.GOOS, "goarch": runtime.GOARCH},
	})
	build.Set(1)
	own := []prometheus.Collector{
		build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "prometheus_ready", Help: "Whether Prometheus startup was fully completed and is ready for normal operation."}, func() float64 { return oneIf(m.opened.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "prometheus_config_last_reload_successful", Help: "Whether the last configuration reload attempt was successful."}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return oneIf(m.loadErr == nil)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "prometheus_config_last_reload_success_timestamp_seconds", Help: "Timestamp of the last successful configuration reload."}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return float64(m.lastLoad.Unix())
		}),
	}
	var errs []error
	for _, c := range own {
		errs = append(errs, m.registry.Load().Register(c))
	}
	return errors.Join(errs...)
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// open makes the database and everything that reads or writes it.
func (m *Metrics) open(ctx context.Context) error {
	m.registry.Store(prometheus.NewRegistry()) // the engines refuse to register twice
	if err := m.registerOwn(); err != nil {
		return err
	}
	m.stats = tsdb.NewDBStats()
	quiet := slog.New(levelHandler{m.log.Handler(), slog.LevelWarn})
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = m.cfg.Retention.Milliseconds()
	opts.MaxBytes = m.cfg.RetentionBytes
	opts.WALCompression = compression.Snappy
	opts.WALSegmentSize = 32 << 20
	opts.MaxBlockDuration = min(m.cfg.Retention.Milliseconds()/10, (31 * 24 * time.Hour).Milliseconds())
	opts.MaxBlockDuration = max(opts.MaxBlockDuration, opts.MinBlockDuration)
	// Sized for thousands of series, not for millions.
	opts.StripeSize = 1 << 10
	opts.HeadChunksWriteBufferSize = 256 << 10
	opts.HeadChunksWriteQueueSize = 0
	opts.WALReplayConcurrency = 1
	opts.StaleSeriesCompactionThreshold = 0.5
	db, err := tsdb.Open(filepath.Join(m.cfg.DataDir, "tsdb"), quiet, m.registry.Load(), opts, m.stats)
	if err != nil {
		return fmt.Errorf("open the time series database: %w", err)
	}
	m.db = db
	m.kept.Store(&keeping{Appendable: db})
	if err := m.assemble(ctx, quiet); err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

func (m *Metrics) assemble(ctx context.Context, log *slog.Logger) error {
	reg := m.registry.Load()
	tracker, err := promql.NewActiveQueryTracker(m.cfg.DataDir, queriesAtOnce, log)
	if err != nil {
		return err
	}
	m.engine = promql.NewEngine(promql.EngineOpts{
		Logger:               log,
		Reg:                  reg,
		MaxSamples:           querySamples,
		Timeout:              queryTimeout,
		ActiveQueryTracker:   tracker,
		LookbackDelta:        lookback,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		Parser:               m.parser,
	})
	if m.scrapes, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval:  model.Duration(time.Second),
		DiscoveryReloadOnStartup: true,
		HTTPClientOptions:        []configutil.HTTPClientOption{configutil.WithDialContextFunc(m.local.dial), configutil.WithUserAgent("slipway-metrics")},
	}, log, nil, m.kept.Load(), nil, reg); err != nil {
		return err
	}
	sd, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return err
	}
	m.discovery = discovery.NewManager(ctx, log, reg, sd, discovery.Name("scrape"), discovery.Updatert(time.Second))
	if m.discovery == nil {
		return errors.New("service discovery cannot be set up")
	}
	m.rules = rules.NewManager(&rules.ManagerOptions{
		Context:         ctx,
		Appendable:      m.kept.Load(),
		Queryable:       m.db,
		QueryFunc:       rules.EngineQueryFunc(m.engine, m.db),
		NotifyFunc:      m.notify,
		ExternalURL:     m.external,
		Logger:          log,
		Registerer:      reg,
		OutageTolerance: outageTolerance,
		ForGracePeriod:  forGrace,
		ResendDelay:     time.Minute,
		// The cluster's rules come after the first load, when it is reached.
		RestoreNewRuleGroups: true,
		GroupLoader:          &ruleLoader{m: m},
		Parser:               m.parser,
	})
	return nil
}

// gatherer returns the engines' own metrics, of whichever Run is current.
func (m *Metrics) gatherer() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return m.registry.Load().Gather() })
}

// serve runs the managers until ctx ends or one of them fails, which ends the
// others.
func (m *Metrics) serve(ctx context.Context, cancel context.CancelFunc) error {
	var wg sync.WaitGroup
	failed := make(chan error, 3)
	report := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			failed <- fmt.Errorf("metrics: %s: %w", what, err)
		}
	}
	wg.Go(func() { report("local targets", m.local.serve(ctx)) })
	wg.Go(func() { report("discovery", m.discovery.Run()) })
	wg.Go(func() { report("scraping", m.scrapes.Run(m.discovery.SyncCh())) })
	wg.Go(m.rules.Run)
	wg.Go(func() { m.cluster.run(ctx) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	m.scrapes.Stop()
	m.rules.Stop()
	wg.Wait()
	return err
}

// reload makes a configuration of the targets known now and applies it. When
// that fails, the one before stays.
func (m *Metrics) reload(context.Context) error {
	err := m.applyTargets()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loadErr = err
	return err
}

func (m *Metrics) applyTargets() error {
	cfg, problems, err := m.scrapeConfig()
	if err != nil {
		return fmt.Errorf("metrics: configuration: %w", err)
	}
	if err := m.scrapes.ApplyConfig(cfg); err != nil {
		return fmt.Errorf("metrics: apply the scrape configuration: %w", err)
	}
	sd := map[string]discovery.Configs{}
	for _, s := range cfg.ScrapeConfigs {
		sd[s.JobName] = s.ServiceDiscoveryConfigs
	}
	if err := m.discovery.ApplyConfig(sd); err != nil {
		return fmt.Errorf("metrics: apply the discovery: %w", err)
	}
	files, ruleProblems := m.ruleFiles()
	interval := time.Duration(cfg.GlobalConfig.EvaluationInterval)
	if err := m.rules.Update(interval, files, labels.EmptyLabels(), m.external.String(), nil); err != nil {
		return fmt.Errorf("metrics: apply the rules: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current, m.lastLoad = cfg, time.Now()
	m.problems = append(problems, ruleProblems...)
	return nil
}

// Ready returns nil when samples are taken and kept and the cluster's targets
// are followed, and otherwise an error that names the root cause. Without a
// cluster the platform's own targets are scraped and queries are answered.
func (m *Metrics) Ready() error {
	if err := m.openErr.Load(); err != nil {
		return *err
	}
	if !m.opened.Load() {
		return errors.New("the time series database is being opened")
	}
	// Each target is scraped within an interval, and the rules as well.
	if err := m.kept.Load().since(2*m.cfg.Interval, m.cfg.DataDir); err != nil {
		return err
	}
	return m.cluster.ready()
}

// Problems lists what is wrong with monitors, rules and annotations.
func (m *Metrics) Problems() []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Problem(nil), m.problems...)
}

// notify passes alerts on.
func (m *Metrics) notify(ctx context.Context, expr string, alerts ...*rules.Alert) {
	if m.cfg.Notify == nil || len(alerts) == 0 {
		return
	}
	out := make([]Alert, 0, len(alerts))
	for _, a := range alerts {
		out = append(out, Alert{
			Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Value: a.Value,
			StartsAt: a.FiredAt, EndsAt: a.ResolvedAt,
			GeneratorURL: m.external.String() + "/graph?g0.expr=" + url.QueryEscape(expr),
		})
	}
	m.cfg.Notify(ctx, out)
}

// levelHandler raises the least level of a log.
type levelHandler struct {
	slog.Handler
	least slog.Level
}

func (h levelHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.least && h.Handler.Enabled(ctx, l)
}

func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{h.Handler.WithAttrs(attrs), h.least}
}

func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{h.Handler.WithGroup(name), h.least}
}
