package pipeline

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// View runs fn in a read transaction of the engine's store, for the REST API
// and the pages of this stage.
func (e *Engine) View(ctx context.Context, fn func(Tx) error) error { return e.store.View(ctx, fn) }

// Update runs fn in a write transaction. Statuses of pipelines and jobs are
// changed by the engine's own methods only.
func (e *Engine) Update(ctx context.Context, fn func(Tx) error) error {
	return e.store.Update(ctx, fn)
}

// Seal encrypts a value for a record; Unseal is its inverse.
func (e *Engine) Seal(value string) string { return e.seal.Seal(value) }

// Unseal decrypts a value of a record.
func (e *Engine) Unseal(sealed string) (string, error) { return e.seal.Open(sealed) }

// SealValues encrypts variables that somebody gave.
func (e *Engine) SealValues(vars []VariableValue) []SealedVariable { return e.sealValues(vars) }

// UnsealValues decrypts them.
func (e *Engine) UnsealValues(sealed []SealedVariable) ([]VariableValue, error) {
	return e.openValues(sealed)
}

// CheckVariable validates a variable as GitLab does, and seals its value.
func (e *Engine) CheckVariable(v *Variable) error {
	if err := checkVariable(v); err != nil {
		return err
	}
	v.Sealed = e.seal.Seal(v.Value)
	return nil
}

// Now is the engine's time.
func (e *Engine) Now() time.Time { return e.clock.Now() }

// ExternalURL is the address under which the platform is reached.
func (e *Engine) ExternalURL() string { return e.cfg.ExternalURL }

// RepositoriesPort returns the repositories that the engine reads.
func (e *Engine) RepositoriesPort() Repositories { return e.cfg.Repositories }

// UsersPort returns the accounts that the engine looks up.
func (e *Engine) UsersPort() Users { return e.cfg.Users }

// ProjectsPort returns the projects that the engine looks up.
func (e *Engine) ProjectsPort() Projects { return e.cfg.Projects }

// HeadPipeline returns the newest pipeline of a commit and its status; 0 when
// there is none. Merge requests ask for it.
func (e *Engine) HeadPipeline(ctx context.Context, projectID int64, sha string) (int64, string, error) {
	var p Pipeline
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		p, err = tx.LatestPipeline(projectID, "", sha)
		return err
	})
	if delivery.IsNotFound(err) {
		return 0, "", nil
	}
	return p.ID, p.Status, err
}

// RenamePipeline changes the name that a pipeline shows.
func (e *Engine) RenamePipeline(ctx context.Context, id int64, name string) (Pipeline, error) {
	var p Pipeline
	err := e.update(ctx, func(u *unit) error {
		lp, err := u.load(id)
		if err != nil {
			return err
		}
		lp.rec.Name, lp.recDirty = name, true
		p = lp.rec
		return nil
	})
	return p, err
}

// DeletePipeline forgets a pipeline with its jobs, logs and artifacts.
func (e *Engine) DeletePipeline(ctx context.Context, id int64) error {
	var files []string
	var traces []Job
	var p Pipeline
	err := e.update(ctx, func(u *unit) error {
		var err error
		if p, err = u.tx.Pipeline(id); err != nil {
			return err
		}
		if !p.Finished() {
			if err := u.cancelPipeline(id, 0, nil); err != nil {
				return err
			}
			if err := u.flush(); err != nil {
				return err
			}
		}
		arts, err := u.tx.PipelineArtifacts(id)
		if err != nil {
			return err
		}
		for _, list := range arts {
			for _, a := range list {
				files = append(files, a.SHA256)
			}
		}
		if traces, _, err = u.tx.Jobs(JobFilter{PipelineID: id, Retried: true}, Page{Limit: 1 << 30}); err != nil {
			return err
		}
		u.forget()
		u.touched = nil
		return u.tx.DeletePipeline(id)
	})
	if err != nil {
		return err
	}
	e.removeUnused(ctx, files)
	for i := range traces {
		if err := removeFile(e.tracePath(&traces[i])); err != nil {
			e.log.Error("log not removed", "job", traces[i].ID, "err", err)
		}
	}
	return e.cfg.Repositories.SetRef(ctx, p.ProjectID, pipelineRef(id), "")
}

// EraseJob deletes a finished job's log and artifacts.
func (e *Engine) EraseJob(ctx context.Context, jobID int64) (Job, error) {
	var j Job
	err := e.update(ctx, func(u *unit) error {
		var err error
		if j, err = u.tx.Job(jobID); err != nil {
			return err
		}
		if !finalStatus(j.Status) {
			return delivery.Errorf(delivery.Forbidden, "Job is not erasable while it is %s.", j.Status)
		}
		j.ErasedAt, j.TraceSize = u.tx.Now(), 0
		delete(u.e.live, j.PipelineID)
		return u.tx.UpdateJob(&j)
	})
	if err != nil {
		return j, err
	}
	if err := e.DeleteArtifacts(ctx, jobID); err != nil {
		return j, err
	}
	return j, removeFile(e.tracePath(&j))
}
