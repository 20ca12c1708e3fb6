package gitlabci

import (
	"context"
	"strings"
)

// Config is a merged and validated configuration: includes, references and extends are resolved,
// defaults are in the jobs. It is immutable and may be planned more than once, also concurrently.
type Config struct {
	root      *node
	src       Sources
	workflow  workflow
	variables Variables
	form      []FormField
	stages    []string
	badStages bool // stages: could not be read, so stages of jobs are not checked
	jobs      []*jobDef
	byName    map[string]target
}

// target is what a name in needs or dependencies stands for: a job, or one instance of it.
type target struct {
	job      *jobDef
	instance int // -1: the job with all its instances
}

// Form lists the global variables that a manual run asks for.
func (c *Config) Form() []FormField { return append([]FormField{}, c.form...) }

// JobNames lists the visible jobs in order of the file, before parallel is expanded.
func (c *Config) JobNames() []string {
	out := make([]string, len(c.jobs))
	for i, j := range c.jobs {
		out[i] = j.name
	}
	return out
}

// Compile reads the file named root in the zero Location, whose text is given, with everything it
// includes. The Config is nil exactly when the diagnostics hold an error.
func Compile(ctx context.Context, root string, text []byte, src Sources, event Context) (*Config, Diagnostics) {
	var diags Diagnostics
	c := compile(ctx, root, text, src, event, &diags)
	diags = diags.sorted(root)
	if c == nil || diags.Failed() {
		return nil, diags
	}
	return c, diags
}

func compile(ctx context.Context, root string, text []byte, src Sources, event Context, diags *Diagnostics) *Config {
	d := &decoder{diags: diags}
	at := place{root, 1, 1}
	given := (*node)(nil)
	if len(event.Inputs) > 0 {
		values := make(map[string]any, len(event.Inputs))
		for k, v := range event.Inputs {
			values[k] = v
		}
		n, ok := nodeOf(values, at)
		if !ok {
			d.errorf(&node{place: at}, "an input has a value that is not a string, number, boolean or list")
			return nil
		}
		given = n
	}
	l := &loader{ctx: ctx, src: src, facts: newFacts(event, src), diags: diags, texts: map[string][]byte{}}
	n := l.load(fileID{name: root, root: true}, text, given, at)
	if n == nil {
		return nil
	}
	d.incomplete = diags.Failed()
	n = resolveReferences(d, n)
	n = resolveExtends(d, n)
	if n.weight > maxWeight || n.depth > maxDepth {
		d.errorf(&node{place: at}, "the configuration is too large once it is merged")
		return nil
	}
	c := &Config{root: n, src: src, byName: map[string]target{}}
	c.read(d, n)
	c.check(d)
	return c
}

// globalKeys are the keywords of the file; everything else at the top is a job.
var globalKeys = []string{
	"after_script", "before_script", "cache", "default", "image", "include", "services", "spec", "stages", "variables", "workflow",
}

// legacyDefaults may be written at the top instead of in default:.
var legacyDefaults = []string{"after_script", "before_script", "cache", "image", "services"}

func (c *Config) read(d *decoder, n *node) {
	d.optional(n, "$schema", func(v *node) { d.str(v) })
	d.optional(n, "spec", func(*node) { readHeader(d.fresh(), n.only("spec")) })
	d.optional(n, "workflow", func(v *node) { c.workflow = readWorkflow(d, v) })
	d.optional(n, "variables", func(v *node) { c.variables, c.form = readVariables(d, v, globalVariables) })
	c.readStages(d, n)
	defaults := c.readDefaults(d, n)
	for i := range n.fields {
		f := &n.fields[i]
		if contains(globalKeys, f.key) || f.key == "$schema" || strings.HasPrefix(f.key, ".") {
			continue
		}
		if misplaced(d, f) {
			continue
		}
		d.job = f.key
		if j := readJob(d, f, &defaults); j != nil {
			c.jobs = append(c.jobs, j)
		}
		d.job = ""
	}
}

// fresh is a decoder of the same findings with no path.
func (d *decoder) fresh() *decoder { return &decoder{diags: d.diags} }

// only returns a mapping of one key.
func (n *node) only(key string) *node {
	i := n.find(key)
	return (&node{kind: mapKind, place: n.place, fields: n.fields[i : i+1]}).seal()
}

// misplaced reports job keywords at the top of the file and keywords that exist no more.
func misplaced(d *decoder, f *field) bool {
	at := &node{place: f.place}
	switch {
	case f.key == "types":
		d.errorf(at, "types does not exist any more; use stages")
	case f.value.kind == mapKind:
		return false
	case contains(jobKeys, f.key):
		d.errorf(at, "%s is a keyword of jobs and cannot be used at the top of the file", f.key)
	default:
		return false
	}
	return true
}

func (c *Config) readStages(d *decoder, n *node) {
	middle := []string{"build", "test", "deploy"}
	d.optional(n, "stages", func(v *node) {
		before := len(*d.diags)
		read := d.flat(v)
		if v.kind == listKind && len(v.items) == 0 {
			d.errorf(v, "must not be empty")
		}
		middle = middle[:0:0]
		for _, s := range read {
			switch {
			case s == "":
				d.errorf(v, "must not hold an empty name")
			case s == ".pre" || s == ".post": // always there, at the ends
			case contains(middle, s):
				d.warnf(v, "names %s twice", s)
			default:
				middle = append(middle, s)
			}
		}
		c.badStages = (*d.diags)[before:].Failed()
	})
	c.stages = append(append([]string{".pre"}, middle...), ".post")
}

func (c *Config) readDefaults(d *decoder, n *node) inheritable {
	var in inheritable
	def := n.get("default")
	if def == nil || def.kind == nullKind {
		def = (&node{kind: mapKind}).seal()
	}
	d.in("default", func() {
		if d.mapping(def, defaultKeys...) {
			in = readInheritable(d, def)
		}
	})
	legacy := readInheritable(d, legacyNode(n))
	for _, key := range legacyDefaults {
		if n.has(key) && def.has(key) {
			d.clash(n.get(key), "%s is set at the top of the file and in default; use default only", key)
		}
	}
	pick := func(key string) bool { return n.has(key) }
	if pick("after_script") {
		in.afterScript = legacy.afterScript
	}
	if pick("before_script") {
		in.beforeScript = legacy.beforeScript
	}
	if pick("cache") {
		in.cache = legacy.cache
	}
	if pick("image") {
		in.image = legacy.image
	}
	if pick("services") {
		in.services = legacy.services
	}
	return in
}

func legacyNode(n *node) *node {
	out := &node{kind: mapKind, place: n.place}
	for _, key := range legacyDefaults {
		if i := n.find(key); i >= 0 {
			out.fields = append(out.fields, n.fields[i])
		}
	}
	return out.seal()
}
