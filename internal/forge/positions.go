package forge

import (
	"context"
	"crypto/sha1" //nolint:gosec // GitLab's line codes are made with it
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const (
	excerptLines = 8       // of a diff that are kept with a note on a line
	excerptMost  = 50      // of a diff that are kept with a note on several
	wholeFile    = 5 << 20 // bytes of one file's diff that positions are looked up in
)

// PatchLine is one line of a file's diff. Old and New are its numbers on both
// sides, 0 on a side that it is not on; At is where the sides are then, as in
// GitLab's line codes.
type PatchLine struct {
	Kind         byte // '+', '-', ' ', '@' for the head of a hunk, '\\' for a remark
	Old, New     int
	OldAt, NewAt int
	Text         string // without the first character, except of '@' and '\\'
}

// ParsePatch reads hunks, from "@@" on, as FileDiff.Patch has them.
func ParsePatch(patch string) []PatchLine {
	if patch == "" {
		return nil
	}
	text := strings.TrimSuffix(patch, "\n")
	lines := make([]PatchLine, 0, strings.Count(text, "\n")+1)
	oldN, newN := 0, 0
	for raw := range strings.SplitSeq(text, "\n") {
		if raw == "" {
			raw = " "
		}
		l := PatchLine{Kind: raw[0], OldAt: oldN, NewAt: newN, Text: raw[1:]}
		switch raw[0] {
		case '@':
			oldN, newN = hunkStart(raw)
			l = PatchLine{Kind: '@', OldAt: oldN, NewAt: newN, Text: raw}
		case '+':
			l.New = newN
			newN++
		case '-':
			l.Old = oldN
			oldN++
		case '\\':
			l.Text = raw
		default:
			l.Kind, l.Old, l.New = ' ', oldN, newN
			oldN++
			newN++
		}
		lines = append(lines, l)
	}
	return lines
}

// hunkStart reads the first line numbers of "@@ -12,3 +14,4 @@".
func hunkStart(s string) (oldN, newN int) {
	fields := strings.Fields(s)
	if len(fields) < 3 {
		return 0, 0
	}
	number := func(f string) int {
		f, _, _ = strings.Cut(strings.TrimLeft(f, "+-"), ",")
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0
		}
		return n
	}
	return number(fields[1]), number(fields[2])
}

// LineCode names a line of a file's diff as GitLab does: the path's hash and
// where both sides are.
func LineCode(path string, oldAt, newAt int) string {
	sum := sha1.Sum([]byte(path)) //nolint:gosec // a name, not a secret
	return fmt.Sprintf("%s_%d_%d", hex.EncodeToString(sum[:]), oldAt, newAt)
}

// carry tells where a line of the old side is on the new one; false where it
// was changed or removed.
func carry(lines []PatchLine, old int) (int, bool) {
	shift := 0
	for _, l := range lines {
		switch {
		case l.Kind == '@':
			if l.OldAt > old {
				return old + shift, true
			}
		case l.Old == old && l.Kind == '-':
			return 0, false
		case l.Old == old && l.Kind == ' ':
			return l.New, true
		}
		if l.Kind == '+' {
			shift++
		} else if l.Kind == '-' {
			shift--
		}
	}
	return old + shift, true
}

// carryBack is carry from the new side to the old one.
func carryBack(lines []PatchLine, line int) (int, bool) {
	back := make([]PatchLine, len(lines))
	for i, l := range lines {
		l.Old, l.New, l.OldAt, l.NewAt = l.New, l.Old, l.NewAt, l.OldAt
		switch l.Kind {
		case '+':
			l.Kind = '-'
		case '-':
			l.Kind = '+'
		}
		back[i] = l
	}
	return carry(back, line)
}

// tracer follows lines from one version of a merge request to another.
type tracer struct {
	s       *Service
	project int64
	diffs   map[string][]FileDiff
}

func (t *tracer) diff(ctx context.Context, from, to string) ([]FileDiff, error) {
	if from == to {
		return nil, nil
	}
	key := from + ".." + to
	if d, ok := t.diffs[key]; ok {
		return d, nil
	}
	d, err := t.s.Diff(ctx, t.project, from, to, nil, DiffLimits{FileBytes: wholeFile, Bytes: 4 * wholeFile})
	if err == nil {
		t.diffs[key] = d
	}
	return d, err
}

func findDiff(list []FileDiff, path string, old bool) *FileDiff {
	for i := range list {
		if old && list[i].OldPath == path || !old && list[i].NewPath == path {
			return &list[i]
		}
	}
	return nil
}

// follow tells where a line of a file at one commit is at another.
func (t *tracer) follow(ctx context.Context, from, to, path string, line int) (string, int, bool, error) {
	files, err := t.diff(ctx, from, to)
	if err != nil {
		return "", 0, false, err
	}
	f := findDiff(files, path, true)
	if f == nil || f.Status == "copied" {
		return path, line, true, nil
	}
	if f.Status == "deleted" || f.Binary || f.Collapsed || f.TooLarge {
		return "", 0, false, nil
	}
	n, ok := carry(ParsePatch(f.Patch), line)
	return f.NewPath, n, ok, nil
}

// move brings a position to the version base..head; false where its line was
// changed or is no longer part of the diff.
func (t *tracer) move(ctx context.Context, p NotePosition, base, start, head string) (NotePosition, bool, error) {
	out := NotePosition{BaseSHA: base, StartSHA: start, HeadSHA: head, PositionType: p.PositionType}
	files, err := t.diff(ctx, base, head)
	if err != nil {
		return p, false, err
	}
	if p.NewLine == 0 && p.OldLine == 0 { // a whole file
		f := findDiff(files, p.NewPath, false)
		if f == nil {
			return p, false, nil
		}
		out.OldPath, out.NewPath = f.OldPath, f.NewPath
		return out, true, nil
	}
	var f *FileDiff
	if p.NewLine > 0 {
		path, line, ok, err := t.follow(ctx, p.HeadSHA, head, p.NewPath, p.NewLine)
		if err != nil || !ok {
			return p, false, err
		}
		if f = findDiff(files, path, false); f == nil {
			return p, false, nil
		}
		out.NewLine = line
		if old, same := carryBack(ParsePatch(f.Patch), line); same {
			out.OldLine = old
		}
	} else {
		path, line, ok, err := t.follow(ctx, p.BaseSHA, base, p.OldPath, p.OldLine)
		if err != nil || !ok {
			return p, false, err
		}
		if f = findDiff(files, path, true); f == nil {
			return p, false, nil
		}
		out.OldLine = line
		if n, same := carry(ParsePatch(f.Patch), line); same {
			out.NewLine = n
		}
	}
	out.OldPath, out.NewPath = f.OldPath, f.NewPath
	out.LineRange = moveRange(p, out)
	return out, true, nil
}

// retrace moves the notes on lines, held back ones too, to a merge request's
// current version. Notes whose line is gone stay where they were: they are
// outdated.
func (s *Service) retrace(ctx context.Context, m delivery.MergeRequest) error {
	notes, _, err := s.store.Notes(ctx, m.ProjectID, m.ID, "", true, 0, 0)
	if err != nil {
		return err
	}
	drafts, err := s.store.Drafts(ctx, m.ID, 0)
	if err != nil {
		return err
	}
	t := &tracer{s: s, project: m.ProjectID, diffs: map[string][]FileDiff{}}
	for _, n := range notes {
		if moved, ok, err := t.renew(ctx, n.Position, m); err != nil {
			return err
		} else if ok {
			if err := s.store.MoveNote(ctx, n.ID, moved); err != nil {
				return err
			}
		}
	}
	for _, d := range drafts {
		if moved, ok, err := t.renew(ctx, d.Position, m); err != nil {
			return err
		} else if ok {
			d.Position = &moved
			if err := s.store.UpdateDraft(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew is where a position is in a merge request's current version; false
// where it need not or cannot be moved.
func (t *tracer) renew(ctx context.Context, p *NotePosition, m delivery.MergeRequest) (NotePosition, bool, error) {
	if p == nil || Current(*p, m) {
		return NotePosition{}, false, nil
	}
	moved, ok, err := t.move(ctx, *p, m.BaseSHA, m.StartSHA, m.HeadSHA)
	if delivery.IsNotFound(err) { // a commit of the old version is gone
		return NotePosition{}, false, nil
	}
	return moved, ok, err
}

// latest is a position in the merge request's current version, or the position
// itself where its line is gone by now.
func (s *Service) latest(ctx context.Context, m delivery.MergeRequest, p NotePosition) (*NotePosition, error) {
	if Current(p, m) {
		return &p, nil
	}
	t := &tracer{s: s, project: m.ProjectID, diffs: map[string][]FileDiff{}}
	moved, _, err := t.move(ctx, p, m.BaseSHA, m.StartSHA, m.HeadSHA)
	if delivery.IsNotFound(err) {
		return &p, nil
	}
	return &moved, err
}

// Current reports whether a position belongs to the merge request's current
// version; otherwise the note is outdated.
func Current(p NotePosition, m delivery.MergeRequest) bool {
	return p.HeadSHA == m.HeadSHA && p.BaseSHA == m.BaseSHA
}

// place checks that a position names a line of its diff, completes it with the
// other path and the other side's number, and returns the lines that end with
// it as a patch.
func (s *Service) place(ctx context.Context, projectID int64, p *NotePosition) (excerpt string, err error) {
	if err := checkPosition(p); err != nil {
		return "", err
	}
	t := &tracer{s: s, project: projectID, diffs: map[string][]FileDiff{}}
	files, err := t.diff(ctx, p.BaseSHA, p.HeadSHA)
	if delivery.IsNotFound(err) {
		return "", invalidField("position", "names a commit that does not exist")
	}
	if err != nil {
		return "", err
	}
	f := findDiff(files, p.NewPath, false)
	if f == nil {
		f = findDiff(files, p.OldPath, true)
	}
	if f == nil {
		return "", invalidField("position", "names a file that is not part of the diff: "+clip(p.NewPath, 200))
	}
	p.OldPath, p.NewPath = f.OldPath, f.NewPath
	if p.PositionType != "text" {
		return "", nil
	}
	lines := ParsePatch(f.Patch)
	if p.OldLine == 0 {
		if n, same := carryBack(lines, p.NewLine); same && f.Status != "added" {
			p.OldLine = n
		}
	} else if p.NewLine == 0 {
		if n, same := carry(lines, p.OldLine); same && f.Status != "deleted" {
			p.NewLine = n
		}
	}
	first, err := completeRange(lines, p)
	if err != nil {
		return "", err
	}
	for i, l := range lines {
		if l.Old == p.OldLine && l.New == p.NewLine && (l.Old > 0 || l.New > 0) {
			if first < 0 || first > i {
				first = i - excerptLines + 1
			}
			return excerptOf(lines, first, i), nil
		}
	}
	return s.unfolded(ctx, projectID, p)
}

// unfolded accepts a line between the hunks, which both sides have.
func (s *Service) unfolded(ctx context.Context, projectID int64, p *NotePosition) (string, error) {
	notThere := invalidField("position", fmt.Sprintf("line_code can't be blank, must be a valid line code: %s has no such line in this diff", clip(p.NewPath, 200)))
	if p.OldLine == 0 || p.NewLine == 0 {
		return "", notThere
	}
	body, err := s.ReadFile(ctx, projectID, p.HeadSHA, p.NewPath, wholeFile)
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	if p.NewLine > len(all) {
		return "", notThere
	}
	from := max(0, p.NewLine-4)
	if first, _ := p.Lines(); first > 0 && first < p.NewLine {
		from = max(first-1, p.NewLine-excerptMost)
	}
	lines := []PatchLine{{Kind: '@'}}
	for i := from; i < p.NewLine; i++ {
		old := i + 1 + p.OldLine - p.NewLine
		lines = append(lines, PatchLine{Kind: ' ', New: i + 1, Old: old, NewAt: i + 1, OldAt: old, Text: strings.ToValidUTF8(all[i], "\uFFFD")})
	}
	return excerptOf(lines, 0, len(lines)-1), nil
}

// excerptOf writes the lines of a hunk from one down to another as a patch.
func excerptOf(lines []PatchLine, first, at int) string {
	from := at
	for from > max(first, 0) && at-from < excerptMost-1 && lines[from-1].Kind != '@' {
		from--
	}
	var b strings.Builder
	for _, l := range lines[from : at+1] {
		switch l.Kind {
		case '+', '-', ' ':
			b.WriteByte(l.Kind)
			b.WriteString(clip(l.Text, 400))
			b.WriteByte('\n')
		}
	}
	return fmt.Sprintf("@@ -%d +%d @@\n", lines[from].OldAt, lines[from].NewAt) + b.String()
}
