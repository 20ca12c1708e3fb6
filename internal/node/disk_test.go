package node

import "testing"

func TestCheckDisk(t *testing.T) {
	t.Parallel()
	if err := checkDisk("/data", diskMinimum); err != nil {
		t.Error(err)
	}
	const want = "the disk of /data is full: 12 MiB are free and 256 MiB are needed; remove something or move the data directory"
	if err := checkDisk("/data", 12<<20); err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}
