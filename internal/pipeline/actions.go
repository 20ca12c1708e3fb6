package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// options reads a job's configuration.
func (u *unit) options(jobID int64) (*gitlabci.Job, error) { return jobOptions(u.tx, jobID) }

func jobOptions(tx Tx, jobID int64) (*gitlabci.Job, error) {
	raw, err := tx.JobOptions(jobID)
	if err != nil {
		return nil, err
	}
	return parseOptions(jobID, raw)
}

func parseOptions(jobID int64, raw []byte) (*gitlabci.Job, error) {
	var options gitlabci.Job
	if err := json.Unmarshal(raw, &options); err != nil {
		return nil, fmt.Errorf("pipeline: configuration of job %d: %w", jobID, err)
	}
	return &options, nil
}

// notPossible turns a refused transition into what the user should know.
func notPossible(err error) error {
	var t *process.TransitionError
	if !errors.As(err, &t) {
		return err
	}
	verb := map[process.Event]string{process.EventRetry: "retried", process.EventPlay: "played", process.EventCancel: "canceled",
		process.EventUnschedule: "unscheduled"}[t.Event]
	if verb == "" {
		return delivery.Errorf(delivery.Conflict, "The job is %s.", t.From)
	}
	return delivery.Errorf(delivery.Forbidden, "Job %s is %s and cannot be %s.", t.Job, t.From, verb)
}

// change lets fn act on one job, as one update.
func (e *Engine) change(ctx context.Context, jobID int64, fn func(u *unit, lp *live, i int) error) (Job, error) {
	return e.changeIn(ctx, 0, jobID, fn)
}

// changeIn is change for a job of a known pipeline, which saves a look-up; 0 is
// an unknown one.
func (e *Engine) changeIn(ctx context.Context, pipelineID, jobID int64, fn func(u *unit, lp *live, i int) error) (Job, error) {
	var after Job
	err := e.update(ctx, func(u *unit) error {
		in := pipelineID
		if in == 0 {
			j, err := u.tx.Job(jobID)
			if err != nil {
				return err
			}
			in = j.PipelineID
		}
		lp, err := u.load(in)
		if err != nil {
			return err
		}
		i, err := lp.job(jobID)
		if err != nil {
			return err
		}
		if err := fn(u, lp, i); err != nil {
			return notPossible(err)
		}
		if err := u.flush(); err != nil {
			return err
		}
		after = lp.jobs[i]
		return nil
	})
	return after, err
}

// PlayJob starts a manual or delayed job, or retries one that has ended. The
// job runs as the user; vars and inputs are set for this job only.
func (e *Engine) PlayJob(ctx context.Context, userID, jobID int64, vars []VariableValue, inputs map[string]string) (Job, error) {
	sealed := e.sealValues(vars)
	return e.change(ctx, jobID, func(u *unit, lp *live, i int) error {
		switch lp.proc.Jobs[i].Status {
		case process.Manual, process.Scheduled, process.Skipped, process.Created:
		default:
			return &process.TransitionError{Job: lp.jobs[i].Name, From: lp.proc.Jobs[i].Status, Event: process.EventPlay}
		}
		lp.jobs[i].UserID = userID
		if len(sealed) > 0 {
			lp.jobs[i].Variables = sealed
		}
		if len(inputs) > 0 {
			options, err := u.options(jobID)
			if err != nil {
				return err
			}
			if lp.jobs[i].Inputs, err = givenInputs(options.Inputs, inputs); err != nil {
				return err
			}
		}
		return lp.proc.Apply(i, process.EventPlay)
	})
}

// givenInputs checks values against a job's inputs and keeps those that differ
// from the default.
func givenInputs(declared []gitlabci.JobInput, given map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for name, value := range given {
		known := false
		for i := range declared {
			if declared[i].Name != name {
				continue
			}
			known = true
			if err := declared[i].Check(value); err != nil {
				return nil, &delivery.Error{Kind: delivery.Invalid, Message: err.Error(), Err: err}
			}
			if value != declared[i].Default {
				out[name] = value
			}
		}
		if !known {
			return nil, delivery.Errorf(delivery.Invalid, "the job has no input %s", name)
		}
	}
	return out, nil
}

// RetryJob makes a new attempt of a job that has ended and returns it.
func (e *Engine) RetryJob(ctx context.Context, userID, jobID int64) (Job, error) {
	return e.change(ctx, jobID, func(u *unit, lp *live, i int) error {
		if err := u.mayGoBack(lp, &lp.jobs[i]); err != nil {
			return err
		}
		if err := lp.proc.Change(i, process.EventRetry); err != nil {
			return err
		}
		lp.users[i] = userID
		lp.proc.Process()
		return nil
	})
}

// CancelJob cancels a job. A running one whose runner can finish up becomes
// canceling first.
func (e *Engine) CancelJob(ctx context.Context, jobID int64, force bool) (Job, error) {
	return e.change(ctx, jobID, func(u *unit, lp *live, i int) error {
		if lp.proc.Jobs[i].Status == process.Canceling && !force {
			return nil
		}
		if err := u.cancelOne(lp, i, force); err != nil {
			return err
		}
		lp.proc.Process()
		return nil
	})
}

func (u *unit) cancelOne(lp *live, i int, force bool) error {
	event := process.EventCancel
	if lp.proc.Jobs[i].Status == process.Running && !force && u.e.graceful(lp.jobs[i].ID) {
		event = process.EventStartCancel
	}
	return lp.proc.Change(i, event)
}

// UnscheduleJob turns a delayed job into a manual one.
func (e *Engine) UnscheduleJob(ctx context.Context, jobID int64) (Job, error) {
	return e.change(ctx, jobID, func(u *unit, lp *live, i int) error { return lp.proc.Apply(i, process.EventUnschedule) })
}

// CancelPipeline cancels all jobs of a pipeline and of its child pipelines.
func (e *Engine) CancelPipeline(ctx context.Context, pipelineID int64) (Pipeline, error) {
	var after Pipeline
	err := e.update(ctx, func(u *unit) error {
		if err := u.cancelPipeline(pipelineID, 0, nil); err != nil {
			return err
		}
		if err := u.flush(); err != nil {
			return err
		}
		lp, err := u.load(pipelineID)
		if err == nil {
			after = lp.rec
		}
		return err
	})
	return after, err
}

// cancelPipeline cancels jobs; by is the newer pipeline that asks for it, and
// only limits the jobs.
func (u *unit) cancelPipeline(id, by int64, only func(*Job) bool) error {
	lp, err := u.load(id)
	if err != nil {
		return err
	}
	if by != 0 {
		lp.rec.AutoCanceledBy, lp.recDirty = by, true
	}
	for i := range lp.proc.Jobs {
		if lp.proc.Jobs[i].Status.Cancelable() && (only == nil || only(&lp.jobs[i])) {
			if err := u.cancelOne(lp, i, false); err != nil {
				return err
			}
		}
	}
	lp.proc.Process()
	child := true
	children, _, err := u.tx.Pipelines(PipelineFilter{ParentID: id, Child: &child, WithoutMany: true}, Page{Limit: 1000})
	if err != nil {
		return err
	}
	for _, c := range children {
		if only == nil && !c.Finished() {
			if err := u.cancelPipeline(c.ID, by, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// RetryPipeline makes new attempts of all failed and canceled jobs.
func (e *Engine) RetryPipeline(ctx context.Context, userID, pipelineID int64) (Pipeline, error) {
	var after Pipeline
	err := e.update(ctx, func(u *unit) error {
		lp, err := u.load(pipelineID)
		if err != nil {
			return err
		}
		for i := range lp.proc.Jobs {
			if s := lp.proc.Jobs[i].Status; s == process.Failed || s == process.Canceled {
				if err := u.mayGoBack(lp, &lp.jobs[i]); err != nil {
					return err
				}
				lp.users[i] = userID
			}
		}
		lp.proc.Retry()
		if err := u.flush(); err != nil {
			return err
		}
		after = lp.rec
		return nil
	})
	return after, err
}

// startDelayed lets the time of a delayed job come.
func (e *Engine) startDelayed(ctx context.Context, pipelineID, jobID int64) error {
	return e.update(ctx, func(u *unit) error {
		lp, err := u.load(pipelineID)
		if err != nil {
			return err
		}
		i, ok := lp.byID[jobID]
		if !ok || lp.proc.Jobs[i].Status != process.Scheduled {
			return nil
		}
		return lp.proc.Apply(i, process.EventDue)
	})
}

// failJob ends a job as failed, with GitLab's reason.
func (e *Engine) failJob(ctx context.Context, jobID int64, reason string) error {
	_, err := e.change(ctx, jobID, func(u *unit, lp *live, i int) error { return u.drop(lp, i, reason, 0) })
	return err
}

// drop fails job i and, where the job's retry keyword says so, makes a new
// attempt.
func (u *unit) drop(lp *live, i int, reason string, exitCode int) error {
	j := &lp.jobs[i]
	canceling := lp.proc.Jobs[i].Status == process.Canceling
	j.FailureReason, j.ExitCode = reason, exitCode
	for _, c := range j.AllowCodes {
		if c == exitCode && exitCode != 0 {
			lp.proc.Jobs[i].AllowFailure, j.AllowFailure = true, true
		}
	}
	again := !canceling && retryWanted(j, reason, exitCode)
	all := lp.proc.CancelOnFailure
	if again {
		lp.proc.CancelOnFailure = false
	}
	err := lp.proc.Change(i, process.EventDrop)
	lp.proc.CancelOnFailure = all
	if err != nil {
		return err
	}
	if again {
		return u.retryDropped(lp, i)
	}
	lp.proc.Process()
	return nil
}

// retryDropped writes the failure of an attempt and makes the next one.
func (u *unit) retryDropped(lp *live, i int) error {
	j := &lp.jobs[i]
	j.Status, j.FinishedAt = "failed", u.tx.Now()
	if j.ResourceGroup != "" {
		if err := u.assignResource(lp.rec.ProjectID, j.ResourceGroup, j); err != nil {
			return err
		}
	}
	if err := u.followDeployment(lp, j); err != nil {
		return err
	}
	if err := u.announce(j); err != nil {
		return err
	}
	if err := lp.proc.Change(i, process.EventRetry); err != nil {
		return err
	}
	lp.proc.Process()
	return nil
}

// retryWanted applies the retry keyword to a failure.
func retryWanted(j *Job, reason string, exitCode int) bool {
	if j.Attempt >= j.RetryMax {
		return false
	}
	for _, c := range j.RetryCodes {
		if c == exitCode && exitCode != 0 {
			return true
		}
	}
	for _, w := range j.RetryWhen {
		if w == reason || w == "always" && len(j.RetryCodes) == 0 {
			return true
		}
	}
	return len(j.RetryWhen) == 0 && len(j.RetryCodes) == 0
}
