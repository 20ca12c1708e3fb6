package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

const jobsOnPage = 30

// jobRow is a job in a list.
type jobRow struct {
	graphJob
	ID        int64
	StageName string
	Pipeline  int64
	PipeLink  string
	Ref, SHA  string
	Tags      []string
	Retried   bool
	Took      time.Duration
	Finished  time.Time
	Created   time.Time
	Coverage  *float64
	Reason    string
	Archive   *pipeline.Artifact
}

// jobsView is a page of a project's jobs.
type jobsView struct {
	Project    *delivery.Project
	Scope      string
	Scopes     []scopeTab
	Rows       []jobRow
	Prev, Next string
	Live       string
}

func jobLink(p *delivery.Project, id int64) string {
	return projectPath(p.FullPath, "jobs", strconv.FormatInt(id, 10))
}

func (s *Server) jobsPage(w http.ResponseWriter, r *Request) error {
	page := pageNumber(r)
	bridge := false
	v := jobsView{Project: r.Project, Scope: r.FormValue("scope"), Scopes: []scopeTab{{"", "All", "?"}, {"pending", "Pending", "?scope=pending"}, {"running", "Running", "?scope=running"}, {"finished", "Finished", "?scope=finished"}}}
	f := pipeline.JobFilter{ProjectID: r.Project.ID, Bridge: &bridge}
	switch v.Scope {
	case "pending":
		f.Statuses = []string{"pending", "waiting_for_resource", "preparing"}
	case "running":
		f.Statuses = []string{"running", "canceling"}
	case "finished":
		f.Statuses = []string{"success", "failed", "canceled"}
	default:
		v.Scope = ""
	}
	var list []pipeline.Job
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, _, err = tx.Jobs(f, pipeline.Page{Limit: jobsOnPage + 1, Offset: (page - 1) * jobsOnPage})
		return err
	}); err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, len(list) > jobsOnPage)
	var err error
	if v.Rows, err = s.jobRows(r, list[:min(len(list), jobsOnPage)]); err != nil {
		return err
	}
	if page == 1 {
		v.Live = projectPath(r.Project.FullPath, "jobs") + "?" + r.URL.RawQuery
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "ci_jobs", "jobs", v)
	}
	return s.render(w, r, http.StatusOK, "ci_jobs", Page{Title: "Jobs", Active: "jobs", Data: v})
}

// jobRows adds to jobs what lists of them show.
func (s *Server) jobRows(r *Request, list []pipeline.Job) ([]jobRow, error) {
	pipelines := map[int64]pipeline.Pipeline{}
	archives := map[int64]*pipeline.Artifact{}
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		for i := range list {
			id := list[i].PipelineID
			if _, ok := pipelines[id]; !ok {
				p, err := tx.Pipeline(id)
				if err != nil {
					return err
				}
				pipelines[id] = p
			}
			files, err := tx.Artifacts(list[i].ID)
			if err != nil {
				return err
			}
			for k := range files {
				if files[k].Type == "archive" {
					archives[list[i].ID] = &files[k]
				}
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	may := map[int64]bool{}
	for id, p := range pipelines {
		ok, err := s.mayAct(r, &p)
		if err != nil {
			return nil, err
		}
		may[id] = ok
	}
	waits, err := s.Pipelines.Waits(r.Context())
	if err != nil {
		return nil, err
	}
	now := s.Pipelines.Now()
	var rows []jobRow
	for i := range list {
		j := &list[i]
		p := pipelines[j.PipelineID]
		row := jobRow{graphJob: graphJob{Name: j.Name, Status: shownStatus(j), Link: jobLink(r.Project, j.ID), Environment: j.Environment}, ID: j.ID, StageName: j.Stage,
			Pipeline: p.ID, PipeLink: pipelineLink(r.Project, p.ID), Ref: ciRefWord(p), SHA: p.SHA, Tags: j.Tags, Retried: j.Retried, Took: j.Duration(now), Finished: j.FinishedAt,
			Created: j.CreatedAt, Coverage: j.Coverage, Archive: archives[j.ID]}
		if j.FailureReason != "" {
			row.Reason = ciReason(j.FailureReason)
		}
		if row.Waits = waits(&p, j); row.Waits != "" {
			row.Reason = row.Waits
		}
		if may[j.PipelineID] && !j.Retried {
			if row.Action = mainAction(j); row.Action != "" {
				row.ActionLink = row.Link + "/" + row.Action
			}
		}
		if j.Bridge {
			row.Link = ""
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// jobView is a job with its log.
type jobView struct {
	pipeline.JobView
	Project   *delivery.Project
	Status    string
	User      *delivery.User
	Took      time.Duration
	Queued    time.Duration
	Base      string
	PipeLink  string
	Live      string
	May       bool
	MayErase  bool
	Stuck     string // why it does not run yet
	Siblings  []graphJob
	Files     *artifactsView
	Tail      []logLine
	Truncated bool
	LogSize   int64
	Confirm   string
	Inputs    []gitlabci.JobInput
	Needs     []graphJob
	EnvLink   string
	Timeout   time.Duration
}

func (s *Server) jobOf(r *Request) (pipeline.JobView, error) {
	id, err := number(r, "id")
	if err != nil {
		return pipeline.JobView{}, err
	}
	return s.Pipelines.JobView(r.Context(), r.Project.ID, id)
}

func (s *Server) jobPage(w http.ResponseWriter, r *Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	v, err := s.jobHead(r, j)
	if err != nil {
		return err
	}
	if part := r.FormValue("part"); r.Header.Get("X-Fragment") != "" && (part == "head" || part == "side") {
		return s.fragment(w, "ci_job", "job-"+part, &v)
	}
	if v.Tail, v.Truncated, err = s.logTail(r.Context(), &v.Job, 64<<10); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "ci_job", Page{Title: v.Job.Name + " (#" + strconv.FormatInt(v.Job.ID, 10) + ")", Active: "jobs", Data: &v})
}

func (s *Server) jobHead(r *Request, j pipeline.JobView) (jobView, error) {
	now := s.Pipelines.Now()
	v := jobView{JobView: j, Project: r.Project, Status: shownStatus(&j.Job), Took: j.Job.Duration(now), Base: jobLink(r.Project, j.Job.ID), PipeLink: pipelineLink(r.Project, j.Pipeline.ID),
		Timeout: time.Duration(j.Job.Timeout) * time.Second}
	if !j.Job.QueuedAt.IsZero() {
		until := j.Job.StartedAt
		if until.IsZero() {
			until = now
		}
		v.Queued = until.Sub(j.Job.QueuedAt)
	}
	var err error
	if v.User, err = s.people(r.Context()).find(j.Job.UserID); err != nil {
		return v, err
	}
	if v.May, err = s.mayAct(r, &j.Pipeline); err != nil {
		return v, err
	}
	v.MayErase = v.May && r.Role >= delivery.Maintainer && finalStatus(j.Job.Status) && j.Job.ErasedAt.IsZero()
	if j.Options != nil {
		v.Confirm, v.Inputs = j.Options.ManualConfirmation, j.Options.Inputs
	}
	if !finalStatus(j.Job.Status) && !j.Job.Retried {
		v.Live = v.Base
	}
	if v.Files, err = s.artifactsOf(r, &j); err != nil {
		return v, err
	}
	waits, err := s.Pipelines.Waits(r.Context())
	if err != nil {
		return v, err
	}
	v.Stuck = waits(&j.Pipeline, &j.Job)
	return v, s.fillNeighbours(r, &v)
}

// fillNeighbours adds the jobs of the same stage and those that it waits for.
func (s *Server) fillNeighbours(r *Request, v *jobView) error {
	return s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		jobs, err := tx.PipelineJobs(v.Pipeline.ID)
		if err != nil {
			return err
		}
		needs := map[string]bool{}
		for _, n := range v.Job.Needs {
			needs[n] = true
		}
		for i := range jobs {
			j := &jobs[i]
			one := graphJob{Name: j.Name, Status: shownStatus(j), Link: jobLink(r.Project, j.ID)}
			if j.StageIndex == v.Job.StageIndex && len(v.Siblings) < 200 {
				v.Siblings = append(v.Siblings, one)
			}
			if needs[j.Name] {
				v.Needs = append(v.Needs, one)
			}
		}
		if v.Job.Environment == "" {
			return nil
		}
		env, err := tx.EnvironmentByName(r.Project.ID, v.Job.Environment)
		if err == nil {
			v.EnvLink = projectPath(r.Project.FullPath, "environments", strconv.FormatInt(env.ID, 10))
		}
		if delivery.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// runnerServes reports whether a runner takes jobs of a project whose groups,
// the nearest first, are given.
func runnerServes(x *pipeline.Runner, projectID int64, groups []delivery.Group) bool {
	switch x.Kind {
	case pipeline.InstanceRunner:
		return true
	case pipeline.GroupRunner:
		for _, g := range groups {
			if g.ID == x.OwnerID {
				return true
			}
		}
		return false
	}
	for _, id := range x.Projects {
		if id == projectID {
			return true
		}
	}
	return false
}

// jobInputsOf reads the fields of a form that are inputs of the job.
func jobInputsOf(form url.Values) map[string]string {
	inputs := map[string]string{}
	for name, values := range form {
		if input, ok := strings.CutPrefix(name, "input:"); ok && len(values) > 0 {
			inputs[input] = values[0]
		}
	}
	return inputs
}

// jobAction plays, retries, cancels or unschedules a job.
func (s *Server) jobAction(action string) Handler {
	return func(w http.ResponseWriter, r *Request) error {
		j, err := s.jobOf(r)
		if err != nil {
			return err
		}
		if err := s.requireAct(r, &j.Pipeline); err != nil {
			return err
		}
		ctx, user := r.Context(), r.Who.User.ID
		after, notice := j.Job, ""
		switch action {
		case "play":
			if err := r.ParseForm(); err != nil {
				return &delivery.Error{Kind: delivery.Invalid, Message: "The form cannot be read.", Err: err}
			}
			after, err = s.Pipelines.PlayJob(ctx, user, j.Job.ID, variableValues(givenVariables(r.Form)), jobInputsOf(r.Form))
			notice = "The job has been started."
		case "retry":
			after, err = s.Pipelines.RetryJob(ctx, user, j.Job.ID)
			notice = "The job runs again."
		case "cancel":
			after, err = s.Pipelines.CancelJob(ctx, j.Job.ID, r.FormValue("force") != "")
			notice = "The job is being canceled."
		case "unschedule":
			after, err = s.Pipelines.UnscheduleJob(ctx, j.Job.ID)
			notice = "The job does not start by itself any more."
		}
		if err != nil {
			return err
		}
		to := jobLink(r.Project, after.ID)
		if back := localPath(r.FormValue("return_to")); back != "/" {
			to = back
		} else if j.Job.Bridge {
			to = pipelineLink(r.Project, j.Pipeline.ID)
		}
		return redirect(w, r, to, notice)
	}
}

func (s *Server) eraseJob(w http.ResponseWriter, r *Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &j.Pipeline); err != nil {
		return err
	}
	if _, err := s.Pipelines.EraseJob(r.Context(), j.Job.ID); err != nil {
		return err
	}
	return redirect(w, r, jobLink(r.Project, j.Job.ID), "The log and artifacts of the job are erased.")
}
