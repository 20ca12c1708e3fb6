package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var _ delivery.WebhookPayloads = (*Engine)(nil)

// WebhookPayload implements delivery.WebhookPayloads with GitLab's bodies
// (doc/user/project/integrations/webhook_events).
func (e *Engine) WebhookPayload(ctx context.Context, ev delivery.Event) (string, json.RawMessage, error) {
	var name string
	var body map[string]any
	var err error
	switch ev.Kind {
	case delivery.EventPipelineChanged:
		name = "Pipeline Hook"
		body, err = e.pipelineHook(ctx, ev)
	case delivery.EventJobChanged:
		name = "Job Hook"
		body, err = e.jobHook(ctx, ev)
	case delivery.EventDeploymentChanged:
		name = "Deployment Hook"
		body, err = e.deploymentHook(ctx, ev)
	}
	if delivery.IsNotFound(err) { // deleted since
		return "", nil, nil
	}
	if err != nil || body == nil {
		return "", nil, err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return "", nil, fmt.Errorf("pipeline: webhook body: %w", err)
	}
	return name, raw, nil
}

// hookTime is the format of times in webhook bodies; nil for none.
func hookTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func (e *Engine) hookUser(ctx context.Context, id int64) (any, error) {
	if id == 0 {
		return nil, nil
	}
	u, err := e.cfg.Users.User(ctx, id)
	if delivery.IsNotFound(err) {
		return nil, nil
	}
	return map[string]any{"id": u.ID, "name": u.Name, "username": u.Username, "avatar_url": nil, "email": "[REDACTED]"}, err
}

func (e *Engine) hookProject(p *delivery.Project) map[string]any {
	url := e.cfg.ExternalURL + "/" + p.FullPath
	levels := map[delivery.Visibility]int{delivery.Private: 0, delivery.Internal: 10, delivery.Public: 20}
	return map[string]any{"id": p.ID, "name": p.Name, "description": p.Description, "web_url": url, "avatar_url": nil,
		"git_ssh_url": fmt.Sprintf("ssh://git@%s:%d/%s.git", e.cfg.SSHHost, e.cfg.SSHPort, p.FullPath), "git_http_url": url + ".git",
		"namespace": p.Namespace.Name, "visibility_level": levels[p.Visibility], "path_with_namespace": p.FullPath, "default_branch": p.DefaultBranch,
		"ci_config_path": p.CIConfigPath}
}

func (e *Engine) hookCommit(p *Pipeline, project *delivery.Project) map[string]any {
	return map[string]any{"id": p.SHA, "message": p.Facts["CI_COMMIT_MESSAGE"], "title": p.Facts["CI_COMMIT_TITLE"], "timestamp": p.Facts["CI_COMMIT_TIMESTAMP"],
		"url": e.cfg.ExternalURL + "/" + project.FullPath + "/-/commit/" + p.SHA, "author": map[string]any{"name": p.Facts["CI_COMMIT_AUTHOR"]}}
}

func (e *Engine) pipelineHook(ctx context.Context, ev delivery.Event) (map[string]any, error) {
	var change delivery.PipelineChanged
	if err := ev.Decode(&change); err != nil {
		return nil, err
	}
	g, err := e.Graph(ctx, change.ID)
	if err != nil {
		return nil, err
	}
	p := &g.Pipeline
	project, err := e.cfg.Projects.Project(ctx, p.ProjectID)
	if err != nil {
		return nil, err
	}
	user, err := e.hookUser(ctx, p.UserID)
	if err != nil {
		return nil, err
	}
	stages, builds := []string{}, []any{}
	var jobs []Job
	for _, s := range g.Stages {
		stages = append(stages, s.Name)
		for _, group := range s.Groups {
			jobs = append(jobs, group.Jobs...)
		}
	}
	now := e.clock.Now()
	for i := range jobs {
		j := &jobs[i]
		builds = append(builds, map[string]any{"id": j.ID, "stage": j.Stage, "name": j.Name, "status": j.Status, "created_at": hookTime(j.CreatedAt),
			"started_at": hookTime(j.StartedAt), "finished_at": hookTime(j.FinishedAt), "duration": j.Duration(now).Seconds(), "queued_duration": queuedFor(j),
			"failure_reason": j.FailureReason, "when": j.When, "manual": j.When == "manual", "allow_failure": j.AllowFailure, "user": user,
			"runner": nil, "artifacts_file": map[string]any{"filename": nil, "size": nil}, "environment": nil})
	}
	return map[string]any{"object_kind": "pipeline", "user": user, "project": e.hookProject(&project), "commit": e.hookCommit(p, &project), "builds": builds,
		"object_attributes": map[string]any{"id": p.ID, "iid": p.IID, "name": p.Name, "ref": p.Ref, "tag": p.Tag, "sha": p.SHA, "before_sha": p.BeforeSHA,
			"source": p.Source, "status": change.Status, "detailed_status": change.Status, "stages": stages, "created_at": hookTime(p.CreatedAt),
			"finished_at": hookTime(p.FinishedAt), "duration": int64(busy(jobs, now).Seconds()), "variables": []any{},
			"url": fmt.Sprintf("%s/%s/-/pipelines/%d", e.cfg.ExternalURL, project.FullPath, p.ID)}}, nil
}

func queuedFor(j *Job) float64 {
	if j.QueuedAt.IsZero() || j.StartedAt.IsZero() {
		return 0
	}
	return j.StartedAt.Sub(j.QueuedAt).Seconds()
}

// hookJob is what hooks about a job tell of: the job, its project and its user.
func (e *Engine) hookJob(ctx context.Context, projectID, jobID int64) (v JobView, project delivery.Project, user any, err error) {
	if v, err = e.JobView(ctx, projectID, jobID); err != nil {
		return v, project, nil, err
	}
	if project, err = e.cfg.Projects.Project(ctx, projectID); err != nil {
		return v, project, nil, err
	}
	user, err = e.hookUser(ctx, v.Job.UserID)
	return v, project, user, err
}

func (e *Engine) jobHook(ctx context.Context, ev delivery.Event) (map[string]any, error) {
	var change delivery.JobChanged
	if err := ev.Decode(&change); err != nil {
		return nil, err
	}
	v, project, user, err := e.hookJob(ctx, ev.ProjectID, change.ID)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"object_kind": "build", "ref": v.Pipeline.Ref, "tag": v.Pipeline.Tag, "before_sha": v.Pipeline.BeforeSHA, "sha": v.Pipeline.SHA,
		"build_id": v.Job.ID, "build_name": v.Job.Name, "build_stage": v.Job.Stage, "build_status": change.Status, "build_created_at": hookTime(v.Job.CreatedAt),
		"build_started_at": hookTime(v.Job.StartedAt), "build_finished_at": hookTime(v.Job.FinishedAt), "build_duration": v.Job.Duration(e.clock.Now()).Seconds(),
		"build_queued_duration": queuedFor(&v.Job), "build_allow_failure": v.Job.AllowFailure, "build_failure_reason": change.FailureReason,
		"retries_count": v.Job.Attempt, "pipeline_id": v.Pipeline.ID, "project_id": project.ID, "project_name": project.FullPath, "user": user,
		"commit": e.hookCommit(&v.Pipeline, &project), "project": e.hookProject(&project), "runner": nil, "environment": nil}
	if v.Runner != nil {
		body["runner"] = map[string]any{"id": v.Runner.ID, "description": v.Runner.Description, "runner_type": v.Runner.Kind, "active": !v.Runner.Paused,
			"is_shared": v.Runner.Kind == InstanceRunner, "tags": v.Runner.Tags}
	}
	if v.Job.Environment != "" {
		body["environment"] = map[string]any{"name": v.Job.Environment, "action": v.Job.EnvironmentAction}
	}
	return body, nil
}

func (e *Engine) deploymentHook(ctx context.Context, ev delivery.Event) (map[string]any, error) {
	var change delivery.DeploymentChanged
	if err := ev.Decode(&change); err != nil {
		return nil, err
	}
	v, project, user, err := e.hookJob(ctx, ev.ProjectID, change.JobID)
	if err != nil {
		return nil, err
	}
	url := e.cfg.ExternalURL + "/" + project.FullPath
	return map[string]any{"object_kind": "deployment", "status": change.Status, "status_changed_at": hookTime(ev.At), "deployment_id": change.ID,
		"deployable_id": change.JobID, "deployable_url": fmt.Sprintf("%s/-/jobs/%d", url, change.JobID), "environment": change.Environment,
		"project": e.hookProject(&project), "short_sha": short(change.SHA), "user": user, "commit_url": url + "/-/commit/" + change.SHA,
		"commit_title": v.Pipeline.Facts["CI_COMMIT_TITLE"], "ref": v.Pipeline.Ref}, nil
}
