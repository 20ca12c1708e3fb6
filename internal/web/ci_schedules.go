package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *Server) scheduleRoutes() {
	developer := delivery.Developer
	s.handleProject("GET /pipeline_schedules", delivery.Guest, s.schedulesPage)
	s.handleProject("GET /pipeline_schedules/new", developer, s.newSchedule)
	s.handleProject("POST /pipeline_schedules", developer, s.createSchedule)
	s.handleProject("GET /pipeline_schedules/{id}/edit", developer, s.editSchedule)
	s.handleProject("POST /pipeline_schedules/{id}", developer, s.updateSchedule)
	s.handleProject("POST /pipeline_schedules/{id}/play", developer, s.playSchedule)
	s.handleProject("POST /pipeline_schedules/{id}/take_ownership", developer, s.ownSchedule)
	s.handleProject("POST /pipeline_schedules/{id}/delete", developer, s.deleteSchedule)
}

// schedulesView lists the schedules of a project.
type schedulesView struct {
	Rows   []scheduleRow
	MayNew bool
}

type scheduleRow struct {
	pipeline.Schedule
	Owner                     *delivery.User
	Last                      *linkedPipeline
	Link                      string
	MayPlay, MayEdit, MayTake bool
	MayDelete                 bool
}

func (s *Server) scheduleOf(r *Request) (pipeline.Schedule, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Schedule{}, err
	}
	var found pipeline.Schedule
	err = s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		found, err = tx.Schedule(id)
		return err
	})
	if err == nil && found.ProjectID != r.Project.ID {
		return found, notFound()
	}
	return found, err
}

func ownsSchedule(r *Request, sc *pipeline.Schedule) bool {
	return r.Who.User != nil && sc.OwnerID == r.Who.User.ID
}

func (s *Server) schedulesPage(w http.ResponseWriter, r *Request) error {
	var list []pipeline.Schedule
	last := map[int64]pipeline.Pipeline{}
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		if list, err = tx.Schedules(r.Project.ID); err != nil {
			return err
		}
		for _, sc := range list {
			if sc.LastPipelineID == 0 {
				continue
			}
			p, err := tx.Pipeline(sc.LastPipelineID)
			if err == nil {
				last[sc.ID] = p
			} else if !delivery.IsNotFound(err) {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	users := s.people(r.Context())
	v := schedulesView{MayNew: r.Role >= delivery.Developer && r.Who.User != nil}
	for _, sc := range list {
		row := scheduleRow{Schedule: sc, Link: projectPath(r.Project.FullPath, "pipeline_schedules", strconv.FormatInt(sc.ID, 10))}
		var err error
		if row.Owner, err = users.find(sc.OwnerID); err != nil {
			return err
		}
		if p, ok := last[sc.ID]; ok {
			row.Last = &linkedPipeline{ID: p.ID, Status: p.Status, Link: pipelineLink(r.Project, p.ID)}
		}
		if v.MayNew {
			owns := ownsSchedule(r, &sc)
			row.MayPlay = true
			row.MayEdit = owns || r.Role >= delivery.Owner
			row.MayTake = !owns && r.Role >= delivery.Maintainer
			row.MayDelete = owns || r.Role >= delivery.Maintainer
		}
		v.Rows = append(v.Rows, row)
	}
	return s.render(w, r, http.StatusOK, "ci_schedules", Page{Title: "Schedules", Active: "schedules", Data: v})
}

// scheduleForm edits a schedule.
type scheduleForm struct {
	Schedule  pipeline.Schedule
	Variables []formVariable
	Branches  []delivery.Ref
	Tags      []delivery.Ref
	Examples  []cronExample
	Action    string
	Error     string
}

type cronExample struct{ Cron, Words string }

var cronExamples = []cronExample{{"0 4 * * *", "every day at 4:00"}, {"0 4 * * 0", "every Sunday at 4:00"}, {"0 4 1 * *", "on the first of every month at 4:00"}, {"*/30 * * * *", "every half hour"}, {"0 9-17 * * 1-5", "every working hour"}}

func (s *Server) newSchedule(w http.ResponseWriter, r *Request) error {
	return s.showSchedule(w, r, http.StatusOK, scheduleForm{Schedule: pipeline.Schedule{Ref: r.Project.DefaultBranch, Cron: "0 4 * * *", Timezone: "UTC", Active: true}})
}

func (s *Server) showSchedule(w http.ResponseWriter, r *Request, status int, f scheduleForm) error {
	var err error
	if f.Branches, f.Tags, err = s.allRefs(r); err != nil {
		return err
	}
	f.Examples = cronExamples
	f.Action = projectPath(r.Project.FullPath, "pipeline_schedules")
	title := "New schedule"
	if f.Schedule.ID != 0 {
		f.Action += "/" + strconv.FormatInt(f.Schedule.ID, 10)
		title = "Edit schedule"
	}
	f.Variables = append(f.Variables, formVariable{}, formVariable{})
	return s.render(w, r, status, "ci_schedule", Page{Title: title, Active: "schedules", Data: f})
}

func (s *Server) editSchedule(w http.ResponseWriter, r *Request) error {
	sc, err := s.ownedSchedule(r)
	if err != nil {
		return err
	}
	values, err := s.Pipelines.UnsealValues(sc.Variables)
	if err != nil {
		return err
	}
	f := scheduleForm{Schedule: sc}
	for _, v := range values {
		f.Variables = append(f.Variables, formVariable{v.Key, v.Value, v.File})
	}
	return s.showSchedule(w, r, http.StatusOK, f)
}

// ownedSchedule is scheduleOf for changes: a schedule runs as its owner, so
// only the owner may change what it does.
func (s *Server) ownedSchedule(r *Request) (pipeline.Schedule, error) {
	sc, err := s.scheduleOf(r)
	if err == nil && !ownsSchedule(r, &sc) && r.Role < delivery.Owner {
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "The schedule runs as its owner, who alone may change it.", Next: "Maintainers may take ownership of it first."}
	}
	return sc, err
}

func (s *Server) createSchedule(w http.ResponseWriter, r *Request) error {
	return s.putSchedule(w, r, pipeline.Schedule{ProjectID: r.Project.ID, OwnerID: r.Who.User.ID})
}

func (s *Server) updateSchedule(w http.ResponseWriter, r *Request) error {
	sc, err := s.ownedSchedule(r)
	if err != nil {
		return err
	}
	return s.putSchedule(w, r, sc)
}

func (s *Server) putSchedule(w http.ResponseWriter, r *Request, sc pipeline.Schedule) error {
	sc.Description, sc.Ref, sc.Cron = strings.TrimSpace(r.FormValue("description")), strings.TrimSpace(r.FormValue("ref")), strings.TrimSpace(r.FormValue("cron"))
	sc.Timezone, sc.Active = strings.TrimSpace(r.FormValue("cron_timezone")), r.FormValue("active") != ""
	f := scheduleForm{Schedule: sc, Variables: givenVariables(r.Form)}
	err := s.checkSchedule(r, &sc)
	if err == nil {
		sc.Variables = s.Pipelines.SealValues(variableValues(f.Variables))
		err = s.Pipelines.PutSchedule(r.Context(), &sc)
	}
	if kind := delivery.KindOf(err); err != nil && (kind == delivery.Invalid || kind == delivery.NotFound) {
		f.Error = delivery.UserMessage(err)
		return s.showSchedule(w, r, http.StatusUnprocessableEntity, f)
	}
	if err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "pipeline_schedules"), "The schedule is stored. It runs next "+ago(sc.NextRun)+".")
}

// checkSchedule checks that the ref exists and that the caller may run
// pipelines on it.
func (s *Server) checkSchedule(r *Request, sc *pipeline.Schedule) error {
	ref, err := s.Pipelines.RepositoriesPort().Ref(r.Context(), r.Project.ID, sc.Ref)
	if delivery.IsNotFound(err) {
		return delivery.Errorf(delivery.Invalid, "There is no branch or tag %s.", sc.Ref)
	}
	if err != nil {
		return err
	}
	return s.requireAct(r, &pipeline.Pipeline{Ref: ref.Name, Tag: strings.HasPrefix(ref.FullName, "refs/tags/")})
}

func (s *Server) playSchedule(w http.ResponseWriter, r *Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	if err := s.checkSchedule(r, &sc); err != nil {
		return err
	}
	p, err := s.Pipelines.PlaySchedule(r.Context(), r.Who.User.ID, &sc)
	if err != nil {
		return err
	}
	return redirect(w, r, pipelineLink(r.Project, p.ID), "The schedule runs now.")
}

func (s *Server) ownSchedule(w http.ResponseWriter, r *Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	if r.Role < delivery.Maintainer {
		return delivery.Errorf(delivery.Forbidden, "Only maintainers may take ownership of a schedule.")
	}
	sc.OwnerID = r.Who.User.ID
	if err := s.Pipelines.PutSchedule(r.Context(), &sc); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "pipeline_schedules"), "The schedule is yours: it runs with your rights.")
}

func (s *Server) deleteSchedule(w http.ResponseWriter, r *Request) error {
	sc, err := s.scheduleOf(r)
	if err != nil {
		return err
	}
	if !ownsSchedule(r, &sc) && r.Role < delivery.Maintainer {
		return delivery.Errorf(delivery.Forbidden, "Only its owner and maintainers may delete a schedule.")
	}
	if err := s.Pipelines.Update(r.Context(), func(tx pipeline.Tx) error { return tx.DeleteSchedule(sc.ID) }); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "pipeline_schedules"), "The schedule is deleted.")
}
