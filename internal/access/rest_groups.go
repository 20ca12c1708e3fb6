package access

import (
	"net/http"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

func formatID(id int64) string { return strconv.FormatInt(id, 10) }

func (h *rest) groups(rt *api.Router) {
	anyone := api.Need{Anyone: true}
	rt.Handle("GET /groups", anyone, h.listGroups)
	rt.Handle("POST /groups", api.Need{}, h.createGroup)
	rt.Handle("GET /groups/{group}", anyone, h.withGroup(0, h.getGroup))
	rt.Handle("PUT /groups/{group}", api.Need{}, h.withGroup(delivery.Owner, h.updateGroup))
	rt.Handle("DELETE /groups/{group}", api.Need{}, h.withGroup(delivery.Owner, h.deleteGroup))
	rt.Handle("GET /groups/{group}/avatar", anyone, h.withGroup(0, h.groupAvatar))
	rt.Handle("GET /groups/{group}/subgroups", anyone, h.withGroup(0, h.subgroups))
	rt.Handle("GET /namespaces", api.Need{}, h.listNamespaces)
	rt.Handle("GET /namespaces/{namespace}", api.Need{}, h.getNamespace)
}

// groupHandler answers a request about a group that the caller may see.
type groupHandler func(w http.ResponseWriter, r *api.Request, g delivery.Group, role delivery.Role) error

func (h *rest) withGroup(need delivery.Role, fn groupHandler) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		g, role, err := h.s.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
		if err != nil {
			return err
		}
		if role < need {
			return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
		}
		return fn(w, r, g, role)
	}
}

type groupJSON struct {
	ID                    int64      `json:"id"`
	WebURL                string     `json:"web_url"`
	Name                  string     `json:"name"`
	Path                  string     `json:"path"`
	Description           string     `json:"description"`
	Visibility            string     `json:"visibility"`
	FullName              string     `json:"full_name"`
	FullPath              string     `json:"full_path"`
	ParentID              any        `json:"parent_id"`
	CreatedAt             *time.Time `json:"created_at"`
	AvatarURL             any        `json:"avatar_url"`
	RequestAccessEnabled  bool       `json:"request_access_enabled"`
	LFSEnabled            bool       `json:"lfs_enabled"`
	ProjectCreationLevel  string     `json:"project_creation_level"`
	SubgroupCreationLevel string     `json:"subgroup_creation_level"`
	SharedWithGroups      []any      `json:"shared_with_groups"`
	Projects              []any      `json:"projects,omitempty"`
}

func (h *rest) group(g delivery.Group) groupJSON {
	j := groupJSON{ID: g.ID, WebURL: h.url + "/groups/" + g.FullPath, Name: g.Name, Path: g.Path, Description: g.Description, Visibility: string(g.Visibility), FullName: g.FullPath, FullPath: g.FullPath,
		AvatarURL: h.avatar(GroupAvatar, g.ID), CreatedAt: optional(g.CreatedAt), LFSEnabled: true, ProjectCreationLevel: "developer", SubgroupCreationLevel: "maintainer", SharedWithGroups: []any{}}
	if g.ParentID != 0 {
		j.ParentID = g.ParentID
	} else {
		j.FullName = g.Name
	}
	return j
}

func (h *rest) groupFilter(r *api.Request) GroupFilter {
	q := r.URL.Query()
	f := GroupFilter{Search: q.Get("search"), TopLevel: q.Get("top_level_only") == "true", Owned: q.Get("owned") == "true"}
	if n, err := strconv.Atoi(q.Get("min_access_level")); err == nil {
		f.MinRole = delivery.Role(n)
	}
	if r.Who.User != nil && r.Who.Kind != delivery.ProjectToken && r.Who.Kind != delivery.JobToken {
		f.Viewer, f.All, f.External = r.Who.User.ID, r.Who.User.Admin, r.Who.Kind == delivery.GroupToken
	}
	return f
}

func (h *rest) writeGroups(w http.ResponseWriter, r *api.Request, f GroupFilter) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Groups(r.Context(), f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]groupJSON, len(list))
	for i, g := range list {
		out[i] = h.group(g)
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) listGroups(w http.ResponseWriter, r *api.Request) error {
	return h.writeGroups(w, r, h.groupFilter(r))
}

func (h *rest) subgroups(w http.ResponseWriter, r *api.Request, g delivery.Group, _ delivery.Role) error {
	f := h.groupFilter(r)
	f.ParentID = g.ID
	return h.writeGroups(w, r, f)
}

type groupParams struct {
	Name        *string              `json:"name"`
	Path        *string              `json:"path"`
	Description *string              `json:"description"`
	Visibility  *delivery.Visibility `json:"visibility"`
	ParentID    int64                `json:"parent_id"`
}

func (h *rest) createGroup(w http.ResponseWriter, r *api.Request) error {
	var p groupParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	g, err := h.s.CreateGroup(r.Context(), r.Who, NewGroup{Path: deref(p.Path), Name: deref(p.Name), Description: deref(p.Description), ParentID: p.ParentID, Visibility: deref(p.Visibility)})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.group(g))
}

func (h *rest) getGroup(w http.ResponseWriter, r *api.Request, g delivery.Group, _ delivery.Role) error {
	return api.WriteJSON(w, http.StatusOK, h.group(g))
}

func (h *rest) updateGroup(w http.ResponseWriter, r *api.Request, g delivery.Group, _ delivery.Role) error {
	var p groupParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if err := h.s.FormAvatar(r.Context(), r.Who, GroupAvatar, g.ID, r.Request); err != nil {
		return err
	}
	g, err := h.s.UpdateGroup(r.Context(), r.Who, g, GroupChange{Path: p.Path, Name: p.Name, Description: p.Description, Visibility: p.Visibility})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.group(g))
}

func (h *rest) deleteGroup(w http.ResponseWriter, r *api.Request, g delivery.Group, _ delivery.Role) error {
	if err := h.s.DeleteGroup(r.Context(), r.Who, g); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusAccepted, map[string]string{"message": "202 Accepted"})
}

func (h *rest) namespace(n delivery.Namespace) map[string]any {
	web := h.url + "/" + n.FullPath
	if n.Kind == "group" {
		web = h.url + "/groups/" + n.FullPath
	}
	return map[string]any{"id": n.ID, "name": n.Name, "path": n.Path, "kind": n.Kind, "full_path": n.FullPath, "web_url": web, "parent_id": nil, "avatar_url": nil, "plan": "default"}
}

func (h *rest) listNamespaces(w http.ResponseWriter, r *api.Request) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Namespaces(r.Context(), r.Who, r.URL.Query().Get("search"), p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]map[string]any, len(list))
	for i, n := range list {
		out[i] = h.namespace(n)
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) getNamespace(w http.ResponseWriter, r *api.Request) error {
	ref := r.PathValue("namespace")
	var n delivery.Namespace
	var owner int64
	var err error
	if id, perr := strconv.ParseInt(ref, 10, 64); perr == nil {
		n, owner, err = h.s.store.NamespaceByID(r.Context(), id)
	} else {
		n, owner, err = h.s.store.NamespaceByPath(r.Context(), ref)
	}
	if err != nil {
		return err
	}
	missing := &delivery.Error{Kind: delivery.NotFound, Message: "404 Namespace Not Found"}
	if n.Kind == "group" {
		if _, _, err := h.s.VisibleGroup(r.Context(), r.Who, formatID(n.ID)); err != nil {
			if delivery.IsNotFound(err) {
				return missing
			}
			return err
		}
	} else if r.Who.User == nil || owner != r.Who.User.ID && !r.Who.User.Admin {
		return missing
	}
	return api.WriteJSON(w, http.StatusOK, h.namespace(n))
}

// membersOf binds a route to a group or a project.
type membersOf struct {
	groupID, projectID int64
	role               delivery.Role
}

func (h *rest) members(rt *api.Router) {
	anyone, signed := api.Need{Anyone: true}, api.Need{}
	group := func(need delivery.Role, fn func(http.ResponseWriter, *api.Request, membersOf) error) api.Handler {
		return h.withGroup(need, func(w http.ResponseWriter, r *api.Request, g delivery.Group, role delivery.Role) error {
			return fn(w, r, membersOf{groupID: g.ID, role: role})
		})
	}
	project := func(fn func(http.ResponseWriter, *api.Request, membersOf) error) api.Handler {
		return func(w http.ResponseWriter, r *api.Request) error {
			return fn(w, r, membersOf{projectID: r.Project.ID, role: r.Role})
		}
	}
	direct, all := h.listMembers(false), h.listMembers(true)
	rt.Handle("GET /groups/{group}/members", anyone, group(0, direct))
	rt.Handle("GET /groups/{group}/members/all", anyone, group(0, all))
	rt.Handle("GET /groups/{group}/members/{user}", anyone, group(0, h.getMember(false)))
	rt.Handle("GET /groups/{group}/members/all/{user}", anyone, group(0, h.getMember(true)))
	rt.Handle("POST /groups/{group}/members", signed, group(delivery.Owner, h.addMember))
	rt.Handle("PUT /groups/{group}/members/{user}", signed, group(delivery.Owner, h.updateMember))
	rt.Handle("DELETE /groups/{group}/members/{user}", signed, group(0, h.removeMember))
	guest, maintainer := api.Need{Role: delivery.Guest}, api.Need{Role: delivery.Maintainer}
	rt.Handle("GET /projects/{project}/members", guest, project(direct))
	rt.Handle("GET /projects/{project}/members/all", guest, project(all))
	rt.Handle("GET /projects/{project}/members/{user}", guest, project(h.getMember(false)))
	rt.Handle("GET /projects/{project}/members/all/{user}", guest, project(h.getMember(true)))
	rt.Handle("GET /projects/{project}/users", guest, project(h.projectUsers))
	rt.Handle("POST /projects/{project}/members", maintainer, project(h.addMember))
	rt.Handle("PUT /projects/{project}/members/{user}", maintainer, project(h.updateMember))
	rt.Handle("DELETE /projects/{project}/members/{user}", api.Need{Role: delivery.Guest}, project(h.removeMember))
}

type memberJSON struct {
	userJSON
	AccessLevel     int        `json:"access_level"`
	CreatedAt       *time.Time `json:"created_at"`
	ExpiresAt       any        `json:"expires_at"`
	MembershipState string     `json:"membership_state"`
}

func (h *rest) member(m Member) memberJSON {
	j := memberJSON{userJSON: h.user(m.User), AccessLevel: int(m.Role), CreatedAt: optional(m.CreatedAt), MembershipState: "active"}
	if !m.ExpiresAt.IsZero() {
		j.ExpiresAt = m.ExpiresAt.Format(time.DateOnly)
	}
	return j
}

func (h *rest) listMembers(inherited bool) func(http.ResponseWriter, *api.Request, membersOf) error {
	return func(w http.ResponseWriter, r *api.Request, o membersOf) error {
		p := api.PageOf(r.Request)
		list, total, err := h.s.Members(r.Context(), o.groupID, o.projectID, inherited, r.URL.Query().Get("query"), p.PerPage, p.Offset())
		if err != nil {
			return err
		}
		out := make([]memberJSON, len(list))
		for i, m := range list {
			out[i] = h.member(m)
		}
		return api.List(w, r, p, total, out)
	}
}

func (h *rest) projectUsers(w http.ResponseWriter, r *api.Request, o membersOf) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Members(r.Context(), 0, o.projectID, true, r.URL.Query().Get("search"), p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]userJSON, len(list))
	for i, m := range list {
		out[i] = h.user(m.User)
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) getMember(inherited bool) func(http.ResponseWriter, *api.Request, membersOf) error {
	return func(w http.ResponseWriter, r *api.Request, o membersOf) error {
		id, err := pathID(r, "user")
		if err != nil {
			return err
		}
		m, err := h.s.MemberOf(r.Context(), o.groupID, o.projectID, id, inherited)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, h.member(m))
	}
}

type memberParams struct {
	UserID      int64  `json:"user_id"`
	Username    string `json:"username"`
	AccessLevel int    `json:"access_level"`
	ExpiresAt   string `json:"expires_at"`
}

func (h *rest) addMember(w http.ResponseWriter, r *api.Request, o membersOf) error {
	var p memberParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	var u delivery.User
	var err error
	if p.UserID != 0 {
		u, err = h.s.User(r.Context(), p.UserID)
	} else {
		u, err = h.s.UserByName(r.Context(), p.Username)
	}
	if err != nil {
		return err
	}
	if _, err := h.s.MemberOf(r.Context(), o.groupID, o.projectID, u.ID, false); err == nil {
		return delivery.Errorf(delivery.Conflict, "Member already exists")
	} else if !delivery.IsNotFound(err) {
		return err
	}
	return h.setMember(w, r, o, u, p, http.StatusCreated)
}

func (h *rest) updateMember(w http.ResponseWriter, r *api.Request, o membersOf) error {
	id, err := pathID(r, "user")
	if err != nil {
		return err
	}
	m, err := h.s.MemberOf(r.Context(), o.groupID, o.projectID, id, false)
	if err != nil {
		return err
	}
	p := memberParams{AccessLevel: int(m.Role)}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	return h.setMember(w, r, o, m.User, p, http.StatusOK)
}

func (h *rest) setMember(w http.ResponseWriter, r *api.Request, o membersOf, u delivery.User, p memberParams, status int) error {
	expires, err := expiresIn(p.ExpiresAt)
	if err != nil {
		return err
	}
	m, err := h.s.SetMember(r.Context(), r.Who, o.role, Member{User: u, Role: delivery.Role(p.AccessLevel), ExpiresAt: expires, GroupID: o.groupID, ProjectID: o.projectID})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, h.member(m))
}

// removeMember lets owners and maintainers remove others, and everyone leave.
func (h *rest) removeMember(w http.ResponseWriter, r *api.Request, o membersOf) error {
	id, err := pathID(r, "user")
	if err != nil {
		return err
	}
	need := delivery.Owner
	if o.projectID != 0 {
		need = delivery.Maintainer
	}
	self := r.Who.User != nil && r.Who.User.ID == id
	if o.role < need && !self {
		if !r.Who.Signed() {
			return ErrWrongCredentials
		}
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	if err := h.s.RemoveMember(r.Context(), r.Who, max(o.role, delivery.Guest), o.groupID, o.projectID, id); err != nil {
		return err
	}
	return noContent(w)
}
