package rest

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (h *handlers) todos(rt *api.Router) {
	rt.Handle("GET /todos", api.Need{}, h.listTodos)
	rt.Handle("POST /todos/mark_as_done", api.Need{}, h.allTodosDone)
	rt.Handle("POST /todos/{todo}/mark_as_done", api.Need{}, h.todoDone)
	rt.Handle("GET /notification_settings", api.Need{}, h.notificationSettings)
	rt.Handle("PUT /notification_settings", api.Need{}, h.setNotifications)
}

func (h *handlers) notificationSettings(w http.ResponseWriter, r *api.Request) error {
	if actor(r) == 0 {
		return forbidden()
	}
	level, err := h.f.MailLevel(r.Context(), actor(r))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"level": level, "notification_email": r.Who.User.Email})
}

func (h *handlers) setNotifications(w http.ResponseWriter, r *api.Request) error {
	if actor(r) == 0 {
		return forbidden()
	}
	var p struct {
		Level string `json:"level"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if err := h.f.SetMailLevel(r.Context(), actor(r), p.Level); err != nil {
		return err
	}
	return h.notificationSettings(w, r)
}

func (h *handlers) listTodos(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	done := q.Get("state") == "done"
	f := forge.TodoFilter{Done: &done, Action: q.Get("action")}
	for name, to := range map[string]*int64{"author_id": &f.AuthorID, "project_id": &f.ProjectID} {
		if id, err := strconv.ParseInt(q.Get(name), 10, 64); err == nil {
			*to = id
		}
	}
	p := api.PageOf(r.Request)
	switch f.Target = q.Get("type"); f.Target {
	case "", forge.TargetRequest, forge.TargetCommit:
	default: // kinds of GitLab's that are not here
		return api.List(w, r, p, 0, []any{})
	}
	list, total, err := h.f.Todos(r.Context(), r.Who, f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out, err := shapes(r, list, h.todoShape)
	if err != nil {
		return err
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) todoShape(r *api.Request, t forge.Todo) (map[string]any, error) {
	ctx := r.Context()
	p, err := h.f.Project(ctx, t.ProjectID)
	if err != nil {
		return nil, err
	}
	author, err := h.user(ctx, t.AuthorID)
	if err != nil {
		return nil, err
	}
	kind, target, address, err := h.todoTarget(r, p, t)
	if err != nil {
		return nil, err
	}
	state := "pending"
	if t.NoteID != 0 {
		address += "#note_" + itoa(t.NoteID)
	}
	if t.Done {
		state = "done"
	}
	return map[string]any{"id": t.ID, "action_name": t.Action, "target_type": kind, "target": target, "target_url": address, "body": t.Body, "state": state, "author": author, "created_at": t.CreatedAt, "updated_at": t.UpdatedAt,
		"project": map[string]any{"id": p.ID, "name": p.Name, "name_with_namespace": p.Namespace.Name + " / " + p.Name, "path": p.Path, "path_with_namespace": p.FullPath, "description": p.Description, "created_at": p.CreatedAt}}, nil
}

// todoTarget is what an entry is about, and its page.
func (h *handlers) todoTarget(r *api.Request, p delivery.Project, t forge.Todo) (kind string, target map[string]any, address string, err error) {
	if t.CommitSHA != "" {
		c, err := h.f.Commit(r.Context(), p.ID, t.CommitSHA)
		if delivery.IsNotFound(err) { // it went with its branch
			c, err = delivery.Commit{SHA: t.CommitSHA, Message: t.Title}, nil
		}
		if err != nil {
			return "", nil, "", err
		}
		shape := h.commitShape(p, c)
		return forge.TargetCommit, shape, h.f.WebURL(p) + "/-/commit/" + t.CommitSHA, nil
	}
	m, err := h.f.MergeRequestByID(r.Context(), t.MergeRequestID)
	if err != nil {
		return "", nil, "", err
	}
	target, err = h.requestShape(r, p, m)
	return forge.TargetRequest, target, h.f.RequestURL(p, m.IID), err
}

func (h *handlers) todoDone(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "todo")
	if err != nil {
		return err
	}
	if actor(r) == 0 {
		return forbidden()
	}
	t, err := h.f.TodoDone(r.Context(), actor(r), id, true)
	if err != nil {
		return err
	}
	if _, _, err := h.f.VisibleProject(r.Context(), r.Who, itoa(t.ProjectID)); err != nil {
		return err
	}
	out, err := h.todoShape(r, t)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, out)
}

func (h *handlers) allTodosDone(w http.ResponseWriter, r *api.Request) error {
	if actor(r) == 0 {
		return forbidden()
	}
	if err := h.f.AllTodosDone(r.Context(), actor(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
