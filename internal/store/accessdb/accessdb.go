// Package accessdb keeps users, groups, members, tokens and keys in the
// platform's database: it implements access.Store.
//
// It receives calls of the access package and emits nothing. It must not
// import any other stage.
package accessdb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
)

// Store implements access.Store.
type Store struct {
	db  *store.DB
	box *seal.Box
}

var _ access.Store = (*Store)(nil)

// SealedColumns are the columns that are encrypted at rest.
var SealedColumns = []string{totpSecret, totpPending}

const (
	totpSecret  = "users.totp_secret"
	totpPending = "users.totp_pending"
)

// New returns a Store over an open database; the box seals second factors.
func New(db *store.DB, box *seal.Box) *Store { return &Store{db: db, box: box} }

// key is the form in which names are compared.
func key(s string) string { return strings.ToLower(s) }

// list reads a page of a selection.
func list[T any](ctx context.Context, db *store.DB, columns, from, order string, args []any, limit, offset int, scan func(store.Row) (T, error)) ([]T, int, error) {
	return selected(ctx, db, store.Selection{Columns: columns, From: from, Order: order, Args: args}, limit, offset, scan)
}

func selected[T any](ctx context.Context, db *store.DB, s store.Selection, limit, offset int, scan func(store.Row) (T, error)) ([]T, int, error) {
	out, total, err := store.Page(ctx, db, s, limit, offset, scan)
	if err != nil {
		return nil, 0, fmt.Errorf("accessdb: list: %w", err)
	}
	return out, total, nil
}

// exec runs one statement as a write.
func (s *Store) exec(ctx context.Context, what, query string, args ...any) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(query, args...); err != nil {
			return fmt.Errorf("accessdb: %s: %w", what, err)
		}
		return nil
	})
}

const userColumns = `u.id, u.username, u.name, u.email, u.password_hash, u.totp_secret, u.totp_pending, u.totp_last, u.admin, u.blocked, u.bot, u.created_at, u.last_sign_in`

func (s *Store) scanUser(r store.Row) (access.Account, error) {
	var a access.Account
	var created, signedIn int64
	err := r.Scan(&a.ID, &a.Username, &a.Name, &a.Email, &a.PasswordHash, &a.TOTPSecret, &a.TOTPPending, &a.TOTPLast, &a.Admin, &a.Blocked, &a.Bot, &created, &signedIn)
	if err != nil {
		return a, err
	}
	a.CreatedAt, a.LastSignIn = store.Time(created), store.Time(signedIn)
	if a.TOTPSecret, err = s.box.OpenColumn(totpSecret, a.TOTPSecret); err != nil {
		return a, err
	}
	a.TOTPPending, err = s.box.OpenColumn(totpPending, a.TOTPPending)
	return a, err
}

// CreateUser implements access.Store.
func (s *Store) CreateUser(ctx context.Context, a access.Account) (access.Account, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO users (username, username_key, name, email, email_key, password_hash, admin, blocked, bot, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			a.Username, key(a.Username), a.Name, a.Email, key(a.Email), a.PasswordHash, a.Admin, a.Blocked, a.Bot, store.Millis(a.CreatedAt))
		if err != nil {
			return userTaken(err)
		}
		if a.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		_, err = t.Exec(`INSERT INTO namespaces (kind, owner_id, path, full_path, full_path_key, name, visibility, created_at) VALUES ('user', ?, ?, ?, ?, ?, 'public', ?)`,
			a.ID, a.Username, a.Username, key(a.Username), a.Name, store.Millis(a.CreatedAt))
		return store.Taken(err, "username")
	})
	return a, err
}

func userTaken(err error) error {
	if err != nil && strings.Contains(err.Error(), "email_key") {
		return store.Taken(err, "email")
	}
	return store.Taken(err, "username")
}

// UpdateUser implements access.Store.
func (s *Store) UpdateUser(ctx context.Context, a access.Account) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE users SET username = ?, username_key = ?, name = ?, email = ?, email_key = ?, password_hash = ?, totp_secret = ?, totp_pending = ?, admin = ?, blocked = ?, last_sign_in = ? WHERE id = ?`,
			a.Username, key(a.Username), a.Name, a.Email, key(a.Email), a.PasswordHash, s.box.Column(totpSecret, a.TOTPSecret), s.box.Column(totpPending, a.TOTPPending), a.Admin, a.Blocked, store.Millis(a.LastSignIn), a.ID)
		if err != nil {
			return userTaken(err)
		}
		if _, err := t.Exec(`INSERT INTO project_redirects (full_path_key, project_id)
			SELECT n.full_path_key || '/' || p.path_key, p.id FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE n.owner_id = ? AND n.kind = 'user' AND n.full_path_key <> ?
			ON CONFLICT (full_path_key) DO UPDATE SET project_id = excluded.project_id`, a.ID, key(a.Username)); err != nil {
			return fmt.Errorf("accessdb: update user: %w", err)
		}
		_, err = t.Exec(`UPDATE namespaces SET path = ?, full_path = ?, full_path_key = ?, name = ? WHERE owner_id = ? AND kind = 'user'`, a.Username, a.Username, key(a.Username), a.Name, a.ID)
		return store.Taken(err, "username")
	})
}

// DeleteUser implements access.Store.
func (s *Store) DeleteUser(ctx context.Context, id int64) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		var n int
		err := t.QueryRow(`SELECT count(*) FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE n.owner_id = ?`, id).Scan(&n)
		if err != nil {
			return fmt.Errorf("accessdb: delete user: %w", err)
		}
		if n > 0 {
			return &delivery.Error{Kind: delivery.Conflict, Message: fmt.Sprintf("The user still owns %d projects.", n), Next: "Delete or transfer them first, or block the user."}
		}
		if _, err := t.Exec(`DELETE FROM avatars WHERE kind = 'user' AND owner_id = ?`, id); err != nil {
			return fmt.Errorf("accessdb: delete user: %w", err)
		}
		if _, err := t.Exec(`DELETE FROM users WHERE id = ?`, id); err != nil {
			return fmt.Errorf("accessdb: delete user: %w", err)
		}
		return nil
	})
}

// UserByID implements access.Store.
func (s *Store) UserByID(ctx context.Context, id int64) (a access.Account, err error) {
	return s.user(ctx, `WHERE u.id = ?`, id)
}

// UserByLogin implements access.Store.
func (s *Store) UserByLogin(ctx context.Context, login string) (access.Account, error) {
	return s.user(ctx, `WHERE u.username_key = ? OR u.email_key = ? ORDER BY u.username_key = ? DESC LIMIT 1`, key(login), key(login), key(login))
}

func (s *Store) user(ctx context.Context, where string, args ...any) (a access.Account, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		a, err = s.scanUser(t.QueryRow(`SELECT `+userColumns+` FROM users u `+where, args...))
		return store.Missing("User", err)
	})
	return a, err
}

// Users implements access.Store.
func (s *Store) Users(ctx context.Context, f access.UserFilter, limit, offset int) ([]access.Account, int, error) {
	from, args := `FROM users u WHERE 1 = 1`, []any{}
	if !f.Bots {
		from += ` AND u.bot = 0`
	}
	if f.Search != "" {
		from += ` AND (u.username_key LIKE ? ESCAPE '\' OR lower(u.name) LIKE ? ESCAPE '\' OR u.email_key = ?)`
		args = append(args, store.Like(f.Search), store.Like(f.Search), key(f.Search))
	}
	if f.Username != "" {
		from += ` AND u.username_key = ?`
		args = append(args, key(f.Username))
	}
	if f.Blocked != nil {
		from += ` AND u.blocked = ?`
		args = append(args, *f.Blocked)
	}
	return list(ctx, s.db, userColumns, from, "u.id", args, limit, offset, s.scanUser)
}

// AcceptTOTP implements access.Store.
func (s *Store) AcceptTOTP(ctx context.Context, id, step int64) (ok bool, err error) {
	err = s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`UPDATE users SET totp_last = ? WHERE id = ? AND totp_last < ?`, step, id, step)
		if err != nil {
			return fmt.Errorf("accessdb: accept code: %w", err)
		}
		n, err := res.RowsAffected()
		ok = n == 1
		return err
	})
	return ok, err
}

// SetRecoveryCodes implements access.Store.
func (s *Store) SetRecoveryCodes(ctx context.Context, id int64, hashes []string) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(`DELETE FROM recovery_codes WHERE user_id = ?`, id); err != nil {
			return fmt.Errorf("accessdb: recovery codes: %w", err)
		}
		for _, h := range hashes {
			if _, err := t.Exec(`INSERT INTO recovery_codes (user_id, hash) VALUES (?, ?)`, id, h); err != nil {
				return fmt.Errorf("accessdb: recovery codes: %w", err)
			}
		}
		return nil
	})
}

// UseRecoveryCode implements access.Store.
func (s *Store) UseRecoveryCode(ctx context.Context, id int64, hash string) (ok bool, err error) {
	err = s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`DELETE FROM recovery_codes WHERE user_id = ? AND hash = ?`, id, hash)
		if err != nil {
			return fmt.Errorf("accessdb: use recovery code: %w", err)
		}
		n, err := res.RowsAffected()
		ok = n == 1
		return err
	})
	return ok, err
}

const sessionColumns = `id, user_id, address, agent, created_at, last_seen, expires_at`

func scanSession(r store.Row) (access.Session, error) {
	var v access.Session
	var created, seen, expires int64
	err := r.Scan(&v.ID, &v.UserID, &v.Address, &v.Agent, &created, &seen, &expires)
	v.CreatedAt, v.LastSeen, v.ExpiresAt = store.Time(created), store.Time(seen), store.Time(expires)
	return v, err
}

// CreateSession implements access.Store.
func (s *Store) CreateSession(ctx context.Context, hash string, v access.Session) (access.Session, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO sessions (hash, user_id, address, agent, created_at, last_seen, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			hash, v.UserID, v.Address, v.Agent, store.Millis(v.CreatedAt), store.Millis(v.LastSeen), store.Millis(v.ExpiresAt))
		if err != nil {
			return fmt.Errorf("accessdb: create session: %w", err)
		}
		v.ID, err = res.LastInsertId()
		return err
	})
	return v, err
}

// SessionByHash implements access.Store.
func (s *Store) SessionByHash(ctx context.Context, hash string) (v access.Session, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		v, err = scanSession(t.QueryRow(`SELECT `+sessionColumns+` FROM sessions WHERE hash = ?`, hash))
		return store.Missing("Session", err)
	})
	return v, err
}

// TouchSession implements access.Store.
func (s *Store) TouchSession(ctx context.Context, id int64, seen, expires time.Time) error {
	return s.exec(ctx, "touch session", `UPDATE sessions SET last_seen = ?, expires_at = ? WHERE id = ?`, store.Millis(seen), store.Millis(expires), id)
}

// Sessions implements access.Store.
func (s *Store) Sessions(ctx context.Context, userID int64) ([]access.Session, error) {
	out, _, err := list(ctx, s.db, sessionColumns, `FROM sessions WHERE user_id = ?`, "last_seen DESC, id DESC", []any{userID}, 0, 0, scanSession)
	return out, err
}

// DeleteSessions implements access.Store.
func (s *Store) DeleteSessions(ctx context.Context, userID, id, keep int64) error {
	if id != 0 {
		return s.exec(ctx, "end session", `DELETE FROM sessions WHERE user_id = ? AND id = ?`, userID, id)
	}
	return s.exec(ctx, "end sessions", `DELETE FROM sessions WHERE user_id = ? AND id <> ?`, userID, keep)
}

// DeleteExpiredSessions implements access.Store.
func (s *Store) DeleteExpiredSessions(ctx context.Context, now time.Time) error {
	return s.exec(ctx, "delete expired sessions", `DELETE FROM sessions WHERE expires_at < ?`, store.Millis(now))
}

// AddAudit implements access.Store.
func (s *Store) AddAudit(ctx context.Context, e access.AuditEvent) error {
	return s.exec(ctx, "audit", `INSERT INTO audit_events (at, actor_id, actor, address, action, target_type, target_id, target, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		store.Millis(e.At), e.ActorID, e.Actor, e.Address, e.Action, e.TargetType, e.TargetID, e.Target, e.Details)
}

// AuditEvents implements access.Store.
func (s *Store) AuditEvents(ctx context.Context, f access.AuditFilter, limit, offset int) ([]access.AuditEvent, int, error) {
	from, args := `FROM audit_events WHERE 1 = 1`, []any{}
	if f.TargetType != "" {
		from += ` AND target_type = ? AND target_id = ?`
		args = append(args, f.TargetType, f.TargetID)
	}
	if f.Search != "" {
		from += ` AND (lower(actor) LIKE ? ESCAPE '\' OR action LIKE ? ESCAPE '\' OR lower(target) LIKE ? ESCAPE '\' OR address = ?)`
		args = append(args, store.Like(f.Search), store.Like(f.Search), store.Like(f.Search), f.Search)
	}
	return list(ctx, s.db, `id, at, actor_id, actor, address, action, target_type, target_id, target, details`, from, "id DESC", args, limit, offset, func(r store.Row) (access.AuditEvent, error) {
		var e access.AuditEvent
		var at int64
		err := r.Scan(&e.ID, &at, &e.ActorID, &e.Actor, &e.Address, &e.Action, &e.TargetType, &e.TargetID, &e.Target, &e.Details)
		e.At = store.Time(at)
		return e, err
	})
}
