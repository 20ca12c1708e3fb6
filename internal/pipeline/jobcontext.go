package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// jobContext is all that a job's environment is made of.
type jobContext struct {
	pipeline   Pipeline
	job        Job
	options    *gitlabci.Job
	project    delivery.Project
	configured configured
	predefined []delivery.JobVariable
	dotenv     gitlabci.Variables // of the jobs it depends on
	deps       []dependency
	settings   ProjectSettings
	outdated   bool // a newer job deployed to the environment already
}

// dependency is a job whose artifacts are restored.
type dependency struct {
	job     Job
	archive *Artifact
}

// loadJobContext reads a job's environment, without what depends on a runner.
func (e *Engine) loadJobContext(ctx context.Context, j *Job, p *Pipeline, options *gitlabci.Job) (*jobContext, error) {
	c := &jobContext{pipeline: *p, job: *j, options: options}
	var err error
	if c.project, err = e.cfg.Projects.Project(ctx, j.ProjectID); err != nil {
		return nil, fmt.Errorf("pipeline: project of job %d: %w", j.ID, err)
	}
	var user delivery.User
	if j.UserID != 0 && j.UserID != p.UserID {
		if user, err = e.cfg.Users.User(ctx, j.UserID); err != nil {
			return nil, fmt.Errorf("pipeline: user of job %d: %w", j.ID, err)
		}
	}
	err = e.store.View(ctx, func(tx Tx) error {
		if c.configured, err = e.loadConfigured(tx, j.ProjectID, factGroups(p.Facts), p.Protected); err != nil {
			return err
		}
		if c.settings, err = projectSettings(tx, j.ProjectID); err != nil {
			return err
		}
		if c.outdated, err = outdated(tx, j, p.SHA); err != nil {
			return err
		}
		if err = e.loadDependencies(ctx, tx, c); err != nil {
			return err
		}
		c.predefined = e.predefined(c, user)
		return nil
	})
	return c, err
}

// loadDependencies finds the jobs whose artifacts and dotenv variables the job
// gets: those named by dependencies, those it needs, or all of earlier stages.
func (e *Engine) loadDependencies(ctx context.Context, tx Tx, c *jobContext) error {
	found, err := tx.PipelineArtifacts(c.pipeline.ID)
	if err != nil {
		return err
	}
	var jobs []Job
	for jobID := range found {
		j, err := tx.Job(jobID)
		if err != nil {
			return err
		}
		if !j.Retried && c.dependsOn(&j) {
			jobs = append(jobs, j)
		}
	}
	for _, n := range c.options.CrossNeeds {
		if n.Job == "" || !n.Artifacts {
			continue
		}
		j, err := e.crossNeed(ctx, tx, c, &n)
		if err != nil {
			return err
		}
		if found[j.ID], err = tx.Artifacts(j.ID); err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	sortJobs(jobs)
	for _, j := range jobs {
		d := dependency{job: j}
		for i := range found[j.ID] {
			if found[j.ID][i].Type == "archive" {
				d.archive = &found[j.ID][i]
			}
		}
		c.deps = append(c.deps, d)
		sealed, err := tx.Dotenv(j.ID)
		if err != nil {
			return err
		}
		vars, err := e.openVariables(sealed)
		if err != nil {
			return err
		}
		c.dotenv = gitlabci.Merge(c.dotenv, vars)
	}
	return nil
}

func sortJobs(jobs []Job) {
	for i := 1; i < len(jobs); i++ {
		for k := i; k > 0 && jobs[k].ID < jobs[k-1].ID; k-- {
			jobs[k], jobs[k-1] = jobs[k-1], jobs[k]
		}
	}
}

// dependsOn reports whether the artifacts of a job of the same pipeline are
// restored.
func (c *jobContext) dependsOn(j *Job) bool {
	named := func(names []string) bool {
		for _, n := range names {
			if n == j.Name || strings.HasPrefix(j.Name, n+" ") || strings.HasPrefix(j.Name, n+": [") {
				return true
			}
		}
		return false
	}
	if c.options.Needs != nil {
		for _, n := range c.options.Needs {
			if n.Job == j.Name {
				return n.Artifacts && (c.options.Dependencies == nil || named(c.options.Dependencies))
			}
		}
		return false
	}
	if j.StageIndex >= c.job.StageIndex {
		return false
	}
	return c.options.Dependencies == nil || named(c.options.Dependencies)
}

// crossNeed finds the job of another pipeline or project that needs names.
func (e *Engine) crossNeed(ctx context.Context, tx Tx, c *jobContext, n *gitlabci.CrossNeed) (Job, error) {
	missing := func(format string, args ...any) error {
		return &delivery.Error{Kind: delivery.Invalid, Message: fmt.Sprintf(format, args...)}
	}
	scope := gitlabci.Merge(factVariables(c.pipeline.Facts), c.options.Variables)
	if pipelineVars, err := e.openVariables(c.pipeline.Variables); err == nil {
		scope = gitlabci.Merge(scope, pipelineVars)
	}
	expand := func(s string) string { return gitlabci.Expand(s, scope.Lookup()) }
	if n.Pipeline != "" {
		number, err := strconv.ParseInt(expand(n.Pipeline), 10, 64)
		if err != nil {
			return Job{}, missing("needs:pipeline %q is not the number of a pipeline", expand(n.Pipeline))
		}
		jobs, err := tx.PipelineJobs(number)
		if err != nil {
			return Job{}, err
		}
		for _, j := range jobs {
			if j.Name == n.Job && j.ProjectID == c.job.ProjectID {
				return j, nil
			}
		}
		return Job{}, missing("pipeline %d has no job %s", number, n.Job)
	}
	project, err := e.cfg.Projects.ProjectByPath(ctx, expand(n.Project))
	if err != nil {
		return Job{}, missing("needs:project %s was not found", expand(n.Project))
	}
	may, err := e.jobMayRead(ctx, c.job.UserID, c.job.ProjectID, project)
	if err != nil {
		return Job{}, err
	}
	if !may {
		return Job{}, missing("needs:project %s was not found, or its job token allowlist does not name this project", expand(n.Project))
	}
	j, err := tx.LatestArtifactJob(project.ID, expand(n.Ref), expand(n.Job))
	if delivery.IsNotFound(err) {
		return Job{}, missing("project %s has no successful job %s with artifacts on %s", project.FullPath, expand(n.Job), expand(n.Ref))
	}
	return j, err
}

// predefined lists the predefined variables of the job that do not depend on
// its runner or token.
func (e *Engine) predefined(c *jobContext, user delivery.User) []delivery.JobVariable {
	var out []delivery.JobVariable
	add := func(key, value string) { out = append(out, delivery.JobVariable{Key: key, Value: value, Raw: true}) }
	for _, v := range factVariables(c.pipeline.Facts) {
		out = append(out, delivery.JobVariable{Key: v.Key, Value: v.Value, Raw: true})
	}
	if user.ID != 0 {
		add("GITLAB_USER_ID", id(user.ID))
		add("GITLAB_USER_LOGIN", user.Username)
		add("GITLAB_USER_NAME", user.Name)
		add("GITLAB_USER_EMAIL", user.Email)
	}
	project := e.cfg.ExternalURL + "/" + c.project.FullPath
	add("CI_PIPELINE_ID", id(c.pipeline.ID))
	add("CI_PIPELINE_IID", id(c.pipeline.IID))
	add("CI_PIPELINE_NAME", c.pipeline.Name)
	add("CI_PIPELINE_URL", project+"/-/pipelines/"+id(c.pipeline.ID))
	add("CI_JOB_ID", id(c.job.ID))
	add("CI_JOB_URL", project+"/-/jobs/"+id(c.job.ID))
	add("CI_JOB_STARTED_AT", e.clock.Now().UTC().Format(time.RFC3339))
	for _, v := range plannedVariables(c.options) {
		add(v.Key, v.Value)
	}
	if c.options.Image != nil {
		out = append(out, delivery.JobVariable{Key: "CI_JOB_IMAGE", Value: c.options.Image.Name})
	}
	if c.job.Environment != "" && c.options.Environment != nil {
		env := c.options.Environment
		tier := env.DeploymentTier
		if tier == "" {
			tier = gitlabci.EnvironmentTier(c.job.Environment)
		}
		add("CI_ENVIRONMENT_NAME", c.job.Environment)
		add("CI_ENVIRONMENT_SLUG", gitlabci.EnvironmentSlug(c.job.Environment))
		add("CI_ENVIRONMENT_ACTION", env.Action)
		add("CI_ENVIRONMENT_TIER", tier)
		if env.URL != "" {
			out = append(out, delivery.JobVariable{Key: "CI_ENVIRONMENT_URL", Value: env.URL})
		}
	}
	return out
}
