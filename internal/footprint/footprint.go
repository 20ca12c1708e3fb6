// Package footprint gives back memory that a program needed only to start.
//
// It owns one trick: the pages of the program's own file that its start has
// touched (package initialisation, symbol tables, type data) stay mapped
// although most are never used again; the kernel is told to take them out, and
// those still needed come back from the page cache, without a read from disk
// while that has them. It receives nothing, emits nothing, and imports only
// the standard library and golang.org/x/sys.
package footprint

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// madvPageout is MADV_PAGEOUT (linux/mman.h), since Linux 5.4.
const madvPageout = 21

// Trim returns free heap to the system and takes the program's own file pages
// out of its memory. It returns the number of bytes of mappings that were
// advised. On kernels that do not know the advice it does nothing.
func Trim() (int64, error) {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("footprint: %w", err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, fmt.Errorf("footprint: %w", err)
	}
	defer f.Close()
	var advised int64
	for s := bufio.NewScanner(f); s.Scan(); {
		start, end, ok := ownFile(s.Text(), exe)
		if !ok {
			continue
		}
		switch err := advise(start, end-start); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			return advised, nil
		case err != nil:
			return advised, fmt.Errorf("footprint: %w", err)
		}
		advised += int64(end - start)
	}
	return advised, nil
}

// ownFile reads one line of /proc/self/maps (proc(5)) and returns the range of
// a read-only mapping of the program's file.
func ownFile(line, exe string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || strings.Join(fields[5:], " ") != exe || strings.Contains(fields[1], "w") {
		return 0, 0, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), found && err1 == nil && err2 == nil
}

func advise(start, length uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, start, length, madvPageout)
	if errno != 0 {
		return errno
	}
	return nil
}
