// Package leftover lets the end-to-end tests begin on a clean machine after a
// run that was killed: each run records what it is about to make, and the next
// one takes away what runs left whose process is gone.
//
// A record is a file that its process holds locked; the kernel gives the lock
// back however the process ends. What is not recorded is never touched.
package leftover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/node"
)

// Run is what a test makes on the machine, and how it is taken away.
type Run struct {
	Dir  string   // its data, mounts and sockets, removed at last; named sw-… in a folder for temporary files
	Bin  string   // the folder of its programs
	Down []string `json:",omitempty"` // the command that stops it, tried first
	// Node is cleaned up in the network namespace called Namespace, and never
	// in the host's.
	Node      *node.Config `json:",omitempty"`
	Namespace string       `json:",omitempty"` // removed, with the nftables table of the same name
}

// records is where runs are recorded. It outlives a reboot, as data does.
const records = "/var/tmp/slipway-e2e"

// Claim records a run until release is called, after it has been taken away,
// or the process ends. The first call of a process sweeps before.
func Claim(ctx context.Context, r Run) (release func() error, err error) {
	return claim(ctx, records, r)
}

var swept sync.Map // folder of records -> func() error, once for each process

func claim(ctx context.Context, dir string, r Run) (release func() error, err error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := ours(dir); err != nil {
		return nil, err
	}
	once, _ := swept.LoadOrStore(dir, sync.OnceValue(func() error { return sweep(ctx, dir) }))
	if err := once.(func() error)(); err != nil {
		return nil, fmt.Errorf("take away what an earlier test run left: %w", err)
	}
	// Locked before it has the name by which others look for it.
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return nil, fmt.Errorf("record a test run: %w", err)
	}
	name := filepath.Join(dir, strings.TrimPrefix(filepath.Base(f.Name()), ".new-")+".json")
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = json.NewEncoder(f).Encode(r)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("record a test run: %w", err), os.Remove(f.Name()), f.Close())
	}
	return func() error { return errors.Join(os.Remove(name), f.Close()) }, nil
}

// Alone waits until no other process has the name, for tests whose interfaces,
// addresses or cgroups have fixed names, and then has it until release is
// called or the process ends. It says on standard error that it waits.
func Alone(ctx context.Context, name string) (release func() error, err error) {
	return alone(ctx, records, name)
}

func alone(ctx context.Context, dir, name string) (release func() error, err error) {
	if err := ours(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the tests %s: %w", name, err)
	}
	for said := false; ; said = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if !said {
			fmt.Fprintf(os.Stderr, "waiting for another process with the tests %s to end (%s)\n", name, f.Name())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process still has %s: %w", f.Name(), context.Cause(ctx)), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ours makes the folder of records and refuses somebody else's.
func ours(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("records of test runs: %w", err)
	}
	var own unix.Stat_t
	if err := unix.Lstat(dir, &own); err != nil || int(own.Uid) != os.Geteuid() || own.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("records of test runs: %s is not this user's folder (%v): remove it", dir, err)
	}
	return nil
}

// check refuses a folder that no test makes, as all below it will be removed.
func (r Run) check() error {
	parent, base := filepath.Split(r.Dir)
	parent = filepath.Clean(parent)
	if r.Dir != filepath.Clean(r.Dir) || !strings.HasPrefix(base, "sw-") || parent != "/var/tmp" && parent != "/tmp" && parent != filepath.Clean(os.TempDir()) {
		return fmt.Errorf("%q is not a test's folder: name it sw-… in /var/tmp or %s", r.Dir, os.TempDir())
	}
	return nil
}

// sweep takes away the runs whose process is gone. It goes on after an error;
// a run that could not be taken away stays recorded.
func sweep(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	failed := []error{err}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".json") {
			failed = append(failed, sweepOne(ctx, filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(failed...)
}

func sweepOne(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its run has just ended, or another process took it away
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil // its process lives
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	if !same(f, name) {
		return nil // taken away between opening and locking
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return err
	}
	var r Run
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("%s: %w: remove it", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if err := r.remove(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.Dir, err)
	}
	return os.Remove(name)
}

func same(f *os.File, name string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(name)
	return err == nil && os.SameFile(opened, named)
}

func (r Run) remove(ctx context.Context) error {
	if err := r.check(); err != nil {
		return err
	}
	var failed []error
	if len(r.Down) > 0 {
		down, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(down, r.Down[0], r.Down[1:]...)
		command.WaitDelay = 5 * time.Second
		// What it could not stop is stopped below, so its failure tells only
		// when something of that fails too.
		if out, err := command.CombinedOutput(); err != nil {
			defer func() {
				fmt.Fprintf(os.Stderr, "leftover: %s: %v: %s\n", strings.Join(r.Down, " "), err, out)
			}()
		}
	}
	failed = append(failed, stop(ctx, r))
	if r.Node != nil {
		inside := r.Namespace
		if !exists(inside) {
			inside = "" // the network went with it; processes, mounts and cgroups may be left
		}
		failed = append(failed, Inside(inside, func() error { return node.Cleanup(ctx, *r.Node, false) }))
	}
	failed = append(failed, node.Unmount(r.Dir))
	if r.Namespace != "" {
		failed = append(failed, removeNamespace(ctx, r.Namespace))
	}
	if err := errors.Join(failed...); err != nil {
		return err // the data stays for a second try, as something may still use it
	}
	return os.RemoveAll(r.Dir)
}
