package rest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (h *handlers) projects(rt *api.Router) {
	anyone, guest, maintainer, owner := api.Need{Anyone: true}, api.Need{Role: delivery.Guest, Scopes: []string{"read_api", delivery.ScopeJob}}, api.Need{Role: delivery.Maintainer}, api.Need{Role: delivery.Owner}
	rt.Handle("GET /projects", anyone, h.listProjects)
	rt.Handle("POST /projects", api.Need{}, h.createProject)
	rt.Handle("GET /projects/{project}", guest, h.getProject)
	rt.Handle("PUT /projects/{project}", maintainer, h.updateProject)
	rt.Handle("DELETE /projects/{project}", owner, h.deleteProject)
	rt.Handle("GET /projects/{project}/avatar", guest, func(w http.ResponseWriter, r *api.Request) error {
		return h.accounts.ServeProjectAvatar(w, r.Request, r.Project.ID)
	})
	rt.Handle("POST /projects/{project}/archive", owner, h.archiveProject(true))
	rt.Handle("POST /projects/{project}/unarchive", owner, h.archiveProject(false))
	rt.Handle("PUT /projects/{project}/transfer", owner, h.transferProject)
	rt.Handle("POST /projects/{project}/fork", api.Need{Role: delivery.Guest}, h.forkProject)
	rt.Handle("GET /projects/{project}/forks", guest, h.listForks)
	rt.Handle("GET /projects/{project}/languages", guest, code(h.languages))
	rt.Handle("GET /groups/{group}/projects", anyone, h.groupProjects)
	rt.Handle("GET /users/{user}/projects", anyone, h.userProjects)
	rt.Handle("GET /projects/{project}/remote_mirrors", maintainer, h.listMirrors(true))
	rt.Handle("POST /projects/{project}/remote_mirrors", maintainer, h.addMirror)
	rt.Handle("PUT /projects/{project}/remote_mirrors/{mirror}", maintainer, h.updateMirror)
	rt.Handle("DELETE /projects/{project}/remote_mirrors/{mirror}", maintainer, h.deleteMirror)
	rt.Handle("POST /projects/{project}/remote_mirrors/{mirror}/sync", maintainer, h.syncMirror)
	rt.Handle("GET /projects/{project}/mirror/pull", maintainer, h.getPullMirror)
	rt.Handle("PUT /projects/{project}/mirror/pull", maintainer, h.setPullMirror)
	rt.Handle("POST /projects/{project}/mirror/pull", maintainer, h.startPullMirror)
	rt.Handle("DELETE /projects/{project}/mirror/pull", maintainer, h.deletePullMirror)
	rt.Handle("GET /projects/{project}/protected_branches", guest, h.listProtections(false))
	rt.Handle("GET /projects/{project}/protected_branches/{name}", guest, h.getProtection(false))
	rt.Handle("POST /projects/{project}/protected_branches", maintainer, h.protectBranch)
	rt.Handle("PATCH /projects/{project}/protected_branches/{name}", maintainer, h.updateProtection)
	rt.Handle("DELETE /projects/{project}/protected_branches/{name}", maintainer, h.unprotect(false))
	rt.Handle("GET /projects/{project}/protected_tags", guest, h.listProtections(true))
	rt.Handle("GET /projects/{project}/protected_tags/{name}", guest, h.getProtection(true))
	rt.Handle("POST /projects/{project}/protected_tags", maintainer, h.protectTag)
	rt.Handle("DELETE /projects/{project}/protected_tags/{name}", maintainer, h.unprotect(true))
}

func (h *handlers) projectShape(r *api.Request, p delivery.Project, role delivery.Role, full bool) (map[string]any, error) {
	web := h.f.WebURL(p)
	branch := any(p.DefaultBranch)
	if p.Empty {
		branch = nil
	}
	out := map[string]any{
		"id": p.ID, "description": p.Description, "name": p.Name, "name_with_namespace": p.Namespace.Name + " / " + p.Name, "path": p.Path, "path_with_namespace": p.FullPath,
		"created_at": optional(p.CreatedAt), "updated_at": optional(p.LastActivity), "last_activity_at": optional(p.LastActivity), "default_branch": branch, "tag_list": []string{}, "topics": []string{},
		"ssh_url_to_repo": h.f.SSHURL(p), "http_url_to_repo": h.f.HTTPURL(p), "web_url": web, "readme_url": nil, "avatar_url": h.avatar("project", p.ID), "forks_count": 0, "star_count": 0,
		"visibility": p.Visibility, "archived": p.Archived, "empty_repo": p.Empty, "creator_id": p.CreatorID,
		"namespace": map[string]any{"id": p.Namespace.ID, "name": p.Namespace.Name, "path": p.Namespace.Path, "kind": p.Namespace.Kind, "full_path": p.Namespace.FullPath, "parent_id": nil, "avatar_url": nil, "web_url": h.url + "/" + p.Namespace.FullPath},
	}
	if !p.Empty {
		out["readme_url"] = web + "/-/blob/" + p.DefaultBranch + "/README.md"
	}
	if !full {
		return out, nil
	}
	set, err := h.f.Settings(r.Context(), p.ID)
	if err != nil {
		return nil, err
	}
	api := h.url + "/api/v4/projects/" + strconv.FormatInt(p.ID, 10)
	method, squash := set.MergeMethod, set.SquashOption
	if method == "" {
		method = "merge"
	}
	if squash == "" {
		squash = "default_off"
	}
	access := func(off bool) string {
		if off {
			return "disabled"
		}
		return "enabled"
	}
	topics := set.Topics
	if topics == nil {
		topics = []string{}
	}
	more := map[string]any{
		"_links":       map[string]any{"self": api, "merge_requests": api + "/merge_requests", "repo_branches": api + "/repository/branches", "members": api + "/members"},
		"merge_method": method, "squash_option": squash, "only_allow_merge_if_pipeline_succeeds": set.PipelineMustSucceed, "only_allow_merge_if_all_discussions_are_resolved": set.DiscussionsMustBeResolved,
		"approvals_before_merge": set.ApprovalsRequired, "remove_source_branch_after_merge": !set.KeepSourceBranch, "merge_commit_template": nil, "lfs_enabled": !set.LFSDisabled, "topics": topics, "tag_list": topics,
		"merge_requests_enabled": !set.MergeRequestsDisabled, "merge_requests_access_level": access(set.MergeRequestsDisabled),
		"issues_enabled": false, "wiki_enabled": false, "snippets_enabled": false, "container_registry_enabled": true, "container_registry_access_level": "enabled", "repository_access_level": "enabled",
		"shared_runners_enabled": true, "group_runners_enabled": true, "ci_config_path": p.CIConfigPath,
		"ci_job_token_scope_enabled": false, "public_jobs": true, "import_status": "none", "import_url": nil, "can_create_merge_request_in": role >= delivery.Developer || p.Visibility != delivery.Private && r.Who.Signed(),
		"shared_with_groups": []any{}, "request_access_enabled": false, "packages_enabled": false,
		"container_registry_image_prefix": strings.TrimPrefix(strings.TrimPrefix(h.url, "http://"), "https://") + "/" + strings.ToLower(p.FullPath),
	}
	for k, v := range more {
		out[k] = v
	}
	if ci := h.f.CISettings(); ci != nil {
		fields, err := ci.ProjectFields(r.Context(), p.ID)
		if err != nil {
			return nil, err
		}
		for k, v := range fields {
			out[k] = v
		}
	}
	if role > 0 {
		level := map[string]any{"access_level": int(role), "notification_level": 3}
		out["permissions"] = map[string]any{"project_access": level, "group_access": nil}
	} else {
		out["permissions"] = map[string]any{"project_access": nil, "group_access": nil}
	}
	if p.Namespace.Kind == "user" {
		if u, err := h.accounts.UserByName(r.Context(), p.Namespace.Path); err == nil {
			out["owner"] = h.userShape(u)
		}
	}
	if p.ForkedFromID != 0 {
		// Where the caller may not see the source, the fork does not tell of it.
		if src, srole, err := h.f.VisibleProject(r.Context(), r.Who, strconv.FormatInt(p.ForkedFromID, 10)); err == nil {
			shape, err := h.projectShape(r, src, srole, false)
			if err != nil {
				return nil, err
			}
			out["forked_from_project"] = shape
		}
	}
	_, forks, err := h.f.Projects(r.Context(), forge.ProjectFilter{All: true, ForkedFrom: p.ID}, 1, 0)
	if err != nil {
		return nil, err
	}
	out["forks_count"] = forks
	return out, nil
}

func (h *handlers) filter(r *api.Request) forge.ProjectFilter {
	q := r.URL.Query()
	f := forge.FilterFor(r.Who)
	f.Search, f.Member, f.Owned = q.Get("search"), isTrue(q.Get("membership")), isTrue(q.Get("owned"))
	if n, err := strconv.Atoi(q.Get("min_access_level")); err == nil {
		f.MinRole = delivery.Role(n)
	}
	if n, err := strconv.ParseInt(q.Get("id_after"), 10, 64); err == nil {
		f.IDAfter = n
	}
	if q.Has("archived") {
		v := isTrue(q.Get("archived"))
		f.Archived = &v
	}
	f.Visibility = delivery.Visibility(q.Get("visibility"))
	f.OrderBy, f.Ascending = q.Get("order_by"), q.Get("sort") == "asc"
	return f
}

func (h *handlers) writeProjects(w http.ResponseWriter, r *api.Request, f forge.ProjectFilter) error {
	p := api.PageOf(r.Request)
	list, total, err := h.f.Projects(r.Context(), f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	simple := isTrue(r.URL.Query().Get("simple")) || !r.Who.Signed()
	out := make([]map[string]any, len(list))
	for i, project := range list {
		if out[i], err = h.projectShape(r, project, 0, !simple); err != nil {
			return err
		}
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) listProjects(w http.ResponseWriter, r *api.Request) error {
	return h.writeProjects(w, r, h.filter(r))
}

func (h *handlers) groupProjects(w http.ResponseWriter, r *api.Request) error {
	g, _, err := h.accounts.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
	if err != nil {
		return err
	}
	f := h.filter(r)
	f.GroupID, f.Subgroups = g.ID, isTrue(r.URL.Query().Get("include_subgroups"))
	return h.writeProjects(w, r, f)
}

func (h *handlers) userProjects(w http.ResponseWriter, r *api.Request) error {
	ref := r.PathValue("user")
	var u delivery.User
	var err error
	if id, perr := strconv.ParseInt(ref, 10, 64); perr == nil {
		u, err = h.accounts.User(r.Context(), id)
	} else {
		u, err = h.accounts.UserByName(r.Context(), ref)
	}
	if err != nil {
		return err
	}
	f := h.filter(r)
	f.OwnerID = u.ID
	return h.writeProjects(w, r, f)
}

func (h *handlers) listForks(w http.ResponseWriter, r *api.Request) error {
	f := h.filter(r)
	f.ForkedFrom = r.Project.ID
	return h.writeProjects(w, r, f)
}

func (h *handlers) getProject(w http.ResponseWriter, r *api.Request) error {
	return h.writeProject(w, r, r.Project, r.Role, http.StatusOK)
}

type projectParams struct {
	Name                 *string              `json:"name"`
	Path                 *string              `json:"path"`
	NamespaceID          int64                `json:"namespace_id"`
	Description          *string              `json:"description"`
	Visibility           *delivery.Visibility `json:"visibility"`
	DefaultBranch        *string              `json:"default_branch"`
	InitializeWithReadme bool                 `json:"initialize_with_readme"`
	ImportURL            string               `json:"import_url"`
	CIConfigPath         *string              `json:"ci_config_path"`
	MergeMethod          *string              `json:"merge_method"`
	SquashOption         *string              `json:"squash_option"`
	PipelineMustSucceed  *bool                `json:"only_allow_merge_if_pipeline_succeeds"`
	Discussions          *bool                `json:"only_allow_merge_if_all_discussions_are_resolved"`
	Approvals            *int                 `json:"approvals_before_merge"`
	RemoveSource         *bool                `json:"remove_source_branch_after_merge"`
	LFS                  *bool                `json:"lfs_enabled"`
	MergeRequests        *bool                `json:"merge_requests_enabled"`
	MergeRequestsLevel   *string              `json:"merge_requests_access_level"`
	Topics               *[]string            `json:"topics"`
	Archived             *bool                `json:"archived"`
	AutoRevert           *bool                `json:"auto_revert_failed_rollout"`
}

func (p projectParams) apply(s forge.ProjectSettings) (forge.ProjectSettings, error) {
	oneOf := func(field string, v *string, to *string, allowed ...string) error {
		if v == nil {
			return nil
		}
		for _, a := range allowed {
			if a == *v {
				*to = *v
				return nil
			}
		}
		return delivery.Errorf(delivery.Invalid, "%s does not have a valid value", field)
	}
	flag := func(v *bool, to *bool, negate bool) {
		if v != nil {
			*to = *v != negate
		}
	}
	if err := oneOf("merge_method", p.MergeMethod, &s.MergeMethod, "merge", "rebase_merge", "ff"); err != nil {
		return s, err
	}
	if err := oneOf("squash_option", p.SquashOption, &s.SquashOption, "never", "always", "default_on", "default_off"); err != nil {
		return s, err
	}
	flag(p.PipelineMustSucceed, &s.PipelineMustSucceed, false)
	flag(p.Discussions, &s.DiscussionsMustBeResolved, false)
	flag(p.RemoveSource, &s.KeepSourceBranch, true)
	flag(p.LFS, &s.LFSDisabled, true)
	flag(p.MergeRequests, &s.MergeRequestsDisabled, true)
	flag(p.AutoRevert, &s.AutoRevertFailedRollout, false)
	if p.MergeRequestsLevel != nil {
		s.MergeRequestsDisabled = *p.MergeRequestsLevel == "disabled"
	}
	if p.Approvals != nil {
		if *p.Approvals < 0 || *p.Approvals > 100 {
			return s, delivery.Errorf(delivery.Invalid, "approvals_before_merge does not have a valid value")
		}
		s.ApprovalsRequired = *p.Approvals
	}
	if p.Topics != nil {
		s.Topics = *p.Topics
	}
	return s, nil
}

// twice lets a request be decoded once more after decode has read it.
func twice(r *api.Request, decode func() error) error {
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxProjectBody))
	if err != nil {
		return delivery.Errorf(delivery.TooLarge, "The body is larger than %d bytes.", maxProjectBody)
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	err = decode()
	r.Body = io.NopCloser(bytes.NewReader(raw))
	return err
}

// maxProjectBody bounds the body of a request about a project.
const maxProjectBody = 1 << 20

// changeCI changes the settings of pipelines that the request names.
func (h *handlers) changeCI(r *api.Request, projectID int64) error {
	ci := h.f.CISettings()
	if ci == nil {
		return nil
	}
	admin := r.Who.User != nil && r.Who.User.Admin
	return ci.ChangeProjectFields(r.Context(), projectID, admin, func(v any) error {
		return twice(r, func() error { return api.Decode(r, v) })
	})
}

// projectChanged applies the fields that are the pipelines' and answers with the
// project as it is then.
func (h *handlers) projectChanged(w http.ResponseWriter, r *api.Request, project delivery.Project, role delivery.Role, status int) error {
	if err := h.changeCI(r, project.ID); err != nil {
		return err
	}
	return h.writeProject(w, r, project, role, status)
}

func (h *handlers) writeProject(w http.ResponseWriter, r *api.Request, project delivery.Project, role delivery.Role, status int) error {
	out, err := h.projectShape(r, project, role, true)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out)
}

func (h *handlers) createProject(w http.ResponseWriter, r *api.Request) error {
	var p projectParams
	if err := twice(r, func() error { return api.Decode(r, &p) }); err != nil {
		return err
	}
	if p.Name == nil && p.Path == nil {
		return delivery.Errorf(delivery.Invalid, "name, path are missing, at least one parameter must be provided")
	}
	settings, err := p.apply(forge.ProjectSettings{})
	if err != nil {
		return err
	}
	project, err := h.f.CreateProject(r.Context(), r.Who, forge.NewProject{NamespaceID: p.NamespaceID, Path: deref(p.Path), Name: deref(p.Name), Description: deref(p.Description), Visibility: deref(p.Visibility),
		DefaultBranch: deref(p.DefaultBranch), Readme: p.InitializeWithReadme, CIConfigPath: deref(p.CIConfigPath), ImportURL: p.ImportURL, Settings: settings})
	if delivery.KindOf(err) == delivery.Conflict {
		// GitLab answers 400 here.
		return &delivery.Error{Kind: delivery.Invalid, Message: "path has already been taken", Fields: map[string][]string{"name": {"has already been taken"}, "path": {"has already been taken"}}}
	}
	if err != nil {
		return err
	}
	return h.projectChanged(w, r, project, delivery.Maintainer, http.StatusCreated)
}

func (h *handlers) updateProject(w http.ResponseWriter, r *api.Request) error {
	var p projectParams
	if err := twice(r, func() error { return api.Decode(r, &p) }); err != nil {
		return err
	}
	if (p.Path != nil || p.Visibility != nil || p.Archived != nil) && r.Role < delivery.Owner {
		return forbidden()
	}
	if err := h.accounts.StoreProjectAvatar(r.Context(), r.Who, r.Project.ID, r.Request); err != nil {
		return err
	}
	old, err := h.f.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	settings, err := p.apply(old)
	if err != nil {
		return err
	}
	project, err := h.f.UpdateProject(r.Context(), r.Who, r.Project, forge.ProjectChange{Name: p.Name, Path: p.Path, Description: p.Description, DefaultBranch: p.DefaultBranch, CIConfigPath: p.CIConfigPath,
		Visibility: p.Visibility, Archived: p.Archived, Settings: &settings})
	if err != nil {
		return err
	}
	return h.projectChanged(w, r, project, r.Role, http.StatusOK)
}

func (h *handlers) deleteProject(w http.ResponseWriter, r *api.Request) error {
	if err := h.f.DeleteProject(r.Context(), r.Who, r.Project); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusAccepted, map[string]string{"message": "202 Accepted"})
}

func (h *handlers) archiveProject(archived bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		p, err := h.f.UpdateProject(r.Context(), r.Who, r.Project, forge.ProjectChange{Archived: &archived})
		if err != nil {
			return err
		}
		return h.writeProject(w, r, p, r.Role, http.StatusCreated)
	}
}

// namespaceParam reads a namespace given by number or path.
func namespaceParam(r *api.Request, key string) (int64, string, error) {
	var p map[string]any
	if err := api.Decode(r, &p); err != nil {
		return 0, "", err
	}
	switch v := p[key].(type) {
	case float64:
		return int64(v), "", nil
	case string:
		if id, err := strconv.ParseInt(v, 10, 64); err == nil {
			return id, "", nil
		}
		return 0, v, nil
	}
	return 0, "", nil
}

func (h *handlers) transferProject(w http.ResponseWriter, r *api.Request) error {
	id, path, err := namespaceParam(r, "namespace")
	if err != nil {
		return err
	}
	if id == 0 && path == "" {
		return delivery.Errorf(delivery.Invalid, "namespace is missing")
	}
	p, err := h.f.TransferProject(r.Context(), r.Who, r.Project, id, path)
	if err != nil {
		return err
	}
	return h.writeProject(w, r, p, r.Role, http.StatusOK)
}

func (h *handlers) forkProject(w http.ResponseWriter, r *api.Request) error {
	if !forge.CanRead(r.Project, r.Role) {
		return forbidden()
	}
	var p struct {
		Name          string              `json:"name"`
		Path          string              `json:"path"`
		NamespaceID   int64               `json:"namespace_id"`
		NamespacePath string              `json:"namespace_path"`
		Visibility    delivery.Visibility `json:"visibility"`
		Description   string              `json:"description"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	fork, err := h.f.Fork(r.Context(), r.Who, r.Project, forge.NewProject{NamespaceID: p.NamespaceID, NamespacePath: p.NamespacePath, Path: p.Path, Name: p.Name, Visibility: p.Visibility, Description: p.Description})
	if err != nil {
		return err
	}
	return h.writeProject(w, r, fork, delivery.Owner, http.StatusCreated)
}

func (h *handlers) languages(w http.ResponseWriter, r *api.Request) error {
	langs, err := h.f.Languages(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, langs)
}

func protectionLevels(role delivery.Role) []map[string]any {
	text := map[delivery.Role]string{forge.Nobody: "No one", delivery.Developer: "Developers + Maintainers", delivery.Maintainer: "Maintainers", delivery.Owner: "Owners"}[role]
	return []map[string]any{{"id": int(role), "access_level": int(role), "access_level_description": text, "user_id": nil, "group_id": nil, "deploy_key_id": nil}}
}

func protectionShape(p forge.Protection) map[string]any {
	if p.Tags {
		return map[string]any{"name": p.Pattern, "create_access_levels": protectionLevels(p.PushRole)}
	}
	return map[string]any{"id": p.ID, "name": p.Pattern, "push_access_levels": protectionLevels(p.PushRole), "merge_access_levels": protectionLevels(p.MergeRole), "unprotect_access_levels": []any{},
		"allow_force_push": p.AllowForce, "code_owner_approval_required": false, "inherited": false}
}

func (h *handlers) listProtections(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		list, err := h.f.Protections(r.Context(), r.Project.ID)
		if err != nil {
			return err
		}
		out := []map[string]any{}
		for _, p := range list {
			if p.Tags == tags && strings.Contains(p.Pattern, r.URL.Query().Get("search")) {
				out = append(out, protectionShape(p))
			}
		}
		return paged(w, r, out)
	}
}

func (h *handlers) protection(r *api.Request, tags bool) (forge.Protection, error) {
	list, err := h.f.Protections(r.Context(), r.Project.ID)
	if err != nil {
		return forge.Protection{}, err
	}
	for _, p := range list {
		if p.Tags == tags && p.Pattern == r.PathValue("name") {
			return p, nil
		}
	}
	return forge.Protection{}, notFound("Protected ref")
}

func (h *handlers) getProtection(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		p, err := h.protection(r, tags)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, protectionShape(p))
	}
}

type protectionParams struct {
	Name       string         `json:"name"`
	Push       *delivery.Role `json:"push_access_level"`
	Merge      *delivery.Role `json:"merge_access_level"`
	Create     *delivery.Role `json:"create_access_level"`
	AllowForce *bool          `json:"allow_force_push"`
}

func (h *handlers) protectBranch(w http.ResponseWriter, r *api.Request) error {
	var p protectionParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	rule := forge.Protection{ProjectID: r.Project.ID, Pattern: p.Name, PushRole: delivery.Maintainer, MergeRole: delivery.Maintainer, AllowForce: deref(p.AllowForce)}
	return h.setProtection(w, r, rule, p, http.StatusCreated)
}

func (h *handlers) setProtection(w http.ResponseWriter, r *api.Request, rule forge.Protection, p protectionParams, status int) error {
	if p.Push != nil {
		rule.PushRole = *p.Push
	}
	if p.Create != nil {
		rule.PushRole = *p.Create
	}
	if p.Merge != nil {
		rule.MergeRole = *p.Merge
	}
	if p.AllowForce != nil {
		rule.AllowForce = *p.AllowForce
	}
	rule, err := h.f.Protect(r.Context(), r.Who, rule)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, protectionShape(rule))
}

func (h *handlers) updateProtection(w http.ResponseWriter, r *api.Request) error {
	rule, err := h.protection(r, false)
	if err != nil {
		return err
	}
	var p protectionParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	return h.setProtection(w, r, rule, p, http.StatusOK)
}

func (h *handlers) protectTag(w http.ResponseWriter, r *api.Request) error {
	var p protectionParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	return h.setProtection(w, r, forge.Protection{ProjectID: r.Project.ID, Tags: true, Pattern: p.Name, PushRole: delivery.Maintainer, MergeRole: delivery.Maintainer}, p, http.StatusCreated)
}

func (h *handlers) unprotect(tags bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		if err := h.f.Unprotect(r.Context(), r.Who, r.Project.ID, tags, r.PathValue("name")); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func mirrorShape(m forge.Mirror) map[string]any {
	var lastError any
	if m.LastError != "" {
		lastError = m.LastError
	}
	return map[string]any{"id": m.ID, "url": m.URL, "enabled": m.Enabled, "update_status": m.Status, "last_error": lastError, "last_update_at": optional(m.LastAt), "last_update_started_at": optional(m.LastAt),
		"last_successful_update_at": optional(m.LastSuccess), "only_protected_branches": m.OnlyProtected, "keep_divergent_refs": false, "next_update_at": optional(m.NextAt), "interval_seconds": int(m.Interval / time.Second)}
}

func (h *handlers) listMirrors(push bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		list, err := h.f.Mirrors(r.Context(), r.Project.ID)
		if err != nil {
			return err
		}
		out := []map[string]any{}
		for _, m := range list {
			if m.Push == push {
				out = append(out, mirrorShape(m))
			}
		}
		return paged(w, r, out)
	}
}

type mirrorParams struct {
	URL           string `json:"url"`
	Enabled       *bool  `json:"enabled"`
	OnlyProtected *bool  `json:"only_protected_branches"`
	Interval      int    `json:"interval_seconds"`
	AuthUser      string `json:"auth_user"`
	AuthPassword  string `json:"auth_password"`
}

func (h *handlers) addMirror(w http.ResponseWriter, r *api.Request) error {
	var p mirrorParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	m, err := h.f.SetMirror(r.Context(), r.Who, forge.Mirror{ProjectID: r.Project.ID, Push: true, URL: p.URL, Username: p.AuthUser, Password: p.AuthPassword, Enabled: deref(p.Enabled), OnlyProtected: deref(p.OnlyProtected), Interval: time.Duration(p.Interval) * time.Second})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, mirrorShape(m))
}

func (h *handlers) mirror(r *api.Request, push bool, id int64) (forge.Mirror, error) {
	list, err := h.f.Mirrors(r.Context(), r.Project.ID)
	if err != nil {
		return forge.Mirror{}, err
	}
	for _, m := range list {
		if m.Push == push && (id == 0 || m.ID == id) {
			return m, nil
		}
	}
	return forge.Mirror{}, notFound("Mirror")
}

func (h *handlers) updateMirror(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "mirror")
	if err != nil {
		return err
	}
	m, err := h.mirror(r, true, id)
	if err != nil {
		return err
	}
	var p mirrorParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Enabled != nil {
		m.Enabled = *p.Enabled
	}
	if p.OnlyProtected != nil {
		m.OnlyProtected = *p.OnlyProtected
	}
	if p.Interval != 0 {
		m.Interval = time.Duration(p.Interval) * time.Second
	}
	if p.AuthUser != "" || p.AuthPassword != "" {
		m.Username, m.Password = p.AuthUser, p.AuthPassword
	}
	if m, err = h.f.SetMirror(r.Context(), r.Who, m); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, mirrorShape(m))
}

func (h *handlers) deleteMirror(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "mirror")
	if err != nil {
		return err
	}
	if _, err := h.mirror(r, true, id); err != nil {
		return err
	}
	if err := h.f.DeleteMirror(r.Context(), r.Who, r.Project.ID, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) syncMirror(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "mirror")
	if err != nil {
		return err
	}
	m, err := h.mirror(r, true, id)
	if err != nil {
		return err
	}
	if err := h.f.SyncMirror(r.Context(), m); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) getPullMirror(w http.ResponseWriter, r *api.Request) error {
	m, err := h.mirror(r, false, 0)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, mirrorShape(m))
}

func (h *handlers) setPullMirror(w http.ResponseWriter, r *api.Request) error {
	m, err := h.mirror(r, false, 0)
	if delivery.IsNotFound(err) {
		m, err = forge.Mirror{ProjectID: r.Project.ID}, nil
	}
	if err != nil {
		return err
	}
	p := mirrorParams{URL: m.URL}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	m.URL = p.URL
	if p.AuthUser != "" || p.AuthPassword != "" {
		m.Username, m.Password = p.AuthUser, p.AuthPassword
	}
	if p.Enabled != nil {
		m.Enabled = *p.Enabled
	}
	if p.Interval != 0 {
		m.Interval = time.Duration(p.Interval) * time.Second
	}
	if m, err = h.f.SetMirror(r.Context(), r.Who, m); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, mirrorShape(m))
}

// deletePullMirror ends pulling; GitLab switches the mirror off by PUT only.
func (h *handlers) deletePullMirror(w http.ResponseWriter, r *api.Request) error {
	m, err := h.mirror(r, false, 0)
	if err != nil {
		return err
	}
	if err := h.f.DeleteMirror(r.Context(), r.Who, r.Project.ID, m.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) startPullMirror(w http.ResponseWriter, r *api.Request) error {
	m, err := h.mirror(r, false, 0)
	if err != nil {
		return err
	}
	if err := h.f.SyncMirror(r.Context(), m); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, mirrorShape(m))
}
