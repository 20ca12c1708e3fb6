package forge

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// labelName reads ~name, name, or ~"two words".
var labelName = regexp.MustCompile(`~?"([^"]+)"|~?([^\s~,]+)`)

// quickAction is a line such as "/approve" or "/label ~bug" in a note.
var quickAction = regexp.MustCompile(`^/([a-z_]+)(?:[ \t]+(.*?))?[ \t]*$`)

// quickActions are those that notes of merge requests understand, with GitLab's
// names (doc/user/project/quick_actions.md).
var quickActions = []string{"approve", "unapprove", "assign", "unassign", "assign_reviewer", "reviewer", "request_review", "unassign_reviewer", "remove_reviewer", "label", "unlabel", "relabel", "draft", "ready", "title", "target_branch", "close", "reopen", "merge", "rebase"}

type noteAction struct{ name, argument string }

// splitActions takes the lines that are quick actions out of a note; those in
// code stay.
func splitActions(body string) (rest string, actions []noteAction) {
	var keep []string
	fence := ""
	for line := range strings.SplitSeq(body, "\n") {
		trimmed := strings.TrimSpace(line)
		for _, mark := range []string{"```", "~~~"} {
			if strings.HasPrefix(trimmed, mark) && (fence == "" || fence == mark) {
				if fence == "" {
					fence = mark
				} else {
					fence = ""
				}
				break
			}
		}
		if m := quickAction.FindStringSubmatch(strings.TrimRight(line, "\r")); m != nil && fence == "" && slices.Contains(quickActions, m[1]) {
			actions = append(actions, noteAction{m[1], m[2]})
			continue
		}
		keep = append(keep, line)
	}
	return strings.TrimSpace(strings.Join(keep, "\n")), actions
}

// RunActions does what the quick actions of a note ask, as the caller, and
// returns the note without them. The first that fails ends it with a sentence
// that names it; those before it stand.
func (s *Service) RunActions(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, body string) (rest string, done int, err error) {
	rest, actions := splitActions(body)
	for _, a := range actions {
		if m, err = s.store.MergeRequestByID(ctx, m.ID); err != nil {
			return body, done, err
		}
		if err := s.runAction(ctx, who, p, m, a); err != nil {
			if kind := delivery.KindOf(err); kind != delivery.InternalError {
				err = &delivery.Error{Kind: delivery.Invalid, Op: "forge: quick action", Message: "/" + a.name + ": " + delivery.UserMessage(err), Err: err}
			}
			return body, done, err
		}
		done++
	}
	return rest, done, nil
}

func (s *Service) runAction(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, a noteAction) error {
	var c MergeRequestChange
	switch a.name {
	case "approve", "unapprove":
		return s.Approve(ctx, who, p, m, "", a.name == "approve")
	case "merge":
		_, err := s.Merge(ctx, who, p, m.IID, MergeOptions{SHA: m.HeadSHA, WhenPipeline: true})
		return err
	case "rebase":
		_, err := s.RebaseMergeRequest(ctx, who, p, m.IID)
		return err
	case "close", "reopen":
		c.StateEvent = a.name
	case "draft", "ready":
		title := TitleOfDraft(m.Title, a.name == "draft")
		c.Title = &title
	case "title":
		c.Title = &a.argument
	case "target_branch":
		c.TargetBranch = &a.argument
	case "label", "unlabel", "relabel":
		c.Labels = labelsAfter(m.Labels, a)
	default:
		return s.givePeople(ctx, who, p, m, a)
	}
	_, err := s.UpdateMergeRequest(ctx, who, p, m.IID, c)
	return err
}

// labelsAfter reads ~one ~"two words" and applies the action.
func labelsAfter(have []string, a noteAction) *[]string {
	var named []string
	for _, m := range labelName.FindAllStringSubmatch(a.argument, -1) {
		named = append(named, m[1]+m[2])
	}
	out := []string{}
	switch {
	case a.name == "relabel":
		out = append(out, named...)
	case a.name == "label":
		out = append(append(out, have...), Without(named, have)...)
	case len(named) > 0: // /unlabel alone removes all
		out = append(out, Without(have, named)...)
	}
	return &out
}

// givePeople assigns, or asks for reviews: "@ann @bob" or "me".
func (s *Service) givePeople(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, a noteAction) error {
	var ids []int64
	for login := range strings.FieldsSeq(strings.ReplaceAll(a.argument, ",", " ")) {
		login = strings.TrimPrefix(login, "@")
		if login == "me" && who.User != nil {
			login = who.User.Username
		}
		u, err := s.access.UserByName(ctx, login)
		if delivery.IsNotFound(err) {
			return delivery.Errorf(delivery.Invalid, "there is no user %s", clip(login, 100))
		}
		if err != nil {
			return err
		}
		ids = append(ids, u.ID)
	}
	review := strings.Contains(a.name, "review")
	list := m.AssigneeIDs
	if review {
		list = m.ReviewerIDs
	}
	drop := strings.HasPrefix(a.name, "un") || strings.HasPrefix(a.name, "remove")
	out := []int64{}
	switch {
	case !drop && len(ids) == 0:
		return delivery.Errorf(delivery.Invalid, "it needs user names, such as @ann, or me")
	case !drop:
		out = append(append(out, list...), Without(ids, list)...)
	case len(ids) > 0:
		out = append(out, Without(list, ids)...)
	}
	c := MergeRequestChange{AssigneeIDs: &out}
	if review {
		c = MergeRequestChange{ReviewerIDs: &out}
	}
	_, err := s.UpdateMergeRequest(ctx, who, p, m.IID, c)
	return err
}
