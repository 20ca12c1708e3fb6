package pipeline

import (
	"context"
	"sort"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// ResourceModes are the orders in which jobs get a resource group, GitLab's
// process modes (doc/ci/resource_groups). The first is the default.
var ResourceModes = [...]string{"unordered", "oldest_first", "newest_first", "newest_ready_first"}

// SetResourceMode changes in which order jobs get a resource group.
func (e *Engine) SetResourceMode(ctx context.Context, projectID int64, group, mode string) error {
	known := false
	for _, m := range ResourceModes {
		known = known || m == mode
	}
	if !known {
		return delivery.Errorf(delivery.Invalid, "process_mode does not have a valid value")
	}
	return e.update(ctx, func(u *unit) error {
		have, err := u.tx.ResourceMode(projectID, group)
		if err == nil && have == "" {
			err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Resource Group Not Found"}
		}
		if err != nil {
			return err
		}
		if err := u.tx.SetResourceMode(projectID, group, mode); err != nil {
			return err
		}
		return u.assignResource(projectID, group, &Job{})
	})
}

// UpcomingJobs lists the jobs of a resource group that are to get it, the next
// one first. Modes that follow the order of pipelines count jobs that are not
// ready yet.
func UpcomingJobs(tx Tx, projectID int64, group string) ([]Job, error) {
	jobs, err := tx.ResourceJobs(projectID, group)
	if err != nil {
		return nil, err
	}
	mode, err := tx.ResourceMode(projectID, group)
	return upcoming(jobs, mode), err
}

// upcoming selects and sorts the jobs that are to get a resource group.
func upcoming(jobs []Job, mode string) []Job {
	var out []Job
	ordered := mode == "oldest_first" || mode == "newest_first"
	for _, j := range jobs {
		if j.Status == "waiting_for_resource" || ordered && (j.Status == "created" || j.Status == "scheduled") {
			out = append(out, j)
		}
	}
	ready := func(j *Job) bool { return j.Status == "waiting_for_resource" }
	sort.SliceStable(out, func(a, b int) bool {
		x, y := &out[a], &out[b]
		switch {
		case x.PipelineID == y.PipelineID || mode == "" || mode == "unordered":
			if ready(x) != ready(y) {
				return ready(x)
			}
			return x.ID < y.ID
		case strings.HasPrefix(mode, "newest"):
			return x.PipelineID > y.PipelineID
		}
		return x.PipelineID < y.PipelineID
	})
	return out
}

// assignResource gives a resource group to the next job that waits for it, if
// nobody holds it. current is a job of the group whose row is not written yet.
func (u *unit) assignResource(projectID int64, group string, current *Job) error {
	jobs, err := u.tx.ResourceJobs(projectID, group)
	if err != nil {
		return err
	}
	known := false
	for i := range jobs {
		known = known || jobs[i].ID == current.ID
		jobs[i].Status = u.statusNow(&jobs[i])
		switch jobs[i].Status {
		case "preparing", "pending", "running", "canceling":
			return nil
		}
	}
	if !known && current.ID != 0 {
		jobs = append(jobs, *current)
	}
	mode, err := u.tx.ResourceMode(projectID, group)
	if err != nil {
		return err
	}
	if mode == "" {
		if err := u.tx.SetResourceMode(projectID, group, ResourceModes[0]); err != nil {
			return err
		}
	}
	list := upcoming(jobs, mode)
	if len(list) == 0 || list[0].Status != "waiting_for_resource" {
		return nil
	}
	next := list[0]
	lp, err := u.load(next.PipelineID)
	if err != nil {
		return err
	}
	i, err := lp.job(next.ID)
	if err != nil {
		return err
	}
	return lp.proc.Apply(i, process.EventAcquire)
}
