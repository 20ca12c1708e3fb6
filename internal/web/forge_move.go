package web

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// moveRoutes registers what owners do with a project as a whole.
func (s *Server) moveRoutes() {
	s.handleProject("POST /settings/path", delivery.Owner, s.changePath)
	s.handleProject("POST /settings/transfer", delivery.Owner, s.transferProject)
	s.handleProject("POST /settings/archive", delivery.Owner, s.archiveProject(true))
	s.handleProject("POST /settings/unarchive", delivery.Owner, s.archiveProject(false))
}

const oldAddresses = " Its old address leads there, for git too, until something else takes it."

func (s *Server) changePath(w http.ResponseWriter, r *Request) error {
	path := strings.TrimSpace(r.FormValue("path"))
	p, err := s.Forge.UpdateProject(r.Context(), r.Who, *r.Project, forge.ProjectChange{Path: &path})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		return s.showStored(w, r, status, settingsView{Path: path, PathError: message})
	}
	return redirect(w, r, projectPath(p.FullPath, "settings"), "The project is now at "+p.FullPath+"."+oldAddresses)
}

func (s *Server) transferProject(w http.ResponseWriter, r *Request) error {
	to := strings.TrimSpace(r.FormValue("namespace"))
	var err error
	if to == "" {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "Choose where to move the project."}
	}
	p := *r.Project
	if err == nil {
		p, err = s.Forge.TransferProject(r.Context(), r.Who, p, 0, to)
	}
	if delivery.KindOf(err) == delivery.Forbidden {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "You may not create projects in " + to + ".", Err: err}
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		return s.showStored(w, r, status, settingsView{MoveError: message})
	}
	return redirect(w, r, projectPath(p.FullPath), "The project is now at "+p.FullPath+"."+oldAddresses)
}

func (s *Server) archiveProject(archived bool) Handler {
	notice := "The project is open for changes again."
	if archived {
		notice = "The project is archived: everybody can read it as before, nobody can change it."
	}
	return func(w http.ResponseWriter, r *Request) error {
		if _, err := s.Forge.UpdateProject(r.Context(), r.Who, *r.Project, forge.ProjectChange{Archived: &archived}); err != nil {
			return err
		}
		return redirect(w, r, projectPath(r.Project.FullPath, "settings"), notice)
	}
}
