package process_test

import (
	"context"
	"testing"

	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// planned builds the state machine of a configuration for a push to a branch.
// It returns the retries that each job allows and its resource group too.
func planned(t *testing.T, text []byte) (*process.Pipeline, []int, map[string]string) {
	t.Helper()
	facts := gitlabci.Context{Source: "push", Ref: "master", Predefined: map[string]string{"CI_COMMIT_BRANCH": "master", "CI_PIPELINE_SOURCE": "push"}}
	cfg, diags := gitlabci.Compile(context.Background(), ".gitlab-ci.yml", text, &gitlabci.Folder{}, facts)
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	plan, diags := gitlabci.Plan(context.Background(), cfg, facts)
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, j := range plan.Jobs {
		at[j.Name] = i
	}
	groups := map[string]string{}
	var jobs []process.Job
	var retries []int
	for _, j := range plan.Jobs {
		when, err := process.ParseWhen(j.When)
		if err != nil {
			t.Fatal(err)
		}
		job := process.Job{Name: j.Name, Stage: j.StageIndex, When: when, AllowFailure: j.AllowFailure, DAG: j.Needs != nil,
			Resource: j.ResourceGroup != "", Bridge: j.Trigger != nil}
		groups[j.Name] = j.ResourceGroup
		for _, n := range j.Needs {
			job.Needs = append(job.Needs, at[n.Job])
		}
		jobs = append(jobs, job)
		max := 0
		if j.Retry != nil {
			max = j.Retry.Max
		}
		retries = append(retries, max)
	}
	p, err := process.New(plan.Stages, jobs)
	if err != nil {
		t.Fatal(err)
	}
	p.CancelOnFailure = plan.AutoCancel.OnJobFailure == "all"
	return p, retries, groups
}
