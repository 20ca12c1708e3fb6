// Package releasedb keeps the release timeline in the platform's database. It
// implements release.Store.
//
// It receives what the timeline has seen and emits nothing. It must import no
// stage but release, whose records it stores.
package releasedb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/store"
)

// DB keeps the timeline.
type DB struct{ db *store.DB }

var _ release.Store = (*DB)(nil)

// New returns the timeline kept in db.
func New(db *store.DB) *DB { return &DB{db} }

const newestRows = 200

func (d *DB) write(ctx context.Context, what, query string, args ...any) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(query, args...); err != nil {
			return fmt.Errorf("releasedb: %s: %w", what, err)
		}
		return nil
	})
}

// list reads the JSON of rows; the query selects id and body.
func list[T any](ctx context.Context, d *DB, set func(*T, int64), query string, args ...any) ([]T, error) {
	out := []T{}
	err := d.db.Read(ctx, func(t *store.Tx) error {
		found, err := store.Rows(t, func(r store.Row) (v T, err error) {
			var id int64
			var body string
			if err = r.Scan(&id, &body); err != nil {
				return v, err
			}
			if err = json.Unmarshal([]byte(body), &v); err == nil && set != nil {
				set(&v, id)
			}
			return v, err
		}, query, args...)
		out = append(out, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("releasedb: list: %w", err)
	}
	return out, nil
}

func one[T any](ctx context.Context, d *DB, query string, args ...any) (T, error) {
	var v T
	var body string
	err := d.db.Read(ctx, func(t *store.Tx) error { return t.QueryRow(query, args...).Scan(&body) })
	if errors.Is(err, sql.ErrNoRows) {
		return v, delivery.Errorf(delivery.NotFound, "The release timeline does not know it.")
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &v)
	}
	if err != nil {
		return v, fmt.Errorf("releasedb: read: %w", err)
	}
	return v, nil
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("releasedb: encode: %w", err)
	}
	return string(b), nil
}

// PutManifest implements release.Store.
func (d *DB) PutManifest(ctx context.Context, m release.Manifest) error {
	body, err := encode(m)
	if err != nil {
		return err
	}
	return d.write(ctx, "store manifest", `INSERT INTO release_manifests (config_project_id, sha, project_id, source_sha, environment, digest, at, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (config_project_id, sha) DO NOTHING`,
		m.ConfigProjectID, m.SHA, m.ProjectID, m.SourceSHA, m.Environment, m.Digest, store.Millis(m.At), body)
}

// Manifest implements release.Store.
func (d *DB) Manifest(ctx context.Context, configProjectID int64, sha string) (release.Manifest, error) {
	return one[release.Manifest](ctx, d, `SELECT body FROM release_manifests WHERE config_project_id = ? AND sha = ?`, configProjectID, sha)
}

// Manifests implements release.Store.
func (d *DB) Manifests(ctx context.Context, projectID int64, sha string) ([]release.Manifest, error) {
	if sha == "" {
		return list[release.Manifest](ctx, d, nil, `SELECT 0, body FROM release_manifests WHERE project_id = ? ORDER BY at DESC, rowid DESC LIMIT ?`, projectID, newestRows)
	}
	return list[release.Manifest](ctx, d, nil, `SELECT 0, body FROM release_manifests WHERE project_id = ? AND source_sha = ? ORDER BY at, rowid`, projectID, sha)
}

// PutSync implements release.Store.
func (d *DB) PutSync(ctx context.Context, s release.Sync) error {
	body, err := encode(s)
	if err != nil {
		return err
	}
	return d.write(ctx, "store sync", `INSERT INTO release_syncs (application, revision, config_project_id, started_at, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (application, revision) DO UPDATE SET config_project_id = excluded.config_project_id, started_at = excluded.started_at, body = excluded.body`,
		s.Application, s.Revision, s.ConfigProjectID, store.Millis(s.Started), body)
}

// Sync implements release.Store.
func (d *DB) Sync(ctx context.Context, application, revision string) (release.Sync, error) {
	return one[release.Sync](ctx, d, `SELECT body FROM release_syncs WHERE application = ? AND revision = ?`, application, revision)
}

// Syncs implements release.Store.
func (d *DB) Syncs(ctx context.Context, configProjectID int64, from time.Time) ([]release.Sync, error) {
	return list[release.Sync](ctx, d, nil, `SELECT 0, body FROM release_syncs WHERE config_project_id = ? AND started_at >= ? ORDER BY started_at, rowid LIMIT 500`,
		configProjectID, store.Millis(from))
}

// PutAttempt implements release.Store.
func (d *DB) PutAttempt(ctx context.Context, a *release.Attempt, settled bool) error {
	body, err := encode(a)
	if err != nil {
		return err
	}
	done := 0
	if settled {
		done = 1
	}
	if a.ID != 0 {
		return d.write(ctx, "store attempt", `UPDATE release_attempts SET settled = ?, body = ? WHERE id = ?`, done, body, a.ID)
	}
	return d.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO release_attempts (namespace, rollout, project_id, sha, started_at, settled, body) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			a.Namespace, a.Rollout, a.ProjectID, a.SHA, store.Millis(a.Started), done, body)
		if err == nil {
			a.ID, err = res.LastInsertId()
		}
		if err != nil {
			return fmt.Errorf("releasedb: store attempt: %w", err)
		}
		return nil
	})
}

func (d *DB) attempts(ctx context.Context, query string, args ...any) ([]release.Attempt, error) {
	return list(ctx, d, func(a *release.Attempt, id int64) { a.ID = id }, `SELECT id, body FROM release_attempts `+query, args...)
}

// Attempts implements release.Store.
func (d *DB) Attempts(ctx context.Context, projectID int64, sha string) ([]release.Attempt, error) {
	if sha == "" {
		return d.attempts(ctx, `WHERE project_id = ? ORDER BY id DESC LIMIT ?`, projectID, newestRows)
	}
	return d.attempts(ctx, `WHERE project_id = ? AND sha = ? ORDER BY id`, projectID, sha)
}

// RolloutAttempts implements release.Store.
func (d *DB) RolloutAttempts(ctx context.Context, namespace, rollout string, limit int) ([]release.Attempt, error) {
	return d.attempts(ctx, `WHERE namespace = ? AND rollout = ? ORDER BY id DESC LIMIT ?`, namespace, rollout, limit)
}

// Unsettled implements release.Store.
func (d *DB) Unsettled(ctx context.Context) ([]release.Attempt, error) {
	return d.attempts(ctx, `WHERE settled = 0 ORDER BY id`)
}

// PutEnvironment implements release.Store.
func (d *DB) PutEnvironment(ctx context.Context, e release.Environment) error {
	body, err := encode(e)
	if err != nil {
		return err
	}
	return d.write(ctx, "store environment", `INSERT INTO release_environments (namespace, rollout, project_id, body) VALUES (?, ?, ?, ?)
		ON CONFLICT (namespace, rollout) DO UPDATE SET project_id = excluded.project_id, body = excluded.body`, e.Namespace, e.Rollout, e.ProjectID, body)
}

// Environments implements release.Store.
func (d *DB) Environments(ctx context.Context, projectID int64) ([]release.Environment, error) {
	return list[release.Environment](ctx, d, nil, `SELECT 0, body FROM release_environments WHERE project_id = ? ORDER BY namespace, rollout`, projectID)
}

// Settings implements release.Store.
func (d *DB) Settings(ctx context.Context, projectID int64) (release.Settings, error) {
	return one[release.Settings](ctx, d, `SELECT body FROM release_settings WHERE project_id = ?`, projectID)
}

// PutSettings implements release.Store.
func (d *DB) PutSettings(ctx context.Context, projectID int64, v release.Settings) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	return d.write(ctx, "store settings", `INSERT INTO release_settings (project_id, body) VALUES (?, ?) ON CONFLICT (project_id) DO UPDATE SET body = excluded.body`, projectID, body)
}

// DeleteProject implements release.Store.
func (d *DB) DeleteProject(ctx context.Context, projectID int64) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		for _, query := range []string{
			`DELETE FROM release_manifests WHERE project_id = ?1 OR config_project_id = ?1`, `DELETE FROM release_syncs WHERE config_project_id = ?`,
			`DELETE FROM release_attempts WHERE project_id = ?`, `DELETE FROM release_environments WHERE project_id = ?`,
			`DELETE FROM release_settings WHERE project_id = ?`,
		} {
			if _, err := t.Exec(query, projectID); err != nil {
				return fmt.Errorf("releasedb: delete project: %w", err)
			}
		}
		return nil
	})
}
