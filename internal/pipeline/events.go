package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// handlePushed makes the pipeline of a push. A push of a job's token makes
// none, as in GitLab, so that a pipeline cannot start itself for ever.
func (e *Engine) handlePushed(ctx context.Context, ev delivery.Event) error {
	var push delivery.Pushed
	if err := ev.Decode(&push); err != nil {
		e.log.Error("push event is not readable", "event", ev.ID, "err", err)
		return nil
	}
	branch := strings.HasPrefix(push.Ref, "refs/heads/")
	tag := strings.HasPrefix(push.Ref, "refs/tags/")
	if push.After == delivery.ZeroSHA && branch {
		return e.stopOfBranch(ctx, ev.ProjectID, push.UserID, strings.TrimPrefix(push.Ref, "refs/heads/"))
	}
	if push.After == delivery.ZeroSHA || push.ByJob != 0 || !branch && !tag {
		return nil
	}
	req := Request{ProjectID: ev.ProjectID, UserID: push.UserID, Ref: push.Ref, SHA: push.After, Before: push.Before, Source: SourcePush,
		Key: fmt.Sprintf("push:%d", ev.ID), tag: tag, keepInvalid: true}
	for name, value := range push.PushOptions {
		switch name {
		case "ci.skip", "ci.no_pipeline":
			req.skipped = true
		case "ci.variable":
			for _, line := range strings.Split(value, "\n") {
				if k, v, ok := strings.Cut(line, "="); ok && validKey(k) {
					req.Variables = append(req.Variables, VariableValue{Key: k, Value: v})
				}
			}
		case "ci.input":
			for _, line := range strings.Split(value, "\n") {
				if k, v, ok := strings.Cut(line, "="); ok {
					if req.Inputs == nil {
						req.Inputs = map[string]any{}
					}
					req.Inputs[k] = v
				}
			}
		}
	}
	return e.createForEvent(ctx, ev, req)
}

// createForEvent makes a pipeline and decides which errors are worth another
// try: those of a repository or database that is away, not those of the input.
func (e *Engine) createForEvent(ctx context.Context, ev delivery.Event, req Request) error {
	_, err := e.Create(ctx, req)
	switch kind := delivery.KindOf(err); {
	case err == nil || errors.Is(err, ErrNoPipeline):
		return nil
	case kind == delivery.Invalid, kind == delivery.NotFound, kind == delivery.Conflict, kind == delivery.Forbidden:
		e.log.Warn("no pipeline for event", "event", ev.ID, "kind", string(ev.Kind), "project", req.ProjectID, "ref", req.Ref, "err", err)
		return nil
	}
	return err
}

// handleMergeRequest makes the merge request pipeline of a new source head.
func (e *Engine) handleMergeRequest(ctx context.Context, ev delivery.Event) error {
	var change delivery.MergeRequestChanged
	if err := ev.Decode(&change); err != nil {
		e.log.Error("merge request event is not readable", "event", ev.ID, "err", err)
		return nil
	}
	if e.cfg.MergeRequests == nil || change.Action != "open" && change.Action != "reopen" && (change.Action != "update" || change.OldSHA == "") {
		return nil
	}
	mr, err := e.cfg.MergeRequests.MergeRequest(ctx, ev.ProjectID, change.IID)
	if delivery.IsNotFound(err) || err == nil && mr.State != "opened" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pipeline: merge request: %w", err)
	}
	return e.createForEvent(ctx, ev, Request{ProjectID: mr.ProjectID, UserID: change.UserID, Source: SourceMergeRequest, MergeRequest: &mr,
		Key: fmt.Sprintf("merge_request:%d", ev.ID), keepInvalid: true})
}

// forgetProject removes all that belongs to a deleted project, files included.
func (e *Engine) forgetProject(ctx context.Context, projectID int64) error {
	var files []string
	err := e.update(ctx, func(u *unit) error {
		for offset := 0; ; offset += 500 {
			list, _, err := u.tx.ProjectArtifacts(projectID, Page{Limit: 500, Offset: offset})
			if err != nil {
				return err
			}
			for _, a := range list {
				files = append(files, a.SHA256)
			}
			if len(list) < 500 {
				break
			}
		}
		for id, lp := range u.e.live {
			if lp.rec.ProjectID == projectID {
				delete(u.e.live, id)
			}
		}
		return u.tx.DeleteProject(projectID)
	})
	if err != nil {
		return err
	}
	e.removeUnused(ctx, files)
	return e.removeTraces(projectID)
}
