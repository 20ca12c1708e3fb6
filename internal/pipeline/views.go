package pipeline

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// What the pages ask. Everything here reads one consistent snapshot.

// Pipelines lists pipelines, newest first unless the filter says otherwise,
// and counts all that match.
func (e *Engine) Pipelines(ctx context.Context, f PipelineFilter, page Page) ([]Pipeline, int, error) {
	var list []Pipeline
	var total int
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		list, total, err = tx.Pipelines(f, page)
		return err
	})
	return list, total, err
}

// ProjectPipeline returns a pipeline of the project, or an error of kind
// NotFound.
func (e *Engine) ProjectPipeline(ctx context.Context, projectID, id int64) (Pipeline, error) {
	var p Pipeline
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		p, err = tx.Pipeline(id)
		return err
	})
	if err == nil && p.ProjectID != projectID {
		return Pipeline{}, &delivery.Error{Kind: delivery.NotFound, Message: "Pipeline Not Found"}
	}
	return p, err
}

// Graph is a pipeline as it is drawn.
type Graph struct {
	Pipeline   Pipeline
	Stages     []GraphStage
	Upstream   *Pipeline          // the pipeline that started this one
	Downstream map[int64]Pipeline // by the bridge job that started it
	Attempts   int                // earlier attempts of jobs
}

// GraphStage is a column.
type GraphStage struct {
	Name, Status string
	Groups       []GraphGroup
}

// GraphGroup is one box of a column: a job, or the instances of a parallel job.
type GraphGroup struct {
	Name, Status string
	Jobs         []Job // Needs name the jobs that each waits for
}

// Graph returns the stages of a pipeline with their jobs.
func (e *Engine) Graph(ctx context.Context, id int64) (Graph, error) {
	g := Graph{Downstream: map[int64]Pipeline{}}
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		if g.Pipeline, err = tx.Pipeline(id); err != nil {
			return err
		}
		jobs, err := tx.PipelineJobs(id)
		if err != nil {
			return err
		}
		for _, s := range g.Pipeline.Stages {
			g.Stages = append(g.Stages, GraphStage{Name: s.Name, Status: s.Status})
		}
		for _, j := range jobs {
			if j.StageIndex < len(g.Stages) {
				g.Stages[j.StageIndex].add(j)
			}
			g.Attempts += j.Attempt
			if j.DownstreamID != 0 {
				d, err := tx.Pipeline(j.DownstreamID)
				if err == nil {
					g.Downstream[j.ID] = d
				} else if !delivery.IsNotFound(err) {
					return err
				}
			}
		}
		if g.Pipeline.ParentID != 0 {
			up, err := tx.Pipeline(g.Pipeline.ParentID)
			if err == nil {
				g.Upstream = &up
			} else if !delivery.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
	for s := range g.Stages {
		for i := range g.Stages[s].Groups {
			g.Stages[s].Groups[i].Status = groupStatus(g.Stages[s].Groups[i].Jobs)
		}
	}
	return g, err
}

func (s *GraphStage) add(j Job) {
	name := groupName(j.Name)
	for i := range s.Groups {
		if s.Groups[i].Name == name {
			s.Groups[i].Jobs = append(s.Groups[i].Jobs, j)
			return
		}
	}
	s.Groups = append(s.Groups, GraphGroup{Name: name, Jobs: []Job{j}})
}

// groupStatus is the most telling status of several jobs.
func groupStatus(jobs []Job) string {
	for _, want := range []string{"failed", "running", "canceling", "pending", "waiting_for_resource", "preparing", "created", "scheduled", "manual", "canceled", "success", "skipped"} {
		for i := range jobs {
			if jobs[i].Status == want {
				return want
			}
		}
	}
	return "created"
}

// JobView is a job as its page shows it.
type JobView struct {
	Job       Job
	Pipeline  Pipeline
	Options   *gitlabci.Job // its configuration, variables not expanded
	Artifacts []Artifact
	Runner    *Runner
	Manager   *RunnerManager
	Attempts  []Job  // all attempts of the job, the newest first
	Message   string // why the platform itself failed the job; empty otherwise
}

// Playable reports whether the job waits for a person.
func (v *JobView) Playable() bool { return v.Job.Status == "manual" || v.Job.Status == "scheduled" }

// Retryable reports whether a new attempt can be made.
func (v *JobView) Retryable() bool {
	switch v.Job.Status {
	case "success", "failed", "canceled":
		return !v.Job.Retried
	}
	return false
}

// Cancelable reports whether the job can be canceled.
func (v *JobView) Cancelable() bool {
	switch v.Job.Status {
	case "created", "pending", "running", "scheduled", "waiting_for_resource", "preparing":
		return true
	}
	return false
}

// JobView returns a job of the project with what its page shows.
func (e *Engine) JobView(ctx context.Context, projectID, id int64) (JobView, error) {
	var v JobView
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		if v.Job, err = tx.Job(id); err != nil {
			return err
		}
		if v.Job.ProjectID != projectID {
			return &delivery.Error{Kind: delivery.NotFound, Message: "Job Not Found"}
		}
		if v.Pipeline, err = tx.Pipeline(v.Job.PipelineID); err != nil {
			return err
		}
		if v.Options, err = jobOptions(tx, id); err != nil {
			return err
		}
		if v.Artifacts, err = tx.Artifacts(id); err != nil {
			return err
		}
		if v.Attempts, _, err = tx.Jobs(JobFilter{PipelineID: v.Job.PipelineID, Name: v.Job.Name, Retried: true}, Page{Limit: 100}); err != nil {
			return err
		}
		raw, err := tx.Report(id, "message")
		if err != nil {
			return err
		}
		if raw != nil {
			if err := json.Unmarshal(raw, &v.Message); err != nil {
				return fmt.Errorf("pipeline: message of job %d: %w", id, err)
			}
		}
		return v.loadRunner(tx)
	})
	return v, err
}

func (v *JobView) loadRunner(tx Tx) error {
	if v.Job.RunnerID == 0 {
		return nil
	}
	r, err := tx.Runner(v.Job.RunnerID)
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	v.Runner = &r
	managers, err := tx.Managers(r.ID)
	for i := range managers {
		if managers[i].SystemID == v.Job.SystemID {
			v.Manager = &managers[i]
		}
	}
	return err
}

// ArtifactAccess returns the least role that may download a job's artifacts, by
// its artifacts:access; nobody has a role above Owner.
func (e *Engine) ArtifactAccess(ctx context.Context, jobID int64) (delivery.Role, error) {
	options, err := e.optionsOf(ctx, jobID)
	if err != nil || options.Artifacts == nil {
		return delivery.NoAccess, err
	}
	switch options.Artifacts.Access {
	case "none":
		return delivery.Owner + 1, nil
	case "developer":
		return delivery.Developer, nil
	case "maintainer":
		return delivery.Maintainer, nil
	}
	return delivery.NoAccess, nil
}

// CommitStatuses returns the newest pipeline of each commit that has one.
func (e *Engine) CommitStatuses(ctx context.Context, projectID int64, shas []string) (map[string]Pipeline, error) {
	out := map[string]Pipeline{}
	err := e.store.View(ctx, func(tx Tx) error {
		for _, sha := range shas {
			if _, ok := out[sha]; ok {
				continue
			}
			p, err := tx.LatestPipeline(projectID, "", sha)
			if delivery.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			out[sha] = p
		}
		return nil
	})
	return out, err
}

// RefPipeline returns the newest pipeline of a branch or tag, for badges; an
// error of kind NotFound when it has none.
func (e *Engine) RefPipeline(ctx context.Context, projectID int64, ref string) (Pipeline, error) {
	var p Pipeline
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		p, err = tx.LatestPipeline(projectID, ref, "")
		return err
	})
	return p, err
}

// Changed returns a channel that is closed at the next change of a pipeline or
// its jobs. Ask for it before reading, so that no change is missed.
func (e *Engine) Changed(pipelineID int64) <-chan struct{} { return e.changes.next(pipelineID) }

// ProjectChanged is Changed for all pipelines of a project.
func (e *Engine) ProjectChanged(projectID int64) <-chan struct{} { return e.changes.next(-projectID) }

// LogChanged returns a channel that is closed when the job's log grows or the
// job ends.
func (e *Engine) LogChanged(jobID int64) <-chan struct{} { return e.watch.next(jobID) }
