package gitlabci

import (
	"context"
	"fmt"
	"sort"
	"strings"
)

// Plan decides what an event runs. The Pipeline is nil exactly when the diagnostics hold an error,
// such as a job that needs one the rules leave out.
func Plan(ctx context.Context, c *Config, event Context) (*Pipeline, Diagnostics) {
	var diags Diagnostics
	p := &planner{ctx: ctx, c: c, f: newFacts(event, c.src), d: &decoder{diags: &diags}, names: map[string]int{}}
	out := p.run()
	diags = diags.sorted(c.root.place.file)
	if diags.Failed() {
		return nil, diags
	}
	return out, diags
}

// maxJobs is how many jobs one pipeline may have.
const maxJobs = 20_000

type planner struct {
	ctx    context.Context
	c      *Config
	f      *facts
	d      *decoder
	out    Pipeline
	global map[string]Variable
	jobs   []planned
	names  map[string]int // index in jobs
}

// planned is a job with what is needed to resolve its needs.
type planned struct {
	Job
	def   *jobDef
	needs *needs
	order int // of its stage among all stages
}

func (p *planner) run() *Pipeline {
	p.out = Pipeline{Stages: []string{}, Jobs: []Job{}, Variables: p.c.variables}
	p.out.AutoCancel = AutoCancel{OnNewCommit: "conservative", OnJobFailure: "none"}
	p.overrideAutoCancel(p.c.workflow.autoCancel)
	if !p.workflow() {
		p.out.Reason = "the rules of workflow do not let a pipeline run"
		return &p.out
	}
	p.global = byKey(p.out.Variables)
	s := &scope{f: p.f, global: p.global}
	p.out.Name = strings.TrimSpace(Expand(p.c.workflow.name, s.expanded))
	for _, j := range p.c.jobs {
		p.d.job = j.name
		p.plan(j)
	}
	p.d.job = ""
	if !p.anyMain() {
		p.out.Jobs = []Job{}
		p.out.Reason = "no job would run"
		if len(p.jobs) > 0 {
			p.out.Reason = "only jobs of the stages .pre and .post would run"
		}
		return &p.out
	}
	p.finish()
	p.out.Run = true
	return &p.out
}

// workflow evaluates workflow:rules.
func (p *planner) workflow() bool {
	w := &p.c.workflow
	if !w.hasRules {
		return true
	}
	s := &scope{f: p.f, global: byKey(p.c.variables)}
	for i := range w.rules {
		r := &w.rules[i]
		var matched bool
		p.d.in("workflow", func() { matched = r.matches(p.ctx, p.d, p.f, s) })
		if !matched {
			continue
		}
		if r.when == "never" {
			return false
		}
		p.out.Variables = Merge(p.c.variables, r.variables)
		p.overrideAutoCancel(r.autoCancel)
		return true
	}
	return false
}

func (p *planner) overrideAutoCancel(a AutoCancel) {
	if a.OnNewCommit != "" {
		p.out.AutoCancel.OnNewCommit = a.OnNewCommit
	}
	if a.OnJobFailure != "" {
		p.out.AutoCancel.OnJobFailure = a.OnJobFailure
	}
}

// anyMain reports whether a job outside .pre and .post runs.
func (p *planner) anyMain() bool {
	for i := range p.jobs {
		if s := p.jobs[i].Stage; s != ".pre" && s != ".post" {
			return true
		}
	}
	return false
}

// plan adds the instances of a job that run.
func (p *planner) plan(j *jobDef) {
	inherited := j.inherit.takesVariables(p.out.Variables)
	global := p.global
	if !j.inherit.allVariables {
		global = byKey(inherited)
	}
	order := 0
	for i, s := range p.c.stages {
		if s == j.template.Stage {
			order = i
		}
	}
	for _, in := range j.parallel.instances(j.name) {
		out := planned{Job: j.template, def: j, needs: j.needs, order: order}
		out.Name, out.Group, out.Parallel = in.name, j.name, in.parallel
		own := j.variables
		if in.parallel != nil && in.parallel.Matrix != nil {
			own = Merge(j.variables, in.parallel.Matrix)
		}
		s := &scope{f: p.f, global: global, yaml: own}
		if j.conditional() {
			s.setJob(&out.Job)
		}
		r, run := p.decide(j, s)
		if !run {
			continue
		}
		out.settle(j, r)
		out.Variables = Merge(inherited, own)
		if r != nil && len(r.variables) > 0 {
			out.Variables = Merge(out.Variables, r.variables)
		}
		if i, ok := p.names[in.name]; ok {
			p.d.errorf(j.node, "has the same name as an instance of the job %s: %s", p.jobs[i].Group, in.name)
			continue
		}
		if len(p.jobs) >= maxJobs {
			p.d.errorf(j.node, "makes more than %d jobs in one pipeline", maxJobs)
			return
		}
		p.names[in.name] = len(p.jobs)
		p.jobs = append(p.jobs, out)
	}
}

// conditional reports whether variables decide about the job.
func (j *jobDef) conditional() bool { return j.hasRules || j.only != nil || j.except != nil }

// decide evaluates rules, or only and except. The rule is the one that matched.
func (p *planner) decide(j *jobDef, s *scope) (*rule, bool) {
	if j.hasRules {
		for i := range j.rules {
			r := &j.rules[i]
			var matched bool
			p.d.in("rules", func() { matched = r.matches(p.ctx, p.d, p.f, s) })
			if matched {
				return r, r.when != "never"
			}
		}
		return nil, false
	}
	if j.template.When == "never" {
		return nil, false
	}
	switch {
	case j.only != nil:
		only := *j.only
		if !only.hasRefs {
			only.refs, only.hasRefs = defaultOnly, true
		}
		for _, ok := range only.checks(p.d, p.f, s) {
			if !ok {
				return nil, false
			}
		}
	case !p.c.workflow.hasRules && !matchRefs(defaultOnly, p.f):
		return nil, false
	}
	if j.except != nil {
		for _, hit := range j.except.checks(p.d, p.f, s) {
			if hit {
				return nil, false
			}
		}
	}
	return nil, true
}

// settle fills in what depends on the matched rule.
func (out *planned) settle(j *jobDef, r *rule) {
	manual := out.When == "manual"
	if a := j.allowFailure; a != nil {
		out.AllowFailure, out.AllowFailureExitCodes = a.always, a.exitCodes
	} else {
		out.AllowFailure = manual
	}
	if out.When == "" {
		out.When = "on_success"
	}
	if r == nil {
		return
	}
	if r.when != "" {
		out.When = r.when
	}
	if out.When == "delayed" {
		out.StartIn = orText(r.startIn, out.StartIn)
	}
	if a := r.allowFailure; a != nil {
		out.AllowFailure, out.AllowFailureExitCodes = a.always, a.exitCodes
	}
	if r.needs != nil {
		out.needs = r.needs
	}
	if r.interruptible != nil {
		out.Interruptible = r.interruptible
	}
}

// finish sorts the jobs by stage and resolves names between them.
func (p *planner) finish() {
	sort.SliceStable(p.jobs, func(a, b int) bool { return p.jobs[a].order < p.jobs[b].order })
	groups := make(map[string][]int, len(p.jobs))
	last := -1
	for i := range p.jobs {
		j := &p.jobs[i]
		p.names[j.Name] = i
		groups[j.Group] = append(groups[j.Group], i)
		if j.order != last {
			last = j.order
			p.out.Stages = append(p.out.Stages, j.Stage)
		}
		j.StageIndex = len(p.out.Stages) - 1
	}
	p.out.Jobs = make([]Job, len(p.jobs))
	for i := range p.jobs {
		j := &p.jobs[i]
		p.resolve(j, groups)
		if j.Tags == nil {
			j.Tags = []string{}
		}
		if j.Script == nil {
			j.Script = []string{}
		}
		p.out.Jobs[i] = j.Job
	}
}

func (p *planner) resolve(j *planned, groups map[string][]int) {
	p.d.job = j.Name
	defer func() { p.d.job = "" }()
	if j.Dependencies != nil {
		deps := []string{}
		for _, name := range j.Dependencies {
			for _, i := range p.instancesOf(name, groups) {
				deps = append(deps, p.jobs[i].Name)
			}
		}
		j.Dependencies = deps
	}
	if j.needs == nil {
		return
	}
	j.CrossNeeds = j.needs.cross
	j.Needs = []Need{}
	seen := make(map[string]bool, len(j.needs.jobs))
	for k := range j.needs.jobs {
		n := &j.needs.jobs[k]
		found := p.instancesOf(n.Job, groups)
		if n.matrix != nil {
			found = p.selectMatrix(j, n, found)
		}
		if len(found) == 0 && !n.Optional {
			p.d.missing(&node{place: n.place}, "needs the job %s, but it does not exist in this pipeline because of its rules, only or except; "+
				"write optional: true under needs for a job that is not always there", n.Job)
			continue
		}
		for _, i := range found {
			if name := p.jobs[i].Name; !seen[name] {
				seen[name] = true
				j.Needs = append(j.Needs, Need{Job: name, Artifacts: n.Artifacts, Optional: n.Optional})
			}
		}
	}
}

// instancesOf returns the jobs a name stands for.
func (p *planner) instancesOf(name string, groups map[string][]int) []int {
	if list, ok := groups[name]; ok {
		return list
	}
	if i, ok := p.names[name]; ok {
		return []int{i}
	}
	return nil
}

// selectMatrix keeps the instances that needs:parallel:matrix asks for. $[[ matrix.NAME ]] stands for
// the value in the job that needs.
func (p *planner) selectMatrix(j *planned, n *jobNeed, found []int) []int {
	var out []int
	for _, want := range combinations(n.matrix) {
		for k := range want {
			want[k].Value = block.ReplaceAllStringFunc(want[k].Value, func(text string) string {
				name, ok := strings.CutPrefix(strings.TrimSpace(block.FindStringSubmatch(text)[1]), "matrix.")
				if ok && j.Parallel != nil {
					if v, ok := j.Parallel.Matrix.Get(name); ok {
						return v.Value
					}
				}
				p.d.errorf(&node{place: n.place}, "%s is not a variable of this job's matrix", text)
				return text
			})
		}
		for _, i := range found {
			if p.jobs[i].Parallel.covers(want) {
				out = append(out, i)
			}
		}
	}
	sort.Ints(out)
	return out
}

// setJob gives the scope the predefined variables of a job that rules may use.
func (s *scope) setJob(j *Job) {
	s.predefined = append(s.predefined,
		Variable{Key: "CI_JOB_NAME", Value: j.Name},
		Variable{Key: "CI_JOB_NAME_SLUG", Value: Slug(j.Name)},
		Variable{Key: "CI_JOB_STAGE", Value: j.Stage},
	)
	if j.When == "manual" {
		s.predefined = append(s.predefined, Variable{Key: "CI_JOB_MANUAL", Value: "true"})
	}
	if j.Image != nil {
		s.predefined = append(s.predefined, Variable{Key: "CI_JOB_IMAGE", Value: j.Image.Name})
	}
	total := 1
	if j.Parallel != nil {
		total = j.Parallel.Total
		s.predefined = append(s.predefined, Variable{Key: "CI_NODE_INDEX", Value: fmt.Sprint(j.Parallel.Index)})
	}
	s.predefined = append(s.predefined, Variable{Key: "CI_NODE_TOTAL", Value: fmt.Sprint(total)})
	if e := j.Environment; e != nil {
		name := Expand(e.Name, s.expanded)
		s.environment = name
		tier := e.DeploymentTier
		if tier == "" {
			tier = EnvironmentTier(name)
		}
		s.predefined = append(s.predefined,
			Variable{Key: "CI_ENVIRONMENT_NAME", Value: name},
			Variable{Key: "CI_ENVIRONMENT_SLUG", Value: EnvironmentSlug(name)},
			Variable{Key: "CI_ENVIRONMENT_ACTION", Value: e.Action},
			Variable{Key: "CI_ENVIRONMENT_TIER", Value: tier},
		)
		if e.URL != "" {
			s.predefined = append(s.predefined, Variable{Key: "CI_ENVIRONMENT_URL", Value: e.URL})
		}
	}
}
