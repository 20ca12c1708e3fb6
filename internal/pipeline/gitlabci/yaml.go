package gitlabci

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Limits of one file, as GitLab's: a small file must not become a large tree through aliases.
const (
	maxTextBytes = 2 << 20
	maxWeight    = 1 << 20
	maxDepth     = 100
)

// reader turns the text of one document into nodes. Positions are in the file the user wrote:
// at maps those of the text that is parsed, which differs when inputs were interpolated.
type reader struct {
	file  string
	at    func(line, column int) (int, int)
	seen  map[*yaml.Node]*node // finished anchors
	open  map[*yaml.Node]bool  // anchors being read, to refuse cycles
	diags *Diagnostics
}

// readDocument parses one YAML document. It returns nil after a syntax error, and a null node for
// an empty document.
func readDocument(file string, text []byte, at func(line, column int) (int, int), diags *Diagnostics) *node {
	if at == nil {
		at = func(l, c int) (int, int) { return l, c }
	}
	r := &reader{file: file, at: at, seen: map[*yaml.Node]*node{}, open: map[*yaml.Node]bool{}, diags: diags}
	if len(text) > maxTextBytes {
		r.fail(1, 1, "the file is larger than %d MiB", maxTextBytes>>20)
		return nil
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err != nil {
		if err == io.EOF {
			return (&node{place: place{file, 1, 1}}).seal()
		}
		r.syntax(text, err)
		return nil
	}
	var next yaml.Node
	if err := dec.Decode(&next); err == nil {
		r.fail(next.Line, next.Column, "only one document is allowed, besides a header with spec: in front of it")
		return nil
	} else if err != io.EOF {
		r.syntax(text, err)
		return nil
	}
	before := len(*diags)
	n := r.read(doc.Content[0])
	if len(*diags) > before && diags.Failed() {
		return nil
	}
	if n.weight > maxWeight || n.depth > maxDepth {
		r.fail(1, 1, "the file is too large once its aliases are resolved (more than %d values or %d levels)", maxWeight, maxDepth)
		return nil
	}
	return n
}

func (r *reader) fail(line, column int, format string, args ...any) {
	line, column = r.at(line, column)
	*r.diags = append(*r.diags, Diagnostic{Message: fmt.Sprintf(format, args...), File: r.file, Line: line, Column: column})
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports a parser error. The parser names the line where the broken construct began, which
// may be the top of the file, so the line is looked for: the first one that cannot follow the lines
// before it. The column is that of its first character.
func (r *reader) syntax(text []byte, err error) {
	line, message := 1, err.Error()
	if m := syntaxError.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	if hint := syntaxHints[message]; hint != "" {
		message += "; " + hint
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	if at := firstBadLine(lines); at > 0 {
		line = at
	}
	column := 1
	if line <= len(lines) {
		column += len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " "))
	}
	r.fail(line, column, "invalid YAML: %s", message)
}

var syntaxHints = map[string]string{
	"did not find expected key":                                    "check the indentation and the quotes of this line and the one above",
	"mapping values are not allowed in this context":               "check the indentation, or quote a value that holds a colon and a space",
	"found character that cannot start any token":                  "indent with spaces, not tabs, and quote values that start with @, ` or %",
	"could not find expected ':'":                                  "a key needs a colon and a space after it",
	"found unexpected end of stream":                               "a quote is not closed",
	"did not find expected '-' indicator":                          "check the indentation of the list",
	"did not find expected ',' or ']'":                             "a list that was opened with [ is not closed",
	"did not find expected ',' or '}'":                             "a mapping that was opened with { is not closed",
	"block sequence entries are not allowed in this context":       "a list starts on the line after its key",
	"found a tab character where an indentation space is expected": "indent with spaces, not tabs",
}

// firstBadLine returns the number of the first line after the longest readable beginning of the
// file, or 0 when looking for it would take too long. A beginning that ends within a list or text of
// several lines is not readable, so those a few lines longer and shorter are tried beside every one.
func firstBadLine(lines [][]byte) int {
	const window = 12
	budget := 8 << 20 // bytes to parse
	good := func(n int) bool {
		part := bytes.Join(lines[:n], nil)
		budget -= len(part)
		var doc yaml.Node
		err := yaml.NewDecoder(bytes.NewReader(part)).Decode(&doc)
		return err == nil || err == io.EOF
	}
	low, high := 0, len(lines) // the file is readable up to low; nothing from high on is
	for low+1 < high && budget > 0 {
		middle, found := (low+high)/2, -1
		for n := middle; n < high && n < middle+window && found < 0; n++ {
			if good(n) {
				found = n
			}
		}
		if found < 0 {
			high = middle
			continue
		}
		low = found
	}
	if budget <= 0 {
		return 0
	}
	return low + 1
}

func (r *reader) place(y *yaml.Node) place {
	line, column := r.at(y.Line, y.Column)
	return place{r.file, line, column}
}

func (r *reader) read(y *yaml.Node) *node {
	if y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	if n, ok := r.seen[y]; ok {
		return n
	}
	if y.Anchor != "" {
		if r.open[y] {
			r.fail(y.Line, y.Column, "the anchor &%s contains itself", y.Anchor)
			return (&node{place: r.place(y)}).seal()
		}
		r.open[y] = true
		defer delete(r.open, y)
	}
	n := &node{place: r.place(y)}
	switch y.Kind {
	case yaml.ScalarNode:
		r.scalar(n, y)
	case yaml.SequenceNode:
		r.list(n, y)
	case yaml.MappingNode:
		r.mapping(n, y)
	}
	n.seal()
	if y.Anchor != "" {
		r.seen[y] = n
	}
	return n
}

func (r *reader) list(n *node, y *yaml.Node) {
	n.kind = listKind
	switch y.Tag {
	case "!!seq", "":
	case "!reference":
		n.kind = referenceKind
	default:
		r.fail(y.Line, y.Column, "unknown tag %s; the only one is !reference", y.Tag)
	}
	n.items = make([]*node, len(y.Content))
	for i, c := range y.Content {
		n.items[i] = r.read(c)
	}
}

// mapping follows Psych: "<<" merges at its place, so that later keys override it and it overrides
// earlier ones; of a repeated key the last value counts.
func (r *reader) mapping(n *node, y *yaml.Node) {
	n.kind = mapKind
	if y.Tag != "!!map" && y.Tag != "" {
		r.fail(y.Line, y.Column, "unknown tag %s; the only one is !reference", y.Tag)
	}
	n.fields = make([]field, 0, len(y.Content)/2)
	var index map[string]int
	if len(y.Content) > 2*indexedFrom {
		index = make(map[string]int, len(y.Content)/2)
	}
	set := func(f field) (repeated bool) {
		if index != nil {
			if i, ok := index[f.key]; ok {
				n.fields[i] = f
				return true
			}
			index[f.key] = len(n.fields)
		} else if i := n.find(f.key); i >= 0 {
			n.fields[i] = f
			return true
		}
		n.fields = append(n.fields, f)
		return false
	}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			r.fail(k.Line, k.Column, "a key must be plain text")
			continue
		}
		if k.Value == "<<" && (k.Tag == "!!merge" || k.Tag == "") {
			r.mergeKey(v, set)
			continue
		}
		f := field{key: k.Value, place: r.place(k), value: r.read(v)}
		if set(f) && !merged(y, k.Value, i) {
			*r.diags = append(*r.diags, Diagnostic{
				Message: fmt.Sprintf("the key %q is repeated; only this one counts", f.key),
				File:    r.file, Line: f.place.line, Column: f.place.column, Warning: true,
			})
		}
	}
}

// merged reports whether key has no earlier literal occurrence before position i, which means it
// overrides a merged one.
func merged(y *yaml.Node, key string, i int) bool {
	for j := 0; j < i; j += 2 {
		if y.Content[j].Value == key {
			return false
		}
	}
	return true
}

func (r *reader) mergeKey(v *yaml.Node, set func(field) bool) {
	n := r.read(v)
	switch n.kind {
	case mapKind:
		for _, f := range n.fields {
			set(f)
		}
	case listKind:
		for i := len(n.items) - 1; i >= 0; i-- {
			if n.items[i].kind != mapKind {
				r.fail(v.Line, v.Column, "<< merges mappings, not %s", n.items[i].kind)
				return
			}
			for _, f := range n.items[i].fields {
				set(f)
			}
		}
	default:
		r.fail(v.Line, v.Column, "<< merges mappings, not %s", n.kind)
	}
}

// Patterns of Ruby's YAML 1.1 scalars. GitLab reads files with them, so "yes" is a boolean and
// 3.10 the number 3.1.
var (
	rubyInt   = regexp.MustCompile(`^[-+]?(?:0|[1-9][0-9_,]*)$`)
	rubyOctal = regexp.MustCompile(`^[-+]?0[0-7_,]+$`)
	rubyHex   = regexp.MustCompile(`^[-+]?0[xX][0-9a-fA-F_,]+$`)
	rubyBin   = regexp.MustCompile(`^[-+]?0[bB][01_,]+$`)
	rubyFloat = regexp.MustCompile(`^[-+]?(?:[0-9][0-9_,]*)?\.[0-9]*(?:[eE][-+][0-9]+)?$|^[-+]?[0-9][0-9_,]*(?:\.[0-9]*)?[eE][-+]?[0-9]+$`)
	separator = strings.NewReplacer("_", "", ",", "")
)

func (r *reader) scalar(n *node, y *yaml.Node) {
	n.kind, n.text = stringKind, y.Value
	switch {
	case y.Style&yaml.TaggedStyle != 0:
		switch y.Tag {
		case "!!str":
		case "!!int", "!!float", "!!bool", "!!null":
			plainScalar(n, y.Value)
		default:
			r.fail(y.Line, y.Column, "unknown tag %s; the only one is !reference", y.Tag)
		}
	case y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0:
		plainScalar(n, y.Value)
	}
}

func plainScalar(n *node, s string) {
	if s == "" || s == "~" {
		n.kind, n.text = nullKind, ""
		return
	}
	if len(s) <= 5 {
		switch strings.ToLower(s) {
		case "null":
			n.kind, n.text = nullKind, ""
			return
		case "yes", "true", "on":
			n.kind, n.text = boolKind, "true"
			return
		case "no", "false", "off":
			n.kind, n.text = boolKind, "false"
			return
		}
	}
	if c := s[0]; (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' {
		return
	}
	base := 0
	switch {
	case rubyInt.MatchString(s):
		base = 10
	case rubyOctal.MatchString(s):
		base = 8
	case rubyHex.MatchString(s), rubyBin.MatchString(s):
		base = -1
	case rubyFloat.MatchString(s) && s != "." && s != "-." && s != "+.":
		if f, err := strconv.ParseFloat(separator.Replace(s), 64); err == nil {
			n.kind, n.text = floatKind, printFloat(f)
		}
		return
	default:
		return
	}
	digits := separator.Replace(s)
	if base == -1 {
		base = 0
	}
	i, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		n.kind, n.text = intKind, strings.TrimPrefix(digits, "+") // too large for int64: digits are kept
		return
	}
	n.kind, n.text = intKind, strconv.FormatInt(i, 10)
}

// printFloat prints as Ruby's Float#to_s.
func printFloat(f float64) string {
	abs := f
	if abs < 0 {
		abs = -abs
	}
	if abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		mantissa, exponent, _ := strings.Cut(s, "e")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		return mantissa + "e" + exponent
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
