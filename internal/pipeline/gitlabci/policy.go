package gitlabci

import (
	"regexp"
	"strings"
)

// policy is only: or except:, the older way to filter jobs.
type policy struct {
	place      place
	refs       []refPattern
	hasRefs    bool
	conditions []*Expression
	changes    *changesClause
	kubernetes bool
}

type refPattern struct {
	name    string
	re      *regexp.Regexp // set when name is /.../
	project string         // after "@"
}

// defaultOnly is what applies to a job without only:, when no rules are used.
var defaultOnly = []refPattern{{name: "branches"}, {name: "tags"}}

func readPolicy(d *decoder, n *node) *policy {
	p := &policy{place: n.place}
	switch n.kind {
	case listKind:
		p.refs, p.hasRefs = readRefs(d, n), true
		return p
	case mapKind:
	default:
		d.errorf(n, "must be a list of refs or a mapping, not %s", n.describe())
		return p
	}
	d.known(n, []string{"refs", "kubernetes", "variables", "changes"})
	d.optional(n, "refs", func(v *node) { p.refs, p.hasRefs = readRefs(d, v), true })
	d.optional(n, "kubernetes", func(v *node) { p.kubernetes = d.enum(v, "active") != "" })
	d.optional(n, "variables", func(v *node) {
		if v.kind != listKind {
			d.errorf(v, "must be a list of expressions, not %s", v.describe())
			return
		}
		for _, c := range flattenItems(v, nil) {
			if e := readCondition(d, c); e != nil {
				p.conditions = append(p.conditions, e)
			}
		}
	})
	d.optional(n, "changes", func(v *node) { p.changes = &changesClause{paths: readPatterns(d, v)} })
	return p
}

func readRefs(d *decoder, n *node) []refPattern {
	texts := d.flat(n)
	out := make([]refPattern, 0, len(texts))
	for _, t := range texts {
		r := refPattern{name: t}
		r.name, r.project, _ = strings.Cut(t, "@")
		if slashed.MatchString(r.name) {
			re, err := ParsePattern(r.name)
			if err != nil {
				d.errorf(n, "holds an %s", err)
				continue
			}
			r.re = re
		}
		out = append(out, r)
	}
	return out
}

// matches reports whether a pipeline is of this kind or for this ref.
func (r refPattern) matches(f *facts) bool {
	if r.project != "" && r.project != f.predefined["CI_PROJECT_PATH"] {
		return false
	}
	source := strings.TrimSuffix(f.Source, "_event")
	plural := source + "s"
	if strings.HasSuffix(source, "sh") {
		plural = source + "es"
	}
	branch := !f.Tag && !f.MergeRequest
	switch {
	case f.Tag && r.name == "tags", branch && r.name == "branches":
		return true
	case source != "" && (r.name == source || r.name == plural):
		return true
	case f.MergeRequest: // refs are those of branches and tags only
		return false
	case r.re != nil:
		return r.re.MatchString(f.Ref)
	}
	return r.name == f.Ref
}

func matchRefs(refs []refPattern, f *facts) bool {
	for _, r := range refs {
		if r.matches(f) {
			return true
		}
	}
	return false
}

// checks returns the answers of the conditions a policy has: only: wants all, except: none.
func (p *policy) checks(d *decoder, f *facts, s *scope) []bool {
	var out []bool
	if p.hasRefs {
		out = append(out, matchRefs(p.refs, f))
	}
	if p.kubernetes {
		out = append(out, f.Kubernetes)
	}
	if p.conditions != nil {
		any := false
		for _, c := range p.conditions {
			any = any || c.True(s.raw)
		}
		out = append(out, any)
	}
	if p.changes != nil {
		out = append(out, f.changed(d, p.place, p.changes, s))
	}
	return out
}
