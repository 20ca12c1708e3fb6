package rest

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *server) pipelines(rt *api.Router) {
	rt.Handle("GET /projects/{project}/pipelines", guestOrJob, s.listPipelines)
	rt.Handle("GET /projects/{project}/pipelines/latest", guestOrJob, s.latestPipeline)
	rt.Handle("GET /projects/{project}/pipelines/{id}", guestOrJob, s.getPipeline)
	rt.Handle("GET /projects/{project}/pipelines/{id}/variables", developer, s.pipelineVariables)
	rt.Handle("GET /projects/{project}/pipelines/{id}/test_report", guest, s.testReport)
	rt.Handle("GET /projects/{project}/pipelines/{id}/test_report_summary", guest, s.testReportSummary)
	rt.Handle("POST /projects/{project}/pipeline", developer, s.createPipeline)
	rt.Handle("POST /projects/{project}/pipelines/{id}/retry", developer, s.retryPipeline)
	rt.Handle("POST /projects/{project}/pipelines/{id}/cancel", developer, s.cancelPipeline)
	rt.Handle("PUT /projects/{project}/pipelines/{id}/metadata", developer, s.renamePipeline)
	rt.Handle("DELETE /projects/{project}/pipelines/{id}", api.Need{Role: delivery.Owner}, s.deletePipeline)
}

// pipelineOf reads the pipeline of the path within the project.
func (s *server) pipelineOf(r *api.Request) (pipeline.Pipeline, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Pipeline{}, err
	}
	var p pipeline.Pipeline
	err = s.View(r.Context(), func(tx pipeline.Tx) error {
		p, err = tx.Pipeline(id)
		return err
	})
	if err == nil && p.ProjectID != r.Project.ID {
		return p, missing("Pipeline")
	}
	return p, err
}

// pipelineInfo is the form of pipelines in listings.
func (s *server) pipelineInfo(project delivery.Project, p *pipeline.Pipeline) object {
	return object{"id": p.ID, "iid": p.IID, "project_id": p.ProjectID, "sha": p.SHA, "ref": p.Ref, "status": p.Status, "source": p.Source,
		"created_at": when(p.CreatedAt), "updated_at": when(p.UpdatedAt), "web_url": s.webURL(project, "pipelines/%d", p.ID), "name": text(p.Name)}
}

// pipelineDetail is the form of a single pipeline.
func (s *server) pipelineDetail(r *api.Request, p *pipeline.Pipeline) (object, error) {
	o := s.pipelineInfo(r.Project, p)
	user, err := s.user(r.Context(), p.UserID)
	if err != nil {
		return nil, err
	}
	coverage, err := s.Coverage(r.Context(), p.ID)
	if err != nil {
		return nil, err
	}
	var cov any
	if coverage != nil {
		cov = fmt.Sprintf("%.2f", *coverage)
	}
	o["before_sha"], o["tag"], o["yaml_errors"], o["user"], o["coverage"] = p.BeforeSHA, p.Tag, text(p.YAMLErrors), user, cov
	o["started_at"], o["finished_at"], o["committed_at"] = when(p.StartedAt), when(p.FinishedAt), nil
	o["duration"], o["queued_duration"] = nil, nil
	if d, err := s.PipelineDuration(r.Context(), p); err != nil {
		return nil, err
	} else if d > 0 {
		o["duration"] = int64(math.Round(d.Seconds()))
	}
	if !p.StartedAt.IsZero() {
		o["queued_duration"] = int64(p.StartedAt.Sub(p.CreatedAt) / time.Second)
	}
	label := map[string]string{"success": "passed", "manual": "manual action", "scheduled": "delayed", "waiting_for_resource": "waiting for resource"}[p.Status]
	if label == "" {
		label = p.Status
	}
	o["detailed_status"] = object{"icon": "status_" + p.Status, "text": label, "label": label, "group": strings.ReplaceAll(p.Status, "_", "-"), "tooltip": label,
		"has_details": true, "details_path": "/" + r.Project.FullPath + fmt.Sprintf("/-/pipelines/%d", p.ID), "illustration": nil, "favicon": ""}
	return o, nil
}

type pipelineQuery struct {
	Scope         string    `json:"scope"`
	Status        string    `json:"status"`
	Source        string    `json:"source"`
	Ref           string    `json:"ref"`
	SHA           string    `json:"sha"`
	Name          string    `json:"name"`
	Username      string    `json:"username"`
	YAMLErrors    *bool     `json:"yaml_errors"`
	UpdatedAfter  time.Time `json:"updated_after"`
	UpdatedBefore time.Time `json:"updated_before"`
	OrderBy       string    `json:"order_by"`
	Sort          string    `json:"sort"`
}

func (s *server) listPipelines(w http.ResponseWriter, r *api.Request) error {
	var q pipelineQuery
	if err := api.Decode(r, &q); err != nil {
		return err
	}
	child := false
	f := pipeline.PipelineFilter{ProjectID: r.Project.ID, Scope: q.Scope, Source: q.Source, Ref: q.Ref, SHA: q.SHA, Name: q.Name, YAMLErrors: q.YAMLErrors,
		After: q.UpdatedAfter, Until: q.UpdatedBefore, OrderBy: q.OrderBy, Ascending: q.Sort == "asc", Child: &child}
	if q.Source == pipeline.SourceParentPipeline {
		f.Child = nil
	}
	if q.Status != "" {
		f.Statuses = []string{q.Status}
	}
	pg := api.PageOf(r.Request)
	var list []pipeline.Pipeline
	var total int
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, total, err = tx.Pipelines(f, page(pg))
		return err
	}); err != nil {
		return err
	}
	out := make([]object, len(list))
	for i := range list {
		out[i] = s.pipelineInfo(r.Project, &list[i])
	}
	return api.List(w, r, pg, total, out)
}

func (s *server) latestPipeline(w http.ResponseWriter, r *api.Request) error {
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		ref = r.Project.DefaultBranch
	}
	found, err := s.RepositoriesPort().Ref(r.Context(), r.Project.ID, ref)
	if err != nil {
		return err
	}
	var p pipeline.Pipeline
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		p, err = tx.LatestPipeline(r.Project.ID, found.Name, found.SHA)
		return err
	}); err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusOK, &p)
}

func (s *server) getPipeline(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusOK, &p)
}

func (s *server) writePipeline(w http.ResponseWriter, r *api.Request, status int, p *pipeline.Pipeline) error {
	o, err := s.pipelineDetail(r, p)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, o)
}

func (s *server) pipelineVariables(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	values, err := s.UnsealValues(p.Variables)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, variableValues(values))
}

func variableValues(values []pipeline.VariableValue) []object {
	out := make([]object, 0, len(values))
	for _, v := range values {
		out = append(out, object{"key": v.Key, "value": v.Value, "variable_type": variableType(v.File), "raw": v.Raw})
	}
	return out
}

func variableType(file bool) string {
	if file {
		return "file"
	}
	return "env_var"
}

// givenVariable is a variable of a pipeline or job in a request.
type givenVariable struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Type  string `json:"variable_type"`
}

func given(list []givenVariable) ([]pipeline.VariableValue, error) {
	out := make([]pipeline.VariableValue, 0, len(list))
	for _, v := range list {
		if v.Key == "" {
			return nil, delivery.Errorf(delivery.Invalid, "variables: key is missing")
		}
		out = append(out, pipeline.VariableValue{Key: v.Key, Value: v.Value, File: v.Type == "file"})
	}
	return out, nil
}

func (s *server) createPipeline(w http.ResponseWriter, r *api.Request) error {
	var in struct {
		Ref       string          `json:"ref"`
		Variables []givenVariable `json:"variables"`
		Inputs    map[string]any  `json:"inputs"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if in.Ref == "" {
		return delivery.Errorf(delivery.Invalid, "ref is missing")
	}
	vars, err := given(in.Variables)
	if err != nil {
		return err
	}
	ref, err := s.RepositoriesPort().Ref(r.Context(), r.Project.ID, in.Ref)
	if err == nil {
		if err := s.mayRun(r, ref.Name, strings.HasPrefix(ref.FullName, "refs/tags/")); err != nil {
			return err
		}
	} else if !delivery.IsNotFound(err) {
		return err
	}
	p, err := s.Create(r.Context(), pipeline.Request{ProjectID: r.Project.ID, UserID: userID(r), Ref: in.Ref, Source: pipeline.SourceAPI, Variables: vars, Inputs: in.Inputs})
	if err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusCreated, &p)
}

func (s *server) retryPipeline(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if err := s.mayRun(r, p.Ref, p.Tag); err != nil {
		return err
	}
	if p, err = s.RetryPipeline(r.Context(), userID(r), p.ID); err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusCreated, &p)
}

func (s *server) cancelPipeline(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if p, err = s.CancelPipeline(r.Context(), p.ID); err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusOK, &p)
}

func (s *server) renamePipeline(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	var in struct {
		Name string `json:"name"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if in.Name == "" || len(in.Name) > 255 {
		return delivery.Errorf(delivery.Invalid, "name is missing or longer than 255 characters")
	}
	if p, err = s.RenamePipeline(r.Context(), p.ID, in.Name); err != nil {
		return err
	}
	return s.writePipeline(w, r, http.StatusOK, &p)
}

func (s *server) deletePipeline(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if err := s.DeletePipeline(r.Context(), p.ID); err != nil {
		return err
	}
	return noContent(w)
}

func (s *server) testReportOf(r *api.Request) (pipeline.TestReport, error) {
	p, err := s.pipelineOf(r)
	if err != nil {
		return pipeline.TestReport{}, err
	}
	return s.TestReport(r.Context(), p.ID)
}

func (s *server) testReport(w http.ResponseWriter, r *api.Request) error {
	report, err := s.testReportOf(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, report)
}

func (s *server) testReportSummary(w http.ResponseWriter, r *api.Request) error {
	report, err := s.testReportOf(r)
	if err != nil {
		return err
	}
	suites := make([]object, 0, len(report.Suites))
	for _, t := range report.Suites {
		suites = append(suites, object{"name": t.Name, "total_time": t.TotalTime, "total_count": t.TotalCount, "success_count": t.SuccessCount,
			"failed_count": t.FailedCount, "skipped_count": t.SkippedCount, "error_count": t.ErrorCount, "build_ids": t.JobIDs, "suite_error": text(t.Error)})
	}
	return api.WriteJSON(w, http.StatusOK, object{"total": object{"time": report.TotalTime, "count": report.TotalCount, "success": report.SuccessCount,
		"failed": report.FailedCount, "skipped": report.SkippedCount, "error": report.ErrorCount, "suite_error": nil}, "test_suites": suites})
}
