package gitlabci

import (
	"fmt"
	"strconv"
	"strings"
)

// findingKind tells apart what is wrong within one keyword from what is wrong between them.
type findingKind uint8

const (
	keywordFinding   findingKind = iota // a keyword or its value, by itself
	referenceFinding                    // a name that leads nowhere: job, stage, file
)

// decoder reads nodes into values. It collects every mistake and never stops at one; what it
// returns for a mistaken value is the zero value.
type decoder struct {
	diags *Diagnostics
	job   string // set while a job is read
	path  []string
	kind  findingKind
	rules map[*node][]rule // rules without mistakes, which many jobs share through extends

	// incomplete is set when a file could not be read: a name that leads nowhere may be in it, so
	// that is not reported on top.
	incomplete bool
}

// in reads below a key.
func (d *decoder) in(key string, read func()) {
	d.path = append(d.path, key)
	read()
	d.path = d.path[:len(d.path)-1]
}

// at reports a mistake below a key.
func (d *decoder) at(n *node, key, format string, args ...any) {
	d.in(key, func() { d.errorf(n, format, args...) })
}

// maxDiagnostics is how many findings one call reports.
const maxDiagnostics = 1000

func (d *decoder) errorf(n *node, format string, args ...any) { d.report(n, false, format, args...) }

// clash reports keywords that are right by themselves but not with each other.
func (d *decoder) clash(n *node, format string, args ...any) {
	d.kind = referenceFinding
	d.errorf(n, format, args...)
	d.kind = keywordFinding
}

func (d *decoder) warnf(n *node, format string, args ...any) { d.report(n, true, format, args...) }

// missing reports a mistake between keywords.
func (d *decoder) missing(n *node, format string, args ...any) {
	if d.incomplete {
		return
	}
	d.clash(n, format, args...)
}

func (d *decoder) report(n *node, warning bool, format string, args ...any) {
	if n != nil && n.broken {
		return // one mistake, one message
	}
	if len(*d.diags) >= maxDiagnostics {
		return // aliases can repeat one mistake without end
	}
	var b strings.Builder
	if d.job != "" {
		b.WriteString("job ")
		b.WriteString(d.job)
		b.WriteString(": ")
	}
	if len(d.path) > 0 {
		path := d.path
		if path[0] == "" { // an unknown keyword of the job itself
			path = path[1:]
		}
		if len(path) > 0 {
			b.WriteString(strings.Join(path, ":"))
			b.WriteByte(' ')
		}
	}
	fmt.Fprintf(&b, format, args...)
	at := place{}
	if n != nil {
		at = n.place
	}
	*d.diags = append(*d.diags, Diagnostic{
		Message: b.String(), File: at.file, Line: at.line, Column: at.column, Warning: warning, kind: d.kind,
	})
}

// anyMapping requires a mapping with keys of the user's choice.
func (d *decoder) anyMapping(n *node) bool {
	if n.kind != mapKind {
		d.errorf(n, "must be a mapping, not %s", n.describe())
		return false
	}
	return true
}

// mapping requires a mapping of known keys.
func (d *decoder) mapping(n *node, keys ...string) bool {
	if !d.anyMapping(n) {
		return false
	}
	d.known(n, keys)
	return true
}

func (d *decoder) known(n *node, keys []string) {
	for i := range n.fields {
		if f := &n.fields[i]; !contains(keys, f.key) {
			d.in("", func() { // an empty last part makes it "artifacts: unknown keyword"
				d.errorf(&node{place: f.place}, "unknown keyword %s%s", f.key, didYouMean(f.key, keys))
			})
		}
	}
}

// field reads one key of a mapping if it is there. A null is given to read, which refuses it.
func (d *decoder) field(n *node, key string, read func(*node)) {
	if v := n.get(key); v != nil {
		d.in(key, func() { read(v) })
	}
}

// optional is field for keys that may be null, which is the same as absent.
func (d *decoder) optional(n *node, key string, read func(*node)) {
	if v := n.get(key); v != nil && v.kind != nullKind {
		d.in(key, func() { read(v) })
	}
}

func (d *decoder) str(n *node) string {
	if n.kind != stringKind {
		d.errorf(n, "must be a string, not %s", n.describe())
		return ""
	}
	return n.text
}

func (d *decoder) filled(n *node) string {
	s := d.str(n)
	if n.kind == stringKind && strings.TrimSpace(s) == "" {
		d.errorf(n, "must not be empty")
	}
	return s
}

func (d *decoder) enum(n *node, values ...string) string {
	if n.kind != stringKind || !contains(values, n.text) {
		hint := ""
		if n.kind == stringKind {
			hint = didYouMean(n.text, values)
		}
		d.errorf(n, "must be one of %s, not %s%s", strings.Join(values, ", "), n.describe(), hint)
		return ""
	}
	return n.text
}

func (d *decoder) boolean(n *node) bool {
	if n.kind != boolKind {
		d.errorf(n, "must be true or false, not %s", n.describe())
		return false
	}
	return n.text == "true"
}

func (d *decoder) integer(n *node, low, high int) int {
	i, err := strconv.Atoi(n.text)
	switch {
	case n.kind != intKind || err != nil:
		d.errorf(n, "must be a whole number, not %s", n.describe())
	case i < low || i > high:
		d.errorf(n, "must be a number from %d to %d, not %d", low, high, i)
	default:
		return i
	}
	return low
}

// strings reads a list of strings; it may be empty.
func (d *decoder) strings(n *node) []string {
	if n.kind != listKind {
		d.errorf(n, "must be a list of strings, not %s", n.describe())
		return nil
	}
	out := make([]string, 0, len(n.items))
	for _, c := range n.items {
		if c.kind != stringKind {
			d.errorf(c, "must be a list of strings, but holds %s", c.describe())
			continue
		}
		out = append(out, c.text)
	}
	return out
}

// flat reads a list of strings in which lists may be nested, as !reference leaves them.
func (d *decoder) flat(n *node) []string {
	if n.kind != listKind {
		d.errorf(n, "must be a list of strings, not %s", n.describe())
		return nil
	}
	return d.flatten(n, make([]string, 0, len(n.items)), 1)
}

// maxListNesting is how deep lists may be nested in script, rules and the like.
const maxListNesting = 10

func (d *decoder) flatten(n *node, out []string, level int) []string {
	for _, c := range n.items {
		switch {
		case c.kind == stringKind:
			out = append(out, c.text)
		case c.kind == listKind && level >= maxListNesting:
			d.errorf(c, "is nested deeper than %d levels", maxListNesting)
		case c.kind == listKind:
			out = d.flatten(c, out, level+1)
		default:
			d.errorf(c, "must be a list of strings, but holds %s%s", c.describe(), quoteHint(c))
		}
	}
	return out
}

// quoteHint helps with the commonest mistake in scripts: a colon makes a mapping of a command.
func quoteHint(n *node) string {
	if n.kind == mapKind {
		return "; put the line in quotes, since a colon followed by a space makes it a mapping"
	}
	if n.scalar() {
		return "; put it in quotes"
	}
	return ""
}

// oneOrMore reads a string or a list of strings.
func (d *decoder) oneOrMore(n *node) []string {
	if n.kind == stringKind {
		return []string{n.text}
	}
	if n.kind != listKind {
		d.errorf(n, "must be a string or a list of strings, not %s", n.describe())
		return nil
	}
	return d.strings(n)
}

// integers reads a whole number or a list of them.
func (d *decoder) integers(n *node) []int {
	list := []*node{n}
	if n.kind == listKind {
		if list = n.items; len(list) == 0 {
			d.errorf(n, "must not be empty")
		}
	}
	out := make([]int, 0, len(list))
	for _, c := range list {
		i, err := strconv.Atoi(c.text)
		if c.kind != intKind || err != nil {
			d.errorf(c, "must be a whole number or a list of them, not %s", c.describe())
			continue
		}
		if containsInt(out, i) {
			d.errorf(c, "names %d twice", i)
		}
		out = append(out, i)
	}
	return out
}

func containsInt(list []int, i int) bool {
	for _, v := range list {
		if v == i {
			return true
		}
	}
	return false
}

// duration reads a duration. A text with a variable is accepted when variables is set.
func (d *decoder) duration(n *node, variables bool) string {
	s := d.filled(n)
	if n.kind != stringKind || strings.TrimSpace(s) == "" || variables && strings.Contains(s, "$") {
		return s
	}
	if _, err := ParseDuration(s); err != nil {
		d.errorf(n, "is wrong: %s", err)
	}
	return s
}

// limit reports a list that is too long.
func (d *decoder) limit(n *node, count, most int, what string) {
	if count > most {
		d.errorf(n, "has %d %s; at most %d are allowed", count, what, most)
	}
}

// unique reports a repeated string.
func (d *decoder) unique(n *node, values []string) {
	for i, v := range values {
		if contains(values[:i], v) {
			d.errorf(n, "names %s twice", v)
		}
	}
}
