package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

var _ delivery.Coordinator = (*Engine)(nil)

// RequestJob implements delivery.Coordinator.
func (e *Engine) RequestJob(ctx context.Context, session delivery.RunnerSession) (*delivery.JobSpec, error) {
	return e.requestJob(ctx, session, "", true)
}

func (e *Engine) requestJob(ctx context.Context, session delivery.RunnerSession, ip string, graceful bool) (*delivery.JobSpec, error) {
	for {
		r, err := e.runnerOf(ctx, session.Token)
		if err != nil {
			return nil, err
		}
		if err := e.touch(ctx, r, &session, ip); err != nil {
			return nil, err
		}
		q, err := e.queue.take(ctx, r)
		if err != nil {
			return nil, err
		}
		if q == nil { // the runner's settings changed
			continue
		}
		spec, err := e.handOut(ctx, r, &session, q, graceful)
		if err != nil {
			return nil, err
		}
		if spec != nil {
			return spec, nil
		}
	}
}

// handOut prepares a job for a runner and offers it. A nil spec means that the
// job is gone or was failed because it cannot be prepared.
func (e *Engine) handOut(ctx context.Context, r *Runner, session *delivery.RunnerSession, q *queued, graceful bool) (*delivery.JobSpec, error) {
	c, err := e.contextOf(ctx, q.jobID)
	if err == nil && c.job.Status != "pending" || delivery.IsNotFound(err) && c == nil {
		return nil, nil
	}
	if err == nil && c.outdated && c.settings.ForwardDeployment {
		e.log.Info("deployment job is outdated", "job", q.jobID, "environment", c.job.Environment)
		return nil, e.failWith(ctx, q, ReasonStaleDeployment, "A newer deployment to "+c.job.Environment+" was made already; to go back, re-deploy the earlier one.")
	}
	var spec *delivery.JobSpec
	token := newToken("glcbt-")
	if err == nil {
		spec, err = e.spec(ctx, c, r, session, token)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		e.queue.push(q)
		return nil, ctx.Err()
	case delivery.KindOf(err) == delivery.Invalid || delivery.KindOf(err) == delivery.NotFound:
		e.log.Info("job cannot be prepared", "job", q.jobID, "err", err)
		reason := ReasonMissingDep
		if errors.As(err, new(unmet)) {
			reason = ReasonUnmet
		}
		return nil, e.failWith(ctx, q, reason, delivery.UserMessage(err))
	default:
		e.log.Error("job cannot be prepared", "job", q.jobID, "err", err)
		e.later(q)
		return nil, nil
	}
	o := &offer{queued: q, hash: hashToken(token), runner: r, systemID: session.SystemID, timeout: c.job.Timeout,
		secrets: maskedValues(spec.Variables), graceful: graceful}
	e.mu.Lock()
	e.offers[q.jobID] = o
	e.mu.Unlock()
	id := q.jobID
	e.wheel.set("offer "+strconv.FormatInt(id, 10), e.clock.Now().Add(offerTime), func(context.Context) { e.returnOffer(id) })
	return spec, nil
}

// later puts a job back after a while: something that it needs is away.
func (e *Engine) later(q *queued) {
	e.wheel.set("offer "+strconv.FormatInt(q.jobID, 10), e.clock.Now().Add(10*time.Second), func(context.Context) { e.queue.push(q) })
}

// failWith fails a pending job and says why in its log.
func (e *Engine) failWith(ctx context.Context, q *queued, reason, message string) error {
	if err := e.note(&Job{ID: q.jobID, ProjectID: q.projectID}, message); err != nil {
		e.log.Error("message not written to the log of a job", "job", q.jobID, "err", err)
	}
	err := e.failJob(ctx, q.jobID, reason)
	switch delivery.KindOf(err) {
	case delivery.Conflict, delivery.Forbidden, delivery.NotFound:
		return nil
	}
	return err
}

// note appends a line of the platform's own to a job's log.
func (e *Engine) note(j *Job, message string) error {
	t, err := openTrace(e.tracePath(j), nil, e.cfg.TraceLimit+1<<20)
	if err != nil {
		return err
	}
	_, err = t.append(t.stored(), []byte("\x1b[31;1mERROR: "+message+"\x1b[0;m\n"))
	return errors.Join(err, t.close())
}

// UpdateJob implements delivery.Coordinator.
func (e *Engine) UpdateJob(ctx context.Context, jobID int64, token string, u delivery.JobUpdate) (delivery.JobAck, error) {
	if u.State == delivery.JobPending {
		status, err := e.hold(ctx, jobID, token, u.Waiting)
		return delivery.JobAck{Status: status}, err
	}
	r, status, err := e.lookup(ctx, jobID, token)
	if err != nil {
		return delivery.JobAck{}, err
	}
	ack := delivery.JobAck{Status: status}
	if r == nil || u.State == delivery.JobRunning {
		return ack, nil
	}
	if u.State != delivery.JobSuccess && u.State != delivery.JobFailed {
		return ack, delivery.Errorf(delivery.Invalid, "state %q is not running, success or failed", u.State)
	}
	t, err := e.openTrace(ctx, r)
	if err != nil {
		return ack, err
	}
	ok, err := t.check(u.TraceChecksum, u.TraceSize)
	ack.TraceSize = t.stored()
	if err != nil || !ok {
		ack.TraceInvalid = !ok
		return ack, err
	}
	ack.Status, err = e.finish(ctx, r, u)
	return ack, err
}

// finish ends a job as its runner reports.
func (e *Engine) finish(ctx context.Context, r *run, u delivery.JobUpdate) (string, error) {
	options, err := e.optionsOf(ctx, r.jobID)
	if err != nil {
		return "", err
	}
	coverage, err := e.coverageOf(r, options.Coverage)
	if err != nil {
		e.log.Error("coverage not read from the log of a job", "job", r.jobID, "err", err)
	}
	if u.State == delivery.JobSuccess && options.Release != nil {
		if err := e.release(ctx, r.jobID, options.Release); err != nil {
			e.log.Info("release not made", "job", r.jobID, "err", err)
			u.State, u.FailureReason = delivery.JobFailed, ReasonScript
			if t, terr := e.openTrace(ctx, r); terr == nil {
				if _, terr = t.append(t.stored(), []byte("\x1b[31;1mERROR: the release was not made: "+delivery.UserMessage(err)+"\x1b[0;m\n")); terr != nil {
					e.log.Error("log of a job not written", "job", r.jobID, "err", terr)
				}
			}
		}
	}
	j, err := e.changeIn(ctx, r.pipelineID, r.jobID, func(un *unit, lp *live, i int) error {
		if lp.proc.Jobs[i].Status.Completed() {
			return nil // the report came twice
		}
		lp.jobs[i].Coverage = coverage
		if u.State == delivery.JobSuccess && lp.proc.Jobs[i].Status != process.Canceling {
			if options.Pages != nil {
				if err := un.publish(lp, &lp.jobs[i], options); err != nil {
					return err
				}
			}
			return lp.proc.Apply(i, process.EventSuccess)
		}
		reason := u.FailureReason
		if reason == "" {
			reason = ReasonUnknown
		}
		return un.drop(lp, i, reason, u.ExitCode)
	})
	if delivery.KindOf(err) == delivery.Conflict { // retried: the attempt has its end
		return "failed", nil
	}
	return j.Status, err
}

func (e *Engine) optionsOf(ctx context.Context, jobID int64) (*gitlabci.Job, error) {
	var options *gitlabci.Job
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		options, err = jobOptions(tx, jobID)
		return err
	})
	return options, err
}

var (
	ansi   = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	number = regexp.MustCompile(`\d+(?:[.,]\d+)?`)
)

// coverageOf finds the coverage in the log by the job's regular expression: the
// last match counts, and the first number in it.
func (e *Engine) coverageOf(r *run, pattern string) (*float64, error) {
	if pattern == "" {
		return nil, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("coverage: %w", err)
	}
	text, err := os.ReadFile(e.tracePath(&Job{ID: r.jobID, ProjectID: r.projectID}))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(ansi.ReplaceAllString(string(text), ""), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		found := re.FindAllStringSubmatch(lines[i], -1)
		if len(found) == 0 {
			continue
		}
		last := found[len(found)-1]
		text := last[0]
		if len(last) > 1 {
			text = last[len(last)-1]
		}
		if n := number.FindString(text); n != "" {
			value, err := strconv.ParseFloat(strings.ReplaceAll(n, ",", "."), 64)
			return &value, err
		}
	}
	return nil, nil
}

// release makes the release of a job.
func (e *Engine) release(ctx context.Context, jobID int64, rel *gitlabci.Release) error {
	if e.cfg.Releases == nil {
		return &delivery.Error{Kind: delivery.Unimplemented, Message: "Releases are not available."}
	}
	c, err := e.contextOf(ctx, jobID)
	if err != nil {
		return err
	}
	if err := e.store.View(ctx, func(tx Tx) error {
		own, err := tx.Dotenv(jobID)
		if err != nil {
			return err
		}
		vars, err := e.openVariables(own)
		c.dotenv = gitlabci.Merge(c.dotenv, vars)
		return err
	}); err != nil {
		return err
	}
	vars, err := e.jobVariables(ctx, c)
	if err != nil {
		return err
	}
	scope := plainVariables(vars)
	if expanded, err := scope.Expanded(false); err == nil {
		scope = expanded
	}
	expand := func(s string) string { return gitlabci.Expand(s, scope.Lookup()) }
	req := ReleaseRequest{Tag: expand(rel.TagName), TagMessage: expand(rel.TagMessage), Name: expand(rel.Name), Description: expand(rel.Description),
		Ref: expand(rel.Ref), ReleasedAt: expand(rel.ReleasedAt)}
	for _, m := range rel.Milestones {
		req.Milestones = append(req.Milestones, expand(m))
	}
	for _, l := range rel.Links {
		req.Links = append(req.Links, ReleaseAsset{Name: expand(l.Name), URL: expand(l.URL), FilePath: expand(l.FilePath), Type: l.LinkType})
	}
	if req.Ref == "" {
		req.Ref = c.pipeline.SHA
	}
	if len(req.Description) < 512 && !strings.ContainsAny(req.Description, "\n ") && req.Description != "" {
		if text, err := e.cfg.Repositories.ReadFile(ctx, c.project.ID, c.pipeline.SHA, cleanPath(req.Description)); err == nil {
			req.Description = string(text)
		}
	}
	err = e.cfg.Releases.CreateRelease(ctx, c.project.ID, c.job.UserID, req)
	if delivery.KindOf(err) == delivery.Conflict { // made before a restart
		return nil
	}
	return err
}

// AppendTrace implements delivery.Coordinator.
func (e *Engine) AppendTrace(ctx context.Context, jobID int64, token string, offset int64, data []byte) (delivery.JobAck, error) {
	r, status, err := e.lookup(ctx, jobID, token)
	if err != nil {
		return delivery.JobAck{}, err
	}
	ack := delivery.JobAck{Status: status}
	if r == nil {
		return ack, gone()
	}
	t, err := e.openTrace(ctx, r)
	if err != nil {
		return ack, err
	}
	ack.TraceSize, err = t.append(offset, data)
	switch {
	case errors.Is(err, errOffset):
		return ack, &delivery.Error{Kind: delivery.Conflict, Message: "The piece does not continue the trace.", Err: err}
	case delivery.KindOf(err) == delivery.TooLarge:
		if ferr := e.failJob(ctx, jobID, "trace_size_exceeded"); ferr != nil {
			return ack, ferr
		}
		ack.Status = "failed"
		return ack, err
	case err != nil:
		return ack, err
	}
	e.watch.notify(jobID)
	ack.Interval = 3 * time.Second
	if e.watched(jobID) {
		ack.Interval = time.Second
	}
	return ack, nil
}

// watched reports whether somebody follows the job's log.
func (e *Engine) watched(jobID int64) bool {
	e.watch.mu.Lock()
	defer e.watch.mu.Unlock()
	return e.watch.followers[jobID] > 0
}

// JobByToken implements delivery.JobTokens: it tells whose token it is, as long
// as the job runs.
func (e *Engine) JobByToken(ctx context.Context, token string) (delivery.JobClaim, error) {
	unknown := &delivery.Error{Kind: delivery.NotFound, Message: "The job token is not valid any more."}
	if !strings.HasPrefix(token, "glcbt-") {
		return delivery.JobClaim{}, unknown
	}
	hash := hashToken(token)
	var j Job
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		j, err = tx.JobByToken(hash)
		return err
	})
	if delivery.IsNotFound(err) {
		return delivery.JobClaim{}, unknown
	}
	if err != nil {
		return delivery.JobClaim{}, err
	}
	if j.Status != "running" && j.Status != "canceling" {
		return delivery.JobClaim{}, unknown
	}
	return delivery.JobClaim{JobID: j.ID, ProjectID: j.ProjectID, UserID: j.UserID}, nil
}
