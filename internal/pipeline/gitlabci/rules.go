package gitlabci

import "context"

// rule is one entry of rules:.
type rule struct {
	place         place
	condition     *Expression
	changes       *changesClause
	exists        *existsClause
	when          string
	startIn       string
	allowFailure  *allowFailure
	needs         *needs
	variables     Variables
	interruptible *bool
	autoCancel    AutoCancel
}

type changesClause struct {
	paths     []string
	compareTo string
}

type existsClause struct {
	paths        []string
	project, ref string
}

// ruleSet says which rules are read: those of a job, of workflow or of an include.
type ruleSet struct {
	keys   []string
	whens  []string
	shared bool // read each list once: jobs get theirs from templates
}

var (
	jobWhens = []string{"on_success", "on_failure", "always", "never", "manual", "delayed"}

	jobRule = ruleSet{
		keys:   []string{"if", "changes", "exists", "when", "start_in", "allow_failure", "variables", "needs", "interruptible"},
		whens:  jobWhens, // never is for rules only
		shared: true,
	}
	workflowRule = ruleSet{
		keys:  []string{"if", "changes", "exists", "when", "variables", "auto_cancel"},
		whens: []string{"always", "never"},
	}
	includeRule = ruleSet{
		keys:  []string{"if", "changes", "exists", "when"},
		whens: []string{"always", "never"},
	}
)

// maxPatterns is how many globs one changes or exists may hold.
const maxPatterns = 50

func readRules(d *decoder, n *node, set ruleSet) []rule {
	if n.kind != listKind {
		d.errorf(n, "must be a list of rules, not %s", n.describe())
		return nil
	}
	if set.shared {
		if rules, ok := d.rules[n]; ok {
			return rules
		}
	}
	before := len(*d.diags)
	rules := readRuleList(d, n, set, make([]rule, 0, len(n.items)), 1)
	if set.shared && len(*d.diags) == before {
		if d.rules == nil {
			d.rules = map[*node][]rule{}
		}
		d.rules[n] = rules
	}
	return rules
}

func readRuleList(d *decoder, n *node, set ruleSet, out []rule, level int) []rule {
	for _, c := range n.items {
		if c.kind != listKind {
			out = append(out, readRule(d, c, set))
			continue
		}
		if level >= maxListNesting {
			d.errorf(c, "is nested deeper than %d levels", maxListNesting)
			continue
		}
		out = readRuleList(d, c, set, out, level+1)
	}
	return out
}

func readRule(d *decoder, n *node, set ruleSet) rule {
	r := rule{place: n.place}
	if !d.mapping(n, set.keys...) {
		return r
	}
	if len(n.fields) == 0 {
		d.errorf(n, "has an empty rule")
	}
	d.field(n, "if", func(v *node) { r.condition = readCondition(d, v) })
	d.optional(n, "changes", func(v *node) { r.changes = readChanges(d, v) })
	d.optional(n, "exists", func(v *node) { r.exists = readExists(d, v) })
	d.optional(n, "when", func(v *node) { r.when = d.enum(v, set.whens...) })
	d.optional(n, "variables", func(v *node) { r.variables, _ = readVariables(d, v, ruleVariables) })
	d.optional(n, "start_in", func(v *node) {
		if r.startIn = d.startIn(v); r.when != "delayed" && r.when != "" {
			d.clash(v, "goes with when: delayed only")
		}
	})
	if r.when == "delayed" && !n.has("start_in") {
		d.errorf(n.get("when"), "when: delayed needs start_in")
	}
	d.optional(n, "allow_failure", func(v *node) { r.allowFailure = readAllowFailure(d, v) })
	d.optional(n, "needs", func(v *node) { r.needs = readNeeds(d, v, true) })
	d.optional(n, "interruptible", func(v *node) { b := d.boolean(v); r.interruptible = &b })
	d.optional(n, "auto_cancel", func(v *node) { r.autoCancel = readAutoCancel(d, v) })
	return r
}

func readCondition(d *decoder, v *node) *Expression {
	if v.kind != stringKind {
		d.errorf(v, "must be an expression such as $CI_COMMIT_BRANCH == \"main\", not %s", v.describe())
		return nil
	}
	e, err := ParseExpression(v.text)
	if err != nil {
		d.errorf(v, "is not a valid expression: %s in: %s", err, v.text)
		return nil
	}
	return e
}

func readPatterns(d *decoder, v *node) []string {
	paths := d.flat(v)
	d.limit(v, len(paths), maxPatterns, "patterns")
	return paths
}

func readChanges(d *decoder, v *node) *changesClause {
	c := &changesClause{}
	switch v.kind {
	case listKind:
		c.paths = readPatterns(d, v)
	case mapKind:
		d.known(v, []string{"paths", "compare_to"})
		if v.get("paths") == nil {
			d.errorf(v, "needs paths")
		}
		d.field(v, "paths", func(p *node) { c.paths = readPatterns(d, p) })
		d.field(v, "compare_to", func(p *node) { c.compareTo = d.filled(p) })
	default:
		d.errorf(v, "must be a list of paths, or a mapping with paths, not %s", v.describe())
	}
	return c
}

func readExists(d *decoder, v *node) *existsClause {
	c := &existsClause{}
	switch v.kind {
	case listKind:
		c.paths = readPatterns(d, v)
	case mapKind:
		d.known(v, []string{"paths", "project", "ref"})
		if v.get("paths") == nil {
			d.errorf(v, "needs paths")
		}
		d.field(v, "paths", func(p *node) { c.paths = readPatterns(d, p) })
		d.field(v, "project", func(p *node) { c.project = d.filled(p) })
		d.field(v, "ref", func(p *node) {
			if c.ref = d.filled(p); v.get("project") == nil {
				d.errorf(p, "goes with project only")
			}
		})
	default:
		d.errorf(v, "must be a list of paths, or a mapping with paths, not %s", v.describe())
	}
	return c
}

// matches reports whether all conditions of a rule hold. What cannot be answered is reported.
func (r *rule) matches(ctx context.Context, d *decoder, f *facts, s *scope) bool {
	if r.condition != nil && !r.condition.True(s.raw) {
		return false
	}
	if r.changes != nil && !f.changed(d, r.place, r.changes, s) {
		return false
	}
	return r.exists == nil || f.exist(ctx, d, r.place, r.exists, s)
}
