package web

import (
	"net/http"
	"sort"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *Server) ciSettingsRoutes() {
	m := delivery.Maintainer
	project := func(r *Request) (ciOwner, error) {
		return ciOwner{Kind: pipeline.OwnerProject, ID: r.Project.ID, Base: projectPath(r.Project.FullPath, "settings", "ci_cd"), show: s.showCISettings}, nil
	}
	s.handleProject("GET /settings/ci_cd", m, func(w http.ResponseWriter, r *Request) error {
		return s.showCISettings(w, r, http.StatusOK, ciSettingsView{})
	})
	for pattern, h := range s.ownerHandlers(project) {
		s.handleProject("POST /settings/ci_cd/"+pattern, m, h)
	}
	s.handleProject("POST /settings/ci_cd/general", m, s.updateCIGeneral)
	s.handleProject("POST /settings/ci_cd/resource_groups", m, s.updateResourceGroup)
	s.handleProject("POST /settings/ci_cd/triggers", m, s.createTrigger)
	s.handleProject("POST /settings/ci_cd/triggers/{id}/delete", m, s.deleteTrigger)
	s.handleProject("POST /settings/ci_cd/token_access", m, s.allowProject)
	s.handleProject("POST /settings/ci_cd/token_access/{id}/delete", m, s.disallowProject)

	instance := func(r *Request) (ciOwner, error) {
		if r.Who.User == nil {
			return ciOwner{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		if !r.Who.User.Admin {
			return ciOwner{}, notFound()
		}
		return ciOwner{Kind: pipeline.OwnerInstance, Base: "/admin/ci_cd", show: s.showAdminCI}, nil
	}
	page := func(w http.ResponseWriter, r *Request) error {
		if _, err := instance(r); err != nil {
			return err
		}
		return s.showAdminCI(w, r, http.StatusOK, ciSettingsView{})
	}
	s.handle("GET /admin/ci_cd", page)
	s.handle("GET /admin/runners", page)
	for pattern, h := range s.ownerHandlers(instance) {
		s.handle("POST /admin/ci_cd/"+pattern, h)
	}
	s.groupCIRoutes()
}

// ciOwner is whose variables and runners a page is about: a project, a group or
// the instance.
type ciOwner struct {
	Kind string
	ID   int64
	Base string // address of the page
	show func(w http.ResponseWriter, r *Request, status int, v ciSettingsView) error
}

// runnerKind is the kind of runner that is made for the owner.
func (o ciOwner) runnerKind() string {
	switch o.Kind {
	case pipeline.OwnerInstance:
		return pipeline.InstanceRunner
	case pipeline.OwnerGroup:
		return pipeline.GroupRunner
	}
	return pipeline.ProjectRunner
}

// ciSettingsView is the page of a project's, or the instance's, CI/CD
// settings. The New fields are shown once, after something was made.
type ciSettingsView struct {
	Owner      ciOwner
	Open       string // the section that is open
	Error      string
	Variables  []variableRow
	Draft      *pipeline.Variable
	Runners    []runnerRow
	NewRunner  string // its token
	NewTrigger string
	URL        string
	Triggers   []triggerRow
	Allowances []access.Allowance
	Badges     []badgeRow
	Ref        string
	Self       *delivery.Project
	Scopes     []string
	Settings   pipeline.ProjectSettings
	Cluster    bool // jobs may get access to a cluster
	Admin      bool
	Resources  []resourceRow
	Modes      []string
}

type variableRow struct {
	pipeline.Variable
	Link string
}

type runnerRow struct {
	pipeline.Runner
	Status   string
	Link     string
	Manage   bool
	Managers []pipeline.RunnerManager
	Projects []string
	Running  int
}

type triggerRow struct {
	pipeline.Trigger
	Owner *delivery.User
	Link  string
}

type badgeRow struct{ Name, Image, Markdown, HTML string }

func (s *Server) showCISettings(w http.ResponseWriter, r *Request, status int, v ciSettingsView) error {
	base := projectPath(r.Project.FullPath, "settings", "ci_cd")
	v.Owner = ciOwner{Kind: pipeline.OwnerProject, ID: r.Project.ID, Base: base}
	if v.Open == "" {
		v.Open = r.FormValue("section")
	}
	v.Ref, v.Self, v.URL = r.Project.DefaultBranch, r.Project, s.ExternalURL
	v.Modes, v.Cluster, v.Admin = pipeline.ResourceModes[:], s.Pipelines.HasCluster(), r.Who.User != nil && r.Who.User.Admin
	var err error
	if v.Settings, err = s.Pipelines.ProjectSettings(r.Context(), r.Project.ID); err != nil {
		return err
	}
	var triggers []pipeline.Trigger
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if triggers, err = tx.Triggers(r.Project.ID); err != nil {
			return err
		}
		groups, err := tx.ResourceGroups(r.Project.ID)
		if err != nil {
			return err
		}
		for key, mode := range groups {
			next, err := pipeline.UpcomingJobs(tx, r.Project.ID, key)
			if err != nil {
				return err
			}
			v.Resources = append(v.Resources, resourceRow{key, mode, len(next)})
		}
		sort.Slice(v.Resources, func(a, b int) bool { return v.Resources[a].Key < v.Resources[b].Key })
		envs, _, err := tx.Environments(r.Project.ID, "", "", pipeline.Page{Limit: 200})
		for _, e := range envs {
			v.Scopes = append(v.Scopes, e.Name)
		}
		return err
	}); err != nil {
		return err
	}
	users := s.people(r.Context())
	for _, t := range triggers {
		row := triggerRow{Trigger: t, Link: base + "/triggers/" + strconv.FormatInt(t.ID, 10)}
		var err error
		if row.Owner, err = users.find(t.OwnerID); err != nil {
			return err
		}
		v.Triggers = append(v.Triggers, row)
	}
	groups, err := s.Pipelines.ProjectsPort().Ancestors(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	if err := s.fillOwner(r, &v, func(x *pipeline.Runner) bool { return runnerServes(x, r.Project.ID, groups) }); err != nil {
		return err
	}
	if v.Allowances, err = s.Access.Allowances(r.Context(), r.Project.ID); err != nil {
		return err
	}
	ref := escapePath(r.Project.DefaultBranch)
	for _, name := range []string{"pipeline", "coverage"} {
		image := s.ExternalURL + projectPath(r.Project.FullPath, "badges", ref, name+".svg")
		link := s.ExternalURL + projectPath(r.Project.FullPath, "pipelines") + "?ref=" + ref
		v.Badges = append(v.Badges, badgeRow{Name: name + " status", Image: projectPath(r.Project.FullPath, "badges", ref, name+".svg"), Markdown: "[![" + name + " status](" + image + ")](" + link + ")",
			HTML: `<a href="` + link + `"><img alt="` + name + ` status" src="` + image + `"></a>`})
	}
	return s.render(w, r, status, "ci_settings", Page{Title: "CI/CD settings", Active: "settings-ci", Data: v})
}

func (s *Server) showAdminCI(w http.ResponseWriter, r *Request, status int, v ciSettingsView) error {
	v.Owner, v.URL = ciOwner{Kind: pipeline.OwnerInstance, Base: "/admin/ci_cd"}, s.ExternalURL
	if v.Open == "" && strings.HasSuffix(r.URL.Path, "/runners") {
		v.Open = "runners"
	}
	if err := s.fillOwner(r, &v, func(*pipeline.Runner) bool { return true }); err != nil {
		return err
	}
	return s.render(w, r, status, "ci_admin", Page{Title: "Runners and instance variables", Active: "admin-ci", Data: v})
}

// fillOwner reads variables and the runners that keep selects.
func (s *Server) fillOwner(r *Request, v *ciSettingsView, keep func(*pipeline.Runner) bool) error {
	var vars []pipeline.Variable
	var runners []pipeline.Runner
	managers := map[int64][]pipeline.RunnerManager{}
	busy := map[int64]int{}
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if vars, err = tx.Variables(v.Owner.Kind, v.Owner.ID); err != nil {
			return err
		}
		if runners, err = tx.Runners(); err != nil {
			return err
		}
		running, err := tx.JobsWithStatus("running", "canceling")
		if err != nil {
			return err
		}
		for i := range running {
			busy[running[i].RunnerID]++
		}
		for i := range runners {
			if managers[runners[i].ID], err = tx.Managers(runners[i].ID); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, one := range vars {
		if !one.Hidden {
			var err error
			if one.Value, err = s.Pipelines.Unseal(one.Sealed); err != nil {
				return err
			}
		}
		v.Variables = append(v.Variables, variableRow{one, v.Owner.Base + "/variables/" + strconv.FormatInt(one.ID, 10)})
	}
	sort.SliceStable(v.Variables, func(a, b int) bool { return v.Variables[a].Key < v.Variables[b].Key })
	for _, x := range runners {
		if !keep(&x) {
			continue
		}
		row := runnerRow{Runner: x, Status: x.Status(s.Pipelines.Now()), Link: v.Owner.Base + "/runners/" + strconv.FormatInt(x.ID, 10), Managers: managers[x.ID], Running: busy[x.ID]}
		row.Manage = v.Owner.Kind == pipeline.OwnerInstance || x.Kind == v.Owner.runnerKind() && (x.Kind != pipeline.GroupRunner || x.OwnerID == v.Owner.ID)
		if x.Paused {
			row.Status = "paused"
		}
		v.Runners = append(v.Runners, row)
	}
	return nil
}

// ownerHandlers are the forms for variables and runners of an owner.
func (s *Server) ownerHandlers(of func(*Request) (ciOwner, error)) map[string]Handler {
	with := func(h func(w http.ResponseWriter, r *Request, o ciOwner) error) Handler {
		return func(w http.ResponseWriter, r *Request) error {
			o, err := of(r)
			if err != nil {
				return err
			}
			return h(w, r, o)
		}
	}
	return map[string]Handler{
		"variables":             with(s.createVariable),
		"variables/{id}":        with(s.updateVariable),
		"variables/{id}/delete": with(s.deleteVariable),
		"runners":               with(s.createRunner),
		"runners/{id}/{action}": with(s.changeRunner),
	}
}

// readVariable fills a variable from a form. An empty value of a hidden one
// keeps what is stored.
func readVariable(r *Request, v *pipeline.Variable) {
	v.Key, v.Description, v.Environment = strings.TrimSpace(r.FormValue("key")), strings.TrimSpace(r.FormValue("description")), strings.TrimSpace(r.FormValue("environment_scope"))
	if value := strings.ReplaceAll(r.FormValue("value"), "\r\n", "\n"); value != "" || !v.Hidden {
		v.Value = value
	}
	v.File, v.Protected, v.Raw = r.FormValue("variable_type") == "file", r.FormValue("protected") != "", r.FormValue("raw") != ""
	switch r.FormValue("visibility") {
	case "hidden":
		v.Masked, v.Hidden = true, true
	case "masked":
		v.Masked = true
	default:
		v.Masked = v.Hidden // what was hidden once stays covered
	}
	if v.Environment == "" {
		v.Environment = "*"
	}
}

func (s *Server) createVariable(w http.ResponseWriter, r *Request, o ciOwner) error {
	v := pipeline.Variable{Owner: o.Kind, OwnerID: o.ID}
	readVariable(r, &v)
	err := s.Pipelines.CheckVariable(&v)
	if err == nil {
		err = s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.InsertVariable(&v) })
	}
	if err != nil {
		return s.refuse(w, r, o, err, ciSettingsView{Open: "variables", Draft: &v})
	}
	s.Access.Audit(r.Context(), r.Who, "ci_variable.created", o.Kind, o.ID, v.Key, "scope "+v.Environment)
	return redirect(w, r, o.Base+"?section=variables", "The variable "+v.Key+" is stored.")
}

// refuse shows the settings again with what was wrong with a form.
func (s *Server) refuse(w http.ResponseWriter, r *Request, o ciOwner, err error, v ciSettingsView) error {
	if kind := delivery.KindOf(err); kind != delivery.Invalid && kind != delivery.Conflict && kind != delivery.NotFound {
		return err
	}
	v.Error = fieldMessage(err)
	return o.show(w, r, http.StatusUnprocessableEntity, v)
}

// fieldMessage names the field where the messages of an error have one.
func fieldMessage(err error) string {
	for field, messages := range fieldsOf(err) {
		if field != "base" && len(messages) > 0 {
			return field + " " + strings.Join(messages, ", ")
		}
	}
	return delivery.UserMessage(err)
}

func (s *Server) variableOf(r *Request, o ciOwner) (pipeline.Variable, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Variable{}, err
	}
	var found pipeline.Variable
	err = s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		list, err := tx.Variables(o.Kind, o.ID)
		for _, v := range list {
			if v.ID == id {
				found = v
			}
		}
		return err
	})
	if err != nil {
		return found, err
	}
	if found.ID == 0 {
		return found, notFound()
	}
	found.Value, err = s.Pipelines.Unseal(found.Sealed)
	return found, err
}

func (s *Server) updateVariable(w http.ResponseWriter, r *Request, o ciOwner) error {
	v, err := s.variableOf(r, o)
	if err != nil {
		return err
	}
	readVariable(r, &v)
	if err = s.Pipelines.CheckVariable(&v); err == nil {
		err = s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.UpdateVariable(&v) })
	}
	if err != nil {
		return s.refuse(w, r, o, err, ciSettingsView{Open: "variables"})
	}
	s.Access.Audit(r.Context(), r.Who, "ci_variable.updated", o.Kind, o.ID, v.Key, "scope "+v.Environment)
	return redirect(w, r, o.Base+"?section=variables", "The variable "+v.Key+" is changed.")
}

func (s *Server) deleteVariable(w http.ResponseWriter, r *Request, o ciOwner) error {
	v, err := s.variableOf(r, o)
	if err != nil {
		return err
	}
	if err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteVariable(v.ID) }); err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, "ci_variable.deleted", o.Kind, o.ID, v.Key, "scope "+v.Environment)
	return redirect(w, r, o.Base+"?section=variables", "The variable "+v.Key+" is deleted.")
}

func splitTags(text string) []string {
	var out []string
	for _, t := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' }) {
		out = append(out, strings.TrimSpace(t))
	}
	return out
}

func (s *Server) createRunner(w http.ResponseWriter, r *Request, o ciOwner) error {
	timeout := 0
	if t := strings.TrimSpace(r.FormValue("maximum_timeout")); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return s.refuse(w, r, o, delivery.Errorf(delivery.Invalid, "The maximum timeout is a number of seconds."), ciSettingsView{Open: "runners"})
		}
		timeout = n
	}
	x, token, err := s.Pipelines.CreateRunner(r.Context(), pipeline.NewRunner{Kind: o.runnerKind(), OwnerID: o.ID, Description: strings.TrimSpace(r.FormValue("description")), Tags: splitTags(r.FormValue("tag_list")),
		RunUntagged: r.FormValue("run_untagged") != "", Locked: r.FormValue("locked") != "", RefProtected: r.FormValue("ref_protected") != "", MaximumTimeout: timeout, CreatorID: r.Who.User.ID})
	if err != nil {
		return s.refuse(w, r, o, err, ciSettingsView{Open: "runners"})
	}
	s.Access.Audit(r.Context(), r.Who, "runner.created", o.Kind, o.ID, x.Description, "runner "+strconv.FormatInt(x.ID, 10))
	return o.show(w, r, http.StatusOK, ciSettingsView{Open: "runners", NewRunner: token})
}

// managedRunner finds the runner of the path, if the owner's page manages it.
func (s *Server) managedRunner(r *Request, o ciOwner) (pipeline.Runner, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Runner{}, err
	}
	var x pipeline.Runner
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		x, err = tx.Runner(id)
		return err
	}); err != nil {
		return x, err
	}
	switch o.Kind {
	case pipeline.OwnerInstance:
		return x, nil
	case pipeline.OwnerGroup:
		if x.Kind == pipeline.GroupRunner && x.OwnerID == o.ID {
			return x, nil
		}
	default:
		if x.Kind == pipeline.ProjectRunner && runnerServes(&x, o.ID, nil) {
			return x, nil
		}
	}
	return x, notFound()
}

func (s *Server) changeRunner(w http.ResponseWriter, r *Request, o ciOwner) error {
	x, err := s.managedRunner(r, o)
	if err != nil {
		return err
	}
	ctx, action, notice := r.Context(), r.PathValue("action"), ""
	switch action {
	case "pause", "resume":
		_, err = s.Pipelines.ChangeRunner(ctx, x.ID, func(x *pipeline.Runner) error {
			x.Paused = action == "pause"
			return nil
		})
		notice = map[string]string{"pause": "The runner takes no new jobs.", "resume": "The runner takes jobs again."}[action]
	case "delete":
		if x.Builtin {
			return delivery.Errorf(delivery.Forbidden, "The built-in runner is part of the platform; it can be paused.")
		}
		err = s.Pipelines.DeleteRunner(ctx, x.ID)
		notice = "The runner is deleted; its token is not valid any more."
	case "reset":
		if x.Builtin {
			return delivery.Errorf(delivery.Forbidden, "The token of the built-in runner is managed by the platform.")
		}
		var token string
		if token, err = s.Pipelines.ResetRunnerToken(ctx, x.ID); err == nil {
			s.Access.Audit(ctx, r.Who, "runner.token_reset", o.Kind, o.ID, x.Description, "runner "+strconv.FormatInt(x.ID, 10))
			return o.show(w, r, http.StatusOK, ciSettingsView{Open: "runners", NewRunner: token})
		}
	default:
		return notFound()
	}
	if err != nil {
		return err
	}
	s.Access.Audit(ctx, r.Who, "runner."+action, o.Kind, o.ID, x.Description, "runner "+strconv.FormatInt(x.ID, 10))
	return redirect(w, r, o.Base+"?section=runners", notice)
}

func (s *Server) createTrigger(w http.ResponseWriter, r *Request) error {
	o := ciOwner{show: s.showCISettings}
	_, token, err := s.Pipelines.CreateTrigger(r.Context(), r.Project.ID, r.Who.User.ID, strings.TrimSpace(r.FormValue("description")))
	if err != nil {
		return s.refuse(w, r, o, err, ciSettingsView{Open: "triggers"})
	}
	s.Access.Audit(r.Context(), r.Who, "trigger.created", "project", r.Project.ID, r.Project.FullPath, r.FormValue("description"))
	return s.showCISettings(w, r, http.StatusOK, ciSettingsView{Open: "triggers", NewTrigger: token})
}

func (s *Server) deleteTrigger(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	if err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error {
		list, err := tx.Triggers(r.Project.ID)
		if err != nil {
			return err
		}
		for _, t := range list {
			if t.ID == id {
				return tx.DeleteTrigger(id)
			}
		}
		return notFound()
	}); err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, "trigger.deleted", "project", r.Project.ID, r.Project.FullPath, "")
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "ci_cd")+"?section=triggers", "The trigger is deleted.")
}

func (s *Server) allowProject(w http.ResponseWriter, r *Request) error {
	source, _, err := s.Access.VisibleProject(r.Context(), r.Who, strings.Trim(strings.TrimSpace(r.FormValue("project")), "/"))
	if err == nil && source.ID == r.Project.ID {
		err = delivery.Errorf(delivery.Invalid, "The jobs of this project act in it anyway.")
	} else if delivery.IsNotFound(err) {
		err = delivery.Errorf(delivery.Invalid, "There is no project of that path that you may see.")
	}
	if err == nil {
		err = s.Access.SetAllowance(r.Context(), r.Who, r.Project.ID, source.ID, r.FormValue("push") != "")
	}
	if err != nil {
		return s.refuse(w, r, ciOwner{show: s.showCISettings}, err, ciSettingsView{Open: "token_access"})
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "ci_cd")+"?section=token_access", "Jobs of "+source.FullPath+" may act here.")
}

func (s *Server) disallowProject(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	if err := s.Access.DeleteAllowance(r.Context(), r.Who, r.Project.ID, id); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "ci_cd")+"?section=token_access", "The jobs of that project may not act here any more.")
}
