package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// Request asks for a pipeline.
type Request struct {
	ProjectID int64
	UserID    int64
	Ref       string // short or full name of a branch or tag
	SHA       string // empty: what Ref points to
	Before    string // the ref's earlier commit, for a push
	Source    string
	Variables []VariableValue
	Inputs    map[string]any
	// Key names what asks, so that it gets one pipeline only; empty: anything.
	Key          string
	MergeRequest *delivery.MergeRequest
	ScheduleID   int64
	Schedule     string // description of the schedule
	Payload      string // body of a webhook trigger

	tag         bool
	parent      *Pipeline
	parentJob   int64
	child       bool
	config      string            // YAML instead of the project's file
	files       map[string][]byte // files that config may include as local ones
	skipped     bool              // the push asked for no pipeline
	keepInvalid bool              // store a pipeline that failed to be made
}

// ErrNoPipeline is wrapped by the error of a request for which the
// configuration makes no pipeline.
var ErrNoPipeline = errors.New("no pipeline")

var skipMark = regexp.MustCompile(`(?i)\[(ci[ _-]skip|skip[ _-]ci)\]`)

// Create makes a pipeline and starts it. Errors of the configuration are of
// kind Invalid with the messages in the field base, as GitLab reports them.
func (e *Engine) Create(ctx context.Context, req Request) (Pipeline, error) {
	if req.Key == "" {
		req.Key = newToken("request:")
	}
	if p, done, err := e.created(ctx, req.Key); done || err != nil {
		return p, err
	}
	o, err := e.origin(ctx, &req)
	if err != nil {
		return Pipeline{}, err
	}
	if err := e.mayCreate(ctx, &req, &o.settings); err != nil {
		return Pipeline{}, err
	}
	if req.Payload != "" { // what a caller sent may be secret: it is sealed like any given variable
		req.Variables = append(req.Variables, VariableValue{Key: "TRIGGER_PAYLOAD", Value: req.Payload, File: true, Raw: true})
	}
	p := Pipeline{ProjectID: req.ProjectID, Ref: o.ref, Tag: o.tag, SHA: o.sha, BeforeSHA: o.before, Source: req.Source, Status: "created",
		UserID: req.UserID, Protected: o.protected, ScheduleID: req.ScheduleID, ParentJobID: req.parentJob, Child: req.child,
		Variables: e.sealValues(req.Variables), Facts: e.facts(o), Key: req.Key}
	if req.MergeRequest != nil {
		p.MergeRequestIID = req.MergeRequest.IID
	}
	if req.parent != nil {
		p.ParentID = req.parent.ID
	}
	if req.Schedule != "" {
		p.Facts["CI_PIPELINE_SCHEDULE_DESCRIPTION"] = req.Schedule
	}
	plan, facts, diags, err := e.plan(ctx, o, &req, &p)
	if err != nil {
		return Pipeline{}, err
	}
	if diags.Failed() {
		return e.invalid(ctx, &req, &p, diags)
	}
	if !plan.Run {
		reason := plan.Reason
		if reason == "" {
			reason = "Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."
		}
		return Pipeline{}, &delivery.Error{Kind: delivery.Invalid, Message: reason, Fields: map[string][]string{"base": {reason}}, Err: ErrNoPipeline}
	}
	if req.skipped || skipMark.MatchString(o.commit.Message) && (req.Source == SourcePush || req.Source == SourceMergeRequest) {
		p.Status = "skipped"
	}
	if err := e.insert(ctx, &p, plan, facts, o.settings.BuildTimeout); err != nil {
		return Pipeline{}, err
	}
	return e.start(ctx, p.ID)
}

// created finds the pipeline that was made for a key already, and starts it if
// that was not done.
func (e *Engine) created(ctx context.Context, key string) (Pipeline, bool, error) {
	var p Pipeline
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		p, err = tx.PipelineByKey(key)
		return err
	})
	if delivery.IsNotFound(err) {
		return p, false, nil
	}
	if err != nil || p.Status != "created" {
		return p, err == nil, err
	}
	p, err = e.start(ctx, p.ID)
	return p, true, err
}

// origin finds the commit and everything that describes it.
func (e *Engine) origin(ctx context.Context, req *Request) (*origin, error) {
	o := &origin{sha: req.SHA, before: req.Before, source: req.Source, merge: req.MergeRequest, tag: req.tag}
	switch {
	case req.MergeRequest != nil:
		o.ref = fmt.Sprintf("refs/merge-requests/%d/head", req.MergeRequest.IID)
		if o.sha == "" {
			o.sha = req.MergeRequest.HeadSHA
		}
	case req.child && req.parent != nil:
		o.ref, o.tag, o.sha, o.before = req.parent.Ref, req.parent.Tag, req.parent.SHA, req.parent.BeforeSHA
	default:
		ref, err := e.cfg.Repositories.Ref(ctx, req.ProjectID, req.Ref)
		if delivery.IsNotFound(err) {
			return nil, &delivery.Error{Kind: delivery.Invalid, Message: "Reference not found", Fields: map[string][]string{"base": {"Reference not found"}}}
		}
		if err != nil {
			return nil, fmt.Errorf("pipeline: ref %s: %w", req.Ref, err)
		}
		o.ref, o.tag = ref.Name, strings.HasPrefix(ref.FullName, "refs/tags/")
		if o.tag {
			o.tagRef = ref
		}
		if o.sha == "" {
			o.sha = ref.SHA
		}
	}
	if err := e.describe(ctx, req.ProjectID, req.UserID, o); err != nil {
		return nil, err
	}
	if req.child && req.parent != nil {
		o.protected = req.parent.Protected
	}
	return o, nil
}

// plan compiles the configuration for the request.
func (e *Engine) plan(ctx context.Context, o *origin, req *Request, p *Pipeline) (*gitlabci.Pipeline, *gitlabci.Context, gitlabci.Diagnostics, error) {
	src := &sources{e: e, home: o.project, sha: o.sha, userID: req.UserID, extra: req.files}
	path, text := configPath(o.project), []byte(req.config)
	if req.config == "" {
		at := gitlabci.Location{}
		if file, project, ok := strings.Cut(path, "@"); ok {
			path = file
			at.Project, at.Ref, _ = strings.Cut(project, ":")
		}
		var err error
		if text, err = src.ReadFile(ctx, at, path); errors.Is(err, gitlabci.ErrNotFound) {
			message := "Missing CI config file"
			return nil, nil, nil, &delivery.Error{Kind: delivery.Invalid, Message: message, Fields: map[string][]string{"base": {message}}, Err: ErrNoPipeline}
		} else if err != nil {
			return nil, nil, nil, fmt.Errorf("pipeline: read %s: %w", path, err)
		}
	}
	facts, err := e.planContext(ctx, o, req, p)
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, diags := gitlabci.Compile(ctx, path, text, src, *facts)
	if diags.Failed() {
		return nil, facts, diags, ctx.Err()
	}
	plan, more := gitlabci.Plan(ctx, cfg, *facts)
	return plan, facts, append(diags, more...), ctx.Err()
}

func (e *Engine) planContext(ctx context.Context, o *origin, req *Request, p *Pipeline) (*gitlabci.Context, error) {
	var conf configured
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		conf, err = e.loadConfigured(tx, p.ProjectID, factGroups(p.Facts), p.Protected)
		return err
	})
	if err != nil {
		return nil, err
	}
	predefined := make(map[string]string, len(p.Facts))
	for k, v := range p.Facts {
		if !strings.HasPrefix(k, "slipway:") {
			predefined[k] = v
		}
	}
	pipelineVars := make(gitlabci.Variables, 0, len(req.Variables))
	for _, v := range req.Variables {
		pipelineVars = append(pipelineVars, gitlabci.Variable{Key: v.Key, Value: v.Value, Raw: v.Raw})
	}
	return &gitlabci.Context{
		Predefined: predefined, Configured: conf.variables, Pipeline: pipelineVars, Inputs: req.Inputs, Source: req.Source,
		Ref: o.ref, Tag: o.tag, MergeRequest: o.merge != nil, Kubernetes: e.HasCluster(),
		ChangedPaths: func(compareTo string) ([]string, bool, error) { return e.changedPaths(ctx, o, compareTo) },
	}, nil
}

// changedPaths answers rules:changes.
func (e *Engine) changedPaths(ctx context.Context, o *origin, compareTo string) ([]string, bool, error) {
	repos := e.cfg.Repositories
	from := ""
	switch {
	case compareTo != "" || o.merge != nil:
		target := compareTo
		if target == "" {
			target = "refs/heads/" + o.merge.TargetBranch
		}
		commit, err := repos.Commit(ctx, o.project.ID, target)
		if delivery.IsNotFound(err) {
			return nil, false, fmt.Errorf("compare_to %q is not a branch, tag or commit", target)
		}
		if err != nil {
			return nil, false, err
		}
		if from, err = repos.MergeBase(ctx, o.project.ID, commit.SHA, o.sha); err != nil || from == "" {
			return nil, false, err
		}
	case o.source == SourcePush && o.before != delivery.ZeroSHA && !o.tag:
		from = o.before
	default:
		return nil, false, nil
	}
	paths, err := repos.ChangedPaths(ctx, o.project.ID, from, o.sha)
	if delivery.IsNotFound(err) { // the earlier commit is gone after a forced push
		return nil, false, nil
	}
	return paths, err == nil, err
}

// invalid reports a configuration with errors; for events it stores a failed
// pipeline that shows them.
func (e *Engine) invalid(ctx context.Context, req *Request, p *Pipeline, diags gitlabci.Diagnostics) (Pipeline, error) {
	var messages []string
	for _, d := range diags.Errors() {
		messages = append(messages, d.String())
	}
	if req.keepInvalid {
		p.Status, p.FailureReason, p.YAMLErrors = "failed", ReasonConfig, strings.Join(messages, "\n")
		p.FinishedAt = e.clock.Now()
		err := e.store.Update(ctx, func(tx Tx) error {
			tx.After(func(error) { e.changes.notify(-p.ProjectID) })
			if err := tx.InsertPipeline(p); err != nil {
				return err
			}
			return tx.Emit(delivery.EventPipelineChanged, p.ProjectID, delivery.PipelineChanged{ID: p.ID, IID: p.IID, Ref: p.Ref, SHA: p.SHA, Source: p.Source, Status: p.Status, UserID: p.UserID})
		})
		return *p, err
	}
	return Pipeline{}, &delivery.Error{Kind: delivery.Invalid, Message: strings.Join(messages, "; "), Fields: map[string][]string{"base": messages}}
}

// insert stores the pipeline and its jobs, all of them created. timeout, in
// seconds, is that of jobs which name none.
func (e *Engine) insert(ctx context.Context, p *Pipeline, plan *gitlabci.Pipeline, facts *gitlabci.Context, timeout int) error {
	p.Name, p.OnNewCommit, p.OnJobFailure = plan.Name, plan.AutoCancel.OnNewCommit, plan.AutoCancel.OnJobFailure
	status := "created"
	if p.Status == "skipped" {
		status = "skipped"
	}
	for _, s := range plan.Stages {
		p.Stages = append(p.Stages, StageStatus{Name: s, Status: status})
	}
	jobs := make([]Job, len(plan.Jobs))
	options := make([][]byte, len(plan.Jobs))
	for i := range plan.Jobs {
		j, err := newJob(p, &plan.Jobs[i], i, facts, timeout)
		if err != nil {
			return err
		}
		j.Status = status
		if options[i], err = json.Marshal(&plan.Jobs[i]); err != nil {
			return fmt.Errorf("pipeline: configuration of job %s: %w", j.Name, err)
		}
		jobs[i] = j
	}
	return e.store.Update(ctx, func(tx Tx) error {
		tx.After(func(error) { e.changes.notify(-p.ProjectID) })
		if err := tx.InsertPipeline(p); err != nil {
			return err
		}
		for i := range jobs {
			jobs[i].PipelineID = p.ID
			if err := tx.InsertJob(&jobs[i], options[i]); err != nil {
				return err
			}
		}
		return tx.Emit(delivery.EventPipelineChanged, p.ProjectID, delivery.PipelineChanged{ID: p.ID, IID: p.IID, Ref: p.Ref, SHA: p.SHA, Source: p.Source, Status: p.Status, UserID: p.UserID})
	})
}

// start pins the commit of a stored pipeline and processes it for the first
// time.
func (e *Engine) start(ctx context.Context, id int64) (Pipeline, error) {
	var p Pipeline
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		p, err = tx.Pipeline(id)
		return err
	}); err != nil || p.Status != "created" {
		return p, err
	}
	if err := e.cfg.Repositories.SetRef(ctx, p.ProjectID, pipelineRef(id), p.SHA); err != nil {
		return p, fmt.Errorf("pipeline: pin commit of pipeline %d: %w", id, err)
	}
	err := e.update(ctx, func(u *unit) error {
		lp, err := u.load(id)
		if err != nil {
			return err
		}
		if err := u.makeEnvironments(lp); err != nil {
			return err
		}
		lp.proc.Process()
		if err := u.flush(); err != nil {
			return err
		}
		if err := u.cancelRedundant(&lp.rec); err != nil {
			return err
		}
		p = lp.rec
		return nil
	})
	return p, err
}

func pipelineRef(id int64) string { return fmt.Sprintf("refs/pipelines/%d", id) }

func (u *unit) makeEnvironments(lp *live) error {
	for i := range lp.jobs {
		j := &lp.jobs[i]
		if j.Environment == "" || j.EnvironmentAction == "stop" {
			continue
		}
		options, err := u.options(j.ID)
		if err != nil {
			return err
		}
		if _, err := u.environment(lp, j, options.Environment); err != nil {
			return err
		}
	}
	return nil
}
