package pipelinedb

import (
	"github.com/slipwayhq/slipway/internal/pipeline"
)

const runnerColumns = `id, kind, owner_id, description, token_hash, token_hint, tags, run_untagged, locked, paused, ref_protected,
	maximum_timeout, maintenance_note, builtin, creator_id, created_at, contacted_at,
	COALESCE((SELECT json_group_array(project_id) FROM runner_projects WHERE runner_id = runners.id), '[]')`

func scanRunner(r *pipeline.Runner) []any {
	return []any{&r.ID, &r.Kind, &r.OwnerID, &r.Description, &r.TokenHash, &r.TokenHint, &r.Tags, &r.RunUntagged, &r.Locked, &r.Paused, &r.RefProtected,
		&r.MaximumTimeout, &r.MaintenanceNote, &r.Builtin, &r.CreatorID, &r.CreatedAt, &r.ContactedAt, &r.Projects}
}

// InsertRunner implements pipeline.RunnerRecords.
func (t *tx) InsertRunner(r *pipeline.Runner) error {
	r.CreatedAt = t.Now()
	var err error
	r.ID, err = t.insert(`INSERT INTO runners (kind, owner_id, description, token_hash, token_hint, tags, run_untagged, locked, paused, ref_protected,
		maximum_timeout, maintenance_note, builtin, creator_id, created_at, contacted_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		r.Kind, r.OwnerID, r.Description, r.TokenHash, r.TokenHint, list(r.Tags), r.RunUntagged, r.Locked, r.Paused, r.RefProtected,
		r.MaximumTimeout, r.MaintenanceNote, r.Builtin, r.CreatorID, r.CreatedAt, r.ContactedAt)
	if err != nil {
		return err
	}
	return t.SetRunnerProjects(r.ID, r.Projects)
}

// UpdateRunner implements pipeline.RunnerRecords.
func (t *tx) UpdateRunner(r *pipeline.Runner) error {
	return t.exec(`UPDATE runners SET owner_id=?, description=?, token_hash=?, token_hint=?, tags=?, run_untagged=?, locked=?, paused=?, ref_protected=?,
		maximum_timeout=?, maintenance_note=?, contacted_at=? WHERE id=?`,
		r.OwnerID, r.Description, r.TokenHash, r.TokenHint, list(r.Tags), r.RunUntagged, r.Locked, r.Paused, r.RefProtected,
		r.MaximumTimeout, r.MaintenanceNote, r.ContactedAt, r.ID)
}

// DeleteRunner implements pipeline.RunnerRecords.
func (t *tx) DeleteRunner(id int64) error { return t.exec(`DELETE FROM runners WHERE id = ?`, id) }

// Runner implements pipeline.RunnerRecords.
func (t *tx) Runner(id int64) (pipeline.Runner, error) {
	var r pipeline.Runner
	err := t.row("Runner", `SELECT `+runnerColumns+` FROM runners WHERE id = ?`, []any{id}, scanRunner(&r)...)
	return r, err
}

// RunnerByToken implements pipeline.RunnerRecords.
func (t *tx) RunnerByToken(hash string) (pipeline.Runner, error) {
	var r pipeline.Runner
	err := t.row("Runner", `SELECT `+runnerColumns+` FROM runners WHERE token_hash = ?`, []any{hash}, scanRunner(&r)...)
	return r, err
}

// Runners implements pipeline.RunnerRecords.
func (t *tx) Runners() ([]pipeline.Runner, error) {
	return rows(t, scanRunner, `SELECT `+runnerColumns+` FROM runners ORDER BY id`)
}

// SetRunnerProjects implements pipeline.RunnerRecords.
func (t *tx) SetRunnerProjects(id int64, projects []int64) error {
	if err := t.exec(`DELETE FROM runner_projects WHERE runner_id = ?`, id); err != nil {
		return err
	}
	for _, p := range projects {
		if err := t.exec(`INSERT OR IGNORE INTO runner_projects (runner_id, project_id) VALUES (?, ?)`, id, p); err != nil {
			return err
		}
	}
	return nil
}

// TouchManager implements pipeline.RunnerRecords.
func (t *tx) TouchManager(m *pipeline.RunnerManager) error {
	if err := t.exec(`INSERT INTO runner_managers (runner_id, system_id, info, ip, created_at, contacted_at) VALUES (?,?,?,?,?,?)
		ON CONFLICT (runner_id, system_id) DO UPDATE SET info = excluded.info, ip = excluded.ip, contacted_at = excluded.contacted_at`,
		m.RunnerID, m.SystemID, m.Info, m.IP, t.Now(), t.Now()); err != nil {
		return err
	}
	return t.exec(`UPDATE runners SET contacted_at = ? WHERE id = ?`, t.Now(), m.RunnerID)
}

// Managers implements pipeline.RunnerRecords.
func (t *tx) Managers(runnerID int64) ([]pipeline.RunnerManager, error) {
	return rows(t, func(m *pipeline.RunnerManager) []any {
		return []any{&m.ID, &m.RunnerID, &m.SystemID, &m.Info, &m.IP, &m.CreatedAt, &m.ContactedAt}
	}, `SELECT id, runner_id, system_id, info, ip, created_at, contacted_at FROM runner_managers WHERE runner_id = ? ORDER BY id`, runnerID)
}

// DeleteManager implements pipeline.RunnerRecords.
func (t *tx) DeleteManager(runnerID int64, systemID string) error {
	return t.exec(`DELETE FROM runner_managers WHERE runner_id = ? AND system_id = ?`, runnerID, systemID)
}
