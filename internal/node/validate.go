package node

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	instanceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,10}$`)
	nodeName     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// maxSocketPath is the longest path of a unix socket: sun_path holds 108 bytes
// with its terminating zero.
const maxSocketPath = 107

// Validate reports the first field that cannot work, named by its JSON key.
// It looks at nothing but the values; the host's state is Prepare's business.
func (c *Config) Validate() error {
	if !instanceName.MatchString(c.Instance) {
		return fmt.Errorf("instance: %q must be 1 to 11 lower-case letters, digits or '-', starting with a letter", c.Instance)
	}
	for key, path := range map[string]string{
		"data_dir": c.DataDir, "bin_dir": c.BinDir, "health_socket": c.HealthSocket, "cgroup_root": c.CgroupRoot,
		"kubeconfig": c.Kubeconfig, "containerd_socket": c.ContainerdSocket,
	} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s: %q must be an absolute path", key, path)
		}
	}
	if c.TrustDir != "" && !filepath.IsAbs(c.TrustDir) {
		return fmt.Errorf("trust_dir: %q must be an absolute path", c.TrustDir)
	}
	for key, path := range map[string]string{
		"health_socket": c.HealthSocket, "containerd_socket": c.ContainerdSocket + ".ttrpc", "data_dir": c.EtcdSocket(),
	} {
		if len(path) > maxSocketPath {
			return fmt.Errorf("%s: the unix socket path %s is longer than %d bytes: choose a shorter data directory", key, path, maxSocketPath)
		}
	}
	if c.CgroupRoot == "/" {
		return errors.New("cgroup_root: must be below the root cgroup")
	}
	if !nodeName.MatchString(c.Node.Name) {
		return fmt.Errorf("node.name: %q is not a DNS name in lower case", c.Node.Name)
	}
	if ip, err := netip.ParseAddr(c.Node.IP); err != nil || !ip.Is4() || ip.IsUnspecified() || ip.IsLoopback() {
		return fmt.Errorf("node.ip: %q must be an IPv4 address that pods can reach", c.Node.IP)
	}
	if err := c.Network.validate(); err != nil {
		return err
	}
	if err := c.Ports.validate(); err != nil {
		return err
	}
	if levels := []string{"debug", "info", "warn", "error"}; !slices.Contains(levels, c.Logging.Level) {
		return fmt.Errorf("logging.level: %q is none of %s", c.Logging.Level, strings.Join(levels, ", "))
	}
	return c.Registry.validate()
}

func (n *NetworkConfig) validate() error {
	ranges := map[string]netip.Prefix{}
	for key, value := range map[string]string{"pod_cidr": n.PodCIDR, "node_pod_cidr": n.NodePodCIDR, "service_cidr": n.ServiceCIDR} {
		prefix, err := netip.ParsePrefix(value)
		if err != nil || !prefix.Addr().Is4() {
			return fmt.Errorf("network.%s: %q must be an IPv4 range such as 10.42.0.0/16", key, value)
		}
		if prefix != prefix.Masked() {
			return fmt.Errorf("network.%s: %s has host bits set: write %s", key, value, prefix.Masked())
		}
		ranges[key] = prefix
	}
	if ranges["pod_cidr"].Overlaps(ranges["service_cidr"]) {
		return fmt.Errorf("network.service_cidr: %s overlaps network.pod_cidr %s", n.ServiceCIDR, n.PodCIDR)
	}
	if part := ranges["node_pod_cidr"]; !ranges["pod_cidr"].Contains(part.Addr()) || part.Bits() < ranges["pod_cidr"].Bits() {
		return fmt.Errorf("network.node_pod_cidr: %s does not lie in network.pod_cidr %s", n.NodePodCIDR, n.PodCIDR)
	}
	if dns, err := netip.ParseAddr(n.ClusterDNS); err != nil || !ranges["service_cidr"].Contains(dns) {
		return fmt.Errorf("network.cluster_dns: %q must lie in network.service_cidr %s", n.ClusterDNS, n.ServiceCIDR)
	}
	if len(n.Bridge) > 15 || strings.ContainsAny(n.Bridge, "/ ") {
		return fmt.Errorf("network.bridge: %q is not an interface name of at most 15 characters", n.Bridge)
	}
	return nil
}

func (p *PortConfig) validate() error {
	taken := map[int]string{}
	for _, port := range p.named() {
		if port.number < 1 || port.number > 65535 {
			return fmt.Errorf("ports.%s: %d is not a TCP port", port.key, port.number)
		}
		if other, twice := taken[port.number]; twice {
			return fmt.Errorf("ports.%s: %d is also ports.%s", port.key, port.number, other)
		}
		taken[port.number] = port.key
	}
	return nil
}

type namedPort struct {
	key    string
	number int
}

func (p *PortConfig) named() []namedPort {
	return []namedPort{
		{"api_server", p.APIServer}, {"kubelet", p.Kubelet}, {"kubelet_health", p.KubeletHealth},
		{"controller_manager", p.ControllerManager}, {"scheduler", p.Scheduler}, {"proxy_health", p.ProxyHealth},
		{"proxy_metrics", p.ProxyMetrics}, {"metrics_server", p.MetricsServer}, {"dns_metrics", p.DNSMetrics},
		{"etcd_metrics", p.Etcd},
	}
}

func (r *RegistryConfig) validate() error {
	if r.Host != "" {
		if err := validEndpoint(r.Endpoint); err != nil {
			return fmt.Errorf("registry.endpoint: %w", err)
		}
	}
	for i, mirror := range r.Mirrors {
		if mirror.Registry == "" || strings.ContainsAny(mirror.Registry, "/ ") {
			return fmt.Errorf("registry.mirrors[%d].registry: %q is not a registry host", i, mirror.Registry)
		}
		if err := validEndpoint(mirror.Endpoint); err != nil {
			return fmt.Errorf("registry.mirrors[%d].endpoint: %w", i, err)
		}
	}
	return nil
}

func validEndpoint(endpoint string) error {
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return fmt.Errorf("%q must be an http or https URL", endpoint)
	}
	return nil
}
