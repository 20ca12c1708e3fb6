package pipelinedb

import (
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline"
)

const artifactColumns = `a.id, a.job_id, a.pipeline_id, a.project_id, a.type, a.format, a.filename, a.size, a.sha256, a.created_at, a.expire_at`

func scanArtifact(a *pipeline.Artifact) []any {
	return []any{&a.ID, &a.JobID, &a.PipelineID, &a.ProjectID, &a.Type, &a.Format, &a.Filename, &a.Size, &a.SHA256, &a.CreatedAt, &a.ExpireAt}
}

// InsertArtifact implements pipeline.ArtifactRecords.
func (t *tx) InsertArtifact(a *pipeline.Artifact) error {
	a.CreatedAt = t.Now()
	if err := t.exec(`DELETE FROM artifacts WHERE job_id = ? AND type = ?`, a.JobID, a.Type); err != nil {
		return err
	}
	var err error
	a.ID, err = t.insert(`INSERT INTO artifacts (job_id, pipeline_id, project_id, type, format, filename, size, sha256, created_at, expire_at) VALUES (?,?,?,?,?,?,?,?,?,?)`,
		a.JobID, a.PipelineID, a.ProjectID, a.Type, a.Format, a.Filename, a.Size, a.SHA256, a.CreatedAt, a.ExpireAt)
	return err
}

// Artifacts implements pipeline.ArtifactRecords.
func (t *tx) Artifacts(jobID int64) ([]pipeline.Artifact, error) {
	return rows(t, scanArtifact, `SELECT `+artifactColumns+` FROM artifacts a WHERE a.job_id = ? ORDER BY a.id`, jobID)
}

// PipelineArtifacts implements pipeline.ArtifactRecords.
func (t *tx) PipelineArtifacts(pipelineID int64) (map[int64][]pipeline.Artifact, error) {
	all, err := rows(t, scanArtifact, `SELECT `+artifactColumns+` FROM artifacts a WHERE a.pipeline_id = ? ORDER BY a.id`, pipelineID)
	out := map[int64][]pipeline.Artifact{}
	for _, a := range all {
		out[a.JobID] = append(out[a.JobID], a)
	}
	return out, err
}

// ProjectArtifacts implements pipeline.ArtifactRecords.
func (t *tx) ProjectArtifacts(projectID int64, page pipeline.Page) ([]pipeline.Artifact, int, error) {
	w := &where{}
	w.add("a.project_id = ?", projectID)
	found, err := rows(t, scanArtifact, `SELECT `+artifactColumns+` FROM artifacts a`+w.sql()+` ORDER BY a.id DESC LIMIT ? OFFSET ?`, projectID, page.Limit, page.Offset)
	if err != nil {
		return nil, 0, err
	}
	total, err := t.count("artifacts a", w)
	return found, total, err
}

// DeleteArtifact implements pipeline.ArtifactRecords.
func (t *tx) DeleteArtifact(id int64) error { return t.exec(`DELETE FROM artifacts WHERE id = ?`, id) }

// UpdateArtifact implements pipeline.ArtifactRecords.
func (t *tx) UpdateArtifact(a *pipeline.Artifact) error {
	return t.exec(`UPDATE artifacts SET expire_at = ? WHERE id = ?`, a.ExpireAt, a.ID)
}

// ExpiredArtifacts implements pipeline.ArtifactRecords.
func (t *tx) ExpiredArtifacts(now time.Time, limit int) ([]pipeline.Artifact, error) {
	return rows(t, scanArtifact, `SELECT `+artifactColumns+` FROM artifacts a WHERE a.expire_at <> 0 AND a.expire_at <= ?
		AND NOT EXISTS (SELECT 1 FROM pipelines p WHERE p.id = a.pipeline_id AND p.status = 'success' AND p.id =
			(SELECT MAX(q.id) FROM pipelines q WHERE q.project_id = p.project_id AND q.ref = p.ref AND q.status = 'success' AND q.child = 0))
		ORDER BY a.expire_at LIMIT ?`, now, limit)
}

// ArtifactUses implements pipeline.ArtifactRecords.
func (t *tx) ArtifactUses(sha256 string) (int, error) {
	var n int
	err := t.row("Artifact", `SELECT count(*) FROM artifacts WHERE sha256 = ?`, []any{sha256}, &n)
	return n, err
}

// LatestArtifactJob implements pipeline.ArtifactRecords.
func (t *tx) LatestArtifactJob(projectID int64, ref, jobName string) (pipeline.Job, error) {
	var id int64
	w := &where{}
	w.add("p.project_id = ? AND p.ref = ? AND p.status = 'success' AND p.child = 0", projectID, ref)
	w.add("j.retried = 0 AND j.status = 'success'")
	if jobName != "" {
		w.add("j.name = ?", jobName)
	}
	w.add("EXISTS (SELECT 1 FROM artifacts a WHERE a.job_id = j.id AND a.type = 'archive')")
	if err := t.row("Job", `SELECT j.id FROM pipelines p JOIN jobs j ON j.pipeline_id = p.id`+w.sql()+` ORDER BY p.id DESC, j.id DESC LIMIT 1`, w.args, &id); err != nil {
		return pipeline.Job{}, err
	}
	return t.Job(id)
}
