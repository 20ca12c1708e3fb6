package metrics

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// start runs Metrics until the test ends.
func start(t *testing.T, cfg Config) *Metrics {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Instance = "test"
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	eventually(t, "ready", func() bool { return m.opened.Load() })
	return m
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// value returns the one value of an instant query, or false.
func value(t *testing.T, m *Metrics, expr string) (float64, bool) {
	t.Helper()
	r, err := m.Query(t.Context(), expr, time.Now())
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	if len(r.Series) != 1 {
		return 0, false
	}
	return r.Series[0].Points[0].Value, true
}

func TestScrapeLocalTargetsAndAnswerQueries(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "answer", Help: "Of everything."})
	g.Set(42)
	reg.MustRegister(g)
	elsewhere := prometheus.NewRegistry()
	for _, name := range []string{"kept", "average", "other"} {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: "Seconds."})
		h.Observe(1)
		elsewhere.MustRegister(h)
	}
	remote := httptest.NewServer(promhttp.HandlerFor(elsewhere, promhttp.HandlerOpts{}))
	t.Cleanup(remote.Close)
	m := start(t, Config{
		Interval: 200 * time.Millisecond,
		Node:     true,
		Targets: []Target{
			{Job: "own", Gatherer: reg},
			{Job: "remote", URL: remote.URL + "/metrics", Instance: "elsewhere", Keep: Families{Whole: []string{"kept"}, Averages: []string{"average"}}},
			{Job: "gone", URL: "unix:///nowhere/x.sock:/metrics", Keep: Families{Whole: []string{"kept"}}},
		},
	})
	if err := m.Ready(); err != nil {
		t.Errorf("Ready without a cluster: %v", err)
	}
	eventually(t, "the gauge was scraped", func() bool {
		v, ok := value(t, m, `answer{job="own",instance="test"}`)
		return ok && v == 42
	})
	eventually(t, "the remote target was scraped", func() bool {
		_, ok := value(t, m, `kept_bucket{job="remote",instance="elsewhere",le="1.0"}`)
		return ok
	})
	for expr, want := range map[string]float64{
		`count({__name__=~"(kept|average|other).*",job="remote"}) by ()`: 16, // 14 and 2
		`scrape_samples_scraped{job="remote"}`:                           28,
		`count({__name__=~"average.*"})`:                                 2,
	} {
		if v, ok := value(t, m, expr); !ok || v != want {
			t.Errorf("%s is %v, want %v", expr, v, want)
		}
	}
	eventually(t, "node_exporter was scraped", func() bool {
		_, ok := value(t, m, "node_memory_MemTotal_bytes")
		return ok
	})
	eventually(t, "the missing target says why", func() bool {
		for _, s := range m.Targets() {
			if s.Labels["job"] == "gone" {
				return s.Health == "down" && strings.Contains(s.LastError, "no such file") && !strings.Contains(s.URL+s.LastError, "kept")
			}
		}
		return false
	})
	eventually(t, "the built-in rules were evaluated", func() bool {
		for _, g := range m.Rules() {
			if g.Name == "slipway-ingress" {
				return g.Source == "built in" && len(g.Rules) == 3 && !g.LastAt.IsZero() && g.Rules[0].Health == "ok" && !g.Rules[0].Alerting
			}
		}
		return false
	})
	apiAnswers(t, m)
}

func TestSamplesSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kept", Help: "Across restarts."})
	g.Set(7)
	reg.MustRegister(g)
	t.Run("first", func(t *testing.T) {
		m := start(t, Config{DataDir: dir, Interval: 100 * time.Millisecond, Targets: []Target{{Job: "own", Gatherer: reg}}})
		eventually(t, "scraped", func() bool { _, ok := value(t, m, "kept"); return ok })
	})
	t.Run("second", func(t *testing.T) {
		m := start(t, Config{DataDir: dir, Interval: time.Hour})
		r, err := m.Query(t.Context(), "last_over_time(kept[5m])", time.Now())
		if err != nil || len(r.Series) != 1 || r.Series[0].Points[0].Value != 7 {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestHandlerBeforeRun(t *testing.T) {
	t.Parallel()
	m, err := New(Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/prometheus/api/v1/query?query=1", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d", rec.Code)
	}
	if m.Ready() == nil {
		t.Error("ready before Run")
	}
}

func TestRunAgain(t *testing.T) {
	t.Parallel()
	m, err := New(Config{DataDir: t.TempDir(), Node: true, Interval: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		eventually(t, "scraped", func() bool {
			if !m.opened.Load() {
				return false
			}
			_, ok := value(t, m, `up{job="prometheus"} == 1`)
			return ok
		})
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}
