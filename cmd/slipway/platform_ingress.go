package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/slipwayhq/slipway/internal/ingress"
	"github.com/slipwayhq/slipway/internal/supervise"
)

func (p *platform) ingressComponents(context.Context) ([]supervise.Component, error) {
	if !p.Ingress.Enabled {
		return nil, nil
	}
	cfg := ingress.Config{
		HTTPAddr: fmt.Sprintf(":%d", p.Ingress.HTTPPort), HTTPSAddr: fmt.Sprintf(":%d", p.Ingress.HTTPSPort),
		DataDir: p.dir.Path("ingress"), Platform: p.figures.measured(p.withGit(p.mux)), PlatformHosts: p.platformHosts(), Addresses: []string{p.nodeIP()},
		ACME: ingress.ACME{Email: p.Ingress.ACMEEmail}, Log: p.log,
		TrustedProxies: p.Ingress.TrustedProxies, ProxyProtocol: p.Ingress.ProxyProtocol,
	}
	if p.Ingress.AccessLog {
		cfg.AccessLog = filepath.Join(p.dir.Logs(), "ingress-access.log")
	}
	if p.Cluster.Enabled {
		cfg.Kubeconfig = p.dir.Kubeconfig()
	}
	in, err := ingress.New(cfg)
	if err != nil {
		return nil, err
	}
	p.ingress = in
	p.mux.HandleFunc("GET /-/ca.crt", in.ServeCA)
	return []supervise.Component{{Name: "ingress", Unit: supervise.Func{
		RunFunc:   in.Run,
		ReadyFunc: func(context.Context) error { return in.Ready() },
	}}}, nil
}
