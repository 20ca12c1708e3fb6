package web

import (
	"context"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// ciRoutes registers the pages of pipelines. Their roles are GitLab's: guests
// see pipelines and logs, developers run them where they may push, maintainers
// manage variables, runners and triggers.
func (s *Server) ciRoutes() {
	guest, developer, maintainer := delivery.Guest, delivery.Developer, delivery.Maintainer
	s.handleProject("GET /pipelines", guest, s.pipelinesPage)
	s.handleProject("POST /pipelines", developer, s.createPipeline)
	s.handleProject("GET /pipelines/new", developer, s.newPipelineForm)
	s.handleProject("GET /pipelines/latest", guest, s.latestPipeline)
	s.handleProject("GET /pipelines/{id}", guest, s.pipelinePage)
	s.handleProject("GET /pipelines/{id}/{tab}", guest, s.pipelinePage)
	s.handleProject("POST /pipelines/{id}/retry", developer, s.retryPipeline)
	s.handleProject("POST /pipelines/{id}/cancel", developer, s.cancelPipeline)
	s.handleProject("POST /pipelines/{id}/delete", delivery.Owner, s.deletePipeline)

	s.handleProject("GET /jobs", guest, s.jobsPage)
	s.handleProject("GET /jobs/{id}", guest, s.jobPage)
	s.handleProject("GET /jobs/{id}/raw", guest, s.jobRaw)
	s.handleProject("GET /jobs/{id}/log", guest, s.jobLog)
	for _, action := range []string{"play", "retry", "cancel", "unschedule"} {
		s.handleProject("POST /jobs/{id}/"+action, developer, s.jobAction(action))
	}
	s.handleProject("POST /jobs/{id}/erase", maintainer, s.eraseJob)
	s.artifactRoutes()
	s.scheduleRoutes()
	s.environmentRoutes()
	s.ciSettingsRoutes()
	s.editorRoutes()
	s.handleProject("GET /badges/{path...}", guest, s.badge)
}

// number reads a numeric path value.
func number(r *Request, name string) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil || n <= 0 {
		return 0, notFound()
	}
	return n, nil
}

// mayRun reports whether the caller may run pipelines on a ref: who may push
// to a branch, or create a tag, may.
func (s *Server) mayRun(r *Request, ref string, tag bool) (bool, error) {
	if r.Who.User == nil || r.Role < delivery.Developer {
		return false, nil
	}
	return s.Pipelines.RepositoriesPort().MayUpdate(r.Context(), r.Who.User.ID, r.Project.ID, ref, tag)
}

// mayAct is mayRun for what happens in a pipeline that exists.
func (s *Server) mayAct(r *Request, p *pipeline.Pipeline) (bool, error) {
	if p.MergeRequestIID != 0 {
		return r.Who.User != nil && r.Role >= delivery.Developer, nil
	}
	return s.mayRun(r, p.Ref, p.Tag)
}

// requireAct refuses callers that mayAct does not let.
func (s *Server) requireAct(r *Request, p *pipeline.Pipeline) error {
	ok, err := s.mayAct(r, p)
	if err == nil && !ok {
		err = delivery.Errorf(delivery.Forbidden, "You may not run pipelines on %s: this needs the right to push to it.", p.Ref)
	}
	return err
}

// people looks accounts up once per page.
type people struct {
	s     *Server
	ctx   context.Context
	known map[int64]*delivery.User
}

func (s *Server) people(ctx context.Context) *people {
	return &people{s, ctx, map[int64]*delivery.User{}}
}

// find returns an account, nil for none or one that is gone.
func (p *people) find(id int64) (*delivery.User, error) {
	if u, ok := p.known[id]; ok || id == 0 {
		return u, nil
	}
	u, err := p.s.Access.User(p.ctx, id)
	if err != nil && !delivery.IsNotFound(err) {
		return nil, err
	}
	p.known[id] = nil
	if err == nil {
		p.known[id] = &u
	}
	return p.known[id], nil
}

// ciFuncs are what the templates of pipelines may call.
func (s *Server) ciFuncs() template.FuncMap {
	return template.FuncMap{
		"ciWord":         ciWord,
		"ciReason":       ciReason,
		"ciHead":         s.ciHead,
		"ciCompare":      s.ciCompare,
		"clock":          clock,
		"ciRefLink":      ciRefLink,
		"ciRefWord":      ciRefWord,
		"ciGlyph":        func(status string) string { return statusGlyphs[status] },
		"deref":          func(f *float64) float64 { return *f },
		"blankVariables": func() []formVariable { return make([]formVariable, 3) },
		"blankVariable":  func() pipeline.Variable { return pipeline.Variable{Environment: "*"} },
		"runnerWord":     func(status string) string { return strings.ReplaceAll(status, "_", " ") },
		"sourceWord": func(source string) string {
			return sourceWords[source]
		},
	}
}

var statusWords = map[string]string{
	"created": "Created", "waiting_for_resource": "Waiting for resource", "preparing": "Preparing", "pending": "Pending", "running": "Running",
	"success": "Passed", "warning": "Passed with warnings", "failed": "Failed", "allowed": "Failed, allowed", "canceled": "Canceled", "canceling": "Canceling", "skipped": "Skipped",
	"manual": "Manual", "scheduled": "Delayed",
}

var statusGlyphs = map[string]string{
	"created": "○", "waiting_for_resource": "‖", "preparing": "‖", "pending": "‖", "running": "◔", "success": "✓", "warning": "!", "failed": "✕", "allowed": "!",
	"canceled": "⊘", "canceling": "⊘", "skipped": "»", "manual": "▶", "scheduled": "◷", "error": "✕",
}

// ciWord names a status as GitLab's pages do.
func ciWord(status string) string {
	if w := statusWords[status]; w != "" {
		return w
	}
	return status
}

var sourceWords = map[string]string{
	pipeline.SourcePush: "push", pipeline.SourceWeb: "by hand", pipeline.SourceAPI: "API", pipeline.SourceSchedule: "schedule", pipeline.SourceTrigger: "trigger token",
	pipeline.SourceMergeRequest: "merge request", pipeline.SourceParentPipeline: "child", pipeline.SourcePipeline: "another project",
}

var reasonWords = map[string]string{
	pipeline.ReasonScript: "The script failed.", pipeline.ReasonUnknown: "It failed for an unknown reason.", pipeline.ReasonStuck: "The runner fell silent, or none took the job in time.",
	pipeline.ReasonTimeout: "It ran longer than its timeout.", pipeline.ReasonRunnerSystem: "The runner failed, not the script.", pipeline.ReasonData: "Stored data of the job are damaged.",
	pipeline.ReasonDownstream: "The downstream pipeline could not be made.", pipeline.ReasonUpstreamDepth: "Too many pipelines start one another.",
	pipeline.ReasonMissingDep: "Artifacts that it needs are missing or expired.", pipeline.ReasonUnmet: "What it needs before it starts is missing; its log says what.", pipeline.ReasonConfig: "The configuration has errors.",
	pipeline.ReasonStaleDeployment: "A newer deployment has been made already.", pipeline.ReasonBridgeDownstream: "The downstream project does not exist, or you may not see it.",
}

// ciReason puts a failure reason into a sentence.
func ciReason(reason string) string {
	if w := reasonWords[reason]; w != "" {
		return w
	}
	return reason
}

// clock writes a length of time as 1:02:03, the way logs and lists of jobs do.
func clock(d time.Duration) string {
	if d <= 0 {
		return "–"
	}
	n := int(d.Round(time.Second) / time.Second)
	two := func(i int) string {
		if i < 10 {
			return "0" + strconv.Itoa(i)
		}
		return strconv.Itoa(i)
	}
	if n >= 3600 {
		return strconv.Itoa(n/3600) + ":" + two(n/60%60) + ":" + two(n%60)
	}
	return two(n/60) + ":" + two(n%60)
}

// ciRefWord is what a pipeline ran for, in short: a merge request, or a branch
// or tag.
func ciRefWord(p pipeline.Pipeline) string {
	if p.MergeRequestIID != 0 {
		return "!" + strconv.FormatInt(p.MergeRequestIID, 10)
	}
	return p.Ref
}

// ciRefLink is the page of what a pipeline ran for.
func ciRefLink(full string, p pipeline.Pipeline) string {
	if p.MergeRequestIID != 0 {
		return projectPath(full, "merge_requests", strconv.FormatInt(p.MergeRequestIID, 10))
	}
	return projectPath(full, "tree", escapePath(p.Ref))
}

// headView is the newest pipeline of a commit, for other pages.
type headView struct{ Status, Word, Link string }

// ciHead returns the newest pipeline of a commit, nil when there is none. A
// page that lists commits asks once for each: one indexed read.
func (s *Server) ciHead(project *delivery.Project, sha string) (*headView, error) {
	if s.Pipelines == nil || sha == "" || project == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	id, status, err := s.Pipelines.HeadPipeline(ctx, project.ID, sha)
	if err != nil || id == 0 {
		return nil, err
	}
	return &headView{status, ciWord(status), projectPath(project.FullPath, "pipelines", strconv.FormatInt(id, 10))}, nil
}
