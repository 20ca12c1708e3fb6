package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
)

// programMemory is the proportional set size of the node's programs in MB
// (10^6 bytes).
func programMemory(n *lab.Node) (map[string]float64, error) {
	memory := map[string]float64{}
	for _, program := range []string{lab.Cluster, lab.Containerd} {
		used, err := pss(n.PID(program))
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", program, err)
		}
		memory[program] = used
	}
	return memory, nil
}

// pss reads a process's proportional set size in MB, see proc(5).
func pss(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "Pss:" {
			kibibytes, err := strconv.ParseFloat(fields[1], 64)
			return kibibytes * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no Pss in smaps_rollup of process %d", pid)
}

// podMemory is the memory of all shims of the node and of everything below
// them, in MB, and how many shims there are: one per pod.
func podMemory(n *lab.Node) (memory float64, pods int, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0, err
	}
	children := map[int][]int{}
	var queue []int
	for _, path := range entries {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return 0, 0, err
		}
		after := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, err := strconv.Atoi(after[1])
		if err != nil {
			return 0, 0, err
		}
		children[parent] = append(children[parent], pid)
		if bytes.Contains(command, []byte("containerd-shim")) && bytes.Contains(command, []byte(n.Config.ContainerdSocket)) {
			queue = append(queue, pid)
		}
	}
	pods = len(queue)
	for ; len(queue) > 0; queue = queue[1:] {
		used, err := pss(queue[0])
		if err != nil {
			return 0, 0, err
		}
		memory += used
		queue = append(queue, children[queue[0]]...)
	}
	if pods == 0 {
		return 0, 0, fmt.Errorf("no shim of %s runs", n.Config.ContainerdSocket)
	}
	return memory, pods, nil
}
