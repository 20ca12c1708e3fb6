package rest

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

func (s *server) environments(rt *api.Router) {
	base := "/projects/{project}/environments"
	rt.Handle("GET "+base, guest, s.listEnvironments)
	rt.Handle("POST "+base, developer, s.createEnvironment)
	rt.Handle("GET "+base+"/{id}", guest, s.getEnvironment)
	rt.Handle("PUT "+base+"/{id}", developer, s.updateEnvironment)
	rt.Handle("DELETE "+base+"/{id}", developer, s.deleteEnvironment)
	rt.Handle("POST "+base+"/{id}/stop", developer, s.stopEnvironment)
	rt.Handle("GET /projects/{project}/deployments", guest, s.listDeployments)
	rt.Handle("GET /projects/{project}/deployments/{id}", guest, s.getDeployment)
	rt.Handle("GET /projects/{project}/resource_groups", guest, s.resourceGroups)
	rt.Handle("GET /projects/{project}/resource_groups/{key}", guest, s.resourceGroup)
	rt.Handle("PUT /projects/{project}/resource_groups/{key}", developer, s.resourceGroup)
	rt.Handle("GET /projects/{project}/resource_groups/{key}/upcoming_jobs", guest, s.upcomingJobs)
}

func (s *server) environmentOf(r *api.Request) (pipeline.Environment, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Environment{}, err
	}
	var e pipeline.Environment
	err = s.View(r.Context(), func(tx pipeline.Tx) error {
		e, err = tx.Environment(id)
		return err
	})
	if err == nil && e.ProjectID != r.Project.ID {
		return e, missing("Environment")
	}
	return e, err
}

func environmentShape(e *pipeline.Environment) object {
	return object{"id": e.ID, "name": e.Name, "slug": e.Slug, "state": e.State, "tier": e.Tier, "external_url": text(e.ExternalURL), "description": text(e.Description),
		"created_at": when(e.CreatedAt), "updated_at": when(e.UpdatedAt), "auto_stop_at": when(e.AutoStopAt)}
}

func (s *server) writeEnvironment(w http.ResponseWriter, r *api.Request, status int, e *pipeline.Environment) error {
	o := environmentShape(e)
	o["last_deployment"] = nil
	var d pipeline.Deployment
	err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		d, err = tx.LastDeployment(e.ID, "success")
		return err
	})
	if err == nil {
		if o["last_deployment"], err = s.deploymentShape(r, &d, nil); err != nil {
			return err
		}
	} else if !delivery.IsNotFound(err) {
		return err
	}
	return api.WriteJSON(w, status, o)
}

func (s *server) listEnvironments(w http.ResponseWriter, r *api.Request) error {
	var q struct {
		Name   string `json:"name"`
		Search string `json:"search"`
		States string `json:"states"`
	}
	if err := api.Decode(r, &q); err != nil {
		return err
	}
	pg := api.PageOf(r.Request)
	var list []pipeline.Environment
	var total int
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		if q.Name != "" {
			e, err := tx.EnvironmentByName(r.Project.ID, q.Name)
			if err == nil {
				list, total = []pipeline.Environment{e}, 1
			} else if !delivery.IsNotFound(err) {
				return err
			}
			return nil
		}
		var err error
		list, total, err = tx.Environments(r.Project.ID, q.Search, q.States, page(pg))
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range list {
		out = append(out, environmentShape(&list[i]))
	}
	return api.List(w, r, pg, total, out)
}

type environmentInput struct {
	Name        *string `json:"name"`
	ExternalURL *string `json:"external_url"`
	Tier        *string `json:"tier"`
	Description *string `json:"description"`
}

func (s *server) createEnvironment(w http.ResponseWriter, r *api.Request) error {
	var in environmentInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if in.Name == nil || *in.Name == "" {
		return delivery.Errorf(delivery.Invalid, "name is missing")
	}
	e := pipeline.Environment{ProjectID: r.Project.ID, Name: *in.Name, Slug: gitlabci.EnvironmentSlug(*in.Name), State: "available", Tier: gitlabci.EnvironmentTier(*in.Name)}
	set(&e.ExternalURL, in.ExternalURL)
	set(&e.Tier, in.Tier)
	set(&e.Description, in.Description)
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.InsertEnvironment(&e) }); err != nil {
		return err
	}
	return s.writeEnvironment(w, r, http.StatusCreated, &e)
}

func (s *server) getEnvironment(w http.ResponseWriter, r *api.Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	return s.writeEnvironment(w, r, http.StatusOK, &e)
}

func (s *server) updateEnvironment(w http.ResponseWriter, r *api.Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	var in environmentInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	set(&e.ExternalURL, in.ExternalURL)
	set(&e.Tier, in.Tier)
	set(&e.Description, in.Description)
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.UpdateEnvironment(&e) }); err != nil {
		return err
	}
	return s.writeEnvironment(w, r, http.StatusOK, &e)
}

func (s *server) deleteEnvironment(w http.ResponseWriter, r *api.Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	if e.State != "stopped" {
		return delivery.Errorf(delivery.Forbidden, "The environment must be stopped before it is deleted.")
	}
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteEnvironment(e.ID) }); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) stopEnvironment(w http.ResponseWriter, r *api.Request) error {
	e, err := s.environmentOf(r)
	if err != nil {
		return err
	}
	var in struct {
		Force bool `json:"force"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if e, err = s.StopEnvironment(r.Context(), userID(r), e.ID, in.Force); err != nil {
		return err
	}
	return s.writeEnvironment(w, r, http.StatusOK, &e)
}

// deploymentShape is the JSON form of a deployment; env may be nil.
func (s *server) deploymentShape(r *api.Request, d *pipeline.Deployment, env *pipeline.Environment) (object, error) {
	user, err := s.user(r.Context(), d.UserID)
	if err != nil {
		return nil, err
	}
	o := object{"id": d.ID, "iid": d.IID, "ref": d.Ref, "sha": d.SHA, "status": d.Status, "created_at": when(d.CreatedAt), "updated_at": when(d.UpdatedAt), "user": user}
	if env != nil {
		o["environment"] = environmentShape(env)
	}
	var j pipeline.Job
	err = s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		j, err = tx.Job(d.JobID)
		return err
	})
	if delivery.IsNotFound(err) {
		o["deployable"] = nil
		return o, nil
	}
	if err != nil {
		return nil, err
	}
	jobs, err := s.shapes(r, []pipeline.Job{j})
	if err != nil {
		return nil, err
	}
	o["deployable"] = jobs[0]
	return o, nil
}

func (s *server) listDeployments(w http.ResponseWriter, r *api.Request) error {
	var q struct {
		Environment string `json:"environment"`
		Status      string `json:"status"`
		Sort        string `json:"sort"`
	}
	if err := api.Decode(r, &q); err != nil {
		return err
	}
	pg := api.PageOf(r.Request)
	var list []pipeline.Deployment
	var total int
	envs := map[int64]*pipeline.Environment{}
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var only int64
		if q.Environment != "" {
			e, err := tx.EnvironmentByName(r.Project.ID, q.Environment)
			if err != nil {
				return err
			}
			only = e.ID
		}
		var err error
		if list, total, err = tx.Deployments(r.Project.ID, only, q.Status, q.Sort != "desc", page(pg)); err != nil {
			return err
		}
		for i := range list {
			if envs[list[i].EnvironmentID] == nil {
				e, err := tx.Environment(list[i].EnvironmentID)
				if err != nil {
					return err
				}
				envs[e.ID] = &e
			}
		}
		return nil
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range list {
		o, err := s.deploymentShape(r, &list[i], envs[list[i].EnvironmentID])
		if err != nil {
			return err
		}
		out = append(out, o)
	}
	return api.List(w, r, pg, total, out)
}

func (s *server) getDeployment(w http.ResponseWriter, r *api.Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	var d pipeline.Deployment
	var e pipeline.Environment
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		if d, err = tx.Deployment(id); err != nil {
			return err
		}
		e, err = tx.Environment(d.EnvironmentID)
		return err
	}); err != nil {
		return err
	}
	if d.ProjectID != r.Project.ID {
		return missing("Deployment")
	}
	o, err := s.deploymentShape(r, &d, &e)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, o)
}

func (s *server) resourceGroups(w http.ResponseWriter, r *api.Request) error {
	var groups map[string]string
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		groups, err = tx.ResourceGroups(r.Project.ID)
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for key, mode := range groups {
		out = append(out, object{"key": key, "process_mode": mode})
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func (s *server) resourceGroup(w http.ResponseWriter, r *api.Request) error {
	key := r.PathValue("key")
	var in struct {
		Mode string `json:"process_mode"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if r.Method == http.MethodPut && in.Mode != "" {
		if err := s.SetResourceMode(r.Context(), r.Project.ID, key, in.Mode); err != nil {
			return err
		}
	}
	mode := ""
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if mode, err = tx.ResourceMode(r.Project.ID, key); err == nil && mode == "" {
			err = missing("Resource Group")
		}
		return err
	}); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, object{"key": key, "process_mode": mode})
}

func (s *server) upcomingJobs(w http.ResponseWriter, r *api.Request) error {
	var jobs []pipeline.Job
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		jobs, err = pipeline.UpcomingJobs(tx, r.Project.ID, r.PathValue("key"))
		return err
	}); err != nil {
		return err
	}
	out, err := s.shapes(r, jobs)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, out)
}
