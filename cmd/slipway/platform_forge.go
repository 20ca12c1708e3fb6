package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/group"
	"github.com/slipwayhq/slipway/internal/command/project"
	"github.com/slipwayhq/slipway/internal/command/token"
	"github.com/slipwayhq/slipway/internal/command/user"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/forge/rest"
	"github.com/slipwayhq/slipway/internal/mail"
	"github.com/slipwayhq/slipway/internal/store/forgedb"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// openForge makes the forge; what was interrupted by a crash is recovered
// before anybody is served.
func (p *platform) openForge(ctx context.Context) error {
	mailer, err := p.mailer()
	if err != nil {
		return err
	}
	f, err := forge.New(forge.Options{
		Mailer: mailer,
		Store:  forgedb.New(p.db, p.box), Access: p.access, Root: p.dir.Path("repositories"), RunDir: p.dir.Path("run", "git"),
		LFSRoot: p.dir.Path("lfs"), ExternalURL: p.ExternalURL, SSHHost: p.address, SSHPort: p.SSH.Port, Log: p.log,
		MaxPushBytes: int64(p.Forge.MaxPushSize), LocalHosts: p.Forge.WebhookAllow,
	})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, f.Close)
	if err := f.Recover(ctx); err != nil {
		return fmt.Errorf("recover repositories: %w", err)
	}
	p.forge = f
	p.access.RegisterAPI(p.api, p.ExternalURL)
	rest.Register(p.api, f, p.access, version)
	return nil
}

// mailer sends e-mail where a server is configured, and is nil otherwise.
func (p *platform) mailer() (forge.Mailer, error) {
	c := p.Mail
	if c.Host == "" {
		return nil, nil
	}
	o := mail.Options{Host: c.Host, Port: c.Port, Encryption: c.Encryption, Username: c.Username, From: c.From}
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("mail.password_file: %w", err)
		}
		o.Password, _, _ = strings.Cut(string(b), "\n")
		o.Password = strings.TrimSuffix(o.Password, "\r")
	}
	return mail.New(o)
}

// withGit sends git's requests to the forge and all others on.
func (p *platform) withGit(next http.Handler) http.Handler {
	git := p.forge.GitHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if forge.IsGit(r) {
			git.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *platform) forgeComponents(context.Context) ([]supervise.Component, error) {
	comps := []supervise.Component{{Name: "forge", Unit: supervise.Func{RunFunc: p.forge.Run}}}
	if p.SSH.Port == 0 {
		return comps, nil
	}
	return append(comps, supervise.Component{Name: "ssh", Unit: supervise.Func{
		RunFunc: p.serveSSH,
		ReadyFunc: func(ctx context.Context) error {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", p.SSH.Port))
			if err != nil {
				return err
			}
			return c.Close()
		},
	}}), nil
}

func (p *platform) serveSSH(ctx context.Context) error {
	key, err := forge.LoadHostKey(p.dir.Path("ssh_host_ed25519_key"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", p.SSH.Port))
	if err != nil {
		return fmt.Errorf("listen for git over SSH: %w", err)
	}
	return p.forge.ServeSSH(ctx, l, key)
}

// forgeCommands are the commands of accounts and projects.
func (a *app) forgeCommands() []*cobra.Command {
	return []*cobra.Command{user.New(a.connect), token.New(a.connect), group.New(a.connect), project.New(a.connect)}
}
