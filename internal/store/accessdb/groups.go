package accessdb

import (
	"context"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/store"
)

const groupColumns = `g.id, COALESCE(g.parent_id, 0), g.path, g.full_path, g.name, g.description, g.visibility, g.created_at`

func scanGroup(r store.Row) (delivery.Group, error) {
	var g delivery.Group
	var created int64
	err := r.Scan(&g.ID, &g.ParentID, &g.Path, &g.FullPath, &g.Name, &g.Description, &g.Visibility, &created)
	g.CreatedAt = store.Time(created)
	return g, err
}

// CreateGroup implements access.Store.
func (s *Store) CreateGroup(ctx context.Context, g delivery.Group, ownerID int64) (delivery.Group, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		g.FullPath = g.Path
		if g.ParentID != 0 {
			var parent string
			err := t.QueryRow(`SELECT full_path FROM namespaces WHERE id = ? AND kind = 'group'`, g.ParentID).Scan(&parent)
			if err := store.Missing("Parent Group", err); err != nil {
				return err
			}
			g.FullPath = parent + "/" + g.Path
			var n int
			if err := t.QueryRow(`SELECT count(*) FROM projects WHERE namespace_id = ? AND path_key = ?`, g.ParentID, key(g.Path)).Scan(&n); err != nil {
				return fmt.Errorf("accessdb: create group: %w", err)
			}
			if n > 0 {
				return store.Taken(fmt.Errorf("UNIQUE constraint failed"), "path")
			}
		}
		res, err := t.Exec(`INSERT INTO namespaces (kind, parent_id, path, full_path, full_path_key, name, description, visibility, created_at) VALUES ('group', ?, ?, ?, ?, ?, ?, ?, ?)`,
			store.Null(g.ParentID), g.Path, g.FullPath, key(g.FullPath), g.Name, g.Description, g.Visibility, store.Millis(g.CreatedAt))
		if err != nil {
			return store.Taken(err, "path")
		}
		if g.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		_, err = t.Exec(`INSERT INTO group_members (group_id, user_id, role, created_at, created_by) VALUES (?, ?, ?, ?, ?)`, g.ID, ownerID, delivery.Owner, store.Millis(g.CreatedAt), ownerID)
		return err
	})
	return g, err
}

// UpdateGroup implements access.Store.
func (s *Store) UpdateGroup(ctx context.Context, g delivery.Group) (delivery.Group, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		var old string
		err := t.QueryRow(`SELECT full_path FROM namespaces WHERE id = ?`, g.ID).Scan(&old)
		if err := store.Missing("Group", err); err != nil {
			return err
		}
		full := g.Path
		if g.ParentID != 0 {
			var parent string
			if err := t.QueryRow(`SELECT full_path FROM namespaces WHERE id = ?`, g.ParentID).Scan(&parent); err != nil {
				return fmt.Errorf("accessdb: update group: %w", err)
			}
			full = parent + "/" + g.Path
		}
		g.FullPath = full
		if _, err := t.Exec(`UPDATE namespaces SET path = ?, full_path = ?, full_path_key = ?, name = ?, description = ?, visibility = ? WHERE id = ?`,
			g.Path, full, key(full), g.Name, g.Description, g.Visibility, g.ID); err != nil {
			return store.Taken(err, "path")
		}
		if full != old {
			if _, err := t.Exec(`INSERT INTO project_redirects (full_path_key, project_id)
				SELECT n.full_path_key || '/' || p.path_key, p.id FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE n.id = ? OR n.full_path_key LIKE ? ESCAPE '\'
				ON CONFLICT (full_path_key) DO UPDATE SET project_id = excluded.project_id`, g.ID, store.Like(old + "/")[1:]); err != nil {
				return fmt.Errorf("accessdb: update group: %w", err)
			}
			if _, err := t.Exec(`UPDATE namespaces SET full_path = ? || substr(full_path, ?), full_path_key = ? || substr(full_path_key, ?) WHERE full_path_key LIKE ? ESCAPE '\'`,
				full, len(old)+1, key(full), len(old)+1, store.Like(old + "/")[1:]); err != nil {
				return store.Taken(err, "path")
			}
		}
		return nil
	})
	return g, err
}

// DeleteGroup implements access.Store.
func (s *Store) DeleteGroup(ctx context.Context, id int64) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		var n int
		err := t.QueryRow(store.GroupTree+`
			SELECT count(*) FROM projects WHERE namespace_id IN (SELECT id FROM below)`, id).Scan(&n)
		if err != nil {
			return fmt.Errorf("accessdb: delete group: %w", err)
		}
		if n > 0 {
			return &delivery.Error{Kind: delivery.Conflict, Message: fmt.Sprintf("The group still holds %d projects.", n), Next: "Delete or transfer them first."}
		}
		if _, err := t.Exec(store.GroupTree+`
			DELETE FROM avatars WHERE kind = 'group' AND owner_id IN (SELECT id FROM below)`, id); err != nil {
			return fmt.Errorf("accessdb: delete group: %w", err)
		}
		// The bots of group tokens live for their group only.
		if _, err := t.Exec(store.GroupTree+`
			DELETE FROM users WHERE bot = 1 AND id IN (SELECT user_id FROM tokens WHERE kind = 'group_access_token' AND group_id IN (SELECT id FROM below))`, id); err != nil {
			return fmt.Errorf("accessdb: delete group: %w", err)
		}
		if _, err := t.Exec(`DELETE FROM namespaces WHERE id = ? AND kind = 'group'`, id); err != nil {
			return fmt.Errorf("accessdb: delete group: %w", err)
		}
		return nil
	})
}

// GroupByID implements access.Store.
func (s *Store) GroupByID(ctx context.Context, id int64) (g delivery.Group, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		g, err = scanGroup(t.QueryRow(`SELECT `+groupColumns+` FROM namespaces g WHERE g.id = ? AND g.kind = 'group'`, id))
		return store.Missing("Group", err)
	})
	return g, err
}

// GroupByPath implements access.Store.
func (s *Store) GroupByPath(ctx context.Context, fullPath string) (g delivery.Group, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		g, err = scanGroup(t.QueryRow(`SELECT `+groupColumns+` FROM namespaces g WHERE g.full_path_key = ? AND g.kind = 'group'`, key(fullPath)))
		return store.Missing("Group", err)
	})
	return g, err
}

// memberGroups selects the groups in which the user of the first two
// parameters (id, now) is a member, with everything below them.
const memberGroups = `WITH RECURSIVE mine (id, role) AS (
	SELECT group_id, role FROM group_members WHERE user_id = ? AND (expires_at = 0 OR expires_at > ?)
	UNION SELECT c.id, m.role FROM namespaces c JOIN mine m ON c.parent_id = m.id)`

// Groups implements access.Store.
func (s *Store) Groups(ctx context.Context, f access.GroupFilter, limit, offset int) (out []delivery.Group, total int, err error) {
	where, args := ` FROM namespaces g WHERE g.kind = 'group'`, []any{}
	now := store.Millis(time.Now())
	switch {
	case f.Owned || f.MinRole > 0:
		role := f.MinRole
		if f.Owned {
			role = delivery.Owner
		}
		where += ` AND g.id IN (SELECT id FROM mine WHERE role >= ?)`
		args = append(args, role)
	case f.All:
	case f.Viewer == 0:
		where += ` AND g.visibility = 'public'`
	default:
		open := `('public', 'internal')`
		if f.External {
			open = `('public')`
		}
		where += ` AND (g.visibility IN ` + open + ` OR g.id IN (SELECT id FROM mine)
			OR EXISTS (SELECT 1 FROM namespaces d JOIN projects p ON p.namespace_id = d.id JOIN project_members pm ON pm.project_id = p.id
			   WHERE pm.user_id = ? AND (d.id = g.id OR substr(d.full_path_key, 1, length(g.full_path_key) + 1) = g.full_path_key || '/')))`
		args = append(args, f.Viewer)
	}
	if f.Search != "" {
		where += ` AND (lower(g.name) LIKE ? ESCAPE '\' OR g.full_path_key LIKE ? ESCAPE '\')`
		args = append(args, store.Like(f.Search), store.Like(f.Search))
	}
	if f.ParentID != 0 {
		where += ` AND g.parent_id = ?`
		args = append(args, f.ParentID)
	}
	if f.TopLevel {
		where += ` AND g.parent_id IS NULL`
	}
	args = append([]any{f.Viewer, now}, args...)
	return selected(ctx, s.db, store.Selection{With: memberGroups, Columns: groupColumns, From: where, Order: "g.full_path_key", Args: args}, limit, offset, scanGroup)
}

// ancestors selects a namespace (first parameter) and all above it.
const ancestors = `WITH RECURSIVE up (id, parent_id) AS (
	SELECT id, parent_id FROM namespaces WHERE id = ?
	UNION ALL SELECT n.id, n.parent_id FROM namespaces n JOIN up ON n.id = up.parent_id)`

// GroupRole implements access.Store.
func (s *Store) GroupRole(ctx context.Context, groupID, userID int64, now time.Time) (role delivery.Role, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(ancestors+` SELECT COALESCE(MAX(m.role), 0) FROM group_members m WHERE m.user_id = ? AND m.group_id IN (SELECT id FROM up) AND (m.expires_at = 0 OR m.expires_at > ?)`,
			groupID, userID, store.Millis(now)).Scan(&role)
	})
	if err != nil {
		return 0, fmt.Errorf("accessdb: group role: %w", err)
	}
	return role, nil
}

// GroupHasMemberBelow implements access.Store.
func (s *Store) GroupHasMemberBelow(ctx context.Context, groupID, userID int64, now time.Time) (ok bool, err error) {
	ms := store.Millis(now)
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(store.GroupTree+`
			SELECT EXISTS (SELECT 1 FROM group_members WHERE user_id = ? AND group_id IN (SELECT id FROM below) AND (expires_at = 0 OR expires_at > ?))
			    OR EXISTS (SELECT 1 FROM project_members m JOIN projects p ON p.id = m.project_id WHERE m.user_id = ? AND p.namespace_id IN (SELECT id FROM below) AND (m.expires_at = 0 OR m.expires_at > ?))`,
			groupID, userID, ms, userID, ms).Scan(&ok)
	})
	if err != nil {
		return false, fmt.Errorf("accessdb: group members below: %w", err)
	}
	return ok, nil
}

const namespaceColumns = `n.id, n.kind, n.path, n.full_path, n.name, COALESCE(n.owner_id, 0)`

type namespace struct {
	delivery.Namespace
	owner int64
}

func scanNamespace(r store.Row) (n namespace, err error) {
	err = r.Scan(&n.ID, &n.Kind, &n.Path, &n.FullPath, &n.Name, &n.owner)
	return n, err
}

// NamespaceByID implements access.Store.
func (s *Store) NamespaceByID(ctx context.Context, id int64) (delivery.Namespace, int64, error) {
	return s.namespace(ctx, `n.id = ?`, id)
}

// NamespaceByPath implements access.Store.
func (s *Store) NamespaceByPath(ctx context.Context, fullPath string) (delivery.Namespace, int64, error) {
	return s.namespace(ctx, `n.full_path_key = ?`, key(fullPath))
}

func (s *Store) namespace(ctx context.Context, where string, arg any) (delivery.Namespace, int64, error) {
	var n namespace
	err := s.db.Read(ctx, func(t *store.Tx) (err error) {
		n, err = scanNamespace(t.QueryRow(`SELECT `+namespaceColumns+` FROM namespaces n WHERE `+where, arg))
		return store.Missing("Namespace", err)
	})
	return n.Namespace, n.owner, err
}

// Namespaces implements access.Store.
func (s *Store) Namespaces(ctx context.Context, userID int64, all bool, search string, limit, offset int) ([]delivery.Namespace, int, error) {
	from := `FROM namespaces n WHERE (n.owner_id = ? OR ? OR n.id IN (WITH RECURSIVE mine (id) AS (
		SELECT group_id FROM group_members WHERE user_id = ? AND role >= 30 AND (expires_at = 0 OR expires_at > ?)
		UNION SELECT c.id FROM namespaces c JOIN mine m ON c.parent_id = m.id) SELECT id FROM mine))`
	args := []any{userID, all, userID, store.Millis(time.Now())}
	if search != "" {
		from += ` AND n.full_path_key LIKE ? ESCAPE '\'`
		args = append(args, store.Like(search))
	}
	found, total, err := list(ctx, s.db, namespaceColumns, from, "n.kind DESC, n.full_path_key", args, limit, offset, scanNamespace)
	out := make([]delivery.Namespace, len(found))
	for i := range found {
		out[i] = found[i].Namespace
	}
	return out, total, err
}

// SetMember implements access.Store.
func (s *Store) SetMember(ctx context.Context, m access.Member, createdBy int64) error {
	table, column, id := memberTable(m.GroupID, m.ProjectID)
	return s.exec(ctx, "set member", `INSERT INTO `+table+` (`+column+`, user_id, role, expires_at, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (`+column+`, user_id) DO UPDATE SET role = excluded.role, expires_at = excluded.expires_at`,
		id, m.User.ID, m.Role, store.Millis(m.ExpiresAt), store.Millis(m.CreatedAt), createdBy)
}

func memberTable(groupID, projectID int64) (table, column string, id int64) {
	if groupID != 0 {
		return "group_members", "group_id", groupID
	}
	return "project_members", "project_id", projectID
}

// DeleteMember implements access.Store.
func (s *Store) DeleteMember(ctx context.Context, groupID, projectID, userID int64) error {
	table, column, id := memberTable(groupID, projectID)
	return s.exec(ctx, "delete member", `DELETE FROM `+table+` WHERE `+column+` = ? AND user_id = ?`, id, userID)
}

// memberships returns a common table expression "all_members" of the direct,
// or also the inherited, memberships of a group or project, and its arguments.
func memberships(groupID, projectID int64, inherited bool) (string, []any) {
	direct, args := `SELECT user_id, role, expires_at, created_at, 0 AS group_id, project_id FROM project_members WHERE project_id = ?`, []any{projectID}
	if groupID != 0 {
		direct, args = `SELECT user_id, role, expires_at, created_at, group_id, 0 AS project_id FROM group_members WHERE group_id = ?`, []any{groupID}
	}
	if !inherited {
		return `WITH all_members AS (` + direct + `)`, args
	}
	start := `SELECT ns.id, ns.parent_id FROM namespaces ns WHERE ns.id = ?`
	first := groupID
	if groupID == 0 {
		start = `SELECT ns.id, ns.parent_id FROM namespaces ns JOIN projects p ON p.namespace_id = ns.id WHERE p.id = ?`
		first = projectID
	}
	return `WITH RECURSIVE up (id, parent_id) AS (` + start + ` UNION ALL SELECT n.id, n.parent_id FROM namespaces n JOIN up ON n.id = up.parent_id),
		all_members AS (` + direct + ` UNION SELECT user_id, role, expires_at, created_at, group_id, 0 FROM group_members WHERE group_id IN (SELECT id FROM up)
			UNION SELECT owner_id, 50, 0, created_at, 0, 0 FROM namespaces WHERE id IN (SELECT id FROM up) AND owner_id IS NOT NULL)`, append([]any{first}, args...)
}

func scanMember(r store.Row) (m access.Member, err error) {
	var created, expires, mcreated int64
	u := &m.User
	err = r.Scan(&u.ID, &u.Username, &u.Name, &u.Email, &u.Admin, &u.Blocked, &u.Bot, &created, &m.Role, &expires, &mcreated, &m.GroupID, &m.ProjectID)
	u.CreatedAt, m.ExpiresAt, m.CreatedAt = store.Time(created), store.Time(expires), store.Time(mcreated)
	return m, err
}

const memberColumns = `u.id, u.username, u.name, u.email, u.admin, u.blocked, u.bot, u.created_at, MAX(m.role), m.expires_at, m.created_at, m.group_id, m.project_id`

// Members implements access.Store.
func (s *Store) Members(ctx context.Context, groupID, projectID int64, inherited bool, search string, limit, offset int) (out []access.Member, total int, err error) {
	with, args := memberships(groupID, projectID, inherited)
	from := ` FROM all_members m JOIN users u ON u.id = m.user_id WHERE (m.expires_at = 0 OR m.expires_at > ?)`
	args = append(args, store.Millis(time.Now()))
	if search != "" {
		from += ` AND (u.username_key LIKE ? ESCAPE '\' OR lower(u.name) LIKE ? ESCAPE '\')`
		args = append(args, store.Like(search), store.Like(search))
	}
	return selected(ctx, s.db, store.Selection{With: with, Columns: memberColumns, From: from, Group: "u.id", Order: "u.id", Count: "DISTINCT u.id", Args: args}, limit, offset, scanMember)
}

// MemberOf implements access.Store.
func (s *Store) MemberOf(ctx context.Context, groupID, projectID, userID int64, inherited bool) (m access.Member, err error) {
	with, args := memberships(groupID, projectID, inherited)
	err = s.db.Read(ctx, func(t *store.Tx) error {
		m, err = scanMember(t.QueryRow(with+` SELECT `+memberColumns+` FROM all_members m JOIN users u ON u.id = m.user_id WHERE u.id = ? GROUP BY u.id`, append(args, userID)...))
		return store.Missing("Member", err)
	})
	return m, err
}

// CountOwners implements access.Store.
func (s *Store) CountOwners(ctx context.Context, groupID int64) (n int, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(`SELECT count(*) FROM group_members WHERE group_id = ? AND role >= 50`, groupID).Scan(&n)
	})
	return n, err
}
