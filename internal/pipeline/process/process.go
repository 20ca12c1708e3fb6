// Package process is the pipeline state machine: given a pipeline and what
// just happened to one of its jobs, it says which statuses jobs, stages and
// the pipeline take.
//
// It owns the rules of scheduling (stages and needs, manual, delayed,
// on_failure, always, allow_failure, retries, cancellation) and follows
// GitLab's atomic pipeline processing. It receives jobs and events as plain
// values and emits changed statuses; it does no input or output and knows no
// clock. It imports the standard library only.
package process

import "fmt"

// When says which outcome of the earlier jobs lets a job run.
type When uint8

// Conditions of the `when` keyword.
const (
	OnSuccess When = iota
	OnFailure
	Always
	OnManual
	Delayed
	Never
)

// ParseWhen reads the keyword's value; empty means on_success.
func ParseWhen(s string) (When, error) {
	switch s {
	case "", "on_success":
		return OnSuccess, nil
	case "on_failure":
		return OnFailure, nil
	case "always":
		return Always, nil
	case "manual":
		return OnManual, nil
	case "delayed":
		return Delayed, nil
	case "never":
		return Never, nil
	}
	return 0, fmt.Errorf("process: %q is not a value of when", s)
}

// Job is the current attempt of a job.
type Job struct {
	Name         string
	Stage        int // index in Pipeline.Stages
	Status       Status
	When         When
	AllowFailure bool
	// Needs are the jobs that this one waits for, by index in Pipeline.Jobs.
	// With DAG and no needs the job starts at once; without DAG it waits for the
	// earlier stages.
	DAG   bool
	Needs []int
	// Resource is set for a job in a resource group: it waits for the group
	// before it becomes pending.
	Resource bool
	// Bridge is set for a job that starts another pipeline: it cannot be delayed.
	Bridge bool
	// Attempt counts the retries of the job, from 0. It grows when an event
	// replaces the job by a new attempt.
	Attempt int
	// Immediate makes the next attempt of a manual job start without being
	// asked again. It is used up when the job leaves Created.
	Immediate bool
}

// Pipeline is a pipeline's current jobs. Statuses of stages and of the
// pipeline are kept, because they depend on what they were before.
type Pipeline struct {
	Status     Status
	Stages     []Status
	StageNames []string
	Jobs       []Job
	// CancelOnFailure is workflow:auto_cancel:on_job_failure: all.
	CancelOnFailure bool

	byStage [][]int // jobs of a stage, each after those that it needs
	needed  [][]int // the inverse of Needs
}

// New returns a pipeline in which nothing was processed yet. It refuses needs
// that are out of range or circular, and stages out of range.
func New(stages []string, jobs []Job) (*Pipeline, error) {
	p := &Pipeline{StageNames: stages, Stages: make([]Status, len(stages)), Jobs: jobs}
	if err := p.index(); err != nil {
		return nil, err
	}
	return p, nil
}

// index computes the processing order.
func (p *Pipeline) index() error {
	p.byStage = make([][]int, len(p.Stages))
	p.needed = make([][]int, len(p.Jobs))
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, len(p.Jobs))
	var visit func(i int) error
	visit = func(i int) error {
		switch state[i] {
		case done:
			return nil
		case open:
			return fmt.Errorf("process: job %q needs itself, directly or through others", p.Jobs[i].Name)
		}
		state[i] = open
		for _, n := range p.Jobs[i].Needs {
			if n < 0 || n >= len(p.Jobs) {
				return fmt.Errorf("process: job %q needs a job that does not exist", p.Jobs[i].Name)
			}
			p.needed[n] = append(p.needed[n], i)
			if err := visit(n); err != nil {
				return err
			}
		}
		state[i] = done
		stage := p.Jobs[i].Stage
		if stage < 0 || stage >= len(p.Stages) {
			return fmt.Errorf("process: job %q has no stage", p.Jobs[i].Name)
		}
		p.byStage[stage] = append(p.byStage[stage], i)
		return nil
	}
	for i := range p.Jobs {
		if err := visit(i); err != nil {
			return err
		}
	}
	return nil
}

// Process moves jobs whose turn has come and brings the statuses of the stages
// and the pipeline up to date, until nothing changes any more.
func (p *Pipeline) Process() {
	for p.pass() {
	}
}

// pass is one round of processing, in the order of the stages. It reports
// whether it changed a job.
func (p *Pipeline) pass() bool {
	changed := false
	var all set
	for stage := range p.Stages {
		var here set
		before := all.composite(false) // of all jobs of earlier stages
		for _, i := range p.byStage[stage] {
			j := &p.Jobs[i]
			if j.Status == Created && p.advance(i, before) {
				changed = true
			}
			here = here.add(j.Status, j.AllowFailure)
		}
		p.Stages[stage] = nextStageStatus(p.Stages[stage], here.composite(false))
		all |= here
	}
	p.Status = nextPipelineStatus(p.Status, all.composite(false))
	return changed
}

// advance decides about one created job, and reports whether it changed.
func (p *Pipeline) advance(i int, stagesBefore Status) bool {
	j := &p.Jobs[i]
	previous := stagesBefore
	if j.DAG {
		var needs set
		for _, n := range j.Needs {
			needs = needs.add(p.Jobs[n].Status, p.Jobs[n].AllowFailure)
		}
		previous = needs.composite(true)
	}
	if !previous.Completed() {
		return false
	}
	switch {
	case !j.runsAfter(previous):
		j.Status = Skipped
	case j.Immediate:
		j.Immediate = false
		j.enqueue()
	case j.When == Delayed && !j.Bridge:
		j.Status = Scheduled
	case j.When == OnManual:
		j.Status = Manual
	default:
		j.enqueue()
	}
	return true
}

// runsAfter says whether the job runs after jobs of this composite status.
func (j *Job) runsAfter(previous Status) bool {
	switch j.When {
	case OnSuccess, OnManual, Delayed:
		return previous == Success || previous == Skipped && !j.DAG
	case OnFailure:
		return previous == Failed
	case Always:
		return previous == Success || previous == Failed || previous == Skipped
	}
	return false
}

func (j *Job) enqueue() {
	if j.Resource {
		j.Status = WaitingForResource
	} else {
		j.Status = Pending
	}
}

// nextStageStatus applies a composite to a stage: created changes nothing.
func nextStageStatus(was, composite Status) Status {
	if composite == Created {
		return was
	}
	return composite
}

// nextPipelineStatus applies a composite to a pipeline. A pipeline that had
// ended goes on as running, and a running one does not go back to pending.
func nextPipelineStatus(was, composite Status) Status {
	switch composite {
	case Created:
		return was
	case Pending:
		switch was {
		case Success, Failed, Canceling, Canceled, Running:
			return Running
		}
		return Pending
	case Canceling:
		if was == Canceled {
			return was
		}
	}
	return composite
}
