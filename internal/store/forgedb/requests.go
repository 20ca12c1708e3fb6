package forgedb

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/store"
)

const requestColumns = `m.id, m.iid, m.project_id, COALESCE(m.source_project_id, 0), m.source_branch, m.target_branch, m.title, m.description, m.state, m.draft, m.squash, m.remove_source_branch, m.auto_merge,
	m.author_id, m.assignees, m.reviewers, m.labels, m.head_sha, m.base_sha, m.start_sha, m.merge_status, m.merge_error, m.merge_commit_sha, m.squash_commit_sha, m.merged_by_id, m.merged_at, m.closed_at, m.created_at, m.updated_at`

func scanRequest(r store.Row) (m delivery.MergeRequest, err error) {
	var assignees, reviewers, labels string
	var merged, closed, created, updated int64
	err = r.Scan(&m.ID, &m.IID, &m.ProjectID, &m.SourceProjectID, &m.SourceBranch, &m.TargetBranch, &m.Title, &m.Description, &m.State, &m.Draft, &m.Squash, &m.RemoveSourceBranch, &m.AutoMerge,
		&m.AuthorID, &assignees, &reviewers, &labels, &m.HeadSHA, &m.BaseSHA, &m.StartSHA, &m.MergeStatus, &m.MergeError, &m.MergeCommitSHA, &m.SquashCommitSHA, &m.MergedByID, &merged, &closed, &created, &updated)
	m.AssigneeIDs, m.ReviewerIDs = splitIDs(assignees), splitIDs(reviewers)
	if labels != "" {
		m.Labels = strings.Split(labels, "\n")
	}
	m.MergedAt, m.ClosedAt, m.CreatedAt, m.UpdatedAt = store.Time(merged), store.Time(closed), store.Time(created), store.Time(updated)
	return m, err
}

// joinIDs writes ids as ",1,2," so that one can be found by a pattern.
func joinIDs(ids []int64) string {
	if len(ids) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteByte(',')
	for _, id := range ids {
		b.WriteString(strconv.FormatInt(id, 10) + ",")
	}
	return b.String()
}

func splitIDs(s string) []int64 {
	var out []int64
	for part := range strings.SplitSeq(s, ",") {
		if id, err := strconv.ParseInt(part, 10, 64); err == nil {
			out = append(out, id)
		}
	}
	return out
}

// CreateMergeRequest implements forge.Store.
func (s *Store) CreateMergeRequest(ctx context.Context, m delivery.MergeRequest) (delivery.MergeRequest, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		if err := t.QueryRow(`SELECT COALESCE(MAX(iid), 0) + 1 FROM merge_requests WHERE project_id = ?`, m.ProjectID).Scan(&m.IID); err != nil {
			return fmt.Errorf("forgedb: create merge request: %w", err)
		}
		var err error
		m.ID, err = insert(t, `INSERT INTO merge_requests (iid, project_id, source_project_id, source_branch, target_branch, title, description, state, draft, squash, remove_source_branch, author_id, assignees, reviewers, labels, head_sha, base_sha, start_sha, merge_status, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			m.IID, m.ProjectID, store.Null(m.SourceProjectID), m.SourceBranch, m.TargetBranch, m.Title, m.Description, m.State, m.Draft, m.Squash, m.RemoveSourceBranch, m.AuthorID,
			joinIDs(m.AssigneeIDs), joinIDs(m.ReviewerIDs), strings.Join(m.Labels, "\n"), m.HeadSHA, m.BaseSHA, m.StartSHA, m.MergeStatus, store.Millis(m.CreatedAt), store.Millis(m.UpdatedAt))
		if err != nil {
			return fmt.Errorf("forgedb: create merge request: %w", err)
		}
		if err := addVersion(t, forge.MergeRequestVersion{MergeRequestID: m.ID, HeadSHA: m.HeadSHA, BaseSHA: m.BaseSHA, StartSHA: m.StartSHA, CreatedAt: m.CreatedAt}); err != nil {
			return err
		}
		mentions, _ := forge.Mentions(m.Description)
		return t.Emit(delivery.EventMergeRequest, m.ProjectID, delivery.MergeRequestChanged{ID: m.ID, IID: m.IID, Action: "open", UserID: m.AuthorID, Assignees: m.AssigneeIDs, Reviewers: m.ReviewerIDs, Mentions: mentions})
	})
	return m, err
}

// UpdateMergeRequest implements forge.Store.
func (s *Store) UpdateMergeRequest(ctx context.Context, m delivery.MergeRequest, action string, userID int64, oldSHA string) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		e := delivery.MergeRequestChanged{ID: m.ID, IID: m.IID, Action: action, UserID: userID, OldSHA: oldSHA}
		if err := added(t, m, &e); err != nil {
			return err
		}
		_, err := t.Exec(`UPDATE merge_requests SET source_project_id = ?, source_branch = ?, target_branch = ?, title = ?, description = ?, state = ?, draft = ?, squash = ?, remove_source_branch = ?, auto_merge = ?, assignees = ?, reviewers = ?, labels = ?,
				head_sha = ?, base_sha = ?, start_sha = ?, merge_status = ?, merge_error = ?, merge_commit_sha = ?, squash_commit_sha = ?, merged_by_id = ?, merged_at = ?, closed_at = ?, updated_at = ? WHERE id = ?`,
			store.Null(m.SourceProjectID), m.SourceBranch, m.TargetBranch, m.Title, m.Description, m.State, m.Draft, m.Squash, m.RemoveSourceBranch, m.AutoMerge, joinIDs(m.AssigneeIDs), joinIDs(m.ReviewerIDs), strings.Join(m.Labels, "\n"),
			m.HeadSHA, m.BaseSHA, m.StartSHA, m.MergeStatus, m.MergeError, m.MergeCommitSHA, m.SquashCommitSHA, m.MergedByID, store.Millis(m.MergedAt), store.Millis(m.ClosedAt), store.Millis(t.Now()), m.ID)
		if err != nil {
			return fmt.Errorf("forgedb: update merge request: %w", err)
		}
		if action == "" {
			return nil
		}
		return t.Emit(delivery.EventMergeRequest, m.ProjectID, e)
	})
}

// added puts into an event who is given a merge request by a change of it, and
// who its description names since.
func added(t *store.Tx, m delivery.MergeRequest, e *delivery.MergeRequestChanged) error {
	var assignees, reviewers, description string
	if err := t.QueryRow(`SELECT assignees, reviewers, description FROM merge_requests WHERE id = ?`, m.ID).Scan(&assignees, &reviewers, &description); err != nil {
		return fmt.Errorf("forgedb: update merge request: %w", err)
	}
	e.Assignees, e.Reviewers = forge.Without(m.AssigneeIDs, splitIDs(assignees)), forge.Without(m.ReviewerIDs, splitIDs(reviewers))
	if m.Description != description {
		before, _ := forge.Mentions(description)
		now, _ := forge.Mentions(m.Description)
		e.Mentions = forge.Without(now, before)
	}
	return nil
}

// SetMergeStatus implements forge.Store.
func (s *Store) SetMergeStatus(ctx context.Context, id int64, status, mergeError string) error {
	return s.exec(ctx, "set merge status", `UPDATE merge_requests SET merge_status = ?, merge_error = ? WHERE id = ?`, status, mergeError, id)
}

// MergeRequestByIID implements forge.Store.
func (s *Store) MergeRequestByIID(ctx context.Context, projectID, iid int64) (delivery.MergeRequest, error) {
	return one(ctx, s.db, "Merge Request", `SELECT `+requestColumns+` FROM merge_requests m WHERE m.project_id = ? AND m.iid = ?`, []any{projectID, iid}, scanRequest)
}

// MergeRequestByID implements forge.Store.
func (s *Store) MergeRequestByID(ctx context.Context, id int64) (delivery.MergeRequest, error) {
	return one(ctx, s.db, "Merge Request", `SELECT `+requestColumns+` FROM merge_requests m WHERE m.id = ?`, []any{id}, scanRequest)
}

// MergeRequests implements forge.Store.
func (s *Store) MergeRequests(ctx context.Context, f forge.MergeRequestFilter, limit, offset int) ([]delivery.MergeRequest, int, error) {
	from, args := `FROM merge_requests m`, []any{}
	with := ""
	where := []string{"1 = 1"}
	if f.Visible != nil {
		with = mine
		cond, a := visible(*f.Visible)
		from += ` JOIN projects p ON p.id = m.project_id JOIN namespaces n ON n.id = p.namespace_id`
		where = append(where, cond)
		args = append(mineArgs(f.Visible.Viewer), a...)
	}
	add := func(cond string, a ...any) {
		where = append(where, "("+cond+")")
		args = append(args, a...)
	}
	if f.ProjectIDs != nil {
		add(`m.project_id IN (`+marks(len(f.ProjectIDs))+`)`, anys(f.ProjectIDs)...)
	}
	if len(f.IIDs) > 0 {
		add(`m.iid IN (`+marks(len(f.IIDs))+`)`, anys(f.IIDs)...)
	}
	if f.MadeCommit != "" {
		add(`m.merge_commit_sha = ? OR m.squash_commit_sha = ?`, f.MadeCommit, f.MadeCommit)
	}
	if f.State != "" && f.State != "all" {
		add(`m.state = ?`, f.State)
	}
	if f.AuthorID != 0 {
		add(`m.author_id = ?`, f.AuthorID)
	}
	if f.AssigneeID != 0 {
		add(`m.assignees LIKE ?`, fmt.Sprintf("%%,%d,%%", f.AssigneeID))
	}
	if f.ReviewerID != 0 {
		add(`m.reviewers LIKE ?`, fmt.Sprintf("%%,%d,%%", f.ReviewerID))
	}
	if f.SourceBranch != "" {
		add(`m.source_branch = ?`, f.SourceBranch)
	}
	if f.TargetBranch != "" {
		add(`m.target_branch = ?`, f.TargetBranch)
	}
	if f.SourceID != 0 {
		add(`m.source_project_id = ?`, f.SourceID)
	}
	if f.Search != "" {
		add(`lower(m.title) LIKE ? ESCAPE '\' OR lower(m.description) LIKE ? ESCAPE '\'`, store.Like(f.Search), store.Like(f.Search))
	}
	for _, l := range f.Labels {
		add(`char(10) || m.labels || char(10) LIKE ? ESCAPE '\'`, "%\n"+strings.Trim(store.Like(l), "%")+"\n%")
	}
	if f.Draft != nil {
		add(`m.draft = ?`, *f.Draft)
	}
	column := map[string]string{"updated_at": "m.updated_at", "title": "m.title"}[f.OrderBy]
	if column == "" {
		column = "m.created_at"
	}
	dir := " DESC"
	if f.Ascending {
		dir = " ASC"
	}
	return list(ctx, s.db, store.Selection{With: with, Columns: requestColumns, From: from + " WHERE " + strings.Join(where, " AND "), Order: column + dir + ", m.id" + dir, Args: args}, limit, offset, scanRequest)
}

// DeleteMergeRequest implements forge.Store.
func (s *Store) DeleteMergeRequest(ctx context.Context, id int64) error {
	return s.exec(ctx, "delete merge request", `DELETE FROM merge_requests WHERE id = ?`, id)
}

// Approvals implements forge.Store.
func (s *Store) Approvals(ctx context.Context, id int64) ([]forge.Approval, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `user_id, created_at`, From: `FROM merge_request_approvals WHERE merge_request_id = ?`, Order: `created_at, user_id`, Args: []any{id}}, 0, 0, func(r store.Row) (a forge.Approval, err error) {
		var at int64
		err = r.Scan(&a.UserID, &at)
		a.At = store.Time(at)
		return a, err
	})
	return out, err
}

// SetApproval implements forge.Store.
func (s *Store) SetApproval(ctx context.Context, m delivery.MergeRequest, userID int64, approve bool) error {
	return s.db.Write(ctx, func(t *store.Tx) error {
		_, err := setApproval(t, m, userID, approve, false)
		return err
	})
}

// setApproval reports whether it changed anything.
func setApproval(t *store.Tx, m delivery.MergeRequest, userID int64, approve, inReview bool) (bool, error) {
	text, args, action := `DELETE FROM merge_request_approvals WHERE merge_request_id = ? AND user_id = ?`, []any{m.ID, userID}, "unapproved"
	if approve {
		text, args, action = `INSERT INTO merge_request_approvals (merge_request_id, user_id, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, []any{m.ID, userID, store.Millis(t.Now())}, "approved"
	}
	res, err := t.Exec(text, args...)
	if err != nil {
		return false, fmt.Errorf("forgedb: set approval: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	return true, t.Emit(delivery.EventMergeRequest, m.ProjectID, delivery.MergeRequestChanged{ID: m.ID, IID: m.IID, Action: action, UserID: userID, InReview: inReview})
}

// ClearApprovals implements forge.Store.
func (s *Store) ClearApprovals(ctx context.Context, id int64) error {
	return s.exec(ctx, "clear approvals", `DELETE FROM merge_request_approvals WHERE merge_request_id = ?`, id)
}

func addVersion(t *store.Tx, v forge.MergeRequestVersion) error {
	_, err := t.Exec(`INSERT INTO merge_request_versions (merge_request_id, head_sha, base_sha, start_sha, created_at) VALUES (?, ?, ?, ?, ?)`, v.MergeRequestID, v.HeadSHA, v.BaseSHA, v.StartSHA, store.Millis(v.CreatedAt))
	if err != nil {
		return fmt.Errorf("forgedb: add version: %w", err)
	}
	return nil
}

// AddVersion implements forge.Store.
func (s *Store) AddVersion(ctx context.Context, v forge.MergeRequestVersion) error {
	return s.db.Write(ctx, func(t *store.Tx) error { return addVersion(t, v) })
}

// Versions implements forge.Store.
func (s *Store) Versions(ctx context.Context, id int64) ([]forge.MergeRequestVersion, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `id, merge_request_id, head_sha, base_sha, start_sha, created_at`, From: `FROM merge_request_versions WHERE merge_request_id = ?`, Order: `id DESC`, Args: []any{id}}, 0, 0, func(r store.Row) (v forge.MergeRequestVersion, err error) {
		var at int64
		err = r.Scan(&v.ID, &v.MergeRequestID, &v.HeadSHA, &v.BaseSHA, &v.StartSHA, &at)
		v.CreatedAt = store.Time(at)
		return v, err
	})
	return out, err
}

const noteColumns = `id, project_id, noteable_type, COALESCE(merge_request_id, 0), noteable_iid, commit_sha, discussion_id, individual, system, author_id, body, position, original_position, excerpt, resolvable, resolved_by, resolved_at, created_at, updated_at`

func scanNote(r store.Row) (n forge.Note, err error) {
	var position, original string
	var resolved, created, updated int64
	err = r.Scan(&n.ID, &n.ProjectID, &n.NoteableType, &n.NoteableID, &n.NoteableIID, &n.CommitSHA, &n.DiscussionID, &n.Individual, &n.System, &n.AuthorID, &n.Body, &position, &original, &n.Excerpt, &n.Resolvable, &n.ResolvedByID, &resolved, &created, &updated)
	if err != nil {
		return n, err
	}
	n.ResolvedAt, n.CreatedAt, n.UpdatedAt = store.Time(resolved), store.Time(created), store.Time(updated)
	if n.Position, err = readPosition(position); err == nil {
		n.Original, err = readPosition(original)
	}
	if n.Original == nil {
		n.Original = n.Position // written before notes moved
	}
	return n, err
}

func readPosition(text string) (*forge.NotePosition, error) {
	if text == "" {
		return nil, nil
	}
	p := &forge.NotePosition{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return nil, fmt.Errorf("forgedb: position of a note: %w", err)
	}
	return p, nil
}

func writePosition(p *forge.NotePosition) (string, error) {
	if p == nil {
		return "", nil
	}
	return encode(p)
}

// CreateNote implements forge.Store.
func (s *Store) CreateNote(ctx context.Context, n forge.Note) (forge.Note, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		var err error
		if n, err = insertNote(t, n); err != nil || n.System {
			return err
		}
		return emitNote(t, n, nil)
	})
	return n, err
}

func insertNote(t *store.Tx, n forge.Note) (forge.Note, error) {
	position, original, err := writePositions(n)
	if err != nil {
		return n, err
	}
	n.UpdatedAt = n.CreatedAt
	n.ID, err = insert(t, `INSERT INTO notes (project_id, noteable_type, merge_request_id, noteable_iid, commit_sha, discussion_id, individual, system, author_id, body, position, original_position, excerpt, resolvable, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		n.ProjectID, n.NoteableType, store.Null(n.NoteableID), n.NoteableIID, n.CommitSHA, n.DiscussionID, n.Individual, n.System, n.AuthorID, n.Body, position, original, n.Excerpt, n.Resolvable, store.Millis(n.CreatedAt), store.Millis(n.CreatedAt))
	if err != nil {
		return n, fmt.Errorf("forgedb: create note: %w", err)
	}
	if !n.Individual {
		if _, err := t.Exec(`UPDATE notes SET individual = 0 WHERE discussion_id = ?`, n.DiscussionID); err != nil {
			return n, fmt.Errorf("forgedb: create note: %w", err)
		}
	}
	if n.NoteableID != 0 {
		if _, err := t.Exec(`UPDATE merge_requests SET updated_at = ? WHERE id = ?`, store.Millis(n.CreatedAt), n.NoteableID); err != nil {
			return n, fmt.Errorf("forgedb: create note: %w", err)
		}
	}
	return n, nil
}

func emitNote(t *store.Tx, n forge.Note, review *delivery.Review) error {
	return t.Emit(delivery.EventNote, n.ProjectID, delivery.NoteAdded{ID: n.ID, NoteableType: n.NoteableType, NoteableIID: n.NoteableIID, CommitSHA: n.CommitSHA, UserID: n.AuthorID, Review: review})
}

// UpdateNote implements forge.Store.
func (s *Store) UpdateNote(ctx context.Context, n forge.Note) error {
	return s.exec(ctx, "update note", `UPDATE notes SET body = ?, resolved_by = ?, resolved_at = ?, updated_at = ? WHERE id = ?`, n.Body, n.ResolvedByID, store.Millis(n.ResolvedAt), store.Millis(n.UpdatedAt), n.ID)
}

// MoveNote implements forge.Store.
func (s *Store) MoveNote(ctx context.Context, id int64, p forge.NotePosition) error {
	position, err := writePosition(&p)
	if err != nil {
		return err
	}
	return s.exec(ctx, "move note", `UPDATE notes SET position = ? WHERE id = ?`, position, id)
}

// DeleteNote implements forge.Store.
func (s *Store) DeleteNote(ctx context.Context, id int64) error {
	return s.exec(ctx, "delete note", `DELETE FROM notes WHERE id = ?`, id)
}

// NoteByID implements forge.Store.
func (s *Store) NoteByID(ctx context.Context, id int64) (forge.Note, error) {
	return one(ctx, s.db, "Note", `SELECT `+noteColumns+` FROM notes WHERE id = ?`, []any{id}, scanNote)
}

// Notes implements forge.Store.
func (s *Store) Notes(ctx context.Context, projectID, mergeRequestID int64, commitSHA string, ascending bool, limit, offset int) ([]forge.Note, int, error) {
	from, args := `FROM notes WHERE project_id = ? AND merge_request_id = ?`, []any{projectID, mergeRequestID}
	if mergeRequestID == 0 {
		from, args = `FROM notes WHERE project_id = ? AND merge_request_id IS NULL AND commit_sha = ?`, []any{projectID, commitSHA}
	}
	order := "id DESC"
	if ascending {
		order = "id"
	}
	return list(ctx, s.db, store.Selection{Columns: noteColumns, From: from, Order: order, Args: args}, limit, offset, scanNote)
}

// Discussion implements forge.Store.
func (s *Store) Discussion(ctx context.Context, projectID int64, discussionID string) ([]forge.Note, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: noteColumns, From: `FROM notes WHERE project_id = ? AND discussion_id = ?`, Order: "id", Args: []any{projectID, discussionID}}, 0, 0, scanNote)
	return out, err
}

// Unresolved implements forge.Store.
func (s *Store) Unresolved(ctx context.Context, mergeRequestID int64) (int, error) {
	return one(ctx, s.db, "Merge Request", `SELECT count(DISTINCT discussion_id) FROM notes WHERE merge_request_id = ? AND resolvable = 1 AND resolved_at = 0`, []any{mergeRequestID}, func(r store.Row) (n int, err error) {
		err = r.Scan(&n)
		return n, err
	})
}

// NotedCommits implements forge.Store.
func (s *Store) NotedCommits(ctx context.Context, projectID int64) ([]string, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: `DISTINCT commit_sha`, From: `FROM notes WHERE project_id = ? AND commit_sha <> ''`, Order: "commit_sha", Args: []any{projectID}}, 0, 0, func(r store.Row) (sha string, err error) {
		err = r.Scan(&sha)
		return sha, err
	})
	return out, err
}
