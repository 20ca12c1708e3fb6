package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// maxDescendants is how deep child pipelines may nest, as in GitLab.
const maxDescendants = 2

// maxUpstream bounds a chain of pipelines over projects, which may be a circle.
const maxUpstream = 10

// downstreamLoop starts the pipelines of bridge jobs that are pending.
func (e *Engine) downstreamLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.work:
		}
		var jobs []Job
		err := e.store.View(ctx, func(tx Tx) error {
			var err error
			jobs, err = tx.JobsWithStatus("pending")
			return err
		})
		if err != nil && ctx.Err() == nil {
			e.log.Error("bridge jobs cannot be listed", "err", err)
		}
		for i := range jobs {
			if !jobs[i].Bridge {
				continue
			}
			if err := e.trigger(ctx, &jobs[i]); err != nil && ctx.Err() == nil {
				e.log.Error("downstream pipeline not started", "job", jobs[i].ID, "err", err)
			}
		}
	}
}

// trigger starts what a bridge job asks for and notes it on the job.
func (e *Engine) trigger(ctx context.Context, j *Job) error {
	var p Pipeline
	var options *gitlabci.Job
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		if p, err = tx.Pipeline(j.PipelineID); err != nil {
			return err
		}
		options, err = jobOptions(tx, j.ID)
		return err
	})
	if err != nil {
		return err
	}
	if options.Trigger == nil {
		return e.mirror(ctx, j, &p, options)
	}
	req, reason, err := e.downstreamRequest(ctx, j, &p, options)
	if err != nil {
		return e.refuse(ctx, j, reason, err)
	}
	made, err := e.Create(ctx, req)
	if err != nil {
		return e.refuse(ctx, j, ReasonDownstream, err)
	}
	_, err = e.change(ctx, j.ID, func(u *unit, lp *live, i int) error {
		if lp.proc.Jobs[i].Status != process.Pending {
			return nil
		}
		lp.jobs[i].DownstreamID = made.ID
		lp.dirty[i] = true
		if j.Strategy == "" {
			return lp.proc.Apply(i, process.EventSuccess)
		}
		if err := lp.proc.Apply(i, process.EventRun); err != nil {
			return err
		}
		child, err := u.load(made.ID) // it may have ended in between
		if err != nil {
			return err
		}
		if err := u.flush(); err != nil {
			return err
		}
		return u.tellParent(child, child.rec.Status)
	})
	return err
}

// refuse fails a bridge whose pipeline cannot be made; an error that may pass
// leaves it pending.
func (e *Engine) refuse(ctx context.Context, j *Job, reason string, cause error) error {
	switch delivery.KindOf(cause) {
	case delivery.Unavailable, delivery.Canceled:
		return cause
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.log.Info("bridge job failed", "job", j.ID, "reason", reason, "err", cause)
	raw, err := json.Marshal(delivery.UserMessage(cause))
	if err != nil {
		return err
	}
	_, err = e.change(ctx, j.ID, func(u *unit, lp *live, i int) error {
		if err := u.tx.SetReport(j.ID, "message", raw); err != nil {
			return err
		}
		return u.drop(lp, i, reason, 0)
	})
	return err
}

// downstreamRequest turns a trigger keyword into a request. The error is the
// user's to mend; reason is GitLab's name for it.
func (e *Engine) downstreamRequest(ctx context.Context, j *Job, p *Pipeline, options *gitlabci.Job) (Request, string, error) {
	t := options.Trigger
	depth, chain, err := e.ancestry(ctx, p)
	if err != nil {
		return Request{}, ReasonDownstream, err
	}
	req := Request{UserID: j.UserID, Key: "bridge:" + strconv.FormatInt(j.ID, 10), parent: p, parentJob: j.ID, Inputs: t.Inputs}
	c, err := e.loadJobContext(ctx, j, p, options)
	if err != nil {
		return req, ReasonDownstream, err
	}
	all, err := e.jobVariables(ctx, c)
	if err != nil {
		return req, ReasonDownstream, err
	}
	scope, err := plainVariables(all).Expanded(true)
	if err != nil {
		scope = plainVariables(all)
	}
	if t.Forward.YAMLVariables {
		for _, v := range options.Variables {
			value := v.Value
			if !v.Raw {
				value = gitlabci.Expand(v.Value, scope.Lookup())
			}
			req.Variables = append(req.Variables, VariableValue{Key: v.Key, Value: value, Raw: v.Raw})
		}
	}
	if t.Forward.PipelineVariables {
		values, err := e.openValues(p.Variables)
		if err != nil {
			return req, ReasonDownstream, err
		}
		req.Variables = append(req.Variables, values...)
	}
	if t.Project != "" {
		if chain >= maxUpstream {
			return req, "pipeline_loop_detected", delivery.Errorf(delivery.Invalid, "The chain of downstream pipelines is longer than %d.", maxUpstream)
		}
		return e.crossProject(ctx, j, req, gitlabci.Expand(t.Project, scope.Lookup()), gitlabci.Expand(t.Branch, scope.Lookup()))
	}
	if depth >= maxDescendants {
		return req, ReasonUpstreamDepth, delivery.Errorf(delivery.Invalid, "Child pipelines nest at most %d deep.", maxDescendants)
	}
	req.ProjectID, req.Source, req.child = p.ProjectID, SourceParentPipeline, true
	if p.MergeRequestIID != 0 && e.cfg.MergeRequests != nil {
		mr, err := e.cfg.MergeRequests.MergeRequest(ctx, p.ProjectID, p.MergeRequestIID)
		if err != nil {
			return req, ReasonDownstream, err
		}
		req.MergeRequest = &mr
	}
	req.SHA, req.Before = p.SHA, p.BeforeSHA
	req.config, req.files, err = e.childConfig(ctx, p, t.Include, scope.Lookup())
	return req, ReasonDownstream, err
}

// crossProject checks that the job's user may run pipelines in the project.
func (e *Engine) crossProject(ctx context.Context, j *Job, req Request, path, branch string) (Request, string, error) {
	project, err := e.cfg.Projects.ProjectByPath(ctx, path)
	if delivery.IsNotFound(err) {
		return req, ReasonBridgeDownstream, delivery.Errorf(delivery.Invalid, "Project %s was not found.", path)
	}
	if err != nil {
		return req, ReasonDownstream, err
	}
	if branch == "" {
		branch = project.DefaultBranch
	}
	req.ProjectID, req.Ref, req.Source = project.ID, branch, SourcePipeline
	ref, err := e.cfg.Repositories.Ref(ctx, project.ID, branch)
	if err != nil {
		return req, ReasonDownstream, fmt.Errorf("reference %s: %w", branch, err)
	}
	ok, err := e.cfg.Repositories.MayUpdate(ctx, j.UserID, project.ID, ref.Name, strings.HasPrefix(ref.FullName, "refs/tags/"))
	if err != nil {
		return req, ReasonDownstream, err
	}
	if !ok {
		return req, "insufficient_bridge_permissions", delivery.Errorf(delivery.Forbidden, "The user of the job may not run pipelines of %s in %s.", branch, path)
	}
	return req, "", nil
}

// ancestry counts the child levels above and including p, and all pipelines up
// the chain.
func (e *Engine) ancestry(ctx context.Context, p *Pipeline) (children, all int, err error) {
	at := *p
	counting := true
	for at.ParentID != 0 && all < maxUpstream {
		counting = counting && at.Child
		if counting {
			children++
		}
		all++
		err = e.store.View(ctx, func(tx Tx) error {
			var err error
			at, err = tx.Pipeline(at.ParentID)
			return err
		})
		if delivery.IsNotFound(err) {
			return children, all, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return children, all, nil
}

// childConfig writes the configuration of a child pipeline: a file that
// includes what the trigger names. Artifacts become files of their own.
func (e *Engine) childConfig(ctx context.Context, p *Pipeline, includes []gitlabci.TriggerInclude, lookup gitlabci.Lookup) (string, map[string][]byte, error) {
	files := map[string][]byte{}
	var list []map[string]any
	for n, inc := range includes {
		entry := map[string]any{}
		for key, value := range map[string]string{"local": inc.Local, "project": inc.Project, "ref": inc.Ref, "template": inc.Template, "remote": inc.Remote, "component": inc.Component} {
			if value != "" {
				entry[key] = gitlabci.Expand(value, lookup)
			}
		}
		if len(inc.File) > 0 {
			entry["file"] = inc.File
		}
		if len(inc.Inputs) > 0 {
			entry["inputs"] = inc.Inputs
		}
		if inc.Artifact != "" {
			text, err := e.artifactOf(ctx, p, gitlabci.Expand(inc.Job, lookup), gitlabci.Expand(inc.Artifact, lookup))
			if err != nil {
				return "", nil, err
			}
			name := fmt.Sprintf(".slipway/artifact-%d.yml", n)
			files[name] = text
			entry["local"] = "/" + name
		}
		list = append(list, entry)
	}
	raw, err := json.Marshal(map[string]any{"include": list})
	if err != nil {
		return "", nil, fmt.Errorf("pipeline: child configuration: %w", err)
	}
	return string(raw), files, nil
}

// artifactOf reads a file from the archive of an earlier job of the pipeline.
func (e *Engine) artifactOf(ctx context.Context, p *Pipeline, jobName, path string) ([]byte, error) {
	var from Job
	err := e.store.View(ctx, func(tx Tx) error {
		jobs, err := tx.PipelineJobs(p.ID)
		for i := range jobs {
			if jobs[i].Name == jobName {
				from = jobs[i]
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if from.ID == 0 {
		return nil, delivery.Errorf(delivery.Invalid, "There is no job %s whose artifacts hold %s.", jobName, path)
	}
	return e.ArtifactEntry(ctx, from.ID, cleanPath(path), maxRemoteConfig)
}

// mirror gives a job with needs:pipeline the status of that pipeline.
func (e *Engine) mirror(ctx context.Context, j *Job, p *Pipeline, options *gitlabci.Job) error {
	c, err := e.loadJobContext(ctx, j, p, options)
	if err != nil {
		return err
	}
	all, err := e.jobVariables(ctx, c)
	if err != nil {
		return err
	}
	text := gitlabci.Expand(mirrored(options), plainVariables(all).Lookup())
	upstream, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return e.refuse(ctx, j, ReasonMissingDep, delivery.Errorf(delivery.Invalid, "needs:pipeline %q is not the number of a pipeline.", text))
	}
	var source Pipeline
	err = e.store.View(ctx, func(tx Tx) error {
		var err error
		source, err = tx.Pipeline(upstream)
		return err
	})
	if delivery.IsNotFound(err) {
		return e.refuse(ctx, j, ReasonMissingDep, delivery.Errorf(delivery.Invalid, "needs:pipeline %d does not exist.", upstream))
	}
	if err != nil {
		return err
	}
	if !source.Finished() {
		e.mirrors.Store(true) // from now on every pipeline that ends is looked at
		return nil
	}
	event := map[string]process.Event{"success": process.EventSuccess, "failed": process.EventDrop, "canceled": process.EventCancel, "skipped": process.EventSkip}[source.Status]
	_, err = e.change(ctx, j.ID, func(u *unit, lp *live, i int) error { return lp.proc.Apply(i, event) })
	return err
}
