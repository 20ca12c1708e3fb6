package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/slipwayhq/slipway/internal/observe/metrics"
	"github.com/slipwayhq/slipway/internal/supervise"
)

func (p *platform) metricsComponents(context.Context) ([]supervise.Component, error) {
	if !p.Metrics.Enabled {
		return nil, nil
	}
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	cfg := metrics.Config{
		DataDir: p.dir.Path("metrics"), Retention: time.Duration(p.Metrics.Retention), RetentionBytes: int64(p.Metrics.MaxSize),
		Interval: time.Duration(p.Metrics.ScrapeInterval), ExternalURL: p.ExternalURL + "/prometheus", Node: true, Log: p.log,
		Targets: []metrics.Target{{Job: "slipway", Gatherer: own}},
	}
	if p.Cluster.Enabled {
		cfg.Kubeconfig = p.dir.Kubeconfig()
		cfg.Targets = append(cfg.Targets, metrics.ClusterTargets()...)
	}
	if p.ingress != nil {
		cfg.Targets = append(cfg.Targets, metrics.Target{Job: "slipway-ingress", Gatherer: p.ingress.Gatherer(), Interval: 5 * time.Second})
	}
	if p.GitOps.Enabled {
		socket := filepath.Join(p.dir.Run(), "slipway-gitops.health.sock")
		for _, component := range gitopsMetrics {
			cfg.Targets = append(cfg.Targets, metrics.Target{Job: component, URL: "unix://" + socket + ":/metrics/" + component})
		}
	}
	m, err := metrics.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	p.metrics = m
	p.mux.Handle("/prometheus/", p.signedInOrLocal(m.Handler()))
	return []supervise.Component{{Name: "metrics", Unit: supervise.Func{
		RunFunc:   m.Run,
		ReadyFunc: func(context.Context) error { return m.Ready() },
	}}}, nil
}

// signedInOrLocal lets the machine's own programs (the analysis of Argo
// Rollouts among them) and signed-in people pass.
func (p *platform) signedInOrLocal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r) {
			who, err := p.access.Authenticate(r)
			if err != nil || !who.Signed() {
				w.Header().Set("WWW-Authenticate", `Basic realm="Slipway"`)
				http.Error(w, "sign in, or send an access token", http.StatusUnauthorized)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// fromLoopback reports whether a request was made on this machine and not
// passed on by a proxy on it.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || r.Header.Get("X-Forwarded-For") != "" {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// gitopsMetrics are the parts of slipway-gitops that have metrics.
var gitopsMetrics = []string{"argocd-application-controller", "argocd-repo-server", "argocd-server", "argo-rollouts"}
