package web

import (
	"net/http"
	"net/url"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// setRow is an ApplicationSet with those of its Applications that the caller
// may see.
type setRow struct {
	*gitops.ApplicationSet
	Rows     []applicationRow
	Link     string
	Manifest string // for administrators, on its page
	Admin    bool
}

// Healthy counts the Applications that are Synced and Healthy.
func (s setRow) Healthy() int {
	n := 0
	for _, row := range s.Rows {
		if row.Sync.Status == "Synced" && row.Health.Status == "Healthy" {
			n++
		}
	}
	return n
}

// rowsAndClient are the Applications that the caller may see, and what reads
// the rest of Argo CD's objects.
func (s *Server) rowsAndClient(r *Request) ([]applicationRow, *gitops.Client, error) {
	rows, err := s.applicationRows(r)
	if err != nil {
		return nil, nil, err
	}
	client, err := s.Operations.Apps()
	return rows, client, err
}

// sets are the ApplicationSets that the caller may see: administrators all,
// others those that made an Application that they may see.
func (s *Server) sets(r *Request) ([]setRow, error) {
	rows, client, err := s.rowsAndClient(r)
	if err != nil {
		return nil, err
	}
	list, err := client.Sets(r.Context())
	if err != nil {
		return nil, err
	}
	var out []setRow
	for _, set := range list {
		one := setRow{ApplicationSet: set, Link: declaredAt(gitops.Declared{Kind: gitops.KindSet, Name: set.Name}), Admin: r.Who.User.Admin}
		for _, row := range rows {
			if slices.Contains(set.Apps, row.Name) {
				one.Rows = append(one.Rows, row)
			}
		}
		if one.Admin || len(one.Rows) > 0 {
			out = append(out, one)
		}
	}
	return out, nil
}

func (s *Server) setsPage(w http.ResponseWriter, r *Request) error {
	sets, err := s.sets(r)
	if err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "application_sets", "sets", sets)
	}
	return s.render(w, r, http.StatusOK, "application_sets", Page{Title: "ApplicationSets", Data: sets})
}

// oneSet finds the ApplicationSet of the address.
func (s *Server) oneSet(r *Request) (setRow, error) {
	sets, err := s.sets(r)
	if err != nil {
		return setRow{}, err
	}
	name := r.PathValue("set")
	for _, set := range sets {
		if set.Name == name {
			return set, nil
		}
	}
	return setRow{}, delivery.Errorf(delivery.NotFound, "There is no ApplicationSet %s.", name)
}

func (s *Server) setPage(w http.ResponseWriter, r *Request) error {
	set, err := s.oneSet(r)
	if err != nil {
		return err
	}
	if set.Admin {
		if set.Manifest, err = declaration(gitops.Declared{Kind: gitops.KindSet, Name: set.Name}, set.Spec); err != nil {
			return err
		}
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "application_set", "set", set)
	}
	return s.render(w, r, http.StatusOK, "application_set", Page{Title: set.Name, Data: set})
}

// declaration is the manifest of something there, to be changed and sent back.
func declaration(d gitops.Declared, spec map[string]any) (string, error) {
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": d.Kind, "metadata": map[string]any{"name": d.Name}, "spec": spec,
	})
	return string(text), err
}

// setAction generates anew, or deletes the set with its Applications.
func (s *Server) setAction(w http.ResponseWriter, r *Request) error {
	set, err := s.oneSet(r)
	if err != nil {
		return err
	}
	to, notice := set.Link, "The Applications are generated anew."
	switch r.PathValue("action") {
	case "refresh":
		if !set.Admin && !slices.ContainsFunc(set.Rows, func(row applicationRow) bool { return row.Act }) {
			return delivery.Errorf(delivery.Forbidden, "This needs the role %s in the project of one of its applications.", gitops.Rights.Act)
		}
		client, err := s.Operations.Apps()
		if err != nil {
			return err
		}
		if err := client.RefreshSet(r.Context(), set.Name); err != nil {
			return err
		}
	case "delete":
		if err := s.undeclare(r, gitops.Declared{Kind: gitops.KindSet, Name: set.Name}); err != nil {
			return err
		}
		to, notice = setsPath, "The ApplicationSet "+set.Name+" and its applications are being deleted."
	default:
		return notFound()
	}
	s.Access.Audit(r.Context(), r.Who, "applicationset."+r.PathValue("action"), "applicationset", 0, set.Name, "")
	return redirect(w, r, to, notice)
}

// undeclare deletes in the caller's name, once its name was typed.
func (s *Server) undeclare(r *Request, d gitops.Declared) error {
	if r.FormValue("confirm") != d.Name {
		return delivery.Errorf(delivery.Invalid, "Type the name, %s, to delete it.", d.Name)
	}
	token, err := s.Operations.Token(r.Context(), r.Who)
	if err != nil {
		return err
	}
	return s.Operations.Server.Undeclare(r.Context(), token, d)
}

// appProjectView is an AppProject with its Applications.
type appProjectView struct {
	*gitops.Project
	Link     string
	Apps     int // that the caller may see
	List     string
	Manifest string // for administrators, on its page
	Admin    bool
}

// appProjects are all AppProjects: who is signed in may know what is allowed.
func (s *Server) appProjects(r *Request) ([]appProjectView, error) {
	rows, client, err := s.rowsAndClient(r)
	if err != nil {
		return nil, err
	}
	list, err := client.Projects(r.Context())
	if err != nil {
		return nil, err
	}
	var out []appProjectView
	for _, p := range list {
		one := appProjectView{Project: p, Link: projectsPath + "/" + url.PathEscape(p.Name), List: appFilter{Project: p.Name}.Link(), Admin: r.Who.User.Admin}
		for _, row := range rows {
			if row.Application.Project == p.Name {
				one.Apps++
			}
		}
		out = append(out, one)
	}
	return out, nil
}

func (s *Server) appProjectsPage(w http.ResponseWriter, r *Request) error {
	projects, err := s.appProjects(r)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "application_projects", Page{Title: "Argo CD projects", Data: projects})
}

func (s *Server) appProjectPage(w http.ResponseWriter, r *Request) error {
	projects, err := s.appProjects(r)
	if err != nil {
		return err
	}
	for _, p := range projects {
		if p.Name != r.PathValue("project") {
			continue
		}
		if p.Admin {
			if p.Manifest, err = declaration(gitops.Declared{Kind: gitops.KindProject, Name: p.Name}, p.Spec); err != nil {
				return err
			}
		}
		return s.render(w, r, http.StatusOK, "application_project", Page{Title: p.Name, Data: p})
	}
	return delivery.Errorf(delivery.NotFound, "There is no Argo CD project %s.", r.PathValue("project"))
}

func (s *Server) deleteAppProject(w http.ResponseWriter, r *Request) error {
	if err := signedIn(r); err != nil {
		return err
	}
	name := r.PathValue("project")
	if err := s.undeclare(r, gitops.Declared{Kind: gitops.KindProject, Name: name}); err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, "appproject.delete", "appproject", 0, name, "")
	return redirect(w, r, projectsPath, "The Argo CD project "+name+" is deleted.")
}
