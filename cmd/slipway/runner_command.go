package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/slipwayhq/slipway/internal/command/runner"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
	execution "github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/trust"
)

// runnerInContainers executes the jobs of another platform in containers of
// this machine's containerd, as the built-in runner does.
func runnerInContainers(ctx context.Context, r runner.Registration, session delivery.RunnerSession, c delivery.Coordinator) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's folder: %w", err)
	}
	if os.Geteuid() != 0 {
		return &delivery.Error{Kind: delivery.Forbidden, Message: r.Name + ": only root runs containers.", Next: "Run the command with sudo, or register with --executor shell."}
	}
	if _, err := os.Stat(r.Containerd); err != nil {
		return delivery.Errorf(delivery.Unavailable, "%s: containerd does not serve at %s: start it, or register with --containerd", r.Name, r.Containerd)
	}
	config, err := containersOf(ctx, r)
	if err != nil {
		return err
	}
	session.Info.Version = version
	config.BinDir, config.Session, config.Coordinator = filepath.Dir(program), session, c
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	service, err := jobs.New(config)
	if err != nil {
		return err
	}
	return service.Run(ctx)
}

// containersOf derives where a registration's jobs run. Its containers, names
// and networks are its own: other runners, and a platform, may use the same
// containerd.
func containersOf(ctx context.Context, r runner.Registration) (jobs.Config, error) {
	platform, err := url.Parse(r.URL)
	if err != nil {
		return jobs.Config{}, delivery.Errorf(delivery.Invalid, "%s: %v", r.Name, err)
	}
	network, err := netip.ParsePrefix(r.JobCIDR)
	if err != nil {
		return jobs.Config{}, delivery.Errorf(delivery.Invalid, "%s has no network for its jobs: unregister and register it again", r.Name)
	}
	sum := sha256.Sum256([]byte(r.Name))
	own := "sr" + hex.EncodeToString(sum[:3])
	config := jobs.Config{
		Instance: own, Namespace: "slipway-runner-" + own, DataDir: r.Dir, Socket: r.Containerd, Name: r.Name, Version: "slipway " + version,
		JobSubnet: network, Registry: platform.Host, RegistryHTTP: platform.Scheme == "http", Concurrent: r.Concurrent,
		Limits: execution.Limits{Memory: r.JobMemory, CPU: r.JobCPUs}, MaxLimits: execution.Limits{Memory: r.JobMemory, CPU: r.JobCPUs},
	}
	if config.HostPorts, err = portHere(ctx, platform); err != nil {
		return jobs.Config{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	if r.CAFile == "" {
		return config, nil
	}
	// Jobs see a folder with the authority, made anew at each start.
	root, err := os.ReadFile(r.CAFile)
	if err != nil {
		return jobs.Config{}, delivery.Errorf(delivery.Invalid, "%s: --tls-ca-file: %v", r.Name, err)
	}
	files, err := trust.Files(root)
	if err != nil {
		return jobs.Config{}, err
	}
	dir := filepath.Join(r.Dir, "trust")
	if err := os.MkdirAll(r.Dir, 0o711); err != nil {
		return jobs.Config{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	config.TrustDir, config.TrustURLs, config.CAFile, config.RegistryCA = dir, []string{r.URL}, r.CAFile, r.CAFile
	return config, trust.Write(dir, files)
}

// portHere is the platform's port if the platform lives on this host: jobs reach
// nothing else of it.
func portHere(ctx context.Context, platform *url.URL) ([]uint16, error) {
	port := platform.Port()
	if port == "" {
		if port = "80"; platform.Scheme == "https" {
			port = "443"
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "the platform's port %q is not a number", port)
	}
	found, err := net.DefaultResolver.LookupHost(ctx, platform.Hostname())
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The name " + platform.Hostname() + " cannot be resolved.", Err: err}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	for _, address := range found {
		for _, one := range own {
			if ip, _, err := net.ParseCIDR(one.String()); err == nil && ip.Equal(net.ParseIP(address)) && !ip.IsLoopback() {
				return []uint16{uint16(number)}, nil
			}
		}
	}
	return nil, nil
}
