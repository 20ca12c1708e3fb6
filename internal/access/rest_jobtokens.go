package access

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// jobTokenScope tells that the allowlist is always in force.
func (h *rest) jobTokenScope(w http.ResponseWriter, r *api.Request) error {
	return api.WriteJSON(w, http.StatusOK, map[string]any{"inbound_enabled": true, "outbound_enabled": false})
}

func (h *rest) setJobTokenScope(w http.ResponseWriter, r *api.Request) error {
	var p struct {
		Enabled *bool `json:"enabled"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Enabled != nil && !*p.Enabled {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden - the allowlist of job tokens is always in force here; add the projects that need access to it")
	}
	return noContent(w)
}

func (h *rest) jobTokenAllowlist(w http.ResponseWriter, r *api.Request) error {
	list, err := h.s.Allowances(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, a := range list {
		p := a.Source
		_, err := h.s.RoleIn(r.Context(), r.Who, p)
		if err != nil {
			return err
		}
		out = append(out, map[string]any{"id": p.ID, "name": p.Name, "path": p.Path, "path_with_namespace": p.FullPath, "web_url": h.url + "/" + p.FullPath, "push": a.Push})
	}
	page := api.PageOf(r.Request)
	total := len(out)
	out = out[min(page.Offset(), total):min(page.Offset()+page.PerPage, total)]
	return api.List(w, r, page, total, out)
}

// allowJobToken lets the jobs of a project that the caller can see act here.
// The parameter push, which GitLab does not have, also lets them push.
func (h *rest) allowJobToken(w http.ResponseWriter, r *api.Request) error {
	var p struct {
		Target string `json:"target_project_id"`
		Push   bool   `json:"push"`
	}
	var n struct {
		Target int64 `json:"target_project_id"`
		Push   bool  `json:"push"`
	}
	ref := ""
	if err := api.Decode(r, &n); err == nil && n.Target != 0 {
		ref, p.Push = formatID(n.Target), n.Push
	} else if err := api.Decode(r, &p); err != nil {
		return err
	} else {
		ref = p.Target
	}
	source, _, err := h.s.VisibleProject(r.Context(), r.Who, ref)
	if err != nil {
		return err
	}
	if err := h.s.SetAllowance(r.Context(), r.Who, r.Project.ID, source.ID, p.Push); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, map[string]any{"source_project_id": r.Project.ID, "target_project_id": source.ID, "push": p.Push})
}

func (h *rest) disallowJobToken(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "target")
	if err != nil {
		return err
	}
	if err := h.s.DeleteAllowance(r.Context(), r.Who, r.Project.ID, id); err != nil {
		return err
	}
	return noContent(w)
}
