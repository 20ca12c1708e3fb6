package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/config"
	"github.com/slipwayhq/slipway/internal/instance"
)

// app holds the global flags.
type app struct {
	configPath string
	dataDir    string
}

// settings is the configuration with everything that follows from it.
type settings struct {
	*config.Config
	dir        instance.Dir
	configPath string // as given; empty for the default
	binDir     string // where the programs are
	address    string // by which the server is reached
	namespace  *instance.Namespace
}

func (a *app) load() (*settings, error) {
	path := a.configPath
	if path == "" {
		path = config.DefaultPath
	}
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if a.dataDir != "" {
		if c.DataDir, err = filepath.Abs(a.dataDir); err != nil {
			return nil, err
		}
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return nil, fmt.Errorf("find the programs: %w", err)
	}
	s := &settings{Config: c, dir: instance.Dir(c.DataDir), configPath: a.configPath, binDir: filepath.Dir(self), address: c.Address}
	if c.Network.Namespace != "" {
		link, err := netip.ParsePrefix(c.Network.LinkCIDR)
		if err != nil {
			return nil, fmt.Errorf("network.link_cidr: %w", err)
		}
		s.namespace = &instance.Namespace{Name: c.Network.Namespace, Link: link}
	}
	return s, nil
}

// resolve finds the server's address; the address and the external URL are
// then known.
func (s *settings) resolve() error {
	if s.address == "" && s.namespace != nil {
		s.address = s.namespace.Address()
	}
	if s.address == "" {
		addr, err := instance.PrimaryAddress()
		if err != nil {
			return err
		}
		s.address = addr
	}
	if s.ExternalURL == "" {
		s.ExternalURL = fmt.Sprintf("http://%s:%d", s.address, s.Web.Port)
	}
	s.ExternalURL = strings.TrimRight(s.ExternalURL, "/")
	return nil
}

// externalHost is host[:port] of the external URL, and so the registry's name.
func (s *settings) externalHost() string {
	_, host, _ := strings.Cut(s.ExternalURL, "://")
	return host
}

// localURL is the platform's own listener, reachable from this network
// namespace and, by address, from jobs and pods.
func (s *settings) localURL() string {
	return fmt.Sprintf("http://%s:%d", s.nodeIP(), s.Web.Port)
}

// nodeIP is an address of this machine; s.address may be a name.
func (s *settings) nodeIP() string {
	if _, err := netip.ParseAddr(s.address); err == nil {
		return s.address
	}
	if s.namespace != nil {
		return s.namespace.Address()
	}
	if ip, err := instance.PrimaryAddress(); err == nil {
		return ip
	}
	return s.address
}

// flags repeats the global flags for a copy of this program.
func (a *app) flags() []string {
	var out []string
	if a.configPath != "" {
		out = append(out, "--config", a.configPath)
	}
	if a.dataDir != "" {
		out = append(out, "--data-dir", a.dataDir)
	}
	return out
}
