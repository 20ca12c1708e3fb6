package pipeline

import (
	"context"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// CreateTrigger makes a trigger token of a project and returns it; it is not
// shown again.
func (e *Engine) CreateTrigger(ctx context.Context, projectID, ownerID int64, description string) (Trigger, string, error) {
	if description == "" {
		return Trigger{}, "", delivery.Errorf(delivery.Invalid, "description is missing")
	}
	token := newToken("glptt-")
	t := Trigger{ProjectID: projectID, OwnerID: ownerID, Description: description, TokenHash: hashToken(token), TokenHint: token[:10]}
	err := e.store.Update(ctx, func(tx Tx) error { return tx.InsertTrigger(&t) })
	return t, token, err
}

// Trigger starts a pipeline by a trigger token of the project, or by the token
// of a running job whose user may run pipelines there. It runs as the token's
// owner. payload is what the caller sent, for TRIGGER_PAYLOAD.
func (e *Engine) Trigger(ctx context.Context, projectID int64, token, ref string, vars []VariableValue, inputs map[string]any, payload string) (Pipeline, error) {
	req := Request{ProjectID: projectID, Ref: ref, Source: SourceTrigger, Variables: vars, Inputs: inputs, Payload: payload}
	unknown := &delivery.Error{Kind: delivery.NotFound, Message: "Not Found"}
	if strings.HasPrefix(token, "glcbt-") {
		claim, err := e.JobByToken(ctx, token)
		if delivery.IsNotFound(err) {
			return Pipeline{}, unknown
		}
		if err != nil {
			return Pipeline{}, err
		}
		req.UserID, req.Source = claim.UserID, SourcePipeline
	} else {
		var t Trigger
		err := e.store.Update(ctx, func(tx Tx) error {
			var err error
			if t, err = tx.TriggerByToken(hashToken(token)); err != nil || t.ProjectID != projectID {
				return unknown
			}
			t.LastUsed = tx.Now()
			return tx.UpdateTrigger(&t)
		})
		if err != nil {
			return Pipeline{}, err
		}
		req.UserID = t.OwnerID
	}
	found, err := e.cfg.Repositories.Ref(ctx, projectID, ref)
	if err == nil {
		ok, err := e.cfg.Repositories.MayUpdate(ctx, req.UserID, projectID, found.Name, strings.HasPrefix(found.FullName, "refs/tags/"))
		if err != nil {
			return Pipeline{}, err
		}
		if !ok {
			return Pipeline{}, delivery.Errorf(delivery.Forbidden, "The owner of the token may not run pipelines on %s.", ref)
		}
	}
	return e.Create(ctx, req)
}

// PutSchedule stores a schedule: a new one when its ID is 0. It computes the
// next run.
func (e *Engine) PutSchedule(ctx context.Context, s *Schedule) error {
	if s.Timezone == "" {
		s.Timezone = "UTC"
	}
	if s.Description == "" || s.Ref == "" {
		return delivery.Errorf(delivery.Invalid, "description, ref and cron are needed")
	}
	next, err := nextRun(s.Cron, s.Timezone, e.clock.Now())
	if err != nil {
		return err
	}
	s.NextRun = next
	err = e.store.Update(ctx, func(tx Tx) error {
		if s.ID == 0 {
			return tx.InsertSchedule(s)
		}
		return tx.UpdateSchedule(s)
	})
	if err == nil {
		e.wheel.set("schedules", e.clock.Now(), e.runSchedules)
	}
	return err
}

// PlaySchedule runs a schedule now, as the user.
func (e *Engine) PlaySchedule(ctx context.Context, userID int64, s *Schedule) (Pipeline, error) {
	p, err := e.createScheduled(ctx, s, userID, "")
	if err != nil {
		return p, err
	}
	return p, e.store.Update(ctx, func(tx Tx) error {
		now, err := tx.Schedule(s.ID)
		if err != nil {
			return err
		}
		now.LastPipelineID = p.ID
		return tx.UpdateSchedule(&now)
	})
}
