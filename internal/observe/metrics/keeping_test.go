package metrics

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// The disk is a small tmpfs, which only root may mount.
func TestAFullDiskIsToldAndLeftBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4m,mode=0700"); errors.Is(err, unix.EPERM) {
		t.Skip("mounting takes root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	moves := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "moves", Help: "Always another value."}, func() float64 { return float64(time.Now().UnixNano()) })
	reg.MustRegister(moves)
	m := start(t, Config{DataDir: filepath.Join(dir, "metrics"), Interval: 100 * time.Millisecond, Targets: []Target{{Job: "own", Gatherer: reg}}})
	eventually(t, "scraped", func() bool { _, ok := value(t, m, "moves"); return ok })
	if err := m.Ready(); err != nil {
		t.Fatalf("with room: %v", err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk did not fill: %v", err)
	}
	eventually(t, "the full disk is told", func() bool {
		err := m.Ready()
		return err != nil && strings.Contains(err.Error(), "the disk is full, so no samples are kept: free some space for "+dir)
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready again", func() bool { return m.Ready() == nil })
	before, _ := value(t, m, "moves")
	eventually(t, "samples are kept again", func() bool { v, ok := value(t, m, "moves"); return ok && v > before })
}
