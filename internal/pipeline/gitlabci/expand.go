package gitlabci

import (
	"fmt"
	"strings"
)

// Expand replaces $NAME, ${NAME} and %NAME% in text once: values are inserted as they are. A
// variable that is not defined becomes nothing. "$$" and "%%" escape and are kept for the shell
// side (the runner) to reduce, as GitLab does.
func Expand(text string, lookup Lookup) string { return expand(text, lookup, false) }

// ExpandExisting is Expand, except that references to undefined variables stay as written.
func ExpandExisting(text string, lookup Lookup) string { return expand(text, lookup, true) }

func expand(text string, lookup Lookup, keep bool) string {
	if !strings.ContainsAny(text, "$%") {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	scanReferences(text, func(literal string) { b.WriteString(literal) }, func(raw, name string) {
		value, ok := "", false
		if name != "" {
			value, ok = lookup(name)
		}
		if !ok && keep {
			value = raw
		}
		b.WriteString(value)
	})
	return b.String()
}

// scanReferences splits text into literal parts and references. "${}" is a reference without name.
func scanReferences(text string, literal func(string), reference func(raw, name string)) {
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c != '$' && c != '%' {
			i++
			continue
		}
		if i+1 < len(text) && text[i+1] == c { // an escape
			i += 2
			continue
		}
		raw, name := referenceAt(text[i:])
		if raw == "" {
			i++
			continue
		}
		if from < i {
			literal(text[from:i])
		}
		reference(raw, name)
		i += len(raw)
		from = i
	}
	if from < len(text) {
		literal(text[from:])
	}
}

// referenceAt reads the reference s starts with; raw is empty when there is none.
func referenceAt(s string) (raw, name string) {
	if s[0] == '%' {
		n := nameLength(s[1:])
		if n > 0 && 1+n < len(s) && s[1+n] == '%' {
			return s[:n+2], s[1 : 1+n]
		}
		return "", ""
	}
	if len(s) > 1 && s[1] == '{' {
		n := nameLength(s[2:])
		if 2+n < len(s) && s[2+n] == '}' {
			return s[:n+3], s[2 : 2+n]
		}
		return "", ""
	}
	n := nameLength(s[1:])
	if n == 0 {
		return "", ""
	}
	return s[:n+1], s[1 : 1+n]
}

func nameLength(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// Lookup returns a Lookup over the list as it is, without nested expansion.
func (vs Variables) Lookup() Lookup {
	index := make(map[string]string, len(vs))
	for _, v := range vs {
		index[v.Key] = v.Value
	}
	return func(name string) (string, bool) {
		v, ok := index[name]
		return v, ok
	}
}

// A CycleError says that variables are defined through each other.
type CycleError struct{ Keys []string }

func (e *CycleError) Error() string {
	return fmt.Sprintf("circular variable reference: %s", strings.Join(append(e.Keys[:len(e.Keys):len(e.Keys)], e.Keys[0]), " -> "))
}

// Expanded returns the list with references between its variables expanded to any depth; raw
// values stay as written and are inserted as written. References to variables outside the list are
// kept when keepUndefined, else removed; a value that refers to its own key counts as such. Variables
// defined through each other are reported as *CycleError together with the unexpanded list.
func (vs Variables) Expanded(keepUndefined bool) (Variables, error) {
	merged := Merge(vs)
	e := &expander{index: make(map[string]int, len(merged)), list: merged, keep: keepUndefined, state: make([]uint8, len(merged))}
	for i, v := range merged {
		e.index[v.Key] = i
	}
	out := make(Variables, len(merged))
	copy(out, merged)
	e.list = out
	for i := range out {
		if err := e.expand(i); err != nil {
			return merged, err
		}
	}
	return out, nil
}

type expander struct {
	index map[string]int
	list  Variables
	keep  bool
	state []uint8 // 0 untouched, 1 in progress, 2 done
	stack []string
}

func (e *expander) expand(i int) error {
	v := &e.list[i]
	if e.state[i] == 2 {
		return nil
	}
	if e.state[i] == 1 {
		for at, key := range e.stack {
			if key == v.Key {
				return &CycleError{append([]string(nil), e.stack[at:]...)}
			}
		}
	}
	if v.Raw || !strings.ContainsAny(v.Value, "$%") {
		e.state[i] = 2
		return nil
	}
	e.state[i] = 1
	e.stack = append(e.stack, v.Key)
	var failure error
	value := expand(v.Value, func(name string) (string, bool) {
		j, ok := e.index[name]
		if !ok || j == i || failure != nil {
			return "", false
		}
		if failure = e.expand(j); failure != nil {
			return "", false
		}
		return e.list[j].Value, true
	}, e.keep)
	if failure != nil {
		return failure
	}
	e.stack = e.stack[:len(e.stack)-1]
	e.state[i] = 2
	v.Value = value
	return nil
}
