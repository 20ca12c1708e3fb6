package web

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// threadView is a thread of notes, in the discussion or on a line of the diff.
type threadView struct {
	ID                   string
	Notes                []noteView
	Resolvable, Resolved bool
	ResolvedBy           *delivery.User
	System               bool   // one line written by the platform
	Place                string // the line that it is about
	PlaceLink            string
	Outdated             bool
	Excerpt              template.HTML
	Link                 string // of the merge request or the commit
	Tab                  string // where its forms come back to
	Shown                bool   // Place is said: the thread is not below its line
	Span                 string // the lines that it is about, where there are several
	MayNote, MayResolve  bool
	MayReply             bool
	Held                 []heldView // the caller's answers that are not submitted, or what begins it
	Review               string     // what the button says that holds an answer back; empty: there is none

	path     string
	key      lineKey
	note     *forge.Note
	position *forge.NotePosition
}

type noteView struct {
	forge.Note
	Author  *delivery.User
	Body    template.HTML
	Link    string // of the merge request or the commit
	Tab     string
	MayEdit bool
	Edited  bool
	Changes []suggestionView
}

// suggestionView is a change that a note proposes.
type suggestionView struct {
	Index    int
	Rows     template.HTML
	MayApply bool
}

// suggestions takes a note's suggestions out of its text and shows each as a
// diff of the lines that it is about.
func (s *Server) suggestions(r *Request, n forge.Note, m delivery.MergeRequest, mayApply bool) (rest string, list []suggestionView, err error) {
	if n.Position == nil || n.Position.NewLine == 0 || n.System {
		return n.Body, nil, nil
	}
	rest, all := forge.Suggestions(n.Body)
	for i, one := range all {
		old, err := s.suggestedFor(r, n, one)
		if err != nil {
			return "", nil, err
		}
		first := max(1, n.Position.NewLine-one.Above)
		patch := fmt.Sprintf("@@ -%d +%d @@\n", first, first)
		for _, l := range old {
			patch += "-" + l + "\n"
		}
		for l := range strings.Lines(one.Text) {
			patch += "+" + l
		}
		list = append(list, suggestionView{i, excerptRows(patch), mayApply && m.State == "opened" && n.ResolvedAt.IsZero() && forge.Current(*n.Position, m)})
	}
	return rest, list, nil
}

// suggestedFor is the lines that a suggestion replaces, as its author saw them:
// those above are kept with the note as a rule, others are read from the file.
func (s *Server) suggestedFor(r *Request, n forge.Note, one forge.Suggestion) ([]string, error) {
	var old []string
	for _, l := range forge.ParsePatch(n.Excerpt) {
		if l.New > 0 {
			old = append(old, l.Text)
		}
	}
	if one.Below == 0 && len(old) > one.Above {
		return old[len(old)-one.Above-1:], nil
	}
	at := n.Position
	if n.Original != nil {
		at = n.Original
	}
	body, err := s.Forge.ReadFile(r.Context(), r.Project.ID, at.HeadSHA, at.NewPath, maxShown)
	if delivery.IsNotFound(err) || delivery.KindOf(err) == delivery.TooLarge {
		return nil, nil // only what is proposed is shown
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(strings.ToValidUTF8(string(body), "\uFFFD"), "\n"), "\n")
	from, to := at.NewLine-1-one.Above, at.NewLine+one.Below
	if from < 0 || to > len(lines) {
		return nil, nil // it cannot be applied either
	}
	return lines[from:to], nil
}

// threads lists the threads of a merge request and of its commits, in the order
// in which they began.
func (s *Server) threads(r *Request, users *people, v *requestView) ([]threadView, error) {
	m := v.Request
	list, err := s.Forge.Discussions(r.Context(), r.Project.ID, &m, "")
	if err != nil {
		return nil, err
	}
	held, err := s.heldNotes(r, v)
	if err != nil {
		return nil, err
	}
	var out []threadView
	for _, notes := range list {
		t := threadView{Link: v.Link, Tab: v.Tab, Shown: v.Tab != "diffs", MayNote: v.MayNote, MayResolve: v.MayEdit, Review: v.Review.Button}
		if err := s.fillThread(r, users, &t, notes, &m, v.Tab == "" || v.Tab == "diffs"); err != nil {
			return nil, err
		}
		t.MayReply = t.MayNote && t.Resolvable
		t.locate(&m)
		t.Held = held[t.ID]
		out = append(out, t)
	}
	if v.Tab == "" {
		if out, err = s.commitThreads(r, users, v, out); err != nil {
			return nil, err
		}
	}
	for i := range v.Review.Held {
		if one := &v.Review.Held[i]; one.DiscussionID == "" {
			t := threadView{ID: "held_" + strconv.FormatInt(one.ID, 10), Link: v.Link, Tab: v.Tab, Shown: v.Tab != "diffs", note: &one.Note, Held: []heldView{*one}}
			t.locate(&m)
			out = append(out, t)
		}
	}
	return out, nil
}

// commitThreads puts the threads on the commits of a merge request among its
// own, by the time when they began.
func (s *Server) commitThreads(r *Request, users *people, v *requestView, out []threadView) ([]threadView, error) {
	list, err := s.Forge.CommitDiscussions(r.Context(), v.Request)
	if err != nil {
		return nil, err
	}
	for _, notes := range list {
		t := threadView{Link: commitLink(r.Project, notes[0].CommitSHA), Shown: true}
		if err := s.fillThread(r, users, &t, notes, nil, true); err != nil {
			return nil, err
		}
		t.locate(nil)
		t.Place = strings.TrimSuffix("commit "+short(notes[0].CommitSHA)+": "+t.Place, ": ")
		t.PlaceLink = t.Link + "#note_" + strconv.FormatInt(notes[0].ID, 10)
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b threadView) int { return a.note.CreatedAt.Compare(b.note.CreatedAt) })
	return out, nil
}

// fillThread renders the notes of a thread of a merge request or, where m is
// nil, of a commit; bodies says whether their text is shown at all.
func (s *Server) fillThread(r *Request, users *people, t *threadView, notes []forge.Note, m *delivery.MergeRequest, bodies bool) (err error) {
	first := notes[0]
	t.ID, t.Resolved, t.System, t.note = first.DiscussionID, true, first.System, &first
	for _, n := range notes {
		if n.Resolvable {
			t.Resolvable, t.Resolved = true, t.Resolved && !n.ResolvedAt.IsZero()
			if t.ResolvedBy, err = users.find(n.ResolvedByID); err != nil {
				return err
			}
		}
		view := noteView{Note: n, Link: t.Link, Tab: t.Tab, Edited: n.UpdatedAt.Sub(n.CreatedAt).Seconds() > 1 && n.ResolvedAt.IsZero()}
		if bodies {
			body := n.Body
			if m != nil {
				if body, view.Changes, err = s.suggestions(r, n, *m, t.MayResolve); err != nil {
					return err
				}
			}
			view.Body = s.noteHTML(r, body)
		}
		view.MayEdit = !n.System && r.Who.User != nil && (r.Who.User.ID == n.AuthorID || r.Role >= delivery.Maintainer)
		if view.Author, err = users.find(n.AuthorID); err != nil {
			return err
		}
		t.Notes = append(t.Notes, view)
	}
	t.Resolved = t.Resolved && t.Resolvable
	return nil
}

// locate says where a thread on a line belongs; m is nil for that of a commit.
func (t *threadView) locate(m *delivery.MergeRequest) {
	p := t.note.Position
	if p == nil {
		return
	}
	t.position, t.path, t.key = p, p.NewPath, lineKey{p.OldLine, p.NewLine}
	t.Outdated = m != nil && !forge.Current(*p, *m)
	t.Place = p.NewPath
	first, last := p.Lines()
	from, to := p.Span()
	if from != "" {
		t.Span = from + " to " + to
	}
	switch {
	case first > 0:
		t.Place += fmt.Sprintf(":%d-%d", first, last)
	case from != "":
		t.Place += ":" + from + "…" + to
	case p.NewLine > 0:
		t.Place += ":" + strconv.Itoa(p.NewLine)
	case p.OldLine > 0:
		t.Place = p.OldPath + ":" + strconv.Itoa(p.OldLine)
	}
	t.PlaceLink = t.Link + "/diffs#note_" + strconv.FormatInt(t.note.ID, 10)
	if len(t.Notes) == 0 {
		t.PlaceLink = t.Link + "/diffs#held_" + strconv.FormatInt(t.note.ID, 10)
	}
	if t.Outdated {
		t.PlaceLink = ""
	}
	if t.note.Excerpt != "" {
		t.Excerpt = excerptRows(t.note.Excerpt)
	}
}

// versionView is a version of a merge request that can be chosen.
type versionView struct {
	forge.MergeRequestVersion
	Number    int
	Newest    bool
	Commits   int
	Shown     bool // on the right
	Compared  bool // on the left
	TargetSHA string
}

// requestDiff reads the diff of the version that is asked for: diff_id names
// it, start_sha the head of an earlier version to compare it with, as GitLab's
// addresses do.
func (s *Server) requestDiff(w http.ResponseWriter, r *Request, v *requestView) error {
	m := v.Request
	list, err := s.Forge.Versions(r.Context(), m)
	if err != nil {
		return err
	}
	base, start, head := m.BaseSHA, m.StartSHA, m.HeadSHA
	chosen, err := strconv.ParseInt(r.FormValue("diff_id"), 10, 64)
	if err != nil {
		chosen = 0
	}
	from := ""
	for i, one := range list {
		view := versionView{MergeRequestVersion: one, Number: len(list) - i, Newest: i == 0}
		if one.ID == chosen || chosen == 0 && i == 0 {
			view.Shown = true
			base, start, head = one.BaseSHA, one.StartSHA, one.HeadSHA
			if i > 0 {
				v.Outdated = fmt.Sprintf("This is version %d, not the newest.", view.Number)
			}
		}
		v.Versions = append(v.Versions, view)
	}
	for i := range v.Versions {
		if one := &v.Versions[i]; r.FormValue("start_sha") != "" && one.HeadSHA == r.FormValue("start_sha") && !one.Shown && from == "" {
			one.Compared, from = true, one.HeadSHA
			v.Outdated = fmt.Sprintf("These are the changes since version %d.", one.Number)
		}
	}
	left := base
	if from != "" {
		left = from
	}
	threads := map[string][]threadView{}
	for _, t := range v.Threads {
		for _, p := range t.positions() {
			if from == "" && p.HeadSHA == head && p.BaseSHA == base {
				t.path, t.key = p.NewPath, lineKey{p.OldLine, p.NewLine}
				threads[p.NewPath] = append(threads[p.NewPath], t)
				break
			}
		}
	}
	if v.Diff, err = s.loadDiff(w, r, r.Project.ID, left, head, threads); err != nil {
		return err
	}
	if v.MayNote && from == "" {
		v.Diff.Notes = &notesOn{Action: v.Link + "/notes", Tab: "diffs", Base: base, Start: start, Head: head, Review: v.Review.Button, Held: len(v.Review.Held) > 0, Suggest: true}
	}
	return nil
}

// positions are where a thread is now and where it was begun.
func (t threadView) positions() []*forge.NotePosition {
	if t.note.Position == nil {
		return nil
	}
	return []*forge.NotePosition{t.note.Position, t.note.Original}
}

func noteText(r *Request) string { return strings.ReplaceAll(r.FormValue("note"), "\r\n", "\n") }

// typedNote reads the form of a note.
func typedNote(r *Request) (forge.NewNote, error) {
	n := forge.NewNote{DiscussionID: r.FormValue("discussion"), Thread: r.FormValue("thread") != "", Body: noteText(r)}
	path := r.FormValue("new_path")
	if path == "" {
		return n, nil
	}
	line := func(value string) int {
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0
		}
		return n
	}
	n.Thread = true
	n.Position = &forge.NotePosition{PositionType: "text", BaseSHA: r.FormValue("base_sha"), StartSHA: r.FormValue("start_sha"), HeadSHA: r.FormValue("head_sha"),
		NewPath: path, OldPath: r.FormValue("old_path"), NewLine: line(r.FormValue("new_line")), OldLine: line(r.FormValue("old_line"))}
	if n.Position.NewLine == 0 && n.Position.OldLine == 0 {
		n.Position.PositionType = "file"
	}
	if from := r.FormValue("from_line"); from != "" {
		oldLine, newLine, _ := strings.Cut(from, ",")
		return n, n.Position.SpanFrom(line(oldLine), line(newLine))
	}
	return n, nil
}

func (s *Server) addNote(r *Request, m delivery.MergeRequest) (string, error) {
	n, err := typedNote(r)
	if err != nil {
		return "", err
	}
	n.MergeRequest = &m
	if r.FormValue("review") != "" {
		d, err := s.Forge.AddDraft(r.Context(), r.Who, *r.Project, n, r.FormValue("resolve") == "yes" && n.DiscussionID != "")
		if err != nil {
			return "", err
		}
		return "#held_" + strconv.FormatInt(d.ID, 10), nil
	}
	rest, done, err := s.Forge.RunActions(r.Context(), r.Who, *r.Project, m, n.Body)
	if err != nil || done > 0 && rest == "" {
		return "", err // the activity shows what was done
	}
	n.Body = rest
	note, err := s.Forge.AddNote(r.Context(), r.Who, *r.Project, n)
	if err != nil {
		return "", err
	}
	if r.FormValue("resolve") != "" && n.DiscussionID != "" {
		if _, err := s.Forge.Resolve(r.Context(), r.Who, *r.Project, m, n.DiscussionID, r.FormValue("resolve") == "yes"); err != nil {
			return "", err
		}
	}
	return "#note_" + strconv.FormatInt(note.ID, 10), nil
}

// ownNote finds the note of the address; it belongs to the merge request.
func (s *Server) ownNote(r *Request, m delivery.MergeRequest) (forge.Note, error) {
	id, err := number(r, "note")
	if err != nil {
		return forge.Note{}, err
	}
	n, err := s.Forge.Note(r.Context(), r.Project.ID, id)
	if err == nil && n.NoteableID != m.ID {
		err = notFound()
	}
	return n, err
}

func (s *Server) editNote(r *Request, m delivery.MergeRequest) (string, error) {
	n, err := s.ownNote(r, m)
	if err != nil {
		return "", err
	}
	if _, err = s.Forge.EditNote(r.Context(), r.Who, *r.Project, n, noteText(r)); err != nil {
		return "", err
	}
	return "#note_" + strconv.FormatInt(n.ID, 10), nil
}

func (s *Server) applySuggestion(r *Request, m delivery.MergeRequest) (string, error) {
	n, err := s.ownNote(r, m)
	if err != nil {
		return "", err
	}
	index, err := strconv.Atoi(r.FormValue("index"))
	if err != nil {
		return "", notFound()
	}
	c, err := s.Forge.ApplySuggestion(r.Context(), r.Who, *r.Project, m, n, index)
	return "The suggestion is applied as " + short(c.SHA) + ".", err
}

func (s *Server) deleteNote(r *Request, m delivery.MergeRequest) (string, error) {
	n, err := s.ownNote(r, m)
	if err != nil {
		return "", err
	}
	return "The comment is deleted.", s.Forge.DeleteNote(r.Context(), r.Who, *r.Project, n)
}

func (s *Server) resolveThread(resolved bool) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		notes, err := s.Forge.Resolve(r.Context(), r.Who, *r.Project, m, r.PathValue("discussion"), resolved)
		if err != nil {
			return "", err
		}
		return "#note_" + strconv.FormatInt(notes[0].ID, 10), nil
	}
}
