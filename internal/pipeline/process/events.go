package process

import "fmt"

// Event is something that happens to a job.
type Event uint8

// Events. Success, Drop, Run and Acquire report what a runner or a resource
// group did; Play, Retry and Cancel are what people ask for; Skip is for jobs
// that turn out to have nothing to do; Due starts a delayed job.
const (
	EventSuccess Event = iota
	EventDrop
	EventRun
	EventPlay
	EventRetry
	EventCancel
	EventStartCancel // cancel a running job whose runner can finish up first
	EventSkip
	EventAcquire
	EventDue
	EventUnschedule
	EventRequeue // a runner took the job and did not accept it
)

var eventNames = map[Event]string{
	EventSuccess: "success", EventDrop: "drop", EventRun: "run", EventPlay: "play", EventRetry: "retry",
	EventCancel: "cancel", EventStartCancel: "start_cancel", EventSkip: "skip", EventAcquire: "acquire",
	EventDue: "due", EventUnschedule: "unschedule", EventRequeue: "requeue",
}

// String returns the event's name.
func (e Event) String() string { return eventNames[e] }

// ParseEvent is the inverse of String.
func ParseEvent(name string) (Event, error) {
	for e, n := range eventNames {
		if n == name {
			return e, nil
		}
	}
	return 0, fmt.Errorf("process: %q is not an event", name)
}

// TransitionError says that a job's status does not allow an event.
type TransitionError struct {
	Job   string
	From  Status
	Event Event
}

// Error names the job, its status and the event.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("process: job %q is %s: %s is not possible", e.Job, e.From, e.Event)
}

var transitions = map[Event]struct {
	from set
	to   Status
}{
	EventSuccess:     {setOf(Created, WaitingForResource, Preparing, Pending, Running, Canceling), Success},
	EventDrop:        {setOf(Created, WaitingForResource, Preparing, Pending, Running, Scheduled, Canceling, Manual), Failed},
	EventRun:         {setOf(Pending), Running},
	EventCancel:      {setOf(Created, WaitingForResource, Preparing, Pending, Running, Scheduled, Manual, Canceling), Canceled},
	EventStartCancel: {setOf(Running), Canceling},
	EventSkip:        {setOf(Created, WaitingForResource, Preparing, Pending, Scheduled), Skipped},
	EventAcquire:     {setOf(WaitingForResource), Pending},
	EventUnschedule:  {setOf(Scheduled), Manual},
	EventRequeue:     {setOf(Running), Pending},
}

// Apply lets the event happen to job i and processes the pipeline. It returns
// a *TransitionError, and changes nothing, where the job's status does not
// allow the event.
func (p *Pipeline) Apply(i int, event Event) error {
	if err := p.Change(i, event); err != nil {
		return err
	}
	p.Process()
	return nil
}

// Change is Apply without processing, for several events at once.
func (p *Pipeline) Change(i int, event Event) error {
	j := &p.Jobs[i]
	switch event {
	case EventPlay:
		return p.play(i)
	case EventDue:
		if j.Status != Scheduled {
			return &TransitionError{j.Name, j.Status, event}
		}
		j.enqueue()
		return nil
	case EventRetry:
		return p.retry(i)
	}
	t := transitions[event]
	if !t.from.has(j.Status) {
		return &TransitionError{j.Name, j.Status, event}
	}
	to := t.to
	if j.Status == Canceling && event == EventDrop {
		to = Canceled // its runner reports the end of a canceled job as a failure
	}
	j.Status = to
	if to == Failed && !j.AllowFailure && p.CancelOnFailure {
		p.CancelJobs(nil)
	}
	return nil
}

// play starts a manual or delayed job, and retries one that has ended.
func (p *Pipeline) play(i int) error {
	j := &p.Jobs[i]
	switch j.Status {
	case Created, Skipped, Manual, Scheduled:
		j.enqueue()
		p.resetSkipped(i)
		return nil
	}
	return p.retry(i)
}

// Retryable reports whether a new attempt of the job can be made.
func (s Status) Retryable() bool { return setOf(Success, Failed, Canceled, Canceling).has(s) }

// retry replaces the job by a new attempt and gives the jobs that were skipped
// because of it another chance.
func (p *Pipeline) retry(i int) error {
	j := &p.Jobs[i]
	if !j.Status.Retryable() {
		return &TransitionError{j.Name, j.Status, EventRetry}
	}
	p.renew(i)
	j.Immediate = j.When == OnManual || j.When == Delayed
	p.Process()
	p.resetSkipped(i)
	return nil
}

func (p *Pipeline) renew(i int) {
	j := &p.Jobs[i]
	j.Attempt++
	j.Status, j.Immediate = Created, false
}

// resetSkipped returns skipped jobs that come after job i, by stage or by
// needs, to Created.
func (p *Pipeline) resetSkipped(i int) {
	seen := make(map[int]bool)
	todo := []int{i}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		todo = append(todo, p.needed[n]...)
	}
	for n := range p.Jobs {
		if p.Jobs[n].Status == Skipped && (seen[n] || p.Jobs[n].Stage > p.Jobs[i].Stage) {
			p.Jobs[n].Status = Created
		}
	}
}

// Retry makes new attempts of all failed and canceled jobs, resets all skipped
// ones and processes the pipeline. Manual jobs wait to be played again.
func (p *Pipeline) Retry() {
	for i := range p.Jobs {
		switch p.Jobs[i].Status {
		case Failed, Canceled:
			p.renew(i)
		case Skipped:
			p.Jobs[i].Status = Created
		}
	}
	p.Process()
}

// Cancel cancels every job that can be canceled and processes the pipeline.
// only, if not nil, limits it to some jobs.
func (p *Pipeline) Cancel(only func(i int) bool) {
	p.CancelJobs(only)
	p.Process()
}

// CancelJobs is Cancel without processing. Running jobs become canceled at
// once; the caller uses EventStartCancel before where the runner can finish up.
func (p *Pipeline) CancelJobs(only func(i int) bool) {
	for i := range p.Jobs {
		if p.Jobs[i].Status.Cancelable() && (only == nil || only(i)) {
			p.Jobs[i].Status = Canceled
		}
	}
}
