package forgedb

import (
	"context"
	"fmt"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/store"
)

const draftColumns = `id, project_id, merge_request_id, noteable_iid, author_id, discussion_id, individual, resolvable, resolve, body, position, original_position, excerpt, created_at, updated_at`

func scanDraft(r store.Row) (d forge.DraftNote, err error) {
	var position, original string
	var created, updated int64
	d.NoteableType = "MergeRequest"
	err = r.Scan(&d.ID, &d.ProjectID, &d.NoteableID, &d.NoteableIID, &d.AuthorID, &d.DiscussionID, &d.Individual, &d.Resolvable, &d.Resolve, &d.Body, &position, &original, &d.Excerpt, &created, &updated)
	if err != nil {
		return d, err
	}
	d.CreatedAt, d.UpdatedAt = store.Time(created), store.Time(updated)
	if d.Position, err = readPosition(position); err == nil {
		d.Original, err = readPosition(original)
	}
	return d, err
}

// writePositions encodes where a note is now and where it was written.
func writePositions(n forge.Note) (position, original string, err error) {
	if position, err = writePosition(n.Position); err == nil {
		original, err = writePosition(n.Original)
	}
	return position, original, err
}

// CreateDraft implements forge.Store.
func (s *Store) CreateDraft(ctx context.Context, d forge.DraftNote) (forge.DraftNote, error) {
	position, original, err := writePositions(d.Note)
	if err != nil {
		return d, err
	}
	at := store.Millis(d.CreatedAt)
	err = s.db.Write(ctx, func(t *store.Tx) error {
		var err error
		d.ID, err = insert(t, `INSERT INTO draft_notes (project_id, merge_request_id, noteable_iid, author_id, discussion_id, individual, resolvable, resolve, body, position, original_position, excerpt, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			d.ProjectID, d.NoteableID, d.NoteableIID, d.AuthorID, d.DiscussionID, d.Individual, d.Resolvable, d.Resolve, d.Body, position, original, d.Excerpt, at, at)
		if err != nil {
			return fmt.Errorf("forgedb: create draft note: %w", err)
		}
		return nil
	})
	d.UpdatedAt = d.CreatedAt
	return d, err
}

// UpdateDraft implements forge.Store.
func (s *Store) UpdateDraft(ctx context.Context, d forge.DraftNote) error {
	position, original, err := writePositions(d.Note)
	if err != nil {
		return err
	}
	return s.exec(ctx, "update draft note", `UPDATE draft_notes SET body = ?, resolve = ?, position = ?, original_position = ?, excerpt = ?, updated_at = ? WHERE id = ?`, d.Body, d.Resolve, position, original, d.Excerpt, store.Millis(d.UpdatedAt), d.ID)
}

// DeleteDrafts implements forge.Store.
func (s *Store) DeleteDrafts(ctx context.Context, mergeRequestID, authorID, id int64) error {
	return s.exec(ctx, "delete draft notes", `DELETE FROM draft_notes WHERE merge_request_id = ? AND author_id = ? AND (? = 0 OR id = ?)`, mergeRequestID, authorID, id, id)
}

// Drafts implements forge.Store.
func (s *Store) Drafts(ctx context.Context, mergeRequestID, authorID int64) ([]forge.DraftNote, error) {
	out, _, err := list(ctx, s.db, store.Selection{Columns: draftColumns, From: `FROM draft_notes WHERE merge_request_id = ? AND (? = 0 OR author_id = ?)`, Order: "id", Args: []any{mergeRequestID, authorID, authorID}}, 0, 0, scanDraft)
	return out, err
}

// SubmitReview implements forge.Store.
func (s *Store) SubmitReview(ctx context.Context, r forge.Review) (notes []forge.Note, approved bool, err error) {
	err = s.db.Write(ctx, func(t *store.Tx) error {
		notes, approved = nil, false
		for _, d := range r.Drafts {
			res, err := t.Exec(`DELETE FROM draft_notes WHERE id = ?`, d.ID)
			if err != nil {
				return fmt.Errorf("forgedb: submit review: %w", err)
			}
			gone, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if gone == 0 || d.Body == "" {
				continue // submitted or thrown away meanwhile, or nothing is left to say
			}
			n, err := insertNote(t, d.Note)
			if err != nil {
				return err
			}
			notes = append(notes, n)
			if d.Resolve {
				if _, err := t.Exec(`UPDATE notes SET resolved_by = ?, resolved_at = ?, updated_at = ? WHERE discussion_id = ? AND project_id = ? AND resolvable = 1`, n.AuthorID, store.Millis(n.CreatedAt), store.Millis(n.CreatedAt), n.DiscussionID, n.ProjectID); err != nil {
					return fmt.Errorf("forgedb: submit review: %w", err)
				}
			}
		}
		if r.Summary != nil {
			n, err := insertNote(t, *r.Summary)
			if err != nil {
				return err
			}
			notes = append(notes, n)
		}
		if r.Approve {
			if approved, err = setApproval(t, r.Request, r.AuthorID, true, len(notes) > 0); err != nil {
				return err
			}
		}
		told := &delivery.Review{Approved: approved}
		for _, n := range notes {
			told.Notes = append(told.Notes, n.ID)
		}
		for _, n := range notes {
			if err := emitNote(t, n, told); err != nil {
				return err
			}
		}
		return nil
	})
	return notes, approved, err
}
