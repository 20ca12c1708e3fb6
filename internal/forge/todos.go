package forge

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// The reasons for an entry in somebody's list, as GitLab names them.
const (
	TodoAssigned  = "assigned"
	TodoReview    = "review_requested"
	TodoMentioned = "mentioned"
	TodoAddressed = "directly_addressed" // mentioned at the beginning
	TodoFailed    = "build_failed"
)

// What an entry can be about, as GitLab names it.
const (
	TargetRequest = "MergeRequest"
	TargetCommit  = "Commit"
)

// Todo is something that waits for a person's attention.
type Todo struct {
	ID             int64
	UserID         int64
	ProjectID      int64
	MergeRequestID int64
	IID            int64
	CommitSHA      string // what it is about where there is no merge request
	Title          string // of the merge request or the commit
	NoteID         int64  // 0: the merge request itself
	AuthorID       int64  // who caused it
	Action         string
	Body           string // the beginning of what was said
	EventID        int64
	Done           bool
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// TodoFilter narrows a person's list.
type TodoFilter struct {
	UserID    int64
	Done      *bool
	Action    string
	AuthorID  int64
	ProjectID int64
	RequestID int64          // id of a merge request
	CommitSHA string         // of a commit; with ProjectID
	Target    string         // TargetRequest or TargetCommit
	Visible   *ProjectFilter // only in projects that this filter lets through
}

type todoStore interface {
	// AddTodo stores an entry unless the same waits already or the event made
	// it before.
	AddTodo(ctx context.Context, t Todo) error
	Todos(ctx context.Context, f TodoFilter, limit, offset int) ([]Todo, int, error)
	TodoByID(ctx context.Context, id int64) (Todo, error)
	// SetTodos marks what the filter lets through as done or not.
	SetTodos(ctx context.Context, f TodoFilter, id int64, done bool) error
}

var mentionPattern = regexp.MustCompile(`(^|[^\w/@.&-])@([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)`)

// codePattern is what mentions nobody: code blocks and spans.
var codePattern = regexp.MustCompile("(?ms)^ {0,3}(```|~~~).*?(^ {0,3}(```|~~~)[ \t]*$|\\z)|`+[^`\n]+`+")

const notifyWithin = 7 * 24 * time.Hour

const maxMentions = 100 // people that one text can tell

// Mentions lists the user names that a text names with @, each once, and tells
// whether it begins with the first of them.
func Mentions(text string) (names []string, addressed bool) {
	text = codePattern.ReplaceAllString(text, " ` ")
	for _, m := range mentionPattern.FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(m[2])
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) == maxMentions {
			break
		}
	}
	return names, strings.HasPrefix(strings.TrimSpace(text), "@")
}

// Todos lists the caller's entries in projects whose code they may read, newest
// first.
func (s *Service) Todos(ctx context.Context, who delivery.Identity, f TodoFilter, limit, offset int) ([]Todo, int, error) {
	if who.User == nil {
		return nil, 0, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	v := FilterFor(who)
	v.Readable = true
	f.UserID, f.Visible = who.User.ID, &v
	return s.store.Todos(ctx, f, limit, offset)
}

// TodosWaiting counts the caller's open entries. It is cheap where there are
// none: every page asks.
func (s *Service) TodosWaiting(ctx context.Context, who delivery.Identity) (int, error) {
	if who.User == nil {
		return 0, nil
	}
	open := false
	f := TodoFilter{UserID: who.User.ID, Done: &open}
	if _, n, err := s.store.Todos(ctx, f, 1, 0); err != nil || n == 0 {
		return 0, err
	}
	_, n, err := s.Todos(ctx, who, f, 1, 0)
	return n, err
}

// TodoDone marks one entry of a person as done, or as not.
func (s *Service) TodoDone(ctx context.Context, userID, id int64, done bool) (Todo, error) {
	t, err := s.store.TodoByID(ctx, id)
	if err == nil && t.UserID != userID {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Todo Not Found"}
	}
	if err != nil {
		return t, err
	}
	t.Done = done
	return t, s.store.SetTodos(ctx, TodoFilter{UserID: userID}, id, done)
}

// AllTodosDone empties a person's list.
func (s *Service) AllTodosDone(ctx context.Context, userID int64) error {
	return s.store.SetTodos(ctx, TodoFilter{UserID: userID}, 0, true)
}

// notify turns events into entries and e-mail. It may see an event twice.
// Nobody is told of what is long past, as after a restored backup.
func (s *Service) notify(ctx context.Context, e delivery.Event) error {
	if s.now().Sub(e.At) > notifyWithin {
		return nil
	}
	var err error
	switch e.Kind {
	case delivery.EventMergeRequest:
		var v delivery.MergeRequestChanged
		if err = e.Decode(&v); err == nil {
			return ignoreMissing(s.notifyRequest(ctx, e, v))
		}
	case delivery.EventNote:
		var v delivery.NoteAdded
		if err = e.Decode(&v); err == nil {
			return ignoreMissing(s.notifyNote(ctx, e, v))
		}
	case delivery.EventPipelineChanged:
		var v delivery.PipelineChanged
		if err = e.Decode(&v); err == nil {
			return ignoreMissing(s.notifyPipeline(ctx, e, v))
		}
	}
	if err != nil {
		s.log.Error("unreadable event", "event", e.ID, "err", err)
	}
	return nil
}

// notice is one event on its way to people. It is about a merge request or,
// where that has no ID, about a commit.
type notice struct {
	event   delivery.Event
	project delivery.Project
	request delivery.MergeRequest
	commit  delivery.Commit
	actor   delivery.User
	note    int64
	told    map[int64]bool // who got e-mail
}

// title is that of the merge request or the commit.
func (n *notice) title() string {
	if n.request.ID == 0 {
		return clip(n.commit.Title(), 200)
	}
	return n.request.Title
}

func (s *Service) noticeOf(ctx context.Context, e delivery.Event, m delivery.MergeRequest, actorID int64) (*notice, error) {
	return s.actorsNotice(ctx, notice{event: e, request: m}, m.ProjectID, actorID)
}

func (s *Service) actorsNotice(ctx context.Context, about notice, projectID, actorID int64) (*notice, error) {
	n := &about
	n.told = map[int64]bool{actorID: true}
	var err error
	if n.project, err = s.store.ProjectByID(ctx, projectID); err != nil {
		return nil, err
	}
	n.actor, err = s.access.User(ctx, actorID)
	if delivery.IsNotFound(err) {
		n.actor, err = delivery.User{Name: "Someone"}, nil
	}
	return n, err
}

// reader returns a person who may know of a merge request; false for others.
func (s *Service) reader(ctx context.Context, n *notice, userID int64) (delivery.User, bool, error) {
	u, err := s.access.User(ctx, userID)
	if delivery.IsNotFound(err) || err == nil && (u.Blocked || u.Bot) {
		return u, false, nil
	}
	if err != nil {
		return u, false, err
	}
	role, err := s.access.UserRole(ctx, u, n.project.ID)
	return u, CanRead(n.project, role), err
}

// todo adds an entry for a person who may read it and is not the one who
// caused it, and tells them by e-mail.
func (s *Service) todo(ctx context.Context, n *notice, userID int64, action, body, why string) error {
	if userID == n.actor.ID && action != TodoFailed {
		return nil
	}
	u, ok, err := s.reader(ctx, n, userID)
	if err != nil || !ok {
		return err
	}
	t := Todo{UserID: u.ID, ProjectID: n.project.ID, MergeRequestID: n.request.ID, CommitSHA: n.commit.SHA, Title: n.title(), NoteID: n.note, AuthorID: n.actor.ID, Action: action, Body: clip(body, 500), EventID: n.event.ID, CreatedAt: n.event.At}
	if err := s.store.AddTodo(ctx, t); err != nil {
		return err
	}
	return s.mailTo(ctx, n, u, why, true)
}

func (s *Service) notifyRequest(ctx context.Context, e delivery.Event, v delivery.MergeRequestChanged) error {
	m, err := s.store.MergeRequestByID(ctx, v.ID)
	if err != nil {
		return err
	}
	n, err := s.noticeOf(ctx, e, m, v.UserID)
	if err != nil {
		return err
	}
	what := map[string]string{"merge": "merged it", "close": "closed it", "reopen": "reopened it", "approved": "approved it", "unapproved": "took the approval back", "open": "asks for a merge"}[v.Action]
	if v.OldSHA != "" {
		what = "pushed new commits"
	}
	if v.Action == "open" {
		what += ":\n\n" + m.Description
	}
	for _, id := range v.Reviewers {
		if err := s.todo(ctx, n, id, TodoReview, m.Title, n.actor.Name+" requested your review."); err != nil {
			return err
		}
	}
	for _, id := range v.Assignees {
		if err := s.todo(ctx, n, id, TodoAssigned, m.Title, n.actor.Name+" assigned it to you."); err != nil {
			return err
		}
	}
	if err := s.mentioned(ctx, n, v.Mentions, m.Description, m.Description, false); err != nil {
		return err
	}
	if v.OldSHA == "" && v.Action != "update" && v.Action != "open" {
		if err := s.store.SetTodos(ctx, TodoFilter{UserID: v.UserID, RequestID: m.ID}, 0, true); err != nil {
			return err
		}
	}
	if what == "" || v.InReview {
		return nil
	}
	return s.mailParticipants(ctx, n, n.actor.Name+" "+what)
}

// mentioned tells the people that a text names; whole is what their e-mail says.
func (s *Service) mentioned(ctx context.Context, n *notice, names []string, text, whole string, addressed bool) error {
	for i, name := range names {
		u, err := s.access.UserByName(ctx, name)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		action := TodoMentioned
		if addressed && i == 0 {
			action = TodoAddressed
		}
		if err := s.todo(ctx, n, u.ID, action, text, n.actor.Name+" mentioned you:\n\n"+whole); err != nil {
			return err
		}
	}
	return nil
}

// notifyNote tells of a note, or of all that were submitted in one review.
func (s *Service) notifyNote(ctx context.Context, e delivery.Event, v delivery.NoteAdded) error {
	ids := []int64{v.ID}
	if v.Review != nil {
		if ids = v.Review.Notes; ids[0] != v.ID {
			return nil // the first tells of all
		}
	}
	var notes []Note
	for _, id := range ids {
		note, err := s.store.NoteByID(ctx, id)
		if delivery.IsNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		notes = append(notes, note)
	}
	if len(notes) == 0 {
		return nil
	}
	if notes[0].NoteableID == 0 {
		return s.notifyCommitNote(ctx, e, notes, v.UserID)
	}
	m, err := s.store.MergeRequestByID(ctx, notes[0].NoteableID)
	if err != nil {
		return err
	}
	n, err := s.noticeOf(ctx, e, m, v.UserID)
	if err != nil {
		return err
	}
	// Who answers has seen what waited.
	if err := s.store.SetTodos(ctx, TodoFilter{UserID: v.UserID, RequestID: m.ID}, 0, true); err != nil {
		return err
	}
	return s.tellNotes(ctx, n, notes, v.Review)
}

// notifyCommitNote tells of a note on a commit.
func (s *Service) notifyCommitNote(ctx context.Context, e delivery.Event, notes []Note, actorID int64) error {
	projectID := notes[0].ProjectID
	c, err := s.Commit(ctx, projectID, notes[0].CommitSHA)
	if err != nil {
		return err
	}
	n, err := s.actorsNotice(ctx, notice{event: e, commit: c}, projectID, actorID)
	if err != nil {
		return err
	}
	if err := s.store.SetTodos(ctx, TodoFilter{UserID: actorID, ProjectID: projectID, CommitSHA: c.SHA}, 0, true); err != nil {
		return err
	}
	return s.tellNotes(ctx, n, notes, nil)
}

// tellNotes tells the people whom notes mention, and then all who take part.
func (s *Service) tellNotes(ctx context.Context, n *notice, notes []Note, review *delivery.Review) error {
	whole, text := notes[0].Body, n.actor.Name+" commented"+noteText(notes[0])
	if review != nil {
		whole, text = "", n.actor.Name+" reviewed it"
		for _, note := range notes {
			whole += "\n\nComment" + noteText(note)
		}
		if review.Approved {
			text += " and approved it"
		}
		text += "." + whole
	}
	for _, note := range notes {
		n.note = note.ID
		names, addressed := Mentions(note.Body)
		if err := s.mentioned(ctx, n, names, note.Body, whole, addressed); err != nil {
			return err
		}
	}
	n.note = notes[0].ID
	return s.mailParticipants(ctx, n, text)
}

// noteText is a note with its place, as e-mail shows it.
func noteText(note Note) string {
	where := ""
	if p := note.Position; p != nil {
		where = fmt.Sprintf(" on %s:%d", p.NewPath, max(p.NewLine, p.OldLine))
	}
	return where + ":\n\n" + note.Body
}

// notifyPipeline tells the author of a merge request whose pipeline failed.
func (s *Service) notifyPipeline(ctx context.Context, e delivery.Event, v delivery.PipelineChanged) error {
	if v.Status != "failed" && v.Status != "success" {
		return nil
	}
	list, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{e.ProjectID}, State: "opened"}, 0, 0)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.HeadSHA != v.SHA {
			continue
		}
		if v.Status == "success" {
			if err := s.store.SetTodos(ctx, TodoFilter{UserID: m.AuthorID, RequestID: m.ID, Action: TodoFailed}, 0, true); err != nil {
				return err
			}
			continue
		}
		n, err := s.noticeOf(ctx, e, m, v.UserID)
		if err != nil {
			return err
		}
		delete(n.told, m.AuthorID)
		if err := s.todo(ctx, n, m.AuthorID, TodoFailed, m.Title, fmt.Sprintf("Its pipeline #%d failed.", v.ID)); err != nil {
			return err
		}
	}
	return nil
}
