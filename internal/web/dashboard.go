package web

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const projectsOnPage = 30

func (s *Server) dashboardRoutes() {
	s.handle("GET /{$}", s.dashboard)
	s.handle("GET /explore/projects", s.explore)
	s.handle("GET /dashboard", s.dashboard)
	s.handle("GET /projects/new", s.newProjectForm)
	s.handle("POST /projects", s.createProject)
}

// projectsView is a list of projects.
type projectsView struct {
	Heading    string
	Projects   []delivery.Project
	Total      int
	Search     string
	Prev, Next string
	MayCreate  bool
	Foreign    bool // another person's
	Group      *delivery.Group
}

func (s *Server) dashboard(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return redirect(w, r, "/explore/projects", "")
	}
	return s.projectList(w, r, "Projects", forge.FilterFor(r.Who), false)
}

func (s *Server) explore(w http.ResponseWriter, r *Request) error {
	return s.projectList(w, r, "Explore projects", forge.FilterFor(r.Who), false)
}

func (s *Server) projectList(w http.ResponseWriter, r *Request, heading string, f forge.ProjectFilter, foreign bool) error {
	page := pageNumber(r)
	f.Search = r.FormValue("search")
	list, total, err := s.Forge.Projects(r.Context(), f, projectsOnPage, (page-1)*projectsOnPage)
	if err != nil {
		return err
	}
	v := projectsView{Heading: heading, Projects: list, Total: total, Search: f.Search, MayCreate: r.Who.User != nil, Foreign: foreign}
	v.Prev, v.Next = pagerLinks(r, page, page*projectsOnPage < total)
	return s.render(w, r, http.StatusOK, "projects", Page{Title: heading, Data: v})
}

// newProjectView is the form for a project.
type newProjectView struct {
	Namespaces                   []delivery.Namespace
	Namespace, Path, Name, Error string
	Description, Visibility      string
	Readme                       bool
}

func (s *Server) newProjectForm(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	return s.showNewProject(w, r, http.StatusOK, newProjectView{Visibility: "private", Namespace: r.FormValue("namespace")})
}

func (s *Server) showNewProject(w http.ResponseWriter, r *Request, status int, v newProjectView) error {
	var err error
	if v.Namespaces, _, err = s.Access.Namespaces(r.Context(), r.Who, "", 200, 0); err != nil {
		return err
	}
	return s.render(w, r, status, "newproject", Page{Title: "New project", Data: v})
}

func (s *Server) createProject(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	v := newProjectView{Namespace: r.FormValue("namespace"), Path: r.FormValue("path"), Name: r.FormValue("name"),
		Description: r.FormValue("description"), Visibility: r.FormValue("visibility"), Readme: r.FormValue("readme") != ""}
	p, err := s.Forge.CreateProject(r.Context(), r.Who, forge.NewProject{
		NamespacePath: v.Namespace, Path: v.Path, Name: v.Name, Description: v.Description,
		Visibility: delivery.Visibility(v.Visibility), Readme: v.Readme,
	})
	if err != nil {
		if kind := delivery.KindOf(err); kind == delivery.Invalid || kind == delivery.Conflict {
			v.Error = delivery.UserMessage(err)
			return s.showNewProject(w, r, http.StatusUnprocessableEntity, v)
		}
		return err
	}
	r.Project, r.Role = &p, delivery.Owner
	if s.mayStart(r) {
		return redirect(w, r, projectPath(p.FullPath, "start"), "The project is there.")
	}
	return redirect(w, r, projectPath(p.FullPath), "The project is there. Push to it, or add files here.")
}

// namespacePage shows a group or a user, whose path has no /-/ part.
func (s *Server) namespacePage(w http.ResponseWriter, r *Request, full string) error {
	g, role, err := s.Access.VisibleGroupByPath(r.Context(), r.Who, full)
	if err == nil {
		r.Group, r.Role = &g, role
		return s.groupPage(w, r)
	}
	if !delivery.IsNotFound(err) {
		return err
	}
	u, err := s.Access.UserByName(r.Context(), full)
	if err != nil {
		if !r.Who.Signed() && delivery.IsNotFound(err) {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		return err
	}
	f := forge.FilterFor(r.Who)
	f.OwnerID = u.ID
	return s.projectList(w, r, u.Name, f, r.Who.User == nil || r.Who.User.ID != u.ID)
}
