package gitlabci

import (
	"fmt"
	"strings"
)

// inputRule is one entry of rules: of an input: it gives default and options when its condition on
// other inputs holds. The first that matches counts.
type inputRule struct {
	condition *Expression // nil always matches
	names     []string    // inputs the condition asks for, by number of the variable
	value     *node
	options   []*node
}

func readInputRules(d *decoder, n *node, kind string) []inputRule {
	if n.kind != listKind {
		d.errorf(n, "must be a list of rules, not %s", n.describe())
		return nil
	}
	out := make([]inputRule, 0, len(n.items))
	for _, c := range n.items {
		if !d.mapping(c, "if", "default", "options") {
			continue
		}
		var r inputRule
		d.field(c, "if", func(v *node) {
			text := d.str(v)
			if v.kind != stringKind {
				return
			}
			replaced := block.ReplaceAllStringFunc(text, func(b string) string {
				name := strings.TrimPrefix(strings.TrimSpace(block.FindStringSubmatch(b)[1]), "inputs.")
				r.names = append(r.names, name)
				return fmt.Sprintf("$INPUT_%d", len(r.names)-1)
			})
			e, err := ParseExpression(replaced)
			if err != nil {
				d.errorf(v, "is not a valid expression: %s in: %s", err, text)
				return
			}
			r.condition = e
		})
		limits := inputSpec{kind: kind}
		limits.readLimits(d, c.withoutKeys("if", "default"))
		r.options = limits.options
		if v := c.get("default"); v != nil {
			d.in("default", func() {
				if message := limits.check(v); message != "" {
					d.errorf(v, "%s", message)
				}
			})
			r.value = v
		}
		out = append(out, r)
	}
	return out
}

func (n *node) withoutKeys(keys ...string) *node {
	for _, k := range keys {
		n = n.without(k)
	}
	return n
}

// choose applies the rules of an input, given the inputs bound so far and the values still to come.
func (in *inputSpec) choose(h *header, bound map[string]*node, values *node) *inputSpec {
	for i := range in.rules {
		r := &in.rules[i]
		if r.condition != nil && !r.condition.True(r.lookup(h, bound, values)) {
			continue
		}
		out := *in
		out.value, out.options = r.value, r.options
		return &out
	}
	return in
}

func (r *inputRule) lookup(h *header, bound map[string]*node, values *node) Lookup {
	return func(variable string) (string, bool) {
		for i, name := range r.names {
			if variable != fmt.Sprintf("INPUT_%d", i) {
				continue
			}
			if v := bound[name]; v != nil {
				return v.text, true
			}
			if v := values.get(name); v != nil {
				return v.text, true
			}
			for k := range h.inputs {
				if h.inputs[k].name == name && h.inputs[k].value != nil {
					return h.inputs[k].value.text, true
				}
			}
		}
		return "", false
	}
}
