package jobs

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// registryHosts is a certs.d hosts.toml.
// https://github.com/containerd/containerd/blob/main/docs/hosts.md
type registryHosts struct {
	Server string                  `toml:"server"`
	Host   map[string]registryHost `toml:"host"`
}

type registryHost struct {
	Capabilities []string `toml:"capabilities"`
	CA           string   `toml:"ca,omitempty"`
	OverridePath bool     `toml:"override_path,omitempty"`
}

// writeHosts says how jobs' images are reached. The folder is the runner's own:
// the node's, which containerd reads for the kubelet, carries a credential that
// may pull everything, and a job may pull only what its own credentials allow.
func writeHosts(dir string, c Config) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("write registry hosts: %w", err)
	}
	wanted := map[string]registryHosts{}
	if c.Registry != "" {
		scheme, host := "https://", c.Registry
		if c.RegistryHTTP {
			scheme = "http://"
		}
		if c.RegistryLocal != "" {
			scheme, host = "http://", c.RegistryLocal
		}
		wanted[c.Registry] = registryHosts{Server: scheme + host,
			Host: map[string]registryHost{scheme + host: {Capabilities: []string{"pull", "resolve", "push"}, CA: c.RegistryCA}}}
	}
	for registry, mirror := range c.Mirrors {
		host, path := cutHost(mirror)
		endpoint := "http://" + host + "/v2" + path
		upstream := "https://" + registry
		if registry == "docker.io" {
			upstream = "https://registry-1.docker.io"
		}
		wanted[registry] = registryHosts{Server: upstream, Host: map[string]registryHost{endpoint: {Capabilities: []string{"pull", "resolve"}, OverridePath: true}}}
	}
	for host, hosts := range wanted {
		raw, err := toml.Marshal(hosts)
		if err != nil {
			return fmt.Errorf("encode hosts of registry %s: %w", host, err)
		}
		if err := os.MkdirAll(filepath.Join(dir, host), 0o700); err != nil {
			return fmt.Errorf("write registry hosts: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), raw, 0o600); err != nil {
			return fmt.Errorf("write registry hosts: %w", err)
		}
	}
	return nil
}

// cutHost splits host[:port][/path].
func cutHost(address string) (host, path string) {
	for i, c := range address {
		if c == '/' {
			return address[:i], address[i:]
		}
	}
	return address, ""
}
