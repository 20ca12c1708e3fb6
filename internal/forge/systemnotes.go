package forge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const notedCommits = 20 // that the note of a push lists

func newDiscussionID() string {
	id := make([]byte, 20)
	rand.Read(id) //nolint:errcheck // never fails
	return hex.EncodeToString(id)
}

// systemNote writes what somebody did into the discussion of a merge request,
// worded as GitLab words it.
func (s *Service) systemNote(ctx context.Context, m delivery.MergeRequest, userID int64, body string) error {
	_, err := s.store.CreateNote(ctx, Note{ProjectID: m.ProjectID, NoteableType: "MergeRequest", NoteableID: m.ID, NoteableIID: m.IID, DiscussionID: newDiscussionID(), Individual: true, System: true, AuthorID: userID, Body: body, CreatedAt: s.now()})
	return err
}

// noteChanges writes a note for each field that was changed.
func (s *Service) noteChanges(ctx context.Context, before, m delivery.MergeRequest, userID int64) error {
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if bare := TitleOfDraft(m.Title, false); bare != TitleOfDraft(before.Title, false) {
		add("changed title from **%s** to **%s**", plainText(TitleOfDraft(before.Title, false)), plainText(bare))
	}
	switch {
	case m.Draft && !before.Draft:
		add("marked this merge request as **draft**")
	case !m.Draft && before.Draft:
		add("marked this merge request as **ready**")
	}
	if m.Description != before.Description {
		add("changed the description")
	}
	if m.TargetBranch != before.TargetBranch {
		add("changed target branch from `%s` to `%s`", before.TargetBranch, m.TargetBranch)
	}
	for _, list := range []struct {
		old, new       []int64
		added, dropped string
	}{{before.AssigneeIDs, m.AssigneeIDs, "assigned to %s", "unassigned %s"}, {before.ReviewerIDs, m.ReviewerIDs, "requested review from %s", "removed review request for %s"}} {
		for format, ids := range map[string][]int64{list.added: Without(list.new, list.old), list.dropped: Without(list.old, list.new)} {
			names, err := s.mentions(ctx, ids)
			if err != nil {
				return err
			}
			if names != "" {
				add(format, names)
			}
		}
	}
	if l := Without(m.Labels, before.Labels); len(l) > 0 {
		add("added the labels `%s`", strings.Join(l, "`, `"))
	}
	if l := Without(before.Labels, m.Labels); len(l) > 0 {
		add("removed the labels `%s`", strings.Join(l, "`, `"))
	}
	switch {
	case m.AutoMerge && !before.AutoMerge:
		add("enabled an automatic merge when the pipeline for %s succeeds", m.HeadSHA)
	case !m.AutoMerge && before.AutoMerge && m.State == "opened":
		add("canceled the automatic merge")
	}
	if m.State != before.State {
		add("%s", map[string]string{"closed": "closed", "opened": "reopened"}[m.State])
	}
	for _, body := range notes {
		if err := s.systemNote(ctx, m, userID, body); err != nil {
			return err
		}
	}
	return nil
}

// plainText keeps a title from being read as markdown.
func plainText(s string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "<", "&lt;", "@", "@\u2060", "\n", " ").Replace(s)
}

// Without returns what of a list is not in another, in its order.
func Without[T comparable](list, drop []T) []T {
	var out []T
	for _, v := range list {
		if !slices.Contains(drop, v) {
			out = append(out, v)
		}
	}
	return out
}

func (s *Service) mentions(ctx context.Context, ids []int64) (string, error) {
	var names []string
	for _, id := range ids {
		u, err := s.access.User(ctx, id)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		names = append(names, "@"+u.Username)
	}
	return strings.Join(names, " and "), nil
}

// notePush tells of a new version of a merge request.
func (s *Service) notePush(ctx context.Context, m delivery.MergeRequest, old string, userID int64) error {
	list, err := s.Commits(ctx, m.ProjectID, LogOptions{Rev: m.HeadSHA, Not: old, Limit: notedCommits + 1})
	if err != nil && !delivery.IsNotFound(err) {
		return err
	}
	ahead, err := s.IsAncestor(ctx, m.ProjectID, old, m.HeadSHA)
	if err != nil && exitCode(err) < 0 {
		return err
	}
	var b strings.Builder
	switch {
	case !ahead:
		fmt.Fprintf(&b, "rewrote the branch from %s to %s", old, m.HeadSHA)
	case len(list) == 1:
		b.WriteString("added 1 commit")
	case len(list) > notedCommits:
		fmt.Fprintf(&b, "added more than %d commits", notedCommits)
	default:
		fmt.Fprintf(&b, "added %d commits", len(list))
	}
	if ahead {
		b.WriteString("\n\n")
		for _, c := range list[:min(len(list), notedCommits)] {
			fmt.Fprintf(&b, "* %s - %s\n", c.SHA, plainText(clip(c.Title(), 200)))
		}
	}
	return s.systemNote(ctx, m, userID, b.String())
}
