package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *Server) commitRoutes() {
	guest := delivery.Guest
	one := "/commit/{sha}"
	s.handleProject("GET "+one, guest, s.onCommit(func(w http.ResponseWriter, r *Request, c delivery.Commit) error {
		return s.showCommit(w, r, http.StatusOK, commitView{Commit: c})
	}))
	s.handleProject("POST "+one+"/notes", guest, s.commitForm(s.addCommitNote))
	s.handleProject("POST "+one+"/notes/{note}", guest, s.commitForm(s.editCommitNote))
	s.handleProject("POST "+one+"/notes/{note}/delete", guest, s.commitForm(s.deleteCommitNote))
}

// commitView is one commit with its diff and what was said about it.
type commitView struct {
	Commit       delivery.Commit
	Signature    *forge.Verification // nil: not signed
	Body         string
	Diff         *diffView
	Title        string
	Link         string
	Requests     []delivery.MergeRequest // that it came with
	Threads      []threadView            // on the whole
	MayNote      bool
	Error, Draft string // what went wrong, and the note that was typed
}

func commitLink(p *delivery.Project, sha string) string {
	return projectPath(p.FullPath, "commit", sha)
}

// onCommit finds the commit of the address.
func (s *Server) onCommit(h func(w http.ResponseWriter, r *Request, c delivery.Commit) error) Handler {
	return func(w http.ResponseWriter, r *Request) error {
		if err := readable(r); err != nil {
			return err
		}
		c, err := s.Forge.Commit(r.Context(), r.Project.ID, r.PathValue("sha"))
		if err != nil {
			return err
		}
		return h(w, r, c)
	}
}

// commitForm handles a form of a commit's page, which it comes back to: at a
// note, or with a sentence. What fails is shown there, with the note.
func (s *Server) commitForm(do func(r *Request, c delivery.Commit) (note int64, notice string, err error)) Handler {
	return s.onCommit(func(w http.ResponseWriter, r *Request, c delivery.Commit) error {
		if r.Who.User == nil {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		note, notice, err := do(r, c)
		if message, status, rest := correctable(err); err != nil {
			if rest != nil {
				return rest
			}
			return s.showCommit(w, r, status, commitView{Commit: c, Error: message, Draft: r.FormValue("note")})
		}
		to := commitLink(r.Project, c.SHA)
		if note != 0 {
			to += "#note_" + strconv.FormatInt(note, 10)
		}
		return redirect(w, r, to, notice)
	})
}

func (s *Server) showCommit(w http.ResponseWriter, r *Request, status int, v commitView) error {
	ctx, p, c := r.Context(), r.Project, v.Commit
	v.Title, v.Body, v.Link = c.Title(), strings.TrimSpace(strings.TrimPrefix(c.Message, c.Title())), commitLink(p, c.SHA)
	v.MayNote = r.Who.User != nil
	inDiff, err := s.commitNotes(r, &v)
	if err != nil {
		return err
	}
	at := forge.CommitPosition(c)
	if v.Diff, err = s.loadDiff(w, r, p.ID, at.BaseSHA, c.SHA, inDiff); err != nil {
		return err
	}
	if v.MayNote {
		v.Diff.Notes = &notesOn{Action: v.Link + "/notes", Base: at.BaseSHA, Start: at.StartSHA, Head: at.HeadSHA}
	}
	if v.Diff.alone(r) {
		return s.fragment(w, "commit", "diff", v.Diff)
	}
	if v.Signature, err = s.Forge.VerifyCommit(ctx, p.ID, c.SHA); err != nil {
		return err
	}
	if v.Requests, err = s.Forge.RequestsOfCommit(ctx, p.ID, c.SHA); err != nil {
		return err
	}
	return s.render(w, r, status, "commit", Page{Title: v.Title, Active: "commits", Data: v})
}

// commitNotes reads the threads on a commit; those on lines are returned by
// path.
func (s *Server) commitNotes(r *Request, v *commitView) (map[string][]threadView, error) {
	list, err := s.Forge.Discussions(r.Context(), r.Project.ID, nil, v.Commit.SHA)
	if err != nil {
		return nil, err
	}
	users := s.people(r.Context())
	inDiff := map[string][]threadView{}
	for _, notes := range list {
		t := threadView{Link: v.Link, MayNote: v.MayNote, MayReply: v.MayNote}
		if err := s.fillThread(r, users, &t, notes, nil, true); err != nil {
			return nil, err
		}
		t.locate(nil)
		if t.path == "" {
			v.Threads = append(v.Threads, t)
		} else {
			inDiff[t.path] = append(inDiff[t.path], t)
		}
	}
	return inDiff, nil
}

func (s *Server) addCommitNote(r *Request, c delivery.Commit) (int64, string, error) {
	n, err := typedNote(r)
	if err != nil {
		return 0, "", err
	}
	n.CommitSHA = c.SHA
	note, err := s.Forge.AddNote(r.Context(), r.Who, *r.Project, n)
	return note.ID, "", err
}

// ownCommitNote finds the note of the address; it belongs to the commit.
func (s *Server) ownCommitNote(r *Request, c delivery.Commit) (forge.Note, error) {
	id, err := number(r, "note")
	if err != nil {
		return forge.Note{}, err
	}
	n, err := s.Forge.Note(r.Context(), r.Project.ID, id)
	if err == nil && n.CommitSHA != c.SHA {
		err = notFound()
	}
	return n, err
}

func (s *Server) editCommitNote(r *Request, c delivery.Commit) (int64, string, error) {
	n, err := s.ownCommitNote(r, c)
	if err != nil {
		return 0, "", err
	}
	_, err = s.Forge.EditNote(r.Context(), r.Who, *r.Project, n, noteText(r))
	return n.ID, "", err
}

func (s *Server) deleteCommitNote(r *Request, c delivery.Commit) (int64, string, error) {
	n, err := s.ownCommitNote(r, c)
	if err != nil {
		return 0, "", err
	}
	return 0, "The comment is deleted.", s.Forge.DeleteNote(r.Context(), r.Who, *r.Project, n)
}
