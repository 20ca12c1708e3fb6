package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupMount is where every distribution mounts the cgroup hierarchies.
const cgroupMount = "/sys/fs/cgroup"

// CgroupVersion returns 2 on a host with the unified hierarchy, else 1 (the
// hybrid layout counts as 1: its controllers are in version 1 hierarchies).
func CgroupVersion() int {
	var stat unix.Statfs_t
	if err := unix.Statfs(cgroupMount, &stat); err == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2
	}
	return 1
}

// CgroupDriver is how the kubelet and runc make pods' cgroups. It is always
// "cgroupfs": the instance owns a subtree, which a systemd unit delegates to
// it, so that the same code serves hosts with and without systemd.
func CgroupDriver() string { return "cgroupfs" }

// cgroupDirs returns the directories of the cgroup path in every hierarchy.
// Each version 1 hierarchy may be reachable by more than one name (cpu,
// cpu,cpuacct); links are left out.
func cgroupDirs(path string) ([]string, error) {
	if CgroupVersion() == 2 {
		return []string{filepath.Join(cgroupMount, path)}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	var dirs []string
	for _, entry := range entries {
		if entry.IsDir() {
			dirs = append(dirs, filepath.Join(cgroupMount, entry.Name(), path))
		}
	}
	return dirs, nil
}

// prepareCgroups makes the instance's root cgroup and that of the shims below
// it, in every hierarchy.
func prepareCgroups(root, shims string) error {
	for _, path := range []string{root, shims} {
		dirs, err := cgroupDirs(path)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make cgroup %s: %w", dir, err)
			}
			if CgroupVersion() == 1 {
				if err := inheritCpuset(dir); err != nil {
					return err
				}
			}
		}
	}
	if CgroupVersion() == 2 {
		return enableControllers(cgroupMount, root)
	}
	return nil
}

// inheritCpuset copies the parent's processors and memory nodes into a version
// 1 cpuset cgroup, which starts without any and then cannot hold a process.
func inheritCpuset(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, os.ErrNotExist) || strings.TrimSpace(string(own)) != "" {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), parent, 0o644)
		}
		if err != nil {
			return fmt.Errorf("initialise %s of cgroup %s: %w", file, dir, err)
		}
	}
	return nil
}

// podControllers are the version 2 controllers that the kubelet looks for in
// its root cgroup. It refuses to start when one that the host has is not
// delegated; those not required may be missing from the host.
var podControllers = []struct {
	name     string
	required bool
}{{"cpuset", true}, {"cpu", true}, {"memory", true}, {"pids", true}, {"io", false}, {"hugetlb", false}}

// enableControllers delegates the controllers along the path from mount to
// root, so that cgroups below it have them. A cgroup that holds processes
// cannot delegate (the kernel's "no internal processes" rule); the error then
// says so.
func enableControllers(mount, root string) error {
	dir := mount
	for _, part := range append([]string{""}, strings.Split(strings.Trim(root, "/"), "/")...) {
		dir = filepath.Join(dir, part)
		available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read controllers of cgroup %s: %w", dir, err)
		}
		for _, controller := range podControllers {
			if !slices.Contains(strings.Fields(string(available)), controller.name) {
				if controller.required {
					return fmt.Errorf("cgroup %s lacks the controller %s, which pods need: delegate it (systemd: Delegate=yes)", dir, controller.name)
				}
				continue
			}
			err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller.name), 0o644)
			if errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("cgroup %s holds processes and so cannot delegate %s: move them to a cgroup of their own: %w", dir, controller.name, err)
			}
			if err != nil {
				return fmt.Errorf("delegate %s in cgroup %s: %w", controller.name, dir, err)
			}
		}
	}
	return nil
}
