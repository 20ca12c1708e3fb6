package leftover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stop ends the run's processes and everything below them: SIGTERM, and
// SIGKILL after 10 s.
func stop(ctx context.Context, r Run) error {
	for _, step := range []struct {
		signal unix.Signal
		within time.Duration
	}{{unix.SIGTERM, 10 * time.Second}, {unix.SIGKILL, 10 * time.Second}} {
		within, cancel := context.WithTimeout(ctx, step.within)
		gone, err := end(within, r, step.signal)
		cancel()
		if gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("processes %v survive SIGKILL", r.processes())
}

// end sends the signal to each process once and waits until none is left. The
// table is read again and again: a process may start others.
func end(ctx context.Context, r Run, signal unix.Signal) (gone bool, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	told := map[int]bool{}
	for {
		left := r.processes()
		if len(left) == 0 {
			return true, nil
		}
		for _, pid := range left {
			if told[pid] {
				continue
			}
			told[pid] = true
			if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

// processes are those whose program lies in the run's folder, those of its
// programs that were given a path in it, and all that these have started; never
// this process or one above it.
func (r Run) processes() []int {
	links, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // the pattern is well-formed
	}
	parents, found := map[int]int{}, []int{}
	for _, dir := range links {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		parent, running := parentOf(dir)
		if !running {
			continue
		}
		parents[pid] = parent
		if r.owns(dir) {
			found = append(found, pid)
		}
	}
	above := []int{}
	for pid := os.Getpid(); pid > 0 && !slices.Contains(above, pid); pid = parents[pid] {
		above = append(above, pid)
	}
	var ours []int
	for pid := range parents {
		chain := []int{}
		for p := pid; p > 0 && !slices.Contains(chain, p) && !slices.Contains(above, p); p = parents[p] {
			chain = append(chain, p)
			if slices.Contains(found, p) {
				ours = append(ours, pid)
				break
			}
		}
	}
	return ours
}

// owns reports whether the process of a folder of /proc is one of the run's.
func (r Run) owns(proc string) bool {
	program, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false // it ended, or is the kernel's
	}
	program = strings.TrimSuffix(program, " (deleted)") // built again meanwhile
	if strings.HasPrefix(program, r.Dir+"/") {
		return true
	}
	if r.Bin == "" || filepath.Dir(program) != r.Bin {
		return false
	}
	raw, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(strings.Split(string(raw), "\x00"), func(argument string) bool {
		_, rest, found := strings.Cut(argument, r.Dir)
		return found && (rest == "" || rest[0] == '/')
	})
}

// parentOf reads /proc/<pid>/stat; a zombie does not run.
func parentOf(proc string) (parent int, running bool) {
	raw, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0, false
	}
	// The command in parentheses may itself hold spaces and parentheses.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, err == nil
}
