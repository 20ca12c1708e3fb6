package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// Prepare makes the host ready for containerd and slipway-cluster, in the
// network namespace of the calling process: directories, kernel settings,
// cgroups, the pod bridge with the address CoreDNS answers on, masquerading of the pod network, and
// everything WriteContainerd writes. It must run before containerd is started,
// needs root, and does nothing the second time. Errors say what is missing and
// how to mend it.
func Prepare(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("a node must be prepared as root")
	}
	if err := checkTools(c); err != nil {
		return err
	}
	for _, dir := range []string{c.ClusterDir(), c.KubeletDir(), c.VolumeDir(), c.PodLogDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare node: %w", err)
		}
	}
	if err := CheckDisk(c.DataDir); err != nil {
		return err
	}
	if err := wholefile.Write(c.nodeNameFile(), []byte(c.Node.Name+"\n"), 0o600); err != nil {
		return err
	}
	if err := forgetEarlierBoot(c, bootIDFile); err != nil {
		return err
	}
	if _, err := WriteContainerd(ctx, c); err != nil {
		return err
	}
	if err := prepareCgroups(c.CgroupRoot, c.ShimCgroup()); err != nil {
		return err
	}
	if err := setKernel(); err != nil {
		return err
	}
	if err := addBridge(c); err != nil {
		return err
	}
	if err := openFirewall(ctx, c); err != nil {
		return err
	}
	return addMasquerade(ctx, c)
}

// hostTools are the programs that a node runs, with their Debian packages.
var hostTools = []struct{ name, aptPackage string }{
	{"runc", "runc"}, {"nft", "nftables"}, {"iptables", "iptables"}, {"conntrack", "conntrack"}, {"mount", "mount"},
}

// checkTools reports every missing program at once, with the command that
// installs them.
func checkTools(c Config) error {
	var missing, packages []string
	for _, tool := range hostTools {
		if _, err := exec.LookPath(tool.name); err != nil {
			missing, packages = append(missing, tool.name), append(packages, tool.aptPackage)
		}
	}
	if plugin := missingPlugin(c.CNIBinDir); plugin != "" {
		missing = append(missing, "CNI plugin "+plugin+" in "+c.CNIBinDir)
		packages = append(packages, "containernetworking-plugins")
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing on this host: %s; install with: apt-get install -y %s", strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(c.BinDir, program)); err != nil {
			return fmt.Errorf("program %s is missing from %s: build it with make build", program, c.BinDir)
		}
	}
	return nil
}

// inotifyMinimums are what the kubelet, containerd and a hundred pods use up
// together; distributions start at 128 instances for all of root's programs.
var inotifyMinimums = map[string]int{
	"fs/inotify/max_user_instances": 1024,
	"fs/inotify/max_user_watches":   262144,
}

// setKernel applies what pods and their network need. The kubelet sets the
// rest of its own needs itself. The net settings are local to the network
// namespace.
func setKernel() error {
	if _, err := os.Stat("/proc/sys/net/bridge"); errors.Is(err, os.ErrNotExist) {
		if out, err := exec.Command("modprobe", "br_netfilter").CombinedOutput(); err != nil {
			return fmt.Errorf("the kernel lacks br_netfilter, without which pods cannot reach services on their own node (modprobe: %w: %s)", err, strings.TrimSpace(string(out)))
		}
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		path := filepath.Join("/proc/sys", name)
		if present, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(present)) == "1" {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("set %s to 1 for the pod network: %w", strings.ReplaceAll(name, "/", "."), err)
		}
	}
	for name, minimum := range inotifyMinimums {
		if err := raise(filepath.Join("/proc/sys", name), minimum); err != nil {
			return fmt.Errorf("raise %s to %d: %w", strings.ReplaceAll(name, "/", "."), minimum, err)
		}
	}
	return nil
}

// raise sets a kernel setting to at least minimum.
func raise(path string, minimum int) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if present, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil && present >= minimum {
		return nil
	}
	return os.WriteFile(path, []byte(strconv.Itoa(minimum)), 0o644)
}
