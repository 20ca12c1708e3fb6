package forge

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// payload renders the body of a webhook for an event, in GitLab's shape
// (doc/user/project/integrations/webhook_events.md).
func (s *Service) payload(ctx context.Context, e delivery.Event) (json.RawMessage, string, error) {
	switch e.Kind {
	case delivery.EventPipelineChanged, delivery.EventJobChanged, delivery.EventDeploymentChanged:
		s.pipeMu.RLock()
		payloads := s.payloads
		s.pipeMu.RUnlock()
		if payloads == nil {
			return nil, "", nil
		}
		name, body, err := payloads.WebhookPayload(ctx, e)
		return body, name, err
	}
	p, err := s.store.ProjectByID(ctx, e.ProjectID)
	if err != nil {
		return nil, "", err
	}
	switch e.Kind {
	case delivery.EventPushed:
		var v delivery.Pushed
		if err := e.Decode(&v); err != nil {
			return nil, "", err
		}
		return s.pushPayload(ctx, p, v)
	case delivery.EventMergeRequest:
		var v delivery.MergeRequestChanged
		if err := e.Decode(&v); err != nil {
			return nil, "", err
		}
		return s.requestPayload(ctx, p, v)
	case delivery.EventNote:
		var v delivery.NoteAdded
		if err := e.Decode(&v); err != nil {
			return nil, "", err
		}
		return s.notePayload(ctx, p, v)
	case delivery.EventReleaseCreated:
		var v delivery.ReleaseCreated
		if err := e.Decode(&v); err != nil {
			return nil, "", err
		}
		return s.releasePayload(ctx, p, v)
	}
	return nil, "", nil
}

func visibilityLevel(v delivery.Visibility) int {
	return map[delivery.Visibility]int{delivery.Private: 0, delivery.Internal: 10, delivery.Public: 20}[v]
}

// HookProject is the "project" of webhook payloads, also for those of other
// stages.
func (s *Service) HookProject(p delivery.Project) map[string]any {
	ci := p.CIConfigPath
	return map[string]any{"id": p.ID, "name": p.Name, "description": p.Description, "web_url": s.WebURL(p), "avatar_url": nil, "git_ssh_url": s.SSHURL(p), "git_http_url": s.HTTPURL(p), "namespace": p.Namespace.Name,
		"visibility_level": visibilityLevel(p.Visibility), "path_with_namespace": p.FullPath, "default_branch": p.DefaultBranch, "ci_config_path": ci, "homepage": s.WebURL(p), "url": s.SSHURL(p), "ssh_url": s.SSHURL(p), "http_url": s.HTTPURL(p)}
}

// HookUser is the "user" of webhook payloads.
func (s *Service) HookUser(ctx context.Context, id int64) (map[string]any, error) {
	u, err := s.access.User(ctx, id)
	if delivery.IsNotFound(err) {
		u, err = delivery.User{ID: id, Username: "ghost", Name: "Ghost User"}, nil
	}
	return map[string]any{"id": u.ID, "name": u.Name, "username": u.Username, "avatar_url": nil, "email": "[REDACTED]"}, err
}

func (s *Service) hookRepository(p delivery.Project) map[string]any {
	return map[string]any{"name": p.Name, "url": s.SSHURL(p), "description": p.Description, "homepage": s.WebURL(p), "git_http_url": s.HTTPURL(p), "git_ssh_url": s.SSHURL(p), "visibility_level": visibilityLevel(p.Visibility)}
}

func (s *Service) hookCommit(p delivery.Project, c delivery.Commit) map[string]any {
	return map[string]any{"id": c.SHA, "message": c.Message + "\n", "title": c.Title(), "timestamp": c.Committer.When.Format(time.RFC3339), "url": s.WebURL(p) + "/-/commit/" + c.SHA,
		"author": map[string]any{"name": c.Author.Name, "email": c.Author.Email}}
}

const maxHookCommits = 20 // as GitLab; total_commits_count has the number

func (s *Service) pushPayload(ctx context.Context, p delivery.Project, v delivery.Pushed) (json.RawMessage, string, error) {
	commits, total, err := s.pushCommits(ctx, p, v)
	if err != nil {
		return nil, "", err
	}
	return s.pushBody(ctx, p, v, commits, total)
}

// PushHook returns the payload of a push and its X-Gitlab-Event for a receiver
// that decides by the changed files and would miss those beyond the first
// commits: they are all listed on one commit, the last. A new branch lists no
// commit.
func (s *Service) PushHook(ctx context.Context, p delivery.Project, v delivery.Pushed) (json.RawMessage, string, error) {
	commits := []map[string]any{}
	if v.Before != delivery.ZeroSHA && v.After != delivery.ZeroSHA {
		changes, err := s.ChangedFiles(ctx, p.ID, v.Before, v.After)
		if err != nil {
			return nil, "", err
		}
		c, err := s.Commit(ctx, p.ID, v.After)
		if err != nil {
			return nil, "", err
		}
		commits = append(commits, s.hookCommitFiles(p, c, changes))
	}
	return s.pushBody(ctx, p, v, commits, len(commits))
}

func (s *Service) pushBody(ctx context.Context, p delivery.Project, v delivery.Pushed, commits []map[string]any, total int) (json.RawMessage, string, error) {
	kind, name := "push", "Push Hook"
	if strings.HasPrefix(v.Ref, "refs/tags/") {
		kind, name = "tag_push", "Tag Push Hook"
	}
	var u delivery.User
	if v.UserID != 0 {
		var err error
		if u, err = s.access.User(ctx, v.UserID); err != nil && !delivery.IsNotFound(err) {
			return nil, "", err
		}
	}
	var checkout any = v.After
	if v.After == delivery.ZeroSHA {
		checkout = nil
	} else if sha, ok, err := s.revision(ctx, p.ID, v.After); err != nil {
		return nil, "", err
	} else if ok {
		checkout = sha
	}
	options := v.PushOptions
	if options == nil {
		options = map[string]string{}
	}
	protected, err := s.RefProtected(ctx, p.ID, v.Ref)
	if err != nil {
		return nil, "", err
	}
	body, err := json.Marshal(map[string]any{
		"object_kind": kind, "event_name": kind, "before": v.Before, "after": v.After, "ref": v.Ref, "ref_protected": protected, "checkout_sha": checkout, "message": nil,
		"user_id": u.ID, "user_name": u.Name, "user_username": u.Username, "user_email": "", "user_avatar": nil, "project_id": p.ID, "project": s.HookProject(p),
		"commits": commits, "total_commits_count": total, "push_options": options, "repository": s.hookRepository(p),
	})
	return body, name, err
}

// pushCommits lists what a push brought, oldest first, with the files of each.
func (s *Service) pushCommits(ctx context.Context, p delivery.Project, v delivery.Pushed) ([]map[string]any, int, error) {
	out := []map[string]any{}
	if v.After == delivery.ZeroSHA {
		return out, 0, nil
	}
	after, ok, err := s.revision(ctx, p.ID, v.After)
	if err != nil || !ok {
		return out, 0, err
	}
	o := LogOptions{Rev: after, Limit: 1000}
	if v.Before != delivery.ZeroSHA {
		before, ok, err := s.revision(ctx, p.ID, v.Before)
		if err != nil {
			return nil, 0, err
		}
		if ok {
			o.Not = before
		} else {
			o.Limit = maxHookCommits
		}
	} else if v.Ref != "refs/heads/"+p.DefaultBranch {
		if head, ok, err := s.revision(ctx, p.ID, "refs/heads/"+p.DefaultBranch); err != nil {
			return nil, 0, err
		} else if ok {
			o.Not = head
		}
	} else {
		o.Limit = maxHookCommits
	}
	list, err := s.Commits(ctx, p.ID, o)
	if err != nil {
		return nil, 0, err
	}
	total := len(list)
	list = list[:min(len(list), maxHookCommits)]
	slices.Reverse(list)
	for _, c := range list {
		from := ""
		if len(c.Parents) > 0 {
			from = c.Parents[0]
		}
		changes, err := s.ChangedFiles(ctx, p.ID, from, c.SHA)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, s.hookCommitFiles(p, c, changes))
	}
	return out, total, nil
}

// hookCommitFiles is a commit with the names of changed files.
func (s *Service) hookCommitFiles(p delivery.Project, c delivery.Commit, changes []delivery.FileChange) map[string]any {
	added, modified, removed := []string{}, []string{}, []string{}
	for _, f := range changes {
		switch f.Status {
		case "added", "copied":
			added = append(added, f.NewPath)
		case "deleted":
			removed = append(removed, f.OldPath)
		case "renamed":
			added, removed = append(added, f.NewPath), append(removed, f.OldPath)
		default:
			modified = append(modified, f.NewPath)
		}
	}
	shape := s.hookCommit(p, c)
	shape["added"], shape["modified"], shape["removed"] = added, modified, removed
	return shape
}

func (s *Service) requestPayload(ctx context.Context, p delivery.Project, v delivery.MergeRequestChanged) (json.RawMessage, string, error) {
	m, err := s.store.MergeRequestByID(ctx, v.ID)
	if err != nil {
		return nil, "", err
	}
	user, err := s.HookUser(ctx, v.UserID)
	if err != nil {
		return nil, "", err
	}
	attributes, err := s.requestAttributes(ctx, p, m)
	if err != nil {
		return nil, "", err
	}
	attributes["action"] = v.Action
	if v.OldSHA != "" {
		attributes["oldrev"] = v.OldSHA
	}
	lists := map[string][]map[string]any{"assignees": {}, "reviewers": {}}
	for key, ids := range map[string][]int64{"assignees": m.AssigneeIDs, "reviewers": m.ReviewerIDs} {
		for _, id := range ids {
			u, err := s.HookUser(ctx, id)
			if err != nil {
				return nil, "", err
			}
			lists[key] = append(lists[key], u)
		}
	}
	labels := []map[string]any{}
	for _, l := range m.Labels {
		labels = append(labels, map[string]any{"title": l})
	}
	body, err := json.Marshal(map[string]any{"object_kind": "merge_request", "event_type": "merge_request", "user": user, "project": s.HookProject(p), "repository": s.hookRepository(p),
		"object_attributes": attributes, "labels": labels, "changes": map[string]any{}, "assignees": lists["assignees"], "reviewers": lists["reviewers"]})
	return body, "Merge Request Hook", err
}

// requestAttributes is "object_attributes" of a merge request.
func (s *Service) requestAttributes(ctx context.Context, p delivery.Project, m delivery.MergeRequest) (map[string]any, error) {
	source := p
	if m.SourceProjectID != 0 && m.SourceProjectID != p.ID {
		var err error
		if source, err = s.store.ProjectByID(ctx, m.SourceProjectID); err != nil && !delivery.IsNotFound(err) {
			return nil, err
		}
	}
	var last any
	if c, err := s.Commit(ctx, p.ID, m.HeadSHA); err == nil {
		last = s.hookCommit(p, c)
	} else if !delivery.IsNotFound(err) {
		return nil, err
	}
	at := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t.Format("2006-01-02 15:04:05 UTC")
	}
	status := map[string]string{"mergeable": "can_be_merged", "conflict": "cannot_be_merged"}[m.MergeStatus]
	if status == "" {
		status = "unchecked"
	}
	return map[string]any{"id": m.ID, "iid": m.IID, "title": m.Title, "description": m.Description, "state": m.State, "draft": m.Draft, "work_in_progress": m.Draft, "source_branch": m.SourceBranch, "target_branch": m.TargetBranch,
		"source_project_id": m.SourceProjectID, "target_project_id": m.ProjectID, "author_id": m.AuthorID, "assignee_ids": m.AssigneeIDs, "reviewer_ids": m.ReviewerIDs, "created_at": at(m.CreatedAt), "updated_at": at(m.UpdatedAt),
		"merge_status": status, "detailed_merge_status": m.MergeStatus, "merge_commit_sha": orNull(m.MergeCommitSHA), "merge_user_id": m.MergedByID, "merge_when_pipeline_succeeds": m.AutoMerge, "blocking_discussions_resolved": true,
		"source": s.HookProject(source), "target": s.HookProject(p), "last_commit": last, "url": s.RequestURL(p, m.IID)}, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// RequestURL is the address of a merge request's page.
func (s *Service) RequestURL(p delivery.Project, iid int64) string {
	return fmt.Sprintf("%s/-/merge_requests/%d", s.WebURL(p), iid)
}

func (s *Service) notePayload(ctx context.Context, p delivery.Project, v delivery.NoteAdded) (json.RawMessage, string, error) {
	n, err := s.store.NoteByID(ctx, v.ID)
	if err != nil {
		return nil, "", err
	}
	user, err := s.HookUser(ctx, v.UserID)
	if err != nil {
		return nil, "", err
	}
	attributes := map[string]any{"id": n.ID, "note": n.Body, "noteable_type": n.NoteableType, "author_id": n.AuthorID, "created_at": n.CreatedAt.Format("2006-01-02 15:04:05 UTC"), "updated_at": n.UpdatedAt.Format("2006-01-02 15:04:05 UTC"),
		"project_id": p.ID, "commit_id": orNull(n.CommitSHA), "noteable_id": n.NoteableID, "system": n.System, "discussion_id": n.DiscussionID, "type": nil, "position": n.Position, "action": "create"}
	out := map[string]any{"object_kind": "note", "event_type": "note", "user": user, "project_id": p.ID, "project": s.HookProject(p), "repository": s.hookRepository(p), "object_attributes": attributes}
	if n.NoteableType == "MergeRequest" {
		m, err := s.store.MergeRequestByID(ctx, n.NoteableID)
		if err != nil {
			return nil, "", err
		}
		attributes["url"] = fmt.Sprintf("%s#note_%d", s.RequestURL(p, m.IID), n.ID)
		if out["merge_request"], err = s.requestAttributes(ctx, p, m); err != nil {
			return nil, "", err
		}
	} else {
		c, err := s.Commit(ctx, p.ID, n.CommitSHA)
		if err != nil {
			return nil, "", err
		}
		attributes["url"] = fmt.Sprintf("%s/-/commit/%s#note_%d", s.WebURL(p), n.CommitSHA, n.ID)
		out["commit"] = s.hookCommit(p, c)
	}
	body, err := json.Marshal(out)
	return body, "Note Hook", err
}

func (s *Service) releasePayload(ctx context.Context, p delivery.Project, v delivery.ReleaseCreated) (json.RawMessage, string, error) {
	r, err := s.store.ReleaseByTag(ctx, p.ID, v.Tag)
	if err != nil {
		return nil, "", err
	}
	var commit any
	if c, err := s.Commit(ctx, p.ID, r.SHA); err == nil {
		commit = s.hookCommit(p, c)
	}
	links := []map[string]any{}
	for _, l := range r.Links {
		links = append(links, map[string]any{"id": l.ID, "name": l.Name, "url": l.URL, "link_type": l.LinkType, "external": true})
	}
	body, err := json.Marshal(map[string]any{"object_kind": "release", "id": r.ID, "action": "create", "name": r.Name, "tag": r.Tag, "description": r.Description, "created_at": r.CreatedAt.Format("2006-01-02 15:04:05 UTC"),
		"released_at": r.ReleasedAt.Format("2006-01-02 15:04:05 UTC"), "url": s.WebURL(p) + "/-/releases/" + r.Tag, "project": s.HookProject(p), "commit": commit, "assets": map[string]any{"count": len(links), "links": links, "sources": []any{}}})
	return body, "Release Hook", err
}
