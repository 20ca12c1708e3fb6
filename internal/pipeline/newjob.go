package pipeline

import (
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// newJob makes the row of a planned job.
func newJob(p *Pipeline, g *gitlabci.Job, position int, facts *gitlabci.Context, timeout int) (Job, error) {
	j := Job{ProjectID: p.ProjectID, Name: g.Name, Stage: g.Stage, StageIndex: g.StageIndex, Position: position, When: g.When,
		AllowFailure: g.AllowFailure, AllowCodes: g.AllowFailureExitCodes, DAG: g.Needs != nil, UserID: p.UserID, Tags: g.Tags,
		Interruptible: g.Interruptible != nil && *g.Interruptible, Timeout: timeout}
	for _, n := range g.Needs {
		j.Needs = append(j.Needs, n.Job)
	}
	if g.Retry != nil {
		j.RetryMax, j.RetryWhen, j.RetryCodes = g.Retry.Max, g.Retry.When, g.Retry.ExitCodes
	}
	if g.Trigger != nil || mirrored(g) != "" {
		j.Bridge = true
		if g.Trigger != nil {
			j.Strategy = g.Trigger.Strategy
		}
	}
	environment := ""
	expand := func(text string) string {
		if !strings.ContainsAny(text, "$%") {
			return text
		}
		scope := gitlabci.Merge(factVariables(p.Facts), plannedVariables(g), g.Variables, facts.Configured(environment), facts.Pipeline)
		if environment != "" {
			scope = gitlabci.Merge(gitlabci.Variables{{Key: "CI_ENVIRONMENT_NAME", Value: environment},
				{Key: "CI_ENVIRONMENT_SLUG", Value: gitlabci.EnvironmentSlug(environment)}}, scope)
		}
		if nested, err := scope.Expanded(true); err == nil {
			scope = nested
		}
		return gitlabci.Expand(text, scope.Lookup())
	}
	if g.Environment != nil {
		j.Environment, j.EnvironmentAction = expand(g.Environment.Name), g.Environment.Action
		environment = j.Environment
	}
	for i, t := range j.Tags {
		if e := expand(t); e != t {
			j.Tags = append([]string(nil), j.Tags...)
			j.Tags[i] = e
		}
	}
	j.ResourceGroup = expand(g.ResourceGroup)
	if g.Timeout != "" {
		d, err := gitlabci.ParseDuration(expand(g.Timeout))
		if err != nil {
			return j, delivery.Errorf(delivery.Invalid, "%s:timeout: %v", g.Name, err)
		}
		j.Timeout = int(d / time.Second)
	}
	if g.StartIn != "" {
		d, err := gitlabci.ParseDuration(expand(g.StartIn))
		if err != nil {
			return j, delivery.Errorf(delivery.Invalid, "%s:start_in: %v", g.Name, err)
		}
		j.StartIn = d
	}
	return j, nil
}

// plannedVariables are the predefined variables that a planned job adds.
func plannedVariables(g *gitlabci.Job) gitlabci.Variables {
	out := gitlabci.Variables{{Key: "CI_JOB_NAME", Value: g.Name}, {Key: "CI_JOB_NAME_SLUG", Value: gitlabci.Slug(g.Name)},
		{Key: "CI_JOB_STAGE", Value: g.Stage}, {Key: "CI_JOB_GROUP_NAME", Value: g.Group}}
	total := 1
	if g.Parallel != nil {
		total = g.Parallel.Total
		out = append(out, gitlabci.Variable{Key: "CI_NODE_INDEX", Value: strconv.Itoa(g.Parallel.Index)})
	}
	out = append(out, gitlabci.Variable{Key: "CI_NODE_TOTAL", Value: strconv.Itoa(total)})
	if g.When == "manual" {
		out = append(out, gitlabci.Variable{Key: "CI_JOB_MANUAL", Value: "true"})
	}
	return out
}

// mirrored returns the upstream pipeline whose status the job takes.
func mirrored(g *gitlabci.Job) string {
	for _, n := range g.CrossNeeds {
		if n.Mirror {
			return n.Pipeline
		}
	}
	return ""
}
