package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PodProcesses lists the shims of the node, one per pod, and everything below
// them.
func (n *Node) PodProcesses() (shims, contained []int, err error) {
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, nil, err
	}
	children := map[int][]int{}
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
			return nil, nil, err
		}
		// The command in parentheses may hold anything, see proc(5).
		parent, err := strconv.Atoi(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[1])
		if err != nil {
			return nil, nil, err
		}
		children[parent] = append(children[parent], pid)
		if bytes.Contains(command, []byte("containerd-shim")) && bytes.Contains(command, []byte(n.Config.ContainerdSocket)) {
			shims = append(shims, pid)
		}
	}
	for queue := slices.Clone(shims); len(queue) > 0; queue = queue[1:] {
		contained = append(contained, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return shims, contained, nil
}
