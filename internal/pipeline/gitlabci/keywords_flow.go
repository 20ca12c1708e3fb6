package gitlabci

import (
	"strings"
	"time"
)

// needs is what a job's needs: says before parallel jobs are expanded.
type needs struct {
	jobs  []jobNeed
	cross []CrossNeed
	place place
}

type jobNeed struct {
	Need
	place  place
	matrix []matrixRow // needs:parallel:matrix, nil when absent
}

const maxNeeds = 50

func readNeeds(d *decoder, n *node, inRule bool) *needs {
	out := &needs{place: n.place}
	switch {
	case n.kind == mapKind && !inRule:
		readNeed(d, n, out, inRule)
	case n.kind == listKind:
		list := flattenItems(n, nil)
		d.limit(n, len(list), maxNeeds, "entries")
		for _, c := range list {
			readNeed(d, c, out, inRule)
		}
	default:
		d.errorf(n, "must be a list, not %s", n.describe())
	}
	seen := map[string]bool{}
	for _, j := range out.jobs {
		if j.matrix == nil && seen[j.Job] {
			d.clash(&node{place: j.place}, "names %s twice", j.Job)
		}
		seen[j.Job] = true
	}
	return out
}

func readNeed(d *decoder, n *node, out *needs, inRule bool) {
	switch n.kind {
	case stringKind:
		out.jobs = append(out.jobs, jobNeed{Need: Need{Job: d.filled(n), Artifacts: true}, place: n.place})
		return
	case mapKind:
	default:
		d.errorf(n, "must hold names of jobs or mappings with job, not %s", n.describe())
		return
	}
	switch {
	case inRule:
		d.known(n, []string{"job", "artifacts", "optional", "parallel"})
	case n.get("project") != nil:
		d.known(n, []string{"project", "ref", "job", "artifacts", "parallel"})
	case n.get("pipeline") != nil:
		d.known(n, []string{"pipeline", "job", "artifacts", "parallel", "strategy"})
	default:
		d.known(n, []string{"job", "artifacts", "optional", "parallel", "pipeline", "project", "ref"})
	}
	j := jobNeed{Need: Need{Artifacts: true}, place: n.place}
	d.optional(n, "artifacts", func(v *node) { j.Artifacts = d.boolean(v) })
	d.optional(n, "optional", func(v *node) { j.Optional = d.boolean(v) })
	d.optional(n, "job", func(v *node) { j.Job = d.filled(v) })
	d.optional(n, "parallel", func(v *node) { j.matrix = readParallel(d, v, true).rows })
	project, pipeline := n.get("project"), n.get("pipeline")
	if inRule || project == nil && pipeline == nil {
		if n.get("job") == nil {
			d.errorf(n, "needs job")
		}
		out.jobs = append(out.jobs, j)
		return
	}
	c := CrossNeed{Job: j.Job, Artifacts: j.Artifacts}
	if project != nil {
		for _, key := range []string{"job", "ref"} {
			if n.get(key) == nil {
				d.errorf(n, "of a project needs %s", key)
			}
		}
		d.field(n, "project", func(v *node) { c.Project = d.filled(v) })
		d.optional(n, "ref", func(v *node) { c.Ref = d.filled(v) })
	} else {
		d.field(n, "pipeline", func(v *node) { c.Pipeline = d.filled(v) })
		c.Mirror = !n.has("job")
	}
	out.cross = append(out.cross, c)
}

// startIn reads start_in, which is at most a week.
func (d *decoder) startIn(n *node) string {
	s := d.duration(n, false)
	if t, err := ParseDuration(s); err == nil && t > 7*24*time.Hour {
		d.errorf(n, "must not be longer than 1 week")
	}
	return s
}

func readAutoCancel(d *decoder, n *node) AutoCancel {
	var a AutoCancel
	if d.mapping(n, "on_new_commit", "on_job_failure") {
		d.optional(n, "on_new_commit", func(v *node) { a.OnNewCommit = d.enum(v, "conservative", "interruptible", "none") })
		d.optional(n, "on_job_failure", func(v *node) { a.OnJobFailure = d.enum(v, "none", "all") })
	}
	return a
}

// workflow is workflow: of the file.
type workflow struct {
	name       string
	autoCancel AutoCancel
	rules      []rule
	hasRules   bool
}

func readWorkflow(d *decoder, n *node) workflow {
	var w workflow
	if !d.mapping(n, "name", "rules", "auto_cancel") {
		return w
	}
	d.optional(n, "name", func(v *node) {
		w.name = d.filled(v)
		d.limit(v, len(w.name), 255, "characters")
	})
	d.optional(n, "auto_cancel", func(v *node) { w.autoCancel = readAutoCancel(d, v) })
	d.optional(n, "rules", func(v *node) { w.rules, w.hasRules = readRules(d, v, workflowRule), true })
	return w
}

// inherit is inherit: of a job. A nil list with all set means everything.
type inherit struct {
	allDefaults, allVariables bool
	defaults, variables       []string
}

var defaultKeys = []string{
	"after_script", "artifacts", "before_script", "cache", "hooks", "id_tokens", "identity", "image",
	"interruptible", "retry", "services", "tags", "timeout",
}

func readInherit(d *decoder, n *node) inherit {
	in := inherit{allDefaults: true, allVariables: true}
	if !d.mapping(n, "default", "variables") {
		return in
	}
	d.optional(n, "default", func(v *node) {
		if v.kind == boolKind {
			in.allDefaults = v.text == "true"
			return
		}
		in.allDefaults, in.defaults = false, d.boolOrStrings(v)
		for _, key := range in.defaults {
			if !contains(defaultKeys, key) {
				d.errorf(v, "has no keyword %s%s", key, didYouMean(key, defaultKeys))
			}
		}
	})
	d.optional(n, "variables", func(v *node) {
		if v.kind == boolKind {
			in.allVariables = v.text == "true"
			return
		}
		in.allVariables, in.variables = false, d.boolOrStrings(v)
	})
	return in
}

func (d *decoder) boolOrStrings(n *node) []string {
	if n.kind != listKind {
		d.errorf(n, "must be true, false or a list of names, not %s", n.describe())
		return nil
	}
	return d.strings(n)
}

func (in *inherit) takesDefault(key string) bool {
	return in.allDefaults || contains(in.defaults, key)
}

// takesVariables filters the global variables.
func (in *inherit) takesVariables(global Variables) Variables {
	if in.allVariables {
		return global
	}
	var out Variables
	for _, v := range global {
		if contains(in.variables, v.Key) {
			out = append(out, v)
		}
	}
	return out
}

func readTrigger(d *decoder, n *node) *Trigger {
	t := &Trigger{Forward: Forward{YAMLVariables: true}}
	switch n.kind {
	case stringKind:
		t.Project = d.projectPath(n)
		return t
	case mapKind:
	default:
		d.errorf(n, "must be the path of a project or a mapping with project or include, not %s", n.describe())
		return nil
	}
	project, include := n.get("project"), n.get("include")
	switch {
	case project != nil && include != nil:
		d.errorf(n, "has both project and include; use one")
	case project != nil:
		d.known(n, []string{"project", "branch", "strategy", "forward", "inputs"})
	default:
		d.known(n, []string{"include", "strategy", "forward", "inputs", "project", "branch"})
		if include == nil {
			d.errorf(n, "needs project or include")
		}
	}
	d.field(n, "project", func(v *node) { t.Project = d.projectPath(v) })
	d.optional(n, "branch", func(v *node) {
		if t.Branch = d.filled(v); project == nil {
			d.errorf(v, "goes with project only")
		}
	})
	d.optional(n, "strategy", func(v *node) { t.Strategy = d.enum(v, "depend", "mirror") })
	d.optional(n, "forward", func(v *node) {
		if d.mapping(v, "yaml_variables", "pipeline_variables") {
			d.optional(v, "yaml_variables", func(c *node) { t.Forward.YAMLVariables = d.boolean(c) })
			d.optional(v, "pipeline_variables", func(c *node) { t.Forward.PipelineVariables = d.boolean(c) })
		}
	})
	t.Inputs = givenInputs(d, n)
	d.field(n, "include", func(v *node) { t.Include = readTriggerIncludes(d, v) })
	return t
}

func givenInputs(d *decoder, n *node) map[string]any {
	in := readGivenInputs(d, n)
	if in == nil {
		return nil
	}
	values, _ := in.value().(map[string]any)
	return values
}

func (d *decoder) projectPath(n *node) string {
	s := d.str(n)
	if n.kind == stringKind && !projectPath.MatchString(s) {
		d.errorf(n, "must be the path of a project such as group/project, not %s", n.describe())
	}
	return s
}

func (d *decoder) yamlPath(n *node) string {
	s := d.str(n)
	if n.kind == stringKind && !yamlPath.MatchString(s) && !strings.HasPrefix(s, "$") {
		d.errorf(n, "must end in .yml or .yaml: %s", n.describe())
	}
	return s
}

// maxTriggerIncludes is how many files a child pipeline may be made of.
const maxTriggerIncludes = 3

var triggerIncludeKeys = map[string][]string{
	"local":     {"local", "inputs"},
	"template":  {"template", "inputs"},
	"artifact":  {"artifact", "job", "inputs"},
	"project":   {"project", "ref", "file", "inputs"},
	"component": {"component", "inputs"},
	"remote":    {"remote", "inputs"},
}

func readTriggerIncludes(d *decoder, n *node) []TriggerInclude {
	list := []*node{n}
	if n.kind == listKind {
		list = n.items
		d.limit(n, len(list), maxTriggerIncludes, "files")
		if len(list) == 0 {
			d.errorf(n, "must not be empty")
		}
	}
	out := make([]TriggerInclude, 0, len(list))
	for _, c := range list {
		switch c.kind {
		case stringKind:
			if remoteAddress.MatchString(c.text) {
				out = append(out, TriggerInclude{Remote: d.yamlPath(c)})
				continue
			}
			out = append(out, TriggerInclude{Local: d.yamlPath(c)})
		case mapKind:
			out = append(out, readTriggerInclude(d, c))
		default:
			d.errorf(c, "must be a path or a mapping, not %s", c.describe())
		}
	}
	return out
}

func readTriggerInclude(d *decoder, n *node) TriggerInclude {
	var t TriggerInclude
	kind := ""
	for _, k := range []string{"local", "template", "artifact", "project", "component", "remote"} {
		if n.get(k) == nil {
			continue
		}
		if kind != "" {
			d.errorf(n, "has both %s and %s; use one", kind, k)
			return t
		}
		kind = k
	}
	if kind == "" {
		if n.get("file") != nil {
			d.errorf(n, "with file needs project")
			return t
		}
		d.errorf(n, "must have one of local, template, artifact, project, component, remote")
		return t
	}
	d.known(n, triggerIncludeKeys[kind])
	t.Inputs = givenInputs(d, n)
	d.field(n, "local", func(v *node) { t.Local = d.yamlPath(v) })
	d.field(n, "template", func(v *node) { t.Template = d.yamlPath(v) })
	d.field(n, "remote", func(v *node) {
		if t.Remote = d.yamlPath(v); !remoteAddress.MatchString(t.Remote) {
			d.errorf(v, "must be an http or https address, not %s", v.describe())
		}
	})
	d.field(n, "component", func(v *node) { t.Component = d.filled(v) })
	d.field(n, "artifact", func(v *node) {
		if t.Artifact = d.yamlPath(v); n.get("job") == nil {
			d.errorf(n, "with artifact needs job, the name of the job that makes the file")
		}
	})
	d.optional(n, "job", func(v *node) { t.Job = d.filled(v) })
	d.field(n, "project", func(v *node) {
		if t.Project = d.projectPath(v); n.get("file") == nil {
			d.errorf(n, "with project needs file")
		}
	})
	d.optional(n, "ref", func(v *node) { t.Ref = d.filled(v) })
	d.optional(n, "file", func(v *node) {
		list := []*node{v}
		if v.kind == listKind {
			list = v.items
		}
		for _, c := range list {
			t.File = append(t.File, d.yamlPath(c))
		}
	})
	return t
}
