package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
	"github.com/slipwayhq/slipway/internal/store/forgedb"
	"github.com/slipwayhq/slipway/internal/supervise"
	"github.com/slipwayhq/slipway/internal/web"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// openCore opens the database and makes accounts, API and pages: what every
// stage is wired to.
func (p *platform) openCore(ctx context.Context) error {
	db, err := store.Open(ctx, p.dir.Path("db", "slipway.db"))
	if err != nil {
		return err
	}
	p.db = db
	p.closers = append(p.closers, db.Close)
	if err := p.openSeal(ctx); err != nil {
		return err
	}
	p.access = access.New(access.Options{Store: accessdb.New(db, p.box), Log: p.log, CookieSecure: p.secure()})
	if err := p.ensureAdministrator(ctx); err != nil {
		return err
	}
	p.api = api.NewRouter(p.access, p.access, p.log)
	p.mux = http.NewServeMux()
	return nil
}

// openSeal reads the key of what is encrypted at rest, and encrypts what was
// stored before that.
func (p *platform) openSeal(ctx context.Context) error {
	key, err := seal.LoadKey(p.dir.Path("keys", "ci.key"))
	if err != nil {
		return err
	}
	p.sealKey = key
	if p.box, err = seal.New(key); err != nil {
		return err
	}
	n, err := p.db.SealColumns(ctx, p.box, append(append([]string{}, accessdb.SealedColumns...), forgedb.SealedColumns...)...)
	if n > 0 {
		p.log.Info("stored secrets are encrypted now", "values", n)
	}
	return err
}

// secure reports whether people reach the platform by HTTPS only.
func (s *settings) secure() bool {
	return len(s.ExternalURL) > 8 && s.ExternalURL[:8] == "https://"
}

// rootPasswordFile is where the first administrator's password is kept until
// somebody changes it.
func (s *settings) rootPasswordFile() string { return filepath.Join(s.dir.Run(), "root.password") }

// adminTokenFile holds the token with which the command line acts.
func (s *settings) adminTokenFile() string { return filepath.Join(s.dir.Run(), "admin.token") }

// ensureAdministrator creates the first account, once, and renews the token of
// the command line at every start.
func (p *platform) ensureAdministrator(ctx context.Context) error {
	password, err := p.access.EnsureAdministrator(ctx)
	if err != nil {
		return fmt.Errorf("create the administrator: %w", err)
	}
	if password != "" {
		if err := writeSecret(p.rootPasswordFile(), password); err != nil {
			return err
		}
	}
	token, err := p.access.RenewAdminToken(ctx, "command line")
	if err != nil {
		return fmt.Errorf("renew the administrator's token: %w", err)
	}
	if err := writeSecret(p.adminTokenFile(), token); err != nil {
		return err
	}
	if p.readUser, token, err = p.access.RenewReadToken(ctx, "gitops"); err != nil {
		return fmt.Errorf("renew the GitOps engine's token: %w", err)
	}
	return writeSecret(p.readTokenFile(), token)
}

// readTokenFile holds the token with which the GitOps engine reads every
// repository.
func (s *settings) readTokenFile() string { return filepath.Join(s.dir.Run(), "gitops.token") }

// writeSecret replaces a file that only root may read.
func writeSecret(path, secret string) error {
	return wholefile.Write(path, []byte(secret+"\n"), 0o600)
}

// coreComponents serves web, API, git and registry on one listener.
func (p *platform) coreComponents(context.Context) ([]supervise.Component, error) {
	deps := web.Deps{
		Access: p.access, Forge: p.forge, Pipelines: p.pipelines, Registry: p.registry, Scan: p.scanner, RunsWhere: p.runsWhere(), Title: "Slipway", ExternalURL: p.ExternalURL, Log: p.log,
		Operations: p.operations(), SignOn: p.signOn, AppsDomain: p.Domain, AppsPort: p.Ingress.HTTPPort,
		Platform: func(context.Context) (any, error) { return p.report(true), nil },
	}
	if p.releases != nil {
		deps.Timeline, deps.Places = p.releases, p.releases
	}
	if p.metrics != nil {
		deps.Metrics = p.metrics
	}
	if p.ingress != nil {
		deps.Routes, deps.Authority, deps.SecureURLs = p.ingress.Routes, p.ingress.CA, p.secureURLs()
	}
	pages, err := web.New(deps)
	if err != nil {
		return nil, err
	}
	p.mux.Handle("/api/v4/", p.api)
	p.mux.HandleFunc("GET /-/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Slipway OK") })
	p.mux.Handle("/", pages)
	serve := supervise.Func{
		RunFunc: p.serveWeb,
		ReadyFunc: func(ctx context.Context) error {
			return httpOK(ctx, fmt.Sprintf("http://127.0.0.1:%d/-/health", p.Web.Port))
		},
	}
	trim := supervise.Func{RunFunc: p.trimEvents}
	return []supervise.Component{{Name: "web", Unit: serve}, {Name: "outbox", Unit: trim}}, nil
}

// serveWeb is the platform's listener. There are no read and write deadlines
// for whole requests: pushes, image layers and logs may take long; slow
// headers are cut off.
func (p *platform) serveWeb(ctx context.Context) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", p.Web.Port))
	if err != nil {
		return fmt.Errorf("listen for web, API, git and registry: %w", err)
	}
	srv := &http.Server{Handler: p.figures.measured(p.withGit(p.mux)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 256 << 10}
	// Without TLS too, HTTP/2: the argocd program speaks gRPC and asks for it.
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(last) != nil {
			srv.Close()
		}
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

// trimEvents forgets events that every consumer has seen.
func (p *platform) trimEvents(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if _, err := p.db.TrimEvents(ctx, 7*24*time.Hour); err != nil && ctx.Err() == nil {
			p.log.Warn("old events were not removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func httpOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return errors.New("starting (does not answer yet)")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answers %s", resp.Status)
	}
	return nil
}

// systemIdentity acts for the platform itself.
var systemIdentity = delivery.Identity{Kind: delivery.SystemActor, Name: "slipway"}
