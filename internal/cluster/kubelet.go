package cluster

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	kubeletoptions "k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletvalidation "k8s.io/kubernetes/pkg/kubelet/apis/config/validation"

	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// nodePodBits is the size of a node's pod range as a prefix length.
func nodePodBits(c node.Config) int { return netip.MustParsePrefix(c.Network.NodePodCIDR).Bits() }

// runKubelet runs the kubelet until ctx ends.
func runKubelet(ctx context.Context, c node.Config, creds *credentials) error {
	kubeletFlags := kubeletoptions.NewKubeletFlags()
	kubeletFlags.KubeConfig = creds.kubeconfig("kubelet")
	kubeletFlags.HostnameOverride = c.Node.Name
	kubeletFlags.NodeIP = c.Node.IP
	kubeletFlags.NodeLabels = c.Node.Labels
	kubeletFlags.RootDirectory = c.KubeletDir()
	kubeletFlags.CertDirectory = filepath.Join(c.KubeletDir(), "pki")
	config, err := kubeletConfiguration(c, creds)
	if err != nil {
		return err
	}
	if err := kubeletvalidation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return fmt.Errorf("validate the kubelet's configuration: %w", err)
	}
	server := &kubeletoptions.KubeletServer{KubeletFlags: *kubeletFlags, KubeletConfiguration: *config}
	// cAdvisor asks containerd which pod a cgroup is; where, only a flag of the
	// process can tell it.
	if err := flag.Set("containerd", c.ContainerdSocket); err != nil {
		return fmt.Errorf("tell cAdvisor where containerd is: %w", err)
	}
	dependencies, err := kubelet.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("the kubelet's dependencies: %w", err)
	}
	return kubelet.Run(ctx, server, dependencies, utilfeature.DefaultFeatureGate)
}

func kubeletConfiguration(c node.Config, creds *credentials) (*kubeletconfig.KubeletConfiguration, error) {
	config, err := kubeletoptions.NewKubeletConfiguration()
	if err != nil {
		return nil, fmt.Errorf("the kubelet's default configuration: %w", err)
	}
	resolvConf := filepath.Join(c.ClusterDir(), "resolv.conf")
	if err := wholefile.Write(resolvConf, podResolvConf(upstreamResolvers(c)), 0o600); err != nil {
		return nil, err
	}
	if err := os.Chmod(resolvConf, 0o644); err != nil { // pods read it as any user
		return nil, fmt.Errorf("resolv.conf of pods: %w", err)
	}
	config.ContainerRuntimeEndpoint = "unix://" + c.ContainerdSocket
	config.Address, config.Port = "0.0.0.0", int32(c.Ports.Kubelet)
	config.HealthzBindAddress, config.HealthzPort = "127.0.0.1", int32(c.Ports.KubeletHealth)
	config.ReadOnlyPort = 0
	config.TLSCertFile, config.TLSPrivateKeyFile = creds.cert("kubelet-serving"), creds.key("kubelet-serving")
	config.Authentication.Anonymous.Enabled = false
	config.Authentication.Webhook.Enabled = true
	config.Authentication.X509.ClientCAFile = creds.cert("ca")
	config.Authorization.Mode = kubeletconfig.KubeletAuthorizationModeWebhook
	config.EnableProfilingHandler, config.EnableDebugFlagsHandler = false, false
	config.ClusterDNS, config.ClusterDomain = []string{c.Network.ClusterDNS}, c.Network.ClusterDomain
	config.ResolverConfig = resolvConf
	config.CgroupDriver, config.CgroupRoot = node.CgroupDriver(), c.CgroupRoot
	config.FailCgroupV1 = false
	config.FailSwapOn = false
	config.MakeIPTablesUtilChains = false // kube-proxy uses nftables
	config.PodLogsDir = c.PodLogDir()
	config.VolumePluginDir = filepath.Join(c.KubeletDir(), "volume-plugins")
	config.MaxPods = int32(c.Resources.MaxPods)
	config.SerializeImagePulls = false
	parallel := int32(3)
	config.MaxParallelImagePulls = &parallel
	config.ContainerLogMaxSize, config.ContainerLogMaxFiles = "10Mi", 3
	config.ImageMinimumGCAge = metav1.Duration{Duration: 10 * time.Minute}
	return config, setReservations(config, c.Resources, c.KubeletDir())
}

// setReservations turns the sizes of the configuration into what the kubelet
// reserves, evicts at, and cleans images at.
func setReservations(config *kubeletconfig.KubeletConfiguration, r node.ResourceConfig, dir string) error {
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err != nil {
		return fmt.Errorf("read the host's memory: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("read the size of the disk: %w", err)
	}
	system := r.SystemReserved
	if r.PodMemory > 0 {
		memory := int64(host.Totalram) * int64(host.Unit)
		system = memory - r.KubeReserved - r.EvictMemory - r.PodMemory
		if system < 0 {
			return fmt.Errorf("resources.pod_memory: %d MiB for pods, %d MiB for the cluster and %d MiB of eviction threshold exceed the host's %d MiB",
				r.PodMemory>>20, r.KubeReserved>>20, r.EvictMemory>>20, memory>>20)
		}
	}
	config.SystemReserved = map[string]string{"memory": fmt.Sprint(system)}
	config.KubeReserved = map[string]string{"memory": fmt.Sprint(r.KubeReserved)}
	config.EnforceNodeAllocatable = []string{"pods"}
	config.EvictionHard = map[string]string{
		"memory.available":  fmt.Sprint(r.EvictMemory),
		"nodefs.available":  fmt.Sprint(r.EvictDisk),
		"imagefs.available": fmt.Sprint(r.EvictDisk),
	}
	config.ImageGCHighThresholdPercent = imageThreshold(r.ImageDisk, int64(disk.Blocks)*disk.Bsize)
	config.ImageGCLowThresholdPercent = config.ImageGCHighThresholdPercent - 1
	return nil
}

// imageThreshold is the percentage of used space at which images are removed.
// The kubelet only knows percentages, which on a large disk would mean tens of
// gigabytes; this one leaves free bytes of total, as far as whole percents can.
func imageThreshold(free, total int64) int32 {
	if total <= 0 {
		return 85 // the kubelet's default
	}
	used := 100 - math.Ceil(100*float64(free)/float64(total))
	return int32(min(max(used, 50), 99))
}

// podResolvConf is the resolv.conf of pods that use the node's DNS.
func podResolvConf(resolvers []netip.AddrPort) []byte {
	var text strings.Builder
	for _, resolver := range resolvers {
		fmt.Fprintf(&text, "nameserver %s\n", resolver.Addr())
	}
	return []byte(text.String())
}
