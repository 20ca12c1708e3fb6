package pipelinedb

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline"
)

const jobColumns = `id, pipeline_id, project_id, name, stage, stage_index, position, bridge, status, when_, allow_failure, dag, needs, tags,
	resource_group, interruptible, retried, attempt, user_id, created_at, queued_at, started_at, finished_at, scheduled_at, erased_at,
	runner_id, system_id, failure_reason, exit_code, coverage, environment, environment_action, timeout, token_hash, trace_size,
	downstream_id, retry_max, start_in, extra`

// jobExtra are the rarely set fields of a job.
type jobExtra struct {
	RetryWhen  []string                  `json:"retry_when,omitempty"`
	RetryCodes []int                     `json:"retry_codes,omitempty"`
	AllowCodes []int                     `json:"allow_codes,omitempty"`
	Variables  []pipeline.SealedVariable `json:"variables,omitempty"`
	Strategy   string                    `json:"strategy,omitempty"`
	Inputs     map[string]string         `json:"inputs,omitempty"`
}

// extra returns what to store for the rarely set fields.
func extra(j *pipeline.Job) any {
	if len(j.RetryWhen)+len(j.RetryCodes)+len(j.AllowCodes)+len(j.Variables)+len(j.Strategy)+len(j.Inputs) == 0 {
		return "{}"
	}
	return jobExtra{j.RetryWhen, j.RetryCodes, j.AllowCodes, j.Variables, j.Strategy, j.Inputs}
}

type extraScan struct{ j *pipeline.Job }

func (s extraScan) Scan(src any) error {
	raw, ok := src.(string)
	if !ok {
		return fmt.Errorf("fields of a job are stored as %T", src)
	}
	if raw == "{}" {
		return nil
	}
	var e jobExtra
	if err := json.Unmarshal([]byte(raw), &e); err != nil {
		return err
	}
	s.j.RetryWhen, s.j.RetryCodes, s.j.AllowCodes, s.j.Variables, s.j.Strategy, s.j.Inputs = e.RetryWhen, e.RetryCodes, e.AllowCodes, e.Variables, e.Strategy, e.Inputs
	return nil
}

type startIn struct{ d *time.Duration }

func (s startIn) Scan(src any) error {
	ms, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a duration is stored as %T", src)
	}
	*s.d = time.Duration(ms) * time.Millisecond
	return nil
}

func scanJob(j *pipeline.Job) []any {
	return []any{&j.ID, &j.PipelineID, &j.ProjectID, &j.Name, &j.Stage, &j.StageIndex, &j.Position, &j.Bridge, &j.Status, &j.When, &j.AllowFailure, &j.DAG, &j.Needs, &j.Tags,
		&j.ResourceGroup, &j.Interruptible, &j.Retried, &j.Attempt, &j.UserID, &j.CreatedAt, &j.QueuedAt, &j.StartedAt, &j.FinishedAt, &j.ScheduledAt, &j.ErasedAt,
		&j.RunnerID, &j.SystemID, &j.FailureReason, &j.ExitCode, &j.Coverage, &j.Environment, &j.EnvironmentAction, &j.Timeout, &j.TokenHash, &j.TraceSize,
		&j.DownstreamID, &j.RetryMax, startIn{&j.StartIn}, extraScan{j}}
}

func list(v []string) any {
	if len(v) == 0 {
		return "[]"
	}
	return v
}

func jobValues(j *pipeline.Job) []any {
	return []any{j.PipelineID, j.ProjectID, j.Name, j.Stage, j.StageIndex, j.Position, j.Bridge, j.Status, j.When, j.AllowFailure, j.DAG, list(j.Needs), list(j.Tags),
		j.ResourceGroup, j.Interruptible, j.Retried, j.Attempt, j.UserID, j.CreatedAt, j.QueuedAt, j.StartedAt, j.FinishedAt, j.ScheduledAt, j.ErasedAt,
		j.RunnerID, j.SystemID, j.FailureReason, j.ExitCode, j.Coverage, j.Environment, j.EnvironmentAction, j.Timeout, j.TokenHash, j.TraceSize,
		j.DownstreamID, j.RetryMax, j.StartIn.Milliseconds(), extra(j)}
}

const jobInsert = `INSERT INTO jobs (pipeline_id, project_id, name, stage, stage_index, position, bridge, status, when_, allow_failure, dag, needs, tags,
	resource_group, interruptible, retried, attempt, user_id, created_at, queued_at, started_at, finished_at, scheduled_at, erased_at,
	runner_id, system_id, failure_reason, exit_code, coverage, environment, environment_action, timeout, token_hash, trace_size,
	downstream_id, retry_max, start_in, extra, options) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,`

// InsertJob implements pipeline.JobRecords.
func (t *tx) InsertJob(j *pipeline.Job, options []byte) error {
	j.CreatedAt = t.Now()
	id, err := t.insert(jobInsert+`?)`, append(jobValues(j), string(options))...)
	j.ID = id
	return err
}

// CopyJob implements pipeline.JobRecords.
func (t *tx) CopyJob(j *pipeline.Job, from int64) error {
	j.CreatedAt = t.Now()
	id, err := t.insert(jobInsert+`(SELECT options FROM jobs WHERE id = ?))`, append(jobValues(j), from)...)
	j.ID = id
	return err
}

// UpdateJob implements pipeline.JobRecords.
func (t *tx) UpdateJob(j *pipeline.Job) error {
	return t.exec(`UPDATE jobs SET status=?, allow_failure=?, retried=?, user_id=?, queued_at=?, started_at=?, finished_at=?, scheduled_at=?, erased_at=?,
		runner_id=?, system_id=?, failure_reason=?, exit_code=?, coverage=?, environment=?, timeout=?, token_hash=?, trace_size=?, downstream_id=?, extra=? WHERE id=?`,
		j.Status, j.AllowFailure, j.Retried, j.UserID, j.QueuedAt, j.StartedAt, j.FinishedAt, j.ScheduledAt, j.ErasedAt,
		j.RunnerID, j.SystemID, j.FailureReason, j.ExitCode, j.Coverage, j.Environment, j.Timeout, j.TokenHash, j.TraceSize, j.DownstreamID, extra(j), j.ID)
}

// Job implements pipeline.JobRecords.
func (t *tx) Job(id int64) (pipeline.Job, error) {
	var j pipeline.Job
	err := t.row("Job", `SELECT `+jobColumns+` FROM jobs WHERE id = ?`, []any{id}, scanJob(&j)...)
	return j, err
}

// JobOptions implements pipeline.JobRecords.
func (t *tx) JobOptions(id int64) ([]byte, error) {
	var raw []byte
	err := t.row("Job", `SELECT options FROM jobs WHERE id = ?`, []any{id}, &raw)
	return raw, err
}

// JobWithOptions implements pipeline.JobRecords.
func (t *tx) JobWithOptions(id int64) (pipeline.Job, []byte, error) {
	var j pipeline.Job
	var raw []byte
	err := t.row("Job", `SELECT `+jobColumns+`, options FROM jobs WHERE id = ?`, []any{id}, append(scanJob(&j), &raw)...)
	return j, raw, err
}

// JobByToken implements pipeline.JobRecords.
func (t *tx) JobByToken(hash string) (pipeline.Job, error) {
	var j pipeline.Job
	err := t.row("Job", `SELECT `+jobColumns+` FROM jobs WHERE token_hash = ? AND token_hash <> ''`, []any{hash}, scanJob(&j)...)
	return j, err
}

// PipelineJobs implements pipeline.JobRecords.
func (t *tx) PipelineJobs(pipelineID int64) ([]pipeline.Job, error) {
	return rows(t, scanJob, `SELECT `+jobColumns+` FROM jobs WHERE pipeline_id = ? AND retried = 0 ORDER BY stage_index, position`, pipelineID)
}

// Jobs implements pipeline.JobRecords.
func (t *tx) Jobs(f pipeline.JobFilter, page pipeline.Page) ([]pipeline.Job, int, error) {
	w := &where{}
	if f.ProjectID != 0 {
		w.add("project_id = ?", f.ProjectID)
	}
	if f.PipelineID != 0 {
		w.add("pipeline_id = ?", f.PipelineID)
	}
	if f.RunnerID != 0 {
		w.add("runner_id = ?", f.RunnerID)
	}
	w.in("status", f.Statuses)
	if !f.Retried && f.PipelineID != 0 {
		w.add("retried = 0")
	}
	if f.Bridge != nil {
		w.add("bridge = ?", *f.Bridge)
	}
	if f.Name != "" {
		w.add("name = ?", f.Name)
	}
	jobs, err := rows(t, scanJob, `SELECT `+jobColumns+` FROM jobs`+w.sql()+` ORDER BY id DESC LIMIT ? OFFSET ?`, append(w.args, page.Limit, page.Offset)...)
	if err != nil {
		return nil, 0, err
	}
	total, err := t.count("jobs", w)
	return jobs, total, err
}

// JobsWithStatus implements pipeline.JobRecords.
func (t *tx) JobsWithStatus(statuses ...string) ([]pipeline.Job, error) {
	w := &where{}
	w.add("status IN ('pending', 'running', 'canceling', 'scheduled', 'waiting_for_resource')") // so that the partial index serves
	w.in("status", statuses)
	w.add("retried = 0")
	return rows(t, scanJob, `SELECT `+jobColumns+` FROM jobs`+w.sql()+` ORDER BY id`, w.args...)
}

// ResourceJobs implements pipeline.JobRecords.
func (t *tx) ResourceJobs(projectID int64, group string) ([]pipeline.Job, error) {
	return rows(t, scanJob, `SELECT `+jobColumns+` FROM jobs WHERE project_id = ? AND resource_group = ? AND resource_group <> '' AND retried = 0
		AND status IN ('created', 'scheduled', 'waiting_for_resource', 'preparing', 'pending', 'running', 'canceling') ORDER BY id`, projectID, group)
}

// ResourceMode implements pipeline.JobRecords.
func (t *tx) ResourceMode(projectID int64, group string) (string, error) {
	var mode string
	err := t.QueryRow(`SELECT mode FROM resource_groups WHERE project_id = ? AND key = ?`, projectID, group).Scan(&mode)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return mode, err
}

// SetResourceMode implements pipeline.JobRecords.
func (t *tx) SetResourceMode(projectID int64, group, mode string) error {
	return t.exec(`INSERT INTO resource_groups (project_id, key, mode) VALUES (?, ?, ?)
		ON CONFLICT (project_id, key) DO UPDATE SET mode = excluded.mode`, projectID, group, mode)
}

// ResourceGroups implements pipeline.JobRecords.
func (t *tx) ResourceGroups(projectID int64) (map[string]string, error) {
	type group struct{ key, mode string }
	groups, err := rows(t, func(g *group) []any { return []any{&g.key, &g.mode} }, `SELECT key, mode FROM resource_groups WHERE project_id = ?`, projectID)
	out := make(map[string]string, len(groups))
	for _, g := range groups {
		out[g.key] = g.mode
	}
	return out, err
}

// Dotenv implements pipeline.JobRecords.
func (t *tx) Dotenv(jobID int64) ([]pipeline.SealedVariable, error) {
	raw, err := t.Report(jobID, "dotenv_variables")
	if err != nil || raw == nil {
		return nil, err
	}
	var vars []pipeline.SealedVariable
	if err := json.Unmarshal(raw, &vars); err != nil {
		return nil, fmt.Errorf("pipelinedb: dotenv of job %d: %w", jobID, err)
	}
	return vars, nil
}

// SetDotenv implements pipeline.JobRecords.
func (t *tx) SetDotenv(jobID int64, vars []pipeline.SealedVariable) error {
	raw, err := json.Marshal(vars)
	if err != nil {
		return fmt.Errorf("pipelinedb: dotenv: %w", err)
	}
	return t.SetReport(jobID, "dotenv_variables", raw)
}

// Report implements pipeline.JobRecords; a missing report is nil.
func (t *tx) Report(jobID int64, kind string) ([]byte, error) {
	var raw []byte
	err := t.QueryRow(`SELECT body FROM job_reports WHERE job_id = ? AND kind = ?`, jobID, kind).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return raw, err
}

// SetReport implements pipeline.JobRecords.
func (t *tx) SetReport(jobID int64, kind string, body []byte) error {
	return t.exec(`INSERT INTO job_reports (job_id, kind, body) VALUES (?, ?, ?)
		ON CONFLICT (job_id, kind) DO UPDATE SET body = excluded.body`, jobID, kind, string(body))
}

// Reports implements pipeline.JobRecords.
func (t *tx) Reports(pipelineID int64, kind string) (map[int64][]byte, error) {
	type report struct {
		job  int64
		body []byte
	}
	found, err := rows(t, func(r *report) []any { return []any{&r.job, &r.body} },
		`SELECT r.job_id, r.body FROM job_reports r JOIN jobs j ON j.id = r.job_id WHERE j.pipeline_id = ? AND j.retried = 0 AND r.kind = ?`, pipelineID, kind)
	out := make(map[int64][]byte, len(found))
	for _, r := range found {
		out[r.job] = r.body
	}
	return out, err
}
