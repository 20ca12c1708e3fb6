package rest

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// owner is whose variables a route is about.
type owner struct {
	kind string
	id   int64
}

func (s *server) variables(rt *api.Router) {
	project := func(r *api.Request, _ delivery.Role) (owner, error) {
		return owner{pipeline.OwnerProject, r.Project.ID}, nil
	}
	s.variableRoutes(rt, "/projects/{project}/variables", maintainer, project)
	s.variableRoutes(rt, "/admin/ci/variables", admin, func(*api.Request, delivery.Role) (owner, error) { return owner{pipeline.OwnerInstance, 0}, nil })
	if s.groups == nil {
		return
	}
	s.variableRoutes(rt, "/groups/{group}/variables", api.Need{}, func(r *api.Request, _ delivery.Role) (owner, error) {
		g, err := s.group(r, delivery.Owner) // as in GitLab
		return owner{pipeline.OwnerGroup, g.ID}, err
	})
}

// group finds the group of the path and checks the caller's role in it.
func (s *server) group(r *api.Request, need delivery.Role) (delivery.Group, error) {
	g, role, err := s.groups.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
	if err != nil {
		return g, err
	}
	if role < need {
		return g, delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	return g, nil
}

type variableInput struct {
	Key         *string `json:"key"`
	Value       *string `json:"value"`
	Type        *string `json:"variable_type"`
	Protected   *bool   `json:"protected"`
	Masked      *bool   `json:"masked"`
	Hidden      *bool   `json:"masked_and_hidden"`
	Raw         *bool   `json:"raw"`
	Environment *string `json:"environment_scope"`
	Description *string `json:"description"`
	Filter      struct {
		Environment string `json:"environment_scope"`
	} `json:"filter"`
}

func (in *variableInput) apply(v *pipeline.Variable) {
	set(&v.Key, in.Key)
	set(&v.Value, in.Value)
	set(&v.Protected, in.Protected)
	set(&v.Masked, in.Masked)
	set(&v.Raw, in.Raw)
	set(&v.Environment, in.Environment)
	set(&v.Description, in.Description)
	if in.Type != nil {
		v.File = *in.Type == "file"
	}
	if in.Hidden != nil && *in.Hidden {
		v.Hidden, v.Masked = true, true
	}
}

// set changes a field when the request names it.
func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func variableShape(v *pipeline.Variable) object {
	var value any = v.Value
	if v.Hidden {
		value = nil
	}
	o := object{"variable_type": variableType(v.File), "key": v.Key, "value": value, "hidden": v.Hidden, "protected": v.Protected, "masked": v.Masked,
		"raw": v.Raw, "description": text(v.Description)}
	if v.Owner != pipeline.OwnerInstance {
		o["environment_scope"] = v.Environment
	}
	return o
}

// ownerOf finds whose variables a route is about; the caller needs the role.
type ownerOf func(*api.Request, delivery.Role) (owner, error)

func (s *server) variableRoutes(rt *api.Router, path string, need api.Need, of ownerOf) {
	rt.Handle("GET "+path, need, s.listedVariables(of))
	rt.Handle("POST "+path, need, s.createVariable(of))
	rt.Handle("GET "+path+"/{key}", need, s.variable(of, s.getVariable))
	rt.Handle("PUT "+path+"/{key}", need, s.variable(of, s.updateVariable))
	rt.Handle("DELETE "+path+"/{key}", need, s.variable(of, s.deleteVariable))
}

func (s *server) listedVariables(of ownerOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		o, err := of(r, delivery.Maintainer)
		if err != nil {
			return err
		}
		list, err := s.listVariables(r, o)
		if err != nil {
			return err
		}
		pg := api.PageOf(r.Request)
		out := []object{}
		for i := pg.Offset(); i < min(len(list), pg.Offset()+pg.PerPage); i++ {
			out = append(out, variableShape(&list[i]))
		}
		return api.List(w, r, pg, len(list), out)
	}
}

// variableSent finds the owner of a route and reads what the request names.
func variableSent(r *api.Request, of ownerOf) (o owner, in variableInput, err error) {
	if o, err = of(r, delivery.Maintainer); err == nil {
		err = api.Decode(r, &in)
	}
	return o, in, err
}

func (s *server) createVariable(of ownerOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		o, in, err := variableSent(r, of)
		if err != nil {
			return err
		}
		v := pipeline.Variable{Owner: o.kind, OwnerID: o.id, Environment: "*"}
		in.apply(&v)
		if err := s.CheckVariable(&v); err != nil {
			return err
		}
		if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.InsertVariable(&v) }); err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusCreated, variableShape(&v))
	}
}

type variableHandler func(w http.ResponseWriter, r *api.Request, v *pipeline.Variable, in *variableInput) error

// variable finds the variable of a route: by its key, and its environment where
// the request filters by one.
func (s *server) variable(of ownerOf, h variableHandler) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		o, in, err := variableSent(r, of)
		if err != nil {
			return err
		}
		list, err := s.listVariables(r, o)
		if err != nil {
			return err
		}
		for i := range list {
			if list[i].Key == r.PathValue("key") && (in.Filter.Environment == "" || in.Filter.Environment == list[i].Environment) {
				return h(w, r, &list[i], &in)
			}
		}
		return missing("Variable")
	}
}

func (s *server) getVariable(w http.ResponseWriter, _ *api.Request, v *pipeline.Variable, _ *variableInput) error {
	return api.WriteJSON(w, http.StatusOK, variableShape(v))
}

func (s *server) updateVariable(w http.ResponseWriter, r *api.Request, v *pipeline.Variable, in *variableInput) error {
	in.apply(v)
	if err := s.CheckVariable(v); err != nil {
		return err
	}
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.UpdateVariable(v) }); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, variableShape(v))
}

func (s *server) deleteVariable(w http.ResponseWriter, r *api.Request, v *pipeline.Variable, _ *variableInput) error {
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteVariable(v.ID) }); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) listVariables(r *api.Request, o owner) ([]pipeline.Variable, error) {
	var list []pipeline.Variable
	err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, err = tx.Variables(o.kind, o.id)
		return err
	})
	for i := range list {
		if err != nil {
			break
		}
		list[i].Value, err = s.Unseal(list[i].Sealed)
	}
	return list, err
}

func (s *server) triggers(rt *api.Router) {
	rt.Handle("GET /projects/{project}/triggers", maintainer, s.listTriggers)
	rt.Handle("POST /projects/{project}/triggers", maintainer, s.createTrigger)
	rt.Handle("GET /projects/{project}/triggers/{id}", maintainer, s.oneTrigger)
	rt.Handle("PUT /projects/{project}/triggers/{id}", maintainer, s.oneTrigger)
	rt.Handle("DELETE /projects/{project}/triggers/{id}", maintainer, s.oneTrigger)
	run := api.Need{Anyone: true, Scopes: []string{delivery.ScopeJob}}
	rt.Handle("POST /projects/{target}/trigger/pipeline", run, s.runTrigger)
	rt.Handle("POST /projects/{target}/ref/{ref}/trigger/pipeline", run, s.runTrigger)
}

func (s *server) triggerShape(r *api.Request, t *pipeline.Trigger, token string) (object, error) {
	user, err := s.user(r.Context(), t.OwnerID)
	if token == "" {
		token = t.TokenHint
	}
	return object{"id": t.ID, "description": t.Description, "created_at": when(t.CreatedAt), "updated_at": when(t.CreatedAt), "last_used": when(t.LastUsed),
		"token": token, "owner": user, "expires_at": nil}, err
}

func (s *server) listTriggers(w http.ResponseWriter, r *api.Request) error {
	var list []pipeline.Trigger
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, err = tx.Triggers(r.Project.ID)
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range list {
		o, err := s.triggerShape(r, &list[i], "")
		if err != nil {
			return err
		}
		out = append(out, o)
	}
	return api.List(w, r, api.Page{Number: 1, PerPage: 100}, len(out), out)
}

func (s *server) createTrigger(w http.ResponseWriter, r *api.Request) error {
	var in struct {
		Description string `json:"description"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	t, token, err := s.CreateTrigger(r.Context(), r.Project.ID, userID(r), in.Description)
	if err != nil {
		return err
	}
	o, err := s.triggerShape(r, &t, token)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, o)
}

func (s *server) oneTrigger(w http.ResponseWriter, r *api.Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	var in struct {
		Description *string `json:"description"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	var found *pipeline.Trigger
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		list, err := tx.Triggers(r.Project.ID)
		for i := range list {
			if list[i].ID == id {
				found = &list[i]
			}
		}
		return err
	}); err != nil {
		return err
	}
	if found == nil {
		return missing("Trigger")
	}
	switch r.Method {
	case http.MethodDelete:
		if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteTrigger(id) }); err != nil {
			return err
		}
		return noContent(w)
	case http.MethodPut:
		set(&found.Description, in.Description)
		if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.UpdateTrigger(found) }); err != nil {
			return err
		}
	}
	o, err := s.triggerShape(r, found, "")
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, o)
}

// runTrigger starts a pipeline by a trigger token, or by a job's token; it
// needs no other sign-in.
func (s *server) runTrigger(w http.ResponseWriter, r *api.Request) error {
	var in struct {
		Token     string            `json:"token"`
		Ref       string            `json:"ref"`
		Variables map[string]string `json:"variables"`
		Inputs    map[string]any    `json:"inputs"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if v := r.PathValue("ref"); v != "" {
		in.Ref = v
	}
	if in.Token == "" || in.Ref == "" {
		return delivery.Errorf(delivery.Invalid, "token and ref are needed")
	}
	project, err := s.findProject(r, r.PathValue("target"))
	if err != nil {
		return err
	}
	var vars []pipeline.VariableValue
	for k, v := range in.Variables {
		vars = append(vars, pipeline.VariableValue{Key: k, Value: v})
	}
	payload, err := json.Marshal(object{"ref": in.Ref, "variables": in.Variables, "id": project.ID})
	if err != nil {
		return err
	}
	p, err := s.Trigger(r.Context(), project.ID, in.Token, in.Ref, vars, in.Inputs, string(payload))
	if err != nil {
		return err
	}
	r.Project = project
	return s.writePipeline(w, r, http.StatusCreated, &p)
}

// findProject resolves a number or path without asking for access: the token
// of the request is what gives it.
func (s *server) findProject(r *api.Request, ref string) (delivery.Project, error) {
	if strings.Contains(ref, "/") {
		return s.ProjectsPort().ProjectByPath(r.Context(), ref)
	}
	var id int64
	for _, c := range ref {
		if c < '0' || c > '9' || id > 1<<50 {
			return delivery.Project{}, missing("Project")
		}
		id = id*10 + int64(c-'0')
	}
	return s.ProjectsPort().Project(r.Context(), id)
}
