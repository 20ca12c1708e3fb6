package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/supervise"
	"github.com/slipwayhq/slipway/internal/trust"
)

// trustDir is the folder of certificates that jobs and pods see; "" without an
// ingress, which holds the authority.
func (s *settings) trustDir() string {
	if !s.Ingress.Enabled {
		return ""
	}
	return s.dir.Path("trust")
}

// platformHosts are the names under which the ingress serves the platform.
func (p *platform) platformHosts() []string {
	hosts := []string{p.address}
	if u, err := url.Parse(p.ExternalURL); err == nil && u.Hostname() != p.address {
		hosts = append([]string{u.Hostname()}, hosts...)
	}
	return hosts
}

// secureURLs are the platform's addresses through the ingress, with TLS.
func (p *platform) secureURLs() []string {
	if p.ingress == nil {
		return nil
	}
	var out []string
	for _, host := range slices.Compact(p.platformHosts()) {
		if p.Ingress.HTTPSPort != 443 {
			host = net.JoinHostPort(host, strconv.Itoa(p.Ingress.HTTPSPort))
		}
		out = append(out, "https://"+host)
	}
	return out
}

// trustComponents let clients in jobs and pods trust the platform's authority.
func (p *platform) trustComponents(context.Context) ([]supervise.Component, error) {
	if p.ingress == nil {
		return nil, nil
	}
	comps := []supervise.Component{{Name: "trust", After: []string{"ingress"}, Unit: supervise.Func{RunFunc: p.distributeTrust}}}
	if p.Cluster.Enabled {
		comps[0].After = append(comps[0].After, "slipway-cluster")
	}
	return comps, nil
}

func (p *platform) distributeTrust(ctx context.Context) error {
	root, err := p.authority(ctx)
	if err != nil {
		return err
	}
	files, err := trust.Files(root)
	if err != nil {
		return err
	}
	if err := trust.Write(p.trustDir(), files); err != nil {
		return err
	}
	if p.Cluster.Enabled {
		kube, err := p.clusterClient()
		if err != nil {
			return err
		}
		trust.Distribute(ctx, kube, files, p.log)
	}
	<-ctx.Done()
	return nil
}

// authority waits a short while for the root certificate, which is made when
// the ingress starts for the first time.
func (p *platform) authority(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if root := p.ingress.CA(); root != nil {
			return root, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the certificate authority is not there: %w", errors.Join(ctx.Err(), p.ingress.Ready()))
		case <-tick.C:
		}
	}
}
