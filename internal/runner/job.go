package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Causes by which a job's context ends.
var (
	errCanceled    = &JobError{Reason: ReasonCanceled, Message: "canceled"}
	errDropped     = errors.New("the job is no longer this runner's")
	errInterrupted = &JobError{Reason: ReasonSystem, Message: "aborted: the runner is being stopped"}
)

// job is one job in hand, from its acceptance to its report.
type job struct {
	runner *Runner
	spec   *delivery.JobSpec
	dir    string // the job's folder on the host
	trace  *trace
	out    *stream // output of the job's processes
	errs   *stream
	words  *stream // the runner's own words
	log    *Log
	helper *helperLog

	environment Environment
	home        *os.Root // dir, of which containers see the builds folder only
	builds      *os.Root // the builds folder on the host
	project     *os.Root // the project folder on the host
	projectDir  string   // the project folder as the job sees it
	shownBuilds string   // the builds folder as the job sees it
	early       *earlyFetch
	variables   Variables

	ctx  context.Context // of the whole job; its cause is what ended it
	drop context.CancelCauseFunc

	mu     sync.Mutex
	cancel context.CancelCauseFunc // what a cancellation ends now
}

// run executes the job and reports it. It returns when nothing of the job is
// left on the host. admitted is called, possibly more than once, when the job
// has its share of the memory or needs none any more.
func (r *Runner) run(ctx context.Context, spec *delivery.JobSpec, admitted func()) error {
	defer admitted()
	dir, err := r.record(spec)
	if err != nil {
		return err
	}
	j := &job{runner: r, spec: spec, dir: dir}
	if j.trace, err = openTrace(filepath.Join(dir, "trace"), r.coordinator, spec.ID, spec.Token, r.config.TraceLimit, r.config.TraceInterval); err != nil {
		return err
	}
	defer func() {
		if err := errors.Join(j.trace.close(), os.RemoveAll(dir)); err != nil {
			r.logger.Error("remove job folder", "job", spec.ID, "error", err)
		}
	}()
	if err := j.openStreams(spec.Variables, spec.Features.TokenMaskPrefixes); err != nil {
		return err
	}
	timeout := time.Duration(spec.RunnerInfo.Timeout) * time.Second
	if timeout <= 0 {
		timeout = time.Hour
	}
	jobCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j.ctx, j.drop = jobCtx, cancel
	j.setCancel(cancel)

	// The memory comes first: a job that waits for it is pending, its time has
	// not begun, and everyone sees what it waits for.
	request, requestErr := j.describe()
	if requestErr == nil {
		release, err := j.admit(jobCtx, request, cancel)
		if err != nil {
			return j.notAdmitted(jobCtx, err)
		}
		defer release()
	}
	admitted()
	timed, stop := context.WithTimeoutCause(jobCtx, timeout, &JobError{Reason: ReasonTimeout,
		Message: fmt.Sprintf("execution took longer than %v seconds", timeout)})
	defer stop()
	ack, err := r.coordinator.UpdateJob(ctx, spec.ID, spec.Token, delivery.JobUpdate{State: delivery.JobRunning})
	if err != nil {
		return fmt.Errorf("accept job %d: %w", spec.ID, err)
	}
	reporting, stopReporting := context.WithCancel(context.WithoutCancel(ctx))
	var reporters sync.WaitGroup
	status := func(ack delivery.JobAck, err error) { j.observe(ack, err, cancel) }
	status(ack, nil)
	reporters.Go(func() { j.trace.run(reporting, status) })
	reporters.Go(func() { j.keepAlive(reporting, status) })

	if err = requestErr; err == nil {
		err = j.execute(timed, request)
	}
	if j.outOfSpace(err) {
		err = errDiskFull
	}
	stopReporting()
	reporters.Wait()
	if errors.Is(context.Cause(jobCtx), errDropped) {
		r.logger.Info("job dropped", "job", spec.ID)
		return nil
	}
	j.finish(context.WithoutCancel(ctx), err)
	return nil
}

// openStreams opens the trace's three streams; secrets among the variables are
// masked in all of them.
func (j *job) openStreams(variables []delivery.JobVariable, prefixes []string) error {
	var secrets []string
	for _, one := range variables {
		if one.Masked {
			secrets = append(secrets, one.Value)
		}
	}
	if j.spec.Token != "" {
		secrets = append(secrets, j.spec.Token)
	}
	open := func(id string) *stream {
		stamps := newStamper(j.trace, id, j.runner.config.Now)
		return &stream{masker: newMasker(stamps, secrets, prefixes), stamps: stamps}
	}
	j.words, j.out, j.errs = open("00O"), open("01O"), open("01E")
	j.log = NewLog(j.words, j.spec.Features.TraceSections, j.runner.config.Now)
	j.helper = &helperLog{w: j.out}
	return nil
}

func (j *job) setCancel(cancel context.CancelCauseFunc) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cancel = cancel
}

// observe acts on what the coordinator says about the job.
func (j *job) observe(ack delivery.JobAck, err error, drop context.CancelCauseFunc) {
	switch kind := delivery.KindOf(err); {
	case kind == delivery.Forbidden || kind == delivery.NotFound:
		drop(errDropped)
	case err != nil:
		j.runner.logger.Warn("report on job", "job", j.spec.ID, "error", err)
	case ack.Status == "canceled" || ack.Status == "failed":
		drop(errDropped)
	case ack.Status == "canceling":
		j.mu.Lock()
		cancel := j.cancel
		j.mu.Unlock()
		cancel(errCanceled)
	}
}

// keepAlive tells the coordinator that the job runs.
func (j *job) keepAlive(ctx context.Context, status func(delivery.JobAck, error)) {
	for j.runner.sleep(ctx, j.runner.config.KeepAlive) == nil {
		ack, err := j.runner.coordinator.UpdateJob(ctx, j.spec.ID, j.spec.Token, delivery.JobUpdate{State: delivery.JobRunning})
		if ctx.Err() == nil {
			status(ack, err)
		}
	}
}

// describe writes the trace's first words and says what the job needs.
func (j *job) describe() (EnvironmentRequest, error) {
	j.log.Print("Running with %s", j.runner.config.Version)
	j.log.Print("  on %s, system ID: %s", j.runner.config.Name, j.runner.config.Session.SystemID)
	return j.request()
}

// admit waits for the job's share of the memory. Meanwhile it keeps the offer
// and tells the coordinator what the job waits for; a job that was canceled or
// given to another runner is dropped.
func (j *job) admit(ctx context.Context, request EnvironmentRequest, drop context.CancelCauseFunc) (release func(), err error) {
	c := j.runner.config
	last := ""
	release, err = j.runner.budget.acquire(ctx, j.memory(request), c.KeepAlive, func(reason string) {
		if last == "" {
			j.log.Notice("Job was %s", reason)
		}
		if reason != last {
			j.runner.logger.Info("job waits", "job", j.spec.ID, "reason", reason)
			last = reason
		}
		ack, err := j.runner.coordinator.UpdateJob(ctx, j.spec.ID, j.spec.Token, delivery.JobUpdate{State: delivery.JobPending, Waiting: reason})
		if err == nil && ack.Status != "pending" {
			drop(errDropped)
			return
		}
		j.observe(ack, err, drop)
	})
	return release, err
}

// notAdmitted ends a job that was never accepted: there is nothing to report.
func (j *job) notAdmitted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errDropped) || errors.Is(cause, errInterrupted) {
		j.runner.logger.Info("job dropped", "job", j.spec.ID, "cause", cause)
		return nil
	}
	return err
}

// execute runs the job's stages. Everything it made is gone when it returns.
func (j *job) execute(ctx context.Context, request EnvironmentRequest) (err error) {
	info := j.spec.JobInfo
	if err := j.runner.diskSpace(ctx); err != nil {
		return err
	}
	j.runner.mu.Lock()
	j.runner.inHand[j] = struct{}{}
	j.runner.mu.Unlock()
	defer func() {
		if j.outOfSpace(err) {
			// What the job filled the disk with goes first, so that there is space
			// for ending it and for saying so.
			j.makeSpace()
		}
		// The environment must end even when the job's time has run out.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.runner.config.CloseTimeout)
		defer cancel()
		if j.early != nil {
			<-j.early.done
		}
		closeErr := j.close(closing)
		j.runner.mu.Lock()
		delete(j.runner.inHand, j)
		j.runner.mu.Unlock()
		if closeErr != nil {
			j.runner.logger.Error("clean up after job", "job", j.spec.ID, "error", closeErr)
			if err == nil {
				err = fmt.Errorf("clean up: %w", closeErr)
			}
		}
	}()
	err = j.log.Section("prepare_executor", fmt.Sprintf("Preparing the %q executor", j.runner.executor.Name()), func() error {
		return j.prepare(ctx, request)
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	prepare := func() error {
		j.log.Print("Running on %s via %s...", request.Hostname, j.runner.config.Hostname)
		return nil
	}
	if err := j.log.Section("prepare_script", "Preparing environment", prepare); err != nil {
		return err
	}
	j.runner.logger.Debug("job prepared", "job", j.spec.ID, "project", info.ProjectFullPath)
	return causeOf(ctx, j.stages(ctx))
}

// causeOf prefers the reason why ctx ended over what the end looked like.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (j *job) close(ctx context.Context) error {
	var errs []error
	if j.environment != nil {
		errs = append(errs, j.environment.Close(ctx))
		j.mu.Lock()
		j.environment = nil
		j.mu.Unlock()
	}
	for _, root := range []*os.Root{j.project, j.builds, j.home} {
		if root != nil {
			errs = append(errs, root.Close())
		}
	}
	return errors.Join(errs...)
}
