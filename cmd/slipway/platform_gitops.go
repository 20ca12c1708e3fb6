package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/supervise"
	"github.com/slipwayhq/slipway/internal/trust"
)

// gitopsAPIPort is Argo CD's API on loopback; users reach it below /argocd of
// the platform's listener.
const gitopsAPIPort = 8083

// gitopsMetricsPort serves the metrics of Argo CD and Argo Rollouts on loopback.
const gitopsMetricsPort = 8084

// secretFile returns the path of a random secret that is made once.
func (p *platform) secretFile(name string) (string, error) {
	path := filepath.Join(p.dir.Run(), name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return path, writeSecret(path, rand.Text())
}

// gitopsConfig is what slipway-gitops is told.
func (p *platform) gitopsConfig() (gitops.Config, error) {
	webhook, err := p.secretFile("gitops.webhook")
	if err != nil {
		return gitops.Config{}, fmt.Errorf("gitops: %w", err)
	}
	c := gitops.Config{
		DataDir: p.dir.Path("gitops"), RunDir: p.dir.Path("gitops", "run"),
		HealthSocket: filepath.Join(p.dir.Run(), "slipway-gitops.health.sock"),
		Kubeconfig:   p.dir.Kubeconfig(), BinDir: p.dir.Bin(), LogLevel: p.LogLevel,
		Forge: gitops.Forge{URL: p.ExternalURL, Username: p.readUser, PasswordFile: p.readTokenFile(), WebhookSecretFile: webhook},
		API: gitops.API{
			Address: fmt.Sprintf("127.0.0.1:%d", gitopsAPIPort), RootPath: "/argocd", ExternalURL: p.ExternalURL + "/argocd",
			TokenFile: filepath.Join(p.dir.Run(), "argocd.token"),
			OIDC:      &gitops.OIDC{Issuer: p.ExternalURL, ClientID: argoClient},
		},
		ClusterDNS:     net.JoinHostPort(p.Cluster.DNSAddress, "53"),
		PrometheusURL:  fmt.Sprintf("http://127.0.0.1:%d/prometheus", p.Web.Port),
		MetricsAddress: fmt.Sprintf("127.0.0.1:%d", gitopsMetricsPort),
		MemoryLimit:    p.budget("slipway-gitops") * 8 / 10,
	}
	if p.Ingress.Enabled { // which holds the authority
		c.CABundle = filepath.Join(p.dir.Path("trust"), trust.BundleFile)
	}
	if c.LogLevel == "info" {
		c.LogLevel = "warn" // the engines are talkative
	}
	for _, dir := range []string{c.DataDir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return c, fmt.Errorf("gitops: %w", err)
		}
	}
	return c, nil
}

func (p *platform) gitopsComponents(context.Context) ([]supervise.Component, error) {
	if !p.GitOps.Enabled {
		return nil, nil
	}
	cfg, err := p.gitopsConfig()
	if err != nil {
		return nil, err
	}
	child, err := p.child("slipway-gitops", cfg, cfg.HealthSocket)
	if err != nil {
		return nil, err
	}
	p.routeArgo(cfg.API.Address)
	return []supervise.Component{{
		Name: "slipway-gitops", After: []string{"slipway-cluster", "web"}, Unit: child,
		Budget: p.budget("slipway-gitops"), StopWithin: 20 * time.Second,
	}}, nil
}

// routeArgo serves Argo CD's API through the gate: REST and gRPC-Web below
// /argocd, and gRPC, for which the argocd program needs no flag.
func (p *platform) routeArgo(address string) {
	gate := func(grpc bool) http.Handler {
		return &gitops.Gate{People: peopleForSignOn{p}, Issuer: p.ExternalURL, Next: gitops.NewProxy(address, grpc)}
	}
	const root = "/argocd"
	web := gate(false)
	p.mux.Handle(root+"/", web)
	p.mux.Handle("POST /auth/logout", gitops.Logout(root, web))
	p.mux.HandleFunc("GET /-/analysis/error-logs", p.errorLogs)
	// Where Argo CD's own pages would be, as its program and notifications link to them.
	p.mux.Handle("GET /argocd/{$}", http.RedirectHandler("/-/applications", http.StatusSeeOther))
	page := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/-/applications/"+url.PathEscape(r.PathValue("name")), http.StatusSeeOther)
	}
	p.mux.HandleFunc("GET /argocd/applications/{name}", page)
	p.mux.HandleFunc("GET /argocd/applications/"+gitops.Namespace+"/{name}", page)
	calls := gitops.WebCalls(root, web, gate(true))
	for _, service := range gitops.Services {
		p.mux.Handle("POST /"+service+"/", calls)
	}
}

func (p *platform) reverter() gitops.Reverter { return reverter{p.forge, p.ExternalURL} }

// readSecret reads a secret file.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
