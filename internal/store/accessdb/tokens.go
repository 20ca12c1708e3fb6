package accessdb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/store"
)

const tokenColumns = `id, kind, COALESCE(user_id, 0), COALESCE(project_id, 0), COALESCE(group_id, 0), name, username, scopes, role, created_at, created_by, expires_at, last_used, revoked_at`

func scanToken(r store.Row) (t access.Token, err error) {
	var scopes string
	var created, expires, used, revoked int64
	err = r.Scan(&t.ID, &t.Kind, &t.UserID, &t.ProjectID, &t.GroupID, &t.Name, &t.Username, &scopes, &t.Role, &created, &t.CreatedBy, &expires, &used, &revoked)
	t.Scopes = strings.Fields(scopes)
	t.CreatedAt, t.ExpiresAt, t.LastUsed, t.RevokedAt = store.Time(created), store.Time(expires), store.Time(used), store.Time(revoked)
	return t, err
}

// CreateToken implements access.Store.
func (s *Store) CreateToken(ctx context.Context, hash string, v access.Token) (access.Token, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO tokens (kind, hash, user_id, project_id, group_id, name, username, scopes, role, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			string(v.Kind), hash, store.Null(v.UserID), store.Null(v.ProjectID), store.Null(v.GroupID), v.Name, v.Username, strings.Join(v.Scopes, " "), v.Role, store.Millis(v.CreatedAt), v.CreatedBy, store.Millis(v.ExpiresAt))
		if err != nil {
			return fmt.Errorf("accessdb: create token: %w", err)
		}
		v.ID, err = res.LastInsertId()
		return err
	})
	return v, err
}

func (s *Store) token(ctx context.Context, where string, arg any) (v access.Token, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		v, err = scanToken(t.QueryRow(`SELECT `+tokenColumns+` FROM tokens WHERE `+where, arg))
		return store.Missing("Token", err)
	})
	return v, err
}

// TokenByHash implements access.Store.
func (s *Store) TokenByHash(ctx context.Context, hash string) (access.Token, error) {
	return s.token(ctx, `hash = ?`, hash)
}

// TokenByID implements access.Store.
func (s *Store) TokenByID(ctx context.Context, id int64) (access.Token, error) {
	return s.token(ctx, `id = ?`, id)
}

// RevokeToken implements access.Store.
func (s *Store) RevokeToken(ctx context.Context, id int64, at time.Time) error {
	return s.exec(ctx, "revoke token", `UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at = 0`, store.Millis(at), id)
}

// TouchToken implements access.Store.
func (s *Store) TouchToken(ctx context.Context, id int64, at time.Time) error {
	return s.exec(ctx, "touch token", `UPDATE tokens SET last_used = ? WHERE id = ?`, store.Millis(at), id)
}

// Tokens implements access.Store.
func (s *Store) Tokens(ctx context.Context, f access.TokenFilter, limit, offset int) ([]access.Token, int, error) {
	from, args := `FROM tokens WHERE kind = ?`, []any{string(f.Kind)}
	for _, n := range []struct {
		column string
		id     int64
	}{{"user_id", f.UserID}, {"project_id", f.ProjectID}, {"group_id", f.GroupID}} {
		if n.id != 0 {
			from += ` AND ` + n.column + ` = ?`
			args = append(args, n.id)
		}
	}
	return list(ctx, s.db, tokenColumns, from, "id", args, limit, offset, scanToken)
}

const keyColumns = `id, COALESCE(user_id, 0), COALESCE(project_id, 0), title, public_key, fingerprint, can_push, usage, created_at, expires_at, last_used`

func scanKey(r store.Row) (k access.Key, err error) {
	var created, expires, used int64
	err = r.Scan(&k.ID, &k.UserID, &k.ProjectID, &k.Title, &k.PublicKey, &k.Fingerprint, &k.CanPush, &k.Usage, &created, &expires, &used)
	k.CreatedAt, k.ExpiresAt, k.LastUsed = store.Time(created), store.Time(expires), store.Time(used)
	return k, err
}

// CreateKey implements access.Store.
func (s *Store) CreateKey(ctx context.Context, k access.Key) (access.Key, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO ssh_keys (user_id, project_id, title, public_key, fingerprint, can_push, usage, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			store.Null(k.UserID), store.Null(k.ProjectID), k.Title, k.PublicKey, k.Fingerprint, k.CanPush, k.Usage, store.Millis(k.CreatedAt), store.Millis(k.ExpiresAt))
		if err != nil {
			return store.Taken(err, "fingerprint")
		}
		k.ID, err = res.LastInsertId()
		return err
	})
	return k, err
}

func (s *Store) keyWhere(ctx context.Context, where string, arg any) (k access.Key, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		k, err = scanKey(t.QueryRow(`SELECT `+keyColumns+` FROM ssh_keys WHERE `+where, arg))
		return store.Missing("Key", err)
	})
	return k, err
}

// KeyByID implements access.Store.
func (s *Store) KeyByID(ctx context.Context, id int64) (access.Key, error) {
	return s.keyWhere(ctx, `id = ?`, id)
}

// KeyByFingerprint implements access.Store.
func (s *Store) KeyByFingerprint(ctx context.Context, fingerprint string) (access.Key, error) {
	return s.keyWhere(ctx, `fingerprint = ?`, fingerprint)
}

// DeleteKey implements access.Store.
func (s *Store) DeleteKey(ctx context.Context, id int64) error {
	return s.exec(ctx, "delete key", `DELETE FROM ssh_keys WHERE id = ?`, id)
}

// TouchKey implements access.Store.
func (s *Store) TouchKey(ctx context.Context, id int64, at time.Time) error {
	return s.exec(ctx, "touch key", `UPDATE ssh_keys SET last_used = ? WHERE id = ?`, store.Millis(at), id)
}

// UpdateKey implements access.Store.
func (s *Store) UpdateKey(ctx context.Context, k access.Key) error {
	return s.exec(ctx, "update key", `UPDATE ssh_keys SET title = ?, can_push = ? WHERE id = ?`, k.Title, k.CanPush, k.ID)
}

// Keys implements access.Store.
func (s *Store) Keys(ctx context.Context, userID, projectID int64, limit, offset int) ([]access.Key, int, error) {
	where, arg := `user_id = ?`, userID
	if projectID != 0 {
		where, arg = `project_id = ?`, projectID
	}
	return list(ctx, s.db, keyColumns, `FROM ssh_keys WHERE `+where, "id", []any{arg}, limit, offset, scanKey)
}
