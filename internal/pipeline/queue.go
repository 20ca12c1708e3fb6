package pipeline

import (
	"context"
	"sort"
	"strconv"
	"sync"
	"time"
)

// queued is a pending job that waits for a runner.
type queued struct {
	jobID, pipelineID, projectID int64
	tags                         []string
	protected                    bool
	groups                       []int64 // groups above the project
	at                           time.Time
}

// suits reports whether the runner may and can run the job. The rules are
// GitLab's (doc/ci/runners): scope, protection and tags.
func (q *queued) suits(r *Runner) bool {
	if r.Paused || r.RefProtected && !q.protected {
		return false
	}
	switch r.Kind {
	case GroupRunner:
		if !containsID(q.groups, r.OwnerID) {
			return false
		}
	case ProjectRunner:
		if !containsID(r.Projects, q.projectID) {
			return false
		}
	}
	if len(q.tags) == 0 {
		return r.RunUntagged
	}
	for _, t := range q.tags {
		if !containsString(r.Tags, t) {
			return false
		}
	}
	return true
}

func containsID(list []int64, x int64) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

func containsString(list []string, x string) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

// queue matches pending jobs with waiting runners. It is a view of the store:
// rebuilt at the start, kept up to date after every commit.
type queue struct {
	mu      sync.Mutex
	jobs    []*queued // by job, the oldest first
	byID    map[int64]*queued
	waiters []*waiter
	running map[int64]int // jobs on instance runners, by project
	version int64
}

type waiter struct {
	runner *Runner
	jobs   chan *queued // of one place
}

func newQueue() *queue {
	return &queue{byID: map[int64]*queued{}, running: map[int64]int{}}
}

// push adds a job, or hands it to the runner that has waited longest.
func (q *queue) push(job *queued) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID[job.jobID] != nil {
		return
	}
	q.version++
	for i, w := range q.waiters {
		if job.suits(w.runner) {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			w.jobs <- job
			return
		}
	}
	q.byID[job.jobID] = job
	at := sort.Search(len(q.jobs), func(i int) bool { return q.jobs[i].jobID > job.jobID })
	q.jobs = append(q.jobs, nil)
	copy(q.jobs[at+1:], q.jobs[at:])
	q.jobs[at] = job
}

// remove drops a job that is not pending any more.
func (q *queue) remove(jobID int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.removeLocked(jobID)
}

func (q *queue) removeLocked(jobID int64) {
	if q.byID[jobID] == nil {
		return
	}
	delete(q.byID, jobID)
	at := sort.Search(len(q.jobs), func(i int) bool { return q.jobs[i].jobID >= jobID })
	q.jobs = append(q.jobs[:at], q.jobs[at+1:]...)
}

// take waits for a job for the runner. A job that it returned is out of the
// queue. Instance runners serve the project that has the fewest running jobs
// first; others the oldest job.
func (q *queue) take(ctx context.Context, r *Runner) (*queued, error) {
	q.mu.Lock()
	var best *queued
	for _, j := range q.jobs {
		if !j.suits(r) {
			continue
		}
		if best == nil || q.running[j.projectID] < q.running[best.projectID] {
			best = j
		}
		if r.Kind != InstanceRunner || q.running[best.projectID] == 0 {
			break
		}
	}
	if best != nil {
		q.removeLocked(best.jobID)
		q.mu.Unlock()
		return best, nil
	}
	w := &waiter{runner: r, jobs: make(chan *queued, 1)}
	q.waiters = append(q.waiters, w)
	q.mu.Unlock()
	select {
	case job := <-w.jobs:
		return job, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	for i, other := range q.waiters {
		if other == w {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			break
		}
	}
	q.mu.Unlock()
	select {
	case job := <-w.jobs: // handed over in the last moment
		return job, nil
	default:
		return nil, ctx.Err()
	}
}

// recheck wakes runners after their settings changed, so that they are matched
// anew with what they are now.
func (q *queue) recheck(r *Runner) {
	q.mu.Lock()
	var mine []*waiter
	rest := q.waiters[:0]
	for _, w := range q.waiters {
		if w.runner.ID == r.ID {
			mine = append(mine, w)
		} else {
			rest = append(rest, w)
		}
	}
	q.waiters = rest
	q.mu.Unlock()
	for _, w := range mine {
		w.jobs <- nil
	}
}

// started and ended count running jobs of a project on instance runners.
func (q *queue) started(projectID int64) {
	q.mu.Lock()
	q.running[projectID]++
	q.mu.Unlock()
}

func (q *queue) ended(projectID int64) {
	q.mu.Lock()
	if q.running[projectID]--; q.running[projectID] <= 0 {
		delete(q.running, projectID)
	}
	q.mu.Unlock()
}

// before counts the jobs ahead of one; -1 when it is not in the queue.
func (q *queue) before(jobID int64) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID[jobID] == nil {
		return -1
	}
	return sort.Search(len(q.jobs), func(i int) bool { return q.jobs[i].jobID >= jobID })
}

func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

func (q *queue) runningOf(projectID int64) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running[projectID]
}

// lastUpdate changes whenever a job was queued.
func (q *queue) lastUpdate() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strconv.FormatInt(q.version, 36)
}
