package pipelinedb

import (
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/store"
)

const variableColumns = `id, owner, owner_id, key, sealed, file, protected, masked, hidden, raw, environment, description`

func scanVariable(v *pipeline.Variable) []any {
	return []any{&v.ID, &v.Owner, &v.OwnerID, &v.Key, &v.Sealed, &v.File, &v.Protected, &v.Masked, &v.Hidden, &v.Raw, &v.Environment, &v.Description}
}

// taken turns a violated uniqueness into an error of kind Invalid on a field.
func taken(err error, field, message string) error {
	if store.IsUnique(err) {
		return &delivery.Error{Kind: delivery.Invalid, Message: message, Fields: map[string][]string{field: {message}}, Err: err}
	}
	return err
}

// InsertVariable implements pipeline.SettingRecords.
func (t *tx) InsertVariable(v *pipeline.Variable) error {
	var err error
	v.ID, err = t.insert(`INSERT INTO ci_variables (owner, owner_id, key, sealed, file, protected, masked, hidden, raw, environment, description)
		VALUES (?,?,?,?,?,?,?,?,?,?,?)`, v.Owner, v.OwnerID, v.Key, v.Sealed, v.File, v.Protected, v.Masked, v.Hidden, v.Raw, v.Environment, v.Description)
	return taken(err, "key", "("+v.Key+") has already been taken")
}

// UpdateVariable implements pipeline.SettingRecords.
func (t *tx) UpdateVariable(v *pipeline.Variable) error {
	err := t.exec(`UPDATE ci_variables SET key=?, sealed=?, file=?, protected=?, masked=?, hidden=?, raw=?, environment=?, description=? WHERE id=?`,
		v.Key, v.Sealed, v.File, v.Protected, v.Masked, v.Hidden, v.Raw, v.Environment, v.Description, v.ID)
	return taken(err, "key", "("+v.Key+") has already been taken")
}

// DeleteVariable implements pipeline.SettingRecords.
func (t *tx) DeleteVariable(id int64) error {
	return t.exec(`DELETE FROM ci_variables WHERE id = ?`, id)
}

// Variables implements pipeline.SettingRecords.
func (t *tx) Variables(owner string, ownerID int64) ([]pipeline.Variable, error) {
	return rows(t, scanVariable, `SELECT `+variableColumns+` FROM ci_variables WHERE owner = ? AND owner_id = ? ORDER BY key, environment`, owner, ownerID)
}

// ScopedVariables implements pipeline.SettingRecords.
func (t *tx) ScopedVariables(projectID int64, groups []int64) ([]pipeline.Variable, error) {
	cond, args := `(owner = 'instance' AND owner_id = 0) OR (owner = 'project' AND owner_id = ?)`, []any{projectID}
	for _, g := range groups {
		cond += ` OR (owner = 'group' AND owner_id = ?)`
		args = append(args, g)
	}
	return rows(t, scanVariable, `SELECT `+variableColumns+` FROM ci_variables WHERE `+cond+` ORDER BY key, environment`, args...)
}

const scheduleColumns = `id, project_id, description, ref, cron, timezone, active, owner_id, next_run, variables, last_pipeline_id, created_at, updated_at`

func scanSchedule(s *pipeline.Schedule) []any {
	return []any{&s.ID, &s.ProjectID, &s.Description, &s.Ref, &s.Cron, &s.Timezone, &s.Active, &s.OwnerID, &s.NextRun, &s.Variables, &s.LastPipelineID, &s.CreatedAt, &s.UpdatedAt}
}

// InsertSchedule implements pipeline.SettingRecords.
func (t *tx) InsertSchedule(s *pipeline.Schedule) error {
	s.CreatedAt, s.UpdatedAt = t.Now(), t.Now()
	var err error
	s.ID, err = t.insert(`INSERT INTO pipeline_schedules (project_id, description, ref, cron, timezone, active, owner_id, next_run, variables, last_pipeline_id, created_at, updated_at)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`, s.ProjectID, s.Description, s.Ref, s.Cron, s.Timezone, s.Active, s.OwnerID, s.NextRun, s.Variables, s.LastPipelineID, s.CreatedAt, s.UpdatedAt)
	return err
}

// UpdateSchedule implements pipeline.SettingRecords.
func (t *tx) UpdateSchedule(s *pipeline.Schedule) error {
	s.UpdatedAt = t.Now()
	return t.exec(`UPDATE pipeline_schedules SET description=?, ref=?, cron=?, timezone=?, active=?, owner_id=?, next_run=?, variables=?, last_pipeline_id=?, updated_at=? WHERE id=?`,
		s.Description, s.Ref, s.Cron, s.Timezone, s.Active, s.OwnerID, s.NextRun, s.Variables, s.LastPipelineID, s.UpdatedAt, s.ID)
}

// DeleteSchedule implements pipeline.SettingRecords.
func (t *tx) DeleteSchedule(id int64) error {
	return t.exec(`DELETE FROM pipeline_schedules WHERE id = ?`, id)
}

// Schedule implements pipeline.SettingRecords.
func (t *tx) Schedule(id int64) (pipeline.Schedule, error) {
	var s pipeline.Schedule
	err := t.row("Pipeline Schedule", `SELECT `+scheduleColumns+` FROM pipeline_schedules WHERE id = ?`, []any{id}, scanSchedule(&s)...)
	return s, err
}

// Schedules implements pipeline.SettingRecords.
func (t *tx) Schedules(projectID int64) ([]pipeline.Schedule, error) {
	return rows(t, scanSchedule, `SELECT `+scheduleColumns+` FROM pipeline_schedules WHERE project_id = ? ORDER BY id`, projectID)
}

// DueSchedules implements pipeline.SettingRecords.
func (t *tx) DueSchedules(now time.Time) ([]pipeline.Schedule, time.Time, error) {
	due, err := rows(t, scanSchedule, `SELECT `+scheduleColumns+` FROM pipeline_schedules WHERE active = 1 AND next_run <> 0 AND next_run <= ? ORDER BY next_run`, now)
	if err != nil {
		return nil, time.Time{}, err
	}
	var next time.Time
	err = t.row("Schedule", `SELECT COALESCE(MIN(next_run), 0) FROM pipeline_schedules WHERE active = 1 AND next_run > ?`, []any{now}, &next)
	return due, next, err
}

const triggerColumns = `id, project_id, description, token_hash, token_hint, owner_id, created_at, last_used`

func scanTrigger(g *pipeline.Trigger) []any {
	return []any{&g.ID, &g.ProjectID, &g.Description, &g.TokenHash, &g.TokenHint, &g.OwnerID, &g.CreatedAt, &g.LastUsed}
}

// InsertTrigger implements pipeline.SettingRecords.
func (t *tx) InsertTrigger(g *pipeline.Trigger) error {
	g.CreatedAt = t.Now()
	var err error
	g.ID, err = t.insert(`INSERT INTO pipeline_triggers (project_id, description, token_hash, token_hint, owner_id, created_at) VALUES (?,?,?,?,?,?)`,
		g.ProjectID, g.Description, g.TokenHash, g.TokenHint, g.OwnerID, g.CreatedAt)
	return err
}

// UpdateTrigger implements pipeline.SettingRecords.
func (t *tx) UpdateTrigger(g *pipeline.Trigger) error {
	return t.exec(`UPDATE pipeline_triggers SET description=?, owner_id=?, last_used=? WHERE id=?`, g.Description, g.OwnerID, g.LastUsed, g.ID)
}

// DeleteTrigger implements pipeline.SettingRecords.
func (t *tx) DeleteTrigger(id int64) error {
	return t.exec(`DELETE FROM pipeline_triggers WHERE id = ?`, id)
}

// Triggers implements pipeline.SettingRecords.
func (t *tx) Triggers(projectID int64) ([]pipeline.Trigger, error) {
	return rows(t, scanTrigger, `SELECT `+triggerColumns+` FROM pipeline_triggers WHERE project_id = ? ORDER BY id`, projectID)
}

// TriggerByToken implements pipeline.SettingRecords.
func (t *tx) TriggerByToken(hash string) (pipeline.Trigger, error) {
	var g pipeline.Trigger
	err := t.row("Trigger", `SELECT `+triggerColumns+` FROM pipeline_triggers WHERE token_hash = ?`, []any{hash}, scanTrigger(&g)...)
	return g, err
}

// PutSecret implements pipeline.SettingRecords.
func (t *tx) PutSecret(s *pipeline.Secret) error {
	s.UpdatedAt = t.Now()
	return t.exec(`INSERT INTO ci_secrets (owner, owner_id, path, field, sealed, updated_at) VALUES (?,?,?,?,?,?)
		ON CONFLICT (owner, owner_id, path, field) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at`,
		s.Owner, s.OwnerID, s.Path, s.Field, s.Sealed, s.UpdatedAt)
}

// DeleteSecret implements pipeline.SettingRecords.
func (t *tx) DeleteSecret(id int64) error { return t.exec(`DELETE FROM ci_secrets WHERE id = ?`, id) }

// Secrets implements pipeline.SettingRecords.
func (t *tx) Secrets(owner string, ownerID int64) ([]pipeline.Secret, error) {
	return rows(t, func(s *pipeline.Secret) []any {
		return []any{&s.ID, &s.Owner, &s.OwnerID, &s.Path, &s.Field, &s.Sealed, &s.UpdatedAt}
	}, `SELECT id, owner, owner_id, path, field, sealed, updated_at FROM ci_secrets WHERE owner = ? AND owner_id = ? ORDER BY path, field`, owner, ownerID)
}
