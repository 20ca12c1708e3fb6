package pipeline

import (
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// statusNow returns a job's status with what this update changed.
func (u *unit) statusNow(j *Job) string {
	if lp := u.e.live[j.PipelineID]; lp != nil {
		if i, ok := lp.byID[j.ID]; ok {
			return lp.proc.Jobs[i].Status.String()
		}
	}
	return j.Status
}

// tellParent passes a pipeline's status on to the bridge that started it, where
// that one asked for it (trigger:strategy).
func (u *unit) tellParent(child *live, was string) error {
	if child.rec.ParentJobID == 0 {
		return nil
	}
	bridge, err := u.tx.Job(child.rec.ParentJobID)
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil || bridge.Strategy == "" || bridge.Retried {
		return err
	}
	parent, err := u.load(bridge.PipelineID)
	if err != nil {
		return err
	}
	i, ok := parent.byID[bridge.ID]
	if !ok {
		return nil
	}
	j := &parent.proc.Jobs[i]
	if j.Status == process.Canceled {
		return nil
	}
	to := j.Status
	switch status := child.rec.Status; {
	case status == "success":
		to = process.Success
	case status == "canceled":
		to = process.Canceled
	case status == "failed", status == "skipped" && bridge.Strategy == "depend":
		to = process.Failed
	case status == "skipped":
		to = process.Skipped
	case status == "manual" && bridge.Strategy == "mirror":
		to = process.Manual
	case finalStatus(was) || j.Status == process.Pending || j.Status == process.Manual:
		to = process.Running
	}
	if to == j.Status {
		return nil
	}
	j.Status = to
	if to == process.Failed && parent.proc.CancelOnFailure && !j.AllowFailure {
		parent.proc.CancelJobs(nil)
	}
	parent.proc.Process()
	return nil
}

// followDeployment keeps the deployment of a job with an environment in step.
func (u *unit) followDeployment(lp *live, j *Job) error {
	if j.Environment == "" {
		return nil
	}
	switch j.EnvironmentAction {
	case "stop":
		return u.followStop(lp, j)
	case "", "start":
	default:
		return nil
	}
	d, err := u.tx.DeploymentByJob(j.ID)
	missing := delivery.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	status := map[string]string{"pending": "created", "waiting_for_resource": "created", "running": "running", "success": "success",
		"failed": "failed", "canceled": "canceled", "skipped": "skipped"}[j.Status]
	if status == "" || missing && finalStatus(status) && status != "success" {
		return nil
	}
	options, err := u.options(j.ID)
	if err != nil {
		return err
	}
	env, err := u.environment(lp, j, options.Environment)
	if err != nil {
		return err
	}
	if missing {
		d = Deployment{ProjectID: j.ProjectID, EnvironmentID: env.ID, JobID: j.ID, Ref: lp.rec.Ref, Tag: lp.rec.Tag, SHA: lp.rec.SHA, Status: status, UserID: j.UserID}
		if options.Environment != nil {
			d.OnStop = options.Environment.OnStop
		}
		if err := u.tx.InsertDeployment(&d); err != nil {
			return err
		}
	} else if d.Status == status {
		return nil
	}
	d.Status = status
	if finalStatus(status) {
		d.FinishedAt = u.tx.Now()
	}
	if err := u.tx.UpdateDeployment(&d); err != nil {
		return err
	}
	if status == "success" {
		if err := u.deployed(lp, j, &env, options.Environment); err != nil {
			return err
		}
	}
	return u.tx.Emit(delivery.EventDeploymentChanged, j.ProjectID, delivery.DeploymentChanged{ID: d.ID, Environment: env.Name, Status: status, SHA: d.SHA, JobID: j.ID})
}

// deployed notes a successful deployment on its environment.
func (u *unit) deployed(lp *live, j *Job, env *Environment, options *gitlabci.Environment) error {
	env.State = "available"
	if options == nil {
		return u.tx.UpdateEnvironment(env)
	}
	dotenv, err := u.tx.Dotenv(j.ID)
	if err != nil {
		return err
	}
	vars, err := u.e.openVariables(dotenv)
	if err != nil {
		return err
	}
	job, err := u.options(j.ID)
	if err != nil {
		return err
	}
	scope := gitlabci.Merge(factVariables(lp.rec.Facts), environmentVariables(env), job.Variables, vars)
	if url := gitlabci.Expand(options.URL, scope.Lookup()); url != "" {
		env.ExternalURL = url
	}
	if options.AutoStopIn != "" {
		d, err := gitlabci.ParseDuration(gitlabci.Expand(options.AutoStopIn, scope.Lookup()))
		if err == nil {
			env.AutoStopAt = u.tx.Now().Add(d)
		}
	}
	return u.tx.UpdateEnvironment(env)
}

// followStop stops an environment once its stop job succeeded.
func (u *unit) followStop(lp *live, j *Job) error {
	env, err := u.tx.EnvironmentByName(j.ProjectID, j.Environment)
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch j.Status {
	case "pending", "running":
		env.State = "stopping"
	case "success":
		env.State = "stopped"
	case "failed", "canceled":
		env.State = "available"
	default:
		return nil
	}
	if env.State == "stopped" {
		env.AutoStopAt = time.Time{}
	}
	return u.tx.UpdateEnvironment(&env)
}

// environment finds or makes the environment of a job.
func (u *unit) environment(lp *live, j *Job, options *gitlabci.Environment) (Environment, error) {
	env, err := u.tx.EnvironmentByName(j.ProjectID, j.Environment)
	if err == nil || !delivery.IsNotFound(err) {
		return env, err
	}
	env = Environment{ProjectID: j.ProjectID, Name: j.Environment, Slug: gitlabci.EnvironmentSlug(j.Environment), State: "available", Tier: gitlabci.EnvironmentTier(j.Environment)}
	if options != nil && options.DeploymentTier != "" {
		env.Tier = options.DeploymentTier
	}
	return env, u.tx.InsertEnvironment(&env)
}
