package metrics

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	apiv1 "github.com/prometheus/prometheus/web/api/v1"
)

// prometheusVersion is the release of the linked module: Go modules number
// Prometheus 3.x as 0.3xx.
const prometheusVersion = "3.13.5"

// The limits of remote reads, as Prometheus' own defaults
// (--storage.remote.read-sample-limit and the like), but fewer at once.
const (
	remoteReadSamples = 50_000_000
	remoteReadAtOnce  = 2
	remoteReadFrame   = 1 << 20
)

// lookback is how old a sample may be that answers for a time.
const lookback = 5 * time.Minute

// anyOrigin is Prometheus' default: pages of other origins may read the API.
// Browsers send no cookie along then, so that such a page needs a token.
var anyOrigin = regexp.MustCompile("^(?:.*)$")

// Handler returns Prometheus' HTTP API. It serves the paths
// /prometheus/api/v1/..., /prometheus/federate, /prometheus/metrics,
// /prometheus/-/healthy and /prometheus/-/ready, and sends the paths of
// Prometheus' pages, to which alerts and Grafana link, on to the platform's.
// It does not ask who the caller is, and offers nothing that changes data. It
// may be used before Run: until the database is open it answers 503.
func (m *Metrics) Handler() http.Handler { return m.handler }

func (m *Metrics) newHandler() http.Handler {
	s := source{m}
	api := apiv1.NewAPI(
		s, s, nil, nil, s,
		func(context.Context) apiv1.ScrapePoolsRetriever { return m.scrapes },
		func(context.Context) apiv1.TargetRetriever { return s },
		func(context.Context) apiv1.AlertmanagerRetriever { return noAlertmanagers{} },
		func() config.Config { return *m.config() },
		m.flags(),
		apiv1.GlobalURLOptions{ListenAddress: "127.0.0.1:0", Host: m.external.Host, Scheme: m.external.Scheme},
		m.whenOpen,
		s, m.cfg.DataDir,
		false, false, 0,
		m.log,
		func(context.Context) apiv1.RulesRetriever { return s },
		remoteReadSamples, remoteReadAtOnce, remoteReadFrame, false, anyOrigin,
		m.runtimeInfo,
		&apiv1.PrometheusVersion{Version: prometheusVersion, GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, func() {}, false },
		m.gatherer(), nil, nil,
		false, nil, false, false, false, false,
		lookback, false, false, nil, features.DefaultRegistry,
		apiv1.OpenAPIOptions{ExternalURL: m.external.String(), Version: prometheusVersion},
		m.parser,
	)
	v1 := route.New()
	api.Register(v1)
	mux := http.NewServeMux()
	mux.Handle("/prometheus/api/v1/", http.StripPrefix("/prometheus/api/v1", v1))
	mux.HandleFunc("GET /prometheus/federate", m.whenOpen(m.federate))
	mux.Handle("GET /prometheus/metrics", promhttp.HandlerFor(m.gatherer(), promhttp.HandlerOpts{}))
	for path, page := range map[string]string{"{$}": "", "graph": "", "query": "", "targets": "/targets", "service-discovery": "/targets", "rules": "/rules", "alerts": "/rules"} {
		mux.Handle("GET /prometheus/"+path, onward(page))
	}
	mux.HandleFunc("/prometheus/-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Prometheus Server is Healthy.\n")) // the client may be gone
	})
	mux.HandleFunc("/prometheus/-/ready", m.whenOpen(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Prometheus Server is Ready.\n"))
	}))
	return mux
}

// onward sends a link to one of Prometheus' pages on to the platform's: alerts
// and Grafana make links such as /graph?g0.expr=up&g0.range_input=1h.
func onward(page string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		to := "/-/metrics" + page
		q := url.Values{}
		for i := 0; r.FormValue(fmt.Sprintf("g%d.expr", i)) != ""; i++ {
			q.Add("query", r.FormValue(fmt.Sprintf("g%d.expr", i)))
		}
		if d, err := model.ParseDuration(r.FormValue("g0.range_input")); err == nil && d > 0 {
			q.Set("minutes", strconv.Itoa(max(1, int(time.Duration(d).Minutes()))))
		}
		if len(q) > 0 {
			to += "?" + q.Encode()
		}
		http.Redirect(w, r, to, http.StatusFound)
	}
}

// flags are the settings under the names of Prometheus' flags.
func (m *Metrics) flags() map[string]string {
	return map[string]string{
		"query.lookback-delta":             model.Duration(lookback).String(),
		"query.max-concurrency":            strconv.Itoa(queriesAtOnce),
		"query.max-samples":                strconv.Itoa(querySamples),
		"query.timeout":                    model.Duration(queryTimeout).String(),
		"rules.alert.for-grace-period":     model.Duration(forGrace).String(),
		"rules.alert.for-outage-tolerance": model.Duration(outageTolerance).String(),
		"storage.remote.read-sample-limit": strconv.Itoa(remoteReadSamples),
		"storage.tsdb.retention.size":      strconv.FormatInt(m.cfg.RetentionBytes, 10) + "B",
		"storage.tsdb.retention.time":      model.Duration(m.cfg.Retention).String(),
		"web.enable-admin-api":             "false",
		"web.enable-lifecycle":             "false",
		"web.enable-remote-write-receiver": "false",
		"web.external-url":                 m.external.String(),
	}
}

// whenOpen answers 503 until the database is open.
func (m *Metrics) whenOpen(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !m.opened.Load() {
			w.Header().Set("X-Prometheus-Stopping", "false")
			http.Error(w, "The time series database is being opened.", http.StatusServiceUnavailable)
			return
		}
		next(w, r)
	}
}

func (m *Metrics) config() *config.Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

func (m *Metrics) runtimeInfo() (apiv1.RuntimeInfo, error) {
	m.mu.Lock()
	last, loaded := m.lastLoad, m.loadErr == nil
	m.mu.Unlock()
	host, err := os.Hostname()
	return apiv1.RuntimeInfo{
		StartTime:           m.started,
		CWD:                 m.cfg.DataDir,
		Hostname:            host,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: loaded,
		LastConfigTime:      last,
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		StorageRetention:    model.Duration(m.cfg.Retention).String() + " or " + strconv.FormatInt(m.cfg.RetentionBytes>>20, 10) + "MiB",
		CorruptionCount:     m.corruptions(),
	}, err
}

// corruptions counts how often the write-ahead log was damaged and repaired.
func (m *Metrics) corruptions() int64 {
	families, err := m.gatherer().Gather()
	if err != nil {
		m.log.Warn("the engines' own metrics", "err", err)
	}
	for _, f := range families {
		if f.GetName() == "prometheus_tsdb_wal_corruptions_total" && len(f.GetMetric()) > 0 {
			return int64(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return 0
}

// source gives the API what only exists once the database is open.
type source struct{ *Metrics }

type noAlertmanagers struct{}

func (noAlertmanagers) Alertmanagers() []*url.URL        { return nil }
func (noAlertmanagers) DroppedAlertmanagers() []*url.URL { return nil }

// The engine.

func (s source) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return s.engine.NewInstantQuery(ctx, q, opts, qs, ts)
}

func (s source) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	return s.engine.NewRangeQuery(ctx, q, opts, qs, start, end, interval)
}

// The storage.

func (s source) Querier(mint, maxt int64) (storage.Querier, error) { return s.db.Querier(mint, maxt) }

func (s source) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return s.db.ChunkQuerier(mint, maxt)
}

func (s source) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return s.db.ExemplarQuerier(ctx)
}

// The scraping.

func (s source) TargetsActive() map[string][]*scrape.Target  { return s.scrapes.TargetsActive() }
func (s source) TargetsDropped() map[string][]*scrape.Target { return s.scrapes.TargetsDropped() }
func (s source) TargetsDroppedCounts() map[string]int        { return s.scrapes.TargetsDroppedCounts() }
func (s source) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return s.scrapes.ScrapePoolConfig(pool)
}

// The rules.

func (s source) RuleGroups() []*rules.Group           { return s.rules.RuleGroups() }
func (s source) AlertingRules() []*rules.AlertingRule { return s.rules.AlertingRules() }

// The database's figures.

func (s source) CleanTombstones() error { return s.db.CleanTombstones() }
func (s source) Delete(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) error {
	return s.db.Delete(ctx, mint, maxt, ms...)
}
func (s source) Snapshot(dir string, withHead bool) error { return s.db.Snapshot(dir, withHead) }
func (s source) Stats(label string, limit int) (*tsdb.Stats, error) {
	return s.db.Head().Stats(label, limit), nil
}
func (s source) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return s.stats.Head.WALReplayStatus.GetWALReplayStatus(), nil
}
func (s source) BlockMetas() ([]tsdb.BlockMeta, error) { return s.db.BlockMetas(), nil }
