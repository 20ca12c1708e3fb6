package web

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

const pipelinesOnPage = 20

// pipelinesView is a page of a project's pipelines.
type pipelinesView struct {
	Project             *delivery.Project
	Scope               string
	Ref, Status, Source string
	Statuses, Sources   []string
	Scopes              []scopeTab
	Filtered            bool
	Rows                []pipelineRow
	Prev, Next          string
	MayRun, HasConfig   bool
	Live                string // where the list is read again; empty: it is history
}

type scopeTab struct{ Scope, Name, Link string }

type pipelineRow struct {
	pipeline.Pipeline
	Title     string
	User      *delivery.User
	Took      time.Duration
	MayRetry  bool
	MayCancel bool
}

var pipelineStatuses = []string{"running", "pending", "success", "failed", "canceled", "skipped", "manual", "scheduled", "created", "waiting_for_resource"}

func (s *Server) pipelinesPage(w http.ResponseWriter, r *Request) error {
	page := pageNumber(r)
	child := false
	v := pipelinesView{Project: r.Project, Scope: r.FormValue("scope"), Ref: strings.TrimSpace(r.FormValue("ref")), Status: r.FormValue("status"), Source: r.FormValue("source"), Statuses: pipelineStatuses,
		Sources: []string{pipeline.SourcePush, pipeline.SourceMergeRequest, pipeline.SourceWeb, pipeline.SourceAPI, pipeline.SourceSchedule, pipeline.SourceTrigger, pipeline.SourcePipeline, pipeline.SourceParentPipeline}}
	f := pipeline.PipelineFilter{ProjectID: r.Project.ID, Ref: v.Ref, Source: v.Source, Child: &child, WithoutMany: true}
	if v.Source == pipeline.SourceParentPipeline {
		f.Child = nil
	}
	switch v.Scope {
	case "finished", "branches", "tags":
		f.Scope = v.Scope
	default:
		v.Scope = ""
	}
	if v.Status != "" {
		f.Statuses = []string{v.Status}
	}
	v.Filtered = v.Ref != "" || v.Status != "" || v.Source != "" || v.Scope != ""
	for _, t := range []scopeTab{{"", "All", ""}, {"finished", "Finished", ""}, {"branches", "Branches", ""}, {"tags", "Tags", ""}} {
		t.Link = "?scope=" + t.Scope
		v.Scopes = append(v.Scopes, t)
	}
	list, _, err := s.Pipelines.Pipelines(r.Context(), f, pipeline.Page{Limit: pipelinesOnPage + 1, Offset: (page - 1) * pipelinesOnPage})
	if err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, len(list) > pipelinesOnPage)
	if v.Rows, err = s.pipelineRows(r, list[:min(len(list), pipelinesOnPage)]); err != nil {
		return err
	}
	if page == 1 {
		v.Live = projectPath(r.Project.FullPath, "pipelines") + "?" + r.URL.RawQuery
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "ci_pipelines", "pipelines", v)
	}
	v.MayRun = r.Role >= delivery.Developer
	if len(v.Rows) == 0 && !r.Project.Empty {
		if v.HasConfig, err = s.hasConfig(r); err != nil {
			return err
		}
	}
	return s.render(w, r, http.StatusOK, "ci_pipelines", Page{Title: "Pipelines", Active: "pipelines", Data: v})
}

// hasConfig reports whether the default branch has a pipeline configuration.
func (s *Server) hasConfig(r *Request) (bool, error) {
	_, err := s.Forge.ReadFile(r.Context(), r.Project.ID, r.Project.DefaultBranch, configPath(r.Project), 8<<20)
	if delivery.IsNotFound(err) || delivery.KindOf(err) == delivery.Invalid {
		return false, nil
	}
	return err == nil, err
}

func configPath(p *delivery.Project) string {
	if p.CIConfigPath != "" {
		return p.CIConfigPath
	}
	return ".gitlab-ci.yml"
}

func (s *Server) pipelineRows(r *Request, list []pipeline.Pipeline) ([]pipelineRow, error) {
	users := s.people(r.Context())
	type ref struct {
		name string
		tag  bool
		mr   bool
	}
	allowed := map[ref]bool{}
	var rows []pipelineRow
	for i := range list {
		p := &list[i]
		row := pipelineRow{Pipeline: *p, Title: pipelineTitle(p), Took: wallTime(p, s.Pipelines.Now())}
		var err error
		if row.User, err = users.find(p.UserID); err != nil {
			return nil, err
		}
		key := ref{p.Ref, p.Tag, p.MergeRequestIID != 0}
		may, known := allowed[key]
		if !known {
			if may, err = s.mayAct(r, p); err != nil {
				return nil, err
			}
			allowed[key] = may
		}
		row.MayCancel = may && !p.Finished()
		row.MayRetry = may && (p.Status == "failed" || p.Status == "canceled")
		rows = append(rows, row)
	}
	return rows, nil
}

func pipelineTitle(p *pipeline.Pipeline) string {
	if p.Name != "" {
		return p.Name
	}
	if t := p.Facts["CI_COMMIT_TITLE"]; t != "" {
		return t
	}
	return "Pipeline of " + short(p.SHA)
}

// wallTime is the time from the first job's start to the last one's end.
func wallTime(p *pipeline.Pipeline, now time.Time) time.Duration {
	switch {
	case p.StartedAt.IsZero():
		return 0
	case p.FinishedAt.IsZero():
		return now.Sub(p.StartedAt)
	}
	return p.FinishedAt.Sub(p.StartedAt)
}

func (s *Server) latestPipeline(w http.ResponseWriter, r *Request) error {
	ref := r.FormValue("ref")
	if ref == "" {
		ref = r.Project.DefaultBranch
	}
	p, err := s.Pipelines.RefPipeline(r.Context(), r.Project.ID, ref)
	if err != nil {
		return err
	}
	return redirect(w, r, pipelineLink(r.Project, p.ID), "")
}

// newPipelineView is the form that runs a pipeline.
type newPipelineView struct {
	Ref       string
	Branches  []delivery.Ref
	Tags      []delivery.Ref
	Variables []formVariable
	Errors    []string
	Config    string
}

// formVariable is a row of a form's variables.
type formVariable struct {
	Key, Value string
	File       bool
}

func (s *Server) newPipelineForm(w http.ResponseWriter, r *Request) error {
	v := newPipelineView{Ref: r.FormValue("ref")}
	for key, values := range r.URL.Query() { // links may bring variables: ?var[NAME]=value, as in GitLab
		if name, ok := strings.CutPrefix(key, "var["); ok && strings.HasSuffix(name, "]") && len(values) > 0 {
			v.Variables = append(v.Variables, formVariable{Key: strings.TrimSuffix(name, "]"), Value: values[0]})
		}
	}
	return s.showNewPipeline(w, r, http.StatusOK, v)
}

func (s *Server) showNewPipeline(w http.ResponseWriter, r *Request, status int, v newPipelineView) error {
	var err error
	if v.Ref == "" {
		v.Ref = r.Project.DefaultBranch
	}
	if v.Branches, v.Tags, err = s.allRefs(r); err != nil {
		return err
	}
	v.Config = configPath(r.Project)
	for len(v.Variables) < 4 {
		v.Variables = append(v.Variables, formVariable{})
	}
	return s.render(w, r, status, "ci_newpipeline", Page{Title: "Run pipeline", Active: "pipelines", Data: v})
}

// allRefs lists branches and tags for a form.
func (s *Server) allRefs(r *Request) (branches, tags []delivery.Ref, err error) {
	if r.Project.Empty {
		return nil, nil, nil
	}
	if branches, err = s.Forge.Branches(r.Context(), *r.Project, forge.RefOptions{}); err != nil {
		return nil, nil, err
	}
	tags, err = s.Forge.Tags(r.Context(), *r.Project, forge.RefOptions{})
	return branches, tags, err
}

// givenVariables reads the rows of variables of a form. Rows without a key are
// left out.
func givenVariables(form url.Values) []formVariable {
	var out []formVariable
	kinds := form["variable_type"]
	values := form["variable_value"]
	for i, key := range form["variable_key"] {
		v := formVariable{Key: strings.TrimSpace(key)}
		if i < len(values) {
			v.Value = values[i]
		}
		v.File = i < len(kinds) && kinds[i] == "file"
		if v.Key != "" {
			out = append(out, v)
		}
	}
	return out
}

func variableValues(rows []formVariable) []pipeline.VariableValue {
	var out []pipeline.VariableValue
	for _, v := range rows {
		out = append(out, pipeline.VariableValue{Key: v.Key, Value: v.Value, File: v.File})
	}
	return out
}

func (s *Server) createPipeline(w http.ResponseWriter, r *Request) error {
	v := newPipelineView{Ref: r.FormValue("ref")}
	v.Variables = givenVariables(r.Form)
	ref, err := s.Pipelines.RepositoriesPort().Ref(r.Context(), r.Project.ID, v.Ref)
	if delivery.IsNotFound(err) {
		v.Errors = []string{"There is no branch or tag " + v.Ref + "."}
		return s.showNewPipeline(w, r, http.StatusUnprocessableEntity, v)
	}
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &pipeline.Pipeline{Ref: ref.Name, Tag: strings.HasPrefix(ref.FullName, "refs/tags/")}); err != nil {
		return err
	}
	p, err := s.Pipelines.Create(r.Context(), pipeline.Request{ProjectID: r.Project.ID, UserID: r.Who.User.ID, Ref: ref.FullName, Source: pipeline.SourceWeb, Variables: variableValues(v.Variables)})
	if err != nil {
		if delivery.KindOf(err) != delivery.Invalid && delivery.KindOf(err) != delivery.NotFound {
			return err
		}
		v.Errors = sentences(err)
		return s.showNewPipeline(w, r, http.StatusUnprocessableEntity, v)
	}
	return redirect(w, r, pipelineLink(r.Project, p.ID), "The pipeline has started.")
}

func (s *Server) retryPipeline(w http.ResponseWriter, r *Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &p); err != nil {
		return err
	}
	if _, err := s.Pipelines.RetryPipeline(r.Context(), r.Who.User.ID, p.ID); err != nil {
		return err
	}
	return redirect(w, r, pipelineLink(r.Project, p.ID), "Failed and canceled jobs run again.")
}

func (s *Server) cancelPipeline(w http.ResponseWriter, r *Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &p); err != nil {
		return err
	}
	if _, err := s.Pipelines.CancelPipeline(r.Context(), p.ID); err != nil {
		return err
	}
	return redirect(w, r, pipelineLink(r.Project, p.ID), "The pipeline is being canceled.")
}

func (s *Server) deletePipeline(w http.ResponseWriter, r *Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	if err := s.Pipelines.DeletePipeline(r.Context(), p.ID); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "pipelines"), "The pipeline is deleted.")
}
