package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
	runnercontainerd "github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/supervise"
)

func (p *platform) runnerComponents(context.Context) ([]supervise.Component, error) {
	if !p.Runner.Enabled || !p.Cluster.Enabled {
		return nil, nil
	}
	unit := &runnerUnit{platform: p}
	return []supervise.Component{{Name: "runner", After: []string{"containerd", "web"}, Unit: unit}}, nil
}

// runnerUnit runs the built-in runner. It is built anew at each start, because
// it connects to containerd then.
type runnerUnit struct {
	*platform
	ready atomic.Bool
}

// Ready implements supervise.Unit.
func (u *runnerUnit) Ready(context.Context) error {
	if !u.ready.Load() {
		return errors.New("starting")
	}
	return nil
}

// Run implements supervise.Unit.
func (u *runnerUnit) Run(ctx context.Context) error {
	node, err := u.nodeConfig()
	if err != nil {
		return err
	}
	session, err := u.pipelines.EnsureBuiltinRunner(ctx, "built-in", nil, delivery.RunnerInfo{
		Name: "slipway", Version: version, Platform: "linux", Architecture: runtime.GOARCH, Executor: "containerd", Shell: "bash",
	})
	if err != nil {
		return fmt.Errorf("register the built-in runner: %w", err)
	}
	ports := []uint16{uint16(u.Web.Port), uint16(u.SSH.Port)}
	if u.Ingress.Enabled {
		ports = append(ports, uint16(u.Ingress.HTTPPort), uint16(u.Ingress.HTTPSPort))
	}
	// The configuration has been validated: these are networks.
	jobs, pods, services := netip.MustParsePrefix(u.Runner.JobCIDR), netip.MustParsePrefix(u.Cluster.PodCIDR), netip.MustParsePrefix(u.Cluster.ServiceCIDR)
	executor, err := runnercontainerd.New(runnercontainerd.Config{
		Socket: node.ContainerdSocket, Dir: u.dir.Path("runner", "containerd"), CgroupParent: "/" + u.Name + "/jobs",
		RegistryHosts: u.dir.Path("containerd", "certs.d"), Registry: u.externalHost(), UseLocalWhenUnreachable: true,
		Network: runnercontainerd.NetworkConfig{
			Instance: u.Name, Subnet: jobs, Blocked: []netip.Prefix{pods, services}, HostPorts: ports,
		},
	})
	if err != nil {
		return err
	}
	limits := runner.Limits{Memory: int64(u.Runner.JobMemory), CPU: u.Runner.JobCPUs}
	concurrent := u.Runner.Concurrency
	if concurrent == 0 {
		concurrent = max(2, int(int64(u.Budgets.Jobs)/max(1, int64(u.Runner.JobMemory))))
	}
	docker := filepath.Join(u.binDir, "docker")
	r, err := runner.New(runner.Config{
		Dir: u.dir.Path("runner"), BuildsDir: runnercontainerd.BuildsDir, Session: session, Name: "built-in", Version: "slipway " + version,
		Repositories: repositoriesForRunner{u.forge}, Concurrent: concurrent, MemoryBudget: int64(u.Budgets.Jobs),
		Limits: limits, MaxLimits: runner.Limits{Memory: int64(u.Budgets.Jobs)}, Privileged: u.Runner.Privileged,
		Tools:  []runner.ToolMount{{Source: docker, Target: "/usr/local/bin/docker"}, {Source: docker, Target: "/usr/local/bin/trivy"}},
		Logger: u.log,
	}, u.pipelines, executor)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-r.Ready():
			u.ready.Store(true)
		case <-ctx.Done():
		}
	}()
	err = r.Run(ctx)
	u.ready.Store(false)
	return errors.Join(err, executor.Close(context.WithoutCancel(ctx)))
}
