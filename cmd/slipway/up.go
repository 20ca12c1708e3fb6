package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/doctor"
	"github.com/slipwayhq/slipway/internal/footprint"
	"github.com/slipwayhq/slipway/internal/instance"
	"github.com/slipwayhq/slipway/internal/supervise"
)

func (a *app) upCommand() *cobra.Command {
	var detach bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start the platform",
		Long: "Start the platform in the foreground, with a line per component as it becomes ready.\n" +
			"With --detach it keeps running in the background, is started again should it ever\nend, and the command returns once everything is ready.",
		Example: "  slipway up\n  slipway up --detach",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			if detach {
				return a.upDetached(c.Context(), c.OutOrStdout(), s, timeout)
			}
			return a.upForeground(c.Context(), c.OutOrStdout(), s)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "run in the background")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "with --detach: how long to wait for everything to be ready")
	return cmd
}

func (a *app) upForeground(ctx context.Context, out io.Writer, s *settings) error {
	if s.namespace != nil && !instance.Inside() {
		if err := checkHost(ctx, s); err != nil {
			return err
		}
		return s.namespace.Enter(ctx)
	}
	if err := s.resolve(); err != nil {
		return err
	}
	if s.dir.Running() {
		_, err := s.dir.Acquire()
		return err
	}
	if err := checkHost(ctx, s); err != nil {
		return err
	}
	if err := s.dir.Create(); err != nil {
		return err
	}
	lock, err := s.dir.Acquire()
	if err != nil {
		return err
	}
	defer lock.Release()
	return runPlatform(ctx, out, s)
}

// checkHost refuses to start where the doctor finds something fatal.
func checkHost(ctx context.Context, s *settings) error {
	findings := doctor.Run(ctx, s.doctorSettings())
	if err := doctor.Err(findings); err != nil {
		return &delivery.Error{Kind: delivery.Stalled, Message: "This machine is not ready for Slipway:\n" + indent(err.Error()) + "\nAll checks: slipway doctor"}
	}
	return nil
}

func (s *settings) doctorSettings() doctor.Settings {
	ports := map[int]string{s.Web.Port: "web.port"}
	if s.SSH.Port != 0 {
		ports[s.SSH.Port] = "ssh.port"
	}
	if s.Ingress.Enabled {
		ports[s.Ingress.HTTPPort], ports[s.Ingress.HTTPSPort] = "ingress.http_port", "ingress.https_port"
	}
	var programs []string
	if s.Cluster.Enabled {
		// While the cluster's own processes live on, its port is rightly taken.
		if !s.adoptable("slipway-cluster") {
			ports[s.Cluster.APIPort] = "cluster.api_port"
		}
		programs = append(programs, "slipway-cluster", "slipway-tools", "containerd", "containerd-shim-runc-v2", "ctr")
	}
	if s.GitOps.Enabled {
		programs = append(programs, "slipway-gitops")
	}
	if s.Runner.Enabled && s.Cluster.Enabled {
		programs = append(programs, "buildkitd", "docker")
	}
	if s.namespace != nil && !instance.Inside() {
		ports = nil // they will be those of the namespace
	}
	return doctor.Settings{DataDir: s.DataDir, BinDir: s.binDir, Ports: ports, Budget: s.Budgets.Total(),
		Cluster: s.Cluster.Enabled, Running: s.dir.Running(), Programs: programs}
}

// adoptable reports whether a program of an earlier run may still live.
func (s *settings) adoptable(program string) bool {
	_, err := os.Stat(s.pidFile(program))
	return err == nil
}

func (s *settings) pidFile(program string) string {
	return filepath.Join(s.dir.Run(), program+".pid")
}

// runPlatform runs everything until ctx ends or `slipway down` asks for it.
func runPlatform(ctx context.Context, out io.Writer, s *settings) error {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(int64(s.Budgets.Slipway) * 9 / 10)
	logFile, err := os.OpenFile(filepath.Join(s.dir.Logs(), "slipway.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer logFile.Close()
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(logFile, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)

	cgroups, err := supervise.OpenCgroups(s.Name)
	if err != nil {
		return &delivery.Error{Kind: delivery.Stalled, Message: "The cgroups of this machine cannot be used.", Next: "See: slipway doctor", Err: err}
	}
	if err := cgroups.Join("slipway", os.Getpid(), int64(s.Budgets.Slipway)); err != nil {
		return err
	}
	if err := os.Remove(s.stopErrorFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p := &platform{settings: s, log: log, cgroups: cgroups, began: time.Now(), stop: stop}
	defer p.close()
	comps, err := p.components(ctx)
	if err != nil {
		return err
	}
	show := newProgress(out)
	p.manager, err = supervise.New(log, comps, supervise.WithProgress(show.state))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Slipway %s starts in %s\n", version, s.DataDir)
	ended := make(chan error, 1)
	go func() { ended <- p.manager.Run(ctx) }()
	go func() {
		if p.manager.WaitReady(ctx) == nil {
			p.announce(out)
			p.trim(ctx)
		}
	}()
	err = <-ended
	err = errors.Join(err, p.cleanup(context.WithoutCancel(ctx), out))
	if err == nil {
		return nil
	}
	// It was asked to stop, so nobody must start it again; `slipway down` tells.
	log.Error("stopped with trouble", "err", err)
	fmt.Fprintln(out, "Stopped, but: "+err.Error())
	if writeErr := os.WriteFile(s.stopErrorFile(), []byte(err.Error()), 0o600); writeErr != nil {
		log.Error("the trouble was not recorded", "err", writeErr)
	}
	return exitError(4)
}

// stopErrorFile tells `slipway down` what went wrong while stopping.
func (s *settings) stopErrorFile() string { return filepath.Join(s.dir.Run(), "stop.error") }

// settleTime is how long after the start memory that only the start needed is
// given back.
const settleTime = 30 * time.Second

func (p *platform) trim(ctx context.Context) {
	if err := footprint.Keep(ctx, settleTime); err != nil {
		p.log.Warn("memory is not given back", "err", err)
	}
}

// cleanup leaves the machine as it was, unless pods are to live on.
func (p *platform) cleanup(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if p.keepWorkloads.Load() {
		fmt.Fprintln(out, "Stopped. Pods go on running; slipway up takes them over.")
		return nil
	}
	err := p.cleanupNode(ctx)
	err = errors.Join(err, p.cgroups.Kill(), p.cgroups.Leave(os.Getpid()), p.cgroups.Remove(ctx))
	if p.namespace != nil {
		err = errors.Join(err, p.namespace.Remove(ctx))
	}
	if err == nil {
		fmt.Fprintln(out, "Stopped.")
	}
	return err
}

// progress prints a line whenever a component becomes ready or fails.
type progress struct {
	mu  sync.Mutex
	out io.Writer
}

func newProgress(out io.Writer) *progress { return &progress{out: out} }

func (p *progress) state(s supervise.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s.State {
	case supervise.Ready:
		fmt.Fprintf(p.out, "  %-16s ready  %6.1f s\n", s.Name, s.Seconds)
	case supervise.Failed, supervise.Degraded:
		fmt.Fprintf(p.out, "  %-16s %s  %s\n", s.Name, s.State, s.Message)
	}
}

// upDetached starts the guard, which starts the platform, and follows it until
// everything is ready.
func (a *app) upDetached(ctx context.Context, out io.Writer, s *settings, timeout time.Duration) error {
	if s.dir.Running() {
		_, err := s.dir.Acquire()
		if err != nil {
			return err
		}
	}
	if err := checkHost(ctx, s); err != nil {
		return err
	}
	if err := s.dir.Create(); err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(s.dir.Logs(), "up.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer console.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{self, "up"}, a.flags()...)
	guard := exec.Command(filepath.Join(s.binDir, "slipway-guard"), args...)
	guard.Stdout, guard.Stderr = console, console
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A caller's lock or pipe must not stay held for as long as the platform runs.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("start in the background: keep descriptors to itself: %w", err)
	}
	if err := guard.Start(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- guard.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = followStart(ctx, out, s, ended)
	if err != nil && ctx.Err() == nil {
		if b, readErr := os.ReadFile(console.Name()); readErr == nil && len(b) > 0 {
			return errors.New(tail(string(b), 20))
		}
	}
	return err
}

// followStart prints each component as it becomes ready.
func followStart(ctx context.Context, out io.Writer, s *settings, ended <-chan error) error {
	shown := map[string]bool{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last report
	for {
		var r report
		if err := s.dir.Call(ctx, "GET", "/status", nil, &r); err == nil {
			last = r
			for _, c := range r.Components {
				if c.State == supervise.Ready && !shown[c.Name] {
					shown[c.Name] = true
					fmt.Fprintf(out, "  %-16s ready  %6.1f s\n", c.Name, c.Seconds)
				}
			}
			if r.Ready {
				fmt.Fprint(out, r.Announcement)
				return nil
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			if err == nil {
				err = errors.New("the platform ended at once")
			}
			return err
		case <-ctx.Done():
			for _, c := range last.Components {
				if c.State != supervise.Ready {
					fmt.Fprintf(out, "  %-16s %s  %s\n", c.Name, c.State, c.Message)
				}
			}
			return &delivery.Error{Kind: delivery.Waiting, Message: "Not everything is ready yet; it goes on in the background.", Next: "See: slipway status"}
		}
	}
}

// budget returns a program's memory budget in bytes.
func (s *settings) budget(program string) int64 {
	for _, b := range s.Budgets.Table() {
		if b.Component == program {
			return b.Bytes
		}
	}
	return 0
}
