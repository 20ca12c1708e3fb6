package node

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// diskMinimum is the free space without which a node is not started: etcd
// allocates its log in pieces of 64 MiB and ends the process when it cannot
// write, and containerd's database is lost with a failed write.
const diskMinimum = 256 << 20

// CheckDisk reports in a sentence when too little space is left below dir.
func CheckDisk(dir string) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	return checkDisk(dir, int64(disk.Bavail)*disk.Bsize)
}

func checkDisk(dir string, free int64) error {
	if free >= diskMinimum {
		return nil
	}
	return fmt.Errorf("the disk of %s is full: %d MiB are free and %d MiB are needed; remove something or move the data directory", dir, free>>20, diskMinimum>>20)
}
