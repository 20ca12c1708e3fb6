package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/slipwayhq/slipway/internal/build"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/supervise"
	"github.com/slipwayhq/slipway/internal/trust"
)

func (p *platform) runnerComponents(context.Context) ([]supervise.Component, error) {
	if !p.Runner.Enabled || !p.Cluster.Enabled {
		return nil, nil
	}
	unit := &runnerUnit{platform: p}
	return []supervise.Component{
		{Name: "runner", After: []string{"containerd", "web"}, Unit: unit},
		{Name: "buildkitd", After: []string{"runner"}, Unit: &buildkitdUnit{runner: unit}, Budget: p.budget("buildkitd")},
	}, nil
}

// buildkitdUnit tells of buildkitd, which the runner starts when a build needs it
// and ends when none has for a while: it is ready unless it runs and is silent.
type buildkitdUnit struct {
	runner *runnerUnit
	pid    atomic.Int64
}

// Run implements supervise.Unit.
func (u *buildkitdUnit) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready implements supervise.Unit.
func (u *buildkitdUnit) Ready(ctx context.Context) error {
	service := u.runner.service.Load()
	if service == nil {
		return errors.New("starting")
	}
	pid, err := service.CheckBuildkit(ctx)
	u.pid.Store(int64(pid))
	if errors.Is(err, context.DeadlineExceeded) {
		return supervise.Silent(pid, "buildkitd", true)
	}
	return err
}

// PID implements supervise.Detailed.
func (u *buildkitdUnit) PID() int { return int(u.pid.Load()) }

// Parts implements supervise.Detailed.
func (u *buildkitdUnit) Parts() []supervise.Part { return nil }

// runnerUnit runs the built-in runner. It is built anew at each start, because
// it connects to containerd then.
type runnerUnit struct {
	*platform
	service atomic.Pointer[jobs.Service] // while it takes jobs
}

// Ready implements supervise.Unit. A runner whose containerd is silent runs no
// job.
func (u *runnerUnit) Ready(ctx context.Context) error {
	if u.service.Load() == nil {
		return errors.New("starting")
	}
	return u.containerd.Serves(ctx)
}

// Run implements supervise.Unit.
func (u *runnerUnit) Run(ctx context.Context) error {
	config, err := u.jobsConfig(ctx)
	if err != nil {
		return err
	}
	service, err := jobs.New(config)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-service.Ready():
			u.service.Store(service)
		case <-ctx.Done():
		}
	}()
	err = service.Run(ctx)
	u.service.Store(nil)
	return err
}

// jobsConfig derives the runner's configuration from the instance's.
func (u *runnerUnit) jobsConfig(ctx context.Context) (jobs.Config, error) {
	config, err := u.jobsPlace()
	if err != nil {
		return jobs.Config{}, err
	}
	session, err := u.pipelines.EnsureBuiltinRunner(ctx, "built-in", nil, time.Duration(u.Runner.MaxJobTimeout), delivery.RunnerInfo{
		Name: "slipway", Version: version, Platform: "linux", Architecture: runtime.GOARCH, Executor: "containerd", Shell: "bash",
	})
	if err != nil {
		return jobs.Config{}, fmt.Errorf("register the built-in runner: %w", err)
	}
	config.PlaceBuildkit = func(pid int) error {
		// Build steps are containers below "builds" and share what jobs may take.
		if err := u.cgroups.Limit("builds", int64(u.Budgets.Jobs)); err != nil {
			return err
		}
		return u.cgroups.Join("buildkitd", pid, u.budget("buildkitd"))
	}
	config.Session, config.Coordinator, config.Repositories, config.Logger = session, u.pipelines, repositoriesForRunner{u.forge}, u.log
	config.TrustDir, config.TrustURLs = u.trustDir(), u.secureURLs()
	if config.TrustDir != "" {
		config.CAFile = filepath.Join(config.TrustDir, trust.CertificateFile)
	}
	if u.scanner != nil {
		config.Scanner = scannerForJobs{u.scanner, u.externalHost()}
	}
	return config, nil
}

// jobsPlace is the part of the runner's configuration that says where jobs run.
func (s *settings) jobsPlace() (jobs.Config, error) {
	node, err := s.nodeConfig()
	if err != nil {
		return jobs.Config{}, err
	}
	// Jobs with access to the cluster reach its API, which lets nobody else in.
	ports := []uint16{uint16(s.Web.Port), uint16(s.SSH.Port), uint16(s.Cluster.APIPort)}
	if s.Ingress.Enabled {
		ports = append(ports, uint16(s.Ingress.HTTPPort), uint16(s.Ingress.HTTPSPort))
	}
	concurrent := s.Runner.Concurrency
	if concurrent == 0 {
		concurrent = max(2, int(int64(s.Budgets.Jobs)/max(1, int64(s.Runner.JobMemory))))
	}
	// The configuration has been validated: these are networks.
	subnet, pods, services := netip.MustParsePrefix(s.Runner.JobCIDR), netip.MustParsePrefix(s.Cluster.PodCIDR), netip.MustParsePrefix(s.Cluster.ServiceCIDR)
	config := jobs.Config{
		Instance: s.Name, DataDir: s.DataDir, BinDir: s.binDir, Socket: node.ContainerdSocket, CNIBinDir: node.CNIBinDir,
		Name: "built-in", Version: "slipway " + version,
		JobSubnet: subnet, Blocked: []netip.Prefix{pods, services}, HostPorts: ports,
		Concurrent: concurrent, MemoryBudget: int64(s.Budgets.Jobs), Limits: runner.Limits{Memory: int64(s.Runner.JobMemory), CPU: s.Runner.JobCPUs},
		MaxLimits: runner.Limits{Memory: int64(s.Budgets.Jobs)}, Privileged: s.Runner.Privileged,
		BuildBudget: int64(s.Build.CacheSize), BuildIdle: time.Duration(s.Build.IdleTimeout),
	}
	if s.Registry.Enabled {
		local := strings.TrimPrefix(s.localURL(), "http://")
		config.Registry, config.RegistryHTTP, config.RegistryLocal = s.externalHost(), !s.secure(), local
		config.Mirrors = map[string]string{}
		for _, host := range s.Registry.Mirrors {
			config.Mirrors[host] = local + "/" + host
		}
	}
	return config, nil
}

// scannerForJobs runs the trivy of jobs.
type scannerForJobs struct {
	scanner  *scan.Service
	registry string
}

// Trivy implements build.Scanner.
func (s scannerForJobs) Trivy(ctx context.Context, call build.TrivyCall) (int, error) {
	job := scan.JobCall{
		JobID: call.JobID, ProjectID: call.ProjectID, Args: call.Args, Env: call.Env, Dir: call.Dir,
		BuildsPath: call.BuildsPath, BuildsDir: call.BuildsDir, Stdout: call.Stdout, Stderr: call.Stderr, WriteFile: call.WriteFile,
	}
	for _, credential := range call.Credentials {
		if credential.Host == s.registry {
			job.Username, job.Password = credential.Username, credential.Password
		}
	}
	return s.scanner.RunForJob(ctx, job)
}
