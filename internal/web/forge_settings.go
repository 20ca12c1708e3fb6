package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *Server) projectSettingsRoutes() {
	guest, maintainer, owner := delivery.Guest, delivery.Maintainer, delivery.Owner
	s.handleProject("GET /project_members", guest, s.membersPage)
	s.handleProject("POST /project_members", maintainer, s.setMember)
	s.handleProject("POST /project_members/{id}/remove", guest, s.removeMember)
	s.handleGroup("GET /group_members", 0, s.membersPage)
	s.handleGroup("POST /group_members", owner, s.setMember)
	s.handleGroup("POST /group_members/{id}/remove", delivery.MinimalAccess, s.removeMember)
	s.handleProject("GET /settings", maintainer, s.settingsPage)
	s.handleProject("POST /settings", maintainer, s.updateSettings)
	s.handleProject("POST /settings/delete", owner, s.deleteProject)
	s.handleProject("GET /settings/repository", maintainer, s.protectionsPage)
	s.handleProject("POST /settings/repository/protect", maintainer, s.protect)
	s.handleProject("POST /settings/repository/unprotect", maintainer, s.unprotect)
	s.handleBoth("GET", "/settings/access_tokens", s.projectTokensPage)
	s.handleBoth("POST", "/settings/access_tokens", s.createProjectToken)
	s.handleBoth("POST", "/settings/deploy_tokens", s.createDeployToken)
	s.handleBoth("POST", "/settings/access_tokens/{id}/revoke", s.revokeProjectToken)
}

// membersView lists who may do what in a project or a group.
type membersView struct {
	Place       place
	Rows        []memberRow
	MayAdd      bool
	Roles       []delivery.Role // that the caller can give
	Search      string
	Username    string
	Role        delivery.Role
	Expires     string
	Error, Base string
	Tomorrow    string
	More        int // members beyond those listed
}

type memberRow struct {
	access.Member
	Inherited bool
	From      string // full path of the group; empty: this place
	MayChange bool
	MayRemove bool
	Self      bool
}

func (s *Server) membersPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	return s.showMembers(w, r, http.StatusOK, membersView{Role: delivery.Developer})
}

func (s *Server) showMembers(w http.ResponseWriter, r *Request, status int, v membersView) error {
	v.Search = r.URL.Query().Get("search")
	v.Place = placeOf(r)
	groupID, projectID := v.Place.ids()
	list, total, err := s.Access.Members(r.Context(), groupID, projectID, true, v.Search, listed, 0)
	if err != nil {
		return err
	}
	v.More, v.MayAdd, v.Base, v.Tomorrow = total-len(list), r.Role >= v.Place.manager(), v.Place.members(), tomorrow()
	groups := map[int64]string{}
	for _, role := range []delivery.Role{delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner} {
		if role <= r.Role {
			v.Roles = append(v.Roles, role)
		}
	}
	for _, m := range list {
		row := memberRow{Member: m, Inherited: m.ProjectID != projectID || m.GroupID != groupID, Self: r.Who.User != nil && r.Who.User.ID == m.User.ID}
		if row.Inherited && m.GroupID != 0 {
			if row.From = groups[m.GroupID]; row.From == "" {
				g, err := s.Access.Group(r.Context(), m.GroupID)
				if skipMissing(err) != nil {
					return err
				}
				row.From, groups[m.GroupID] = g.FullPath, g.FullPath
			}
		}
		row.MayChange = !row.Inherited && v.MayAdd && m.Role <= r.Role
		row.MayRemove = row.MayChange || row.Self && !row.Inherited
		v.Rows = append(v.Rows, row)
	}
	return s.render(w, r, status, "forge_members", Page{Title: "Members", Active: "members", Data: v})
}

// setMember adds a member or changes the role of one.
func (s *Server) setMember(w http.ResponseWriter, r *Request) error {
	v := membersView{Username: strings.TrimPrefix(strings.TrimSpace(r.FormValue("username")), "@"), Role: roleNamed(r.FormValue("role")), Expires: r.FormValue("expires_at")}
	u, err := s.Access.UserByName(r.Context(), v.Username)
	if delivery.IsNotFound(err) {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "There is no account with this name or e-mail.", Err: err}
	}
	m := access.Member{User: u, Role: v.Role}
	m.GroupID, m.ProjectID = placeOf(r).ids()
	if err == nil {
		m.ExpiresAt, err = dayOf(v.Expires)
	}
	if err == nil {
		_, err = s.Access.SetMember(r.Context(), r.Who, r.Role, m)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showMembers(w, r, status, v)
	}
	return redirect(w, r, placeOf(r).members(), u.Name+" is now "+v.Role.String()+".")
}

func (s *Server) removeMember(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	self := r.Who.User != nil && r.Who.User.ID == id
	p := placeOf(r)
	if r.Role < p.manager() && !self {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role " + p.manager().String() + " in the " + p.Noun() + "."}
	}
	groupID, projectID := p.ids()
	if err := s.Access.RemoveMember(r.Context(), r.Who, r.Role, groupID, projectID, id); err != nil {
		return err
	}
	if self {
		return redirect(w, r, "/", "You have left "+p.fullPath()+".")
	}
	return redirect(w, r, p.members(), "The member is removed.")
}

// settingsView is the form of a project's settings.
type settingsView struct {
	Name, Description, Visibility string
	DefaultBranch                 string
	Archived                      bool
	Settings                      forge.ProjectSettings
	Branches                      []delivery.Ref
	Owner                         bool
	Namespaces                    []delivery.Namespace // where an owner could move the project to
	Path                          string
	Error, DeleteError            string
	PathError, MoveError          string
}

func (s *Server) settingsPage(w http.ResponseWriter, r *Request) error {
	return s.showStored(w, r, http.StatusOK, settingsView{})
}

// showStored shows the settings as they are stored; what v says was wrong with
// one of the other forms stays.
func (s *Server) showStored(w http.ResponseWriter, r *Request, status int, v settingsView) error {
	p := r.Project
	v.Name, v.Description, v.Visibility, v.DefaultBranch, v.Archived = p.Name, p.Description, string(p.Visibility), p.DefaultBranch, p.Archived
	var err error
	if v.Settings, err = s.Forge.Settings(r.Context(), p.ID); err != nil {
		return err
	}
	return s.showSettings(w, r, status, v)
}

func (s *Server) showSettings(w http.ResponseWriter, r *Request, status int, v settingsView) error {
	var err error
	if v.Branches, _, err = s.forgeBranches(r); err != nil {
		return err
	}
	if v.Owner = r.Role >= delivery.Owner; v.Owner {
		if v.Namespaces, _, err = s.Access.Namespaces(r.Context(), r.Who, "", listed, 0); err != nil {
			return err
		}
		v.Namespaces = slices.DeleteFunc(v.Namespaces, func(n delivery.Namespace) bool { return n.ID == r.Project.Namespace.ID })
	}
	if v.Path == "" {
		v.Path = r.Project.Path
	}
	return s.render(w, r, status, "forge_settings", Page{Title: "Settings", Active: "settings", Data: v})
}

func (s *Server) forgeBranches(r *Request) ([]delivery.Ref, bool, error) {
	if r.Project.Empty {
		return nil, false, nil
	}
	list, err := s.Forge.Branches(r.Context(), *r.Project, forge.RefOptions{})
	return list, true, err
}

func (s *Server) updateSettings(w http.ResponseWriter, r *Request) error {
	settings, err := s.Forge.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	v := settingsView{Name: r.FormValue("name"), Description: r.FormValue("description"), Visibility: r.FormValue("visibility"), DefaultBranch: r.FormValue("default_branch"), Archived: r.Project.Archived}
	settings.MergeMethod, settings.SquashOption = r.FormValue("merge_method"), r.FormValue("squash_option")
	settings.PipelineMustSucceed, settings.DiscussionsMustBeResolved = r.FormValue("pipeline_must_succeed") != "", r.FormValue("discussions_resolved") != ""
	settings.ApprovalsRequired, err = strconv.Atoi(r.FormValue("approvals"))
	if err != nil || settings.ApprovalsRequired < 0 || settings.ApprovalsRequired > 100 {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "The number of approvals is from 0 to 100."}
	} else if !oneOf(settings.MergeMethod, "merge", "rebase_merge", "ff") || !oneOf(settings.SquashOption, "never", "always", "default_on", "default_off") {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "Choose how to merge from the list."}
	}
	v.Settings = settings
	change := forge.ProjectChange{Name: &v.Name, Description: &v.Description, Settings: &settings}
	if v.DefaultBranch != "" && v.DefaultBranch != r.Project.DefaultBranch {
		change.DefaultBranch = &v.DefaultBranch
	}
	if visibility := delivery.Visibility(v.Visibility); r.Role >= delivery.Owner && visibility != r.Project.Visibility { // as in the API
		change.Visibility = &visibility
	}
	if err == nil {
		_, err = s.Forge.UpdateProject(r.Context(), r.Who, *r.Project, change)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showSettings(w, r, status, v)
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings"), "The settings are stored.")
}

func oneOf(v string, all ...string) bool {
	for _, a := range all {
		if v == a {
			return true
		}
	}
	return false
}

func (s *Server) deleteProject(w http.ResponseWriter, r *Request) error {
	if r.FormValue("confirm") != r.Project.FullPath {
		return s.showStored(w, r, http.StatusUnprocessableEntity, settingsView{DeleteError: "Type " + r.Project.FullPath + " to delete the project. Nothing was deleted."})
	}
	if err := s.Forge.DeleteProject(r.Context(), r.Who, *r.Project); err != nil {
		return err
	}
	return redirect(w, r, "/", r.Project.FullPath+" is deleted.")
}

// protectionsView lists the rules for branches and for tags.
type protectionsView struct {
	Branches, Tags []forge.Protection
	Pattern, Error string
	Base           string
	Names          []delivery.Ref
}

func (s *Server) protectionsPage(w http.ResponseWriter, r *Request) error {
	return s.showProtections(w, r, http.StatusOK, protectionsView{})
}

func (s *Server) showProtections(w http.ResponseWriter, r *Request, status int, v protectionsView) error {
	list, err := s.Forge.Protections(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Tags {
			v.Tags = append(v.Tags, p)
		} else {
			v.Branches = append(v.Branches, p)
		}
	}
	if v.Names, _, err = s.forgeBranches(r); err != nil {
		return err
	}
	v.Base = projectPath(r.Project.FullPath, "settings", "repository")
	return s.render(w, r, status, "forge_protections", Page{Title: "Repository settings", Active: "settings-repository", Data: v})
}

// grantee reads who may push or merge: a role, or nobody.
func grantee(v string) (delivery.Role, error) {
	if v == "nobody" {
		return forge.Nobody, nil
	}
	if role := roleNamed(v); role == delivery.Developer || role == delivery.Maintainer || role == delivery.Owner {
		return role, nil
	}
	return 0, &delivery.Error{Kind: delivery.Invalid, Message: "Choose who may from the list."}
}

func (s *Server) protect(w http.ResponseWriter, r *Request) error {
	p := forge.Protection{ProjectID: r.Project.ID, Tags: r.FormValue("kind") == "tag", Pattern: strings.TrimSpace(r.FormValue("pattern")), AllowForce: r.FormValue("allow_force") != ""}
	var err error
	if p.PushRole, err = grantee(r.FormValue("push")); err == nil && !p.Tags {
		p.MergeRole, err = grantee(r.FormValue("merge"))
	}
	if err == nil {
		_, err = s.Forge.Protect(r.Context(), r.Who, p)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		return s.showProtections(w, r, status, protectionsView{Pattern: p.Pattern, Error: message})
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "repository"), p.Pattern+" is protected.")
}

func (s *Server) unprotect(w http.ResponseWriter, r *Request) error {
	pattern := r.FormValue("pattern")
	if err := s.Forge.Unprotect(r.Context(), r.Who, r.Project.ID, r.FormValue("kind") == "tag", pattern); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "repository"), pattern+" is no longer protected.")
}

var deployScopes = []scopeChoice{{Name: "read_repository", Words: "pull"}, {Name: "read_registry", Words: "pull images"}, {Name: "write_registry", Words: "push images"}}

// projectTokensView lists the tokens of a project or a group, and makes them.
type projectTokensView struct {
	Place                      place
	Project, Deploy            []tokenRow
	Scopes, DeployScopes       []scopeChoice
	Roles                      []delivery.Role
	Role                       delivery.Role
	Name, Expires, Username    string
	Secret, SecretUser         string
	Error, DeployError         string
	Base, DeployBase, Tomorrow string
}

func (s *Server) projectTokensPage(w http.ResponseWriter, r *Request) error {
	return s.showProjectTokens(w, r, http.StatusOK, projectTokensView{Role: delivery.Developer}, nil)
}

func (s *Server) showProjectTokens(w http.ResponseWriter, r *Request, status int, v projectTokensView, scopes []string) error {
	v.Place = placeOf(r)
	for _, kind := range []struct {
		kind delivery.IdentityKind
		to   *[]tokenRow
	}{{v.Place.accessKind(), &v.Project}, {delivery.DeployToken, &v.Deploy}} {
		list, _, err := s.Access.Tokens(r.Context(), v.Place.tokens(kind.kind), listed, 0)
		if err != nil {
			return err
		}
		*kind.to = tokenRows(list)
	}
	for _, role := range []delivery.Role{delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner} {
		if role <= r.Role {
			v.Roles = append(v.Roles, role)
		}
	}
	v.Scopes, v.DeployScopes = choices(personalScopes[:7], scopes), choices(deployScopes, scopes)
	v.Base, v.DeployBase, v.Tomorrow = v.Place.link("settings", "access_tokens"), v.Place.link("settings", "deploy_tokens"), tomorrow()
	return s.render(w, r, status, "forge_projecttokens", Page{Title: "Access tokens", Active: "tokens", Data: v})
}

func newToken(form url.Values) (access.NewToken, error) {
	expires, err := dayOf(form.Get("expires_at"))
	return access.NewToken{Name: form.Get("name"), Username: form.Get("username"), Scopes: form["scopes"], ExpiresAt: expires}, err
}

func (s *Server) createProjectToken(w http.ResponseWriter, r *Request) error {
	v := projectTokensView{Name: r.FormValue("name"), Expires: r.FormValue("expires_at"), Role: roleNamed(r.FormValue("role"))}
	n, err := newToken(r.Form)
	n.Role, n.Username = v.Role, ""
	switch {
	case err != nil:
	case r.Group != nil:
		_, v.Secret, err = s.Access.CreateGroupToken(r.Context(), r.Who, *r.Group, r.Role, n)
	default:
		_, v.Secret, err = s.Access.CreateProjectToken(r.Context(), r.Who, *r.Project, r.Role, n)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if v.Error = message; message == "" {
		v.Name, n.Scopes = "", nil
	}
	return s.showProjectTokens(w, r, status, v, n.Scopes)
}

func (s *Server) createDeployToken(w http.ResponseWriter, r *Request) error {
	v := projectTokensView{Name: r.FormValue("name"), Expires: r.FormValue("expires_at"), Username: r.FormValue("username"), Role: delivery.Developer}
	n, err := newToken(r.Form)
	if err == nil {
		var t access.Token
		groupID, projectID := placeOf(r).ids()
		t, v.Secret, err = s.Access.CreateDeployToken(r.Context(), r.Who, projectID, groupID, n)
		v.SecretUser = t.Username
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if v.DeployError = message; message == "" {
		v.Name, v.Username, n.Scopes = "", "", nil
	}
	return s.showProjectTokens(w, r, status, v, n.Scopes)
}

func (s *Server) revokeProjectToken(w http.ResponseWriter, r *Request) error {
	t, err := s.token(r)
	if err != nil {
		return err
	}
	p := placeOf(r)
	groupID, projectID := p.ids()
	if t.ProjectID != projectID || t.GroupID != groupID || t.Kind != p.accessKind() && t.Kind != delivery.DeployToken {
		return notFound()
	}
	if t.Kind != delivery.DeployToken && t.Role > r.Role {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "The token's role is above your own."}
	}
	if err := s.Access.RevokeToken(r.Context(), r.Who, t); err != nil {
		return err
	}
	return redirect(w, r, p.link("settings", "access_tokens"), "The token is revoked.")
}
