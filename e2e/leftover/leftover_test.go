package leftover

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// place makes a folder as a run has it, with a program running from it.
func place(t *testing.T) (dir string, program *exec.Cmd) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw-leftover-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(sleep)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sleep"), raw, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	program = exec.CommandContext(t.Context(), filepath.Join(dir, "sleep"), "300")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

func TestSweep(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	records := t.TempDir()
	killed, program := place(t)
	raw, err := json.Marshal(Run{Dir: killed, Down: []string{"/nonexistent/program"}})
	if err == nil {
		err = os.WriteFile(filepath.Join(records, "1.json"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	living, other := place(t)
	release, err := claim(ctx, records, Run{Dir: living})
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err == nil || !strings.Contains(err.Error(), "signal") {
		t.Errorf("the program of the killed run: %v", err)
	}
	if _, err := os.Stat(killed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}

	// A second process looks while the first one lives, and after it.
	if err := sweep(ctx, records); err != nil {
		t.Fatal(err)
	}
	if _, running := parentOf(filepath.Join("/proc", strconv.Itoa(other.Process.Pid))); !running {
		t.Error("a living run was touched")
	}
	if err := errors.Join(other.Process.Kill(), release(), sweep(ctx, records)); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // reports the kill
	if _, err := os.Stat(living); err != nil {
		t.Errorf("a run that released its record was touched: %v", err)
	}
	if left, err := os.ReadDir(records); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestOnlyTestsFolders(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", "/", "/var/tmp", "/var/tmp/other", "/home/sw-x", "/tmp/sw-a/../../home", "sw-x", "/tmp/sw-a/b"} {
		if err := (Run{Dir: dir}).check(); err == nil {
			t.Errorf("%q may be removed", dir)
		}
	}
}

// TestAlone lets one have a name at a time, and says when time is up.
func TestAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	first, err := alone(t.Context(), dir, "name")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := alone(short, dir, "name"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two have the name: %v", err)
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
	second, err := alone(t.Context(), dir, "name")
	if err != nil {
		t.Fatal(err)
	}
	if err := second(); err != nil {
		t.Fatal(err)
	}
}
