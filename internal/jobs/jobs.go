// Package jobs puts the built-in runner together: the runner, its containerd
// executor and the image builds of its jobs.
//
// It owns their start, recovery and stop as one service and the translation
// between their types. It receives one Config and emits nothing of its own.
// Like a main package it is wiring: no stage may import it.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/build"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/toolwire"
	"github.com/slipwayhq/slipway/internal/trust"
)

// Config configures the service. DataDir, BinDir, Instance, Socket, the subnets,
// Coordinator and Session are required; sizes are bytes.
type Config struct {
	Instance string // at most 11 characters: names interfaces, tables and cgroups
	// Namespace of containerd for the jobs' containers (default slipway-jobs),
	// and CgroupParent of their cgroups (default /<Instance>/jobs). All that
	// another process left in the namespace is removed at the start.
	Namespace    string
	CgroupParent string
	DataDir      string // the instance's data directory
	BinDir       string // holds buildkitd, docker and the runc shim
	Socket       string // containerd's

	Name     string // shown in traces (default "Slipway built-in runner")
	Version  string // shown in traces
	Hostname string

	JobSubnet   netip.Prefix   // default 10.44.0.0/20: one /28 for each job at a time
	BuildSubnet netip.Prefix   // of build steps (default: the last /24 of a JobSubnet of at least a /19, else 10.45.0.0/24)
	Blocked     []netip.Prefix // what no job may reach: pod and service ranges
	HostPorts   []uint16       // TCP ports of this host that jobs may reach: the platform's
	DNS         []string       // default: the host's
	CNIBinDir   string         // default /usr/lib/cni

	DefaultImage  string // of jobs that name none (default debian:bookworm-slim)
	Registry      string // host[:port] of the platform's registry in image names
	RegistryHTTP  bool   // the registry is reached without TLS
	RegistryCA    string // CA file of the registry; may be empty
	RegistryLocal string // host:port at which the registry is reached on this host without TLS; may be empty
	// Mirrors lists pull-through caches by registry host: "docker.io" ->
	// "192.0.2.2:8080/docker.io".
	Mirrors    map[string]string
	PullPolicy []string // default always

	Concurrent   int   // jobs at a time (default 4)
	MemoryBudget int64 // of all jobs together; 0: unlimited
	Limits       runner.Limits
	MaxLimits    runner.Limits
	Privileged   bool
	CacheBudget  int64 // of job caches (default 5 GB)
	BuildBudget  int64 // of the build cache (default 10 GB)
	BuildIdle    time.Duration
	// PlaceBuildkit puts buildkitd's process into its cgroup; may be nil.
	PlaceBuildkit func(pid int) error

	// TrustDir is a folder with the platform's certificate authority, TrustURLs
	// the platform's https addresses; both may be empty.
	TrustDir  string
	TrustURLs []string
	// CAFile is that authority's certificate for what the runner itself fetches
	// from TrustURLs; it may appear later, and be empty.
	CAFile string

	Session      delivery.RunnerSession
	Coordinator  runner.Coordinator
	Repositories runner.Repositories
	Scanner      build.Scanner // runs trivy; nil: not offered
	Logger       *slog.Logger
}

func (c *Config) setDefaults() {
	if !c.JobSubnet.IsValid() {
		c.JobSubnet = netip.MustParsePrefix("10.44.0.0/20")
	}
	if !c.BuildSubnet.IsValid() {
		c.BuildSubnet = netip.MustParsePrefix("10.45.0.0/24")
		if jobs := c.JobSubnet.Masked(); jobs.Addr().Is4() && jobs.Bits() <= 19 {
			// Jobs use the first 256 /28 at most.
			c.BuildSubnet = netip.PrefixFrom(plus(jobs, uint32(1)<<(32-jobs.Bits())-256), 24)
		}
	}
	if c.Name == "" {
		c.Name = "Slipway built-in runner"
	}
	if c.CacheBudget == 0 {
		c.CacheBudget = 5e9
	}
	if c.Limits.PIDs == 0 {
		c.Limits.PIDs = 4096
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Service is the built-in runner.
type Service struct {
	*Place
	runner *runner.Runner
}

// Place is where jobs run: containers, their networks and image builds. A
// runner that lives elsewhere may use it, one at a time for each instance.
type Place struct {
	executor *containerd.Executor
	engine   *build.Engine
	network  *containerd.Reserved
	tools    []runner.ToolMount
}

// OpenPlace checks the configuration and connects to containerd, which must
// serve. Coordinator, Session and Repositories are not looked at.
func OpenPlace(c Config) (*Place, error) {
	c.setDefaults()
	dir := filepath.Join(c.DataDir, "runner")
	hosts := filepath.Join(dir, "registries")
	if err := writeHosts(hosts, c); err != nil {
		return nil, err
	}
	var engine *build.Engine
	executor, err := containerd.New(containerd.Config{
		Logger: c.Logger,
		Socket: c.Socket, Dir: filepath.Join(dir, "containers"), DefaultImage: c.DefaultImage, Namespace: c.Namespace, CgroupParent: c.CgroupParent,
		Registry: c.Registry, RegistryLocal: c.RegistryLocal, RegistryHosts: hosts, PullPolicy: c.PullPolicy, UseLocalWhenUnreachable: true,
		Network: containerd.NetworkConfig{Instance: c.Instance, Subnet: c.JobSubnet, Blocked: append([]netip.Prefix{c.BuildSubnet}, c.Blocked...),
			HostPorts: c.HostPorts, DNS: c.DNS},
		ServiceLimits: c.Limits, Trust: containerd.Trust{Dir: c.TrustDir, URLs: c.TrustURLs},
		Endpoint: &endpoints{engine: func() *build.Engine { return engine }},
	})
	if err != nil {
		return nil, fmt.Errorf("job executor: %w", err)
	}
	network := executor.Reserve()
	registries := map[string]build.Registry{}
	for host, mirror := range c.Mirrors {
		registries[host] = build.Registry{Mirrors: []string{mirror}}
	}
	if c.RegistryLocal != "" {
		registries[c.RegistryLocal] = build.Registry{PlainHTTP: true}
	}
	if c.Registry != "" && c.Registry != c.RegistryLocal {
		own := build.Registry{PlainHTTP: c.RegistryHTTP, CAFile: c.RegistryCA}
		if c.RegistryLocal != "" {
			own.Mirrors = []string{c.RegistryLocal}
		}
		registries[c.Registry] = own
	}
	transport, err := c.transport()
	if err != nil {
		return nil, errors.Join(err, executor.Close(context.Background()))
	}
	engine, err = build.New(build.Config{
		Transport: transport,
		Daemon: build.DaemonConfig{
			Namespace: c.buildNamespace(),
			Program:   filepath.Join(c.BinDir, "buildkitd"), Dir: filepath.Join(dir, "buildkit"), ContainerdSocket: c.Socket, Instance: c.Instance,
			CNIBinDir: c.CNIBinDir, Subnet: c.BuildSubnet, DNS: executor.DNS(), RuntimePath: filepath.Join(c.BinDir, "containerd-shim-runc-v2"),
			Registries: registries, CacheBudget: c.BuildBudget, IdleTimeout: c.BuildIdle, InNetwork: network.InNetwork, Place: c.PlaceBuildkit, Logger: c.Logger,
		},
		Dir: filepath.Join(dir, "endpoints"), RegistryHosts: hosts, Scanner: c.Scanner, JobsNamespace: c.Namespace,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image builds: %w", err), executor.Close(context.Background()))
	}
	return &Place{executor: executor, engine: engine, network: network, tools: tools(c.BinDir)}, nil
}

// Executor runs jobs in the place.
func (p *Place) Executor() runner.Executor {
	return &recovering{Executor: p.executor, engine: p.engine}
}

// BuildsDir is where jobs see their builds folder.
func (*Place) BuildsDir() string { return containerd.BuildsDir }

// Tools are placed in the jobs' PATH.
func (p *Place) Tools() []runner.ToolMount { return p.tools }

// CheckBuildkit returns the process id of buildkitd, or 0 while no build needs
// it, and an error when it does not answer before ctx ends.
func (p *Place) CheckBuildkit(ctx context.Context) (pid int, err error) { return p.engine.Check(ctx) }

// Close stops image builds and removes the networks. No job may be running.
func (p *Place) Close(ctx context.Context) error {
	return errors.Join(p.engine.Close(), p.network.Close(), p.executor.Close(ctx))
}

// New checks the configuration and connects to containerd, which must serve.
func New(c Config) (*Service, error) {
	c.setDefaults()
	place, err := OpenPlace(c)
	if err != nil {
		return nil, err
	}
	r, err := runner.New(runner.Config{
		Dir: filepath.Join(c.DataDir, "runner"), BuildsDir: place.BuildsDir(), Session: c.Session, Name: c.Name, Version: c.Version, Hostname: c.Hostname, Repositories: c.Repositories,
		Concurrent: c.Concurrent, MemoryBudget: c.MemoryBudget, Limits: c.Limits, MaxLimits: c.MaxLimits, Privileged: c.Privileged, CacheBudget: c.CacheBudget,
		// The coordinator is in this process: a cancellation of a silent job is
		// heard at the next sign of life.
		KeepAlive: 3 * time.Second,
		Tools:     place.Tools(),
		CAFile:    c.CAFile, SecureURLs: c.TrustURLs,
		Logger: c.Logger,
	}, c.Coordinator, place.Executor())
	if err != nil {
		return nil, errors.Join(err, place.Close(context.Background()))
	}
	return &Service{Place: place, runner: r}, nil
}

// buildNamespace is containerd's namespace of build steps: what an earlier
// process left in it is removed, so places that share a containerd have one each.
func (c *Config) buildNamespace() string {
	if c.Namespace == "" {
		return "" // the default
	}
	return c.Namespace + "-builds"
}

// transport is that of `docker login`, with the registry's authority.
func (c *Config) transport() (http.RoundTripper, error) {
	if c.RegistryCA == "" {
		return http.DefaultTransport, nil
	}
	return trust.Transport(c.RegistryCA)
}

// tools are the programs placed in the PATH of jobs; those for the cluster only
// where the job has access to it.
func tools(bin string) []runner.ToolMount {
	const folder, cluster = "/usr/local/bin/", "KUBE_NAMESPACE"
	docker, kube := filepath.Join(bin, "docker"), filepath.Join(bin, "slipway-tools")
	list := []runner.ToolMount{{Source: docker, Target: folder + "docker"}, {Source: docker, Target: folder + "trivy"}}
	for name, source := range map[string]string{"kubectl": kube, "helm": kube, "kustomize": kube, "kubectl-argo-rollouts": filepath.Join(bin, "kubectl-argo-rollouts")} {
		if _, err := os.Stat(source); err == nil {
			list = append(list, runner.ToolMount{Source: source, Target: folder + name, Variable: cluster})
		}
	}
	return list
}

// AdministratorSocket is where `slipway image build` of the host's
// administrator finds the image builds of the instance with this data
// directory, while its runner runs.
func AdministratorSocket(dataDir string) string {
	return filepath.Join(dataDir, "runner", "endpoints", strconv.Itoa(build.Administrator), filepath.Base(toolwire.Socket))
}

// Run takes and executes jobs until ctx ends; then it ends the jobs in hand,
// stops buildkitd and removes the networks. It is called once.
func (s *Service) Run(ctx context.Context) error {
	administration := make(chan error, 1)
	go func() { administration <- s.administrate(ctx) }()
	err := errors.Join(s.runner.Run(ctx), <-administration)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return errors.Join(err, s.Close(closing))
}

// administrate serves the administrator's image builds until ctx ends.
func (s *Service) administrate(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.runner.Ready(): // what an earlier run left is gone
	}
	_, closeEndpoint, err := s.engine.Open(ctx, build.Scope{JobID: build.Administrator, BuildsPath: "/nonexistent", BuildsDir: "/nonexistent"})
	if err != nil {
		return fmt.Errorf("serve image builds: %w", err)
	}
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return closeEndpoint(closing)
}

// Ready is closed when jobs of an earlier run are reported and the runner asks
// for new ones.
func (s *Service) Ready() <-chan struct{} { return s.runner.Ready() }

// recovering recovers executor and image builds together.
type recovering struct {
	*containerd.Executor
	engine *build.Engine
}

// Recover implements runner.Executor.
func (r *recovering) Recover(ctx context.Context) error {
	if err := r.Executor.Recover(ctx); err != nil {
		return err
	}
	return r.engine.Recover(ctx)
}

// endpoints opens the endpoints of jobs.
type endpoints struct{ engine func() *build.Engine }

// Open implements containerd.EndpointProvider.
func (e *endpoints) Open(ctx context.Context, scope containerd.EndpointScope) (string, func(context.Context) error, error) {
	r := scope.Request
	credentials := make([]build.Credential, 0, len(r.Credentials))
	for _, one := range r.Credentials {
		credentials = append(credentials, build.Credential{Host: one.Host, Username: one.Username, Password: one.Password})
	}
	return e.engine().Open(ctx, build.Scope{
		JobID: r.JobID, ProjectID: r.ProjectID, BuildsPath: containerd.BuildsDir, BuildsDir: r.BuildsDir, Credentials: credentials,
		Create: func(ctx context.Context, b build.RunRequest) (build.Container, error) {
			made, err := scope.Beside(ctx, request(b))
			if err != nil {
				return nil, err
			}
			return beside{made}, nil
		},
	})
}

// beside is a container of a job as image builds know it.
type beside struct{ *containerd.Beside }

// Exec implements build.Container.
func (b beside) Exec(ctx context.Context, r build.RunRequest) (int, error) {
	return b.Beside.Exec(ctx, request(r))
}

func request(b build.RunRequest) containerd.RunRequest {
	volumes := make([]containerd.Volume, 0, len(b.Volumes))
	for _, one := range b.Volumes {
		volumes = append(volumes, containerd.Volume{Source: one.Source, Target: one.Target, ReadOnly: one.ReadOnly, Create: one.Create})
	}
	return containerd.RunRequest{
		Image: b.Image, Local: b.Local, Entrypoint: b.Entrypoint, Args: b.Args, Env: b.Env, User: b.User, Workdir: b.Workdir, Volumes: volumes,
		Hostname: b.Hostname, Names: b.Names, Stdin: b.Stdin, Stdout: b.Stdout, Stderr: b.Stderr,
	}
}
