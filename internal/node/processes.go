package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// termination is how long containers have between SIGTERM and SIGKILL
	// when the node is stopped.
	termination = 5 * time.Second
	// poll is how often the disappearance of processes is looked at.
	poll = 20 * time.Millisecond
)

// process is one line of the process table.
type process struct {
	pid, parent int
	arguments   []string
}

// processes lists the host's processes; one that ends meanwhile is left out.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var table []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue
		}
		arguments, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		parent, running := parseStat(stat)
		if !running {
			continue
		}
		table = append(table, process{pid, parent, strings.Split(strings.TrimRight(string(arguments), "\x00"), "\x00")})
	}
	return table, nil
}

// parseStat reads the parent from /proc/<pid>/stat; a zombie does not run.
func parseStat(stat []byte) (parent int, running bool) {
	// The command in parentheses may itself hold spaces and parentheses.
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return parent, err == nil
}

// containerProcesses splits the table: the shims of the containerd at socket,
// and everything below them.
func containerProcesses(table []process, socket string) (shims, contained []int) {
	children := map[int][]int{}
	for _, p := range table {
		children[p.parent] = append(children[p.parent], p.pid)
		if isShim(p.arguments, socket) {
			shims = append(shims, p.pid)
		}
	}
	for queue := slices.Clone(shims); len(queue) > 0; queue = queue[1:] {
		for _, child := range children[queue[0]] {
			if !slices.Contains(shims, child) {
				contained = append(contained, child)
				queue = append(queue, child)
			}
		}
	}
	return shims, contained
}

func isShim(arguments []string, socket string) bool {
	if len(arguments) == 0 || !strings.HasPrefix(filepath.Base(arguments[0]), "containerd-shim") {
		return false
	}
	address := slices.Index(arguments, "-address")
	return address > 0 && address+1 < len(arguments) && arguments[address+1] == socket
}

// stopContainers ends every container of the instance's containerd, whichever
// containerd namespace it is in, with SIGTERM and then SIGKILL, and the shims
// after them.
func stopContainers(ctx context.Context, c Config) error {
	table, err := processes()
	if err != nil {
		return err
	}
	shims, contained := containerProcesses(table, c.ContainerdSocket)
	if len(shims) == 0 {
		return nil
	}
	if err := signalAll(contained, unix.SIGTERM); err != nil {
		return err
	}
	waitGone(ctx, contained, termination)
	// Again from a new table: a container may have started processes meanwhile.
	if table, err = processes(); err != nil {
		return err
	}
	shims, contained = containerProcesses(table, c.ContainerdSocket)
	if err := errors.Join(signalAll(contained, unix.SIGKILL), signalAll(shims, unix.SIGKILL)); err != nil {
		return err
	}
	if left := waitGone(ctx, append(contained, shims...), termination); len(left) > 0 {
		return fmt.Errorf("processes %v of containers survive SIGKILL", left)
	}
	return nil
}

func signalAll(pids []int, signal unix.Signal) error {
	var failed []error
	for _, pid := range pids {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = append(failed, fmt.Errorf("signal process %d: %w", pid, err))
		}
	}
	return errors.Join(failed...)
}

// waitGone waits until none of the processes runs and returns those that do
// when the limit or the context ends.
func waitGone(ctx context.Context, pids []int, limit time.Duration) []int {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		pids = slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !runs(pid) })
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return pids
		case <-ticker.C:
		}
	}
}

func runs(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, running := parseStat(stat)
	return running
}

// removeCgroupDir kills what is in one cgroup directory and removes it.
func removeCgroupDir(dir string) error {
	deadline := time.Now().Add(termination)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		var pids []int
		for _, field := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		if err := signalAll(pids, unix.SIGKILL); err != nil {
			return err
		}
		time.Sleep(poll)
	}
}
