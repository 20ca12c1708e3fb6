package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/slipwayhq/slipway/internal/registryhosts"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// Command is a program to start: its path, arguments (without the program's
// name) and the variables to add to the environment as KEY=value.
type Command struct {
	Path string
	Args []string
	Env  []string
}

// ContainerdCommand is how the supervisor starts containerd. Prepare (or
// WriteContainerd) must have run before. containerd is ready when it answers
// on c.ContainerdSocket; it must not be killed by its cgroup or process group
// when the pods shall outlive it, because shims are its children.
func ContainerdCommand(c Config) Command {
	return Command{
		Path: filepath.Join(c.BinDir, "containerd"),
		Args: []string{"--config", c.containerdConfigFile()},
		// runc, the CNI plugins and iptables are looked up here; a supervisor
		// started by cron or systemd may have a shorter PATH.
		Env: []string{
			"PATH=" + c.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"GOGC=50",
		},
	}
}

func (c *Config) containerdConfigFile() string {
	return filepath.Join(c.containerdDir(), "config.toml")
}
func (c *Config) cniConfDir() string       { return filepath.Join(c.containerdDir(), "cni") }
func (c *Config) registryHostsDir() string { return filepath.Join(c.containerdDir(), "certs.d") }

// shimKey tells the instances of one host apart in /run.
func (c *Config) shimKey() string {
	sum := sha256.Sum256([]byte(c.DataDir))
	return hex.EncodeToString(sum[:4])
}

// unusedContainerdPlugins cost memory or reach for global paths without being
// of use here: snapshotters other than overlayfs, NRI's socket in /var/run,
// image verifiers in /opt, tracing exporters.
var unusedContainerdPlugins = []string{
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.native",
	"io.containerd.snapshotter.v1.zfs",
	"io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.nri.v1.nri",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.tracing",
	"io.containerd.tracing.processor.v1.otlp",
}

// WriteContainerd writes containerd's configuration, what containers of pods
// start from, the registry hosts and the CNI network list, and returns the path of the configuration. The files
// change only when their content does, so a running containerd is not
// disturbed. Directories that containerd needs are made.
func WriteContainerd(ctx context.Context, c Config) (string, error) {
	for _, dir := range []string{c.ContainerdRoot(), c.ContainerdState(), c.cniConfDir(), c.registryHostsDir(), c.shimSocketDir(), filepath.Dir(c.ContainerdSocket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("prepare containerd: %w", err)
		}
	}
	config, err := toml.Marshal(containerdConfig(c, hasSysResource()))
	if err != nil {
		return "", fmt.Errorf("encode containerd configuration: %w", err)
	}
	if err := wholefile.Write(c.containerdConfigFile(), config, 0o600); err != nil {
		return "", err
	}
	if err := writePodSpec(ctx, c); err != nil {
		return "", err
	}
	if err := writeRegistryHosts(c); err != nil {
		return "", err
	}
	return c.containerdConfigFile(), writeNetworkList(c)
}

// containerdConfig is containerd's configuration, version 3.
func containerdConfig(c Config, mayLowerOOMScore bool) map[string]any {
	table := func(pairs ...any) map[string]any {
		values := make(map[string]any, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			values[pairs[i].(string)] = pairs[i+1]
		}
		return values
	}
	runc := table(
		"runtime_type", "io.containerd.runc.v2",
		"runtime_path", filepath.Join(c.BinDir, "containerd-shim-runc-v2"),
		"options", table(
			"BinaryName", "runc", "Root", filepath.Join(c.ContainerdState(), "runc"),
			"ShimCgroup", c.ShimCgroup(), "SystemdCgroup", false,
		),
	)
	if file := c.podSpecFile(); file != "" {
		runc["base_runtime_spec"] = file
	}
	return table(
		"version", 3,
		"root", c.ContainerdRoot(),
		"state", c.ContainerdState(),
		"temp", filepath.Join(c.containerdDir(), "tmp"),
		"disabled_plugins", unusedContainerdPlugins,
		"grpc", table("address", c.ContainerdSocket),
		"ttrpc", table("address", c.ContainerdSocket+".ttrpc"),
		"debug", table("level", c.Logging.Level, "format", "text"),
		"plugins", table(
			"io.containerd.cri.v1.images", table(
				"snapshotter", "overlayfs",
				// Layers are kept: BuildKit and the registry push them again.
				"discard_unpacked_layers", false,
				"pinned_images", table("sandbox", c.PauseImage),
				"registry", table("config_path", c.registryHostsDir()),
			),
			"io.containerd.cri.v1.runtime", table(
				"restrict_oom_score_adj", !mayLowerOOMScore,
				"netns_mounts_under_state_dir", true,
				"containerd", table("default_runtime_name", "runc", "runtimes", table("runc", runc)),
				"cni", table("bin_dirs", []string{c.CNIBinDir}, "conf_dir", c.cniConfDir(), "use_internal_loopback", true),
			),
			"io.containerd.grpc.v1.cri", table(
				"disable_tcp_service", true,
				"stream_server_address", "127.0.0.1",
				"stream_server_port", "0",
			),
			"io.containerd.shim.v1.manager", table("socket_dir", c.shimSocketDir()),
		),
	)
}

// writeRegistryHosts tells containerd how the platform's registry and the
// mirrors are reached.
func writeRegistryHosts(c Config) error {
	wanted := map[string]registryhosts.File{}
	if c.Registry.Host != "" {
		host := registryhosts.Host{Capabilities: []string{"pull", "resolve", "push"}, CA: c.Registry.CAFile}
		if c.Registry.Authorization != "" {
			host.Header = map[string]string{"Authorization": c.Registry.Authorization}
		}
		wanted[c.Registry.Host] = registryhosts.File{
			Server: c.Registry.Endpoint,
			Hosts:  map[string]registryhosts.Host{c.Registry.Endpoint: host},
		}
	}
	for _, mirror := range c.Registry.Mirrors {
		server := mirror.Endpoint
		if !mirror.Only {
			server = registryhosts.Upstream(mirror.Registry)
		}
		wanted[mirror.Registry] = registryhosts.File{
			Server: server,
			Hosts:  map[string]registryhosts.Host{mirror.Endpoint: {Capabilities: []string{"pull", "resolve"}, CA: mirror.CAFile, OverridePath: hasPath(mirror.Endpoint)}},
		}
	}
	return registryhosts.Write(c.registryHostsDir(), wanted)
}

// hasPath reports whether a mirror's URL says itself where its API is, so that
// containerd must not append /v2.
func hasPath(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && strings.Trim(u.Path, "/") != ""
}

// hasSysResource reports whether the process may lower oom_score_adj.
func hasSysResource() bool {
	const sysResource = 24
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			var mask uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(value), "%x", &mask); err != nil {
				return false
			}
			return mask&(1<<sysResource) != 0
		}
	}
	return false
}
