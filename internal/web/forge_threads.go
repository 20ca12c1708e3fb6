package web

import (
	"fmt"
	"html/template"
	"net/http"
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
	Link                 string // of the merge request
	Tab                  string // where its forms come back to
	MayNote, MayResolve  bool

	path     string
	key      lineKey
	note     *forge.Note
	position *forge.NotePosition
}

type noteView struct {
	forge.Note
	Author  *delivery.User
	Body    template.HTML
	Link    string // of the merge request
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
func suggestions(n forge.Note, m delivery.MergeRequest, mayApply bool) (rest string, list []suggestionView) {
	if n.Position == nil || n.Position.NewLine == 0 || n.System {
		return n.Body, nil
	}
	rest, all := forge.Suggestions(n.Body)
	for i, one := range all {
		var old []string
		for _, l := range forge.ParsePatch(n.Excerpt) {
			if l.New > 0 {
				old = append(old, l.Text)
			}
		}
		first := max(1, n.Position.NewLine-one.Above)
		patch := fmt.Sprintf("@@ -%d +%d @@\n", first, first)
		if one.Below == 0 && len(old) > one.Above {
			for _, l := range old[len(old)-one.Above-1:] {
				patch += "-" + l + "\n"
			}
		}
		for l := range strings.Lines(one.Text) {
			patch += "+" + l
		}
		list = append(list, suggestionView{i, excerptRows(patch), mayApply && m.State == "opened" && n.ResolvedAt.IsZero() && forge.Current(*n.Position, m)})
	}
	return rest, list
}

// threads lists the threads of a merge request in the order in which they
// began.
func (s *Server) threads(r *Request, users *people, v *requestView) ([]threadView, error) {
	m := v.Request
	list, err := s.Forge.Discussions(r.Context(), r.Project.ID, &m, "")
	if err != nil {
		return nil, err
	}
	var out []threadView
	for _, notes := range list {
		first := notes[0]
		t := threadView{ID: first.DiscussionID, Resolved: true, System: first.System, Link: v.Link, Tab: v.Tab, MayNote: v.MayNote, MayResolve: v.MayEdit, note: &first}
		for _, n := range notes {
			if n.Resolvable {
				t.Resolvable, t.Resolved = true, t.Resolved && !n.ResolvedAt.IsZero()
				if t.ResolvedBy, err = users.find(n.ResolvedByID); err != nil {
					return nil, err
				}
			}
			view := noteView{Note: n, Link: v.Link, Tab: v.Tab, Edited: n.UpdatedAt.Sub(n.CreatedAt).Seconds() > 1 && n.ResolvedAt.IsZero()}
			if v.Tab != "commits" && v.Tab != "pipelines" {
				var body string
				body, view.Changes = suggestions(n, m, v.MayEdit)
				view.Body = s.noteHTML(r, body)
			}
			view.MayEdit = !n.System && r.Who.User != nil && (r.Who.User.ID == n.AuthorID || r.Role >= delivery.Maintainer)
			if view.Author, err = users.find(n.AuthorID); err != nil {
				return nil, err
			}
			t.Notes = append(t.Notes, view)
		}
		t.Resolved = t.Resolved && t.Resolvable
		t.locate(m)
		out = append(out, t)
	}
	return out, nil
}

// locate says where a thread on a line belongs.
func (t *threadView) locate(m delivery.MergeRequest) {
	p := t.note.Position
	if p == nil {
		return
	}
	t.position, t.path, t.key = p, p.NewPath, lineKey{p.OldLine, p.NewLine}
	t.Outdated = !forge.Current(*p, m)
	t.Place = p.NewPath
	first, last := p.Lines()
	switch {
	case first > 0:
		t.Place += fmt.Sprintf(":%d-%d", first, last)
	case p.NewLine > 0:
		t.Place += ":" + strconv.Itoa(p.NewLine)
	case p.OldLine > 0:
		t.Place = p.OldPath + ":" + strconv.Itoa(p.OldLine)
	}
	t.PlaceLink = t.Link + "/diffs#note_" + strconv.FormatInt(t.note.ID, 10)
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
		v.Diff.Notes = &notesOn{Action: v.Link + "/notes", Base: base, Start: start, Head: head}
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

func (s *Server) addNote(r *Request, m delivery.MergeRequest) (string, error) {
	n := forge.NewNote{MergeRequest: &m, DiscussionID: r.FormValue("discussion"), Thread: r.FormValue("thread") != "", Body: noteText(r)}
	if path := r.FormValue("new_path"); path != "" {
		line := func(name string) int {
			n, err := strconv.Atoi(r.FormValue(name))
			if err != nil {
				return 0
			}
			return n
		}
		n.Thread = true
		n.Position = &forge.NotePosition{PositionType: "text", BaseSHA: r.FormValue("base_sha"), StartSHA: r.FormValue("start_sha"), HeadSHA: r.FormValue("head_sha"),
			NewPath: path, OldPath: r.FormValue("old_path"), NewLine: line("new_line"), OldLine: line("old_line")}
		if n.Position.NewLine == 0 && n.Position.OldLine == 0 {
			n.Position.PositionType = "file"
		}
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
