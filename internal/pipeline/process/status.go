package process

import "fmt"

// Status is the status of a job, a stage or a pipeline.
type Status uint8

// Statuses, as GitLab names them.
const (
	Created Status = iota
	WaitingForResource
	Preparing
	Pending
	Running
	Success
	Failed
	Canceling
	Canceled
	Skipped
	Manual
	Scheduled
	statusCount
)

var statusNames = [statusCount]string{
	Created: "created", WaitingForResource: "waiting_for_resource", Preparing: "preparing",
	Pending: "pending", Running: "running", Success: "success", Failed: "failed",
	Canceling: "canceling", Canceled: "canceled", Skipped: "skipped", Manual: "manual", Scheduled: "scheduled",
}

// String returns GitLab's name of the status.
func (s Status) String() string {
	if s < statusCount {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// ParseStatus is the inverse of String.
func ParseStatus(name string) (Status, error) {
	for s, n := range statusNames {
		if n == name {
			return Status(s), nil
		}
	}
	return 0, fmt.Errorf("process: %q is not a status", name)
}

// Completed reports whether the status is final unless somebody retries:
// success, failed, canceled or skipped.
func (s Status) Completed() bool { return setOf(Success, Failed, Canceled, Skipped).has(s) }

// Alive reports whether the status leads to another one without anybody's
// help, GitLab's ALIVE_STATUSES.
func (s Status) Alive() bool {
	return setOf(Created, WaitingForResource, Preparing, Pending, Running, Canceling).has(s)
}

// Cancelable reports whether a pipeline's cancellation reaches a job of this
// status, GitLab's CANCELABLE_STATUSES.
func (s Status) Cancelable() bool {
	return setOf(Created, WaitingForResource, Preparing, Pending, Running, Scheduled).has(s)
}

// set is a set of statuses. Two members exist only in sets: a job that failed
// or was canceled but is allowed to, and a manual job that nothing waits for.
type set uint32

const (
	withWarnings Status = statusCount     // failed or canceled, and allowed to
	ignored      Status = statusCount + 1 // manual, and nothing waits for it
)

func setOf(list ...Status) set {
	var s set
	for _, x := range list {
		s |= 1 << x
	}
	return s
}

func (s set) has(x Status) bool { return s&(1<<x) != 0 }
func (s set) any(of set) bool   { return s&of != 0 }
func (s set) only(of set) bool  { return s != 0 && s&^of == 0 }

// add notes a job's status the way composites see it.
func (s set) add(status Status, allowFailure bool) set {
	if allowFailure {
		switch status {
		case Failed, Canceled:
			status = withWarnings
		case Manual:
			status = ignored
		}
	}
	return s | 1<<status
}

// The masks of composite, named by the status that they lead to.
var (
	dagCompleted   = setOf(Success, Failed, Canceled, Skipped, withWarnings)
	allSkipped     = setOf(Skipped, ignored)
	allSuccess     = setOf(Success, Skipped, withWarnings, ignored)
	allCreated     = setOf(Created, withWarnings, ignored)
	allPreparing   = setOf(Preparing, withWarnings, ignored)
	allCanceled    = setOf(Canceled, Success, Skipped, withWarnings, ignored)
	allPending     = setOf(Pending, Created, Skipped, withWarnings, ignored)
	runningPending = setOf(Running, Pending)
)

// composite folds the statuses of several jobs into one. The order of the
// rules is GitLab's (lib/gitlab/ci/status/composite.rb). With dag the question
// is whether a job that needs exactly these jobs may start. No jobs at all
// count as success.
func (s set) composite(dag bool) Status {
	switch {
	case s == 0:
		return Success
	case dag && s.any(allSkipped):
		return Skipped
	case dag && !s.only(dagCompleted):
		return Pending
	case s.only(allSkipped):
		return Skipped
	case s.only(allSuccess):
		return Success
	case s.only(allCreated):
		return Created
	case s.only(allPreparing):
		return Preparing
	case s.only(allCanceled):
		return Canceled
	case s.only(allPending):
		return Pending
	case s.any(runningPending):
		return Running
	case s.has(WaitingForResource):
		return WaitingForResource
	case s.has(Manual):
		return Manual
	case s.has(Scheduled):
		return Scheduled
	case s.has(Preparing):
		return Preparing
	case s.has(Created):
		return Running
	case s.has(Canceling):
		return Canceling
	}
	return Failed
}
