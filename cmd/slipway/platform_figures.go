package main

import (
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slipwayhq/slipway/internal/supervise"
)

// figures are the platform's own metrics, job "slipway": its process, the
// programs it supervises, and the requests to web, API, git and registry.
type figures struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// httpParts are the parts that answer on the platform's listener. What is none
// of the others is the web.
var httpParts = []struct{ part, prefix string }{
	{"api", "/api/"}, {"registry", "/v2/"}, {"registry", "/jwt/"}, {"prometheus", "/prometheus/"}, {"argocd", "/argocd/"},
}

func newFigures(status func() []supervise.Status) *figures {
	f := &figures{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_http_requests_total",
			Help: "Requests answered by a part of the platform: web, api, git, registry, prometheus or argocd.",
		}, []string{"part", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "slipway_http_request_duration_seconds", Help: "Time from the request's headers to the end of the response, in seconds.",
			Buckets: []float64{.005, .025, .1, .5, 1, 2.5, 10, 60},
		}, []string{"part"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "slipway_build_info", Help: "1, with the platform's version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	f.registry.MustRegister(f.requests, f.duration, build, &componentFigures{status: status},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, program := range []string{"slipway-cluster", "slipway-gitops", "containerd"} {
		prometheus.WrapRegistererWith(prometheus.Labels{"program": program}, f.registry).MustRegister(
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: "slipway_program", PidFn: func() (int, error) {
				for _, c := range status() {
					if c.Name == program && c.PID > 0 {
						return c.PID, nil
					}
				}
				return 0, errors.New(program + " does not run")
			}}))
	}
	return f
}

// measured counts the requests to h, by the part that answers them.
func (f *figures) measured(h http.Handler) http.Handler {
	byPart := map[string]http.Handler{}
	for _, part := range []string{"web", "git", "api", "registry", "prometheus", "argocd"} {
		labels := prometheus.Labels{"part": part}
		byPart[part] = promhttp.InstrumentHandlerDuration(f.duration.MustCurryWith(labels),
			promhttp.InstrumentHandlerCounter(f.requests.MustCurryWith(labels), h))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { byPart[httpPart(r.URL.Path)].ServeHTTP(w, r) })
}

// httpPart tells which part a path belongs to.
func httpPart(path string) string {
	for _, p := range httpParts {
		if strings.HasPrefix(path, p.prefix) {
			return p.part
		}
	}
	if strings.Contains(path, ".git/") {
		return "git"
	}
	return "web"
}

// componentFigures are the states of what the platform supervises.
type componentFigures struct{ status func() []supervise.Status }

var (
	componentUp       = prometheus.NewDesc("slipway_component_up", "1 for a component that is ready, else 0.", []string{"component"}, nil)
	componentRestarts = prometheus.NewDesc("slipway_component_restarts_total", "How often a component ended and was started again.", []string{"component"}, nil)
	componentBudget   = prometheus.NewDesc("slipway_component_memory_budget_bytes", "Memory budget of a program of its own.", []string{"component"}, nil)
	partUp            = prometheus.NewDesc("slipway_component_part_up", "1 for a ready part of a component, such as etcd of the cluster.", []string{"component", "part"}, nil)
)

// Describe implements prometheus.Collector.
func (c *componentFigures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{componentUp, componentRestarts, componentBudget, partUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *componentFigures) Collect(ch chan<- prometheus.Metric) {
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	for _, s := range c.status() {
		ch <- prometheus.MustNewConstMetric(componentUp, prometheus.GaugeValue, one(s.State == supervise.Ready), s.Name)
		ch <- prometheus.MustNewConstMetric(componentRestarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
		if s.Budget > 0 {
			ch <- prometheus.MustNewConstMetric(componentBudget, prometheus.GaugeValue, float64(s.Budget), s.Name)
		}
		for _, part := range s.Parts {
			ch <- prometheus.MustNewConstMetric(partUp, prometheus.GaugeValue, one(part.Ready), s.Name, part.Name)
		}
	}
}
