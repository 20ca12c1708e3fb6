package rest

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *server) schedules(rt *api.Router) {
	base := "/projects/{project}/pipeline_schedules"
	rt.Handle("GET "+base, guest, s.listSchedules)
	rt.Handle("POST "+base, developer, s.createSchedule)
	rt.Handle("GET "+base+"/{id}", guest, s.getSchedule)
	rt.Handle("PUT "+base+"/{id}", developer, s.updateSchedule)
	rt.Handle("DELETE "+base+"/{id}", developer, s.deleteSchedule)
	rt.Handle("POST "+base+"/{id}/play", developer, s.playSchedule)
	rt.Handle("POST "+base+"/{id}/take_ownership", developer, s.ownSchedule)
	rt.Handle("GET "+base+"/{id}/pipelines", guest, s.schedulePipelines)
	rt.Handle("POST "+base+"/{id}/variables", developer, s.scheduleVariable)
	rt.Handle("PUT "+base+"/{id}/variables/{key}", developer, s.scheduleVariable)
	rt.Handle("DELETE "+base+"/{id}/variables/{key}", developer, s.scheduleVariable)
}

func (s *server) scheduleOf(r *api.Request) (pipeline.Schedule, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Schedule{}, err
	}
	var found pipeline.Schedule
	err = s.View(r.Context(), func(tx pipeline.Tx) error {
		found, err = tx.Schedule(id)
		return err
	})
	if err == nil && found.ProjectID != r.Project.ID {
		return found, missing("Pipeline Schedule")
	}
	return found, err
}

// ownedSchedule is scheduleOf for changes: a schedule runs as its owner, so
// only the owner may change it.
func (s *server) ownedSchedule(r *api.Request) (pipeline.Schedule, error) {
	found, err := s.scheduleOf(r)
	if err == nil && found.OwnerID != userID(r) && r.Role < delivery.Owner {
		return found, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden", Next: "Take ownership of the schedule first."}
	}
	return found, err
}

func (s *server) scheduleShape(r *api.Request, sc *pipeline.Schedule, detail bool) (object, error) {
	user, err := s.user(r.Context(), sc.OwnerID)
	if err != nil {
		return nil, err
	}
	o := object{"id": sc.ID, "description": sc.Description, "ref": sc.Ref, "cron": sc.Cron, "cron_timezone": sc.Timezone, "next_run_at": when(sc.NextRun),
		"active": sc.Active, "created_at": when(sc.CreatedAt), "updated_at": when(sc.UpdatedAt), "owner": user}
	if !detail {
		return o, nil
	}
	values, err := s.UnsealValues(sc.Variables)
	if err != nil {
		return nil, err
	}
	o["variables"], o["last_pipeline"] = []object{}, nil
	if sc.OwnerID == userID(r) || r.Role >= delivery.Maintainer {
		o["variables"] = variableValues(values)
	}
	if sc.LastPipelineID != 0 {
		var p pipeline.Pipeline
		err := s.View(r.Context(), func(tx pipeline.Tx) error {
			var err error
			p, err = tx.Pipeline(sc.LastPipelineID)
			return err
		})
		if err == nil {
			o["last_pipeline"] = object{"id": p.ID, "sha": p.SHA, "ref": p.Ref, "status": p.Status}
		} else if !delivery.IsNotFound(err) {
			return nil, err
		}
	}
	return o, nil
}

func (s *server) writeSchedule(w http.ResponseWriter, r *api.Request, status int, sc *pipeline.Schedule) error {
	o, err := s.scheduleShape(r, sc, true)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, o)
}

func (s *server) listSchedules(w http.ResponseWriter, r *api.Request) error {
	var list []pipeline.Schedule
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, err = tx.Schedules(r.Project.ID)
		return err
	}); err != nil {
		return err
	}
	scope := r.URL.Query().Get("scope")
	out := []object{}
	for i := range list {
		if scope == "active" && !list[i].Active || scope == "inactive" && list[i].Active {
			continue
		}
		o, err := s.scheduleShape(r, &list[i], false)
		if err != nil {
			return err
		}
		out = append(out, o)
	}
	return api.List(w, r, api.Page{Number: 1, PerPage: max(1, len(out))}, len(out), out)
}

func (s *server) getSchedule(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	return s.writeSchedule(w, r, http.StatusOK, &sc)
}

type scheduleInput struct {
	Description *string `json:"description"`
	Ref         *string `json:"ref"`
	Cron        *string `json:"cron"`
	Timezone    *string `json:"cron_timezone"`
	Active      *bool   `json:"active"`
}

func (s *server) putSchedule(w http.ResponseWriter, r *api.Request, status int, sc *pipeline.Schedule) error {
	var in scheduleInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	set(&sc.Description, in.Description)
	set(&sc.Ref, in.Ref)
	set(&sc.Cron, in.Cron)
	set(&sc.Timezone, in.Timezone)
	set(&sc.Active, in.Active)
	if sc.Ref != "" {
		ref, err := s.RepositoriesPort().Ref(r.Context(), r.Project.ID, sc.Ref)
		if err == nil {
			err = s.mayRun(r, ref.Name, ref.FullName == "refs/tags/"+ref.Name)
		} else if delivery.IsNotFound(err) {
			err = delivery.Errorf(delivery.Invalid, "ref %s does not exist", sc.Ref)
		}
		if err != nil {
			return err
		}
	}
	if err := s.PutSchedule(r.Context(), sc); err != nil {
		return err
	}
	return s.writeSchedule(w, r, status, sc)
}

func (s *server) createSchedule(w http.ResponseWriter, r *api.Request) error {
	return s.putSchedule(w, r, http.StatusCreated, &pipeline.Schedule{ProjectID: r.Project.ID, OwnerID: userID(r), Active: true})
}

func (s *server) updateSchedule(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.ownedSchedule(r)
	if err != nil {
		return err
	}
	return s.putSchedule(w, r, http.StatusOK, &sc)
}

func (s *server) deleteSchedule(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	if sc.OwnerID != userID(r) && r.Role < delivery.Maintainer {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	if err := s.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteSchedule(sc.ID) }); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) playSchedule(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	ref, err := s.RepositoriesPort().Ref(r.Context(), r.Project.ID, sc.Ref)
	if err != nil {
		return err
	}
	if err := s.mayRun(r, ref.Name, ref.FullName == "refs/tags/"+ref.Name); err != nil {
		return err
	}
	if _, err := s.PlaySchedule(r.Context(), userID(r), &sc); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, object{"message": "201 Created"})
}

func (s *server) ownSchedule(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	sc.OwnerID = userID(r)
	if err := s.PutSchedule(r.Context(), &sc); err != nil {
		return err
	}
	return s.writeSchedule(w, r, http.StatusCreated, &sc)
}

func (s *server) schedulePipelines(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	pg := api.PageOf(r.Request)
	var list []pipeline.Pipeline
	var total int
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		list, total, err = tx.Pipelines(pipeline.PipelineFilter{ProjectID: r.Project.ID, ScheduleID: sc.ID}, page(pg))
		return err
	}); err != nil {
		return err
	}
	out := []object{}
	for i := range list {
		out = append(out, s.pipelineInfo(r.Project, &list[i]))
	}
	return api.List(w, r, pg, total, out)
}

func (s *server) scheduleVariable(w http.ResponseWriter, r *api.Request) error {
	sc, err := s.ownedSchedule(r)
	if err != nil {
		return err
	}
	var in givenVariable
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	values, err := s.UnsealValues(sc.Variables)
	if err != nil {
		return err
	}
	key := r.PathValue("key")
	at := -1
	for i := range values {
		if values[i].Key == key || key == "" && values[i].Key == in.Key {
			at = i
		}
	}
	status := http.StatusOK
	var v pipeline.VariableValue
	switch {
	case r.Method == http.MethodPost && at >= 0:
		return &delivery.Error{Kind: delivery.Invalid, Message: "taken", Fields: map[string][]string{"key": {"has already been taken"}}}
	case r.Method == http.MethodPost:
		if in.Key == "" {
			return delivery.Errorf(delivery.Invalid, "key is missing")
		}
		v = pipeline.VariableValue{Key: in.Key, Value: in.Value, File: in.Type == "file"}
		values, status = append(values, v), http.StatusCreated
	case at < 0:
		return missing("Variable")
	case r.Method == http.MethodPut:
		values[at].Value = in.Value
		if in.Type != "" {
			values[at].File = in.Type == "file"
		}
		v = values[at]
	default:
		v = values[at]
		values = append(values[:at], values[at+1:]...)
	}
	sc.Variables = s.SealValues(values)
	if err := s.PutSchedule(r.Context(), &sc); err != nil {
		return err
	}
	return api.WriteJSON(w, status, variableValues([]pipeline.VariableValue{v})[0])
}
