package forge

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Suggestion is a change that a note on a line proposes in a code block marked
// "suggestion:-1+2" (doc/user/project/merge_requests/reviews/suggestions.md):
// the line, with so many above and below it, becomes Text.
type Suggestion struct {
	Above, Below int
	Text         string // with a line feed at the end of each line; empty removes the lines
}

const maxSuggested = 100 // lines above and below, as GitLab's

var suggestionFence = regexp.MustCompile("^ {0,3}(`{3,}|~{3,})[ \t]*suggestion(?::-([0-9]+)\\+([0-9]+))?[ \t]*$")

// Suggestions takes the suggestions out of a note; rest is what remains of it.
func Suggestions(body string) (rest string, list []Suggestion) {
	lines := strings.Split(strings.ReplaceAll(body, "\r\n", "\n"), "\n")
	var keep []string
	for i := 0; i < len(lines); i++ {
		m := suggestionFence.FindStringSubmatch(lines[i])
		end := -1
		if m != nil {
			for j := i + 1; j < len(lines) && end < 0; j++ {
				if closing := strings.TrimSpace(lines[j]); strings.HasPrefix(closing, m[1]) && strings.Trim(closing, m[1][:1]) == "" {
					end = j
				}
			}
		}
		if m != nil && end < 0 { // an open fence reaches to the end
			keep = append(keep, lines[i:]...)
			break
		}
		if m == nil {
			keep = append(keep, lines[i])
			continue
		}
		number := func(s string) int {
			n, err := strconv.Atoi(s)
			if err != nil {
				return 0
			}
			return min(n, maxSuggested)
		}
		s := Suggestion{Above: number(m[2]), Below: number(m[3])}
		for _, l := range lines[i+1 : end] {
			s.Text += l + "\n"
		}
		list = append(list, s)
		i = end
	}
	return strings.TrimSpace(strings.Join(keep, "\n")), list
}

// ApplySuggestion commits a suggestion of a note to the source branch, on
// behalf of the caller, and resolves its thread. Conflict means that the lines
// changed since.
func (s *Service) ApplySuggestion(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, n Note, index int) (delivery.Commit, error) {
	_, list := Suggestions(n.Body)
	pos := n.Position
	if index < 0 || index >= len(list) || pos == nil || pos.NewLine == 0 || n.NoteableID != m.ID {
		return delivery.Commit{}, &delivery.Error{Kind: delivery.NotFound, Message: "404 Suggestion Not Found"}
	}
	if m.State != "opened" || m.SourceProjectID == 0 {
		return delivery.Commit{}, delivery.Errorf(delivery.Invalid, "The merge request is not open.")
	}
	source, err := s.store.ProjectByID(ctx, m.SourceProjectID)
	if err != nil {
		return delivery.Commit{}, err
	}
	head, ok, err := s.sourceHead(ctx, m)
	if err != nil || !ok {
		return delivery.Commit{}, refGone(err, m.SourceBranch)
	}
	if !Current(*pos, m) || head != m.HeadSHA {
		return delivery.Commit{}, delivery.Errorf(delivery.Conflict, "The lines changed since the suggestion was made.")
	}
	body, err := s.ReadFile(ctx, source.ID, head, pos.NewPath, maxBlobInCommit)
	if err != nil {
		return delivery.Commit{}, err
	}
	one := list[index]
	lines := strings.SplitAfter(string(body), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	from, to := pos.NewLine-one.Above-1, pos.NewLine+one.Below
	if from < 0 || to > len(lines) {
		return delivery.Commit{}, delivery.Errorf(delivery.Invalid, "The suggestion reaches over the file's end.")
	}
	text := one.Text
	if strings.HasSuffix(lines[from], "\r\n") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if to == len(lines) && !strings.HasSuffix(lines[to-1], "\n") {
		text = strings.TrimRight(text, "\r\n")
	}
	changed := strings.Join(lines[:from], "") + text + strings.Join(lines[to:], "")
	if changed == string(body) {
		return delivery.Commit{}, delivery.Errorf(delivery.Invalid, "The suggestion is applied already.")
	}
	author, err := s.access.User(ctx, n.AuthorID)
	if err != nil && !delivery.IsNotFound(err) {
		return delivery.Commit{}, err
	}
	message := fmt.Sprintf("Apply a suggestion to %s", pos.NewPath)
	if author.Email != "" && (who.User == nil || author.ID != who.User.ID) {
		message += fmt.Sprintf("\n\nCo-authored-by: %s <%s>", author.Name, author.Email)
	}
	c, err := s.CommitFiles(ctx, who, source, delivery.NewCommit{Branch: m.SourceBranch, Message: message, Actions: []delivery.CommitAction{{Action: "update", Path: pos.NewPath, Content: []byte(changed)}}})
	if err != nil {
		return c, err
	}
	if _, err := s.Resolve(ctx, who, p, m, n.DiscussionID, true); err != nil && delivery.KindOf(err) != delivery.Forbidden {
		return c, err
	}
	return c, s.moveLocked(ctx, p, m.IID, actorOf(who))
}
