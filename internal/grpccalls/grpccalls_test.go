package grpccalls

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// The metrics are those of a real server's interceptor, of a service with two
// methods for one message and one for a stream.
func TestUncalledMethodsAreLeftOut(t *testing.T) {
	t.Parallel()
	figures := grpcprom.NewServerMetrics()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	figures.InitializeMetrics(server)
	reg := prometheus.NewRegistry()
	other := prometheus.NewCounter(prometheus.CounterOpts{Name: "other_total", Help: "Of something else."})
	reg.MustRegister(figures, other)
	thin := Gatherer(reg)
	series := func() map[string]int {
		t.Helper()
		families, err := thin.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, f := range families {
			out[strings.TrimPrefix(f.GetName(), "grpc_server_")] = len(f.GetMetric())
		}
		return out
	}
	all, err := testutil.GatherAndCount(reg, "grpc_server_handled_total")
	if err != nil || all != 3*17 {
		t.Fatalf("the server makes %d series in advance: %v", all, err)
	}
	if got := series(); got["started_total"] != 3 || got["handled_total"] != 3 || got["msg_sent_total"] != 0 || got["other_total"] != 1 {
		t.Errorf("before any call: %v", got)
	}
	call := func(ctx context.Context, _ any) (any, error) { return nil, errors.New("it failed") }
	if _, err := figures.UnaryServerInterceptor()(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}, call); err == nil {
		t.Fatal("the call went well")
	}
	if got := series(); got["started_total"] != 3 || got["handled_total"] != 17+2 || got["msg_sent_total"] != 1 || got["msg_received_total"] != 1 {
		t.Errorf("after one call: %v", got)
	}
	families, err := thin.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "grpc_server_handled_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if of := methodOf(m); of.name != "Check" && of.code != "OK" {
				t.Errorf("%v was not called", of)
			}
		}
	}
}

func TestServedMetricsAreTheSame(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "seconds", Help: "Of work, \"quoted\".", Buckets: []float64{0.1, 1}}, []string{"by"})
	h.WithLabelValues("a\nb").Observe(0.5)
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: "bytes", Help: "Of answers.", Objectives: map[float64]float64{0.5: 0.1}})
	s.Observe(3)
	reg.MustRegister(h, s)
	handler := func(g prometheus.Gatherer) http.Handler { return promhttp.HandlerFor(g, promhttp.HandlerOpts{}) }
	origin := httptest.NewServer(handler(reg))
	t.Cleanup(origin.Close)
	read := func(h http.Handler) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		return rec.Code, rec.Body.String()
	}
	_, want := read(handler(reg))
	if code, got := read(handler(Gatherer(Served(origin.Client(), origin.URL)))); code != http.StatusOK || got != want {
		t.Errorf("served again: %d\n%s\nwant:\n%s", code, got, want)
	}
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	if code, got := read(handler(Served(missing.Client(), missing.URL))); code != http.StatusInternalServerError || !strings.Contains(got, "404 Not Found") {
		t.Errorf("without metrics there: %d %s", code, got)
	}
}
