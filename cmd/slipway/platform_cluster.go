package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/slipwayhq/slipway/internal/instance"
	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// nodeConfig is what containerd and the cluster are told.
func (s *settings) nodeConfig() (node.Config, error) {
	c := node.Config{
		Instance: s.Name, DataDir: s.DataDir, BinDir: s.binDir, CgroupRoot: "/" + s.Name,
		Node:    node.NodeConfig{IP: s.nodeIP()},
		Network: node.NetworkConfig{PodCIDR: s.Cluster.PodCIDR, ServiceCIDR: s.Cluster.ServiceCIDR, ClusterDNS: s.Cluster.DNSAddress},
		Ports:   node.PortConfig{APIServer: s.Cluster.APIPort},
		Resources: node.ResourceConfig{
			PodMemory: int64(s.Budgets.Workloads), MaxPods: s.Cluster.MaxPods,
			GoMemoryLimit: int64(s.Budgets.SlipwayCluster) * 8 / 10,
		},
	}
	c.TrustDir = s.trustDir()
	if s.Registry.Enabled {
		c.Registry = node.RegistryConfig{Host: s.externalHost(), Endpoint: s.localURL()}
		for _, upstream := range s.Registry.Mirrors {
			c.Registry.Mirrors = append(c.Registry.Mirrors, node.Mirror{Registry: upstream, Endpoint: s.localURL() + "/v2/" + upstream})
		}
	}
	if err := c.SetDefaults(); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func (p *platform) clusterComponents(context.Context) ([]supervise.Component, error) {
	if !p.Cluster.Enabled {
		return nil, nil
	}
	cfg, err := p.nodeConfig()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if p.registry != nil {
		user, password := p.registry.NodeCredential()
		cfg.Registry.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	if p.containerd, err = node.NewContainerdProbe(cfg.ContainerdSocket); err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.containerd.Close)
	cmd := node.ContainerdCommand(cfg)
	containerd := &supervise.Child{
		Path: cmd.Path, Args: cmd.Args, Env: cmd.Env,
		// One that was started before does not know the folder.
		Fingerprint: cfg.TrustDir,
		PIDFile:     p.pidFile("containerd"), LogFile: filepath.Join(p.dir.Logs(), "containerd.log"), Log: p.log,
		Prepare:    func(ctx context.Context) error { return node.Prepare(ctx, cfg) },
		Joined:     func(pid int) error { return p.cgroups.Join("containerd", pid, p.budget("containerd")) },
		ReadyFunc:  p.containerd.Serves,
		KeepOnStop: p.keepWorkloads.Load,
	}
	cluster, err := p.child("slipway-cluster", cfg, cfg.HealthSocket)
	if err != nil {
		return nil, err
	}
	return []supervise.Component{
		{Name: "containerd", Unit: containerd, Budget: p.budget("containerd")},
		{Name: "slipway-cluster", After: []string{"containerd"}, Unit: cluster, Budget: p.budget("slipway-cluster"), StopWithin: 25 * time.Second},
	}, nil
}

// cleanupNode takes away what containerd and the cluster leave on the machine.
func (p *platform) cleanupNode(ctx context.Context) error {
	if !p.Cluster.Enabled {
		return nil
	}
	cfg, err := p.nodeConfig()
	if err != nil {
		return err
	}
	return node.Cleanup(ctx, cfg, false)
}

// cleanLeftovers stops what an earlier run left behind when nothing runs any
// more: programs that outlived a crash, pods kept by --keep-workloads, the
// network namespace.
func (s *settings) cleanLeftovers(ctx context.Context, out io.Writer, req downRequest) error {
	if _, err := os.Stat(s.dir.Run()); errors.Is(err, os.ErrNotExist) || req.KeepWorkloads {
		fmt.Fprintln(out, "Slipway does not run.")
		return nil
	}
	if err := s.resolve(); err != nil {
		return err
	}
	if s.namespace != nil && s.Cluster.Enabled {
		// What is left is inside the namespace: clean up from there.
		if !instance.Inside() && s.namespace.Exists() {
			return s.namespace.Enter(ctx)
		}
	}
	var failed []error
	for _, program := range []string{"slipway-gitops", "slipway-cluster", "buildkitd", "containerd"} {
		if err := supervise.StopLeftover(ctx, s.pidFile(program), 15*time.Second); err != nil {
			failed = append(failed, err)
		}
	}
	cgroups, err := supervise.OpenCgroups(s.Name)
	if err != nil {
		failed = append(failed, err)
	}
	p := &platform{settings: s, cgroups: cgroups}
	failed = append(failed, p.cleanupNode(ctx))
	if cgroups != nil {
		failed = append(failed, cgroups.Kill(), cgroups.Remove(ctx))
	}
	if s.namespace != nil {
		failed = append(failed, s.namespace.Remove(ctx))
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	fmt.Fprintln(out, "Slipway did not run; what was left of it is gone.")
	return nil
}
