// Package doctor looks for what a host may lack: tools, kernel features,
// cgroups, ports, disk, memory, inotify limits, a plausible clock, swap. Each
// finding comes with the command that mends it.
//
// It receives plain settings, changes nothing, and must import no stage.
package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Settings are the parts of the configuration that the checks need.
type Settings struct {
	DataDir  string
	BinDir   string
	Ports    map[int]string // port -> configuration key
	Budget   int64          // bytes: the sum of all budgets with headroom
	Cluster  bool           // whether containers and Kubernetes will run
	Running  bool           // the instance runs already: its own ports are no finding
	Programs []string       // programs that must lie in BinDir
}

// Severity of a finding.
type Severity string

// Severities: a fatal finding keeps the platform from starting.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Fatal   Severity = "fatal"
)

// Finding is the outcome of one check.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // the command that mends it
}

// Run makes every check and returns the findings in a fixed order.
func Run(ctx context.Context, s Settings) []Finding {
	var all []Finding
	for _, check := range []func(context.Context, Settings) []Finding{
		root, kernel, tools, programs, cgroups, kernelModules, ports, disk, memory, inotify, swap, clock,
	} {
		all = append(all, check(ctx, s)...)
	}
	return all
}

// Err returns the fatal findings as one error, or nil.
func Err(findings []Finding) error {
	var lines []string
	for _, f := range findings {
		if f.Severity == Fatal {
			line := f.Check + ": " + f.Message
			if f.Fix != "" {
				line += "\n    mend it with: " + f.Fix
			}
			lines = append(lines, line)
		}
	}
	if lines == nil {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

func one(check string, sev Severity, fix, format string, args ...any) []Finding {
	return []Finding{{check, sev, fmt.Sprintf(format, args...), fix}}
}

func root(context.Context, Settings) []Finding {
	if os.Geteuid() != 0 {
		return one("user", Fatal, "sudo slipway up", "Slipway manages containers and networks, so it must run as root.")
	}
	return one("user", OK, "", "root")
}

func kernel(context.Context, Settings) []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return one("kernel", Warning, "", "The kernel's version cannot be read: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return one("kernel", Warning, "", "The kernel's version %q cannot be read.", release)
	}
	if major < 5 || major == 5 && minor < 10 {
		return one("kernel", Fatal, "apt-get install linux-image-amd64 && reboot", "Linux %s is too old; 5.10 or later is needed (pidfd, nftables).", release)
	}
	return one("kernel", OK, "", "Linux %s", release)
}

// toolPackages maps each tool to the package that has it on Debian and Ubuntu.
var toolPackages = map[string]string{
	"git": "git", "ip": "iproute2", "nft": "nftables",
}

var clusterToolPackages = map[string]string{
	"runc": "runc", "iptables": "iptables", "conntrack": "conntrack", "mount": "mount", "mmdebstrap": "mmdebstrap",
}

func tools(_ context.Context, s Settings) []Finding {
	var missing, packages []string
	look := func(list map[string]string) {
		for tool, pkg := range list {
			if _, err := exec.LookPath(tool); err != nil {
				missing, packages = append(missing, tool), append(packages, pkg)
			}
		}
	}
	look(toolPackages)
	if s.Cluster {
		look(clusterToolPackages)
		if !anyFile("/opt/cni/bin/bridge", "/usr/lib/cni/bridge") {
			missing, packages = append(missing, "CNI plugins"), append(packages, "containernetworking-plugins")
		}
	}
	if missing == nil {
		return one("tools", OK, "", "all there")
	}
	sort.Strings(missing)
	sort.Strings(packages)
	return one("tools", Fatal, "apt-get install --no-install-recommends "+strings.Join(packages, " "), "Missing: %s.", strings.Join(missing, ", "))
}

func anyFile(paths ...string) bool {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

func programs(_ context.Context, s Settings) []Finding {
	var missing []string
	for _, p := range s.Programs {
		if _, err := os.Stat(filepath.Join(s.BinDir, p)); err != nil {
			missing = append(missing, p)
		}
	}
	if missing != nil {
		return one("programs", Fatal, "make build", "Missing beside slipway in %s: %s.", s.BinDir, strings.Join(missing, ", "))
	}
	return one("programs", OK, "", "all in %s", s.BinDir)
}

func cgroups(_ context.Context, s Settings) []Finding {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		return one("cgroups", Fatal, "mount -t cgroup2 none /sys/fs/cgroup", "No cgroups are mounted: %v.", err)
	}
	var have []string
	version := "v1"
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		version = "v2"
		b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err != nil {
			return one("cgroups", Fatal, "", "The cgroup controllers cannot be read: %v.", err)
		}
		have = strings.Fields(string(b))
	} else {
		for _, name := range []string{"cpu", "cpuset", "memory", "pids"} {
			if anyFile("/sys/fs/cgroup/"+name+"/cgroup.procs", "/sys/fs/cgroup/"+name+"/tasks") {
				have = append(have, name)
			}
		}
	}
	var missing []string
	for _, want := range []string{"cpu", "cpuset", "memory", "pids"} {
		found := false
		for _, h := range have {
			found = found || h == want
		}
		if !found {
			missing = append(missing, want)
		}
	}
	if missing != nil {
		return one("cgroups", Fatal, "add cgroup_enable=memory to the kernel command line and reboot", "cgroup %s lacks the controllers %s.", version, strings.Join(missing, ", "))
	}
	return one("cgroups", OK, "", "%s with %s", version, strings.Join(have, ", "))
}

func kernelModules(_ context.Context, s Settings) []Finding {
	if !s.Cluster {
		return nil
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(b), "\toverlay") {
		if exec.Command("modprobe", "overlay").Run() != nil {
			return one("overlayfs", Fatal, "modprobe overlay", "The kernel has no overlayfs, which containers need.")
		}
	}
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil {
		if _, missing := exec.LookPath("nft"); missing == nil {
			return one("nftables", Fatal, "modprobe nf_tables", "nftables does not work: %s", strings.TrimSpace(string(out)))
		}
	}
	return one("kernel features", OK, "", "overlayfs, nftables")
}

func ports(_ context.Context, s Settings) []Finding {
	if s.Running {
		return nil
	}
	var list []int
	for p := range s.Ports {
		list = append(list, p)
	}
	sort.Ints(list)
	var out []Finding
	for _, p := range list {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
		if err == nil {
			l.Close()
			continue
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			out = append(out, one("ports", Fatal, "", "Port %d (%s) cannot be opened: %v.", p, s.Ports[p], err)...)
			continue
		}
		owner := PortOwner(p)
		fix := fmt.Sprintf("stop it, or choose another port in the configuration (%s)", s.Ports[p])
		out = append(out, one("ports", Fatal, fix, "Port %d (%s) is in use by %s.", p, s.Ports[p], owner)...)
	}
	if out == nil {
		return one("ports", OK, "", "%s free", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ", "), "[]"))
	}
	return out
}

// PortOwner names the process that listens on a TCP port of this network
// namespace, such as "nginx (process 812)", or says that it is unknown.
func PortOwner(port int) string {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			fields := strings.Fields(s.Text())
			if len(fields) < 10 || fields[3] != "0A" { // 0A: listening
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseInt(hex, 16, 32); err == nil && int(n) == port {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "an unknown process"
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return "an unknown process"
}

const gib = 1 << 30

func disk(_ context.Context, s Settings) []Finding {
	dir := s.DataDir
	for dir != "/" && !anyFile(dir) {
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return one("disk", Fatal, "", "The disk of %s cannot be examined: %v.", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	fix := "free some space, or move data_dir to a larger disk"
	switch {
	case free < gib/2:
		return one("disk", Fatal, fix, "Only %.1f GB are free in %s; at least 0.5 GB are needed to start.", float64(free)/gib, dir)
	case free < 10*gib:
		return one("disk", Warning, fix, "%.1f GB are free in %s; 10 GB or more are advised.", float64(free)/gib, dir)
	}
	if st.Files > 0 && st.Ffree < 10000 {
		return one("disk", Fatal, "remove small files", "Only %d inodes are free in %s.", st.Ffree, dir)
	}
	return one("disk", OK, "", "%.0f GB free in %s", float64(free)/gib, dir)
}

func memory(_ context.Context, s Settings) []Finding {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return one("memory", Warning, "", "The memory cannot be examined: %v.", err)
	}
	total := int64(info.Totalram) * int64(info.Unit)
	const least = 2 * gib
	switch {
	case total < least:
		return one("memory", Fatal, "use a larger machine", "The machine has %.1f GB of memory; 2 GB are the least.", float64(total)/gib)
	case total < s.Budget:
		return one("memory", Warning, "lower budgets in the configuration (slipway config print)",
			"The machine has %.1f GB of memory, less than the sum of all budgets (%.1f GB with headroom).", float64(total)/gib, float64(s.Budget)/gib)
	}
	return one("memory", OK, "", "%.1f GB, budgets with headroom %.1f GB", float64(total)/gib, float64(s.Budget)/gib)
}

func inotify(context.Context, Settings) []Finding {
	for _, limit := range []struct {
		file string
		min  int
	}{{"fs/inotify/max_user_instances", 512}, {"fs/inotify/max_user_watches", 65536}} {
		b, err := os.ReadFile("/proc/sys/" + limit.file)
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil && n < limit.min {
			key := strings.ReplaceAll(limit.file, "/", ".")
			return one("inotify", Warning, fmt.Sprintf("sysctl -w %s=%d", key, limit.min), "%s is %d; many pods need %d.", key, n, limit.min)
		}
	}
	return one("inotify", OK, "", "limits are high enough")
}

func swap(context.Context, Settings) []Finding {
	b, err := os.ReadFile("/proc/swaps")
	if err == nil && strings.Count(strings.TrimSpace(string(b)), "\n") > 0 {
		return one("swap", Warning, "swapoff -a", "Swap is on; it works, but memory limits of pods become soft.")
	}
	return one("swap", OK, "", "off")
}

// released is a time that no right clock can be before.
var released = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func clock(context.Context, Settings) []Finding {
	if now := time.Now(); now.Before(released) {
		return one("clock", Fatal, "timedatectl set-ntp true", "The clock says %s, which is in the past; certificates would not be valid.", now.Format(time.DateOnly))
	}
	return one("clock", OK, "", "plausible")
}
