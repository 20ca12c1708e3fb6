package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/observe/metrics"
	"github.com/slipwayhq/slipway/internal/supervise"
)

func (p *platform) metricsComponents(context.Context) ([]supervise.Component, error) {
	if !p.Metrics.Enabled {
		return nil, nil
	}
	cfg := metrics.Config{
		DataDir: p.dir.Path("metrics"), Retention: time.Duration(p.Metrics.Retention), RetentionBytes: int64(p.Metrics.MaxSize),
		Interval: time.Duration(p.Metrics.ScrapeInterval), ExternalURL: p.ExternalURL + "/prometheus", Node: true, Log: p.log,
		Targets: []metrics.Target{{Job: "slipway", Gatherer: p.figures.registry}},
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
// Rollouts among them), signed-in people, and tokens that may read the API
// pass. Tokens of jobs and of deployments may not: metrics tell of every
// project. A browser's question whether it may ask (CORS) comes without either.
func (p *platform) signedInOrLocal(h http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, status int, kind, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		answer := map[string]string{"status": "error", "errorType": kind, "error": message}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			p.log.Debug("a refusal was not sent", "err", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromLoopback(r) || r.Method == http.MethodOptions {
			h.ServeHTTP(w, r)
			return
		}
		who, err := p.access.Authenticate(r)
		switch {
		case delivery.KindOf(err) == delivery.Forbidden:
			refuse(w, http.StatusForbidden, "forbidden", delivery.UserMessage(err))
		case err != nil && delivery.KindOf(err) != delivery.Unauthenticated:
			p.log.Error("metrics: who asks", "err", err)
			refuse(w, http.StatusServiceUnavailable, "unavailable", delivery.UserMessage(err))
		case err != nil || !who.Signed():
			w.Header().Set("WWW-Authenticate", `Basic realm="Slipway"`)
			refuse(w, http.StatusUnauthorized, "unauthorized", "sign in, or send an access token with the scope read_api")
		case who.User == nil || who.JobID != 0 || who.ProjectID != 0 || who.GroupID != 0 || !who.HasScope("read_api"):
			refuse(w, http.StatusForbidden, "forbidden", "metrics tell of every project: they need a person's session, password or access token with the scope read_api")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// fromLoopback reports whether a program of this machine made a request: it was
// not passed on by a proxy here, and no web page has a browser make it, be it
// of another origin or under a name of its own that leads here (DNS rebinding).
func fromLoopback(r *http.Request) bool {
	for _, header := range []string{"X-Forwarded-For", "Origin", "Sec-Fetch-Site"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	if !isLoopback(r.RemoteAddr) {
		return false
	}
	return r.Host == "localhost" || strings.HasPrefix(r.Host, "localhost:") || isLoopback(r.Host)
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// gitopsMetrics are the parts of slipway-gitops that have metrics.
var gitopsMetrics = []string{"argocd-application-controller", "argocd-repo-server", "argocd-server", "argo-rollouts"}
