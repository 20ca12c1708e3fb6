package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

const deploymentsOnPage = 25

func (s *Server) environmentRoutes() {
	guest, developer := delivery.Guest, delivery.Developer
	s.handleProject("GET /environments", guest, s.environmentsPage)
	s.handleProject("POST /environments", developer, s.createEnvironment)
	s.handleProject("GET /environments/{id}", guest, s.environmentPage)
	s.handleProject("POST /environments/{id}", developer, s.updateEnvironment)
	s.handleProject("POST /environments/{id}/stop", developer, s.stopEnvironment)
	s.handleProject("POST /environments/{id}/delete", developer, s.deleteEnvironment)
	s.handleProject("POST /deployments/{id}/redeploy", developer, s.redeploy)
}

// environmentsView lists the environments of a project.
type environmentsView struct {
	Project  *delivery.Project
	State    string
	Search   string
	Rows     []environmentRow
	Prev     string
	Next     string
	MayMake  bool
	Live     string
	Tiers    []string
	NewName  string
	NewError string
}

type environmentRow struct {
	pipeline.Environment
	Link     string
	Last     *deploymentRow
	Upcoming *deploymentRow
	MayStop  bool
	// Addresses are where the application is reached; empty for what does not
	// run on the platform's cluster.
	Addresses []string
}

// deploymentRow is a deployment with what was deployed and by whom.
type deploymentRow struct {
	pipeline.Deployment
	User    *delivery.User
	Title   string
	Job     string
	JobLink string
	Action  string // what the button does: Re-deploy, Roll back; empty: none
	Took    time.Duration
	Current bool
}

var tiers = []string{"production", "staging", "testing", "development", "other"}

// safeLink lets only web addresses become links.
func safeLink(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return raw
}

func (s *Server) environmentOf(r *Request) (pipeline.Environment, error) {
	if err := readable(r); err != nil {
		return pipeline.Environment{}, err
	}
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Environment{}, err
	}
	var e pipeline.Environment
	err = s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		e, err = tx.Environment(id)
		return err
	})
	if err == nil && e.ProjectID != r.Project.ID {
		return e, notFound()
	}
	return e, err
}

func environmentLink(p *delivery.Project, id int64) string {
	return projectPath(p.FullPath, "environments", strconv.FormatInt(id, 10))
}

func (s *Server) environmentsPage(w http.ResponseWriter, r *Request) error {
	return s.showEnvironments(w, r, http.StatusOK, environmentsView{})
}

func (s *Server) showEnvironments(w http.ResponseWriter, r *Request, status int, v environmentsView) error {
	if err := readable(r); err != nil {
		return err
	}
	page := pageNumber(r)
	v.Project, v.State, v.Search, v.Tiers = r.Project, r.FormValue("scope"), r.FormValue("search"), tiers
	if v.State != "stopped" {
		v.State = "available"
	}
	v.MayMake = r.Role >= delivery.Developer && r.Who.User != nil
	var list []pipeline.Environment
	last, upcoming := map[int64]pipeline.Deployment{}, map[int64]pipeline.Deployment{}
	total := 0
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if list, total, err = tx.Environments(r.Project.ID, v.Search, v.State, pipeline.Page{Limit: deploymentsOnPage, Offset: (page - 1) * deploymentsOnPage}); err != nil {
			return err
		}
		for _, e := range list {
			d, err := tx.LastDeployment(e.ID, "success")
			if err == nil {
				last[e.ID] = d
			} else if !delivery.IsNotFound(err) {
				return err
			}
			newest, _, err := tx.Deployments(r.Project.ID, e.ID, "", false, pipeline.Page{Limit: 1})
			if err != nil {
				return err
			}
			if len(newest) == 1 && newest[0].ID != last[e.ID].ID {
				upcoming[e.ID] = newest[0]
			}
		}
		return nil
	}); err != nil {
		return err
	}
	users := s.people(r.Context())
	addresses, err := s.environmentAddresses(r)
	if err != nil {
		return err
	}
	for _, e := range list {
		row := environmentRow{Addresses: addresses[e.Name], Environment: e, Link: environmentLink(r.Project, e.ID), MayStop: v.MayMake && e.State == "available"}
		row.ExternalURL = safeLink(e.ExternalURL)
		for _, one := range []struct {
			from map[int64]pipeline.Deployment
			to   **deploymentRow
		}{{last, &row.Last}, {upcoming, &row.Upcoming}} {
			if d, ok := one.from[e.ID]; ok {
				filled, err := s.deployment(r, users, d)
				if err != nil {
					return err
				}
				*one.to = &filled
			}
		}
		v.Rows = append(v.Rows, row)
	}
	v.Prev, v.Next = pagerLinks(r, page, page*deploymentsOnPage < total)
	if r.Method == http.MethodGet {
		v.Live = projectPath(r.Project.FullPath, "environments") + "?" + r.URL.RawQuery
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "ci_environments", "environments", v)
	}
	return s.render(w, r, status, "ci_environments", Page{Title: "Environments", Active: "environments", Data: v})
}

// deployment adds to a deployment what is shown of it.
func (s *Server) deployment(r *Request, users *people, d pipeline.Deployment) (deploymentRow, error) {
	row := deploymentRow{Deployment: d}
	var err error
	if row.User, err = users.find(d.UserID); err != nil {
		return row, err
	}
	err = s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		j, err := tx.Job(d.JobID)
		if err != nil {
			return err
		}
		row.Job, row.JobLink, row.Took = j.Name, jobLink(r.Project, j.ID), j.Duration(s.Pipelines.Now())
		p, err := tx.Pipeline(j.PipelineID)
		row.Title = p.Facts["CI_COMMIT_TITLE"]
		return err
	})
	if delivery.IsNotFound(err) {
		err = nil // the pipeline was deleted; the deployment is still history
	}
	return row, err
}

// environmentView is one environment with its history.
type environmentView struct {
	Project     *delivery.Project
	Environment pipeline.Environment
	Link        string
	URL         string
	Addresses   []string
	Rows        []deploymentRow
	Prev, Next  string
	MayAct      bool
	MayDelete   bool
	OnStop      string
	Tiers       []string
	Live        string
}

func (s *Server) environmentPage(w http.ResponseWriter, r *Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	page := pageNumber(r)
	v := environmentView{Project: r.Project, Environment: e, Link: environmentLink(r.Project, e.ID), URL: safeLink(e.ExternalURL), Tiers: tiers, MayAct: r.Role >= delivery.Developer && r.Who.User != nil}
	v.MayDelete = v.MayAct && e.State == "stopped"
	addresses, err := s.environmentAddresses(r)
	if err != nil {
		return err
	}
	v.Addresses = addresses[e.Name]
	var list []pipeline.Deployment
	var current pipeline.Deployment
	total := 0
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if list, total, err = tx.Deployments(r.Project.ID, e.ID, "", false, pipeline.Page{Limit: deploymentsOnPage, Offset: (page - 1) * deploymentsOnPage}); err != nil {
			return err
		}
		current, err = tx.LastDeployment(e.ID, "success")
		if delivery.IsNotFound(err) {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	v.OnStop = current.OnStop
	users := s.people(r.Context())
	for _, d := range list {
		row, err := s.deployment(r, users, d)
		if err != nil {
			return err
		}
		row.Current = d.ID == current.ID
		if v.MayAct && row.JobLink != "" && e.State != "stopping" && finalStatus(d.Status) {
			if row.Action = "Roll back"; row.Current || d.ID > current.ID {
				row.Action = "Re-deploy"
			}
		}
		v.Rows = append(v.Rows, row)
	}
	v.Prev, v.Next = pagerLinks(r, page, page*deploymentsOnPage < total)
	if page == 1 {
		v.Live = v.Link
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "ci_environment", "deployments", v)
	}
	return s.render(w, r, http.StatusOK, "ci_environment", Page{Title: e.Name, Active: "environments", Data: v})
}

func (s *Server) createEnvironment(w http.ResponseWriter, r *Request) error {
	name := strings.TrimSpace(r.FormValue("name"))
	v := environmentsView{NewName: name}
	e := pipeline.Environment{ProjectID: r.Project.ID, Name: name, Slug: gitlabci.EnvironmentSlug(name), State: "available", Tier: r.FormValue("tier"), ExternalURL: strings.TrimSpace(r.FormValue("external_url"))}
	if e.Tier == "" {
		e.Tier = gitlabci.EnvironmentTier(name)
	}
	switch {
	case name == "" || len(name) > 255:
		v.NewError = "An environment needs a name of at most 255 characters."
	case e.ExternalURL != "" && safeLink(e.ExternalURL) == "":
		v.NewError = "The address must begin with http:// or https://."
	}
	if v.NewError == "" {
		err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.InsertEnvironment(&e) })
		if kind := delivery.KindOf(err); err != nil && (kind == delivery.Invalid || kind == delivery.Conflict) {
			v.NewError = delivery.UserMessage(err)
		} else if err != nil {
			return err
		}
	}
	if v.NewError != "" {
		return s.showEnvironments(w, r, http.StatusUnprocessableEntity, v)
	}
	return redirect(w, r, environmentLink(r.Project, e.ID), "The environment is there. Jobs deploy to it with the keyword environment.")
}

func (s *Server) updateEnvironment(w http.ResponseWriter, r *Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	e.ExternalURL, e.Description, e.Tier = strings.TrimSpace(r.FormValue("external_url")), strings.TrimSpace(r.FormValue("description")), r.FormValue("tier")
	if e.ExternalURL != "" && safeLink(e.ExternalURL) == "" {
		return delivery.Errorf(delivery.Invalid, "The address must begin with http:// or https://.")
	}
	if err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.UpdateEnvironment(&e) }); err != nil {
		return err
	}
	return redirect(w, r, environmentLink(r.Project, e.ID), "The environment is changed.")
}

func (s *Server) stopEnvironment(w http.ResponseWriter, r *Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	if err := s.mayStop(r, &e); err != nil {
		return err
	}
	if e, err = s.Pipelines.StopEnvironment(r.Context(), r.Who.User.ID, e.ID, r.FormValue("force") != ""); err != nil {
		return err
	}
	notice := "The environment is stopped."
	if e.State == "stopping" {
		notice = "The job that stops the environment has been started."
	}
	return redirect(w, r, environmentLink(r.Project, e.ID), notice)
}

// mayStop checks that the caller may run the job that stops the environment,
// which runs in the pipeline of the last deployment.
func (s *Server) mayStop(r *Request, e *pipeline.Environment) error {
	var p pipeline.Pipeline
	err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		d, err := tx.LastDeployment(e.ID, "success")
		if err != nil {
			return err
		}
		j, err := tx.Job(d.JobID)
		if err != nil {
			return err
		}
		p, err = tx.Pipeline(j.PipelineID)
		return err
	})
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.requireAct(r, &p)
}

func (s *Server) deleteEnvironment(w http.ResponseWriter, r *Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	if e.State != "stopped" {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Only a stopped environment can be deleted.", Next: "Stop it first."}
	}
	if err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteEnvironment(e.ID) }); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "environments")+"?scope=stopped", "The environment is deleted.")
}

func (s *Server) redeploy(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	var p pipeline.Pipeline
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		d, err := tx.Deployment(id)
		if err != nil {
			return err
		}
		if d.ProjectID != r.Project.ID {
			return notFound()
		}
		j, err := tx.Job(d.JobID)
		if err != nil {
			return err
		}
		p, err = tx.Pipeline(j.PipelineID)
		return err
	}); err != nil {
		return err
	}
	if err := s.requireAct(r, &p); err != nil {
		return err
	}
	j, err := s.Pipelines.Redeploy(r.Context(), r.Who.User.ID, id)
	if err != nil {
		return err
	}
	return redirect(w, r, jobLink(r.Project, j.ID), "The deployment runs again.")
}
