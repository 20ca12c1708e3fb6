package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slipwayhq/slipway/internal/supervise"
)

func TestFiguresOfThePlatform(t *testing.T) {
	t.Parallel()
	f := newFigures(func() []supervise.Status {
		return []supervise.Status{
			{Name: "containerd", State: supervise.Failed, Restarts: 3, Budget: 1 << 20},
			{Name: "slipway-cluster", State: supervise.Ready, Parts: []supervise.Part{{Name: "etcd", Ready: true}}},
		}
	})
	h := f.measured(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	for _, path := range []string{"/demo/shop", "/demo/shop.git/info/refs", "/api/v4/projects", "/v2/", "/prometheus/api/v1/query"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(f.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	for _, want := range []string{
		`slipway_component_up{component="containerd"} 0`, `slipway_component_up{component="slipway-cluster"} 1`,
		`slipway_component_restarts_total{component="containerd"} 3`, `slipway_component_part_up{component="slipway-cluster",part="etcd"} 1`,
		`slipway_http_requests_total{code="404",method="get",part="git"} 1`, `slipway_http_requests_total{code="404",method="get",part="web"} 1`,
		`slipway_http_request_duration_seconds_count{part="registry"} 1`, `process_resident_memory_bytes `,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
