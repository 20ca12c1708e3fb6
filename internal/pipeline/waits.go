package pipeline

import (
	"context"
	"strings"
)

// Waits returns what tells why a job of a pipeline does not run yet, as a
// sentence with the next step where there is one, for pages, the API and the
// command line alike: of a job that is pending or waits for a resource group.
// Of any other it says nothing. Errors are those of the store.
func (e *Engine) Waits(ctx context.Context) (func(*Pipeline, *Job) string, error) {
	var runners []Runner
	if err := e.View(ctx, func(tx Tx) error {
		var err error
		runners, err = tx.Runners()
		return err
	}); err != nil {
		return nil, err
	}
	return func(p *Pipeline, j *Job) string {
		switch j.Status {
		case "waiting_for_resource":
			return "Another job holds the resource group " + j.ResourceGroup + "."
		case "pending":
			return e.whyPending(runners, newQueued(p, j))
		}
		return ""
	}, nil
}

func (e *Engine) whyPending(runners []Runner, q *queued) string {
	fits, online := 0, 0
	for i := range runners {
		if x := &runners[i]; q.suits(x) {
			fits++
			if x.Status(e.Now()) == "online" {
				online++
			}
		}
	}
	switch {
	case fits == 0 && len(q.tags) > 0:
		return "No active runner has the tags of this job. Add a runner with them, or change the job's tags."
	case fits == 0:
		return "No active runner serves this project. Add one in the CI/CD settings."
	case online == 0:
		return "The runners that could take this job have not been heard of for a while."
	}
	if reason := e.Waiting(q.jobID); reason != "" {
		return strings.ToUpper(reason[:1]) + reason[1:] + "."
	}
	return "It waits for a runner to become free."
}
