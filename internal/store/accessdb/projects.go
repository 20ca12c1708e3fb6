package accessdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/store"
)

// ProjectColumns selects a project p joined with its namespace n, in the order
// that ScanProject reads.
const ProjectColumns = `p.id, p.path, p.name, p.description, p.visibility, p.default_branch, p.empty, p.archived, p.creator_id, COALESCE(p.forked_from_id, 0), p.ci_config_path, p.created_at, p.last_activity, n.id, n.kind, n.path, n.full_path, n.name`

// ScanProject reads a row of ProjectColumns, and further columns into more.
func ScanProject(r interface{ Scan(...any) error }, more ...any) (p delivery.Project, err error) {
	var created, activity int64
	n := &p.Namespace
	dest := []any{&p.ID, &p.Path, &p.Name, &p.Description, &p.Visibility, &p.DefaultBranch, &p.Empty, &p.Archived, &p.CreatorID, &p.ForkedFromID, &p.CIConfigPath, &created, &activity,
		&n.ID, &n.Kind, &n.Path, &n.FullPath, &n.Name}
	err = r.Scan(append(dest, more...)...)
	p.FullPath = n.FullPath + "/" + p.Path
	p.CreatedAt, p.LastActivity = store.Time(created), store.Time(activity)
	return p, err
}

func scanProject(r store.Row) (delivery.Project, error) { return ScanProject(r) }

// ProjectByID implements access.Store.
func (s *Store) ProjectByID(ctx context.Context, id int64) (p delivery.Project, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		p, err = scanProject(t.QueryRow(`SELECT `+ProjectColumns+` FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = ?`, id))
		return store.Missing("Project", err)
	})
	return p, err
}

// ProjectByPath implements access.Store. A path that a project had before it
// was moved leads to it, as long as nothing else has taken the path.
func (s *Store) ProjectByPath(ctx context.Context, fullPath string) (p delivery.Project, err error) {
	i := strings.LastIndexByte(fullPath, '/')
	if i < 0 {
		return p, store.Missing("Project", sql.ErrNoRows)
	}
	err = s.db.Read(ctx, func(t *store.Tx) error {
		p, err = scanProject(t.QueryRow(`SELECT `+ProjectColumns+` FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE n.full_path_key = ? AND p.path_key = ?`,
			key(fullPath[:i]), key(fullPath[i+1:])))
		if errors.Is(err, sql.ErrNoRows) { // it may have been there before
			p, err = scanProject(t.QueryRow(`SELECT `+ProjectColumns+` FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = (SELECT project_id FROM project_redirects WHERE full_path_key = ?)`, key(fullPath)))
		}
		return store.Missing("Project", err)
	})
	return p, err
}

// ProjectRole implements access.Store.
func (s *Store) ProjectRole(ctx context.Context, projectID, userID int64, now time.Time) (role delivery.Role, err error) {
	ms := store.Millis(now)
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(`WITH RECURSIVE up (id, parent_id, owner_id) AS (
				SELECT n.id, n.parent_id, n.owner_id FROM namespaces n JOIN projects p ON p.namespace_id = n.id WHERE p.id = ?
				UNION ALL SELECT n.id, n.parent_id, n.owner_id FROM namespaces n JOIN up ON n.id = up.parent_id)
			SELECT COALESCE(MAX(role), 0) FROM (
				SELECT m.role FROM project_members m WHERE m.project_id = ? AND m.user_id = ? AND (m.expires_at = 0 OR m.expires_at > ?)
				UNION ALL SELECT m.role FROM group_members m WHERE m.user_id = ? AND m.group_id IN (SELECT id FROM up) AND (m.expires_at = 0 OR m.expires_at > ?)
				UNION ALL SELECT 50 FROM up WHERE owner_id = ?) AS roles`,
			projectID, projectID, userID, ms, userID, ms, userID).Scan(&role)
	})
	if err != nil {
		return 0, fmt.Errorf("accessdb: project role: %w", err)
	}
	return role, nil
}

// ProjectInGroup implements access.Store.
func (s *Store) ProjectInGroup(ctx context.Context, projectID, groupID int64) (ok bool, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(`WITH RECURSIVE up (id, parent_id) AS (
				SELECT n.id, n.parent_id FROM namespaces n JOIN projects p ON p.namespace_id = n.id WHERE p.id = ?
				UNION ALL SELECT n.id, n.parent_id FROM namespaces n JOIN up ON n.id = up.parent_id)
			SELECT EXISTS (SELECT 1 FROM up WHERE id = ?)`, projectID, groupID).Scan(&ok)
	})
	if err != nil {
		return false, fmt.Errorf("accessdb: project in group: %w", err)
	}
	return ok, nil
}

// Allowances implements access.Store.
func (s *Store) Allowances(ctx context.Context, projectID int64) ([]access.Allowance, error) {
	out, _, err := list(ctx, s.db, ProjectColumns+`, a.push`, `FROM job_token_allowlist a JOIN projects p ON p.id = a.source_id JOIN namespaces n ON n.id = p.namespace_id WHERE a.project_id = ?`,
		"p.id", []any{projectID}, 0, 0, func(r store.Row) (a access.Allowance, err error) {
			a.Source, err = ScanProject(r, &a.Push)
			return a, err
		})
	return out, err
}

// Allowance implements access.Store.
func (s *Store) Allowance(ctx context.Context, projectID, sourceID int64) (allowed, push bool, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		err := t.QueryRow(`SELECT push FROM job_token_allowlist WHERE project_id = ? AND source_id = ?`, projectID, sourceID).Scan(&push)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accessdb: job token allowlist: %w", err)
		}
		allowed = true
		return nil
	})
	return allowed, push, err
}

// SetAllowance implements access.Store.
func (s *Store) SetAllowance(ctx context.Context, projectID, sourceID int64, push bool) error {
	return s.exec(ctx, "allow job tokens", `INSERT INTO job_token_allowlist (project_id, source_id, push) VALUES (?, ?, ?)
		ON CONFLICT (project_id, source_id) DO UPDATE SET push = excluded.push`, projectID, sourceID, push)
}

// DeleteAllowance implements access.Store.
func (s *Store) DeleteAllowance(ctx context.Context, projectID, sourceID int64) error {
	return s.exec(ctx, "disallow job tokens", `DELETE FROM job_token_allowlist WHERE project_id = ? AND source_id = ?`, projectID, sourceID)
}
