package gitlabci

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Limits of spec:inputs.
const (
	maxInputOptions     = 50
	maxInputDescription = 1024
	maxInputText        = 1 << 20
)

var inputTypes = []string{"string", "number", "boolean", "array"}

// inputSpec is one entry of spec:inputs.
type inputSpec struct {
	name        string
	kind        string
	description string
	value       *node // the default; nil when the input is required
	options     []*node
	pattern     *regexp.Regexp
	source      string // of pattern
	rules       []inputRule
	place       place
}

// header is the document in front of "---".
type header struct {
	inputs    []inputSpec
	component []string // facts asked for: name, sha, version, reference
}

// readHeader validates the header document.
func readHeader(d *decoder, n *node) header {
	var h header
	if !d.mapping(n, "spec") {
		return h
	}
	d.in("spec", func() {
		spec := n.get("spec")
		if spec.kind == nullKind || !d.mapping(spec, "inputs", "component", "include") {
			return
		}
		if inc := spec.get("include"); inc != nil {
			d.at(inc, "include", "is not supported in a header; declare the inputs in this file")
		}
		if c := spec.get("component"); c != nil {
			d.in("component", func() {
				h.component = d.strings(c)
				for i, name := range h.component {
					if !contains(componentFacts, name) {
						d.errorf(c.items[i], "has no fact %q; it offers %s", name, strings.Join(componentFacts, ", "))
					}
				}
			})
		}
		inputs := spec.get("inputs")
		if inputs == nil || inputs.kind == nullKind {
			return
		}
		d.in("inputs", func() {
			if !d.anyMapping(inputs) {
				return
			}
			for _, f := range inputs.fields {
				d.in(f.key, func() { h.inputs = append(h.inputs, readInput(d, f, true)) })
			}
		})
	})
	return h
}

var componentFacts = []string{"name", "sha", "version", "reference"}

func readInput(d *decoder, f field, inHeader bool) inputSpec {
	in := inputSpec{name: f.key, kind: "string", place: f.place}
	if !inputName.MatchString(f.key) {
		d.errorf(&node{place: f.place}, "is not a valid input name; use letters, digits, - and _")
	}
	n := f.value
	if n.kind == nullKind {
		return in
	}
	keys := []string{"type", "description", "options", "regex", "default"}
	if inHeader {
		keys = append(keys, "rules")
	}
	if !d.mapping(n, keys...) {
		return in
	}
	if t := n.get("type"); t != nil {
		d.in("type", func() { in.kind = d.enum(t, inputTypes...) })
	}
	if v := n.get("description"); v != nil {
		d.in("description", func() {
			if in.description = d.str(v); len(in.description) > maxInputDescription {
				d.errorf(v, "is longer than %d characters", maxInputDescription)
			}
		})
	}
	in.readLimits(d, n)
	if v := n.get("rules"); v != nil {
		d.in("rules", func() { in.rules = readInputRules(d, v, in.kind) })
		if n.get("default") != nil || n.get("options") != nil {
			d.errorf(v, "has rules, so default and options belong into them")
		}
	}
	if v := n.get("default"); v != nil {
		in.value = v
		if v.kind == nullKind {
			// A null default is an empty value: the input is optional.
			in.value = &node{kind: stringKind, place: v.place}
			return in
		}
		d.in("default", func() {
			if message := in.check(v); message != "" {
				d.errorf(v, "%s", message)
			}
		})
	}
	return in
}

func (in *inputSpec) readLimits(d *decoder, n *node) {
	if v := n.get("options"); v != nil {
		d.in("options", func() {
			if v.kind != listKind {
				d.errorf(v, "must be a list, not %s", v.describe())
				return
			}
			if len(v.items) > maxInputOptions {
				d.errorf(v, "has %d entries; at most %d are allowed", len(v.items), maxInputOptions)
			}
			for _, o := range v.items {
				if !o.scalar() {
					d.errorf(o, "must hold strings, numbers or booleans, not %s", o.describe())
				}
			}
			in.options = v.items
		})
	}
	if v := n.get("regex"); v != nil {
		d.in("regex", func() {
			source := d.str(v)
			re, err := compileInputPattern(source)
			if err != nil {
				d.errorf(v, "is not a valid regular expression: %s", err)
				return
			}
			in.pattern, in.source = re, source
			if in.kind != "string" {
				d.errorf(v, "goes with inputs of type string only")
			}
		})
	}
}

func compileInputPattern(source string) (*regexp.Regexp, error) {
	if slashed.MatchString(source) {
		return ParsePattern(source)
	}
	return regexp.Compile(source)
}

var inputName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// check returns what is wrong with a value, or "".
func (in *inputSpec) check(v *node) string {
	ok := false
	switch in.kind {
	case "string":
		ok = v.kind == stringKind
	case "number":
		ok = v.kind == intKind || v.kind == floatKind
	case "boolean":
		ok = v.kind == boolKind
	case "array":
		ok = v.kind == listKind
	default:
		return "" // the type itself was refused
	}
	if !ok {
		article := "a"
		if in.kind == "array" {
			article = "an"
		}
		return fmt.Sprintf("must be %s %s, not %s", article, in.kind, v.describe())
	}
	if len(in.options) > 0 {
		names := make([]string, len(in.options))
		for i, o := range in.options {
			if o.text == v.text && v.kind != listKind {
				return ""
			}
			names[i] = o.text
		}
		return fmt.Sprintf("is %s, which is not among the allowed values %s", v.describe(), strings.Join(names, ", "))
	}
	if in.pattern != nil && !in.pattern.MatchString(v.text) {
		return fmt.Sprintf("is %s, which does not match the pattern %s", v.describe(), in.source)
	}
	return ""
}

// bind checks the given values against the header and returns the value of every input. Mistakes
// are reported at the value, or at `given` for what is missing.
// typed is false for values of Context.Inputs, which may arrive as text.
func (h *header) bind(d *decoder, values *node, given place, file string, typed bool) map[string]*node {
	out := make(map[string]*node, len(h.inputs))
	names := make([]string, len(h.inputs))
	for i := range h.inputs {
		in := h.inputs[i].choose(h, out, values)
		names[i] = in.name
		v := values.get(in.name)
		if v == nil {
			if in.value == nil {
				d.missing(&node{place: given}, "%s needs the input %s, which has no default", file, in.name)
				continue
			}
			v = in.value
		} else if v = in.read(v, typed); in.check(v) != "" {
			message := in.check(v)
			d.missing(v, "the input %s of %s %s", in.name, file, message)
			continue
		}
		out[in.name] = v
	}
	if values != nil {
		for _, f := range values.fields {
			if !contains(names, f.key) {
				d.missing(&node{place: f.place}, "%s has no input %s%s", file, f.key, didYouMean(f.key, names))
			}
		}
	}
	return out
}

// nodeOf turns a value of Context.Inputs into a node; ok is false for a type that has none.
func nodeOf(v any, at place) (n *node, ok bool) {
	n = &node{place: at}
	switch v := v.(type) {
	case nil:
	case string:
		n.kind, n.text = stringKind, v
	case bool:
		n.kind, n.text = boolKind, strconv.FormatBool(v)
	case int:
		n.kind, n.text = intKind, strconv.Itoa(v)
	case int64:
		n.kind, n.text = intKind, strconv.FormatInt(v, 10)
	case json.Number:
		n.kind, n.text = intKind, v.String()
		if strings.ContainsAny(v.String(), ".eE") {
			n.kind = floatKind
		}
	case float64:
		n.kind, n.text = floatKind, printFloat(v)
		if v == float64(int64(v)) {
			n.kind, n.text = intKind, strconv.FormatInt(int64(v), 10)
		}
	case []any:
		n.kind = listKind
		for _, item := range v {
			c, ok := nodeOf(item, at)
			if !ok {
				return nil, false
			}
			n.items = append(n.items, c)
		}
	case []string:
		n.kind = listKind
		for _, item := range v {
			n.items = append(n.items, (&node{kind: stringKind, text: item, place: at}).seal())
		}
	case map[string]any:
		n.kind = mapKind
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			c, ok := nodeOf(v[k], at)
			if !ok {
				return nil, false
			}
			n.fields = append(n.fields, field{k, at, c})
		}
	default:
		return nil, false
	}
	return n.seal(), true
}

// value turns a node into plain Go values, as encoding/json would.
func (n *node) value() any {
	switch n.kind {
	case boolKind:
		return n.text == "true"
	case intKind, floatKind:
		if i, err := strconv.ParseInt(n.text, 10, 64); err == nil {
			return i
		}
		f, _ := strconv.ParseFloat(n.text, 64)
		return f
	case stringKind:
		return n.text
	case listKind, referenceKind:
		out := make([]any, len(n.items))
		for i, c := range n.items {
			out[i] = c.value()
		}
		return out
	case mapKind:
		out := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			out[f.key] = f.value.value()
		}
		return out
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func (in *inputSpec) read(v *node, typed bool) *node {
	if typed {
		return v
	}
	return in.coerce(v)
}

// coerce reads a value that arrived as text, from a form or command line, as the input's type.
func (in *inputSpec) coerce(v *node) *node {
	if v.kind != stringKind || in.kind == "string" {
		return v
	}
	var diags Diagnostics
	if n := readDocument(v.place.file, []byte(v.text), nil, &diags); n != nil {
		return n
	}
	return v
}
