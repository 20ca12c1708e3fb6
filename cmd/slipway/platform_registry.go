package main

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/store/registrydb"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// registryAccounts lets access decide who signs in to the registry.
type registryAccounts struct{ access *access.Service }

// SignIn implements registry.Accounts.
func (a registryAccounts) SignIn(ctx context.Context, username, secret string) (delivery.Identity, error) {
	return a.access.AuthenticateBasic(ctx, username, secret, "")
}

func (p *platform) registryComponents(context.Context) ([]supervise.Component, error) {
	if !p.Registry.Enabled {
		return nil, nil
	}
	// The engine writes a line per request to logrus' standard logger.
	logrus.SetLevel(logrus.WarnLevel)
	upstreams := []registry.Upstream{}
	for _, host := range p.Registry.Mirrors {
		url := "https://" + host
		if host == "docker.io" {
			url = "https://registry-1.docker.io"
		}
		upstreams = append(upstreams, registry.Upstream{Host: host, URL: url})
	}
	reg, err := registry.New(registry.Config{
		Dir: p.dir.Path("registry"), Index: registrydb.New(p.db), Accounts: registryAccounts{p.access}, Projects: p.access,
		Upstreams: upstreams, CacheSize: int64(p.Registry.CacheSize), Log: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	p.registry = reg
	p.closers = append(p.closers, reg.Close)
	p.mux.Handle("/v2/", reg.Handler())
	p.mux.Handle("/jwt/auth", reg.TokenHandler())
	return []supervise.Component{{Name: "registry", Unit: supervise.Func{RunFunc: reg.Run}}}, nil
}
