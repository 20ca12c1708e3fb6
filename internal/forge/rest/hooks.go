package rest

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// hookHandler answers a request about the webhooks of a project or group.
type hookHandler func(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error

func (h *handlers) hooks(rt *api.Router) {
	project := func(fn hookHandler) api.Handler {
		return func(w http.ResponseWriter, r *api.Request) error {
			return fn(w, r, forge.HookOwner{ProjectID: r.Project.ID})
		}
	}
	group := func(fn hookHandler) api.Handler {
		return func(w http.ResponseWriter, r *api.Request) error {
			g, role, err := h.accounts.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
			if err != nil {
				return err
			}
			if role < delivery.Owner {
				return forbidden()
			}
			return fn(w, r, forge.HookOwner{GroupID: g.ID})
		}
	}
	for base, of := range map[string]struct {
		need api.Need
		with func(hookHandler) api.Handler
	}{"/projects/{project}/hooks": {api.Need{Role: delivery.Maintainer}, project}, "/groups/{group}/hooks": {api.Need{}, group}} {
		rt.Handle("GET "+base, of.need, of.with(h.listHooks))
		rt.Handle("POST "+base, of.need, of.with(h.addHook))
		rt.Handle("GET "+base+"/{hook}", of.need, of.with(h.getHook))
		rt.Handle("PUT "+base+"/{hook}", of.need, of.with(h.updateHook))
		rt.Handle("DELETE "+base+"/{hook}", of.need, of.with(h.deleteHook))
		rt.Handle("GET "+base+"/{hook}/events", of.need, of.with(h.hookEvents))
		rt.Handle("POST "+base+"/{hook}/events/{event}/resend", of.need, of.with(h.resendHook))
		rt.Handle("POST "+base+"/{hook}/test/{trigger}", of.need, of.with(h.testHook))
	}
}

func hookShape(v forge.Hook) map[string]any {
	alert := "executable"
	if !v.FailingSince.IsZero() {
		alert = "temporarily_disabled"
	}
	strategy := "wildcard"
	if v.PushFilter == "" {
		strategy = "all_branches"
	}
	out := map[string]any{"id": v.ID, "url": v.URL, "name": v.Name, "description": v.Description, "push_events": v.Push, "push_events_branch_filter": v.PushFilter, "branch_filter_strategy": strategy,
		"tag_push_events": v.TagPush, "merge_requests_events": v.MergeRequest, "note_events": v.Note, "job_events": v.Job, "pipeline_events": v.Pipeline, "deployment_events": v.Deployment, "releases_events": v.Release,
		"issues_events": false, "confidential_issues_events": false, "confidential_note_events": false, "wiki_page_events": false, "repository_update_events": false, "enable_ssl_verification": !v.SkipVerify,
		"alert_status": alert, "disabled_until": nil, "url_variables": []any{}, "custom_headers": []any{}, "created_at": v.CreatedAt}
	if v.GroupID != 0 {
		out["group_id"] = v.GroupID
	} else {
		out["project_id"] = v.ProjectID
	}
	return out
}

type hookParams struct {
	URL          *string `json:"url"`
	Name         *string `json:"name"`
	Description  *string `json:"description"`
	Token        *string `json:"token"`
	Push         *bool   `json:"push_events"`
	Filter       *string `json:"push_events_branch_filter"`
	TagPush      *bool   `json:"tag_push_events"`
	MergeRequest *bool   `json:"merge_requests_events"`
	Note         *bool   `json:"note_events"`
	Job          *bool   `json:"job_events"`
	Pipeline     *bool   `json:"pipeline_events"`
	Deployment   *bool   `json:"deployment_events"`
	Release      *bool   `json:"releases_events"`
	Verify       *bool   `json:"enable_ssl_verification"`
}

func (p hookParams) apply(v forge.Hook) forge.Hook {
	set := func(from *bool, to *bool) {
		if from != nil {
			*to = *from
		}
	}
	text := func(from *string, to *string) {
		if from != nil {
			*to = strings.TrimSpace(*from)
		}
	}
	text(p.URL, &v.URL)
	text(p.Name, &v.Name)
	text(p.Description, &v.Description)
	text(p.Token, &v.Token)
	text(p.Filter, &v.PushFilter)
	set(p.Push, &v.Push)
	set(p.TagPush, &v.TagPush)
	set(p.MergeRequest, &v.MergeRequest)
	set(p.Note, &v.Note)
	set(p.Job, &v.Job)
	set(p.Pipeline, &v.Pipeline)
	set(p.Deployment, &v.Deployment)
	set(p.Release, &v.Release)
	if p.Verify != nil {
		v.SkipVerify = !*p.Verify
	}
	return v
}

func (h *handlers) listHooks(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	list, err := h.f.Hooks(r.Context(), o)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, v := range list {
		out = append(out, hookShape(v))
	}
	return paged(w, r, out)
}

func (h *handlers) hook(r *api.Request, o forge.HookOwner) (forge.Hook, error) {
	id, err := pathID(r, "hook")
	if err != nil {
		return forge.Hook{}, err
	}
	return h.f.Hook(r.Context(), o, id)
}

func (h *handlers) getHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, hookShape(v))
}

func (h *handlers) storeHook(w http.ResponseWriter, r *api.Request, v forge.Hook, status int) error {
	var p hookParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	v, err := h.f.SetHook(r.Context(), r.Who, p.apply(v))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, hookShape(v))
}

func (h *handlers) addHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	return h.storeHook(w, r, forge.Hook{HookOwner: o, Push: true}, http.StatusCreated)
}

func (h *handlers) updateHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	return h.storeHook(w, r, v, http.StatusOK)
}

func (h *handlers) deleteHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	if err := h.f.DeleteHook(r.Context(), r.Who, o, v.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) hookEvents(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	p := api.PageOf(r.Request)
	list, total, err := h.f.Deliveries(r.Context(), v.ID, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, d := range list {
		status := any(d.Status)
		if d.Status == 0 {
			status = "internal error"
		}
		out = append(out, map[string]any{"id": d.ID, "url": d.URL, "trigger": strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(d.Event, " Hook"), " ", "_")) + "_hooks", "request_headers": d.RequestHeaders, "request_data": d.Request,
			"response_headers": d.ResponseHeaders, "response_body": d.Response, "execution_duration": d.Seconds, "response_status": status, "error": d.Error, "attempts": d.Attempts, "created_at": d.CreatedAt, "next_attempt_at": optional(d.NextAt)})
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) resendHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	id, err := pathID(r, "event")
	if err != nil {
		return err
	}
	if err := h.f.Resend(r.Context(), v, id); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, map[string]any{"response_status": nil})
}

func (h *handlers) testHook(w http.ResponseWriter, r *api.Request, o forge.HookOwner) error {
	v, err := h.hook(r, o)
	if err != nil {
		return err
	}
	if r.PathValue("trigger") != "push_events" {
		return delivery.Errorf(delivery.Invalid, "Only push_events can be tried out.")
	}
	if o.GroupID != 0 {
		err = h.f.TestGroupHook(r.Context(), o.GroupID, v, r.Who)
	} else {
		err = h.f.TestHook(r.Context(), r.Project, v, r.Who)
	}
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, map[string]string{"message": "201 Created"})
}

func (h *handlers) search(rt *api.Router) {
	rt.Handle("GET /search", api.Need{}, h.searchAll)
	// GitLab's documentation has the first form, its Go client uses the second.
	for _, dash := range []string{"", "/-"} {
		rt.Handle("GET /groups/{group}"+dash+"/search", api.Need{}, h.searchGroup)
		rt.Handle("GET /projects/{project}"+dash+"/search", api.Need{Role: delivery.Guest}, code(h.searchProject))
	}
}

func (h *handlers) searchAll(w http.ResponseWriter, r *api.Request) error {
	return h.searchIn(w, r, forge.FilterFor(r.Who))
}

func (h *handlers) searchGroup(w http.ResponseWriter, r *api.Request) error {
	g, _, err := h.accounts.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
	if err != nil {
		return err
	}
	f := forge.FilterFor(r.Who)
	f.GroupID, f.Subgroups = g.ID, true
	return h.searchIn(w, r, f)
}

func (h *handlers) searchIn(w http.ResponseWriter, r *api.Request, f forge.ProjectFilter) error {
	q := r.URL.Query()
	text := strings.TrimSpace(q.Get("search"))
	if text == "" {
		return delivery.Errorf(delivery.Invalid, "search is missing, search is empty")
	}
	switch q.Get("scope") {
	case "projects":
		f.Search = text
		return h.writeProjects(w, r, f)
	case "merge_requests":
		f.Readable = true
		return h.writeRequests(w, r, forge.MergeRequestFilter{Search: text, State: q.Get("state"), Visible: &f})
	}
	return delivery.Errorf(delivery.Invalid, "scope does not have a valid value")
}

func (h *handlers) searchProject(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	text := strings.TrimSpace(q.Get("search"))
	if text == "" {
		return delivery.Errorf(delivery.Invalid, "search is missing, search is empty")
	}
	ctx, p := r.Context(), r.Project
	switch q.Get("scope") {
	case "merge_requests":
		return h.writeRequests(w, r, forge.MergeRequestFilter{Search: text, State: q.Get("state"), ProjectIDs: []int64{p.ID}})
	case "commits":
		list, err := h.f.Commits(ctx, p.ID, forge.LogOptions{Rev: q.Get("ref"), Search: text, Limit: 1000})
		if err != nil {
			return err
		}
		out := []map[string]any{}
		for _, c := range list {
			out = append(out, h.commitShape(p, c))
		}
		return paged(w, r, out)
	case "blobs":
		return h.searchBlobs(w, r, text)
	}
	return delivery.Errorf(delivery.Invalid, "scope does not have a valid value")
}

func (h *handlers) searchBlobs(w http.ResponseWriter, r *api.Request, text string) error {
	ref := r.URL.Query().Get("ref")
	if r.Project.Empty {
		return paged(w, r, []map[string]any{})
	}
	list, err := h.f.SearchCode(r.Context(), r.Project.ID, ref, text, "", 1000)
	if err != nil {
		return err
	}
	if ref == "" {
		ref = r.Project.DefaultBranch
	}
	out := []map[string]any{}
	shape := func(path, data string, line int) {
		out = append(out, map[string]any{"basename": strings.TrimSuffix(path, extension(path)), "data": data, "path": path, "filename": path, "id": nil, "ref": ref, "startline": line, "project_id": r.Project.ID})
	}
	for _, m := range list {
		shape(m.Path, m.Text+"\n", m.Line)
	}
	if len(list) == 0 {
		files, err := h.f.SearchFiles(r.Context(), r.Project.ID, ref, text, 200)
		if err != nil {
			return err
		}
		for _, f := range files {
			shape(f, "", 1)
		}
	}
	return paged(w, r, out)
}

func extension(p string) string {
	i := strings.LastIndexByte(p, '.')
	if i < 0 || i < strings.LastIndexByte(p, '/') {
		return ""
	}
	return p[i:]
}
