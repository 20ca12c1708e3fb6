package web

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *Server) forkRoutes() {
	s.handleProject("GET /forks", delivery.Guest, s.forksPage)
	s.handleProject("GET /forks/new", delivery.Guest, s.newForkPage)
	s.handleProject("POST /forks", delivery.Guest, s.createFork)
}

// parentOf is what a project was forked from, nil where there is nothing or the
// caller may not see it.
func (s *Server) parentOf(r *Request) (*delivery.Project, error) {
	if r.Project.ForkedFromID == 0 {
		return nil, nil
	}
	p, _, err := s.Access.VisibleProject(r.Context(), r.Who, strconv.FormatInt(r.Project.ForkedFromID, 10))
	if delivery.IsNotFound(err) || delivery.KindOf(err) == delivery.Unauthenticated && err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// forksView lists the forks that the caller may see.
type forksView struct {
	Forks      []delivery.Project
	Total      int
	Prev, Next string
}

func (s *Server) forksPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	f := forge.FilterFor(r.Who)
	f.ForkedFrom = r.Project.ID
	page := pageNumber(r)
	list, total, err := s.Forge.Projects(r.Context(), f, projectsOnPage, (page-1)*projectsOnPage)
	if err != nil {
		return err
	}
	v := forksView{Forks: list, Total: total}
	v.Prev, v.Next = pagerLinks(r, page, page*projectsOnPage < total)
	return s.render(w, r, http.StatusOK, "forge_forks", Page{Title: "Forks", Active: "overview", Data: v})
}

// newForkView is the form of a fork.
type newForkView struct {
	Namespaces              []delivery.Namespace
	Namespace, Path, Name   string
	Description, Visibility string
	Own                     []delivery.Project // the caller's forks
	Error                   string
}

func (s *Server) newForkPage(w http.ResponseWriter, r *Request) error {
	p := r.Project
	v := newForkView{Path: p.Path, Name: p.Name, Description: p.Description, Visibility: string(p.Visibility)}
	if r.Who.User != nil {
		v.Namespace = r.Who.User.Username
	}
	return s.showNewFork(w, r, http.StatusOK, v)
}

func (s *Server) showNewFork(w http.ResponseWriter, r *Request, status int, v newForkView) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if err := readable(r); err != nil {
		return err
	}
	var err error
	if v.Namespaces, _, err = s.Access.Namespaces(r.Context(), r.Who, "", 200, 0); err != nil {
		return err
	}
	f := forge.FilterFor(r.Who)
	f.ForkedFrom, f.MinRole = r.Project.ID, delivery.Developer
	if v.Own, _, err = s.Forge.Projects(r.Context(), f, 10, 0); err != nil {
		return err
	}
	return s.render(w, r, status, "forge_newfork", Page{Title: "Fork", Active: "overview", Data: v})
}

func (s *Server) createFork(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if err := readable(r); err != nil {
		return err
	}
	v := newForkView{Namespace: r.FormValue("namespace"), Path: r.FormValue("path"), Name: r.FormValue("name"), Description: r.FormValue("description"), Visibility: r.FormValue("visibility")}
	p, err := s.Forge.Fork(r.Context(), r.Who, *r.Project, forge.NewProject{NamespacePath: v.Namespace, Path: v.Path, Name: v.Name, Description: v.Description, Visibility: delivery.Visibility(v.Visibility)})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showNewFork(w, r, status, v)
	}
	return redirect(w, r, projectPath(p.FullPath), "The fork is there. Push a branch to it, then ask for a merge into "+r.Project.FullPath+".")
}
