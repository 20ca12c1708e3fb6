package gitlabci

import "strings"

// jobDef is a job as the file has it, before rules are evaluated and parallel is expanded.
type jobDef struct {
	name         string
	node         *node
	rules        []rule
	hasRules     bool
	only, except *policy
	allowFailure *allowFailure
	needs        *needs
	dependencies *node
	inherit      inherit
	variables    Variables
	parallel     *parallel
	template     Job // everything that does not depend on the event
}

// inheritable are the keywords that default: may hold. Nil and "" mean absent.
type inheritable struct {
	beforeScript, afterScript, hooks []string
	artifacts                        *Artifacts
	cache                            []Cache
	idTokens                         []IDToken
	image                            *Image
	interruptible                    *bool
	retry                            *Retry
	services                         []Service
	tags                             []string
	timeout                          string
}

func readInheritable(d *decoder, n *node) inheritable {
	var in inheritable
	d.optional(n, "before_script", func(v *node) { in.beforeScript = readScript(d, v) })
	d.optional(n, "after_script", func(v *node) { in.afterScript = readScript(d, v) })
	d.optional(n, "hooks", func(v *node) { in.hooks = readHooks(d, v) })
	d.optional(n, "artifacts", func(v *node) { in.artifacts = readArtifacts(d, v) })
	d.optional(n, "cache", func(v *node) { in.cache = readCaches(d, v) })
	d.optional(n, "id_tokens", func(v *node) { in.idTokens = readIDTokens(d, v) })
	d.optional(n, "image", func(v *node) { in.image = readImage(d, v) })
	d.optional(n, "interruptible", func(v *node) { b := d.boolean(v); in.interruptible = &b })
	d.optional(n, "retry", func(v *node) { in.retry = readRetry(d, v) })
	d.optional(n, "services", func(v *node) { in.services = readServices(d, v) })
	d.optional(n, "tags", func(v *node) { in.tags = readTags(d, v) })
	d.optional(n, "timeout", func(v *node) { in.timeout = d.duration(v, false) })
	d.optional(n, "identity", func(v *node) {
		d.enum(v, "google_cloud")
		d.warnf(v, "has no effect here")
	})
	return in
}

// fill puts the defaults into a job for what it does not say itself.
func (in *inheritable) fill(j *jobDef, own *inheritable, defaults *inheritable) {
	take := func(key string) bool { return !j.node.has(key) && j.inherit.takesDefault(key) }
	*in = *own
	if take("before_script") {
		in.beforeScript = defaults.beforeScript
	}
	if take("after_script") {
		in.afterScript = defaults.afterScript
	}
	if take("hooks") {
		in.hooks = defaults.hooks
	}
	if take("artifacts") {
		in.artifacts = defaults.artifacts
	}
	if take("cache") {
		in.cache = defaults.cache
	}
	if take("id_tokens") {
		in.idTokens = defaults.idTokens
	}
	if take("image") {
		in.image = defaults.image
	}
	if take("interruptible") {
		in.interruptible = defaults.interruptible
	}
	if take("retry") {
		in.retry = defaults.retry
	}
	if take("services") {
		in.services = defaults.services
	}
	if take("tags") {
		in.tags = defaults.tags
	}
	if take("timeout") {
		in.timeout = defaults.timeout
	}
}

var jobKeys = []string{
	"after_script", "allow_failure", "artifacts", "before_script", "cache", "coverage", "dast_configuration",
	"dependencies", "environment", "except", "extends", "hooks", "id_tokens", "identity", "image", "inherit", "inputs",
	"interruptible", "manual_confirmation", "needs", "only", "pages", "parallel", "publish", "release",
	"resource_group", "retry", "rules", "run", "script", "secrets", "services", "stage", "start_in",
	"tags", "timeout", "trigger", "variables", "when",
}

// triggerKeys have an effect in a job with trigger.
var triggerKeys = []string{
	"allow_failure", "environment", "except", "inherit", "interruptible", "manual_confirmation", "needs",
	"only", "parallel", "resource_group", "rules", "stage", "start_in", "trigger", "variables", "when",
}

const maxJobName = 255

// readJob reads one job. The decoder's job is set.
func readJob(d *decoder, f *field, defaults *inheritable) *jobDef {
	n := f.value
	j := &jobDef{name: f.key, node: n, inherit: inherit{allDefaults: true, allVariables: true}}
	at := &node{place: f.place}
	if strings.TrimSpace(f.key) == "" || len(f.key) > maxJobName {
		d.errorf(at, "must have a name of 1 to %d characters", maxJobName)
	}
	if n.kind != mapKind {
		d.errorf(at, "must be a mapping with script or trigger, not %s%s", n.describe(), didYouMean(f.key, globalKeys))
		return nil
	}
	d.known(n, jobKeys)
	trigger, bridge := n.has("trigger"), isBridge(n)
	t := &j.template
	t.File, t.Line = f.place.file, f.place.line
	if !n.has("script") && !n.has("run") && !bridge && !d.incomplete {
		hint := didYouMean(f.key, globalKeys)
		d.errorf(at, "needs script or trigger%s", hint)
	}
	d.optional(n, "inherit", func(v *node) { j.inherit = readInherit(d, v) })
	own := readInheritable(d, n)
	var all inheritable
	all.fill(j, &own, defaults)
	if bridge {
		j.warnIdle(d)
		d.field(n, "trigger", func(v *node) { t.Trigger = readTrigger(d, v) })
		t.Interruptible = all.interruptible
	} else {
		if v := n.get("trigger"); v != nil {
			d.at(v, "trigger", "must be the path of a project or a mapping with project or include, not nothing")
		}
		j.readWork(d, &all)
	}
	j.readFlow(d)
	if trigger && t.Trigger != nil && n.has("parallel") && j.parallel != nil && j.parallel.rows == nil {
		d.in("parallel", func() { d.clash(n.get("parallel"), "must be a matrix in a job with trigger") })
	}
	return j
}

// isBridge reports whether a job starts or mirrors another pipeline instead of running a script.
func isBridge(n *node) bool {
	if n.has("trigger") {
		return true
	}
	needs := n.get("needs")
	if n.has("script") || n.has("run") || needs == nil {
		return false
	}
	list := []*node{needs}
	if needs.kind == listKind {
		list = needs.items
	}
	for _, c := range list {
		if c.has("pipeline") && !c.has("job") {
			return true
		}
	}
	return false
}

func (j *jobDef) warnIdle(d *decoder) {
	for i := range j.node.fields {
		f := &j.node.fields[i]
		if contains(jobKeys, f.key) && !contains(triggerKeys, f.key) && f.value.kind != nullKind {
			d.warnf(&node{place: f.place}, "%s has no effect in a job that triggers a pipeline", f.key)
		}
	}
}

// readWork reads what a runner does.
func (j *jobDef) readWork(d *decoder, all *inheritable) {
	n, t := j.node, &j.template
	d.optional(n, "script", func(v *node) { t.Script = readMainScript(d, v) })
	d.optional(n, "run", func(v *node) {
		if n.has("script") {
			d.clash(v, "cannot be used together with script")
		}
		t.Script = readRun(d, v)
	})
	t.BeforeScript, t.AfterScript, t.PreGetSources = all.beforeScript, all.afterScript, all.hooks
	t.Artifacts, t.Cache, t.Image, t.Services = all.artifacts, all.cache, all.image, all.services
	t.Tags, t.Timeout, t.Retry, t.Interruptible, t.IDTokens = all.tags, all.timeout, all.retry, all.interruptible, all.idTokens
	d.optional(n, "coverage", func(v *node) { t.Coverage = readCoverage(d, v) })
	d.optional(n, "release", func(v *node) { t.Release = readRelease(d, v) })
	d.optional(n, "secrets", func(v *node) { t.Secrets = readSecrets(d, v) })
	d.optional(n, "inputs", func(v *node) { t.Inputs = readJobInputs(d, v) })
	d.optional(n, "dast_configuration", func(v *node) {
		if d.mapping(v, "site_profile", "scanner_profile") {
			d.warnf(v, "has no effect here")
		}
	})
	if t.Pages = readPages(d, n, j.name); t.Pages != nil {
		t.Artifacts = withPath(t.Artifacts, t.Pages.Publish)
	}
}

// withPath returns artifacts that hold the folder a pages job publishes.
func withPath(a *Artifacts, path string) *Artifacts {
	if a == nil {
		return &Artifacts{When: "on_success", Paths: []string{path}}
	}
	if contains(a.Paths, path) || contains(a.Paths, path+"/") {
		return a
	}
	out := *a
	out.Paths = append(a.Paths[:len(a.Paths):len(a.Paths)], path)
	return &out
}

// readFlow reads when and under which conditions a job runs.
func (j *jobDef) readFlow(d *decoder) {
	n, t := j.node, &j.template
	t.Stage = "test"
	d.optional(n, "stage", func(v *node) { t.Stage = d.filled(v) })
	d.optional(n, "when", func(v *node) {
		if v.kind == stringKind && v.text == "never" {
			t.When = v.text
			d.warnf(v, "never keeps the job out of every pipeline; use rules to decide")
			return
		}
		t.When = d.enum(v, "on_success", "on_failure", "always", "manual", "delayed")
	})
	if !n.has("rules") {
		if t.When == "delayed" && !n.has("start_in") {
			d.errorf(n.get("when"), "when: delayed needs start_in")
		}
		d.optional(n, "start_in", func(v *node) {
			if t.StartIn = d.startIn(v); t.When != "delayed" {
				d.clash(v, "goes with when: delayed only")
			}
		})
	}
	d.optional(n, "rules", func(v *node) { j.rules, j.hasRules = readRules(d, v, jobRule), true })
	if j.hasRules {
		for _, key := range []string{"only", "except", "start_in"} {
			if n.has(key) {
				d.in(key, func() { d.clash(n.get(key), "cannot be used together with rules") })
			}
		}
	}
	d.optional(n, "only", func(v *node) { j.only = readPolicy(d, v) })
	d.optional(n, "except", func(v *node) { j.except = readPolicy(d, v) })
	d.optional(n, "allow_failure", func(v *node) { j.allowFailure = readAllowFailure(d, v) })
	d.optional(n, "needs", func(v *node) { j.needs = readNeeds(d, v, false) })
	d.optional(n, "dependencies", func(v *node) { j.dependencies, t.Dependencies = v, d.strings(v) })
	d.optional(n, "variables", func(v *node) { j.variables, _ = readVariables(d, v, jobVariables) })
	d.optional(n, "parallel", func(v *node) { p := readParallel(d, v, false); j.parallel = &p })
	d.optional(n, "environment", func(v *node) { t.Environment = readEnvironment(d, v) })
	d.optional(n, "resource_group", func(v *node) { t.ResourceGroup = d.filled(v) })
	d.optional(n, "manual_confirmation", func(v *node) { t.ManualConfirmation = d.str(v) })
}
