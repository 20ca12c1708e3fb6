package web

import (
	"errors"
	"net/http"
	"sort"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// pipelineView is a pipeline with one of its tabs.
type pipelineView struct {
	Project   *delivery.Project
	Pipeline  pipeline.Pipeline
	Status    string
	Title     string
	User      *delivery.User
	Took      time.Duration
	Queued    time.Duration
	Coverage  *float64
	Upstream  *linkedPipeline
	MayRetry  bool
	MayCancel bool
	MayDelete bool
	Base      string // its address
	Live      string // where regions are read again; empty: nothing changes any more
	Tab       string
	Tabs      []pipelineTab

	Columns  []graphColumn
	DAG      *dagView
	Jobs     []jobRow
	Failed   []failedJob
	Tests    *pipeline.TestReport
	Findings []ciFindings
	Scans    *scanDiff // what the pipeline brings in
	Files    []coveredFile
	Given    []pipeline.VariableValue
}

type pipelineTab struct {
	Tab, Name, Link string
	Count           int
	Alarm           bool
}

type failedJob struct {
	graphJob
	Stage, Reason string
	Tail          []logLine
}

type ciFindings struct {
	Kind, Name string
	Findings   []pipeline.Finding
	Problems   map[string]string
	Counts     []severityCount
}

type severityCount struct {
	Severity string
	Count    int
}

type coveredFile struct {
	Path           string
	Covered, Lines int
	Percent        float64
}

func (s *Server) pipelineOf(r *Request) (pipeline.Pipeline, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.Pipeline{}, err
	}
	return s.Pipelines.ProjectPipeline(r.Context(), r.Project.ID, id)
}

func pipelineLink(p *delivery.Project, id int64) string {
	return projectPath(p.FullPath, "pipelines", strconv.FormatInt(id, 10))
}

func (s *Server) pipelinePage(w http.ResponseWriter, r *Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	g, err := s.Pipelines.Graph(r.Context(), p.ID)
	if err != nil {
		return err
	}
	v, err := s.pipelineHead(r, &g)
	if err != nil {
		return err
	}
	v.Tab = r.PathValue("tab")
	if part := r.FormValue("part"); r.Header.Get("X-Fragment") != "" && (part == "head" || part == "body") {
		if err := s.fillTab(r, &g, &v); err != nil {
			return err
		}
		return s.fragment(w, "ci_pipeline", "pipeline-"+part, v)
	}
	if err := s.fillTab(r, &g, &v); err != nil {
		return err
	}
	if v.Tabs, err = s.pipelineTabs(r, &g, &v); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "ci_pipeline", Page{Title: "Pipeline #" + strconv.FormatInt(p.ID, 10), Active: "pipelines", Data: v})
}

// pipelineHead is what every tab shows.
func (s *Server) pipelineHead(r *Request, g *pipeline.Graph) (pipelineView, error) {
	p := &g.Pipeline
	v := pipelineView{Project: r.Project, Pipeline: *p, Status: p.Status, Title: pipelineTitle(p), Base: pipelineLink(r.Project, p.ID), MayDelete: r.Role >= delivery.Owner && r.Who.User != nil}
	var err error
	if v.User, err = s.people(r.Context()).find(p.UserID); err != nil {
		return v, err
	}
	if v.Took, err = s.Pipelines.PipelineDuration(r.Context(), p); err != nil {
		return v, err
	}
	if v.Coverage, err = s.Pipelines.Coverage(r.Context(), p.ID); err != nil {
		return v, err
	}
	if !p.StartedAt.IsZero() {
		v.Queued = p.StartedAt.Sub(p.CreatedAt)
	}
	if g.Upstream != nil {
		if v.Upstream, err = s.linked(r, g.Upstream); err != nil {
			return v, err
		}
	}
	may, err := s.mayAct(r, p)
	if err != nil {
		return v, err
	}
	for _, stage := range g.Stages {
		for _, group := range stage.Groups {
			for i := range group.Jobs {
				j := &group.Jobs[i]
				if j.Status == "failed" || j.Status == "canceled" {
					v.MayRetry = may
				}
				if j.Status == "failed" && j.AllowFailure && p.Status == "success" {
					v.Status = "warning"
				}
			}
		}
	}
	v.MayCancel = may && !p.Finished() && p.Status != "manual"
	if !p.Finished() {
		v.Live = v.Base
	}
	v.Columns, err = s.jobGraph(r, g, may)
	return v, err
}

func (s *Server) pipelineTabs(r *Request, g *pipeline.Graph, v *pipelineView) ([]pipelineTab, error) {
	jobs, failed := 0, 0
	for _, c := range v.Columns {
		for _, b := range c.Boxes {
			for _, j := range b.Jobs {
				jobs++
				if j.Status == "failed" || j.Status == "allowed" {
					failed++
				}
			}
		}
	}
	tests, findings := v.Tests, v.Findings
	if tests == nil {
		report, err := s.Pipelines.TestReport(r.Context(), g.Pipeline.ID)
		if err != nil {
			return nil, err
		}
		tests = &report
	}
	if findings == nil {
		var err error
		if findings, err = s.findings(r, g.Pipeline.ID); err != nil {
			return nil, err
		}
	}
	found := 0
	for _, f := range findings {
		found += len(f.Findings) + len(f.Problems)
	}
	tabs := []pipelineTab{{Tab: "", Name: "Stages"}, {Tab: "dag", Name: "Dependencies"}, {Tab: "builds", Name: "Jobs", Count: jobs}}
	if failed > 0 {
		tabs = append(tabs, pipelineTab{Tab: "failures", Name: "Failed jobs", Count: failed, Alarm: true})
	}
	tabs = append(tabs, pipelineTab{Tab: "test_report", Name: "Tests", Count: tests.TotalCount, Alarm: tests.FailedCount+tests.ErrorCount > 0}, pipelineTab{Tab: "security", Name: "Findings", Count: found}, pipelineTab{Tab: "coverage", Name: "Coverage"})
	if len(g.Pipeline.Variables) > 0 && r.Role >= delivery.Developer {
		tabs = append(tabs, pipelineTab{Tab: "variables", Name: "Variables", Count: len(g.Pipeline.Variables)})
	}
	for i := range tabs {
		tabs[i].Link = v.Base
		if tabs[i].Tab != "" {
			tabs[i].Link += "/" + tabs[i].Tab
		}
	}
	return tabs, nil
}

// fillTab reads what the chosen tab shows.
func (s *Server) fillTab(r *Request, g *pipeline.Graph, v *pipelineView) error {
	var err error
	switch v.Tab {
	case "":
	case "dag":
		d := layout(v.Columns)
		v.DAG = &d
	case "builds":
		var list []pipeline.Job
		if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
			list, _, err = tx.Jobs(pipeline.JobFilter{PipelineID: g.Pipeline.ID, Retried: true}, pipeline.Page{Limit: 5000})
			return err
		}); err != nil {
			return err
		}
		sort.SliceStable(list, func(a, b int) bool {
			if list[a].StageIndex != list[b].StageIndex {
				return list[a].StageIndex < list[b].StageIndex
			}
			return list[a].Position < list[b].Position
		})
		v.Jobs, err = s.jobRows(r, list)
		return err
	case "failures":
		return s.fillFailures(r, g, v)
	case "test_report":
		report, err := s.Pipelines.TestReport(r.Context(), g.Pipeline.ID)
		v.Tests = &report
		return err
	case "security":
		if v.Findings, err = s.findings(r, g.Pipeline.ID); err != nil {
			return err
		}
		v.Scans, err = s.scanPipeline(Page{Project: r.Project, Role: r.Role}, g.Pipeline)
		return err
	case "coverage":
		return s.fillCoverage(r, g, v)
	case "variables":
		if r.Role < delivery.Developer {
			return &delivery.Error{Kind: delivery.Forbidden, Message: "The variables of a run are for developers of the project."}
		}
		v.Given, err = s.Pipelines.UnsealValues(g.Pipeline.Variables)
		return err
	default:
		return notFound()
	}
	return nil
}

// fillFailures shows the end of each failed job's log.
func (s *Server) fillFailures(r *Request, g *pipeline.Graph, v *pipelineView) error {
	for si, stage := range g.Stages {
		for gi, group := range stage.Groups {
			for ji := range group.Jobs {
				j := &group.Jobs[ji]
				if j.Status != "failed" {
					continue
				}
				f := failedJob{graphJob: v.Columns[si].Boxes[gi].Jobs[ji], Stage: stage.Name, Reason: ciReason(j.FailureReason)}
				if len(v.Failed) < 50 {
					tail, _, err := s.logTail(r.Context(), j, 4<<10)
					if err != nil {
						return err
					}
					f.Tail = tail[max(0, len(tail)-15):]
				}
				v.Failed = append(v.Failed, f)
			}
		}
	}
	return nil
}

var findingNames = map[string]string{
	"codequality": "Code quality", "sarif": "Static analysis (SARIF)", "container_scanning": "Container scanning", "dependency_scanning": "Dependency scanning",
	"sast": "Static application security", "secret_detection": "Secret detection", "dast": "Dynamic application security",
}

func (s *Server) findings(r *Request, id int64) ([]ciFindings, error) {
	out := []ciFindings{}
	for _, kind := range pipeline.FindingKinds {
		list, problems, err := s.Pipelines.Findings(r.Context(), id, kind)
		if err != nil {
			return nil, err
		}
		if len(list)+len(problems) == 0 {
			continue
		}
		g := ciFindings{Kind: kind, Name: findingNames[kind], Findings: list, Problems: problems}
		for _, f := range list { // sorted, the worst first
			if n := len(g.Counts); n > 0 && g.Counts[n-1].Severity == f.Severity {
				g.Counts[n-1].Count++
				continue
			}
			g.Counts = append(g.Counts, severityCount{f.Severity, 1})
		}
		out = append(out, g)
	}
	return out, nil
}

func (s *Server) fillCoverage(r *Request, g *pipeline.Graph, v *pipelineView) error {
	files, err := s.Pipelines.LineCoverage(r.Context(), g.Pipeline.ID)
	if err != nil {
		return err
	}
	for path, lines := range files {
		f := coveredFile{Path: path, Lines: len(lines)}
		for _, hits := range lines {
			if hits > 0 {
				f.Covered++
			}
		}
		if f.Lines > 0 {
			f.Percent = 100 * float64(f.Covered) / float64(f.Lines)
		}
		v.Files = append(v.Files, f)
	}
	sort.Slice(v.Files, func(a, b int) bool { return v.Files[a].Path < v.Files[b].Path })
	return nil
}

// sentences are the messages of an error about what a user gave.
func sentences(err error) []string {
	if base := fieldsOf(err)["base"]; len(base) > 0 {
		return base
	}
	return []string{delivery.UserMessage(err)}
}

// fieldsOf are the messages of an error by field of the form.
func fieldsOf(err error) map[string][]string {
	var e *delivery.Error
	if errors.As(err, &e) {
		return e.Fields
	}
	return nil
}
