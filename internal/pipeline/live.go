package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// live is a pipeline whose state machine is kept in memory. jobs are the rows
// as last written, parallel to proc.Jobs. It belongs to the store's writer: it
// is used within Update only, and thrown away whenever an update fails.
type live struct {
	rec      Pipeline
	jobs     []Job
	proc     *process.Pipeline
	byID     map[int64]int
	dirty    map[int]bool  // rows to write although their status is the same
	users    map[int]int64 // who asked for the next attempt of a job
	recDirty bool          // the pipeline's row is to be written
}

// maxLive bounds the pipelines kept in memory; any of them can be read again.
const maxLive = 256

// unit is one update: pipelines that it changes and what follows its commit.
type unit struct {
	e       *Engine
	tx      Tx
	touched []*live
	after   []func()
}

// update runs fn as one transaction. Statuses that fn changes through the
// state machines are written with their events when it returns.
func (e *Engine) update(ctx context.Context, fn func(*unit) error) error {
	return e.store.Update(ctx, func(tx Tx) error {
		u := &unit{e: e, tx: tx}
		done := false
		defer func() {
			if !done {
				u.forget()
			}
		}()
		tx.After(func(err error) {
			if err != nil {
				u.forget()
				return
			}
			for _, f := range u.after {
				f()
			}
			for _, lp := range u.touched {
				e.changes.notify(lp.rec.ID)
				e.changes.notify(-lp.rec.ProjectID)
			}
		})
		if err := fn(u); err != nil {
			return err
		}
		if err := u.flush(); err != nil {
			return err
		}
		done = true
		return nil
	})
}

// forget drops what the update may have changed in memory.
func (u *unit) forget() {
	for _, lp := range u.touched {
		delete(u.e.live, lp.rec.ID)
	}
}

// load returns a pipeline's state machine for changing.
func (u *unit) load(id int64) (*live, error) {
	lp := u.e.live[id]
	if lp == nil {
		rec, err := u.tx.Pipeline(id)
		if err != nil {
			return nil, err
		}
		jobs, err := u.tx.PipelineJobs(id)
		if err != nil {
			return nil, err
		}
		if lp, err = newLive(rec, jobs); err != nil {
			return nil, err
		}
		if len(u.e.live) >= maxLive {
			for other := range u.e.live {
				if !u.has(other) {
					delete(u.e.live, other)
					break
				}
			}
		}
		u.e.live[id] = lp
	}
	u.touch(lp)
	return lp, nil
}

func (u *unit) has(id int64) bool {
	for _, lp := range u.touched {
		if lp.rec.ID == id {
			return true
		}
	}
	return false
}

func (u *unit) touch(lp *live) {
	if !u.has(lp.rec.ID) {
		u.touched = append(u.touched, lp)
	}
}

// newLive builds the state machine of stored rows.
func newLive(rec Pipeline, jobs []Job) (*live, error) {
	lp := &live{rec: rec, jobs: jobs, byID: make(map[int64]int, len(jobs)), dirty: map[int]bool{}, users: map[int]int64{}}
	names := make(map[string]int, len(jobs))
	for i := range jobs {
		names[jobs[i].Name] = i
		lp.byID[jobs[i].ID] = i
	}
	list := make([]process.Job, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		status, err := process.ParseStatus(j.Status)
		if err != nil {
			return nil, err
		}
		when, err := process.ParseWhen(j.When)
		if err != nil {
			return nil, err
		}
		list[i] = process.Job{Name: j.Name, Stage: j.StageIndex, Status: status, When: when, AllowFailure: j.AllowFailure,
			DAG: j.DAG, Resource: j.ResourceGroup != "", Bridge: j.Bridge, Attempt: j.Attempt}
		for _, n := range j.Needs {
			if at, ok := names[n]; ok {
				list[i].Needs = append(list[i].Needs, at)
			}
		}
	}
	stages := make([]string, len(rec.Stages))
	for i, s := range rec.Stages {
		stages[i] = s.Name
	}
	proc, err := process.New(stages, list)
	if err != nil {
		return nil, fmt.Errorf("pipeline %d: %w", rec.ID, err)
	}
	if proc.Status, err = process.ParseStatus(rec.Status); err != nil {
		return nil, err
	}
	for i, s := range rec.Stages {
		if proc.Stages[i], err = process.ParseStatus(s.Status); err != nil {
			return nil, err
		}
	}
	proc.CancelOnFailure = rec.OnJobFailure == "all"
	lp.proc = proc
	return lp, nil
}

// job finds a current job by number. An earlier attempt is an error of kind
// Conflict.
func (lp *live) job(id int64) (int, error) {
	i, ok := lp.byID[id]
	if !ok {
		return 0, &delivery.Error{Kind: delivery.Conflict, Message: "The job was retried: this attempt does not count any more."}
	}
	return i, nil
}

// flush writes what changed in the touched pipelines. Settling one job may
// change others, in other pipelines too, so it goes on until nothing does.
func (u *unit) flush() error {
	for again := true; again; {
		again = false
		for n := 0; n < len(u.touched); n++ {
			changed, err := u.flushJobs(u.touched[n])
			if err != nil {
				return err
			}
			again = again || changed
		}
	}
	for n := 0; n < len(u.touched); n++ {
		if err := u.flushPipeline(u.touched[n]); err != nil {
			return err
		}
	}
	for n := 0; n < len(u.touched); n++ { // a parent may have changed
		if changed, err := u.flushJobs(u.touched[n]); err != nil {
			return err
		} else if changed {
			return u.flush()
		}
	}
	return nil
}

func (u *unit) flushJobs(lp *live) (bool, error) {
	changed := false
	for i := range lp.proc.Jobs {
		now := &lp.proc.Jobs[i]
		if now.Attempt != lp.jobs[i].Attempt {
			if err := u.renew(lp, i); err != nil {
				return false, err
			}
			changed = true
		}
		from, to := lp.jobs[i].Status, now.Status.String()
		if from == to && !lp.dirty[i] {
			continue
		}
		delete(lp.dirty, i)
		lp.jobs[i].AllowFailure = now.AllowFailure
		if from != to {
			changed = true
			lp.jobs[i].Status = to
			if err := u.settle(lp, i, from); err != nil {
				return false, err
			}
		}
		if err := u.tx.UpdateJob(&lp.jobs[i]); err != nil {
			return false, err
		}
		if from != to {
			if err := u.announce(&lp.jobs[i]); err != nil {
				return false, err
			}
		}
	}
	return changed, nil
}

func (u *unit) announce(j *Job) error {
	return u.tx.Emit(delivery.EventJobChanged, j.ProjectID, delivery.JobChanged{ID: j.ID, PipelineID: j.PipelineID,
		Name: j.Name, Stage: j.Stage, Status: j.Status, FailureReason: j.FailureReason})
}

// renew writes the end of an attempt and inserts the next one.
func (u *unit) renew(lp *live, i int) error {
	old := lp.jobs[i]
	old.Retried = true
	if st, err := process.ParseStatus(old.Status); err == nil && !st.Completed() {
		old.Status, old.FinishedAt = "canceled", u.tx.Now()
		if err := u.announce(&old); err != nil {
			return err
		}
	}
	u.ended(&old)
	if err := u.tx.UpdateJob(&old); err != nil {
		return err
	}
	next := Job{PipelineID: old.PipelineID, ProjectID: old.ProjectID, Name: old.Name, Stage: old.Stage, StageIndex: old.StageIndex,
		Position: old.Position, Bridge: old.Bridge, Status: "created", When: old.When, AllowFailure: old.AllowFailure, DAG: old.DAG,
		Needs: old.Needs, Tags: old.Tags, ResourceGroup: old.ResourceGroup, Interruptible: old.Interruptible,
		Attempt: lp.proc.Jobs[i].Attempt, UserID: old.UserID, Environment: old.Environment, EnvironmentAction: old.EnvironmentAction,
		Timeout: old.Timeout, RetryMax: old.RetryMax, RetryWhen: old.RetryWhen, RetryCodes: old.RetryCodes, AllowCodes: old.AllowCodes,
		StartIn: old.StartIn, Strategy: old.Strategy, Variables: old.Variables, Inputs: old.Inputs}
	if by, ok := lp.users[i]; ok {
		next.UserID = by
		delete(lp.users, i)
	}
	if len(old.AllowCodes) > 0 {
		next.AllowFailure = false
		lp.proc.Jobs[i].AllowFailure = false
	}
	if err := u.tx.CopyJob(&next, old.ID); err != nil {
		return err
	}
	delete(lp.byID, old.ID)
	lp.byID[next.ID] = i
	lp.jobs[i] = next
	return u.announce(&next)
}

// settle does what a job's new status brings about. The row is written after.
func (u *unit) settle(lp *live, i int, from string) error {
	j := &lp.jobs[i]
	now := u.tx.Now()
	switch j.Status {
	case "pending":
		if j.QueuedAt.IsZero() || from != "running" {
			j.QueuedAt = now
		}
		rec, job := lp.rec, *j
		if j.Bridge {
			u.after = append(u.after, u.e.wakeDownstream)
		} else {
			u.after = append(u.after, func() { u.e.enqueue(&rec, &job) })
		}
	case "scheduled":
		j.ScheduledAt = now.Add(j.StartIn)
		job := *j
		u.after = append(u.after, func() { u.e.planStart(&job) })
	case "waiting_for_resource":
		if err := u.assignResource(lp.rec.ProjectID, j.ResourceGroup, j); err != nil {
			return err
		}
	case "running":
		if j.StartedAt.IsZero() {
			j.StartedAt = now
		}
		if !j.Interruptible && !lp.rec.Uninterruptible {
			lp.rec.Uninterruptible, lp.recDirty = true, true
		}
	case "success", "failed", "canceled", "skipped":
		if j.Status != "skipped" {
			j.FinishedAt = now
		}
		if j.Status == "failed" && j.FailureReason == "" {
			j.FailureReason = ReasonUnknown
		}
		if j.Status != "failed" {
			j.FailureReason = ""
		}
		u.ended(j)
	}
	if from == "scheduled" {
		id := j.ID
		u.after = append(u.after, func() { u.e.wheel.drop("delayed " + strconv.FormatInt(id, 10)) })
		if j.Status != "scheduled" {
			j.ScheduledAt = time.Time{}
		}
	}
	if from == "pending" && j.Status != "running" {
		id := j.ID
		u.after = append(u.after, func() { u.e.queue.remove(id); u.e.withdraw(id) })
	}
	if j.Status == "canceling" {
		id := j.ID
		u.after = append(u.after, func() { u.e.setRunStatus(id, "canceling") })
	}
	if j.ResourceGroup != "" && (finalStatus(j.Status) || j.Status == "manual") {
		if err := u.assignResource(lp.rec.ProjectID, j.ResourceGroup, j); err != nil {
			return err
		}
	}
	return u.followDeployment(lp, j)
}

func finalStatus(s string) bool {
	return s == "success" || s == "failed" || s == "canceled" || s == "skipped"
}

// ended lets go of what the engine keeps for a running job.
func (u *unit) ended(j *Job) {
	id, status := j.ID, j.Status
	if size, ok := u.e.traceSize(id); ok {
		j.TraceSize = size
	}
	u.after = append(u.after, func() { u.e.endRun(id, status) })
}

// flushPipeline writes the pipeline's row and event, and tells its parent.
func (u *unit) flushPipeline(lp *live) error {
	status := lp.proc.Status.String()
	was := lp.rec.Status
	changed := status != was
	for i := range lp.rec.Stages {
		if s := lp.proc.Stages[i].String(); s != lp.rec.Stages[i].Status {
			lp.rec.Stages[i].Status = s
			lp.recDirty = true
		}
	}
	if !changed && !lp.recDirty {
		return nil
	}
	lp.recDirty = false
	now := u.tx.Now()
	if changed {
		lp.rec.Status = status
		if status == "running" && lp.rec.StartedAt.IsZero() {
			lp.rec.StartedAt = now
		}
		lp.rec.FinishedAt = time.Time{}
		if lp.rec.Finished() {
			lp.rec.FinishedAt = now
			if lp.rec.StartedAt.IsZero() && status != "skipped" {
				lp.rec.StartedAt = earliestStart(lp.jobs)
			}
		}
		if was == "canceled" {
			lp.rec.AutoCanceledBy = 0
		}
	}
	if err := u.tx.UpdatePipeline(&lp.rec); err != nil {
		return err
	}
	if !changed {
		return nil
	}
	p := &lp.rec
	if err := u.tx.Emit(delivery.EventPipelineChanged, p.ProjectID, delivery.PipelineChanged{ID: p.ID, IID: p.IID, Ref: p.Ref,
		SHA: p.SHA, Source: p.Source, Status: p.Status, UserID: p.UserID}); err != nil {
		return err
	}
	if p.Finished() {
		id := p.ID
		u.after = append(u.after, func() {
			if lp := u.e.live[id]; lp != nil && lp.rec.Finished() {
				delete(u.e.live, id)
			}
			if u.e.mirrors.Load() {
				u.e.wakeDownstream()
			}
		})
	}
	return u.tellParent(lp, was)
}

func earliestStart(jobs []Job) time.Time {
	var t time.Time
	for i := range jobs {
		if s := jobs[i].StartedAt; !s.IsZero() && (t.IsZero() || s.Before(t)) {
			t = s
		}
	}
	return t
}
