package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containerdlog "github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/command/ci"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/instance"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/runner"
)

// ciPlace finds the place for the jobs of `slipway ci run`: containers of the
// platform on this machine, or processes.
func (a *app) ciPlace(ctx context.Context, wanted string, images bool) (ci.Place, error) {
	if wanted == ci.ExecutorHost || wanted == ci.ExecutorAuto && !images {
		return ci.OnHost(""), nil
	}
	s, err := a.load()
	if err == nil {
		err = s.containersHere(ctx)
	}
	if err == nil && s.namespace != nil && !instance.Inside() {
		return ci.Place{}, s.namespace.Enter(ctx) // the platform's network
	}
	if err != nil {
		if wanted == ci.ExecutorContainers {
			return ci.Place{}, err
		}
		return ci.OnHost(delivery.UserMessage(err)), nil
	}
	return s.openContainers(ctx)
}

// containersHere checks that this process can run containers on a platform.
func (s *settings) containersHere(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Only root runs containers.", Next: "Run the command with sudo."}
	}
	var r struct{}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.dir.Call(ctx, "GET", "/status", nil, &r); err != nil {
		return err
	}
	if !s.Cluster.Enabled {
		return delivery.Errorf(delivery.Unavailable, "This platform runs no containers: cluster.enabled is false.")
	}
	return s.resolve()
}

// openContainers opens a place of its own beside the built-in runner's: another
// namespace of containerd, other networks, the same memory budget.
func (s *settings) openContainers(ctx context.Context) (ci.Place, error) {
	c, err := s.jobsPlace()
	if err != nil {
		return ci.Place{}, err
	}
	c.CgroupParent = "/" + s.Name + "/jobs"
	c.Instance, c.Namespace, c.DataDir = s.Name[:min(len(s.Name), 10)]+"r", "slipway-ci-run", filepath.Join(s.DataDir, "ci-run")
	if c.JobSubnet, c.BuildSubnet, err = jobs.Beside(c.JobSubnet); err != nil {
		return ci.Place{}, err
	}
	if err := os.MkdirAll(c.DataDir, 0o711); err != nil {
		return ci.Place{}, fmt.Errorf("ci run: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(c.DataDir, "lock"))
	if err != nil {
		return ci.Place{}, err
	}
	if err := containerdlog.SetLevel("error"); err != nil { // the jobs' output says what people need
		return ci.Place{}, errors.Join(err, unlock())
	}
	place, err := jobs.OpenPlace(c)
	if err != nil {
		return ci.Place{}, errors.Join(err, unlock())
	}
	// The token may read every project and change nothing.
	token, err := readSecret(s.readTokenFile())
	if err != nil {
		return ci.Place{}, errors.Join(fmt.Errorf("credential for images: %w", err), place.Close(ctx), unlock())
	}
	return ci.Place{
		Credentials: []delivery.JobCredential{{Type: "registry", URL: s.externalHost(), Username: "slipway-gitops", Password: token}},
		Executor:    place.Executor(), BuildsDir: place.BuildsDir(), Tools: place.Tools(), Memory: c.MemoryBudget,
		Limits: runner.Limits{Memory: c.Limits.Memory, CPU: c.Limits.CPU, PIDs: 4096}, MaxLimits: c.MaxLimits,
		Close: func(ctx context.Context) error { return errors.Join(place.Close(ctx), unlock()) },
	}, nil
}

// lockFile waits for the lock on a file; the function returned gives it back.
func lockFile(ctx context.Context, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !told {
			fmt.Fprintln(os.Stderr, "Another slipway ci run uses the containers; waiting for it.")
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
