package pipeline

import (
	"context"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// LintRequest asks whether a configuration is valid.
type LintRequest struct {
	UserID     int64
	ProjectID  int64  // 0: none; includes of files are then refused
	Content    string // empty: the project's file at ContentRef
	ContentRef string // empty: the default branch
	Ref        string // the branch or tag that a dry run pretends to be pushed; empty: the default branch
	DryRun     bool   // also decide which jobs would run
}

// LintResult is the verdict on a configuration.
type LintResult struct {
	Valid      bool
	Errors     []string
	Warnings   []string
	MergedYAML string
	Details    gitlabci.Diagnostics // errors and warnings with their places
	Plan       *gitlabci.Pipeline   // what would run; nil when invalid
	Jobs       []LintJob
}

// LintJob is a job of the plan, in the shape of GitLab's lint API.
type LintJob struct {
	Name         string   `json:"name"`
	Stage        string   `json:"stage"`
	BeforeScript []string `json:"before_script"`
	Script       []string `json:"script"`
	AfterScript  []string `json:"after_script"`
	TagList      []string `json:"tag_list"`
	When         string   `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
	Environment  string   `json:"environment,omitempty"`
	Needs        []string `json:"needs,omitempty"`
}

// Lint compiles a configuration as a pipeline of the project would, and plans
// it for a push to the ref. It stores nothing.
func (e *Engine) Lint(ctx context.Context, req LintRequest) (LintResult, error) {
	facts := gitlabci.Context{Source: SourcePush, Ref: "main"}
	var src gitlabci.Sources = &sources{e: e, userID: req.UserID}
	path := ".gitlab-ci.yml"
	if req.ProjectID != 0 {
		o, err := e.lintOrigin(ctx, &req)
		if err != nil {
			return LintResult{}, err
		}
		home := &sources{e: e, home: o.project, sha: o.sha, userID: req.UserID}
		src, path = home, configPath(o.project)
		p := Pipeline{ProjectID: req.ProjectID, Protected: o.protected, Facts: e.facts(o)}
		planned, err := e.planContext(ctx, o, &Request{Source: SourcePush}, &p)
		if err != nil {
			return LintResult{}, err
		}
		facts = *planned
		if req.Content == "" {
			at := req.ContentRef
			if at == "" {
				at = o.sha
			}
			text, err := e.cfg.Repositories.ReadFile(ctx, req.ProjectID, at, path)
			if delivery.IsNotFound(err) {
				return LintResult{Errors: []string{"Please provide content of .gitlab-ci.yml"}, Warnings: []string{}, Details: gitlabci.Diagnostics{}}, nil
			}
			if err != nil {
				return LintResult{}, err
			}
			req.Content = string(text)
		}
	}
	cfg, diags := gitlabci.Compile(ctx, path, []byte(req.Content), src, facts)
	result := LintResult{Errors: []string{}, Warnings: []string{}}
	if cfg != nil && !diags.Failed() {
		if merged, err := cfg.YAML(); err == nil {
			result.MergedYAML = string(merged)
		}
		plan, more := gitlabci.Plan(ctx, cfg, facts)
		diags = append(diags, more...)
		result.Plan = plan
	}
	if err := ctx.Err(); err != nil {
		return LintResult{}, err
	}
	result.Details = append(gitlabci.Diagnostics{}, diags...)
	for _, d := range diags {
		if d.Warning {
			result.Warnings = append(result.Warnings, d.String())
		} else {
			result.Errors = append(result.Errors, d.String())
		}
	}
	result.Valid = len(result.Errors) == 0
	if result.Plan != nil {
		for i := range result.Plan.Jobs {
			result.Jobs = append(result.Jobs, lintJob(&result.Plan.Jobs[i]))
		}
	}
	return result, nil
}

func lintJob(g *gitlabci.Job) LintJob {
	j := LintJob{Name: g.Name, Stage: g.Stage, BeforeScript: append([]string{}, g.BeforeScript...), Script: append([]string{}, g.Script...),
		AfterScript: append([]string{}, g.AfterScript...), TagList: append([]string{}, g.Tags...), When: g.When, AllowFailure: g.AllowFailure}
	if g.Environment != nil {
		j.Environment = g.Environment.Name
	}
	for _, n := range g.Needs {
		j.Needs = append(j.Needs, n.Job)
	}
	return j
}

// lintOrigin pretends a push to the ref. A repository without commits has no
// facts of a commit.
func (e *Engine) lintOrigin(ctx context.Context, req *LintRequest) (*origin, error) {
	p, err := e.cfg.Projects.Project(ctx, req.ProjectID)
	if err != nil {
		return nil, err
	}
	ref := req.Ref
	if ref == "" {
		ref = p.DefaultBranch
	}
	o, err := e.origin(ctx, &Request{ProjectID: req.ProjectID, UserID: req.UserID, Ref: ref, Source: SourcePush})
	if delivery.KindOf(err) != delivery.Invalid || req.Content == "" {
		return o, err
	}
	return &origin{project: p, ref: ref, sha: delivery.ZeroSHA, before: delivery.ZeroSHA, source: SourcePush, now: e.clock.Now()}, nil
}
