package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/store/registrydb"
	"github.com/slipwayhq/slipway/internal/store/scandb"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// registryAccounts lets access decide who signs in to the registry.
type registryAccounts struct{ access *access.Service }

// SignIn implements registry.Accounts.
func (a registryAccounts) SignIn(ctx context.Context, username, secret string) (delivery.Identity, error) {
	return a.access.AuthenticateBasic(ctx, username, secret, "")
}

// registryComponents makes the registry and, with it, the scanner of its images.
func (p *platform) registryComponents(context.Context) ([]supervise.Component, error) {
	if !p.Registry.Enabled {
		return nil, nil
	}
	// The engine logs to logrus' standard logger.
	logrus.SetLevel(logrus.WarnLevel)
	logrus.SetFormatter(registry.EngineLog{Formatter: &logrus.TextFormatter{DisableColors: true, FullTimestamp: true}})
	upstreams := []registry.Upstream{}
	for _, host := range p.Registry.Mirrors {
		url := "https://" + host
		if host == "docker.io" {
			url = "https://registry-1.docker.io"
		}
		upstream := registry.Upstream{Host: host, URL: url}
		if file := p.Registry.Credentials[host]; file != "" {
			var err error
			if upstream.Username, upstream.Password, err = readCredential(file); err != nil {
				return nil, fmt.Errorf("registry.credentials of %s: %w", host, err)
			}
		}
		upstreams = append(upstreams, upstream)
	}
	cfg := registry.Config{
		Dir: p.dir.Path("registry"), Index: registrydb.New(p.db), Accounts: registryAccounts{p.access}, Projects: p.access,
		Upstreams: upstreams, CacheSize: int64(p.Registry.CacheSize), ProjectQuota: int64(p.Registry.ProjectQuota), Log: p.log,
	}
	if p.Cluster.Enabled {
		cfg.Use = clusterUse{p.dir.Kubeconfig()}
	}
	reg, err := registry.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	p.registry = reg
	p.forge.SetMoveCheck(p.noImages)
	p.access.SetMoveCheck(p.noImagesIn)
	p.closers = append(p.closers, reg.Close)
	p.mux.Handle("/v2/", reg.Handler())
	p.mux.Handle("/jwt/auth", reg.TokenHandler())
	reg.Routes(p.api, p.externalHost())
	scanner, err := p.openScanner(reg)
	if err != nil {
		return nil, err
	}
	p.scanner = scanner
	scanner.Routes(p.api, p.imageDigest)
	return []supervise.Component{
		{Name: "registry", Unit: supervise.Func{RunFunc: func(ctx context.Context) error {
			return together(ctx, reg.Run, p.consume("registry", p.forgetImages))
		}}},
		{Name: "scan", Unit: supervise.Func{RunFunc: func(ctx context.Context) error {
			return together(ctx, scanner.Run, p.consume("scan", scanner.Handle))
		}}},
	}, nil
}

// noImages refuses to move a project that has images: they are known by its
// path, and whoever took the path would have them.
func (p *platform) noImages(ctx context.Context, projectID int64) error {
	list, err := p.registry.Repositories(ctx, projectID)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Images > 0 {
			return &delivery.Error{Kind: delivery.Conflict, Message: "The address cannot change while there are images in " + r.Path + ".", Next: "Delete them first, or copy them to another project."}
		}
		if err := p.registry.DeleteRepository(ctx, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// noImagesIn is noImages for every project in a namespace.
func (p *platform) noImagesIn(ctx context.Context, namespaceID int64) error {
	list, _, err := p.forge.Projects(ctx, forge.ProjectFilter{All: true, GroupID: namespaceID, Subgroups: true}, 0, 0)
	if err != nil {
		return err
	}
	for _, project := range list {
		if err := p.noImages(ctx, project.ID); err != nil {
			return err
		}
	}
	return nil
}

// readCredential reads a file with user:password.
func readCredential(file string) (user, password string, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", "", fmt.Errorf("%s can be read by others than its owner; mend it with: chmod 600 %s", file, file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	user, password, ok := strings.Cut(strings.TrimSpace(string(raw)), ":")
	if !ok || user == "" || password == "" {
		return "", "", fmt.Errorf("%s does not hold user:password", file)
	}
	return user, password, nil
}

func (p *platform) openScanner(reg *registry.Registry) (*scan.Service, error) {
	source, every := p.Scan.Database, time.Duration(0)
	if source == "" {
		every = -1 // databases are imported by hand
	}
	host, _, _ := strings.Cut(source, "/")
	local := strings.TrimPrefix(p.localURL(), "http://")
	insecure := false
	for _, cached := range p.Registry.Mirrors {
		if cached == host {
			source, insecure = local+"/"+source, true
		}
	}
	s, err := scan.New(scan.Config{
		Program: filepath.Join(p.binDir, "trivy"), Dir: p.dir.Path("scan"), Store: scandb.New(p.db), Images: reg, Log: p.log, OnPush: p.Scan.OnPush,
		MemoryLimit: p.budget("trivy"), Confine: func(pid int) error { return p.cgroups.Join("trivy", pid, p.budget("trivy")) },
		Source: source, SourceInsecure: insecure, UpdateEvery: every, Registry: p.externalHost(), RegistryInsecure: !p.secure(), RegistryTransport: p.transport,
		CacheHosts: p.Registry.Mirrors,
	})
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	return s, nil
}

// imageDigest resolves a tag or digest of a project's image.
func (p *platform) imageDigest(ctx context.Context, projectID int64, repository, ref string) (string, error) {
	image, err := p.registry.Image(ctx, repository, ref)
	if err == nil && image.ProjectID != projectID {
		err = delivery.Errorf(delivery.NotFound, "Image Not Found")
	}
	return image.Digest, err
}

// forgetImages removes the images of a project that is gone.
func (p *platform) forgetImages(ctx context.Context, e delivery.Event) error {
	if e.Kind != delivery.EventProjectDeleted || e.ProjectID == 0 {
		return nil
	}
	return p.registry.DeleteProject(ctx, e.ProjectID)
}

// consume returns a loop that hands the outbox's events to fn.
func (p *platform) consume(name string, fn func(context.Context, delivery.Event) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return p.db.Consume(ctx, name, func(err error) { p.log.Warn("event", "err", err) }, fn)
	}
}

// together runs loops until the first ends, then stops and waits for the others.
func together(ctx context.Context, loops ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(loops))
	for _, loop := range loops {
		go func() { ended <- loop(ctx) }()
	}
	first := <-ended
	stop()
	for range len(loops) - 1 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			first = errors.Join(first, err)
		}
	}
	return first
}
