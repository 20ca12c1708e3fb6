// Package instance is one platform on this machine: its folder, the lock that
// lets only one process run it, the control socket that the command line talks
// to, and the network namespace of a further instance.
//
// It receives paths from the configuration and must import no stage.
package instance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Dir is the data directory of an instance.
type Dir string

// Run holds sockets, locks, pid files and generated configurations.
func (d Dir) Run() string { return filepath.Join(string(d), "run") }

// Logs holds one log per program.
func (d Dir) Logs() string { return filepath.Join(string(d), "logs") }

// Bin holds links to the command line tools.
func (d Dir) Bin() string { return filepath.Join(string(d), "bin") }

// Socket is the control socket.
func (d Dir) Socket() string { return filepath.Join(d.Run(), "slipway.sock") }

// Kubeconfig is the administrator's access to the cluster.
func (d Dir) Kubeconfig() string { return filepath.Join(string(d), "kubeconfig") }

// Path joins names to the directory.
func (d Dir) Path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Create makes the folders that everything else relies on, for root only.
func (d Dir) Create() error {
	for _, p := range []string{string(d), d.Run(), d.Logs(), d.Bin()} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return fmt.Errorf("create %s: %w", p, err)
		}
	}
	// Pods' volumes lie below the data directory: others may pass, not list.
	if err := os.Chmod(string(d), 0o711); err != nil {
		return fmt.Errorf("create %s: %w", d, err)
	}
	return nil
}

// Lock is held by the process that runs the instance.
type Lock struct{ f *os.File }

// Acquire takes the lock. Where another process holds it the error is of kind
// Conflict and names that process.
func (d Dir) Acquire() (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(d.Run(), "slipway.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock: %w", err)
		}
		return nil, &delivery.Error{Kind: delivery.Conflict,
			Message: fmt.Sprintf("Slipway already runs on %s (process %d).", d, d.PID()),
			Next:    "See it with: slipway status; stop it with: slipway down."}
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return &Lock{f}, nil
}

// Release gives the lock back.
func (l *Lock) Release() error { return l.f.Close() }

// Running reports whether a process holds the lock.
func (d Dir) Running() bool {
	f, err := os.Open(filepath.Join(d.Run(), "slipway.lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// PID returns the process that last held the lock, or 0.
func (d Dir) PID() int {
	b, err := os.ReadFile(filepath.Join(d.Run(), "slipway.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// PrimaryAddress returns the IPv4 address of the interface with the default
// route. No packet is sent to find it.
func PrimaryAddress() (string, error) {
	c, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return "", &delivery.Error{Kind: delivery.Invalid, Message: "This machine has no default route, so its address is not known.",
			Next: `Name it in the configuration: address: "..."`, Err: err}
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return "", fmt.Errorf("local address: %w", err)
	}
	return host, nil
}
