package forge

import (
	"context"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// DraftNote is a note on a merge request that its author holds back until the
// review is submitted; nobody else sees it (doc/api/draft_notes.md). The note
// is as it is going to be, but for its DiscussionID, which is empty where it
// begins a thread.
type DraftNote struct {
	Note
	Resolve bool // settles the thread that it answers
}

// LineCode names the line that the note was written on as GitLab does; empty
// for a note that is not on a line.
func (d DraftNote) LineCode() string {
	lines := ParsePatch(d.Excerpt)
	if d.Original == nil || d.DiscussionID != "" || len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	return LineCode(d.Original.NewPath, last.OldAt, last.NewAt)
}

// Review is what a person publishes at once.
type Review struct {
	Request  delivery.MergeRequest
	AuthorID int64
	Drafts   []DraftNote // those without a body only go away
	Summary  *Note
	Approve  bool
}

type draftStore interface {
	CreateDraft(ctx context.Context, d DraftNote) (DraftNote, error)
	// UpdateDraft stores its text, its place and whether it settles its thread.
	UpdateDraft(ctx context.Context, d DraftNote) error
	// DeleteDrafts removes one draft of an author, or with id 0 all of them.
	DeleteDrafts(ctx context.Context, mergeRequestID, authorID, id int64) error
	// Drafts lists the drafts of an author (0: of all) on a merge request,
	// oldest first.
	Drafts(ctx context.Context, mergeRequestID, authorID int64) ([]DraftNote, error)
	// SubmitReview turns drafts into notes, stores the approval and emits the
	// events, all at once; drafts that are gone are left out. It returns the
	// new notes and whether the approval is new.
	SubmitReview(ctx context.Context, r Review) ([]Note, bool, error)
}

const maxDrafts = 1000 // that a person may hold back on one merge request

// AddDraft holds a note back, on behalf of the caller.
func (s *Service) AddDraft(ctx context.Context, who delivery.Identity, p delivery.Project, n NewNote, resolve bool) (DraftNote, error) {
	note, err := s.composeNote(ctx, who, p, n)
	if err != nil {
		return DraftNote{}, err
	}
	if resolve {
		if err := s.mayResolveBy(ctx, who, p, *n.MergeRequest, note); err != nil {
			return DraftNote{}, err
		}
	}
	held, err := s.store.Drafts(ctx, n.MergeRequest.ID, who.User.ID)
	if err != nil {
		return DraftNote{}, err
	}
	if len(held) >= maxDrafts {
		return DraftNote{}, &delivery.Error{Kind: delivery.Invalid, Message: "Your review has 1000 comments.", Next: "Submit it first."}
	}
	return s.store.CreateDraft(ctx, DraftNote{Note: note, Resolve: resolve})
}

// mayResolveBy refuses an answer that settles what cannot be settled, or not by
// the caller.
func (s *Service) mayResolveBy(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, n Note) error {
	if n.DiscussionID == "" || !n.Resolvable {
		return invalidField("resolve_discussion", "needs a thread to answer that can be resolved")
	}
	return s.mayResolve(ctx, who, p, m)
}

// Drafts lists the caller's drafts on a merge request, oldest first.
func (s *Service) Drafts(ctx context.Context, who delivery.Identity, m delivery.MergeRequest) ([]DraftNote, error) {
	if who.User == nil {
		return nil, nil
	}
	return s.store.Drafts(ctx, m.ID, who.User.ID)
}

// Draft returns one of the caller's drafts on a merge request.
func (s *Service) Draft(ctx context.Context, who delivery.Identity, m delivery.MergeRequest, id int64) (DraftNote, error) {
	list, err := s.Drafts(ctx, who, m)
	if err != nil {
		return DraftNote{}, err
	}
	if i := slices.IndexFunc(list, func(d DraftNote) bool { return d.ID == id }); i >= 0 {
		return list[i], nil
	}
	return DraftNote{}, &delivery.Error{Kind: delivery.NotFound, Message: "404 Draft Note Not Found"}
}

// DraftChange changes a draft; nil fields stay.
type DraftChange struct {
	Body     *string
	Position *NotePosition // only of a draft that begins a thread
	Resolve  *bool
}

// EditDraft changes a draft of the caller.
func (s *Service) EditDraft(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, d DraftNote, c DraftChange) (DraftNote, error) {
	if _, err := s.mayNote(ctx, who, p); err != nil {
		return d, err
	}
	var err error
	if c.Body != nil {
		if d.Body, err = noteBody(*c.Body); err != nil {
			return d, err
		}
	}
	if c.Position != nil {
		if d.DiscussionID != "" {
			return d, invalidField("position", "is that of the thread that it answers")
		}
		if err := s.placeNote(ctx, &d.Note, &m, c.Position); err != nil {
			return d, err
		}
	}
	if c.Resolve != nil {
		if d.Resolve = *c.Resolve; d.Resolve {
			if err := s.mayResolveBy(ctx, who, p, m, d.Note); err != nil {
				return d, err
			}
		}
	}
	d.UpdatedAt = s.now()
	return d, s.store.UpdateDraft(ctx, d)
}

// DeleteDrafts throws a draft of the caller away, or with id 0 the whole
// review.
func (s *Service) DeleteDrafts(ctx context.Context, who delivery.Identity, m delivery.MergeRequest, id int64) error {
	if who.User == nil {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return s.store.DeleteDrafts(ctx, m.ID, who.User.ID, id)
}

// ReviewOptions says what is submitted.
type ReviewOptions struct {
	Only    int64  // a single draft; 0: all of the caller's
	Summary string // a note on the whole
	Approve bool
	SHA     string // with Approve: the head that was reviewed; empty: any
}

// SubmitReview publishes the caller's drafts with a summary and an approval,
// all at once or not at all, and then does what their quick actions ask. An
// action that fails does not take the review back.
func (s *Service) SubmitReview(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, o ReviewOptions) ([]Note, error) {
	if _, err := s.mayNote(ctx, who, p); err != nil {
		return nil, err
	}
	if o.Approve {
		if err := s.mayApprove(ctx, who, p, m, o.SHA, true); err != nil {
			return nil, err
		}
	}
	r := Review{Request: m, AuthorID: who.User.ID, Approve: o.Approve}
	var err error
	if r.Drafts, err = s.Drafts(ctx, who, m); err != nil {
		return nil, err
	}
	if o.Only != 0 {
		r.Drafts = slices.DeleteFunc(r.Drafts, func(d DraftNote) bool { return d.ID != o.Only })
	}
	mayResolve := s.mayResolve(ctx, who, p, m) == nil
	var orders []string // texts with quick actions
	now := s.now()
	for i := range r.Drafts {
		d := &r.Drafts[i]
		rest, actions := splitActions(d.Body)
		if len(actions) > 0 {
			orders = append(orders, d.Body)
			d.Body = rest
		}
		if d.DiscussionID == "" {
			d.DiscussionID = newDiscussionID()
		}
		d.Resolve = d.Resolve && mayResolve
		d.CreatedAt = now
	}
	if strings.TrimSpace(o.Summary) != "" {
		summary, err := s.composeNote(ctx, who, p, NewNote{MergeRequest: &m, Body: o.Summary})
		if err != nil {
			return nil, err
		}
		rest, actions := splitActions(summary.Body)
		if len(actions) > 0 {
			orders = append(orders, summary.Body)
			summary.Body = rest
		}
		if summary.DiscussionID = newDiscussionID(); summary.Body != "" {
			r.Summary = &summary
		}
	}
	notes, approved, err := s.store.SubmitReview(ctx, r)
	if err != nil {
		return nil, err
	}
	if approved {
		if err := s.systemNote(ctx, m, who.User.ID, "approved this merge request"); err != nil {
			return notes, err
		}
	}
	for _, text := range orders {
		if _, _, err := s.RunActions(ctx, who, p, m, text); err != nil {
			return notes, err
		}
	}
	return notes, nil
}

// mayResolve refuses who may not settle threads of a merge request: its author
// and Developers may.
func (s *Service) mayResolve(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest) error {
	role, err := s.access.RoleIn(ctx, who, p)
	if err == nil && (who.User == nil || role < delivery.Developer && who.User.ID != m.AuthorID) {
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return err
}
