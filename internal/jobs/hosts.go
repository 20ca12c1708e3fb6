package jobs

import (
	"github.com/slipwayhq/slipway/internal/registryhosts"
)

// writeHosts says how jobs' images are reached. The folder is the runner's own:
// the node's, which containerd reads for the kubelet, carries a credential that
// may pull everything, and a job may pull only what its own credentials allow.
func writeHosts(dir string, c Config) error {
	wanted := map[string]registryhosts.File{}
	if c.Registry != "" {
		scheme, host := "https://", c.Registry
		if c.RegistryHTTP {
			scheme = "http://"
		}
		if c.RegistryLocal != "" {
			scheme, host = "http://", c.RegistryLocal
		}
		wanted[c.Registry] = registryhosts.File{Server: scheme + host,
			Hosts: map[string]registryhosts.Host{scheme + host: {Capabilities: []string{"pull", "resolve", "push"}, CA: c.RegistryCA}}}
	}
	for registry, mirror := range c.Mirrors {
		host, path := cutHost(mirror)
		endpoint := "http://" + host + "/v2" + path
		wanted[registry] = registryhosts.File{Server: registryhosts.Upstream(registry),
			Hosts: map[string]registryhosts.Host{endpoint: {Capabilities: []string{"pull", "resolve"}, OverridePath: true}}}
	}
	return registryhosts.Write(dir, wanted)
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
