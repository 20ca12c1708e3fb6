package pipelinedb

import (
	"fmt"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/store"
)

const pipelineColumns = `id, project_id, iid, ref, tag, sha, before_sha, source, status, name, user_id, created_at, updated_at,
	started_at, finished_at, yaml_errors, failure_reason, protected, merge_iid, schedule_id, parent_id, parent_job_id, child,
	on_new_commit, on_job_failure, auto_canceled_by, uninterruptible, key, stages, variables, facts`

func scanPipeline(p *pipeline.Pipeline) []any {
	return []any{&p.ID, &p.ProjectID, &p.IID, &p.Ref, &p.Tag, &p.SHA, &p.BeforeSHA, &p.Source, &p.Status, &p.Name, &p.UserID, &p.CreatedAt, &p.UpdatedAt,
		&p.StartedAt, &p.FinishedAt, &p.YAMLErrors, &p.FailureReason, &p.Protected, &p.MergeRequestIID, &p.ScheduleID, &p.ParentID, &p.ParentJobID, &p.Child,
		&p.OnNewCommit, &p.OnJobFailure, &p.AutoCanceledBy, &p.Uninterruptible, &p.Key, &p.Stages, &p.Variables, &p.Facts}
}

// InsertPipeline implements pipeline.PipelineRecords.
func (t *tx) InsertPipeline(p *pipeline.Pipeline) error {
	iid, err := t.next(p.ProjectID, "pipeline")
	if err != nil {
		return err
	}
	p.IID = iid
	p.CreatedAt, p.UpdatedAt = t.Now(), t.Now()
	p.ID, err = t.insert(`INSERT INTO pipelines (project_id, iid, ref, tag, sha, before_sha, source, status, name, user_id, created_at, updated_at,
		started_at, finished_at, yaml_errors, failure_reason, protected, merge_iid, schedule_id, parent_id, parent_job_id, child,
		on_new_commit, on_job_failure, auto_canceled_by, uninterruptible, key, stages, variables, facts)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		p.ProjectID, p.IID, p.Ref, p.Tag, p.SHA, p.BeforeSHA, p.Source, p.Status, p.Name, p.UserID, p.CreatedAt, p.UpdatedAt,
		p.StartedAt, p.FinishedAt, p.YAMLErrors, p.FailureReason, p.Protected, p.MergeRequestIID, p.ScheduleID, p.ParentID, p.ParentJobID, p.Child,
		p.OnNewCommit, p.OnJobFailure, p.AutoCanceledBy, p.Uninterruptible, p.Key, p.Stages, p.Variables, p.Facts)
	if store.IsUnique(err) {
		return &delivery.Error{Kind: delivery.Conflict, Message: "This pipeline exists already.", Err: err}
	}
	return err
}

// UpdatePipeline implements pipeline.PipelineRecords.
func (t *tx) UpdatePipeline(p *pipeline.Pipeline) error {
	p.UpdatedAt = t.Now()
	return t.exec(`UPDATE pipelines SET status=?, name=?, updated_at=?, started_at=?, finished_at=?, yaml_errors=?, failure_reason=?,
		auto_canceled_by=?, uninterruptible=?, stages=? WHERE id=?`,
		p.Status, p.Name, p.UpdatedAt, p.StartedAt, p.FinishedAt, p.YAMLErrors, p.FailureReason, p.AutoCanceledBy, p.Uninterruptible, p.Stages, p.ID)
}

// Pipeline implements pipeline.PipelineRecords.
func (t *tx) Pipeline(id int64) (pipeline.Pipeline, error) {
	var p pipeline.Pipeline
	err := t.row("Pipeline", `SELECT `+pipelineColumns+` FROM pipelines WHERE id = ?`, []any{id}, scanPipeline(&p)...)
	return p, err
}

// PipelineByKey implements pipeline.PipelineRecords.
func (t *tx) PipelineByKey(key string) (pipeline.Pipeline, error) {
	var p pipeline.Pipeline
	err := t.row("Pipeline", `SELECT `+pipelineColumns+` FROM pipelines WHERE key = ?`, []any{key}, scanPipeline(&p)...)
	return p, err
}

// LatestPipeline implements pipeline.PipelineRecords.
func (t *tx) LatestPipeline(projectID int64, ref, sha string) (pipeline.Pipeline, error) {
	w := &where{}
	w.add("project_id = ?", projectID)
	if ref != "" {
		w.add("ref = ?", ref)
	}
	if sha != "" {
		w.add("sha = ?", sha)
	}
	w.add("child = 0")
	var p pipeline.Pipeline
	err := t.row("Pipeline", `SELECT `+pipelineColumns+` FROM pipelines`+w.sql()+` ORDER BY id DESC LIMIT 1`, w.args, scanPipeline(&p)...)
	return p, err
}

// UnstartedPipelines implements pipeline.PipelineRecords.
func (t *tx) UnstartedPipelines() ([]pipeline.Pipeline, error) {
	return rows(t, scanPipeline, `SELECT `+pipelineColumns+` FROM pipelines WHERE status = 'created' ORDER BY id`)
}

var pipelineOrders = map[string]string{"": "id", "id": "id", "status": "status", "ref": "ref", "updated_at": "updated_at", "user_id": "user_id"}

func pipelineWhere(f pipeline.PipelineFilter) *where {
	w := &where{}
	if f.ProjectID != 0 {
		w.add("project_id = ?", f.ProjectID)
	}
	w.in("status", f.Statuses)
	switch f.Scope {
	case "running", "pending":
		w.add("status = ?", f.Scope)
	case "finished":
		w.in("status", []string{"success", "failed", "canceled"})
	case "branches":
		w.add("tag = 0 AND merge_iid = 0")
	case "tags":
		w.add("tag = 1")
	}
	for _, c := range []struct{ column, value string }{{"ref", f.Ref}, {"sha", f.SHA}, {"source", f.Source}, {"name", f.Name}} {
		if c.value != "" {
			w.add(c.column+" = ?", c.value)
		}
	}
	if f.UserID != 0 {
		w.add("user_id = ?", f.UserID)
	}
	if f.YAMLErrors != nil {
		w.add("(yaml_errors <> '') = ?", *f.YAMLErrors)
	}
	if f.MergeIID != 0 {
		w.add("merge_iid = ?", f.MergeIID)
	}
	if f.ParentID != 0 {
		w.add("parent_id = ?", f.ParentID)
	}
	if f.ScheduleID != 0 {
		w.add("schedule_id = ?", f.ScheduleID)
	}
	if f.Child != nil {
		w.add("child = ?", *f.Child)
	}
	if f.BeforeID != 0 {
		w.add("id < ?", f.BeforeID)
	}
	if !f.After.IsZero() {
		w.add("updated_at > ?", f.After)
	}
	if !f.Until.IsZero() {
		w.add("updated_at < ?", f.Until)
	}
	return w
}

// Pipelines implements pipeline.PipelineRecords.
func (t *tx) Pipelines(f pipeline.PipelineFilter, page pipeline.Page) ([]pipeline.Pipeline, int, error) {
	order, ok := pipelineOrders[f.OrderBy]
	if !ok {
		return nil, 0, delivery.Errorf(delivery.Invalid, "order_by does not have a valid value")
	}
	w := pipelineWhere(f)
	direction := " DESC"
	if f.Ascending {
		direction = " ASC"
	}
	if order != "id" {
		order += direction + ", id"
	}
	list, err := rows(t, scanPipeline, `SELECT `+pipelineColumns+` FROM pipelines`+w.sql()+` ORDER BY `+order+direction+` LIMIT ? OFFSET ?`,
		append(w.args, page.Limit, page.Offset)...)
	if err != nil {
		return nil, 0, err
	}
	total := -1
	if !f.WithoutMany {
		total, err = t.count("pipelines", w)
	}
	return list, total, err
}

// DeletePipeline implements pipeline.PipelineRecords.
func (t *tx) DeletePipeline(id int64) error {
	return t.deleteJobs(`pipeline_id = ?`, id, func() error { return t.exec(`DELETE FROM pipelines WHERE id = ?`, id) })
}

func (t *tx) deleteJobs(cond string, arg int64, then func() error) error {
	jobs := `(SELECT id FROM jobs WHERE ` + cond + `)`
	for _, table := range []string{"artifacts", "job_reports", "deployments"} {
		if err := t.exec(`DELETE FROM `+table+` WHERE job_id IN `+jobs, arg); err != nil {
			return err
		}
	}
	if err := t.exec(`DELETE FROM jobs WHERE `+cond, arg); err != nil {
		return err
	}
	return then()
}

// DeleteProject implements pipeline.PipelineRecords.
func (t *tx) DeleteProject(projectID int64) error {
	return t.deleteJobs(`project_id = ?`, projectID, func() error {
		for _, table := range []string{"pipelines", "pipeline_numbers", "resource_groups", "runner_projects", "pipeline_schedules", "pipeline_triggers", "environments", "deployments", "ci_project_settings"} {
			if err := t.exec(`DELETE FROM `+table+` WHERE project_id = ?`, projectID); err != nil {
				return err
			}
		}
		for _, table := range []string{"ci_variables", "ci_secrets"} {
			if err := t.exec(`DELETE FROM `+table+` WHERE owner = 'project' AND owner_id = ?`, projectID); err != nil {
				return err
			}
		}
		return nil
	})
}

// ProjectSettings implements pipeline.SettingRecords.
func (t *tx) ProjectSettings(projectID int64) ([]byte, error) {
	var raw []byte
	err := t.row("Settings", `SELECT body FROM ci_project_settings WHERE project_id = ?`, []any{projectID}, &raw)
	if delivery.IsNotFound(err) {
		return nil, nil
	}
	return raw, err
}

// PutProjectSettings implements pipeline.SettingRecords.
func (t *tx) PutProjectSettings(projectID int64, body []byte) error {
	return t.exec(`INSERT INTO ci_project_settings (project_id, body) VALUES (?, ?) ON CONFLICT (project_id) DO UPDATE SET body = excluded.body`,
		projectID, string(body))
}

// Setting implements pipeline.SettingRecords.
func (t *tx) Setting(name string) (string, error) {
	var value string
	err := t.row("Setting", `SELECT value FROM pipeline_settings WHERE name = ?`, []any{name}, &value)
	if delivery.IsNotFound(err) {
		return "", nil
	}
	return value, err
}

// SetSetting implements pipeline.SettingRecords.
func (t *tx) SetSetting(name, value string) error {
	if err := t.exec(`INSERT INTO pipeline_settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value); err != nil {
		return fmt.Errorf("setting %s: %w", name, err)
	}
	return nil
}
