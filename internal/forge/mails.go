package forge

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/mail"
)

// Mailer sends one message. Its errors are of kind Invalid when a message can
// never be sent; all others are tried again.
type Mailer interface {
	Send(ctx context.Context, m mail.Message) error
}

// QueuedMail is a message that is not sent yet.
type QueuedMail struct {
	ID        int64
	MessageID string // unique: an event mails a person once
	UserID    int64
	Subject   string
	Body      string
	Thread    string
	Attempts  int
	NextAt    time.Time
	CreatedAt time.Time
}

// How much e-mail a person wants, as GitLab names it.
const (
	MailParticipating = "participating" // all about merge requests that they take part in
	MailMention       = "mention"       // only what their to-do list gets too
	MailDisabled      = "disabled"
)

type mailStore interface {
	// MailLevel is what a person chose; empty: nothing yet.
	MailLevel(ctx context.Context, userID int64) (string, error)
	SetMailLevel(ctx context.Context, userID int64, level string) error
	QueueMail(ctx context.Context, m QueuedMail) error
	DueMails(ctx context.Context, now time.Time, limit int) ([]QueuedMail, error)
	// RetryMail stores when a message is tried again.
	RetryMail(ctx context.Context, id int64, attempts int, next time.Time) error
	DeleteMail(ctx context.Context, id int64) error
}

const (
	mailEvery    = 30 * time.Second // to look for messages to try again
	mailAttempts = 10               // of one message: about two days
)

// host names the instance in message ids.
func (s *Service) host() string {
	if u, err := url.Parse(s.o.ExternalURL); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	return "slipway.localhost"
}

// Mails reports whether e-mail is sent at all.
func (s *Service) Mails() bool { return s.o.Mailer != nil }

// MailLevel is how much e-mail a person gets.
func (s *Service) MailLevel(ctx context.Context, userID int64) (string, error) {
	level, err := s.store.MailLevel(ctx, userID)
	if err == nil && level == "" {
		level = MailParticipating
	}
	return level, err
}

// SetMailLevel stores how much e-mail a person wants. GitLab's further levels
// are answered with Invalid.
func (s *Service) SetMailLevel(ctx context.Context, userID int64, level string) error {
	switch level {
	case MailParticipating, MailMention, MailDisabled:
		return s.store.SetMailLevel(ctx, userID, level)
	}
	return invalidField("level", "must be participating, mention or disabled")
}

// mailTo queues a message about a merge request for a person, once per event,
// unless they want none. A direct one is about what their to-do list gets too.
func (s *Service) mailTo(ctx context.Context, n *notice, u delivery.User, text string, direct bool) error {
	if s.o.Mailer == nil || n.told[u.ID] || u.Email == "" {
		return nil
	}
	n.told[u.ID] = true
	level, err := s.MailLevel(ctx, u.ID)
	if err != nil {
		return err
	}
	if level == MailDisabled || level == MailMention && !direct {
		return nil
	}
	m, p := n.request, n.project
	what, link, thread, subject := "merge request", s.RequestURL(p, m.IID), fmt.Sprintf("merge_request_%d@%s", m.ID, s.host()), fmt.Sprintf("%s | %s (!%d)", p.Name, m.Title, m.IID)
	if m.ID == 0 {
		what, link, thread, subject = "discussion", s.WebURL(p)+"/-/commit/"+n.commit.SHA, fmt.Sprintf("commit_%d_%s@%s", p.ID, n.commit.SHA, s.host()), fmt.Sprintf("%s | %s (%s)", p.Name, n.title(), n.commit.SHA[:8])
	}
	if n.note != 0 {
		link += fmt.Sprintf("#note_%d", n.note)
	}
	q := QueuedMail{MessageID: fmt.Sprintf("%d.%d@%s", n.event.ID, u.ID, s.host()), UserID: u.ID, Subject: subject,
		Body: clip(text, 100<<10) + "\n\n-- \n" + link + "\nYou get this because you take part in this " + what + ". How much you get: " + s.o.ExternalURL + "/dashboard/todos\n", Thread: thread, NextAt: s.now(), CreatedAt: s.now()}
	if err := s.store.QueueMail(ctx, q); err != nil {
		return err
	}
	select {
	case s.mailWake <- struct{}{}:
	default:
	}
	return nil
}

// mailParticipants queues a message for all who take part in a merge request
// and were not told yet.
func (s *Service) mailParticipants(ctx context.Context, n *notice, text string) error {
	if s.o.Mailer == nil {
		return nil
	}
	people, err := s.participants(ctx, n)
	if err != nil {
		return err
	}
	for _, id := range people {
		if n.told[id] {
			continue
		}
		u, ok, err := s.reader(ctx, n, id)
		if err != nil {
			return err
		}
		if ok {
			if err := s.mailTo(ctx, n, u, text, false); err != nil {
				return err
			}
		}
		n.told[id] = true
	}
	return nil
}

// participants lists who has to do with a merge request, or with a commit: who
// wrote it, and who wrote about it.
func (s *Service) participants(ctx context.Context, n *notice) ([]int64, error) {
	m := n.request
	people := append(append([]int64{m.AuthorID}, m.AssigneeIDs...), m.ReviewerIDs...)
	if m.ID == 0 {
		people = nil
		for _, email := range []string{n.commit.Author.Email, n.commit.Committer.Email} {
			u, err := s.access.UserByName(ctx, email)
			if err == nil {
				people = append(people, u.ID)
			} else if !delivery.IsNotFound(err) {
				return nil, err
			}
		}
	}
	notes, _, err := s.store.Notes(ctx, n.project.ID, m.ID, n.commit.SHA, true, 0, 0)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		if !note.System {
			people = append(people, note.AuthorID)
		}
	}
	return people, nil
}

// sendMails sends what is due, at once and again after failures, until ctx
// ends.
func (s *Service) sendMails(ctx context.Context) {
	if s.o.Mailer == nil {
		return
	}
	ticker := time.NewTicker(mailEvery)
	defer ticker.Stop()
	for {
		more, err := s.sendDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("e-mail not sent; it is tried again", "err", err)
		}
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.mailWake:
		case <-ticker.C:
		}
	}
}

// sendDue sends a batch; more tells that there may be another.
func (s *Service) sendDue(ctx context.Context) (more bool, err error) {
	const batch = 50
	due, err := s.store.DueMails(ctx, s.now(), batch)
	if err != nil {
		return false, err
	}
	for _, q := range due {
		if err := s.sendMail(ctx, q); err != nil {
			return false, err
		}
	}
	return len(due) == batch, nil
}

func (s *Service) sendMail(ctx context.Context, q QueuedMail) error {
	u, err := s.access.User(ctx, q.UserID)
	if delivery.IsNotFound(err) || err == nil && u.Blocked {
		return s.store.DeleteMail(ctx, q.ID)
	}
	if err != nil {
		return err
	}
	err = s.o.Mailer.Send(ctx, mail.Message{ToName: u.Name, To: u.Email, Subject: q.Subject, Text: q.Body, ID: q.MessageID, Thread: q.Thread, Headers: map[string]string{"List-Id": "<merge-requests." + s.host() + ">"}})
	switch {
	case err == nil:
		return s.store.DeleteMail(ctx, q.ID)
	case ctx.Err() != nil:
		return ctx.Err()
	case delivery.KindOf(err) == delivery.Invalid || q.Attempts+1 >= mailAttempts:
		s.log.Warn("e-mail given up", "user", u.ID, "subject", q.Subject, "attempts", q.Attempts+1, "err", err)
		return s.store.DeleteMail(ctx, q.ID)
	}
	next := s.now().Add(min(time.Minute<<(2*q.Attempts), 8*time.Hour))
	s.log.Warn("e-mail not sent; it is tried again", "user", u.ID, "next", next, "err", err)
	return s.store.RetryMail(ctx, q.ID, q.Attempts+1, next)
}
