package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cleanup takes from the host what a stopped node leaves, in the network
// namespace of the calling process: container processes and their shims,
// mounts, network namespaces, the bridge and its veths, nftables and iptables
// rules, cgroups of containers, sockets and links outside the data directory. What is
// worth keeping in the data directory (images, etcd, volumes) stays.
//
// containerd and slipway-cluster must have stopped before. With keepWorkloads
// nothing is touched, so that pods and their network live on until the next
// start. It goes on after an error and returns all of them; a second call does
// nothing.
func Cleanup(ctx context.Context, c Config, keepWorkloads bool) error {
	if keepWorkloads {
		return nil
	}
	return errors.Join(
		stopContainers(ctx, c),
		unmountBelow(c.DataDir),
		removeRuntimeFiles(c),
		removeInterfaces(c),
		removeRules(ctx, c),
		removeContainerCgroups(c),
		removeEmptyCgroup(c.CgroupRoot),
	)
}

// removeContainerCgroups removes those of pods, jobs and build steps, and of
// their shims: runc makes them in every hierarchy.
func removeContainerCgroups(c Config) error {
	failed := []error{RemoveCgroup(c.ShimCgroup())}
	for _, name := range []string{"kubepods", "jobs", "builds"} {
		failed = append(failed, RemoveCgroup(filepath.Join(c.CgroupRoot, name)))
	}
	return errors.Join(failed...)
}

// unmountBelow detaches every mount below dir, the deepest first.
func unmountBelow(dir string) error {
	return unmount(dir, func(point string) bool { return point != dir })
}

// Unmount detaches every mount below dir, the deepest first, and what is
// mounted on dir itself.
func Unmount(dir string) error {
	return unmount(dir, func(string) bool { return true })
}

func unmount(dir string, which func(point string) bool) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var failed []error
	for _, point := range slices.Backward(mountPoints(raw, dir)) {
		if !which(point) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			failed = append(failed, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(failed...)
}

// mountPoints returns dir and the mount points below it, those of them that are
// mount points, in the order in which they were mounted. mountinfo is in the format of proc(5).
func mountPoints(mountinfo []byte, dir string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); point == dir || strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	return points
}

// cniCache is where the CNI library that containerd links keeps results.
const cniCache = "/var/lib/cni/results"

// containerLogLinks is where the kubelet links containers' logs; the path
// cannot be configured.
const containerLogLinks = "/var/log/containers"

// removeRuntimeFiles removes what describes running containers.
func removeRuntimeFiles(c Config) error {
	var failed []error
	for _, path := range []string{c.ContainerdState(), c.ipamDir(), c.shimSocketDir(), c.ContainerdSocket, c.ContainerdSocket + ".ttrpc"} {
		failed = append(failed, os.RemoveAll(path))
	}
	results, err := filepath.Glob(filepath.Join(cniCache, c.Instance+"-*"))
	failed = append(failed, err)
	for _, result := range results {
		failed = append(failed, os.Remove(result))
	}
	failed = append(failed, removeLinks(containerLogLinks, c.PodLogDir()))
	// Directories that all instances share go with the last one.
	for _, dir := range []string{filepath.Dir(c.shimSocketDir()), cniCache, filepath.Dir(cniCache), containerLogLinks} {
		_ = os.Remove(dir)
	}
	return errors.Join(failed...)
}

// removeLinks removes the symbolic links in dir that point below target.
func removeLinks(dir, target string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	failed := []error{err}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, target+"/") {
			failed = append(failed, os.Remove(path))
		}
	}
	return errors.Join(failed...)
}

// removeInterfaces removes the pod bridge and the veths left on it.
func removeInterfaces(c Config) error {
	bridge, err := netlink.LinkByName(c.Network.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", c.Network.Bridge, err)
	}
	links, err := netlink.LinkList()
	failed := []error{err}
	for _, link := range links {
		if link.Attrs().MasterIndex != bridge.Attrs().Index || link.Type() != "veth" {
			continue
		}
		// The other end may just have gone with its network namespace.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			failed = append(failed, fmt.Errorf("remove interface %s: %w", link.Attrs().Name, err))
		}
	}
	if err := netlink.LinkDel(bridge); err != nil {
		failed = append(failed, fmt.Errorf("remove bridge %s: %w", c.Network.Bridge, err))
	}
	return errors.Join(failed...)
}

// removeRules removes the instance's nftables tables, kube-proxy's, and the
// iptables chains of the kubelet and the port mapping plugin.
func removeRules(ctx context.Context, c Config) error {
	var rules strings.Builder
	for _, table := range []string{"ip " + c.masqueradeTable(), "ip kube-proxy", "ip6 kube-proxy"} {
		// Adding first makes the deletion of a missing table no error.
		fmt.Fprintf(&rules, "table %[1]s\ndelete table %[1]s\n", table)
	}
	failed := []error{nft(ctx, rules.String())}
	for _, tool := range []string{"iptables", "ip6tables"} {
		failed = append(failed, removeIptables(ctx, tool, c.firewallComment()))
	}
	return errors.Join(failed...)
}

// removeIptables takes the KUBE- and CNI- chains, the rules that jump to them
// and those with the instance's comment out of every table, and the tables that
// are then as good as absent.
func removeIptables(ctx context.Context, tool, comment string) error {
	save, err := exec.LookPath(tool + "-save")
	if err != nil {
		return nil // never installed, so nothing of ours is in it
	}
	present, err := exec.CommandContext(ctx, save).Output()
	if err != nil {
		return fmt.Errorf("%s-save: %w", tool, err)
	}
	kept, changed := withoutOurRules(present, comment)
	if changed {
		restore := exec.CommandContext(ctx, tool+"-restore")
		restore.Stdin = bytes.NewReader(kept)
		if out, err := restore.CombinedOutput(); err != nil {
			return fmt.Errorf("%s-restore: %w: %s", tool, err, bytes.TrimSpace(out))
		}
	}
	family := map[string]string{"iptables": "ip", "ip6tables": "ip6"}[tool]
	for _, table := range untouchedTables(kept) {
		// With the nft backend an untouched table is only a leftover; with the
		// legacy backend nft does not know it and there is nothing to remove.
		_ = exec.CommandContext(ctx, "nft", "delete", "table", family, table).Run()
	}
	return nil
}

// withoutOurRules filters the output of iptables-save.
func withoutOurRules(saved []byte, comment string) (kept []byte, changed bool) {
	for line := range bytes.Lines(saved) {
		if bytes.Contains(line, []byte("KUBE-")) || bytes.Contains(line, []byte("CNI-")) || bytes.Contains(line, []byte("--comment "+comment+" ")) {
			changed = true
			continue
		}
		kept = append(kept, line...)
	}
	return kept, changed
}

// untouchedTables returns the tables in iptables-save output that hold no rule
// and no chain of their own and whose built-in chains all accept.
func untouchedTables(saved []byte) []string {
	var tables []string
	table, touched := "", false
	for line := range strings.Lines(string(saved)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table, touched = line[1:], false
		case strings.HasPrefix(line, ":"):
			fields := strings.Fields(line)
			touched = touched || len(fields) < 2 || fields[1] != "ACCEPT"
		case strings.HasPrefix(line, "-"):
			touched = true
		case line == "COMMIT" && !touched:
			tables = append(tables, table)
		}
	}
	return tables
}

// RemoveCgroup removes a cgroup and all below it in every hierarchy, killing
// the processes in them. A cgroup that is not there is no error.
func RemoveCgroup(path string) error {
	dirs, err := cgroupDirs(path)
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		var below []string
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				below = append(below, path)
			}
			return err
		})
		failed = append(failed, err)
		for _, child := range slices.Backward(below) {
			failed = append(failed, removeCgroupDir(child))
		}
	}
	return errors.Join(failed...)
}

// removeEmptyCgroup removes a cgroup unless something still lives in it.
func removeEmptyCgroup(path string) error {
	dirs, err := cgroupDirs(path)
	for _, dir := range dirs {
		removeErr := os.Remove(dir)
		if errors.Is(removeErr, fs.ErrNotExist) || errors.Is(removeErr, unix.EBUSY) || errors.Is(removeErr, unix.ENOTEMPTY) {
			continue
		}
		err = errors.Join(err, removeErr)
	}
	return err
}
