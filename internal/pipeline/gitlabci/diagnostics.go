package gitlabci

import (
	"fmt"
	"sort"
	"strings"
)

// Diagnostic is one problem of a configuration, or one thing worth knowing about it.
type Diagnostic struct {
	Message string `json:"message"`
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1; 0 when the place is unknown
	Column  int    `json:"column"` // from 1; 0 when the place is unknown
	Warning bool   `json:"-"`

	kind findingKind
}

// String formats the diagnostic as compilers do: file:line:column: message.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		b.WriteString(d.File)
		b.WriteByte(':')
	}
	if d.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", d.Line, d.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(d.Message)
	return b.String()
}

// Diagnostics are the findings of one Compile or Plan call.
type Diagnostics []Diagnostic

// Failed reports whether there is any error, as opposed to warnings.
func (ds Diagnostics) Failed() bool {
	for _, d := range ds {
		if !d.Warning {
			return true
		}
	}
	return false
}

// Errors returns the errors; never nil, so that it encodes as a JSON array.
func (ds Diagnostics) Errors() []Diagnostic { return ds.filter(false) }

// Warnings returns the warnings; never nil.
func (ds Diagnostics) Warnings() []Diagnostic { return ds.filter(true) }

func (ds Diagnostics) filter(warning bool) []Diagnostic {
	out := []Diagnostic{}
	for _, d := range ds {
		if d.Warning == warning {
			out = append(out, d)
		}
	}
	return out
}

// Err returns nil when nothing failed, or one error whose text has every message on its own line.
func (ds Diagnostics) Err() error {
	if !ds.Failed() {
		return nil
	}
	lines := make([]string, 0, len(ds))
	for _, d := range ds.Errors() {
		lines = append(lines, d.String())
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// sorted orders by file (the first one given, then in order of appearance), then by place, and drops
// exact repeats.
func (ds Diagnostics) sorted(first string) Diagnostics {
	rank := map[string]int{first: 0}
	seen := map[Diagnostic]bool{}
	var out Diagnostics
	for _, d := range ds {
		if _, ok := rank[d.File]; !ok {
			rank[d.File] = len(rank)
		}
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.File != b.File {
			return rank[a.File] < rank[b.File]
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return out
}
