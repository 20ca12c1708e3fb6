package metrics

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/node_exporter/collector"
)

// nodeCollectors are node_exporter's collectors in use: those that the common
// dashboards show and that cost little.
var nodeCollectors = []string{
	"arp", "conntrack", "cpu", "cpufreq", "diskstats", "edac", "entropy", "filefd", "filesystem", "hwmon", "loadavg", "meminfo",
	"netclass", "netdev", "netstat", "os", "pressure", "rapl", "schedstat", "sockstat", "softnet", "stat", "thermal_zone", "time",
	"timex", "udp_queues", "uname", "vmstat",
}

// nodeFlags leave out what belongs to pods: their network devices and mounts.
var nodeFlags = []string{
	`--collector.netdev.device-exclude=^(veth|cali|cni|lxc|flannel).*$`,
	`--collector.netclass.ignored-devices=^(veth|cali|cni|lxc|flannel).*$`,
	`--collector.arp.device-exclude=^(veth|cali|cni|lxc|flannel).*$`,
	`--collector.filesystem.mount-points-exclude=^/(dev|proc|run|sys)($|/)|/(containerd|kubelet|docker|containers|buildkit)/|/(rootfs|netns|shm)($|/)`,
	`--collector.filesystem.fs-types-exclude=^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tmpfs|tracefs)$`,
	`--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`,
	`--collector.schedstat`,
}

// parseNodeFlags gives node_exporter's collectors their settings, which it
// takes from flags of the process-wide kingpin parser.
var parseNodeFlags = sync.OnceValue(func() error {
	_, err := kingpin.CommandLine.Parse(nodeFlags)
	return err
})

// nodeRegistry returns a registry with node_exporter's collectors.
func nodeRegistry(log *slog.Logger) (*prometheus.Registry, error) {
	if err := parseNodeFlags(); err != nil {
		return nil, fmt.Errorf("node_exporter's settings: %w", err)
	}
	// A collector that a host does not support logs that at each scrape.
	quiet := slog.New(levelHandler{log.Handler(), slog.LevelError + 4})
	c, err := collector.NewNodeCollector(quiet, nodeCollectors...)
	if err != nil {
		return nil, fmt.Errorf("node_exporter: %w", err)
	}
	reg := prometheus.NewRegistry()
	return reg, reg.Register(c)
}
