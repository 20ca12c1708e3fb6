package runner

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Executor provides the environments in which jobs run. It is safe for
// concurrent use.
type Executor interface {
	// Name is what the trace calls the executor: `Preparing the "NAME" executor`.
	Name() string
	// Recover removes what an earlier process left behind: processes,
	// containers, networks, mounts. It is called once, before any Prepare.
	Recover(ctx context.Context) error
	// Prepare makes the environment of one job: image, network, services. It
	// reports progress to r.Log. The error is a *JobError where the cause is the
	// job's own (an image that does not exist); any other error is the runner's.
	// After an error nothing is left behind.
	Prepare(ctx context.Context, r EnvironmentRequest) (Environment, error)
}

// Environment is one job's place to run. Its methods are called one at a time.
type Environment interface {
	// BuildsDir is where the host's builds folder appears to the job.
	BuildsDir() string
	// Exec runs a shell script: sh or bash reads it from standard input. Every
	// process it started has ended when Exec returns, whatever the reason; a
	// canceled context ends them at once. The error is an *ExitError when the
	// script ended with another code than 0, ctx's error when it was canceled,
	// a *JobError when the environment can say more (out of memory).
	Exec(ctx context.Context, s Script) error
	// Command prepares host work that needs the job's view of the network, such
	// as fetching a submodule: fn is called in that network and may start
	// processes there.
	InNetwork(fn func() error) error
	// Close ends every process of the job and removes all that Prepare made. It
	// may be called after any failure and more than once.
	Close(ctx context.Context) error
}

// Script is a stage's script for Environment.Exec.
type Script struct {
	Stage  string // the section's name, such as step_script
	Text   string
	Stdout io.Writer
	Stderr io.Writer
}

// EnvironmentRequest describes the environment of one job.
type EnvironmentRequest struct {
	JobID       int64
	ProjectID   int64
	ProjectPath string
	Hostname    string
	BuildsDir   string            // host folder to show at Environment.BuildsDir
	Image       delivery.JobImage // expanded; an empty name means the default image
	Services    []delivery.JobImage
	Variables   Variables // all of the job's variables, expanded
	Credentials []RegistryCredential
	Limits      Limits
	Privileged  bool
	Tools       []ToolMount // read-only files for the job's PATH
	// Log takes the executor's words for the trace. Safe for concurrent use.
	Log *Log
}

// ToolMount is a host file or folder shown read-only inside the job.
type ToolMount struct {
	Source, Target string
	// Variable names one that a job must have to get the tool; empty: all do.
	Variable string
}

// RegistryCredential lets the job pull from one registry host.
type RegistryCredential struct {
	Host               string
	Username, Password string
	Source             string // what the trace calls its origin
}

// Limits bound one job's containers. Zero means unlimited.
type Limits struct {
	Memory int64   // bytes, for the job's container
	CPU    float64 // cores
	PIDs   int64
}

// ExitError is the exit code of a script that failed.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// Failure reasons, as the GitLab Runner protocol names them.
const (
	ReasonScript        = "script_failure"
	ReasonSystem        = "runner_system_failure"
	ReasonTimeout       = "job_execution_timeout"
	ReasonImagePull     = "image_pull_failure"
	ReasonConfiguration = "runner_configuration_error"
	ReasonInterrupted   = "runner_interrupted"
	ReasonCanceled      = "job_canceled"
	ReasonUnknown       = "unknown_failure"
)

// JobError ends a job with a reason of the protocol and a sentence for the
// trace.
type JobError struct {
	Reason   string
	Message  string
	ExitCode int
	Err      error
}

func (e *JobError) Error() string {
	if e.Err == nil {
		return e.Message
	}
	if e.Message == "" {
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *JobError) Unwrap() error { return e.Err }

// failure turns an error into what is reported: reason and exit code. Errors
// that are neither the script's nor the job's are the runner's own.
func failure(err error) (reason string, code int, system bool) {
	var exit *ExitError
	var job *JobError
	switch {
	case errors.As(err, &job):
		reason := job.Reason
		if reason == "" {
			reason = ReasonScript
		}
		return reason, job.ExitCode, reason == ReasonSystem
	case errors.As(err, &exit):
		return ReasonScript, exit.Code, false
	}
	return ReasonSystem, 0, true
}
