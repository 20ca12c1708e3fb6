package forgedb

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/store"
)

const todoColumns = `t.id, t.user_id, t.project_id, COALESCE(t.merge_request_id, 0), COALESCE(m.iid, 0), COALESCE(m.title, t.commit_title), t.commit_sha, t.note_id, t.author_id, t.action, t.body, t.event_id, t.done, t.created_at, t.updated_at`

func scanTodo(r store.Row) (t forge.Todo, err error) {
	var created, updated int64
	err = r.Scan(&t.ID, &t.UserID, &t.ProjectID, &t.MergeRequestID, &t.IID, &t.Title, &t.CommitSHA, &t.NoteID, &t.AuthorID, &t.Action, &t.Body, &t.EventID, &t.Done, &created, &updated)
	t.CreatedAt, t.UpdatedAt = store.Time(created), store.Time(updated)
	return t, err
}

// AddTodo implements forge.Store.
func (s *Store) AddTodo(ctx context.Context, t forge.Todo) error {
	return s.db.Write(ctx, func(tx *store.Tx) error {
		var waiting int
		if err := tx.QueryRow(`SELECT count(*) FROM todos WHERE user_id = ? AND project_id = ? AND COALESCE(merge_request_id, 0) = ? AND commit_sha = ? AND action = ? AND done = 0`, t.UserID, t.ProjectID, t.MergeRequestID, t.CommitSHA, t.Action).Scan(&waiting); err != nil {
			return fmt.Errorf("forgedb: add todo: %w", err)
		}
		if waiting > 0 {
			return nil
		}
		at, commitTitle := store.Millis(t.CreatedAt), ""
		if t.CommitSHA != "" {
			commitTitle = t.Title
		}
		_, err := tx.Exec(`INSERT INTO todos (user_id, project_id, merge_request_id, commit_sha, commit_title, note_id, author_id, action, body, event_id, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			t.UserID, t.ProjectID, store.Null(t.MergeRequestID), t.CommitSHA, commitTitle, t.NoteID, t.AuthorID, t.Action, t.Body, t.EventID, at, at)
		if err != nil {
			return fmt.Errorf("forgedb: add todo: %w", err)
		}
		return nil
	})
}

// todoWhere writes a filter as a condition; prefix names the table.
func todoWhere(f forge.TodoFilter, prefix string) (string, []any) {
	where, args := []string{prefix + "user_id = ?"}, []any{f.UserID}
	add := func(column string, v any, on bool) {
		if on {
			where = append(where, prefix+column+" = ?")
			args = append(args, v)
		}
	}
	if f.Done != nil {
		add("done", *f.Done, true)
	}
	add("action", f.Action, f.Action != "")
	add("author_id", f.AuthorID, f.AuthorID != 0)
	add("project_id", f.ProjectID, f.ProjectID != 0)
	add("merge_request_id", f.RequestID, f.RequestID != 0)
	add("commit_sha", f.CommitSHA, f.CommitSHA != "")
	switch f.Target {
	case forge.TargetCommit:
		where = append(where, prefix+"commit_sha <> ''")
	case forge.TargetRequest:
		add("commit_sha", "", true)
	}
	return strings.Join(where, " AND "), args
}

// Todos implements forge.Store.
func (s *Store) Todos(ctx context.Context, f forge.TodoFilter, limit, offset int) ([]forge.Todo, int, error) {
	where, args := todoWhere(f, "t.")
	q := store.Selection{Columns: todoColumns, From: `FROM todos t LEFT JOIN merge_requests m ON m.id = t.merge_request_id`, Order: "t.id DESC", Args: args}
	if f.Visible != nil {
		cond, a := visible(*f.Visible)
		q.With = mine
		q.From += ` JOIN projects p ON p.id = t.project_id JOIN namespaces n ON n.id = p.namespace_id`
		where += " AND (" + cond + ")"
		q.Args = append(append(mineArgs(f.Visible.Viewer), args...), a...)
	}
	q.From += " WHERE " + where
	return list(ctx, s.db, q, limit, offset, scanTodo)
}

// TodoByID implements forge.Store.
func (s *Store) TodoByID(ctx context.Context, id int64) (forge.Todo, error) {
	return one(ctx, s.db, "Todo", `SELECT `+todoColumns+` FROM todos t LEFT JOIN merge_requests m ON m.id = t.merge_request_id WHERE t.id = ?`, []any{id}, scanTodo)
}

// SetTodos implements forge.Store.
func (s *Store) SetTodos(ctx context.Context, f forge.TodoFilter, id int64, done bool) error {
	where, args := todoWhere(f, "")
	if id != 0 {
		where += " AND id = ?"
		args = append(args, id)
	}
	return s.db.Write(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE todos SET done = ?, updated_at = ? WHERE done <> ? AND `+where, append([]any{done, store.Millis(t.Now()), done}, args...)...)
		if err != nil {
			return fmt.Errorf("forgedb: set todos: %w", err)
		}
		return nil
	})
}

// QueueMail implements forge.Store.
func (s *Store) QueueMail(ctx context.Context, m forge.QueuedMail) error {
	return s.exec(ctx, "queue mail", `INSERT INTO mails (message_id, user_id, subject, body, thread, next_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		m.MessageID, m.UserID, m.Subject, m.Body, m.Thread, store.Millis(m.NextAt), store.Millis(m.CreatedAt))
}

// DueMails implements forge.Store.
func (s *Store) DueMails(ctx context.Context, now time.Time, limit int) ([]forge.QueuedMail, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `id, message_id, user_id, subject, body, thread, attempts, next_at, created_at`, From: `FROM mails WHERE next_at <= ?`, Order: "next_at, id", Args: []any{store.Millis(now)}}, limit, 0, func(r store.Row) (m forge.QueuedMail, err error) {
		var next, created int64
		err = r.Scan(&m.ID, &m.MessageID, &m.UserID, &m.Subject, &m.Body, &m.Thread, &m.Attempts, &next, &created)
		m.NextAt, m.CreatedAt = store.Time(next), store.Time(created)
		return m, err
	})
	return out, err
}

// RetryMail implements forge.Store.
func (s *Store) RetryMail(ctx context.Context, id int64, attempts int, next time.Time) error {
	return s.exec(ctx, "retry mail", `UPDATE mails SET attempts = ?, next_at = ? WHERE id = ?`, attempts, store.Millis(next), id)
}

// DeleteMail implements forge.Store.
func (s *Store) DeleteMail(ctx context.Context, id int64) error {
	return s.exec(ctx, "delete mail", `DELETE FROM mails WHERE id = ?`, id)
}

// MailLevel implements forge.Store.
func (s *Store) MailLevel(ctx context.Context, userID int64) (string, error) {
	return one(ctx, s.db, "Setting", `SELECT COALESCE(MAX(level), '') FROM notification_settings WHERE user_id = ?`, []any{userID}, func(r store.Row) (level string, err error) {
		err = r.Scan(&level)
		return level, err
	})
}

// SetMailLevel implements forge.Store.
func (s *Store) SetMailLevel(ctx context.Context, userID int64, level string) error {
	return s.exec(ctx, "set mail level", `INSERT INTO notification_settings (user_id, level) VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET level = excluded.level`, userID, level)
}
