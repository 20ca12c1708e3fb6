package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
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
	shims, contained, err := n.PodProcesses()
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range append(shims, contained...) {
		used, err := pss(pid)
		if err != nil {
			return 0, 0, err
		}
		memory += used
	}
	if len(shims) == 0 {
		return 0, 0, fmt.Errorf("no shim of %s runs", n.Config.ContainerdSocket)
	}
	return memory, len(shims), nil
}
