// Package scandb keeps scans and their reports in the platform's database. It
// implements scan.Store.
//
// It receives scans and emits delivery.ImageScanned through the outbox. It must
// import no stage but scan, whose records it stores.
package scandb

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/scan/report"
	"github.com/slipwayhq/slipway/internal/store"
)

// DB keeps scans.
type DB struct{ db *store.DB }

var _ scan.Store = (*DB)(nil)

// New returns the scans kept in db.
func New(db *store.DB) *DB { return &DB{db} }

// Add implements scan.Store.
func (d *DB) Add(ctx context.Context, s scan.Scan) (int64, error) {
	var id int64
	err := d.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO scans (project_id, job_id, type, repository, digest, name, status, error, counts, queued_at, started_at, ended_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, '', '{}', ?, 0, 0)`, s.ProjectID, s.JobID, string(s.Type), s.Repository, s.Digest, s.Name, string(s.Status), store.Millis(s.QueuedAt))
		if err == nil {
			id, err = res.LastInsertId()
		}
		if err != nil {
			return fmt.Errorf("scandb: add scan: %w", err)
		}
		return nil
	})
	return id, err
}

// Update implements scan.Store.
func (d *DB) Update(ctx context.Context, s scan.Scan) error {
	counts, err := json.Marshal(s.Counts)
	if err != nil {
		return fmt.Errorf("scandb: scan %d: %w", s.ID, err)
	}
	var packed []byte
	if s.Report != nil {
		if packed, err = pack(s.Report); err != nil {
			return fmt.Errorf("scandb: scan %d: %w", s.ID, err)
		}
	}
	return d.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE scans SET status = ?, error = ?, counts = ?, report = ?, started_at = ?, ended_at = ? WHERE id = ?`,
			string(s.Status), s.Error, string(counts), packed, store.Millis(s.StartedAt), store.Millis(s.EndedAt), s.ID)
		if err != nil {
			return fmt.Errorf("scandb: update scan %d: %w", s.ID, err)
		}
		if s.Type != scan.TypeImage || s.Status != scan.Success && s.Status != scan.Failed {
			return nil
		}
		return t.Emit(delivery.EventImageScanned, s.ProjectID, delivery.ImageScanned{Repository: s.Repository, Digest: s.Digest, Counts: s.Counts, Err: s.Error})
	})
}

func pack(r *report.Report) ([]byte, error) {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	if err := errors.Join(json.NewEncoder(gz).Encode(r), gz.Close()); err != nil {
		return nil, fmt.Errorf("pack report: %w", err)
	}
	return buf.Bytes(), nil
}

func unpack(packed []byte) (*report.Report, error) {
	gz, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack report: %w", err)
	}
	var r report.Report
	if err := json.NewDecoder(gz).Decode(&r); err != nil {
		return nil, fmt.Errorf("unpack report: %w", err)
	}
	return &r, nil
}

const columns = `id, project_id, job_id, type, repository, digest, name, status, error, counts, queued_at, started_at, ended_at`

func read(row store.Row, extra ...any) (scan.Scan, error) {
	var s scan.Scan
	var kind, status, counts string
	var queued, started, ended int64
	err := row.Scan(append([]any{&s.ID, &s.ProjectID, &s.JobID, &kind, &s.Repository, &s.Digest, &s.Name, &status, &s.Error, &counts, &queued, &started, &ended}, extra...)...)
	if err != nil {
		return s, err
	}
	s.Type, s.Status = scan.Type(kind), scan.Status(status)
	s.QueuedAt, s.StartedAt, s.EndedAt = store.Time(queued), store.Time(started), store.Time(ended)
	return s, json.Unmarshal([]byte(counts), &s.Counts)
}

func (d *DB) one(ctx context.Context, query string, args ...any) (scan.Scan, error) {
	var s scan.Scan
	err := d.db.Read(ctx, func(t *store.Tx) error {
		var packed []byte
		var err error
		if s, err = read(t.QueryRow(`SELECT `+columns+`, report FROM scans `+query, args...), &packed); err != nil {
			return err
		}
		if packed != nil {
			s.Report, err = unpack(packed)
		}
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return s, delivery.Errorf(delivery.NotFound, "There is no such scan.")
	}
	if err != nil {
		return s, fmt.Errorf("scandb: read scan: %w", err)
	}
	return s, nil
}

func (d *DB) list(ctx context.Context, query string, args ...any) ([]scan.Scan, error) {
	out, _, err := store.Page(ctx, d.db, store.Selection{Columns: columns, From: "FROM scans " + query, Args: args}, 0, 0, func(r store.Row) (scan.Scan, error) { return read(r) })
	if err != nil {
		return nil, fmt.Errorf("scandb: list scans: %w", err)
	}
	return out, nil
}

// Scan implements scan.Store.
func (d *DB) Scan(ctx context.Context, id int64) (scan.Scan, error) {
	return d.one(ctx, `WHERE id = ?`, id)
}

// Next implements scan.Store.
func (d *DB) Next(ctx context.Context) (scan.Scan, error) {
	return d.one(ctx, `WHERE status = 'pending' AND type = 'image' ORDER BY id LIMIT 1`)
}

// Interrupted implements scan.Store.
func (d *DB) Interrupted(ctx context.Context) ([]scan.Scan, error) {
	return d.list(ctx, `WHERE status = 'running' OR status = 'pending' AND type <> 'image' ORDER BY id`)
}

// ByDigest implements scan.Store.
func (d *DB) ByDigest(ctx context.Context, repository, digest string) (scan.Scan, error) {
	return d.one(ctx, `WHERE digest = ?1 AND type = 'image' AND (?2 = '' OR repository = ?2)
		ORDER BY CASE status WHEN 'failed' THEN 1 ELSE 0 END, id DESC LIMIT 1`, digest, repository)
}

// Outdated implements scan.Store.
func (d *DB) Outdated(ctx context.Context, before time.Time) ([]scan.Scan, error) {
	return d.list(ctx, `WHERE type = 'image' AND status IN ('success', 'failed') AND started_at < ?
		AND NOT EXISTS (SELECT 1 FROM scans later WHERE later.digest = scans.digest AND later.repository = scans.repository AND later.type = 'image' AND later.id > scans.id)
		ORDER BY id DESC`, store.Millis(before))
}

// Prune implements scan.Store.
func (d *DB) Prune(ctx context.Context, repository, digest string, keep int) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`DELETE FROM scans WHERE id IN (SELECT id FROM scans WHERE digest = ? AND repository = ? AND type = 'image' AND job_id = 0
			AND status IN ('success', 'failed') ORDER BY id DESC LIMIT -1 OFFSET ?)`, digest, repository, keep)
		if err != nil {
			return fmt.Errorf("scandb: prune scans of %s@%s: %w", repository, digest, err)
		}
		return nil
	})
}

// OfProject implements scan.Store.
func (d *DB) OfProject(ctx context.Context, projectID int64, limit, offset int) ([]scan.Scan, int, error) {
	var total int
	err := d.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(`SELECT count(*) FROM scans WHERE project_id = ?`, projectID).Scan(&total)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("scandb: count scans: %w", err)
	}
	list, err := d.list(ctx, `WHERE project_id = ? ORDER BY id DESC LIMIT ? OFFSET ?`, projectID, limit, offset)
	return list, total, err
}

// OfJob implements scan.Store.
func (d *DB) OfJob(ctx context.Context, jobID int64) ([]scan.Scan, error) {
	return d.list(ctx, `WHERE job_id = ? AND job_id <> 0 ORDER BY id`, jobID)
}
