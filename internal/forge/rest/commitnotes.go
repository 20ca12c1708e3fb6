package rest

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// commitNotes registers comments on commits: the plain ones of doc/api/commits.md
// and the threads of doc/api/discussions.md.
func (h *handlers) commitNotes(rt *api.Router) {
	guest := api.Need{Role: delivery.Guest}
	one := "/projects/{project}/repository/commits/{sha}"
	rt.Handle("GET "+one+"/comments", reader, h.commit(h.commitComments))
	rt.Handle("POST "+one+"/comments", guest, h.commit(h.addCommitComment))
	rt.Handle("GET "+one+"/discussions", reader, h.onCommit(h.listDiscussions))
	rt.Handle("POST "+one+"/discussions", guest, h.onCommit(h.addDiscussion))
	rt.Handle("GET "+one+"/discussions/{discussion}", reader, h.onCommit(h.getDiscussion))
	rt.Handle("POST "+one+"/discussions/{discussion}/notes", guest, h.onCommit(h.answer))
	rt.Handle("GET "+one+"/discussions/{discussion}/notes/{note}", reader, h.onCommit(h.getNote))
	rt.Handle("PUT "+one+"/discussions/{discussion}/notes/{note}", guest, h.onCommit(h.editNote))
	rt.Handle("DELETE "+one+"/discussions/{discussion}/notes/{note}", guest, h.onCommit(h.deleteNote))
}

type commitHandler func(w http.ResponseWriter, r *api.Request, c delivery.Commit) error

// commit finds the commit of a route.
func (h *handlers) commit(fn commitHandler) api.Handler {
	return code(func(w http.ResponseWriter, r *api.Request) error {
		c, err := h.f.Commit(r.Context(), r.Project.ID, r.PathValue("sha"))
		if err != nil {
			return err
		}
		return fn(w, r, c)
	})
}

// onCommit finds the commit of a route.
func (h *handlers) onCommit(fn notedHandler) api.Handler {
	return h.commit(func(w http.ResponseWriter, r *api.Request, c delivery.Commit) error {
		return fn(w, r, noted{commit: c.SHA})
	})
}

func (h *handlers) commitComments(w http.ResponseWriter, r *api.Request, c delivery.Commit) error {
	p := api.PageOf(r.Request)
	list, total, err := h.f.Notes(r.Context(), r.Project.ID, nil, c.SHA, true, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out, err := shapes(r, list, h.commentShape)
	if err != nil {
		return err
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) commentShape(r *api.Request, n forge.Note) (map[string]any, error) {
	author, err := h.user(r.Context(), n.AuthorID)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"note": n.Body, "author": author, "created_at": n.CreatedAt, "path": nil, "line": nil, "line_type": nil}
	switch p := n.Position; {
	case p == nil:
	case p.NewLine > 0:
		out["path"], out["line"], out["line_type"] = p.NewPath, p.NewLine, "new"
	default:
		out["path"], out["line"], out["line_type"] = p.OldPath, p.OldLine, "old"
	}
	return out, nil
}

func (h *handlers) addCommitComment(w http.ResponseWriter, r *api.Request, c delivery.Commit) error {
	var p struct {
		Note     string `json:"note"`
		Path     string `json:"path"`
		Line     int    `json:"line"`
		LineType string `json:"line_type"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	n := forge.NewNote{CommitSHA: c.SHA, Body: p.Note}
	if p.Path != "" && p.Line > 0 {
		at := forge.CommitPosition(c)
		at.OldPath, at.NewPath = p.Path, p.Path
		if p.LineType == "old" {
			at.OldLine = p.Line
		} else {
			at.NewLine = p.Line
		}
		n.Position = &at
	}
	note, err := h.f.AddNote(r.Context(), r.Who, r.Project, n)
	if err != nil {
		return err
	}
	out, err := h.commentShape(r, note)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, out)
}
