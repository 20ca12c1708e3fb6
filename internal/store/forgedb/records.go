package forgedb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/store"
)

const releaseColumns = `id, project_id, tag, name, description, author_id, sha, released_at, created_at`

func scanRelease(r store.Row) (v forge.Release, err error) {
	var released, created int64
	err = r.Scan(&v.ID, &v.ProjectID, &v.Tag, &v.Name, &v.Description, &v.AuthorID, &v.SHA, &released, &created)
	v.ReleasedAt, v.CreatedAt = store.Time(released), store.Time(created)
	return v, err
}

// CreateRelease implements forge.Store.
func (s *Store) CreateRelease(ctx context.Context, v forge.Release) (forge.Release, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		var err error
		v.ID, err = insert(t, `INSERT INTO releases (project_id, tag, name, description, author_id, sha, released_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			v.ProjectID, v.Tag, v.Name, v.Description, v.AuthorID, v.SHA, store.Millis(v.ReleasedAt), store.Millis(v.CreatedAt))
		if store.IsUnique(err) {
			return delivery.Errorf(delivery.Conflict, "Release already exists")
		}
		if err != nil {
			return fmt.Errorf("forgedb: create release: %w", err)
		}
		for i := range v.Links {
			if v.Links[i].ID, err = insertLink(t, v.ID, v.Links[i]); err != nil {
				return err
			}
		}
		return t.Emit(delivery.EventReleaseCreated, v.ProjectID, delivery.ReleaseCreated{Tag: v.Tag, Name: v.Name})
	})
	return v, err
}

func insertLink(t *store.Tx, releaseID int64, l forge.ReleaseLink) (int64, error) {
	id, err := insert(t, `INSERT INTO release_links (release_id, name, url, path, link_type) VALUES (?, ?, ?, ?, ?)`, releaseID, l.Name, l.URL, l.Path, l.LinkType)
	return id, store.Taken(err, "name")
}

// UpdateRelease implements forge.Store.
func (s *Store) UpdateRelease(ctx context.Context, v forge.Release) error {
	return s.exec(ctx, "update release", `UPDATE releases SET name = ?, description = ?, released_at = ? WHERE id = ?`, v.Name, v.Description, store.Millis(v.ReleasedAt), v.ID)
}

// DeleteRelease implements forge.Store.
func (s *Store) DeleteRelease(ctx context.Context, projectID int64, tag string) error {
	return s.exec(ctx, "delete release", `DELETE FROM releases WHERE project_id = ? AND tag = ?`, projectID, tag)
}

func (s *Store) links(ctx context.Context, releaseID int64) ([]forge.ReleaseLink, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `id, name, url, path, link_type`, From: `FROM release_links WHERE release_id = ?`, Order: "id DESC", Args: []any{releaseID}}, 0, 0, func(r store.Row) (l forge.ReleaseLink, err error) {
		err = r.Scan(&l.ID, &l.Name, &l.URL, &l.Path, &l.LinkType)
		return l, err
	})
	return out, err
}

// ReleaseByTag implements forge.Store.
func (s *Store) ReleaseByTag(ctx context.Context, projectID int64, tag string) (forge.Release, error) {
	v, err := one(ctx, s.db, "Release", `SELECT `+releaseColumns+` FROM releases WHERE project_id = ? AND tag = ?`, []any{projectID, tag}, scanRelease)
	if err != nil {
		return v, err
	}
	v.Links, err = s.links(ctx, v.ID)
	return v, err
}

// Releases implements forge.Store.
func (s *Store) Releases(ctx context.Context, projectID int64, limit, offset int) ([]forge.Release, int, error) {
	out, total, err := list(ctx, s.db, store.Selection{Columns: releaseColumns, From: `FROM releases WHERE project_id = ?`, Order: "released_at DESC, id DESC", Args: []any{projectID}}, limit, offset, scanRelease)
	for i := range out {
		if err == nil {
			out[i].Links, err = s.links(ctx, out[i].ID)
		}
	}
	return out, total, err
}

// SetReleaseLink implements forge.Store.
func (s *Store) SetReleaseLink(ctx context.Context, projectID int64, tag string, l forge.ReleaseLink) (forge.ReleaseLink, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		var id int64
		err := t.QueryRow(`SELECT id FROM releases WHERE project_id = ? AND tag = ?`, projectID, tag).Scan(&id)
		if err := store.Missing("Release", err); err != nil {
			return err
		}
		if l.ID == 0 {
			l.ID, err = insertLink(t, id, l)
			return err
		}
		_, err = t.Exec(`UPDATE release_links SET name = ?, url = ?, path = ?, link_type = ? WHERE id = ? AND release_id = ?`, l.Name, l.URL, l.Path, l.LinkType, l.ID, id)
		return store.Taken(err, "name")
	})
	return l, err
}

// DeleteReleaseLink implements forge.Store.
func (s *Store) DeleteReleaseLink(ctx context.Context, projectID int64, tag string, id int64) error {
	return s.exec(ctx, "delete release link", `DELETE FROM release_links WHERE id = ? AND release_id = (SELECT id FROM releases WHERE project_id = ? AND tag = ?)`, id, projectID, tag)
}

// hookSettings is how a hook's choices are stored.
type hookSettings struct {
	Name         string `json:"name,omitempty"`
	Description  string `json:"description,omitempty"`
	URL          string `json:"url"`
	Push         bool   `json:"push,omitempty"`
	PushFilter   string `json:"push_filter,omitempty"`
	TagPush      bool   `json:"tag_push,omitempty"`
	MergeRequest bool   `json:"merge_request,omitempty"`
	Note         bool   `json:"note,omitempty"`
	Job          bool   `json:"job,omitempty"`
	Pipeline     bool   `json:"pipeline,omitempty"`
	Deployment   bool   `json:"deployment,omitempty"`
	Release      bool   `json:"release,omitempty"`
	SkipVerify   bool   `json:"skip_verify,omitempty"`
}

func encodeHook(h forge.Hook) (string, error) {
	return encode(hookSettings{h.Name, h.Description, h.URL, h.Push, h.PushFilter, h.TagPush, h.MergeRequest, h.Note, h.Job, h.Pipeline, h.Deployment, h.Release, h.SkipVerify})
}

// hookOwned narrows to the hooks of an owner: project and group.
const hookOwned = `COALESCE(project_id, 0) = ? AND COALESCE(group_id, 0) = ?`

const hookColumns = `id, COALESCE(project_id, 0), COALESCE(group_id, 0), settings, token, created_at, failing_since, system`

func (s *Store) scanHook(r store.Row) (h forge.Hook, err error) {
	var raw string
	var created, failing int64
	if err := r.Scan(&h.ID, &h.ProjectID, &h.GroupID, &raw, &h.Token, &created, &failing, &h.System); err != nil {
		return h, err
	}
	var v hookSettings
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		return h, err
	}
	h.Name, h.Description, h.URL, h.Push, h.PushFilter, h.TagPush, h.MergeRequest = v.Name, v.Description, v.URL, v.Push, v.PushFilter, v.TagPush, v.MergeRequest
	h.Note, h.Job, h.Pipeline, h.Deployment, h.Release, h.SkipVerify = v.Note, v.Job, v.Pipeline, v.Deployment, v.Release, v.SkipVerify
	h.CreatedAt, h.FailingSince = store.Time(created), store.Time(failing)
	h.Token, err = s.box.OpenColumn(hookToken, h.Token)
	return h, err
}

// CreateHook implements forge.Store.
func (s *Store) CreateHook(ctx context.Context, h forge.Hook) (forge.Hook, error) {
	raw, err := encodeHook(h)
	if err != nil {
		return h, err
	}
	err = s.db.Write(ctx, func(t *store.Tx) error {
		h.ID, err = insert(t, `INSERT INTO hooks (project_id, group_id, settings, token, created_at, system) VALUES (?, ?, ?, ?, ?, ?)`, store.Null(h.ProjectID), store.Null(h.GroupID), raw, s.box.Column(hookToken, h.Token), store.Millis(h.CreatedAt), h.System)
		return err
	})
	return h, err
}

// UpdateHook implements forge.Store.
func (s *Store) UpdateHook(ctx context.Context, h forge.Hook) error {
	raw, err := encodeHook(h)
	if err != nil {
		return err
	}
	return s.exec(ctx, "update hook", `UPDATE hooks SET settings = ?, token = ?, failing_since = ? WHERE id = ?`, raw, s.box.Column(hookToken, h.Token), store.Millis(h.FailingSince), h.ID)
}

// DeleteHook implements forge.Store.
func (s *Store) DeleteHook(ctx context.Context, o forge.HookOwner, id int64) error {
	return s.exec(ctx, "delete hook", `DELETE FROM hooks WHERE id = ? AND `+hookOwned, id, o.ProjectID, o.GroupID)
}

// HookByID implements forge.Store.
func (s *Store) HookByID(ctx context.Context, o forge.HookOwner, id int64) (forge.Hook, error) {
	return one(ctx, s.db, "Hook", `SELECT `+hookColumns+` FROM hooks WHERE id = ? AND `+hookOwned, []any{id, o.ProjectID, o.GroupID}, s.scanHook)
}

// HookOfDelivery implements forge.Store.
func (s *Store) HookOfDelivery(ctx context.Context, hookID int64) (forge.Hook, error) {
	return one(ctx, s.db, "Hook", `SELECT `+hookColumns+` FROM hooks WHERE id = ?`, []any{hookID}, s.scanHook)
}

// Hooks implements forge.Store.
func (s *Store) Hooks(ctx context.Context, o forge.HookOwner, system bool) ([]forge.Hook, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: hookColumns, From: `FROM hooks WHERE ` + hookOwned + ` AND (system = 0 OR ?)`, Order: "id", Args: []any{o.ProjectID, o.GroupID, system}}, 0, 0, s.scanHook)
	return out, err
}

// HooksFor implements forge.Store.
func (s *Store) HooksFor(ctx context.Context, projectID int64) ([]forge.Hook, error) {
	out, _, err := list(ctx, s.db, store.Selection{With: `WITH RECURSIVE up (id, parent_id) AS (
			SELECT n.id, n.parent_id FROM namespaces n JOIN projects p ON p.namespace_id = n.id WHERE p.id = ?
			UNION ALL SELECT n.id, n.parent_id FROM namespaces n JOIN up ON n.id = up.parent_id)`,
		Columns: hookColumns, From: `FROM hooks WHERE project_id = ? OR group_id IN (SELECT id FROM up) OR project_id IS NULL AND group_id IS NULL`,
		Order: "id", Args: []any{projectID, projectID}}, 0, 0, s.scanHook)
	return out, err
}

const deliveryColumns = `id, hook_id, event, uuid, url, request, status, request_headers, response_headers, response, error, attempts, seconds, created_at, next_at`

func scanDelivery(r store.Row) (d forge.Delivery, err error) {
	var request, asked, answered string
	var created, next int64
	if err := r.Scan(&d.ID, &d.HookID, &d.Event, &d.UUID, &d.URL, &request, &d.Status, &asked, &answered, &d.Response, &d.Error, &d.Attempts, &d.Seconds, &created, &next); err != nil {
		return d, err
	}
	d.Request, d.CreatedAt, d.NextAt = json.RawMessage(request), store.Time(created), store.Time(next)
	return d, errors.Join(json.Unmarshal([]byte(asked), &d.RequestHeaders), json.Unmarshal([]byte(answered), &d.ResponseHeaders))
}

// Enqueue implements forge.Store.
func (s *Store) Enqueue(ctx context.Context, deliveries []forge.Delivery) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		for _, d := range deliveries {
			_, err := t.Exec(`INSERT INTO hook_deliveries (hook_id, event, uuid, url, request, created_at, next_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hook_id, uuid) DO NOTHING`,
				d.HookID, d.Event, d.UUID, d.URL, string(d.Request), store.Millis(d.CreatedAt), store.Millis(d.NextAt))
			if err != nil {
				return fmt.Errorf("forgedb: enqueue webhook: %w", err)
			}
		}
		return nil
	})
}

// DueDeliveries implements forge.Store.
func (s *Store) DueDeliveries(ctx context.Context, now time.Time, limit int) ([]forge.Delivery, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: deliveryColumns, From: `FROM hook_deliveries WHERE next_at > 0 AND next_at <= ?`, Order: "next_at, id", Args: []any{store.Millis(now)}}, limit, 0, scanDelivery)
	return out, err
}

// NextDelivery implements forge.Store.
func (s *Store) NextDelivery(ctx context.Context) (time.Time, error) {
	return one(ctx, s.db, "Delivery", `SELECT COALESCE(MIN(next_at), 0) FROM hook_deliveries WHERE next_at > 0`, nil, func(r store.Row) (time.Time, error) {
		var ms int64
		err := r.Scan(&ms)
		return store.Time(ms), err
	})
}

// RecordDelivery implements forge.Store.
func (s *Store) RecordDelivery(ctx context.Context, d forge.Delivery) error {
	asked, err := encode(d.RequestHeaders)
	if err != nil {
		return err
	}
	answered, err := encode(d.ResponseHeaders)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE hook_deliveries SET status = ?, request_headers = ?, response_headers = ?, response = ?, error = ?, attempts = ?, seconds = ?, next_at = ? WHERE id = ?`,
			d.Status, asked, answered, d.Response, d.Error, d.Attempts, d.Seconds, store.Millis(d.NextAt), d.ID)
		if err != nil {
			return fmt.Errorf("forgedb: record webhook: %w", err)
		}
		ok := d.Status >= 200 && d.Status < 300
		_, err = t.Exec(`UPDATE hooks SET failing_since = CASE WHEN ? THEN 0 WHEN failing_since = 0 THEN ? ELSE failing_since END WHERE id = ?`, ok, store.Millis(t.Now()), d.HookID)
		return err
	})
}

// Deliveries implements forge.Store.
func (s *Store) Deliveries(ctx context.Context, hookID int64, limit, offset int) ([]forge.Delivery, int, error) {
	return list(ctx, s.db, store.Selection{Columns: deliveryColumns, From: `FROM hook_deliveries WHERE hook_id = ?`, Order: "id DESC", Args: []any{hookID}}, limit, offset, scanDelivery)
}

// DeliveryByID implements forge.Store.
func (s *Store) DeliveryByID(ctx context.Context, hookID, id int64) (forge.Delivery, error) {
	return one(ctx, s.db, "Delivery", `SELECT `+deliveryColumns+` FROM hook_deliveries WHERE hook_id = ? AND id = ?`, []any{hookID, id}, scanDelivery)
}

// TrimDeliveries implements forge.Store.
func (s *Store) TrimDeliveries(ctx context.Context, before time.Time) error {
	return s.exec(ctx, "trim webhooks", `DELETE FROM hook_deliveries WHERE created_at < ? AND next_at = 0`, store.Millis(before))
}

// AddLFSObject implements forge.Store.
func (s *Store) AddLFSObject(ctx context.Context, projectID int64, oid string, size int64) error {
	return s.exec(ctx, "add LFS object", `INSERT INTO lfs_objects (project_id, oid, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, projectID, oid, size)
}

// LFSObjectSize implements forge.Store.
func (s *Store) LFSObjectSize(ctx context.Context, projectID int64, oid string) (int64, error) {
	return one(ctx, s.db, "Object", `SELECT size FROM lfs_objects WHERE project_id = ? AND oid = ?`, []any{projectID, oid}, func(r store.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	})
}

type lfsRow struct {
	oid  string
	size int64
}

func scanLFS(r store.Row) (v lfsRow, err error) {
	err = r.Scan(&v.oid, &v.size)
	return v, err
}

// LFSObjects implements forge.Store.
func (s *Store) LFSObjects(ctx context.Context, projectID int64) (map[string]int64, error) {
	rows, _, err := list(ctx, s.db, store.Selection{Columns: `oid, size`, From: `FROM lfs_objects WHERE project_id = ?`, Order: "oid", Args: []any{projectID}}, 0, 0, scanLFS)
	out := map[string]int64{}
	for _, v := range rows {
		out[v.oid] = v.size
	}
	return out, err
}

// CopyLFSObjects implements forge.Store.
func (s *Store) CopyLFSObjects(ctx context.Context, from, to int64) error {
	return s.exec(ctx, "copy LFS objects", `INSERT INTO lfs_objects (project_id, oid, size) SELECT ?, oid, size FROM lfs_objects WHERE project_id = ? ON CONFLICT DO NOTHING`, to, from)
}

// LFSInUse implements forge.Store.
func (s *Store) LFSInUse(ctx context.Context, oids []string) (map[string]bool, error) {
	out := map[string]bool{}
	for len(oids) > 0 {
		n := min(len(oids), 500)
		rows, _, err := list(ctx, s.db, store.Selection{Columns: `DISTINCT oid, 0`, From: `FROM lfs_objects WHERE oid IN (` + marks(n) + `)`, Order: "oid", Args: anys(oids[:n])}, 0, 0, scanLFS)
		if err != nil {
			return nil, err
		}
		for _, v := range rows {
			out[v.oid] = true
		}
		oids = oids[n:]
	}
	return out, nil
}

// LFSLocks implements forge.Store.
func (s *Store) LFSLocks(ctx context.Context, projectID int64) ([]forge.LFSLock, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `id, project_id, user_id, path, created_at`, From: `FROM lfs_locks WHERE project_id = ?`, Order: "id", Args: []any{projectID}}, 0, 0, func(r store.Row) (l forge.LFSLock, err error) {
		var at int64
		err = r.Scan(&l.ID, &l.ProjectID, &l.UserID, &l.Path, &at)
		l.CreatedAt = store.Time(at)
		return l, err
	})
	return out, err
}

// CreateLFSLock implements forge.Store.
func (s *Store) CreateLFSLock(ctx context.Context, l forge.LFSLock) (forge.LFSLock, error) {
	err := s.db.Write(ctx, func(t *store.Tx) (err error) {
		l.ID, err = insert(t, `INSERT INTO lfs_locks (project_id, user_id, path, created_at) VALUES (?, ?, ?, ?)`, l.ProjectID, l.UserID, l.Path, store.Millis(l.CreatedAt))
		return store.Taken(err, "path")
	})
	return l, err
}

// DeleteLFSLock implements forge.Store.
func (s *Store) DeleteLFSLock(ctx context.Context, projectID, id int64) error {
	return s.exec(ctx, "delete LFS lock", `DELETE FROM lfs_locks WHERE project_id = ? AND id = ?`, projectID, id)
}

const mirrorColumns = `id, project_id, push, url, username, password, enabled, only_protected, interval_ms, next_at, last_at, last_success, last_error, status`

func (s *Store) scanMirror(r store.Row) (m forge.Mirror, err error) {
	var interval, next, last, success int64
	err = r.Scan(&m.ID, &m.ProjectID, &m.Push, &m.URL, &m.Username, &m.Password, &m.Enabled, &m.OnlyProtected, &interval, &next, &last, &success, &m.LastError, &m.Status)
	if err != nil {
		return m, err
	}
	m.Interval = time.Duration(interval) * time.Millisecond
	m.NextAt, m.LastAt, m.LastSuccess = store.Time(next), store.Time(last), store.Time(success)
	m.Password, err = s.box.OpenColumn(mirrorPassword, m.Password)
	return m, err
}

// SetMirror implements forge.Store.
func (s *Store) SetMirror(ctx context.Context, m forge.Mirror) (forge.Mirror, error) {
	err := s.db.Write(ctx, func(t *store.Tx) (err error) {
		if m.ID == 0 {
			m.ID, err = insert(t, `INSERT INTO mirrors (project_id, push, url, username, password, enabled, only_protected, interval_ms, next_at, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				m.ProjectID, m.Push, m.URL, m.Username, s.box.Column(mirrorPassword, m.Password), m.Enabled, m.OnlyProtected, m.Interval.Milliseconds(), store.Millis(m.NextAt), m.Status)
			return err
		}
		res, err := t.Exec(`UPDATE mirrors SET url = ?, username = ?, password = ?, enabled = ?, only_protected = ?, interval_ms = ?, next_at = ? WHERE id = ? AND project_id = ?`,
			m.URL, m.Username, s.box.Column(mirrorPassword, m.Password), m.Enabled, m.OnlyProtected, m.Interval.Milliseconds(), store.Millis(m.NextAt), m.ID, m.ProjectID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, store.Missing("Mirror", sql.ErrNoRows))
		}
		return nil
	})
	return m, err
}

// RecordMirror implements forge.Store.
func (s *Store) RecordMirror(ctx context.Context, m forge.Mirror) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`UPDATE mirrors SET next_at = ?, last_at = ?, last_success = ?, last_error = ?, status = ? WHERE id = ? AND project_id = ?`,
			store.Millis(m.NextAt), store.Millis(m.LastAt), store.Millis(m.LastSuccess), m.LastError, m.Status, m.ID, m.ProjectID)
		if err != nil {
			return fmt.Errorf("forgedb: record mirror: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, store.Missing("Mirror", sql.ErrNoRows))
		}
		return nil
	})
}

// DeleteMirror implements forge.Store.
func (s *Store) DeleteMirror(ctx context.Context, projectID, id int64) error {
	return s.exec(ctx, "delete mirror", `DELETE FROM mirrors WHERE project_id = ? AND id = ?`, projectID, id)
}

// Mirrors implements forge.Store.
func (s *Store) Mirrors(ctx context.Context, projectID int64) ([]forge.Mirror, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: mirrorColumns, From: `FROM mirrors WHERE project_id = ?`, Order: "id", Args: []any{projectID}}, 0, 0, s.scanMirror)
	return out, err
}

// DueMirrors implements forge.Store.
func (s *Store) DueMirrors(ctx context.Context, now time.Time) ([]forge.Mirror, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: mirrorColumns, From: `FROM mirrors WHERE enabled = 1 AND next_at <= ?`, Order: "next_at", Args: []any{store.Millis(now)}}, 0, 0, s.scanMirror)
	return out, err
}
