package rest

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *server) runners(rt *api.Router) {
	rt.Handle("GET /runners", api.Need{}, s.ownRunners)
	rt.Handle("GET /runners/all", admin, s.allRunners)
	rt.Handle("GET /runners/{runner}", api.Need{}, s.getRunner)
	rt.Handle("PUT /runners/{runner}", api.Need{}, s.updateRunner)
	rt.Handle("DELETE /runners/{runner}", api.Need{}, s.deleteRunner)
	rt.Handle("GET /runners/{runner}/jobs", api.Need{}, s.runnerJobs)
	rt.Handle("GET /runners/{runner}/managers", api.Need{}, s.runnerManagers)
	rt.Handle("POST /runners/{runner}/reset_authentication_token", api.Need{}, s.resetRunner)
	rt.Handle("POST /user/runners", api.Need{Scopes: []string{"create_runner"}}, s.createRunner)
	rt.Handle("GET /projects/{project}/runners", maintainer, s.projectRunners)
	rt.Handle("POST /projects/{project}/runners", maintainer, s.enableRunner)
	rt.Handle("DELETE /projects/{project}/runners/{runner}", maintainer, s.disableRunner)
	if s.groups != nil {
		rt.Handle("GET /groups/{group}/runners", api.Need{}, s.groupRunners)
	}
}

func (s *server) runnerShape(r *pipeline.Runner) object {
	status := r.Status(s.Now())
	return object{"id": r.ID, "description": r.Description, "paused": r.Paused, "active": !r.Paused, "is_shared": r.Kind == pipeline.InstanceRunner,
		"runner_type": r.Kind, "name": nil, "online": status == "online", "status": status, "ip_address": "", "created_at": when(r.CreatedAt),
		"created_by": nil, "job_execution_status": "idle", "tag_list": append([]string{}, r.Tags...)}
}

// runnerOf finds the runner of the path and checks that the caller may manage
// it: administrators all, maintainers those of their projects, owners those of
// their groups.
func (s *server) runnerOf(r *api.Request) (pipeline.Runner, error) {
	id, err := number(r, "runner")
	if err != nil {
		return pipeline.Runner{}, err
	}
	var found pipeline.Runner
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		found, err = tx.Runner(id)
		return err
	}); err != nil {
		return found, err
	}
	ok, err := s.mayManage(r, &found)
	if err == nil && !ok {
		err = delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	return found, err
}

func (s *server) mayManage(r *api.Request, runner *pipeline.Runner) (bool, error) {
	if r.Who.User != nil && r.Who.User.Admin {
		return true, nil
	}
	if runner.Kind == pipeline.GroupRunner && s.groups != nil {
		_, role, err := s.groups.VisibleGroup(r.Context(), r.Who, itoa(runner.OwnerID))
		if delivery.IsNotFound(err) {
			return false, nil
		}
		return role >= delivery.Owner, err
	}
	for _, p := range runner.Projects {
		role, err := s.ProjectsPort().RoleIn(r.Context(), userID(r), p)
		if err != nil || role >= delivery.Maintainer {
			return err == nil, err
		}
	}
	return false, nil
}

// list writes the runners that keep selects, filtered by the query.
func (s *server) list(w http.ResponseWriter, r *api.Request, keep func(*pipeline.Runner) (bool, error)) error {
	var q struct {
		Type    string   `json:"type"`
		Status  string   `json:"status"`
		Paused  *bool    `json:"paused"`
		TagList []string `json:"tag_list"`
	}
	if err := api.Decode(r, &q); err != nil {
		return err
	}
	var all []pipeline.Runner
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		all, err = tx.Runners()
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range all {
		ok, err := keep(&all[i])
		if err != nil {
			return err
		}
		ok = ok && (q.Type == "" || q.Type == all[i].Kind) && (q.Status == "" || q.Status == all[i].Status(s.Now())) && (q.Paused == nil || *q.Paused == all[i].Paused)
		for _, t := range q.TagList {
			ok = ok && strings.Contains(","+strings.Join(all[i].Tags, ",")+",", ","+t+",")
		}
		if ok {
			out = append(out, s.runnerShape(&all[i]))
		}
	}
	pg := api.PageOf(r.Request)
	from := min(pg.Offset(), len(out))
	return api.List(w, r, pg, len(out), out[from:min(len(out), from+pg.PerPage)])
}

func (s *server) ownRunners(w http.ResponseWriter, r *api.Request) error {
	return s.list(w, r, func(x *pipeline.Runner) (bool, error) { return s.mayManage(r, x) })
}

func (s *server) allRunners(w http.ResponseWriter, r *api.Request) error {
	return s.list(w, r, func(*pipeline.Runner) (bool, error) { return true, nil })
}

func (s *server) projectRunners(w http.ResponseWriter, r *api.Request) error {
	groups, err := s.ProjectsPort().Ancestors(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	return s.list(w, r, func(x *pipeline.Runner) (bool, error) {
		if x.Kind == pipeline.InstanceRunner {
			return true, nil
		}
		for _, g := range groups {
			if x.Kind == pipeline.GroupRunner && x.OwnerID == g.ID {
				return true, nil
			}
		}
		return has(x.Projects, r.Project.ID), nil
	})
}

func has(list []int64, id int64) bool {
	for _, v := range list {
		if v == id {
			return true
		}
	}
	return false
}

func (s *server) groupRunners(w http.ResponseWriter, r *api.Request) error {
	g, err := s.group(r, delivery.Owner)
	if err != nil {
		return err
	}
	return s.list(w, r, func(x *pipeline.Runner) (bool, error) {
		return x.Kind == pipeline.InstanceRunner || x.Kind == pipeline.GroupRunner && x.OwnerID == g.ID, nil
	})
}

func (s *server) writeRunner(w http.ResponseWriter, r *api.Request, status int, x *pipeline.Runner) error {
	o := s.runnerShape(x)
	o["contacted_at"], o["maintenance_note"], o["run_untagged"], o["locked"] = when(x.ContactedAt), text(x.MaintenanceNote), x.RunUntagged, x.Locked
	o["access_level"], o["maximum_timeout"] = "not_protected", nil
	if x.RefProtected {
		o["access_level"] = "ref_protected"
	}
	if x.MaximumTimeout > 0 {
		o["maximum_timeout"] = x.MaximumTimeout
	}
	projects := []object{}
	for _, id := range x.Projects {
		p, err := s.ProjectsPort().Project(r.Context(), id)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		projects = append(projects, object{"id": p.ID, "name": p.Name, "path": p.Path, "path_with_namespace": p.FullPath, "name_with_namespace": p.FullPath})
	}
	groups := []object{}
	if x.Kind == pipeline.GroupRunner && s.groups != nil {
		if g, _, err := s.groups.VisibleGroup(r.Context(), r.Who, itoa(x.OwnerID)); err == nil {
			groups = append(groups, object{"id": g.ID, "name": g.Name, "web_url": s.ExternalURL() + "/groups/" + g.FullPath})
		} else if !delivery.IsNotFound(err) {
			return err
		}
	}
	o["projects"], o["groups"] = projects, groups
	var managers []pipeline.RunnerManager
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		managers, err = tx.Managers(x.ID)
		return err
	}); err != nil {
		return err
	}
	if n := len(managers); n > 0 {
		m := managers[n-1]
		o["version"], o["revision"], o["platform"], o["architecture"], o["name"] = m.Info.Version, m.Info.Revision, m.Info.Platform, m.Info.Architecture, text(m.Info.Name)
	}
	return api.WriteJSON(w, status, o)
}

func (s *server) getRunner(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	return s.writeRunner(w, r, http.StatusOK, &x)
}

type runnerInput struct {
	Type            string    `json:"runner_type"`
	GroupID         int64     `json:"group_id"`
	ProjectID       int64     `json:"project_id"`
	Description     *string   `json:"description"`
	Active          *bool     `json:"active"`
	Paused          *bool     `json:"paused"`
	TagList         *[]string `json:"tag_list"`
	RunUntagged     *bool     `json:"run_untagged"`
	Locked          *bool     `json:"locked"`
	AccessLevel     *string   `json:"access_level"`
	MaximumTimeout  *int      `json:"maximum_timeout"`
	MaintenanceNote *string   `json:"maintenance_note"`
}

func (s *server) updateRunner(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	var in runnerInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	x, err = s.ChangeRunner(r.Context(), x.ID, func(x *pipeline.Runner) error {
		set(&x.Description, in.Description)
		set(&x.Paused, in.Paused)
		if in.Active != nil {
			x.Paused = !*in.Active
		}
		set(&x.Tags, in.TagList)
		set(&x.RunUntagged, in.RunUntagged)
		set(&x.Locked, in.Locked)
		set(&x.MaximumTimeout, in.MaximumTimeout)
		set(&x.MaintenanceNote, in.MaintenanceNote)
		if in.AccessLevel != nil {
			x.RefProtected = *in.AccessLevel == "ref_protected"
		}
		if !x.RunUntagged && len(x.Tags) == 0 {
			message := "can not be empty when runner is not allowed to pick untagged jobs"
			return &delivery.Error{Kind: delivery.Invalid, Message: message, Fields: map[string][]string{"tags_list": {message}}}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeRunner(w, r, http.StatusOK, &x)
}

func (s *server) deleteRunner(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	if err := s.DeleteRunner(r.Context(), x.ID); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) runnerJobs(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	pg := api.PageOf(r.Request)
	var list []pipeline.Job
	var total int
	f := pipeline.JobFilter{RunnerID: x.ID, Retried: true}
	if st := r.URL.Query().Get("status"); st != "" {
		f.Statuses = []string{st}
	}
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		list, total, err = tx.Jobs(f, page(pg))
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range list {
		if r.Project, err = s.ProjectsPort().Project(r.Context(), list[i].ProjectID); err != nil {
			return err
		}
		one, err := s.shapes(r, list[i:i+1])
		if err != nil {
			return err
		}
		out = append(out, one[0])
	}
	return api.List(w, r, pg, total, out)
}

func (s *server) runnerManagers(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	var managers []pipeline.RunnerManager
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		managers, err = tx.Managers(x.ID)
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for _, m := range managers {
		probe := pipeline.Runner{ContactedAt: m.ContactedAt, CreatedAt: m.CreatedAt}
		out = append(out, object{"id": m.ID, "system_id": m.SystemID, "version": m.Info.Version, "revision": m.Info.Revision, "platform": m.Info.Platform,
			"architecture": m.Info.Architecture, "created_at": when(m.CreatedAt), "contacted_at": when(m.ContactedAt), "ip_address": m.IP, "status": probe.Status(s.Now())})
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func (s *server) resetRunner(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	token, err := s.ResetRunnerToken(r.Context(), x.ID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, object{"token": token, "token_expires_at": nil})
}

// createRunner is the first step of registering a runner: it gives the token
// that gitlab-runner register takes.
func (s *server) createRunner(w http.ResponseWriter, r *api.Request) error {
	var in runnerInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	n := pipeline.NewRunner{Kind: in.Type, RunUntagged: in.RunUntagged == nil && (in.TagList == nil || len(*in.TagList) == 0), CreatorID: userID(r)}
	set(&n.RunUntagged, in.RunUntagged)
	set(&n.Description, in.Description)
	set(&n.Paused, in.Paused)
	set(&n.Tags, in.TagList)
	set(&n.Locked, in.Locked)
	set(&n.MaximumTimeout, in.MaximumTimeout)
	set(&n.MaintenanceNote, in.MaintenanceNote)
	n.RefProtected = in.AccessLevel != nil && *in.AccessLevel == "ref_protected"
	if err := s.mayCreate(r, &n, &in); err != nil {
		return err
	}
	x, token, err := s.CreateRunner(r.Context(), n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, object{"id": x.ID, "token": token, "token_expires_at": nil})
}

func (s *server) mayCreate(r *api.Request, n *pipeline.NewRunner, in *runnerInput) error {
	forbidden := delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	isAdmin := r.Who.User != nil && r.Who.User.Admin
	switch n.Kind {
	case pipeline.InstanceRunner:
		if !isAdmin {
			return forbidden
		}
	case pipeline.GroupRunner:
		if s.groups == nil {
			return missing("Group")
		}
		g, role, err := s.groups.VisibleGroup(r.Context(), r.Who, itoa(in.GroupID))
		if err != nil {
			return err
		}
		if role < delivery.Owner {
			return forbidden
		}
		n.OwnerID = g.ID
	case pipeline.ProjectRunner:
		role, err := s.ProjectsPort().RoleIn(r.Context(), userID(r), in.ProjectID)
		if err != nil {
			return err
		}
		if role < delivery.Maintainer {
			return forbidden
		}
		n.OwnerID = in.ProjectID
	}
	return nil
}

func (s *server) enableRunner(w http.ResponseWriter, r *api.Request) error {
	var in struct {
		ID int64 `json:"runner_id"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	r.SetPathValue("runner", itoa(in.ID))
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	if x.Kind != pipeline.ProjectRunner || x.Locked {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden - Runner is locked or not a project runner")
	}
	x, err = s.ChangeRunner(r.Context(), x.ID, func(x *pipeline.Runner) error {
		if !has(x.Projects, r.Project.ID) {
			x.Projects = append(x.Projects, r.Project.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeRunner(w, r, http.StatusCreated, &x)
}

func (s *server) disableRunner(w http.ResponseWriter, r *api.Request) error {
	x, err := s.runnerOf(r)
	if err != nil {
		return err
	}
	if !has(x.Projects, r.Project.ID) {
		return missing("Runner")
	}
	if len(x.Projects) == 1 {
		return delivery.Errorf(delivery.Forbidden, "Only one project associated with the runner. Please remove the runner instead")
	}
	_, err = s.ChangeRunner(r.Context(), x.ID, func(x *pipeline.Runner) error {
		rest := x.Projects[:0]
		for _, p := range x.Projects {
			if p != r.Project.ID {
				rest = append(rest, p)
			}
		}
		x.Projects = rest
		return nil
	})
	if err != nil {
		return err
	}
	return noContent(w)
}
