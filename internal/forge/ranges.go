package forge

import (
	"encoding/json"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// rangeEnd is the first or the last line of a note on several lines, as GitLab
// has it (doc/api/discussions.md, "line_range").
type rangeEnd struct {
	LineCode string  `json:"line_code"`
	Type     *string `json:"type"` // new, old, or null for a line that both sides have
	OldLine  int     `json:"old_line,omitempty"`
	NewLine  int     `json:"new_line,omitempty"`
}

type lineRange struct {
	Start rangeEnd `json:"start"`
	End   rangeEnd `json:"end"`
}

// SpanFrom makes the position one of several lines, which end with its own; the
// first is named by its numbers on both sides, 0 where it has none.
func (p *NotePosition) SpanFrom(oldLine, newLine int) error {
	raw, err := json.Marshal(lineRange{rangeEnd{OldLine: oldLine, NewLine: newLine}, rangeEnd{OldLine: p.OldLine, NewLine: p.NewLine}})
	if err == nil {
		p.LineRange = raw
	}
	return err
}

func (p NotePosition) span() (r lineRange, ok bool) {
	return r, len(p.LineRange) > 0 && json.Unmarshal(p.LineRange, &r) == nil
}

// moveRange moves the lines of a note on several as far as its last one moved.
func moveRange(from, to NotePosition) json.RawMessage {
	r, ok := from.span()
	if !ok {
		return nil
	}
	for _, e := range []*rangeEnd{&r.Start, &r.End} {
		if e.OldLine > 0 && from.OldLine > 0 && to.OldLine > 0 {
			e.OldLine += to.OldLine - from.OldLine
		}
		if e.NewLine > 0 && from.NewLine > 0 && to.NewLine > 0 {
			e.NewLine += to.NewLine - from.NewLine
		}
		e.LineCode = LineCode(to.NewPath, e.OldLine, e.NewLine)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	return raw
}

// Lines returns the first and last line of a note on several lines, on the new
// side where both are there; both are 0 for a note on a single line, and where
// the two are on different sides.
func (p NotePosition) Lines() (first, last int) {
	r, ok := p.span()
	if !ok {
		return 0, 0
	}
	first, last = max(r.Start.NewLine, 0), max(r.End.NewLine, 0)
	if first == 0 || last == 0 {
		first, last = r.Start.OldLine, r.End.OldLine
	}
	if first <= 0 || last <= first {
		return 0, 0
	}
	return first, last
}

// Span words the first and last line of a note on several lines as GitLab's
// pages do: "+3" was added, "-3" removed, "3" is on both sides. Both are empty
// for a note on a single line.
func (p NotePosition) Span() (first, last string) {
	r, ok := p.span()
	if !ok {
		return "", ""
	}
	return r.Start.String(), r.End.String()
}

// String words the line.
func (e rangeEnd) String() string {
	switch {
	case e.OldLine == 0:
		return "+" + strconv.Itoa(e.NewLine)
	case e.NewLine == 0:
		return "-" + strconv.Itoa(e.OldLine)
	}
	return strconv.Itoa(e.NewLine)
}

// completeRange checks the lines that a position spans and fills in what names
// them. It returns where the first is among the lines of the diff; -1: it is
// not shown there, or there is only one line.
func completeRange(lines []PatchLine, p *NotePosition) (first int, err error) {
	if len(p.LineRange) == 0 || string(p.LineRange) == "null" {
		p.LineRange = nil
		return -1, nil
	}
	r, ok := p.span()
	if !ok {
		return -1, invalidField("line_range", "needs start and end, each with line_code and type")
	}
	first, ok = r.Start.complete(lines, p.NewPath)
	last, there := r.End.complete(lines, p.NewPath)
	if !ok || !there {
		return -1, invalidField("line_range", "names a line that is not part of the diff")
	}
	if r.Start.OldLine == r.End.OldLine && r.Start.NewLine == r.End.NewLine {
		p.LineRange = nil
		return -1, nil
	}
	if first >= 0 && last >= 0 && first > last || r.Start.NewLine > 0 && r.End.NewLine > 0 && r.Start.NewLine > r.End.NewLine || r.Start.OldLine > 0 && r.End.OldLine > 0 && r.Start.OldLine > r.End.OldLine {
		return -1, invalidField("line_range", "ends before it begins")
	}
	p.LineRange, err = json.Marshal(r)
	return first, err
}

// complete finds the line by its numbers or, without them, by its code. A line
// between the hunks counts as there, at -1.
func (e *rangeEnd) complete(lines []PatchLine, path string) (at int, ok bool) {
	for i, l := range lines {
		if l.Old == 0 && l.New == 0 || !e.names(l, path) {
			continue
		}
		e.OldLine, e.NewLine, e.LineCode, e.Type = l.Old, l.New, LineCode(path, l.OldAt, l.NewAt), nil
		if side := map[byte]string{'+': "new", '-': "old"}[l.Kind]; side != "" {
			e.Type = &side
		}
		return i, true
	}
	if n, same := carry(lines, e.OldLine); e.OldLine <= 0 || e.NewLine <= 0 || !same || n != e.NewLine {
		return -1, false
	}
	e.LineCode, e.Type = LineCode(path, e.OldLine, e.NewLine), nil
	return -1, true
}

func (e *rangeEnd) names(l PatchLine, path string) bool {
	switch {
	case e.OldLine > 0 && e.NewLine > 0:
		return l.Old == e.OldLine && l.New == e.NewLine
	case e.NewLine > 0:
		return l.New == e.NewLine
	case e.OldLine > 0:
		return l.Old == e.OldLine
	}
	return e.LineCode == LineCode(path, l.OldAt, l.NewAt)
}

// CommitPosition is where a note on a line of a commit's diff is, without the
// line: the diff is that against the first parent.
func CommitPosition(c delivery.Commit) NotePosition {
	base := emptyTree
	if len(c.Parents) > 0 {
		base = c.Parents[0]
	}
	return NotePosition{BaseSHA: base, StartSHA: base, HeadSHA: c.SHA, PositionType: "text"}
}
