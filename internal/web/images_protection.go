package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
)

// imageProtectionRoutes registers the settings of the container registry.
func (s *Server) imageProtectionRoutes() {
	s.handleProject("GET /settings/registry", delivery.Maintainer, s.imageProtectionsPage)
	s.handleProject("POST /settings/registry/protect", delivery.Maintainer, s.protectImages)
	s.handleProject("POST /settings/registry/unprotect", delivery.Maintainer, s.unprotectImages)
}

// imageProtectionsView shows the protection rules, and the form with what was
// typed where it has to be corrected.
type imageProtectionsView struct {
	Base, Path         string // of this page; of the project, as repositories begin
	Repositories, Tags []registry.Protection
	MayImmutable       bool
	Repository, Tag    string // patterns to correct
	Error              string
}

// LevelWords says who a level lets.
func (imageProtectionsView) LevelWords(level delivery.Role) string {
	switch {
	case level == 0:
		return "developers and above"
	case level >= registry.Administrator:
		return "administrators"
	case level >= delivery.Owner:
		return "owners"
	}
	return "maintainers and above"
}

func imageCaller(r *Request) registry.Caller {
	return registry.CallerOf(r.Who, *r.Project, r.Role)
}

func (s *Server) imageProtectionsPage(w http.ResponseWriter, r *Request) error {
	return s.showImageProtections(w, r, http.StatusOK, imageProtectionsView{})
}

func (s *Server) showImageProtections(w http.ResponseWriter, r *Request, status int, v imageProtectionsView) error {
	rules, err := s.Registry.Protections(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	for _, p := range rules {
		if p.Tags {
			v.Tags = append(v.Tags, p)
		} else {
			v.Repositories = append(v.Repositories, p)
		}
	}
	v.Base, v.Path = projectPath(r.Project.FullPath, "settings", "registry"), strings.ToLower(r.Project.FullPath)
	v.MayImmutable = imageCaller(r).Level >= delivery.Owner
	return s.render(w, r, status, "image_protections", Page{Title: "Registry settings", Active: "settings-registry", Data: v})
}

// imageProtectionOf reads the form of a rule.
func imageProtectionOf(r *Request) (registry.Protection, error) {
	p := registry.Protection{Tags: r.FormValue("kind") == "tag", Pattern: strings.TrimSpace(r.FormValue("pattern"))}
	if p.Immutable = p.Tags && r.FormValue("push") == "immutable"; p.Immutable {
		return p, nil
	}
	var err error
	if !p.Tags {
		if p.Pattern, err = registry.BelowProject(p.Pattern, *r.Project); err != nil {
			return p, err
		}
	}
	for name, level := range map[string]*delivery.Role{"push": &p.Push, "delete": &p.Delete} {
		if value := r.FormValue(name); value != "" {
			if *level, err = registry.ParseLevel(value); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

func (s *Server) protectImages(w http.ResponseWriter, r *Request) error {
	p, err := imageProtectionOf(r)
	if err == nil {
		_, err = s.Registry.Protect(r.Context(), imageCaller(r), p)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	typed := strings.TrimSpace(r.FormValue("pattern"))
	if message != "" {
		v := imageProtectionsView{Error: message}
		if v.Repository = typed; p.Tags {
			v.Repository, v.Tag = "", typed
		}
		return s.showImageProtections(w, r, status, v)
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "registry"), typed+" is protected.")
}

func (s *Server) unprotectImages(w http.ResponseWriter, r *Request) error {
	id, err := strconv.ParseInt(r.FormValue("id"), 10, 64)
	if err != nil {
		return notFound()
	}
	if err := s.Registry.Unprotect(r.Context(), imageCaller(r), id, r.FormValue("kind") == "tag"); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "registry"), "The rule is deleted.")
}
