package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// Child is a unit that is another program. It outlives a crash of the
// supervisor: its output goes straight to its log file, and the next
// supervisor adopts it by its pid file when it runs the same program with the
// same arguments and configuration.
type Child struct {
	Path string // absolute
	Args []string
	Env  []string // in addition to the supervisor's PATH, HOME and TMPDIR
	Dir  string

	PIDFile string
	LogFile string
	// Fingerprint changes whenever a running child must not be adopted, such as
	// a hash of its configuration.
	Fingerprint string
	// Socket answers GET /readyz with {"ready", "components"}; empty when
	// ReadyFunc measures readiness instead.
	Socket    string
	ReadyFunc func(ctx context.Context) error
	// Prepare runs before each start, not before an adoption.
	Prepare func(ctx context.Context) error
	// Joined is called with the process id right after each start or adoption,
	// to put it into its cgroup.
	Joined func(pid int) error
	// KeepOnStop leaves the process running when the supervisor stops.
	KeepOnStop func() bool
	// StopWithin is how long the program has after SIGTERM before SIGKILL; 0
	// means 15 s.
	StopWithin time.Duration
	Log        *slog.Logger

	mu       sync.Mutex
	pid      int
	parts    []Part
	answered bool // by this process, at least once
}

type pidRecord struct {
	PID         int    `json:"pid"`
	StartTime   uint64 `json:"start_time"` // clock ticks since boot, field 22 of /proc/PID/stat
	Executable  string `json:"executable"`
	Modified    int64  `json:"modified"` // of the executable, in Unix nanoseconds
	Fingerprint string `json:"fingerprint"`
}

// PID returns the process id, or 0 while the program does not run.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// Parts returns what the program last said of its parts.
func (c *Child) Parts() []Part {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Part(nil), c.parts...)
}

func (c *Child) setPID(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
	c.parts, c.answered = nil, false
}

// Run adopts or starts the program and waits for its end.
func (c *Child) Run(ctx context.Context) error {
	proc, pid, adopted, err := c.adopt()
	if err != nil {
		return err
	}
	var cmd *exec.Cmd
	if !adopted {
		if c.Prepare != nil {
			if err := c.Prepare(ctx); err != nil {
				return err
			}
		}
		if cmd, proc, err = c.start(); err != nil {
			return err
		}
		pid = cmd.Process.Pid
	}
	defer proc.Close()
	c.setPID(pid)
	defer c.setPID(0)
	if c.Joined != nil {
		if err := c.Joined(pid); err != nil {
			c.Log.Warn("cannot put the program into its cgroup", "program", filepath.Base(c.Path), "err", err)
		}
	}
	ended := proc.Ended()
	select {
	case <-ended:
		return c.reap(cmd)
	case <-ctx.Done():
	}
	if c.KeepOnStop != nil && c.KeepOnStop() {
		return nil
	}
	c.terminate(proc, ended)
	err = c.reap(cmd)
	os.Remove(c.PIDFile)
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return nil // it was asked to end
	}
	return err
}

func (c *Child) terminate(proc *process, ended <-chan struct{}) {
	within := c.StopWithin
	if within == 0 {
		within = 15 * time.Second
	}
	proc.Signal(unix.SIGTERM)
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		c.Log.Warn("program did not stop in time and is killed", "program", filepath.Base(c.Path), "within", within)
		proc.Signal(unix.SIGKILL)
		<-ended
	}
}

// reap collects the exit status of a child of our own. An adopted process
// belongs to init.
func (c *Child) reap(cmd *exec.Cmd) error {
	if cmd == nil {
		return errors.New("the program ended (see its log)")
	}
	err := cmd.Wait()
	if err == nil {
		return errors.New("the program ended with status 0 (see its log)")
	}
	return fmt.Errorf("the program ended: %w (see its log)", err)
}

func (c *Child) start() (*exec.Cmd, *process, error) {
	if err := os.MkdirAll(filepath.Dir(c.LogFile), 0o700); err != nil {
		return nil, nil, err
	}
	logFile, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	defer logFile.Close()
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	for _, key := range []string{"PATH", "HOME", "TMPDIR", "LANG"} {
		if v, ok := os.LookupEnv(key); ok {
			cmd.Env = append(cmd.Env, key+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", filepath.Base(c.Path), err)
	}
	if fd < 0 {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, nil, errors.New("the kernel has no pidfd (Linux 5.4 or later is needed)")
	}
	proc, err := newProcess(fd)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, nil, err
	}
	if err := c.writePIDFile(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		proc.Close()
		return nil, nil, err
	}
	return cmd, proc, nil
}

func (c *Child) writePIDFile(pid int) error {
	st, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("the program ended at once (see its log): %w", err)
	}
	info, err := os.Stat(c.Path)
	if err != nil {
		return err
	}
	body, err := json.Marshal(pidRecord{pid, st, c.Path, info.ModTime().UnixNano(), c.fingerprint()})
	if err != nil {
		return err
	}
	return wholefile.Write(c.PIDFile, body, 0o600)
}

func (c *Child) fingerprint() string { return strings.Join(c.Args, "\x00") + "\x00" + c.Fingerprint }

// adopt takes over a running process of an earlier supervisor. One that runs
// another version or configuration is stopped first.
func (c *Child) adopt() (proc *process, pid int, ok bool, err error) {
	body, err := os.ReadFile(c.PIDFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, err
	}
	var rec pidRecord
	if json.Unmarshal(body, &rec) != nil {
		return nil, 0, false, nil
	}
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		return nil, 0, false, nil // it is gone
	}
	if proc, err = newProcess(fd); err != nil {
		return nil, 0, false, err
	}
	st, err := startTime(rec.PID)
	if err != nil || st != rec.StartTime {
		proc.Close()
		return nil, 0, false, nil // the number belongs to somebody else now
	}
	info, err := os.Stat(c.Path)
	if err == nil && rec.Executable == c.Path && rec.Modified == info.ModTime().UnixNano() && rec.Fingerprint == c.fingerprint() {
		c.Log.Info("adopted a running program", "program", filepath.Base(c.Path), "pid", rec.PID)
		return proc, rec.PID, true, nil
	}
	c.Log.Info("stopping a program that runs an earlier version or configuration", "program", filepath.Base(c.Path), "pid", rec.PID)
	c.terminate(proc, proc.Ended())
	proc.Close()
	return nil, 0, false, nil
}

// startTime reads when a process started; with its id it names the process for
// good.
func startTime(pid int) (uint64, error) {
	fields, err := processFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// processState is the letter of proc(5) for what a process does.
func processState(pid int) (string, error) {
	fields, err := processFields(pid)
	if err != nil {
		return "", err
	}
	return fields[0], nil
}

// processFields are those of /proc/PID/stat from the state on, of a process that
// has not ended.
func processFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	i := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	if fields[0] == "Z" {
		return nil, os.ErrProcessDone
	}
	return fields, nil
}

// Ready asks the program, by its socket or ReadyFunc. A program that does not
// answer in time gives an error with the state of its process and the next step;
// of its parts nothing is known then.
func (c *Child) Ready(ctx context.Context) error {
	pid := c.PID()
	if pid == 0 {
		return errors.New("not running")
	}
	var h health
	err := c.ask(ctx, &h)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid != pid {
		return errors.New("not running") // it ended meanwhile
	}
	c.parts = h.Components
	if errors.Is(err, context.DeadlineExceeded) {
		return Silent(pid, filepath.Base(c.Path), c.answered)
	}
	if err != nil {
		return err
	}
	c.answered = true
	return h.problem()
}

func (c *Child) ask(ctx context.Context, h *health) error {
	if c.ReadyFunc != nil {
		h.Ready = true
		return c.ReadyFunc(ctx)
	}
	var err error
	*h, err = readyz(ctx, c.Socket)
	return err
}

// Silent says why a running program gives no answer, as far as its process
// shows, and what to do. served tells that it has answered before: one that is
// still starting is only waited for.
func Silent(pid int, program string, served bool) error {
	switch state, err := processState(pid); {
	case err != nil:
		return errors.New("not running")
	case state == "T" || state == "t":
		return fmt.Errorf("process %d is stopped by a signal and does nothing; let it go on with: kill -CONT %d", pid, pid)
	case !served:
		return errors.New("starting (does not answer yet)")
	case state == "D":
		return fmt.Errorf("process %d does not answer, it waits for the disk or for memory; look at: slipway logs %s, dmesg", pid, program)
	}
	return fmt.Errorf("process %d runs but does not answer; look at: slipway logs %s. If it does not come back, kill -KILL %d has it started again", pid, program, pid)
}

type health struct {
	Ready      bool   `json:"ready"`
	Components []Part `json:"components"`
}

// problem is the first thing that keeps the program from being ready, or nil.
func (h health) problem() error {
	if h.Ready {
		return nil
	}
	for _, p := range h.Components {
		if !p.Ready {
			if p.Message == "" {
				p.Message = "starting"
			}
			return fmt.Errorf("%s: %s", p.Name, p.Message)
		}
	}
	return errors.New("starting")
}

func readyz(ctx context.Context, socket string) (health, error) {
	var h health
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://program/readyz", nil)
	if err != nil {
		return h, err
	}
	resp, err := tr.RoundTrip(req)
	if ctx.Err() != nil {
		return h, ctx.Err()
	}
	if err != nil {
		return h, errors.New("starting (does not answer yet)")
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&h); err != nil {
		if ctx.Err() != nil {
			return health{}, ctx.Err()
		}
		return health{}, fmt.Errorf("its health answer cannot be read: %w", err)
	}
	return h, nil
}

// StopLeftover ends the process of a pid file that an earlier supervisor left,
// if it still lives: SIGTERM, then SIGKILL after the time given. The pid file
// is removed.
func StopLeftover(ctx context.Context, pidFile string, within time.Duration) error {
	c := &Child{PIDFile: pidFile, Fingerprint: "none", StopWithin: within, Log: slog.New(slog.DiscardHandler)}
	proc, _, adopted, err := c.adopt()
	if err != nil {
		return fmt.Errorf("stop the process of %s: %w", pidFile, err)
	}
	if adopted {
		proc.Close()
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return ctx.Err()
}
