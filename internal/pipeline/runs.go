package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

const (
	offerTime   = time.Minute     // to accept a job after it was handed out
	silenceTime = 5 * time.Minute // without a word from the runner, a job counts as stuck
	graceTime   = time.Minute     // for the runner to report a timeout itself
)

// offer is a job that was handed to a runner and not accepted yet. It is not
// stored: after a restart the job is offered anew.
type offer struct {
	queued   *queued
	hash     string // of the job's token
	runner   *Runner
	systemID string
	timeout  int
	secrets  []string
	graceful bool
	accept   sync.Mutex // one accepts at a time
	waiting  string     // what the job waits for on its runner; Engine.mu guards it
}

// run is a job on a runner.
type run struct {
	jobID, pipelineID, projectID int64
	hash                         string
	instance                     bool // on an instance runner
	graceful                     bool // the runner can finish up when canceled
	builtin                      bool

	mu       sync.Mutex
	status   string
	lastSeen time.Time
	secrets  []string
	known    bool // secrets are known
	trace    *trace
}

func (r *run) seen(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastSeen = now
	return r.status
}

// gone is the error for a runner whose token is not that of the job.
func gone() error {
	return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
}

// lookup finds the running job that a runner speaks of, accepting an offer on
// the way. A job that has ended gives a nil run and its status.
func (e *Engine) lookup(ctx context.Context, jobID int64, token string) (*run, string, error) {
	hash := hashToken(token)
	e.mu.Lock()
	r, o := e.runs[jobID], e.offers[jobID]
	e.mu.Unlock()
	if r != nil && sameHash(r.hash, hash) {
		return r, r.seen(e.clock.Now()), nil
	}
	if o != nil && sameHash(o.hash, hash) {
		return e.accept(ctx, jobID, o)
	}
	var j Job
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		j, err = tx.Job(jobID)
		return err
	})
	if delivery.IsNotFound(err) {
		return nil, "", gone()
	}
	if err != nil {
		return nil, "", err
	}
	if !sameHash(j.TokenHash, hash) {
		return nil, "", gone()
	}
	if j.Status != "running" && j.Status != "canceling" {
		return nil, j.Status, nil
	}
	r = e.adopt(&j)
	return r, r.seen(e.clock.Now()), nil
}

// accept makes an offered job a running one.
func (e *Engine) accept(ctx context.Context, jobID int64, o *offer) (*run, string, error) {
	o.accept.Lock()
	defer o.accept.Unlock()
	e.mu.Lock()
	r := e.runs[jobID]
	e.mu.Unlock()
	if r != nil && r.hash == o.hash {
		return r, r.seen(e.clock.Now()), nil
	}
	status := ""
	_, err := e.changeIn(ctx, o.queued.pipelineID, jobID, func(u *unit, lp *live, i int) error {
		if lp.proc.Jobs[i].Status != process.Pending {
			status = lp.proc.Jobs[i].Status.String()
			return nil
		}
		if err := lp.proc.Apply(i, process.EventRun); err != nil {
			return err
		}
		j := &lp.jobs[i]
		j.RunnerID, j.SystemID, j.TokenHash, j.Timeout = o.runner.ID, o.systemID, o.hash, o.timeout
		now := u.tx.Now()
		r = &run{jobID: jobID, pipelineID: j.PipelineID, projectID: j.ProjectID, hash: o.hash, instance: o.runner.Kind == InstanceRunner,
			graceful: o.graceful, builtin: o.runner.Builtin, status: "running", lastSeen: now, secrets: o.secrets, known: true}
		made, timeout := r, time.Duration(o.timeout)*time.Second
		u.after = append(u.after, func() { e.begin(made, now.Add(timeout)) })
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if status != "" {
		e.withdraw(jobID)
		return nil, status, nil
	}
	return r, "running", nil
}

// begin registers a running job and its time limit. It returns the run that is
// registered, which is another one if somebody was faster.
func (e *Engine) begin(r *run, deadline time.Time) *run {
	e.mu.Lock()
	delete(e.offers, r.jobID)
	if other := e.runs[r.jobID]; other != nil {
		e.mu.Unlock()
		return other
	}
	e.runs[r.jobID] = r
	e.mu.Unlock()
	e.wheel.drop("offer " + strconv.FormatInt(r.jobID, 10))
	if r.instance {
		e.queue.started(r.projectID)
	}
	id := r.jobID
	e.wheel.set("timeout "+strconv.FormatInt(id, 10), deadline.Add(graceTime), func(ctx context.Context) {
		if err := e.failJob(ctx, id, ReasonTimeout); err != nil && delivery.KindOf(err) != delivery.Conflict && delivery.KindOf(err) != delivery.Forbidden {
			e.log.Error("job over its time not failed", "job", id, "err", err)
		}
	})
	return r
}

// adopt registers a job that was running before a restart, once.
func (e *Engine) adopt(j *Job) *run {
	r := &run{jobID: j.ID, pipelineID: j.PipelineID, projectID: j.ProjectID, hash: j.TokenHash, status: j.Status, lastSeen: e.clock.Now()}
	err := e.store.View(context.Background(), func(tx Tx) error {
		runner, err := tx.Runner(j.RunnerID)
		r.instance, r.builtin = runner.Kind == InstanceRunner, runner.Builtin
		return err
	})
	if err != nil && !delivery.IsNotFound(err) {
		e.log.Error("runner of job not found", "job", j.ID, "err", err)
	}
	return e.begin(r, j.StartedAt.Add(time.Duration(j.Timeout)*time.Second))
}

// hold keeps an offer for a runner that cannot start the job yet, and notes what
// it waits for. The status is the job's: anything but pending ends the offer.
func (e *Engine) hold(ctx context.Context, jobID int64, token, reason string) (status string, err error) {
	var j Job
	if err := e.store.View(ctx, func(tx Tx) error {
		j, err = tx.Job(jobID)
		return err
	}); err != nil {
		if delivery.IsNotFound(err) {
			err = gone()
		}
		return "", err
	}
	hash := hashToken(token)
	e.mu.Lock()
	o := e.offers[jobID]
	if o == nil || !sameHash(o.hash, hash) {
		e.mu.Unlock()
		return "", gone()
	}
	o.waiting = reason
	e.mu.Unlock()
	if j.Status != "pending" {
		e.withdraw(jobID)
		return j.Status, nil
	}
	e.wheel.set("offer "+strconv.FormatInt(jobID, 10), e.clock.Now().Add(offerTime), func(context.Context) { e.returnOffer(jobID) })
	e.watch.notify(jobID)
	return j.Status, nil
}

// Waiting says what a pending job waits for: the words of the runner that was
// given it, or its place in the queue and what the job at the runner before it
// waits for. It is empty for a job that waits for nothing but a runner.
func (e *Engine) Waiting(jobID int64) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.offers[jobID]; o != nil {
		return o.waiting
	}
	first := ""
	for id, o := range e.offers {
		if o.waiting != "" && id < jobID {
			first = fmt.Sprintf("job %d is %s", id, o.waiting)
		}
	}
	before := e.queue.before(jobID)
	switch {
	case before < 0 || before == 0 && first == "":
		return ""
	case before == 0:
		return "next in the queue; " + first
	case first == "":
		return fmt.Sprintf("%s before it in the queue", countOf(before))
	}
	return fmt.Sprintf("%s before it in the queue; %s", countOf(before), first)
}

func countOf(jobs int) string {
	if jobs == 1 {
		return "1 job"
	}
	return strconv.Itoa(jobs) + " jobs"
}

// withdraw forgets an offer whose job is not pending any more.
func (e *Engine) withdraw(jobID int64) {
	e.mu.Lock()
	delete(e.offers, jobID)
	e.mu.Unlock()
	e.wheel.drop("offer " + strconv.FormatInt(jobID, 10))
}

// returnOffer puts a job that its runner never accepted back into the queue.
func (e *Engine) returnOffer(jobID int64) {
	e.mu.Lock()
	o := e.offers[jobID]
	delete(e.offers, jobID)
	e.mu.Unlock()
	if o != nil {
		e.queue.push(o.queued)
	}
}

// graceful reports whether the job's runner can finish up when canceled.
func (e *Engine) graceful(jobID int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runs[jobID]
	return r != nil && r.graceful
}

func (e *Engine) setRunStatus(jobID int64, status string) {
	e.mu.Lock()
	r := e.runs[jobID]
	e.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		r.status = status
		r.mu.Unlock()
		e.watch.notify(jobID)
	}
}

// endRun closes what a job that ended had open.
func (e *Engine) endRun(jobID int64, status string) {
	e.mu.Lock()
	r := e.runs[jobID]
	delete(e.runs, jobID)
	e.mu.Unlock()
	if r == nil {
		return
	}
	e.wheel.drop("timeout " + strconv.FormatInt(jobID, 10))
	if r.instance {
		e.queue.ended(r.projectID)
	}
	r.mu.Lock()
	t := r.trace
	r.status = status
	r.mu.Unlock()
	if t != nil {
		if err := t.close(); err != nil {
			e.log.Error("trace not closed", "job", jobID, "err", err)
		}
	}
	e.watch.notify(jobID)
}

func (e *Engine) closeRuns() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runs {
		if r.trace != nil {
			if err := r.trace.close(); err != nil {
				e.log.Error("trace not closed", "job", r.jobID, "err", err)
			}
		}
	}
}

// traceSize returns the stored bytes of a running job's trace.
func (e *Engine) traceSize(jobID int64) (int64, bool) {
	return e.ofTrace(jobID, (*trace).stored)
}

// ofTrace asks the open trace of a running job; there is none before the
// runner's first lines.
func (e *Engine) ofTrace(jobID int64, size func(*trace) int64) (int64, bool) {
	e.mu.Lock()
	r := e.runs[jobID]
	e.mu.Unlock()
	if r == nil {
		return 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trace == nil {
		return 0, false
	}
	return size(r.trace), true
}

// openTrace returns the run's trace, opening it and finding out the secrets
// when that was not done yet.
func (e *Engine) openTrace(ctx context.Context, r *run) (*trace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trace != nil {
		return r.trace, nil
	}
	if !r.known {
		secrets, err := e.secretsOf(ctx, r.jobID)
		if err != nil {
			return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The job's secrets are not known yet.", Err: err}
		}
		r.secrets, r.known = secrets, true
	}
	t, err := openTrace(e.tracePath(&Job{ID: r.jobID, ProjectID: r.projectID}), r.secrets, e.cfg.TraceLimit)
	if err != nil {
		return nil, err
	}
	r.trace = t
	return t, nil
}

// secretsOf computes the values to cover in a job's trace after a restart.
func (e *Engine) secretsOf(ctx context.Context, jobID int64) ([]string, error) {
	c, err := e.contextOf(ctx, jobID)
	if err != nil {
		return nil, err
	}
	vars, err := e.jobVariables(ctx, c)
	if err != nil {
		return nil, err
	}
	return maskedValues(vars), nil
}

func maskedValues(vars []delivery.JobVariable) []string {
	var out []string
	for _, v := range vars {
		if v.Masked && len(v.Value) >= minSecret {
			out = append(out, v.Value)
		}
	}
	return out
}

// contextOf loads everything about a job.
func (e *Engine) contextOf(ctx context.Context, jobID int64) (*jobContext, error) {
	var c jobContext
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		var raw []byte
		if c.job, raw, err = tx.JobWithOptions(jobID); err != nil {
			return err
		}
		if c.pipeline, err = tx.Pipeline(c.job.PipelineID); err != nil {
			return err
		}
		if raw, err = gitlabci.FillJobInputs(raw, c.job.Inputs); err != nil {
			return fmt.Errorf("pipeline: job %d: %w", jobID, err)
		}
		c.options, err = parseOptions(jobID, raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e.loadJobContext(ctx, &c.job, &c.pipeline, c.options)
}

func (e *Engine) removeTraces(projectID int64) error {
	if err := os.RemoveAll(filepath.Join(e.cfg.DataDir, "traces", strconv.FormatInt(projectID, 10))); err != nil {
		return fmt.Errorf("pipeline: remove traces: %w", err)
	}
	return nil
}
