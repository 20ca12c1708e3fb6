package web

import (
	"html/template"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// reviewView is what the caller holds back on a merge request.
type reviewView struct {
	Held       []heldView
	Summary    string // what was typed
	Button     string // what the button of a note says that holds it back
	MayApprove bool
}

// heldView is a note that only its author sees.
type heldView struct {
	forge.DraftNote
	HTML    template.HTML
	Changes []suggestionView
	Place   string
	Link    string // of the merge request
	Tab     string
}

// heldNotes reads what the caller holds back; those that answer a thread are
// returned by it.
func (s *Server) heldNotes(r *Request, v *requestView) (map[string][]heldView, error) {
	if !v.MayNote {
		return nil, nil
	}
	drafts, err := s.Forge.Drafts(r.Context(), r.Who, v.Request)
	if err != nil {
		return nil, err
	}
	answers := map[string][]heldView{}
	for _, d := range drafts {
		one := heldView{DraftNote: d, Link: v.Link, Tab: v.Tab, Place: "the merge request"}
		if p := d.Position; p != nil {
			t := threadView{note: &d.Note}
			t.locate(&v.Request)
			one.Place = t.Place
		}
		var body string
		if body, one.Changes, err = s.suggestions(r, d.Note, v.Request, false); err != nil {
			return nil, err
		}
		one.HTML = s.noteHTML(r, body)
		v.Review.Held = append(v.Review.Held, one)
		if d.DiscussionID != "" {
			answers[d.DiscussionID] = append(answers[d.DiscussionID], one)
		}
	}
	v.Review.Button = "Start a review"
	if len(drafts) > 0 {
		v.Review.Button = "Add to review"
	}
	v.Review.MayApprove = v.Request.State == "opened" && r.Role >= delivery.Developer && r.Who.User.ID != v.Request.AuthorID && !v.Approved
	return answers, nil
}

func (s *Server) submitReview(r *Request, m delivery.MergeRequest) (string, error) {
	o := forge.ReviewOptions{Summary: r.FormValue("summary"), Approve: r.FormValue("verdict") == "approve", SHA: r.FormValue("sha")}
	notes, err := s.Forge.SubmitReview(r.Context(), r.Who, *r.Project, m, o)
	if err != nil {
		return "", err
	}
	if len(notes) == 0 && !o.Approve {
		return "", &delivery.Error{Kind: delivery.Invalid, Message: "There is nothing to submit.", Next: "Write a comment or a summary."}
	}
	return "Your review is submitted.", nil
}

func (s *Server) discardReview(r *Request, m delivery.MergeRequest) (string, error) {
	return "Your review is thrown away.", s.Forge.DeleteDrafts(r.Context(), r.Who, m, 0)
}

// held finds the draft of the address.
func (s *Server) held(r *Request, m delivery.MergeRequest) (forge.DraftNote, error) {
	id, err := number(r, "draft")
	if err != nil {
		return forge.DraftNote{}, err
	}
	return s.Forge.Draft(r.Context(), r.Who, m, id)
}

func (s *Server) editHeld(r *Request, m delivery.MergeRequest) (string, error) {
	d, err := s.held(r, m)
	if err != nil {
		return "", err
	}
	body := noteText(r)
	c := forge.DraftChange{Body: &body}
	if d.DiscussionID != "" && d.Resolvable {
		resolve := r.FormValue("resolve") != ""
		c.Resolve = &resolve
	}
	if _, err = s.Forge.EditDraft(r.Context(), r.Who, *r.Project, m, d, c); err != nil {
		return "", err
	}
	return "#held_" + strconv.FormatInt(d.ID, 10), nil
}

func (s *Server) deleteHeld(r *Request, m delivery.MergeRequest) (string, error) {
	d, err := s.held(r, m)
	if err != nil {
		return "", err
	}
	return "The comment is deleted.", s.Forge.DeleteDrafts(r.Context(), r.Who, m, d.ID)
}

func (s *Server) publishHeld(r *Request, m delivery.MergeRequest) (string, error) {
	d, err := s.held(r, m)
	if err != nil {
		return "", err
	}
	notes, err := s.Forge.SubmitReview(r.Context(), r.Who, *r.Project, m, forge.ReviewOptions{Only: d.ID})
	if err != nil || len(notes) == 0 {
		return "", err
	}
	return "#note_" + strconv.FormatInt(notes[0].ID, 10), nil
}
