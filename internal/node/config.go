// Package node prepares a Linux host to be a Slipway node and takes everything
// back when the node is stopped.
//
// It owns the Config that the supervisor hands to slipway-cluster, the files
// that containerd and the CNI plugins read, the kernel settings and the
// interface that carries the cluster DNS address, the pause image, and the
// removal of whatever a stopped node leaves: processes, mounts, interfaces,
// nftables tables, cgroups. It receives a Config and emits files, a command
// line for containerd and errors that say what the host lacks.
//
// It stays light: it must not import k8s.io packages, containerd, etcd, or any
// other package of this module, because short-lived commands use it.
package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Config is everything that containerd and slipway-cluster need to know about
// one node. It travels as JSON from the supervisor to `slipway-cluster
// --config`; unknown keys are refused. Fields left zero take the defaults that
// SetDefaults documents.
type Config struct {
	// Instance names this installation on the host. Bridge and cgroup root
	// derive from it. At most 11 characters, because interface names are
	// limited to 15 (default "slipway").
	Instance string `json:"instance"`
	// DataDir is the instance's data directory (absolute, required).
	DataDir string `json:"data_dir"`
	// BinDir holds containerd, its shim and ctr (absolute, required).
	BinDir string `json:"bin_dir"`
	// CNIBinDir holds the CNI plugins bridge, host-local, portmap and loopback
	// (default: the first of /opt/cni/bin and /usr/lib/cni that has them).
	CNIBinDir string `json:"cni_bin_dir,omitempty"`
	// HealthSocket is where slipway-cluster serves GET /readyz
	// (default <data>/run/slipway-cluster.health.sock).
	HealthSocket string `json:"health_socket,omitempty"`
	// Kubeconfig is where the administrator's kubeconfig is written, mode 0600
	// (default <data>/kubeconfig).
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// ContainerdSocket is containerd's gRPC socket (default <data>/run/containerd.sock).
	ContainerdSocket string `json:"containerd_socket,omitempty"`
	// CgroupRoot is the cgroup below which the instance keeps its programs and
	// pods, as an absolute cgroup path (default "/<instance>"). Pods live in
	// <root>/kubepods.
	CgroupRoot string `json:"cgroup_root,omitempty"`
	// PauseImage names the pod sandbox image made on this host
	// (default "localhost/slipway/pause:1").
	PauseImage string `json:"pause_image,omitempty"`
	// TrustDir is a folder of the host that every container of a pod sees,
	// read-only, as PodTrustDir; WriteContainerd makes it (absolute; default none).
	TrustDir string `json:"trust_dir,omitempty"`

	Node      NodeConfig     `json:"node"`
	Network   NetworkConfig  `json:"network"`
	Ports     PortConfig     `json:"ports"`
	Registry  RegistryConfig `json:"registry"`
	Resources ResourceConfig `json:"resources"`
	Logging   LogConfig      `json:"logging"`
}

// NodeConfig identifies the node in the cluster.
type NodeConfig struct {
	// Name is the Kubernetes node name (default: the one this data directory
	// was prepared with, at first the host name in lower case).
	Name string `json:"name,omitempty"`
	// IP is the address by which pods and users reach the host (required, IPv4).
	IP string `json:"ip"`
	// Labels are added to the Node object.
	Labels map[string]string `json:"labels,omitempty"`
}

// NetworkConfig describes the cluster's networks.
type NetworkConfig struct {
	// PodCIDR is the range of all pods (default 10.42.0.0/16).
	PodCIDR string `json:"pod_cidr,omitempty"`
	// NodePodCIDR is this node's part of PodCIDR (default: the first /24, or
	// all of PodCIDR when that is smaller).
	NodePodCIDR string `json:"node_pod_cidr,omitempty"`
	// ServiceCIDR is the range of ClusterIPs (default 10.43.0.0/16).
	ServiceCIDR string `json:"service_cidr,omitempty"`
	// ClusterDNS is the ClusterIP at which CoreDNS answers; it lies in
	// ServiceCIDR (default: the tenth address of ServiceCIDR).
	ClusterDNS string `json:"cluster_dns,omitempty"`
	// ClusterDomain is the cluster's DNS suffix (default "cluster.local").
	ClusterDomain string `json:"cluster_domain,omitempty"`
	// UpstreamDNS lists resolvers "ip" or "ip:port" for other names. Empty: the
	// host's resolvers, following systemd-resolved to the real ones.
	UpstreamDNS []string `json:"upstream_dns,omitempty"`
	// Bridge is the pod network's bridge interface (default "<instance>0").
	Bridge string `json:"bridge,omitempty"`
	// MTU of the pod network in bytes; 0 takes it from the interface of the
	// default route.
	MTU int `json:"mtu,omitempty"`
	// NodePortRange is the range of NodePorts (default "30000-32767").
	NodePortRange string `json:"node_port_range,omitempty"`
}

// PortConfig lists every TCP port the cluster listens on. Etcd and containerd
// use unix sockets.
type PortConfig struct {
	APIServer         int `json:"api_server,omitempty"`         // all addresses, default 6443
	Kubelet           int `json:"kubelet,omitempty"`            // all addresses, default 10250
	KubeletHealth     int `json:"kubelet_health,omitempty"`     // 127.0.0.1, default 10248
	ControllerManager int `json:"controller_manager,omitempty"` // 127.0.0.1, default 10257
	Scheduler         int `json:"scheduler,omitempty"`          // 127.0.0.1, default 10259
	ProxyHealth       int `json:"proxy_health,omitempty"`       // 127.0.0.1, default 10256
	ProxyMetrics      int `json:"proxy_metrics,omitempty"`      // 127.0.0.1, default 10249
	MetricsServer     int `json:"metrics_server,omitempty"`     // node IP, default 10260
	DNSMetrics        int `json:"dns_metrics,omitempty"`        // 127.0.0.1, default 9153
	Etcd              int `json:"etcd_metrics,omitempty"`       // 127.0.0.1, default 2381
}

// RegistryConfig tells containerd how to reach registries.
type RegistryConfig struct {
	// Host is the platform registry's host[:port] as it appears in image names.
	Host string `json:"host,omitempty"`
	// Endpoint is the URL at which Host is really reached, for example
	// "http://192.0.2.2:8080" (default "https://<host>").
	Endpoint string `json:"endpoint,omitempty"`
	// CAFile verifies Endpoint's certificate (default: the system's roots).
	CAFile string `json:"ca_file,omitempty"`
	// Authorization is the header with which the node's containerd reads every
	// project's images, so that pods need no pull secrets.
	Authorization string `json:"authorization,omitempty"`
	// Mirrors lists pull-through endpoints for other registries.
	Mirrors []Mirror `json:"mirrors,omitempty"`
}

// Mirror is an endpoint asked before a registry itself.
type Mirror struct {
	// Registry is the host as in image names ("docker.io"), or "_default".
	Registry string `json:"registry"`
	// Endpoint is the mirror's URL; a path is used as given.
	Endpoint string `json:"endpoint"`
	// CAFile verifies Endpoint's certificate (default: the system's roots).
	CAFile string `json:"ca_file,omitempty"`
	// Only stops containerd from asking Registry itself when the mirror fails.
	Only bool `json:"only,omitempty"`
}

// ResourceConfig bounds what the control plane and the workloads may take. All
// sizes are bytes.
type ResourceConfig struct {
	// SystemReserved is kept from pods for the host and the platform's other
	// programs (default 512 MiB).
	SystemReserved int64 `json:"system_reserved_memory,omitempty"`
	// KubeReserved is kept from pods for containerd and slipway-cluster
	// (default 1 GiB).
	KubeReserved int64 `json:"kube_reserved_memory,omitempty"`
	// PodMemory caps the sum of all pods; when set it takes precedence: what is
	// left of the host's memory is reserved. 0 leaves all but the reservations.
	PodMemory int64 `json:"pod_memory,omitempty"`
	// MaxPods is the most pods the node runs (default 200).
	MaxPods int `json:"max_pods,omitempty"`
	// GoMemoryLimit is slipway-cluster's soft memory limit (default 700 MiB).
	GoMemoryLimit int64 `json:"go_memory_limit,omitempty"`
	// GoGC is slipway-cluster's garbage collection target in percent (default 50).
	GoGC int `json:"go_gc,omitempty"`
	// EvictMemory is the available memory below which pods are evicted
	// (default 200 MiB).
	EvictMemory int64 `json:"evict_memory_below,omitempty"`
	// EvictDisk is the free disk space below which pods are evicted
	// (default 1 GiB).
	EvictDisk int64 `json:"evict_disk_below,omitempty"`
	// ImageDisk is the free disk space below which unused images are removed
	// (default 4 GiB).
	ImageDisk int64 `json:"image_gc_disk_below,omitempty"`
}

// LogConfig sets how much the cluster logs.
type LogConfig struct {
	// Verbosity of the Kubernetes components, klog's -v (default 0).
	Verbosity int `json:"verbosity,omitempty"`
	// Level of containerd and etcd: debug, info, warn, error (default "warn").
	Level string `json:"level,omitempty"`
	// AuditMaxSize is the size in MiB at which the API server's audit log
	// rotates (default 50).
	AuditMaxSize int `json:"audit_max_size_mb,omitempty"`
	// AuditMaxFiles is how many rotated audit logs are kept (default 5).
	AuditMaxFiles int `json:"audit_max_files,omitempty"`
}

// Load reads a Config written by the supervisor, fills in defaults and
// validates it. The error names the file and the offending key.
func Load(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	config, err := Parse(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return config, nil
}

// Parse decodes JSON strictly, fills in defaults and validates.
func Parse(raw []byte) (Config, error) {
	var config Config
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		line := 1 + bytes.Count(raw[:min(int(decoder.InputOffset()), len(raw))], []byte("\n"))
		return Config{}, fmt.Errorf("line %d: %w", line, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("text follows the JSON object")
	}
	if err := config.SetDefaults(); err != nil {
		return Config{}, err
	}
	return config, config.Validate()
}

// SetDefaults fills every field left zero. It fails when a field that others
// derive from cannot be read.
func (c *Config) SetDefaults() error {
	fill(&c.Instance, "slipway")
	fill(&c.HealthSocket, filepath.Join(c.DataDir, "run", "slipway-cluster.health.sock"))
	fill(&c.Kubeconfig, filepath.Join(c.DataDir, "kubeconfig"))
	fill(&c.ContainerdSocket, filepath.Join(c.DataDir, "run", "containerd.sock"))
	fill(&c.CgroupRoot, "/"+c.Instance)
	fill(&c.PauseImage, "localhost/slipway/pause:1")
	fill(&c.CNIBinDir, findCNIPlugins())
	if c.Node.Name == "" {
		name, err := c.usualName()
		if err != nil {
			return fmt.Errorf("node.name: %w", err)
		}
		c.Node.Name = name
	}
	c.Resources.setDefaults()
	c.Logging.setDefaults()
	c.Ports.setDefaults()
	if err := c.Network.setDefaults(c.Instance); err != nil {
		return err
	}
	if c.Registry.Host != "" {
		fill(&c.Registry.Endpoint, "https://"+c.Registry.Host)
	}
	return nil
}

// usualName is the name that the node had before, because its pods and volumes
// are bound to it, whatever the host is called now.
func (c *Config) usualName() (string, error) {
	name, err := os.ReadFile(c.nodeNameFile())
	if err == nil {
		return strings.TrimSpace(string(name)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	host, err := os.Hostname()
	return strings.ToLower(host), err
}

// nodeNameFile is where Prepare keeps the node's name.
func (c *Config) nodeNameFile() string { return filepath.Join(c.ClusterDir(), "node-name") }

func (n *NetworkConfig) setDefaults(instance string) error {
	fill(&n.PodCIDR, "10.42.0.0/16")
	fill(&n.ServiceCIDR, "10.43.0.0/16")
	fill(&n.ClusterDomain, "cluster.local")
	fill(&n.Bridge, instance+"0")
	fill(&n.NodePortRange, "30000-32767")
	pods, err := netip.ParsePrefix(n.PodCIDR)
	if err != nil {
		return fmt.Errorf("network.pod_cidr: %w", err)
	}
	services, err := netip.ParsePrefix(n.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("network.service_cidr: %w", err)
	}
	fill(&n.NodePodCIDR, netip.PrefixFrom(pods.Masked().Addr(), max(24, pods.Bits())).String())
	address := services.Masked().Addr()
	for range 10 {
		address = address.Next()
	}
	fill(&n.ClusterDNS, address.String())
	return nil
}

func (p *PortConfig) setDefaults() {
	fill(&p.APIServer, 6443)
	fill(&p.Kubelet, 10250)
	fill(&p.KubeletHealth, 10248)
	fill(&p.ControllerManager, 10257)
	fill(&p.Scheduler, 10259)
	fill(&p.ProxyHealth, 10256)
	fill(&p.ProxyMetrics, 10249)
	fill(&p.MetricsServer, 10260)
	fill(&p.DNSMetrics, 9153)
	fill(&p.Etcd, 2381)
}

func (r *ResourceConfig) setDefaults() {
	const mebibyte = 1 << 20
	fill(&r.SystemReserved, 512*mebibyte)
	fill(&r.KubeReserved, 1024*mebibyte)
	fill(&r.MaxPods, 200)
	fill(&r.GoMemoryLimit, 700*mebibyte)
	fill(&r.GoGC, 50)
	fill(&r.EvictMemory, 200*mebibyte)
	fill(&r.EvictDisk, 1024*mebibyte)
	fill(&r.ImageDisk, 4096*mebibyte)
}

func (l *LogConfig) setDefaults() {
	fill(&l.Level, "warn")
	fill(&l.AuditMaxSize, 50)
	fill(&l.AuditMaxFiles, 5)
}

// fill sets *field to value when it is zero.
func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// EtcdSocket is the unix socket on which etcd answers the API server.
func (c *Config) EtcdSocket() string { return filepath.Join(c.ClusterDir(), "etcd.sock") }

// ClusterDir holds what the cluster persists: etcd, certificates, volumes.
func (c *Config) ClusterDir() string { return filepath.Join(c.DataDir, "cluster") }

// KubeletDir is the kubelet's root directory: pods' volumes are mounted below it.
func (c *Config) KubeletDir() string { return filepath.Join(c.ClusterDir(), "kubelet") }

// VolumeDir holds the directories of the default StorageClass.
func (c *Config) VolumeDir() string { return filepath.Join(c.ClusterDir(), "volumes") }

// PodLogDir holds the logs of all containers, in the kubelet's layout.
func (c *Config) PodLogDir() string { return filepath.Join(c.ClusterDir(), "pod-logs") }

// ContainerdRoot holds containerd's images and snapshots.
func (c *Config) ContainerdRoot() string { return filepath.Join(c.DataDir, "containerd", "root") }

// ContainerdState holds containerd's running state: bundles, mounts, network namespaces.
func (c *Config) ContainerdState() string { return filepath.Join(c.DataDir, "containerd", "state") }

// ShimCgroup is where shims live: left in containerd's cgroup, where they are
// started, every pod would count against containerd's memory budget. Whoever
// starts containers in another containerd namespace gives it to runc's options.
func (c *Config) ShimCgroup() string { return filepath.Join(c.CgroupRoot, "shims") }

// containerdDir holds containerd's configuration, CNI configuration and registry hosts.
func (c *Config) containerdDir() string { return filepath.Join(c.DataDir, "containerd") }

// shimSocketDir is short because a shim's socket name takes 65 of the 107
// bytes a unix socket path may have.
func (c *Config) shimSocketDir() string { return filepath.Join("/run", "slipway", c.shimKey()) }
