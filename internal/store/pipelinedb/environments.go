package pipelinedb

import (
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline"
)

const environmentColumns = `id, project_id, name, slug, state, tier, external_url, description, auto_stop_at, created_at, updated_at`

func scanEnvironment(e *pipeline.Environment) []any {
	return []any{&e.ID, &e.ProjectID, &e.Name, &e.Slug, &e.State, &e.Tier, &e.ExternalURL, &e.Description, &e.AutoStopAt, &e.CreatedAt, &e.UpdatedAt}
}

// InsertEnvironment implements pipeline.EnvironmentRecords.
func (t *tx) InsertEnvironment(e *pipeline.Environment) error {
	e.CreatedAt, e.UpdatedAt = t.Now(), t.Now()
	var err error
	e.ID, err = t.insert(`INSERT INTO environments (project_id, name, slug, state, tier, external_url, description, auto_stop_at, created_at, updated_at)
		VALUES (?,?,?,?,?,?,?,?,?,?)`, e.ProjectID, e.Name, e.Slug, e.State, e.Tier, e.ExternalURL, e.Description, e.AutoStopAt, e.CreatedAt, e.UpdatedAt)
	return taken(err, "name", "has already been taken")
}

// UpdateEnvironment implements pipeline.EnvironmentRecords.
func (t *tx) UpdateEnvironment(e *pipeline.Environment) error {
	e.UpdatedAt = t.Now()
	return t.exec(`UPDATE environments SET state=?, tier=?, external_url=?, description=?, auto_stop_at=?, updated_at=? WHERE id=?`,
		e.State, e.Tier, e.ExternalURL, e.Description, e.AutoStopAt, e.UpdatedAt, e.ID)
}

// DeleteEnvironment implements pipeline.EnvironmentRecords.
func (t *tx) DeleteEnvironment(id int64) error {
	if err := t.exec(`DELETE FROM deployments WHERE environment_id = ?`, id); err != nil {
		return err
	}
	return t.exec(`DELETE FROM environments WHERE id = ?`, id)
}

// Environment implements pipeline.EnvironmentRecords.
func (t *tx) Environment(id int64) (pipeline.Environment, error) {
	var e pipeline.Environment
	err := t.row("Environment", `SELECT `+environmentColumns+` FROM environments WHERE id = ?`, []any{id}, scanEnvironment(&e)...)
	return e, err
}

// EnvironmentByName implements pipeline.EnvironmentRecords.
func (t *tx) EnvironmentByName(projectID int64, name string) (pipeline.Environment, error) {
	var e pipeline.Environment
	err := t.row("Environment", `SELECT `+environmentColumns+` FROM environments WHERE project_id = ? AND name = ?`, []any{projectID, name}, scanEnvironment(&e)...)
	return e, err
}

// Environments implements pipeline.EnvironmentRecords.
func (t *tx) Environments(projectID int64, search, state string, page pipeline.Page) ([]pipeline.Environment, int, error) {
	w := &where{}
	w.add("project_id = ?", projectID)
	if search != "" {
		w.add("instr(lower(name), lower(?)) > 0", search)
	}
	if state != "" {
		w.add("state = ?", state)
	}
	found, err := rows(t, scanEnvironment, `SELECT `+environmentColumns+` FROM environments`+w.sql()+` ORDER BY name LIMIT ? OFFSET ?`, append(w.args, page.Limit, page.Offset)...)
	if err != nil {
		return nil, 0, err
	}
	total, err := t.count("environments", w)
	return found, total, err
}

// EnvironmentsToStop implements pipeline.EnvironmentRecords.
func (t *tx) EnvironmentsToStop(now time.Time) ([]pipeline.Environment, error) {
	return rows(t, scanEnvironment, `SELECT `+environmentColumns+` FROM environments WHERE auto_stop_at <> 0 AND auto_stop_at <= ? AND state = 'available'`, now)
}

const deploymentColumns = `id, iid, project_id, environment_id, job_id, ref, tag, sha, status, user_id, on_stop, created_at, updated_at, finished_at`

func scanDeployment(d *pipeline.Deployment) []any {
	return []any{&d.ID, &d.IID, &d.ProjectID, &d.EnvironmentID, &d.JobID, &d.Ref, &d.Tag, &d.SHA, &d.Status, &d.UserID, &d.OnStop, &d.CreatedAt, &d.UpdatedAt, &d.FinishedAt}
}

// InsertDeployment implements pipeline.EnvironmentRecords.
func (t *tx) InsertDeployment(d *pipeline.Deployment) error {
	iid, err := t.next(d.ProjectID, "deployment")
	if err != nil {
		return err
	}
	d.IID, d.CreatedAt, d.UpdatedAt = iid, t.Now(), t.Now()
	d.ID, err = t.insert(`INSERT INTO deployments (iid, project_id, environment_id, job_id, ref, tag, sha, status, user_id, on_stop, created_at, updated_at, finished_at)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`, d.IID, d.ProjectID, d.EnvironmentID, d.JobID, d.Ref, d.Tag, d.SHA, d.Status, d.UserID, d.OnStop, d.CreatedAt, d.UpdatedAt, d.FinishedAt)
	return err
}

// UpdateDeployment implements pipeline.EnvironmentRecords.
func (t *tx) UpdateDeployment(d *pipeline.Deployment) error {
	d.UpdatedAt = t.Now()
	return t.exec(`UPDATE deployments SET status=?, updated_at=?, finished_at=? WHERE id=?`, d.Status, d.UpdatedAt, d.FinishedAt, d.ID)
}

// Deployment implements pipeline.EnvironmentRecords.
func (t *tx) Deployment(id int64) (pipeline.Deployment, error) {
	var d pipeline.Deployment
	err := t.row("Deployment", `SELECT `+deploymentColumns+` FROM deployments WHERE id = ?`, []any{id}, scanDeployment(&d)...)
	return d, err
}

// DeploymentByJob implements pipeline.EnvironmentRecords.
func (t *tx) DeploymentByJob(jobID int64) (pipeline.Deployment, error) {
	var d pipeline.Deployment
	err := t.row("Deployment", `SELECT `+deploymentColumns+` FROM deployments WHERE job_id = ?`, []any{jobID}, scanDeployment(&d)...)
	return d, err
}

// LastDeployment implements pipeline.EnvironmentRecords.
func (t *tx) LastDeployment(environmentID int64, status string) (pipeline.Deployment, error) {
	var d pipeline.Deployment
	w := &where{}
	w.add("environment_id = ?", environmentID)
	if status != "" {
		w.add("status = ?", status)
	}
	err := t.row("Deployment", `SELECT `+deploymentColumns+` FROM deployments`+w.sql()+` ORDER BY id DESC LIMIT 1`, w.args, scanDeployment(&d)...)
	return d, err
}

// Deployments implements pipeline.EnvironmentRecords.
func (t *tx) Deployments(projectID, environmentID int64, status string, ascending bool, page pipeline.Page) ([]pipeline.Deployment, int, error) {
	w := &where{}
	w.add("project_id = ?", projectID)
	if environmentID != 0 {
		w.add("environment_id = ?", environmentID)
	}
	if status != "" {
		w.add("status = ?", status)
	}
	order := " ORDER BY id DESC"
	if ascending {
		order = " ORDER BY id"
	}
	found, err := rows(t, scanDeployment, `SELECT `+deploymentColumns+` FROM deployments`+w.sql()+order+` LIMIT ? OFFSET ?`, append(w.args, page.Limit, page.Offset)...)
	if err != nil {
		return nil, 0, err
	}
	total, err := t.count("deployments", w)
	return found, total, err
}
