package registry

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// protectionRoutes registers GitLab's rules for container repositories
// (doc/api/project_container_registry_protection_rules.md) and tags
// (doc/api/container_registry_protection_tag_rules.md). GitLab makes rules for
// immutable tags on its pages only; here "immutable": true does.
func (h *routes) protectionRoutes(rt *api.Router) {
	need := api.Need{Role: delivery.Maintainer}
	for kind, tags := range map[string]bool{"repository": false, "tag": true} {
		path := "/projects/{project}/registry/protection/" + kind + "/rules"
		rt.Handle("GET "+path, need, h.protections(tags))
		rt.Handle("POST "+path, need, h.protect(tags))
		rt.Handle("PATCH "+path+"/{rule}", need, h.changeProtection(tags))
		rt.Handle("DELETE "+path+"/{rule}", need, h.unprotect(tags))
	}
}

func callerOf(r *api.Request) Caller { return CallerOf(r.Who, r.Project, r.Role) }

// protectionJSON are the parameters of a rule; nil is what was not given.
type protectionJSON struct {
	Repository *string `json:"repository_path_pattern"`
	Tag        *string `json:"tag_name_pattern"`
	Push       *string `json:"minimum_access_level_for_push"`
	Delete     *string `json:"minimum_access_level_for_delete"`
	Immutable  *bool   `json:"immutable"`
}

// apply changes p to what was given.
func (in protectionJSON) apply(p *Protection, project delivery.Project) error {
	switch {
	case p.Tags && in.Tag != nil:
		p.Pattern = *in.Tag
	case !p.Tags && in.Repository != nil:
		rest, err := BelowProject(*in.Repository, project)
		if err != nil {
			return err
		}
		p.Pattern = rest
	}
	for given, level := range map[*string]*delivery.Role{in.Push: &p.Push, in.Delete: &p.Delete} {
		if given == nil {
			continue
		}
		if *level = 0; *given == "" {
			continue // unset
		}
		var err error
		if *level, err = ParseLevel(*given); err != nil {
			return err
		}
	}
	return nil
}

// BelowProject is a pattern of repositories without the project's path, with
// which it must begin.
func BelowProject(pattern string, project delivery.Project) (string, error) {
	rest, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(pattern)), strings.ToLower(project.FullPath))
	if !ok {
		return "", invalid("The protection rule", map[string][]string{PatternField(false): {"should start with the project's full path " + strings.ToLower(project.FullPath)}})
	}
	return rest, nil
}

func (p Protection) describe(project delivery.Project) map[string]any {
	level := func(role delivery.Role) any {
		if role == 0 {
			return nil
		}
		return LevelName(role)
	}
	out := map[string]any{"id": p.ID, "project_id": p.ProjectID, "minimum_access_level_for_push": level(p.Push), "minimum_access_level_for_delete": level(p.Delete)}
	if p.Tags {
		out["tag_name_pattern"], out["immutable"] = p.Pattern, p.Immutable
	} else {
		out["repository_path_pattern"] = strings.ToLower(project.FullPath) + p.Pattern
	}
	return out
}

func (h *routes) protections(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		rules, err := h.r.Protections(r.Context(), r.Project.ID)
		if err != nil {
			return err
		}
		out := []map[string]any{}
		for _, p := range rules {
			if p.Tags == tags {
				out = append(out, p.describe(r.Project))
			}
		}
		return api.WriteJSON(w, http.StatusOK, out)
	}
}

func (h *routes) protect(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		var in protectionJSON
		if err := api.Decode(r, &in); err != nil {
			return err
		}
		p := Protection{Tags: tags, Immutable: tags && in.Immutable != nil && *in.Immutable}
		missing := []string{}
		for name, absent := range map[string]bool{
			PatternField(tags):                !tags && in.Repository == nil || tags && in.Tag == nil,
			"minimum_access_level_for_push":   tags && !p.Immutable && in.Push == nil,
			"minimum_access_level_for_delete": tags && !p.Immutable && in.Delete == nil,
		} {
			if absent {
				missing = append(missing, name+" is missing")
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return delivery.Errorf(delivery.Invalid, "%s", strings.Join(missing, ", "))
		}
		if err := in.apply(&p, r.Project); err != nil {
			return unprocessable(w, err)
		}
		p, err := h.r.Protect(r.Context(), callerOf(r), p)
		if err != nil {
			return unprocessable(w, err)
		}
		return api.WriteJSON(w, http.StatusCreated, p.describe(r.Project))
	}
}

func (h *routes) changeProtection(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		p, err := h.ruleOf(r, tags)
		if err != nil {
			return err
		}
		var in protectionJSON
		if err := api.Decode(r, &in); err != nil {
			return err
		}
		if err := in.apply(&p, r.Project); err != nil {
			return unprocessable(w, err)
		}
		if err := h.r.ChangeProtection(r.Context(), callerOf(r), p); err != nil {
			return unprocessable(w, err)
		}
		return api.WriteJSON(w, http.StatusOK, p.describe(r.Project))
	}
}

func (h *routes) unprotect(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		p, err := h.ruleOf(r, tags)
		if err != nil {
			return err
		}
		if err := h.r.Unprotect(r.Context(), callerOf(r), p.ID, tags); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (h *routes) ruleOf(r *api.Request, tags bool) (Protection, error) {
	id, err := strconv.ParseInt(r.PathValue("rule"), 10, 64)
	if err != nil {
		return Protection{}, delivery.Errorf(delivery.Invalid, "protection_rule_id is invalid")
	}
	return h.r.protection(r.Context(), r.Project.ID, id, tags)
}

// unprocessable answers 422 to a rule that is not valid or not possible, as
// GitLab does, and returns every other error.
func unprocessable(w http.ResponseWriter, err error) error {
	var e *delivery.Error
	if !errors.As(err, &e) || e.Kind != delivery.Conflict && len(e.Fields) == 0 {
		return err
	}
	var message any = e.Fields
	if len(e.Fields) == 0 {
		message = map[string]string{"error": e.Message}
	}
	return api.WriteJSON(w, http.StatusUnprocessableEntity, map[string]any{"message": message})
}
