package pipeline

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// StopEnvironment stops an environment: it plays the on_stop job of its last
// deployment, or, where there is none or with force, marks it stopped. userID
// 0 keeps the user of that job.
func (e *Engine) StopEnvironment(ctx context.Context, userID, environmentID int64, force bool) (Environment, error) {
	var env Environment
	err := e.update(ctx, func(u *unit) error {
		var err error
		if env, err = u.tx.Environment(environmentID); err != nil {
			return err
		}
		if env.State == "stopped" {
			return nil
		}
		env.AutoStopAt = time.Time{}
		played := false
		if !force {
			if played, err = u.playStop(&env, userID); err != nil {
				return err
			}
		}
		env.State = "stopped"
		if played {
			env.State = "stopping"
		}
		return u.tx.UpdateEnvironment(&env)
	})
	return env, err
}

// playStop plays the job that stops the environment. It reports whether there
// is one to play.
func (u *unit) playStop(env *Environment, userID int64) (bool, error) {
	d, err := u.tx.LastDeployment(env.ID, "success")
	if delivery.IsNotFound(err) || err == nil && d.OnStop == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	deployed, err := u.tx.Job(d.JobID)
	if delivery.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lp, err := u.load(deployed.PipelineID)
	if err != nil {
		return false, err
	}
	for i := range lp.jobs {
		if lp.jobs[i].Name != d.OnStop {
			continue
		}
		switch lp.proc.Jobs[i].Status {
		case process.Manual, process.Skipped, process.Created, process.Scheduled, process.Success, process.Failed, process.Canceled:
		default:
			return true, nil // under way
		}
		if userID != 0 {
			lp.jobs[i].UserID = userID
			lp.users[i] = userID
		}
		return true, lp.proc.Apply(i, process.EventPlay)
	}
	return false, nil
}

// stopOfBranch stops the environments that a deleted branch was deployed to
// last and that have a job to stop them, as GitLab does.
func (e *Engine) stopOfBranch(ctx context.Context, projectID, userID int64, branch string) error {
	var stop []int64
	err := e.store.View(ctx, func(tx Tx) error {
		list, _, err := tx.Environments(projectID, "", "available", Page{Limit: 10000})
		if err != nil {
			return err
		}
		for _, env := range list {
			d, err := tx.LastDeployment(env.ID, "success")
			if delivery.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			if d.Ref == branch && !d.Tag && d.OnStop != "" {
				stop = append(stop, env.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range stop {
		if _, err := e.StopEnvironment(ctx, userID, id, false); err != nil {
			return err
		}
	}
	return nil
}

// Redeploy runs the job of an earlier deployment again, which rolls the
// environment back to its commit. Where that was done before, the newest
// attempt of the job is run again.
func (e *Engine) Redeploy(ctx context.Context, userID, deploymentID int64) (Job, error) {
	current := int64(0)
	if err := e.store.View(ctx, func(tx Tx) error {
		d, err := tx.Deployment(deploymentID)
		if err != nil {
			return err
		}
		j, err := tx.Job(d.JobID)
		if err != nil || !j.Retried {
			current = d.JobID
			return err
		}
		jobs, err := tx.PipelineJobs(j.PipelineID)
		for i := range jobs {
			if jobs[i].Name == j.Name {
				current = jobs[i].ID
			}
		}
		return err
	}); err != nil {
		return Job{}, err
	}
	return e.RetryJob(ctx, userID, current)
}

// outdated reports whether a newer job has deployed another commit to the
// job's environment already. Jobs are numbered in the order of their pipelines;
// a retry is a new job, so that going back on purpose is newer.
func outdated(tx Tx, j *Job, sha string) (bool, error) {
	if j.Environment == "" || j.EnvironmentAction != "" && j.EnvironmentAction != "start" {
		return false, nil
	}
	env, err := tx.EnvironmentByName(j.ProjectID, j.Environment)
	if delivery.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	last, err := tx.LastDeployment(env.ID, "success")
	if delivery.IsNotFound(err) {
		return false, nil
	}
	return err == nil && last.JobID > j.ID && last.SHA != sha, err
}

// mayGoBack refuses to run the job of an older deployment again where the
// project does not allow that.
func (u *unit) mayGoBack(lp *live, j *Job) error {
	settings, err := projectSettings(u.tx, lp.rec.ProjectID)
	if err != nil || !settings.ForwardDeployment || settings.RollbackAllowed {
		return err
	}
	old, err := outdated(u.tx, j, lp.rec.SHA)
	if err == nil && old {
		err = delivery.Errorf(delivery.Forbidden, "A newer deployment to %s was made already, and this project does not allow to go back.", j.Environment)
	}
	return err
}
