package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/slipwayhq/slipway/internal/command/runner"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
)

// runnerInContainers executes the jobs of another platform in containers of
// this machine's containerd, as the built-in runner does.
func runnerInContainers(ctx context.Context, r runner.Registration, session delivery.RunnerSession, c delivery.Coordinator) error {
	platform, err := url.Parse(r.URL)
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "%s: %v", r.Name, err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's folder: %w", err)
	}
	if _, err := os.Stat(r.Containerd); err != nil {
		return delivery.Errorf(delivery.Unavailable, "%s: containerd does not serve at %s: start it, or register with --containerd", r.Name, r.Containerd)
	}
	session.Info.Version = version
	service, err := jobs.New(jobs.Config{
		Instance: "swrun", DataDir: r.Dir, BinDir: filepath.Dir(program), Socket: r.Containerd, Name: r.Name, Version: "slipway " + version,
		Registry: platform.Host, RegistryHTTP: platform.Scheme == "http", Concurrent: r.Concurrent,
		Session: session, Coordinator: c, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return service.Run(ctx)
}
