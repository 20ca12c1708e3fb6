// Package forgedb keeps projects, pushes, merge requests, webhooks and the rest
// of the forge's records in the platform's database: it implements
// forge.Store.
//
// It receives calls of the forge and emits the forge's events through the
// outbox. It must not import any other stage.
package forgedb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
)

// Store implements forge.Store.
type Store struct {
	db  *store.DB
	box *seal.Box
}

var _ forge.Store = (*Store)(nil)

// SealedColumns are the columns that are encrypted at rest.
var SealedColumns = []string{mirrorPassword, hookToken}

const (
	mirrorPassword = "mirrors.password"
	hookToken      = "hooks.token"
)

// New returns a Store over an open database; the box seals the credentials of
// mirrors and webhooks.
func New(db *store.DB, box *seal.Box) *Store { return &Store{db: db, box: box} }

func key(s string) string { return strings.ToLower(s) }

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

func encode(v any) (string, error) {
	raw, err := json.Marshal(v)
	return string(raw), err
}

func list[T any](ctx context.Context, db *store.DB, s store.Selection, limit, offset int, scan func(store.Row) (T, error)) ([]T, int, error) {
	out, total, err := store.Page(ctx, db, s, limit, offset, scan)
	if err != nil {
		return nil, 0, fmt.Errorf("forgedb: list: %w", err)
	}
	return out, total, nil
}

func one[T any](ctx context.Context, db *store.DB, what, text string, args []any, scan func(store.Row) (T, error)) (v T, err error) {
	err = db.Read(ctx, func(t *store.Tx) error {
		v, err = scan(t.QueryRow(text, args...))
		return store.Missing(what, err)
	})
	return v, err
}

func (s *Store) exec(ctx context.Context, what, text string, args ...any) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(text, args...); err != nil {
			return fmt.Errorf("forgedb: %s: %w", what, err)
		}
		return nil
	})
}

func insert(t *store.Tx, text string, args ...any) (int64, error) {
	res, err := t.Exec(text, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

const fromProjects = `FROM projects p JOIN namespaces n ON n.id = p.namespace_id`

func scanProject(r store.Row) (delivery.Project, error) { return accessdb.ScanProject(r) }

// CreateProject implements forge.Store.
func (s *Store) CreateProject(ctx context.Context, p delivery.Project, set forge.ProjectSettings) (delivery.Project, error) {
	settings, err := encode(set)
	if err != nil {
		return p, err
	}
	err = s.db.Write(ctx, func(t *store.Tx) error {
		var n int
		if err := t.QueryRow(`SELECT count(*) FROM namespaces WHERE full_path_key = ?`, key(p.Namespace.FullPath+"/"+p.Path)).Scan(&n); err != nil {
			return fmt.Errorf("forgedb: create project: %w", err)
		}
		if n > 0 {
			return store.Taken(errors.New("UNIQUE constraint failed"), "path")
		}
		if _, err := t.Exec(`DELETE FROM project_redirects WHERE full_path_key = ?`, key(p.Namespace.FullPath+"/"+p.Path)); err != nil {
			return fmt.Errorf("forgedb: create project: %w", err)
		}
		p.ID, err = insert(t, `INSERT INTO projects (namespace_id, path, path_key, name, description, visibility, default_branch, empty, creator_id, forked_from_id, ci_config_path, settings, created_at, last_activity) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			p.Namespace.ID, p.Path, key(p.Path), p.Name, p.Description, p.Visibility, p.DefaultBranch, p.Empty, p.CreatorID, store.Null(p.ForkedFromID), p.CIConfigPath, settings, store.Millis(p.CreatedAt), store.Millis(p.LastActivity))
		return store.Taken(err, "path")
	})
	if err != nil {
		return p, err
	}
	return s.ProjectByID(ctx, p.ID)
}

// UpdateProject implements forge.Store.
func (s *Store) UpdateProject(ctx context.Context, p delivery.Project, set forge.ProjectSettings) (delivery.Project, error) {
	settings, err := encode(set)
	if err != nil {
		return p, err
	}
	err = s.db.Write(ctx, func(t *store.Tx) error {
		if err := keepAddress(t, p); err != nil {
			return err
		}
		_, err := t.Exec(`UPDATE projects SET namespace_id = ?, path = ?, path_key = ?, name = ?, description = ?, visibility = ?, archived = ?, forked_from_id = ?, ci_config_path = ?, settings = ? WHERE id = ?`,
			p.Namespace.ID, p.Path, key(p.Path), p.Name, p.Description, p.Visibility, p.Archived, store.Null(p.ForkedFromID), p.CIConfigPath, settings, p.ID)
		return store.Taken(err, "path")
	})
	if err != nil {
		return p, err
	}
	return s.ProjectByID(ctx, p.ID)
}

// keepAddress lets the address that a project had lead to its new one; what
// led to the new one does so no longer.
func keepAddress(t *store.Tx, p delivery.Project) error {
	var old, namespace string
	if err := t.QueryRow(`SELECT n.full_path_key || '/' || p.path_key `+fromProjects+` WHERE p.id = ?`, p.ID).Scan(&old); err != nil {
		return store.Missing("Project", err)
	}
	if err := t.QueryRow(`SELECT full_path_key FROM namespaces WHERE id = ?`, p.Namespace.ID).Scan(&namespace); err != nil {
		return store.Missing("Namespace", err)
	}
	now := namespace + "/" + key(p.Path)
	if now == old {
		return nil
	}
	var n int
	if err := t.QueryRow(`SELECT count(*) FROM namespaces WHERE full_path_key = ?`, now).Scan(&n); err != nil || n > 0 {
		return errors.Join(err, store.Taken(errors.New("UNIQUE constraint failed"), "path"))
	}
	if _, err := t.Exec(`DELETE FROM project_redirects WHERE full_path_key = ?`, now); err != nil {
		return fmt.Errorf("forgedb: keep address: %w", err)
	}
	_, err := t.Exec(`INSERT INTO project_redirects (full_path_key, project_id) VALUES (?, ?) ON CONFLICT (full_path_key) DO UPDATE SET project_id = excluded.project_id`, old, p.ID)
	return err
}

// DeleteProject implements forge.Store.
func (s *Store) DeleteProject(ctx context.Context, id int64) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		// The bots of project tokens live for their project only.
		if _, err := t.Exec(`DELETE FROM users WHERE bot = 1 AND id IN (SELECT user_id FROM tokens WHERE project_id = ? AND kind = 'project_access_token')`, id); err != nil {
			return fmt.Errorf("forgedb: delete project: %w", err)
		}
		if _, err := t.Exec(`DELETE FROM avatars WHERE kind = 'project' AND owner_id = ?`, id); err != nil {
			return fmt.Errorf("forgedb: delete project: %w", err)
		}
		res, err := t.Exec(`DELETE FROM projects WHERE id = ?`, id)
		if err != nil {
			return fmt.Errorf("forgedb: delete project: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, store.Missing("Project", sql.ErrNoRows))
		}
		return t.Emit(delivery.EventProjectDeleted, id, struct{}{})
	})
}

// ProjectByID implements forge.Store.
func (s *Store) ProjectByID(ctx context.Context, id int64) (delivery.Project, error) {
	return one(ctx, s.db, "Project", `SELECT `+accessdb.ProjectColumns+` `+fromProjects+` WHERE p.id = ?`, []any{id}, scanProject)
}

// ProjectByPath implements forge.Store.
func (s *Store) ProjectByPath(ctx context.Context, fullPath string) (delivery.Project, error) {
	return accessdb.New(s.db, s.box).ProjectByPath(ctx, fullPath)
}

// ProjectSettings implements forge.Store.
func (s *Store) ProjectSettings(ctx context.Context, id int64) (set forge.ProjectSettings, err error) {
	raw, err := one(ctx, s.db, "Project", `SELECT settings FROM projects WHERE id = ?`, []any{id}, func(r store.Row) (v string, err error) {
		err = r.Scan(&v)
		return v, err
	})
	if err != nil {
		return set, err
	}
	if err := json.Unmarshal([]byte(raw), &set); err != nil {
		return set, fmt.Errorf("forgedb: settings of project %d: %w", id, err)
	}
	return set, nil
}

// mine selects the namespaces in which a user is a member, with everything
// below, and the user's own.
const mine = `WITH RECURSIVE mine (id, role) AS (
	SELECT group_id, role FROM group_members WHERE user_id = ? AND (expires_at = 0 OR expires_at > ?)
	UNION SELECT id, 50 FROM namespaces WHERE owner_id = ?
	UNION SELECT c.id, m.role FROM namespaces c JOIN mine m ON c.parent_id = m.id)`

// visible returns the conditions of a filter on p and n, for use after mine.
func visible(f forge.ProjectFilter) (string, []any) {
	where, args := "1 = 1", []any{}
	add := func(cond string, a ...any) {
		where += " AND (" + cond + ")"
		args = append(args, a...)
	}
	now := store.Millis(time.Now())
	open := `p.visibility IN ('public', 'internal')`
	if f.External {
		open = `p.visibility = 'public'`
	}
	const asMember = `p.id IN (SELECT project_id FROM project_members WHERE user_id = ? AND role >= ? AND (expires_at = 0 OR expires_at > ?)) OR p.namespace_id IN (SELECT id FROM mine WHERE role >= ?)`
	switch {
	case f.Only != 0:
		add(`p.id = ? OR p.visibility = 'public'`, f.Only)
	case f.All:
	case f.Viewer == 0:
		add(`p.visibility = 'public'`)
	default:
		add(open+` OR `+asMember, f.Viewer, delivery.Guest, now, delivery.Guest)
	}
	if f.Readable && !f.All {
		if f.Only != 0 {
			add(`p.visibility <> 'private' OR p.id = ?`, f.Only)
		} else {
			add(open+` OR `+asMember, f.Viewer, delivery.Reporter, now, delivery.Reporter)
		}
	}
	if f.Member || f.MinRole > 0 {
		role := max(f.MinRole, delivery.Guest)
		add(asMember, f.Viewer, role, now, role)
	}
	if f.Owned {
		add(asMember, f.Viewer, delivery.Owner, now, delivery.Owner)
	}
	if f.Search != "" {
		add(`lower(p.name) LIKE ? ESCAPE '\' OR n.full_path_key || '/' || p.path_key LIKE ? ESCAPE '\' OR lower(p.description) LIKE ? ESCAPE '\'`, store.Like(f.Search), store.Like(f.Search), store.Like(f.Search))
	}
	if f.GroupID != 0 && f.Subgroups {
		add(`p.namespace_id IN (`+store.GroupTree+` SELECT id FROM below)`, f.GroupID)
	} else if f.GroupID != 0 {
		add(`p.namespace_id = ?`, f.GroupID)
	}
	if f.OwnerID != 0 {
		add(`n.owner_id = ?`, f.OwnerID)
	}
	if f.ForkedFrom != 0 {
		add(`p.forked_from_id = ?`, f.ForkedFrom)
	}
	if f.Archived != nil {
		add(`p.archived = ?`, *f.Archived)
	}
	if f.Visibility != "" {
		add(`p.visibility = ?`, f.Visibility)
	}
	if f.IDAfter != 0 {
		add(`p.id > ?`, f.IDAfter)
	}
	return where, args
}

func mineArgs(viewer int64) []any { return []any{viewer, store.Millis(time.Now()), viewer} }

// Projects implements forge.Store.
func (s *Store) Projects(ctx context.Context, f forge.ProjectFilter, limit, offset int) ([]delivery.Project, int, error) {
	where, args := visible(f)
	column := map[string]string{"id": "p.id", "name": "lower(p.name)", "path": "p.path_key", "created_at": "p.created_at", "updated_at": "p.last_activity", "last_activity_at": "p.last_activity"}[f.OrderBy]
	if column == "" {
		column = "p.created_at"
	}
	dir := " DESC"
	if f.Ascending {
		dir = " ASC"
	}
	return list(ctx, s.db, store.Selection{With: mine, Columns: accessdb.ProjectColumns, From: fromProjects + " WHERE " + where, Order: column + dir + ", p.id" + dir, Args: append(mineArgs(f.Viewer), args...)}, limit, offset, scanProject)
}

// ProjectIDs implements forge.Store.
func (s *Store) ProjectIDs(ctx context.Context) ([]int64, error) {
	ids, _, err := list(ctx, s.db, store.Selection{Columns: "id", From: "FROM projects", Order: "id"}, 0, 0, func(r store.Row) (id int64, err error) {
		err = r.Scan(&id)
		return id, err
	})
	return ids, err
}

// SetDefaultBranch implements forge.Store.
func (s *Store) SetDefaultBranch(ctx context.Context, id int64, branch string) error {
	return s.exec(ctx, "set default branch", `UPDATE projects SET default_branch = ? WHERE id = ?`, branch, id)
}

// BeginPush implements forge.Store.
func (s *Store) BeginPush(ctx context.Context, p forge.Push) (id int64, err error) {
	updates, err := encode(p.Updates)
	if err != nil {
		return 0, err
	}
	options, err := encode(p.Options)
	if err != nil {
		return 0, err
	}
	err = s.db.Write(ctx, func(t *store.Tx) error {
		id, err = insert(t, `INSERT INTO pending_pushes (project_id, user_id, job_id, at, updates, options) VALUES (?, ?, ?, ?, ?, ?)`, p.ProjectID, p.UserID, p.JobID, store.Millis(p.At), updates, options)
		if err != nil {
			return fmt.Errorf("forgedb: begin push: %w", err)
		}
		return nil
	})
	return id, err
}

// FinishPush implements forge.Store.
func (s *Store) FinishPush(ctx context.Context, p forge.Push, done []forge.RefUpdate) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`DELETE FROM pending_pushes WHERE id = ?`, p.ID)
		if err != nil {
			return fmt.Errorf("forgedb: finish push: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // finished before
		}
		if len(done) > 0 {
			// The same push that was cut off before and made once more.
			updates, err := encode(p.Updates)
			if err != nil {
				return err
			}
			if _, err := t.Exec(`DELETE FROM pending_pushes WHERE project_id = ? AND id < ? AND updates = ?`, p.ProjectID, p.ID, updates); err != nil {
				return fmt.Errorf("forgedb: finish push: %w", err)
			}
		}
		branches := false
		for _, u := range done {
			if strings.HasPrefix(u.Ref, "refs/heads/") && u.New != delivery.ZeroSHA {
				branches = true
			}
			if !strings.HasPrefix(u.Ref, "refs/heads/") && !strings.HasPrefix(u.Ref, "refs/tags/") {
				continue
			}
			err := t.Emit(delivery.EventPushed, p.ProjectID, delivery.Pushed{Ref: u.Ref, Before: u.Old, After: u.New, UserID: p.UserID, PushOptions: p.Options, ByJob: p.JobID})
			if err != nil {
				return err
			}
		}
		if len(done) == 0 {
			return nil
		}
		_, err = t.Exec(`UPDATE projects SET last_activity = ?, empty = CASE WHEN ? THEN 0 ELSE empty END WHERE id = ?`, store.Millis(t.Now()), branches, p.ProjectID)
		return err
	})
}

// PendingPushes implements forge.Store.
func (s *Store) PendingPushes(ctx context.Context) ([]forge.Push, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `id, project_id, user_id, job_id, at, updates, options`, From: `FROM pending_pushes`, Order: `id`}, 0, 0, func(r store.Row) (p forge.Push, err error) {
		var at int64
		var updates, options string
		if err := r.Scan(&p.ID, &p.ProjectID, &p.UserID, &p.JobID, &at, &updates, &options); err != nil {
			return p, err
		}
		p.At = store.Time(at)
		return p, errors.Join(json.Unmarshal([]byte(updates), &p.Updates), json.Unmarshal([]byte(options), &p.Options))
	})
	return out, err
}

const protectionColumns = `id, project_id, tags, pattern, push_role, merge_role, allow_force, created_at`

// Protections implements forge.Store.
func (s *Store) Protections(ctx context.Context, projectID int64) ([]forge.Protection, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: protectionColumns, From: `FROM protected_refs WHERE project_id = ?`, Order: `id`, Args: []any{projectID}}, 0, 0, func(r store.Row) (p forge.Protection, err error) {
		var created int64
		err = r.Scan(&p.ID, &p.ProjectID, &p.Tags, &p.Pattern, &p.PushRole, &p.MergeRole, &p.AllowForce, &created)
		p.CreatedAt = store.Time(created)
		return p, err
	})
	return out, err
}

// SetProtection implements forge.Store.
func (s *Store) SetProtection(ctx context.Context, p forge.Protection) (forge.Protection, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`INSERT INTO protected_refs (project_id, tags, pattern, push_role, merge_role, allow_force, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (project_id, tags, pattern) DO UPDATE SET push_role = excluded.push_role, merge_role = excluded.merge_role, allow_force = excluded.allow_force`,
			p.ProjectID, p.Tags, p.Pattern, p.PushRole, p.MergeRole, p.AllowForce, store.Millis(p.CreatedAt))
		if err != nil {
			return fmt.Errorf("forgedb: protect: %w", err)
		}
		return t.QueryRow(`SELECT id FROM protected_refs WHERE project_id = ? AND tags = ? AND pattern = ?`, p.ProjectID, p.Tags, p.Pattern).Scan(&p.ID)
	})
	return p, err
}

// DeleteProtection implements forge.Store.
func (s *Store) DeleteProtection(ctx context.Context, projectID int64, tags bool, pattern string) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`DELETE FROM protected_refs WHERE project_id = ? AND tags = ? AND pattern = ?`, projectID, tags, pattern)
		if err != nil {
			return fmt.Errorf("forgedb: unprotect: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, store.Missing("Protection", sql.ErrNoRows))
		}
		return nil
	})
}

// ConsumeEvents implements forge.Store.
func (s *Store) ConsumeEvents(ctx context.Context, consumer string, report func(error), fn func(context.Context, delivery.Event) error) error {
	return s.db.Consume(ctx, consumer, report, fn)
}
