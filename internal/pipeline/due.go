package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// cronParser reads five fields, and names such as @daily, as GitLab does.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// nextRun computes when a schedule runs next, in its time zone.
func nextRun(expression, zone string, after time.Time) (time.Time, error) {
	loc, err := loadZone(zone)
	if err != nil {
		return time.Time{}, &delivery.Error{Kind: delivery.Invalid, Message: "The time zone is not known.", Fields: map[string][]string{"cron_timezone": {"is invalid syntax"}}, Err: err}
	}
	s, err := cronParser.Parse(expression)
	if err != nil {
		return time.Time{}, &delivery.Error{Kind: delivery.Invalid, Message: "The cron expression is not valid.", Fields: map[string][]string{"cron": {"is invalid syntax"}}, Err: err}
	}
	return s.Next(after.In(loc)), nil
}

func loadZone(name string) (*time.Location, error) {
	if name == "" {
		name = "UTC"
	}
	return time.LoadLocation(name)
}

// runSchedules starts the pipelines of schedules whose time has come, and plans
// itself for the next one.
func (e *Engine) runSchedules(ctx context.Context) {
	var due []Schedule
	var next time.Time
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		due, next, err = tx.DueSchedules(e.clock.Now())
		return err
	})
	if err != nil {
		e.log.Error("schedules cannot be listed", "err", err)
		next = e.clock.Now().Add(time.Minute)
	}
	for i := range due {
		if err := e.runSchedule(ctx, &due[i]); err != nil {
			e.log.Warn("schedule did not run", "schedule", due[i].ID, "err", err)
		}
	}
	if len(due) > 0 {
		next = e.clock.Now()
	}
	if !next.IsZero() {
		e.wheel.set("schedules", next, e.runSchedules)
	}
}

// runSchedule makes the pipeline of one due time. The key keeps it from being
// made twice; the next time is stored whether or not that worked.
func (e *Engine) runSchedule(ctx context.Context, s *Schedule) error {
	key := fmt.Sprintf("schedule:%d:%d", s.ID, s.NextRun.Unix())
	p, err := e.createScheduled(ctx, s, s.OwnerID, key)
	next, nerr := nextRun(s.Cron, s.Timezone, e.clock.Now())
	if nerr != nil {
		s.Active = false
	}
	serr := e.store.Update(ctx, func(tx Tx) error {
		now, err := tx.Schedule(s.ID)
		if err != nil {
			return err
		}
		now.NextRun, now.Active = next, s.Active && now.Active
		if p.ID != 0 {
			now.LastPipelineID = p.ID
		}
		return tx.UpdateSchedule(&now)
	})
	if err != nil {
		return err
	}
	return serr
}

func (e *Engine) createScheduled(ctx context.Context, s *Schedule, userID int64, key string) (Pipeline, error) {
	values, err := e.openValues(s.Variables)
	if err != nil {
		return Pipeline{}, err
	}
	return e.Create(ctx, Request{ProjectID: s.ProjectID, UserID: userID, Ref: s.Ref, Source: SourceSchedule, Variables: values,
		ScheduleID: s.ID, Schedule: s.Description, Key: key, keepInvalid: true})
}

// sweepEvery is how often the engine looks for what is overdue.
const sweepEvery = time.Minute

// sweep fails jobs whose runner fell silent, stops environments and deletes
// expired artifacts.
func (e *Engine) sweep(ctx context.Context) {
	defer e.wheel.set("sweep", e.clock.Now().Add(sweepEvery), e.sweep)
	e.changes.trim()
	e.watch.trim()
	now := e.clock.Now()
	var silent []int64
	e.mu.Lock()
	for id, r := range e.runs {
		r.mu.Lock()
		if now.Sub(r.lastSeen) > silenceTime {
			silent = append(silent, id)
		}
		r.mu.Unlock()
	}
	for key, at := range e.touched {
		if now.Sub(at) > time.Hour {
			delete(e.touched, key)
		}
	}
	e.mu.Unlock()
	for _, id := range silent {
		e.log.Warn("runner of a job fell silent", "job", id)
		switch err := e.failJob(ctx, id, ReasonStuck); delivery.KindOf(err) {
		case "":
		case delivery.Conflict, delivery.Forbidden, delivery.NotFound:
			e.endRun(id, "") // it ended in between
		default:
			e.log.Error("stuck job not failed", "job", id, "err", err)
		}
	}
	if err := e.stopOverdue(ctx); err != nil && ctx.Err() == nil {
		e.log.Error("environments not stopped", "err", err)
	}
	if err := e.expireArtifacts(ctx); err != nil && ctx.Err() == nil {
		e.log.Error("artifacts not expired", "err", err)
	}
}

// stopOverdue stops environments whose auto_stop_in is over.
func (e *Engine) stopOverdue(ctx context.Context) error {
	var list []Environment
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		list, err = tx.EnvironmentsToStop(e.clock.Now())
		return err
	}); err != nil {
		return err
	}
	for i := range list {
		if _, err := e.StopEnvironment(ctx, 0, list[i].ID, false); err != nil {
			return fmt.Errorf("environment %s: %w", list[i].Name, err)
		}
	}
	return nil
}
