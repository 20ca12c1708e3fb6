package forge

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// pushRequests does what a push's options ask for its branches' merge requests
// (doc/topics/git/commit.md of GitLab: merge_request.create and so on) and
// returns what the person is told: addresses of merge requests, or how to open
// one. The push itself stands whatever happens here.
func (s *Service) pushRequests(ctx context.Context, who delivery.Identity, p delivery.Project, options map[string]string, done []RefUpdate) string {
	var b strings.Builder
	asked := false
	for key := range options {
		asked = asked || strings.HasPrefix(key, "merge_request.")
	}
	for _, u := range done {
		branch, ok := strings.CutPrefix(u.Ref, "refs/heads/")
		if !ok || u.New == delivery.ZeroSHA || len(done) > 10 {
			continue
		}
		list, err := s.OpenMergeRequests(ctx, p.ID, branch)
		if err == nil && asked {
			list, err = s.optionRequest(ctx, who, p, branch, options, list)
		}
		if err != nil {
			s.log.Info("push options not followed", "project", p.ID, "branch", branch, "err", err)
			fmt.Fprintf(&b, "\nWARNING: the merge request of %s: %s\n", branch, delivery.UserMessage(err))
		}
		for _, m := range list {
			target, err := s.store.ProjectByID(ctx, m.ProjectID)
			if err != nil {
				continue
			}
			fmt.Fprintf(&b, "\nView merge request for %s:\n  %s\n", branch, s.RequestURL(target, m.IID))
		}
	}
	if b.Len() > 0 {
		return b.String()
	}
	return s.pushMessage(ctx, p, done)
}

// optionRequest opens or changes the merge request of one branch.
func (s *Service) optionRequest(ctx context.Context, who delivery.Identity, p delivery.Project, branch string, options map[string]string, open []delivery.MergeRequest) ([]delivery.MergeRequest, error) {
	get := func(name string) (string, bool) { v, ok := options["merge_request."+name]; return v, ok }
	_, create := get("create")
	targetName, _ := get("target")
	target := p
	if path, ok := get("target_project"); ok {
		var err error
		var role delivery.Role
		if target, role, err = s.access.VisibleProject(ctx, who, path); err != nil {
			return open, err
		}
		if !CanRead(target, role) {
			return open, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
		}
	}
	found := slices.IndexFunc(open, func(m delivery.MergeRequest) bool {
		return m.ProjectID == target.ID && (!create || targetName == "" || m.TargetBranch == targetName)
	})
	var m delivery.MergeRequest
	switch {
	case found >= 0:
		m = open[found]
	case create:
		title := branch
		if c, err := s.Commit(ctx, p.ID, "refs/heads/"+branch); err == nil {
			title = c.Title()
		}
		made, err := s.CreateMergeRequest(ctx, who, target, NewMergeRequest{SourceProject: p, SourceBranch: branch, TargetBranch: targetName, Title: clip(title, 250)})
		if err != nil {
			return open, err
		}
		m, open = made, append(open, made)
	default:
		return open, delivery.Errorf(delivery.Invalid, "there is none; add -o merge_request.create")
	}
	change, err := s.optionChange(ctx, m, get, targetName)
	if err != nil {
		return open, err
	}
	if m, err = s.UpdateMergeRequest(ctx, who, target, m.IID, change); err != nil {
		return open, err
	}
	_, auto := get("auto_merge")
	if _, old := get("merge_when_pipeline_succeeds"); auto || old {
		_, err = s.Merge(ctx, who, target, m.IID, MergeOptions{WhenPipeline: true})
	}
	return open, err
}

// optionChange reads what the options say about a merge request's fields.
func (s *Service) optionChange(ctx context.Context, m delivery.MergeRequest, get func(string) (string, bool), target string) (MergeRequestChange, error) {
	var c MergeRequestChange
	if target != "" && target != m.TargetBranch {
		c.TargetBranch = &target
	}
	if v, ok := get("title"); ok {
		c.Title = &v
	}
	if v, ok := get("description"); ok {
		v = strings.ReplaceAll(v, `\n`, "\n")
		c.Description = &v
	}
	if _, ok := get("draft"); ok {
		title := m.Title
		if c.Title != nil {
			title = *c.Title
		}
		title = TitleOfDraft(title, true)
		c.Title = &title
	}
	yes := true
	if _, ok := get("remove_source_branch"); ok {
		c.RemoveSourceBranch = &yes
	}
	if _, ok := get("squash"); ok {
		c.Squash = &yes
	}
	labels := slices.Clone(m.Labels)
	if v, ok := get("label"); ok {
		labels = append(labels, Without(strings.Split(v, "\n"), labels)...)
	}
	if v, ok := get("unlabel"); ok {
		labels = Without(labels, strings.Split(v, "\n"))
	}
	c.Labels = &labels
	assignees := slices.Clone(m.AssigneeIDs)
	for _, name := range []string{"assign", "unassign"} {
		v, ok := get(name)
		if !ok {
			continue
		}
		for login := range strings.SplitSeq(v, "\n") {
			u, err := s.access.UserByName(ctx, strings.TrimPrefix(login, "@"))
			if delivery.IsNotFound(err) {
				return c, delivery.Errorf(delivery.Invalid, "there is no user %s", clip(login, 100))
			}
			if err != nil {
				return c, err
			}
			assignees = Without(assignees, []int64{u.ID})
			if name == "assign" {
				assignees = append(assignees, u.ID)
			}
		}
	}
	c.AssigneeIDs = &assignees
	return c, nil
}
