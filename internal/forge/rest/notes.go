package rest

import (
	"encoding/json"
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// noted is what notes are about: a merge request or, without one, a commit.
type noted struct {
	request *delivery.MergeRequest
	commit  string
}

type notedHandler func(w http.ResponseWriter, r *api.Request, on noted) error

// onRequest finds the merge request of a route.
func (h *handlers) onRequest(fn notedHandler) api.Handler {
	return h.request(func(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
		return fn(w, r, noted{request: &m})
	})
}

func (h *handlers) notes(rt *api.Router) {
	guest := api.Need{Role: delivery.Guest}
	mr := "/projects/{project}/merge_requests/{iid}"
	rt.Handle("GET "+mr+"/notes", guest, h.request(h.listNotes))
	rt.Handle("POST "+mr+"/notes", guest, h.request(h.addNote))
	rt.Handle("GET "+mr+"/notes/{note}", guest, h.onRequest(h.getNote))
	rt.Handle("PUT "+mr+"/notes/{note}", guest, h.onRequest(h.editNote))
	rt.Handle("DELETE "+mr+"/notes/{note}", guest, h.onRequest(h.deleteNote))
	rt.Handle("GET "+mr+"/discussions", guest, h.onRequest(h.listDiscussions))
	rt.Handle("POST "+mr+"/discussions", guest, h.onRequest(h.addDiscussion))
	rt.Handle("GET "+mr+"/discussions/{discussion}", guest, h.onRequest(h.getDiscussion))
	rt.Handle("PUT "+mr+"/discussions/{discussion}", guest, h.request(h.resolveDiscussion))
	rt.Handle("POST "+mr+"/discussions/{discussion}/notes", guest, h.onRequest(h.answer))
	rt.Handle("PUT "+mr+"/discussions/{discussion}/notes/{note}", guest, h.onRequest(h.editNote))
	rt.Handle("DELETE "+mr+"/discussions/{discussion}/notes/{note}", guest, h.onRequest(h.deleteNote))
	h.commitNotes(rt)
}

func (h *handlers) noteShape(r *api.Request, n forge.Note) (map[string]any, error) {
	author, err := h.user(r.Context(), n.AuthorID)
	if err != nil {
		return nil, err
	}
	kind := any("DiscussionNote")
	if n.Position != nil {
		kind = "DiffNote"
	} else if n.Individual {
		kind = nil
	}
	out := map[string]any{"id": n.ID, "type": kind, "body": n.Body, "author": author, "created_at": n.CreatedAt, "updated_at": n.UpdatedAt, "system": n.System, "noteable_id": n.NoteableID, "noteable_type": n.NoteableType, "project_id": n.ProjectID,
		"noteable_iid": n.NoteableIID, "resolvable": n.Resolvable, "confidential": false, "internal": false, "attachment": nil, "commit_id": nil, "commands_changes": map[string]any{}}
	if n.CommitSHA != "" {
		out["commit_id"], out["noteable_id"], out["noteable_iid"] = n.CommitSHA, nil, nil
	}
	if n.Position != nil {
		out["position"], out["original_position"] = n.Position, n.Original
	}
	if n.Resolvable {
		out["resolved"] = !n.ResolvedAt.IsZero()
		out["resolved_at"], out["resolved_by"] = optional(n.ResolvedAt), nil
		if n.ResolvedByID != 0 {
			if out["resolved_by"], err = h.user(r.Context(), n.ResolvedByID); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (h *handlers) writeNote(w http.ResponseWriter, r *api.Request, n forge.Note, status int) error {
	out, err := h.noteShape(r, n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out)
}

func (h *handlers) listNotes(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	p := api.PageOf(r.Request)
	list, total, err := h.f.Notes(r.Context(), r.Project.ID, &m, "", r.URL.Query().Get("sort") == "asc", p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out, err := shapes(r, list, h.noteShape)
	if err != nil {
		return err
	}
	return api.List(w, r, p, total, out)
}

type noteParams struct {
	Body     string              `json:"body"`
	Position *forge.NotePosition `json:"position"`
	CommitID string              `json:"commit_id"`
	Resolved *bool               `json:"resolved"`
}

func (h *handlers) addNote(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	var p noteParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	body, done, err := h.f.RunActions(r.Context(), r.Who, r.Project, m, p.Body)
	if err != nil {
		return err
	}
	if done > 0 && body == "" { // as GitLab answers a note of quick actions only
		return api.WriteJSON(w, http.StatusAccepted, map[string]any{"commands_changes": map[string]any{}, "summary": []string{"Commands applied"}})
	}
	n, err := h.f.AddNote(r.Context(), r.Who, r.Project, forge.NewNote{MergeRequest: &m, Body: body})
	if err != nil {
		return err
	}
	return h.writeNote(w, r, n, http.StatusCreated)
}

// note finds the note of a route; it must belong to what the route names.
func (h *handlers) note(r *api.Request, on noted) (forge.Note, error) {
	id, err := pathID(r, "note")
	if err != nil {
		return forge.Note{}, err
	}
	n, err := h.f.Note(r.Context(), r.Project.ID, id)
	thread := r.PathValue("discussion")
	if err == nil && (on.request != nil && n.NoteableID != on.request.ID || on.request == nil && n.CommitSHA != on.commit || thread != "" && n.DiscussionID != thread) {
		err = notFound("Note")
	}
	return n, err
}

func (h *handlers) getNote(w http.ResponseWriter, r *api.Request, on noted) error {
	n, err := h.note(r, on)
	if err != nil {
		return err
	}
	return h.writeNote(w, r, n, http.StatusOK)
}

// editNote changes the text of a note or settles its thread.
func (h *handlers) editNote(w http.ResponseWriter, r *api.Request, on noted) error {
	n, err := h.note(r, on)
	if err != nil {
		return err
	}
	var p noteParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	switch {
	case p.Resolved == nil:
		n, err = h.f.EditNote(r.Context(), r.Who, r.Project, n, p.Body)
	case on.request == nil:
		err = delivery.Errorf(delivery.Invalid, "The discussion is not resolvable.")
	default:
		if _, err = h.f.Resolve(r.Context(), r.Who, r.Project, *on.request, n.DiscussionID, *p.Resolved); err == nil {
			n, err = h.note(r, on)
		}
	}
	if err != nil {
		return err
	}
	return h.writeNote(w, r, n, http.StatusOK)
}

func (h *handlers) deleteNote(w http.ResponseWriter, r *api.Request, on noted) error {
	n, err := h.note(r, on)
	if err != nil {
		return err
	}
	if err := h.f.DeleteNote(r.Context(), r.Who, r.Project, n); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) discussionShape(r *api.Request, notes []forge.Note) (map[string]any, error) {
	list := make([]map[string]any, 0, len(notes))
	for _, n := range notes {
		shape, err := h.noteShape(r, n)
		if err != nil {
			return nil, err
		}
		list = append(list, shape)
	}
	return map[string]any{"id": notes[0].DiscussionID, "individual_note": notes[0].Individual, "notes": list}, nil
}

func (h *handlers) listDiscussions(w http.ResponseWriter, r *api.Request, on noted) error {
	all, err := h.f.Discussions(r.Context(), r.Project.ID, on.request, on.commit)
	if err != nil {
		return err
	}
	out, err := shapes(r, all, h.discussionShape)
	if err != nil {
		return err
	}
	return paged(w, r, out)
}

func (h *handlers) writeDiscussion(w http.ResponseWriter, r *api.Request, on noted, id string, status int) error {
	notes, err := h.f.Discussion(r.Context(), r.Project.ID, on.request, on.commit, id)
	if err != nil {
		return err
	}
	shape, err := h.discussionShape(r, notes)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, shape)
}

func (h *handlers) getDiscussion(w http.ResponseWriter, r *api.Request, on noted) error {
	return h.writeDiscussion(w, r, on, r.PathValue("discussion"), http.StatusOK)
}

// addTyped writes the note of a request: with a thread, an answer to it.
func (h *handlers) addTyped(r *api.Request, on noted, thread string) (forge.Note, error) {
	var p noteParams
	if err := api.Decode(r, &p); err != nil {
		return forge.Note{}, err
	}
	n := forge.NewNote{MergeRequest: on.request, CommitSHA: on.commit, Body: p.Body, DiscussionID: thread}
	if thread == "" {
		n.Position, n.Thread = p.Position, true
	}
	return h.f.AddNote(r.Context(), r.Who, r.Project, n)
}

func (h *handlers) addDiscussion(w http.ResponseWriter, r *api.Request, on noted) error {
	n, err := h.addTyped(r, on, "")
	if err != nil {
		return err
	}
	return h.writeDiscussion(w, r, on, n.DiscussionID, http.StatusCreated)
}

func (h *handlers) answer(w http.ResponseWriter, r *api.Request, on noted) error {
	n, err := h.addTyped(r, on, r.PathValue("discussion"))
	if err != nil {
		return err
	}
	return h.writeNote(w, r, n, http.StatusCreated)
}

func (h *handlers) resolveDiscussion(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	var p noteParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Resolved == nil {
		return delivery.Errorf(delivery.Invalid, "resolved is missing")
	}
	id := r.PathValue("discussion")
	if _, err := h.f.Resolve(r.Context(), r.Who, r.Project, m, id, *p.Resolved); err != nil {
		return err
	}
	return h.writeDiscussion(w, r, noted{request: &m}, id, http.StatusOK)
}
