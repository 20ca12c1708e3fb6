package rest

import (
	"net/http"
	"slices"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// draftNotes registers the routes of held back comments (doc/api/draft_notes.md).
func (h *handlers) draftNotes(rt *api.Router) {
	guest := api.Need{Role: delivery.Guest}
	all := "/projects/{project}/merge_requests/{iid}/draft_notes"
	rt.Handle("GET "+all, guest, h.request(h.listDrafts))
	rt.Handle("POST "+all, guest, h.request(h.addDraft))
	rt.Handle("POST "+all+"/bulk_publish", guest, h.request(h.publishDrafts))
	rt.Handle("GET "+all+"/{note}", guest, h.draft(h.getDraft))
	rt.Handle("PUT "+all+"/{note}", guest, h.draft(h.editDraft))
	rt.Handle("DELETE "+all+"/{note}", guest, h.draft(h.deleteDraft))
	rt.Handle("PUT "+all+"/{note}/publish", guest, h.draft(h.publishDraft))
}

type draftHandler func(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, d forge.DraftNote) error

// draft finds the draft of a route; it must be the caller's.
func (h *handlers) draft(fn draftHandler) api.Handler {
	return h.request(func(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
		id, err := pathID(r, "note")
		if err != nil {
			return err
		}
		d, err := h.f.Draft(r.Context(), r.Who, m, id)
		if err != nil {
			return err
		}
		return fn(w, r, m, d)
	})
}

// draftPosition has all keys: GitLab shows a draft that is not on a line with
// nulls.
type draftPosition struct {
	BaseSHA  *string `json:"base_sha"`
	StartSHA *string `json:"start_sha"`
	HeadSHA  *string `json:"head_sha"`
	OldPath  *string `json:"old_path"`
	NewPath  *string `json:"new_path"`
	Type     string  `json:"position_type"`
	OldLine  *int    `json:"old_line"`
	NewLine  *int    `json:"new_line"`
	Range    any     `json:"line_range"`
}

func draftShape(_ *api.Request, d forge.DraftNote) (map[string]any, error) {
	out := map[string]any{"id": d.ID, "author_id": d.AuthorID, "merge_request_id": d.NoteableID, "resolve_discussion": d.Resolve, "discussion_id": nil, "note": d.Body, "commit_id": nil, "line_code": nil}
	if d.DiscussionID != "" {
		out["discussion_id"] = d.DiscussionID
	}
	if code := d.LineCode(); code != "" {
		out["line_code"] = code
	}
	position := draftPosition{Type: "text"}
	if p := d.Position; p != nil {
		position = draftPosition{BaseSHA: &p.BaseSHA, StartSHA: &p.StartSHA, HeadSHA: &p.HeadSHA, OldPath: &p.OldPath, NewPath: &p.NewPath, Type: p.PositionType}
		if p.OldLine > 0 {
			position.OldLine = &p.OldLine
		}
		if p.NewLine > 0 {
			position.NewLine = &p.NewLine
		}
		if len(p.LineRange) > 0 {
			position.Range = p.LineRange
		}
	}
	out["position"] = position
	return out, nil
}

func writeDraft(w http.ResponseWriter, r *api.Request, d forge.DraftNote, status int) error {
	out, err := draftShape(r, d)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out)
}

func (h *handlers) listDrafts(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	list, err := h.f.Drafts(r.Context(), r.Who, m)
	if err != nil {
		return err
	}
	if r.URL.Query().Get("sort") == "desc" {
		slices.Reverse(list)
	}
	out, err := shapes(r, list, draftShape)
	if err != nil {
		return err
	}
	return paged(w, r, out)
}

type draftParams struct {
	Note     *string             `json:"note"`
	CommitID string              `json:"commit_id"`
	Answers  string              `json:"in_reply_to_discussion_id"`
	Resolve  *bool               `json:"resolve_discussion"`
	Position *forge.NotePosition `json:"position"`
}

func (h *handlers) addDraft(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	var p draftParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.CommitID != "" {
		return delivery.Errorf(delivery.Invalid, "commit_id is not supported: comment on the commit itself")
	}
	d, err := h.f.AddDraft(r.Context(), r.Who, r.Project, forge.NewNote{MergeRequest: &m, Body: deref(p.Note), DiscussionID: p.Answers, Position: p.Position}, deref(p.Resolve))
	if err != nil {
		return err
	}
	return writeDraft(w, r, d, http.StatusCreated)
}

func (h *handlers) getDraft(w http.ResponseWriter, r *api.Request, _ delivery.MergeRequest, d forge.DraftNote) error {
	return writeDraft(w, r, d, http.StatusOK)
}

func (h *handlers) editDraft(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, d forge.DraftNote) error {
	var p draftParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	d, err := h.f.EditDraft(r.Context(), r.Who, r.Project, m, d, forge.DraftChange{Body: p.Note, Position: p.Position, Resolve: p.Resolve})
	if err != nil {
		return err
	}
	return writeDraft(w, r, d, http.StatusOK)
}

func (h *handlers) deleteDraft(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, d forge.DraftNote) error {
	if err := h.f.DeleteDrafts(r.Context(), r.Who, m, d.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) publishDraft(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, d forge.DraftNote) error {
	return h.publish(w, r, m, forge.ReviewOptions{Only: d.ID})
}

func (h *handlers) publishDrafts(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	return h.publish(w, r, m, forge.ReviewOptions{})
}

func (h *handlers) publish(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, o forge.ReviewOptions) error {
	if _, err := h.f.SubmitReview(r.Context(), r.Who, r.Project, m, o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
