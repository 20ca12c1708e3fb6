package forge

import (
	"context"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const maxNote = 1 << 20 // bytes of a note

// NewNote describes a note to be written.
type NewNote struct {
	MergeRequest *delivery.MergeRequest // on this merge request
	CommitSHA    string                 // or on this commit
	DiscussionID string                 // answer in this thread
	Thread       bool                   // begin a thread that can be resolved
	Body         string
	Position     *NotePosition
}

// AddNote writes a note on behalf of the caller, who needs to be Reporter, or
// to see a project that is not private.
func (s *Service) AddNote(ctx context.Context, who delivery.Identity, p delivery.Project, n NewNote) (Note, error) {
	note, err := s.composeNote(ctx, who, p, n)
	if err != nil {
		return Note{}, err
	}
	if note.DiscussionID == "" {
		note.DiscussionID = newDiscussionID()
	}
	return s.store.CreateNote(ctx, note)
}

// mayNote refuses callers who may not write notes in a project.
func (s *Service) mayNote(ctx context.Context, who delivery.Identity, p delivery.Project) (delivery.Role, error) {
	role, err := s.access.RoleIn(ctx, who, p)
	if err == nil && (who.User == nil || who.Kind == delivery.JobToken || !CanRead(p, role)) {
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return role, err
}

// composeNote checks a note and finds its place. A note that begins a thread
// has no DiscussionID yet.
func (s *Service) composeNote(ctx context.Context, who delivery.Identity, p delivery.Project, n NewNote) (Note, error) {
	if _, err := s.mayNote(ctx, who, p); err != nil {
		return Note{}, err
	}
	body, err := noteBody(n.Body)
	if err != nil {
		return Note{}, err
	}
	note := Note{ProjectID: p.ID, AuthorID: who.User.ID, Body: body, Position: n.Position, Individual: !n.Thread && n.DiscussionID == "", Resolvable: n.Thread, CreatedAt: s.now()}
	if n.MergeRequest != nil {
		note.NoteableType, note.NoteableID, note.NoteableIID = "MergeRequest", n.MergeRequest.ID, n.MergeRequest.IID
	} else {
		if note.CommitSHA, err = s.ResolveRef(ctx, p.ID, n.CommitSHA); err != nil {
			return Note{}, err
		}
		note.NoteableType, note.Resolvable = "Commit", false
	}
	if n.DiscussionID == "" {
		return note, s.placeNote(ctx, &note, n.MergeRequest, n.Position)
	}
	thread, err := s.thread(ctx, p.ID, note, n.DiscussionID)
	if err != nil {
		return Note{}, err
	}
	note.DiscussionID, note.Resolvable, note.Position, note.Original = n.DiscussionID, thread[0].Resolvable, thread[0].Position, thread[0].Original
	return note, nil
}

// placeNote puts a note on a line; at is where its author saw the line.
func (s *Service) placeNote(ctx context.Context, note *Note, m *delivery.MergeRequest, at *NotePosition) (err error) {
	if at == nil {
		return nil
	}
	if note.Excerpt, err = s.place(ctx, note.ProjectID, at); err != nil {
		return err
	}
	original := *at
	note.Original = &original
	if m != nil {
		note.Resolvable, note.Individual = true, false
		note.Position, err = s.latest(ctx, *m, original)
	}
	return err
}

// noteBody is the text of a note as it is stored.
func noteBody(body string) (string, error) {
	if strings.TrimSpace(body) == "" {
		return "", invalidField("body", "can't be blank")
	}
	if len(body) > maxNote {
		return "", invalidField("body", "is too long (maximum is 1000000 characters)")
	}
	return strings.ToValidUTF8(body, "\uFFFD"), nil
}

func checkPosition(p *NotePosition) error {
	for _, sha := range []string{p.BaseSHA, p.StartSHA, p.HeadSHA} {
		if !fullSHA.MatchString(sha) {
			return invalidField("position", "needs base_sha, start_sha and head_sha")
		}
	}
	if p.PositionType == "" {
		p.PositionType = "text"
	}
	if p.NewLine < 0 || p.OldLine < 0 || p.NewPath == "" && p.OldPath == "" || p.PositionType == "text" && p.NewLine == 0 && p.OldLine == 0 {
		return invalidField("position", "needs a path and a line")
	}
	if p.NewPath == "" {
		p.NewPath = p.OldPath
	}
	if p.OldPath == "" {
		p.OldPath = p.NewPath
	}
	return nil
}

// thread returns the notes of a thread that belongs to the same noteable.
func (s *Service) thread(ctx context.Context, projectID int64, like Note, id string) ([]Note, error) {
	list, err := s.store.Discussion(ctx, projectID, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || list[0].NoteableID != like.NoteableID || list[0].CommitSHA != like.CommitSHA {
		return nil, &delivery.Error{Kind: delivery.NotFound, Message: "404 Discussion Not Found"}
	}
	return list, nil
}

// Notes lists notes of a merge request, or of a commit where m is nil.
func (s *Service) Notes(ctx context.Context, projectID int64, m *delivery.MergeRequest, commit string, ascending bool, limit, offset int) ([]Note, int, error) {
	if m != nil {
		return s.store.Notes(ctx, projectID, m.ID, "", ascending, limit, offset)
	}
	return s.store.Notes(ctx, projectID, 0, commit, ascending, limit, offset)
}

// Discussion lists the notes of one thread.
func (s *Service) Discussion(ctx context.Context, projectID int64, m *delivery.MergeRequest, commit, id string) ([]Note, error) {
	like := Note{CommitSHA: commit}
	if m != nil {
		like.NoteableID = m.ID
	}
	return s.thread(ctx, projectID, like, id)
}

// Discussions groups the notes of a merge request by thread, in the order in
// which the threads began.
func (s *Service) Discussions(ctx context.Context, projectID int64, m *delivery.MergeRequest, commit string) ([][]Note, error) {
	notes, _, err := s.Notes(ctx, projectID, m, commit, true, 0, 0)
	if err != nil {
		return nil, err
	}
	index := map[string]int{}
	var out [][]Note
	for _, n := range notes {
		i, ok := index[n.DiscussionID]
		if !ok {
			i = len(out)
			index[n.DiscussionID] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], n)
	}
	return out, nil
}

// Note returns a note of a project.
func (s *Service) Note(ctx context.Context, projectID, id int64) (Note, error) {
	n, err := s.store.NoteByID(ctx, id)
	if err == nil && n.ProjectID != projectID {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Note Not Found"}
	}
	return n, err
}

// EditNote changes the text of a note; authors may, and Maintainers.
func (s *Service) EditNote(ctx context.Context, who delivery.Identity, p delivery.Project, n Note, body string) (Note, error) {
	if err := s.ownsNote(ctx, who, p, n); err != nil {
		return n, err
	}
	text, err := noteBody(body)
	if err != nil {
		return n, err
	}
	n.Body, n.UpdatedAt = text, s.now()
	return n, s.store.UpdateNote(ctx, n)
}

// DeleteNote removes a note; authors may, and Maintainers.
func (s *Service) DeleteNote(ctx context.Context, who delivery.Identity, p delivery.Project, n Note) error {
	if err := s.ownsNote(ctx, who, p, n); err != nil {
		return err
	}
	return s.store.DeleteNote(ctx, n.ID)
}

func (s *Service) ownsNote(ctx context.Context, who delivery.Identity, p delivery.Project, n Note) error {
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil {
		return err
	}
	if n.System || who.User == nil || who.User.ID != n.AuthorID && role < delivery.Maintainer {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return nil
}

// Resolve settles or reopens a thread of a merge request: its author and
// Developers may.
func (s *Service) Resolve(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, discussionID string, resolved bool) ([]Note, error) {
	list, err := s.Discussion(ctx, p.ID, &m, "", discussionID)
	if err != nil {
		return nil, err
	}
	if err := s.mayResolve(ctx, who, p, m); err != nil {
		return nil, err
	}
	if !list[0].Resolvable {
		return nil, delivery.Errorf(delivery.Invalid, "The discussion is not resolvable.")
	}
	for i := range list {
		n := &list[i]
		n.ResolvedByID, n.ResolvedAt = 0, time.Time{}
		if resolved {
			n.ResolvedByID, n.ResolvedAt = who.User.ID, s.now()
		}
		n.UpdatedAt = s.now()
		if err := s.store.UpdateNote(ctx, *n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Release returns the release of a tag.
func (s *Service) Release(ctx context.Context, projectID int64, tag string) (Release, error) {
	return s.store.ReleaseByTag(ctx, projectID, tag)
}

// Releases lists a project's releases, newest first.
func (s *Service) Releases(ctx context.Context, projectID int64, limit, offset int) ([]Release, int, error) {
	return s.store.Releases(ctx, projectID, limit, offset)
}

// CreateRelease publishes a tag, which is made at rev where it does not exist.
func (s *Service) CreateRelease(ctx context.Context, who delivery.Identity, p delivery.Project, r Release, rev, tagMessage string) (Release, error) {
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil {
		return r, err
	}
	if role < delivery.Developer {
		return r, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	tag, err := s.Tag(ctx, p, r.Tag)
	if delivery.IsNotFound(err) {
		if rev == "" {
			return r, delivery.Errorf(delivery.Invalid, "Ref is not specified")
		}
		if who.Kind == delivery.JobToken {
			// A job makes tags as the user who started it.
			user := who
			user.Kind, user.Scopes = delivery.SessionUser, nil
			tag, err = s.CreateTag(ctx, user, p, r.Tag, rev, tagMessage)
		} else {
			tag, err = s.CreateTag(ctx, who, p, r.Tag, rev, tagMessage)
		}
	}
	if err != nil {
		return r, err
	}
	if r.Name == "" {
		r.Name = r.Tag
	}
	now := s.now()
	r.ProjectID, r.SHA, r.CreatedAt, r.AuthorID = p.ID, tag.SHA, now, actorOf(who)
	if r.ReleasedAt.IsZero() {
		r.ReleasedAt = now
	}
	for i := range r.Links {
		if err := checkLink(&r.Links[i]); err != nil {
			return r, err
		}
	}
	return s.store.CreateRelease(ctx, r)
}

func checkLink(l *ReleaseLink) error {
	if l.LinkType == "" {
		l.LinkType = "other"
	}
	low := strings.ToLower(l.URL)
	if l.Name == "" || !strings.HasPrefix(low, "http://") && !strings.HasPrefix(low, "https://") && !strings.HasPrefix(low, "ftp://") {
		return invalidField("url", "is blocked: Only allowed schemes are http, https, ftp")
	}
	switch l.LinkType {
	case "other", "runbook", "image", "package":
		return nil
	}
	return invalidField("link_type", "does not have a valid value")
}

// UpdateRelease stores name, description and date.
func (s *Service) UpdateRelease(ctx context.Context, r Release) error {
	return s.store.UpdateRelease(ctx, r)
}

// DeleteRelease removes a release; its tag stays.
func (s *Service) DeleteRelease(ctx context.Context, projectID int64, tag string) error {
	return s.store.DeleteRelease(ctx, projectID, tag)
}

// SetReleaseLink adds (ID 0) or changes a link.
func (s *Service) SetReleaseLink(ctx context.Context, projectID int64, tag string, l ReleaseLink) (ReleaseLink, error) {
	if err := checkLink(&l); err != nil {
		return l, err
	}
	return s.store.SetReleaseLink(ctx, projectID, tag, l)
}

// DeleteReleaseLink removes a link.
func (s *Service) DeleteReleaseLink(ctx context.Context, projectID int64, tag string, id int64) error {
	return s.store.DeleteReleaseLink(ctx, projectID, tag, id)
}
