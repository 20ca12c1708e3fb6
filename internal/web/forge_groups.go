package web

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *Server) groupRoutes() {
	owner := delivery.Owner
	s.handle("GET /dashboard/groups", s.ownGroups)
	s.handle("GET /explore/groups", s.exploreGroups)
	s.handleOwn("GET /groups/new", s.newGroupPage)
	s.handleOwn("POST /groups", s.createGroup)
	s.handleGroup("GET /{$}", 0, s.groupPage)
	s.handleGroup("GET /edit", owner, s.groupSettingsPage)
	s.handleGroup("POST /edit", owner, s.updateGroup)
	s.handleGroup("POST /edit/path", owner, s.moveGroup)
	s.handleGroup("POST /edit/delete", owner, s.deleteGroup)
}

// groupsView is a list of groups.
type groupsView struct {
	Heading       string
	Groups        []delivery.Group
	Search        string
	Prev, Next    string
	MayNew, Yours bool
}

const groupsOnPage = 50

func (s *Server) ownGroups(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return redirect(w, r, "/explore/groups", "")
	}
	return s.showGroups(w, r, "Your groups", access.GroupFilter{MinRole: delivery.MinimalAccess})
}

func (s *Server) exploreGroups(w http.ResponseWriter, r *Request) error {
	return s.showGroups(w, r, "Groups", access.GroupFilter{})
}

func (s *Server) showGroups(w http.ResponseWriter, r *Request, heading string, f access.GroupFilter) error {
	page := pageNumber(r)
	f = s.groupsFor(r, f)
	f.Search = r.URL.Query().Get("search")
	list, total, err := s.Access.Groups(r.Context(), f, groupsOnPage, (page-1)*groupsOnPage)
	if err != nil {
		return err
	}
	v := groupsView{Heading: heading, Groups: list, Search: f.Search, MayNew: r.Who.User != nil, Yours: f.MinRole > 0}
	v.Prev, v.Next = pagerLinks(r, page, page*groupsOnPage < total)
	return s.render(w, r, http.StatusOK, "forge_groups", Page{Title: heading, Data: v})
}

// groupsFor narrows a filter to what the caller may see.
func (s *Server) groupsFor(r *Request, f access.GroupFilter) access.GroupFilter {
	if r.Who.User != nil && r.Who.Kind != delivery.ProjectToken {
		f.Viewer, f.All, f.External = r.Who.User.ID, r.Who.User.Admin, r.Who.Kind == delivery.GroupToken
	}
	return f
}

// groupView is the front page of a group.
type groupView struct {
	Subgroups           []delivery.Group
	Projects            []delivery.Project
	Search              string
	Prev, Next          string
	MayProject, MayNest bool
	Parents             []crumb
	Members             int
}

func (s *Server) groupPage(w http.ResponseWriter, r *Request) error {
	ctx, g, page := r.Context(), r.Group, pageNumber(r)
	v := groupView{Search: r.URL.Query().Get("search"), MayProject: r.Role >= delivery.Developer && r.Who.User != nil, MayNest: r.Role >= delivery.Maintainer && r.Who.User != nil}
	v.Parents = groupCrumbs(g.FullPath)
	var err error
	if v.Search == "" && page == 1 {
		if v.Subgroups, _, err = s.Access.Groups(ctx, s.groupsFor(r, access.GroupFilter{ParentID: g.ID}), listed, 0); err != nil {
			return err
		}
	}
	f := forge.FilterFor(r.Who)
	f.GroupID, f.Search, f.Subgroups = g.ID, v.Search, v.Search != ""
	list, total, err := s.Forge.Projects(ctx, f, projectsOnPage, (page-1)*projectsOnPage)
	if err != nil {
		return err
	}
	v.Projects = list
	v.Prev, v.Next = pagerLinks(r, page, page*projectsOnPage < total)
	if _, v.Members, err = s.Access.Members(ctx, g.ID, 0, true, "", 1, 0); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "forge_group", Page{Title: g.Name, Active: "overview", Data: v})
}

// groupCrumbs are links to the groups that a group lies in.
func groupCrumbs(full string) []crumb {
	var out []crumb
	parts := strings.Split(full, "/")
	for i := range parts[:len(parts)-1] {
		out = append(out, crumb{parts[i], groupPath(strings.Join(parts[:i+1], "/"))})
	}
	return out
}

// newGroupView is the form for a group.
type newGroupView struct {
	Parent                              *delivery.Group
	Path, Name, Description, Visibility string
	Error                               string
}

// parentGroup finds the group that a new one shall lie in, by its full path.
func (s *Server) parentGroup(r *Request) (*delivery.Group, error) {
	path := strings.Trim(r.FormValue("parent"), "/")
	if path == "" {
		return nil, nil
	}
	g, role, err := s.Access.VisibleGroupByPath(r.Context(), r.Who, path)
	if err != nil {
		return nil, err
	}
	if role < delivery.Maintainer {
		return nil, &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role maintainer in " + g.FullPath + "."}
	}
	return &g, nil
}

func (s *Server) newGroupPage(w http.ResponseWriter, r *Request) error {
	parent, err := s.parentGroup(r)
	if err != nil {
		return err
	}
	v := newGroupView{Parent: parent, Visibility: string(delivery.Private)}
	if parent != nil {
		v.Visibility = string(parent.Visibility)
	}
	return s.showNewGroup(w, r, http.StatusOK, v)
}

func (s *Server) showNewGroup(w http.ResponseWriter, r *Request, status int, v newGroupView) error {
	title := "New group"
	if v.Parent != nil {
		title = "New subgroup"
	}
	return s.render(w, r, status, "forge_newgroup", Page{Title: title, Data: v})
}

func (s *Server) createGroup(w http.ResponseWriter, r *Request) error {
	parent, err := s.parentGroup(r)
	if err != nil {
		return err
	}
	v := newGroupView{Parent: parent, Path: strings.TrimSpace(r.FormValue("path")), Name: r.FormValue("name"), Description: r.FormValue("description"), Visibility: r.FormValue("visibility")}
	n := access.NewGroup{Path: v.Path, Name: v.Name, Description: v.Description, Visibility: delivery.Visibility(v.Visibility)}
	if parent != nil {
		n.ParentID = parent.ID
	}
	g, err := s.Access.CreateGroup(r.Context(), r.Who, n)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showNewGroup(w, r, status, v)
	}
	return redirect(w, r, groupPath(g.FullPath), "The group is there. Add people and projects to it.")
}

// groupSettingsView are the forms of a group's settings.
type groupSettingsView struct {
	Name, Description, Visibility string
	Path, Parent                  string
	Error, PathError, DeleteError string
	Projects                      int
	Avatar                        bool
}

func (s *Server) groupSettingsPage(w http.ResponseWriter, r *Request) error {
	return s.showGroupSettings(w, r, http.StatusOK, groupSettingsView{})
}

func (s *Server) showGroupSettings(w http.ResponseWriter, r *Request, status int, v groupSettingsView) error {
	g := r.Group
	if v.Name == "" && v.Error == "" {
		v.Name, v.Description, v.Visibility = g.Name, g.Description, string(g.Visibility)
	}
	if v.Path == "" {
		v.Path = g.Path
	}
	v.Parent = strings.TrimSuffix(g.FullPath, g.Path)
	var err error
	if _, v.Projects, err = s.Forge.Projects(r.Context(), forge.ProjectFilter{All: true, GroupID: g.ID, Subgroups: true}, 1, 0); err != nil {
		return err
	}
	return s.render(w, r, status, "forge_groupsettings", Page{Title: "Settings", Active: "settings", Data: v})
}

func (s *Server) updateGroup(w http.ResponseWriter, r *Request) error {
	v := groupSettingsView{Name: r.FormValue("name"), Description: r.FormValue("description"), Visibility: r.FormValue("visibility")}
	visibility := delivery.Visibility(v.Visibility)
	_, err := s.Access.UpdateGroup(r.Context(), r.Who, *r.Group, access.GroupChange{Name: &v.Name, Description: &v.Description, Visibility: &visibility})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showGroupSettings(w, r, status, v)
	}
	return redirect(w, r, groupPath(r.Group.FullPath, "edit"), "The settings are stored.")
}

// moveGroup changes the last part of the group's address.
func (s *Server) moveGroup(w http.ResponseWriter, r *Request) error {
	v := groupSettingsView{Path: strings.TrimSpace(r.FormValue("path"))}
	g, err := s.Access.UpdateGroup(r.Context(), r.Who, *r.Group, access.GroupChange{Path: &v.Path})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.PathError = message
		return s.showGroupSettings(w, r, status, v)
	}
	return redirect(w, r, groupPath(g.FullPath, "edit"), "The group is now at "+g.FullPath+". The old addresses of its projects lead to the new ones.")
}

func (s *Server) deleteGroup(w http.ResponseWriter, r *Request) error {
	g := r.Group
	if r.FormValue("confirm") != g.FullPath {
		return s.showGroupSettings(w, r, http.StatusUnprocessableEntity, groupSettingsView{DeleteError: "Type " + g.FullPath + " to delete the group. Nothing was deleted."})
	}
	err := s.Access.DeleteGroup(r.Context(), r.Who, *g)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		return s.showGroupSettings(w, r, status, groupSettingsView{DeleteError: message})
	}
	return redirect(w, r, "/dashboard/groups", g.FullPath+" is deleted.")
}
