// Package local is the executor that runs jobs as plain processes of this
// host: for `slipway ci run` on a working copy, and for tests of the runner.
//
// It owns the processes of a job and nothing else: images, services and limits
// are the containerd executor's. It receives environment requests from the
// runner and must not import containerd.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/runner"
)

// Executor runs scripts with the host's bash or sh.
type Executor struct {
	// Env is added below the job's variables (default PATH and HOME of this process).
	Env []string
}

// New returns an executor that passes PATH and HOME of this process on.
func New() *Executor {
	return &Executor{Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}}
}

// Name is the executor's name in traces: the official runner calls its
// counterpart so.
func (*Executor) Name() string { return "shell" }

// Recover has nothing to do: processes end with the runner.
func (*Executor) Recover(context.Context) error { return nil }

// Prepare notes what the host cannot give.
func (e *Executor) Prepare(_ context.Context, r runner.EnvironmentRequest) (runner.Environment, error) {
	r.Log.Print("Using Shell (bash) executor...")
	for _, service := range r.Services {
		r.Log.Warn("The service %s is not started by this executor", service.Name)
	}
	return &environment{request: r, base: e.Env}, nil
}

type environment struct {
	request runner.EnvironmentRequest
	base    []string
}

func (e *environment) BuildsDir() string { return e.request.BuildsDir }

func (e *environment) InNetwork(fn func() error) error { return fn() }

func (e *environment) Close(context.Context) error { return nil }

// Exec runs the script in a process group of its own, which is killed when the
// script ends or ctx does.
func (e *environment) Exec(ctx context.Context, s runner.Script) error {
	command := exec.CommandContext(ctx, "/bin/sh", "-c", runner.DetectShell)
	command.Dir = e.request.BuildsDir
	command.Env = append(append([]string(nil), e.base...), e.request.Variables.Environ()...)
	command.Stdin = strings.NewReader(s.Text)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return killGroup(command.Process.Pid) }
	command.WaitDelay = time.Second
	// Pipes of our own: background processes of the script may hold them open
	// after the shell has ended, until the group is killed.
	var copies sync.WaitGroup
	defer copies.Wait()
	var writers []*os.File
	for _, target := range []struct {
		file *io.Writer
		to   io.Writer
	}{{&command.Stdout, s.Stdout}, {&command.Stderr, s.Stderr}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			return errors.Join(fmt.Errorf("make pipe: %w", err), closeAll(writers))
		}
		*target.file = writer
		writers = append(writers, writer)
		copies.Go(func() {
			_, _ = io.Copy(target.to, reader) // the trace reports its own errors
			_ = reader.Close()
		})
	}
	// The kernel sends Pdeathsig when the thread that started the process ends,
	// and threads of this program do: making a network namespace costs one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	startErr := command.Start()
	if err := closeAll(writers); startErr == nil {
		startErr = err
	}
	if startErr != nil {
		return fmt.Errorf("start shell: %w", startErr)
	}
	err := command.Wait()
	killErr := killGroup(command.Process.Pid)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return &runner.ExitError{Code: exit.ExitCode()}
	case errors.As(err, &exit):
		return &runner.JobError{Reason: runner.ReasonScript, Message: "the shell was ended by " + exit.String(), ExitCode: 1}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("run shell: %w", err)
	}
	return killErr
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, file := range files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
