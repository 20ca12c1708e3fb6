package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups manages the memory cgroups of an instance: one folder named after
// the instance with one folder per program, on cgroup v2 and on v1 (there in
// the memory hierarchy).
type Cgroups struct {
	root string // such as /sys/fs/cgroup/memory or /sys/fs/cgroup
	name string
	v2   bool
}

const cgroupMount = "/sys/fs/cgroup"

// OpenCgroups finds the host's hierarchy and creates the instance's folder.
func OpenCgroups(name string) (*Cgroups, error) {
	c := &Cgroups{root: cgroupMount, name: name}
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupMount, &st); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	c.v2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	if !c.v2 {
		c.root = filepath.Join(cgroupMount, "memory")
	}
	dir := filepath.Join(c.root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	if c.v2 {
		for _, d := range []string{c.root, dir} {
			if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
				return nil, fmt.Errorf("cgroups: enable the memory controller in %s: %w", d, err)
			}
		}
	}
	return c, nil
}

// V2 reports whether the host has the unified hierarchy.
func (c *Cgroups) V2() bool { return c.v2 }

// Join puts a process into the folder of a program and sets its memory limit
// in bytes; 0 means none.
func (c *Cgroups) Join(program string, pid int, limit int64) error {
	if err := c.Limit(program, limit); err != nil {
		return err
	}
	dir := filepath.Join(c.root, c.name, program)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cgroups: join %s: %w", program, err)
	}
	return nil
}

// Limit makes the folder of a program, or of a group of containers, and sets
// the memory limit in bytes of all that is in it and below; 0 means none.
func (c *Cgroups) Limit(program string, limit int64) error {
	dir := filepath.Join(c.root, c.name, program)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	file := "memory.limit_in_bytes"
	if c.v2 {
		file = "memory.max"
	}
	if limit > 0 {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
			return fmt.Errorf("cgroups: limit %s: %w", program, err)
		}
	}
	return nil
}

// Processes lists the processes in a program's folder.
func (c *Cgroups) Processes(program string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(c.root, c.name, program, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("cgroups: %s: %w", program, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Use returns the PSS of all processes in a folder and below it, and the
// highest resident size of its largest, both in bytes. Processes that end
// meanwhile count as 0.
func (c *Cgroups) Use(program string) (pss, peak int64) {
	_ = filepath.WalkDir(filepath.Join(c.root, c.name, program), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // folders come and go with pods and jobs
		}
		rel, err := filepath.Rel(filepath.Join(c.root, c.name), path)
		if err != nil {
			return nil
		}
		pids, err := c.Processes(rel)
		if err != nil {
			return nil
		}
		for _, pid := range pids {
			if n, err := PSS(pid); err == nil {
				pss += n
			}
			if n, err := PeakRSS(pid); err == nil {
				peak = max(peak, n)
			}
		}
		return nil
	})
	return pss, peak
}

// Leave moves a process back to the hierarchy's root, so that its folder can
// be removed.
func (c *Cgroups) Leave(pid int) error {
	if err := os.WriteFile(filepath.Join(c.root, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cgroups: leave: %w", err)
	}
	return nil
}

// Remove removes the instance's folders. Folders with processes in them stay
// and are named in the error; the kernel may need a moment to let go of a
// folder whose last process has just ended, so Remove tries until ctx ends.
func (c *Cgroups) Remove(ctx context.Context) error {
	for {
		err := removeTree(filepath.Join(c.root, c.name))
		if err == nil {
			return nil
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("cgroups: %w", err)
		case <-timer.C:
		}
	}
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Kill ends every process that still lives in the instance's folders, such as
// helpers that a program started and left behind, except this process itself.
func (c *Cgroups) Kill() error {
	var failed []error
	err := filepath.WalkDir(filepath.Join(c.root, c.name), func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || e.Name() != "cgroup.procs" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return err
			}
			if pid == os.Getpid() {
				continue
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				failed = append(failed, fmt.Errorf("kill process %d: %w", pid, err))
			}
		}
		return nil
	})
	if err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}
