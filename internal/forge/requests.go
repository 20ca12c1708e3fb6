package forge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// NewMergeRequest describes a merge request to be opened.
type NewMergeRequest struct {
	SourceProject      delivery.Project
	SourceBranch       string
	TargetBranch       string // empty: the default branch
	Title              string
	Description        string
	AssigneeIDs        []int64
	ReviewerIDs        []int64
	Labels             []string
	RemoveSourceBranch *bool
	Squash             *bool
}

// isDraft reports whether a title marks a draft, as GitLab reads it.
func isDraft(title string) bool {
	low := strings.ToLower(title)
	return strings.HasPrefix(low, "draft:") || strings.HasPrefix(low, "[draft]") || strings.HasPrefix(low, "(draft)")
}

func headRef(iid int64) string { return fmt.Sprintf("refs/merge-requests/%d/head", iid) }

// CreateMergeRequest opens a merge request in the target project. The caller
// needs to be Developer of the source project and to see the target.
func (s *Service) CreateMergeRequest(ctx context.Context, who delivery.Identity, target delivery.Project, n NewMergeRequest) (delivery.MergeRequest, error) {
	var m delivery.MergeRequest
	if who.User == nil {
		return m, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	role, err := s.access.RoleIn(ctx, who, n.SourceProject)
	if err != nil {
		return m, err
	}
	if role < delivery.Developer {
		return m, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	settings, err := s.store.ProjectSettings(ctx, target.ID)
	if err != nil {
		return m, err
	}
	if settings.MergeRequestsDisabled || target.Archived {
		return m, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden - merge requests are switched off for this project"}
	}
	if !related(n.SourceProject, target) {
		return m, delivery.Errorf(delivery.Invalid, "The source project is not a fork of the target project")
	}
	if n.TargetBranch == "" {
		n.TargetBranch = target.DefaultBranch
	}
	if n.SourceProject.ID == target.ID && n.SourceBranch == n.TargetBranch {
		return m, delivery.Errorf(delivery.Invalid, "You can't use same project/branch for source and target")
	}
	head, ok, err := s.revision(ctx, n.SourceProject.ID, "refs/heads/"+n.SourceBranch)
	if err != nil {
		return m, err
	}
	if !ok {
		return m, invalidField("source_branch", "does not exist")
	}
	start, ok, err := s.revision(ctx, target.ID, "refs/heads/"+n.TargetBranch)
	if err != nil {
		return m, err
	}
	if !ok {
		return m, invalidField("target_branch", "does not exist")
	}
	open, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{target.ID}, State: "opened", SourceBranch: n.SourceBranch, TargetBranch: n.TargetBranch, SourceID: n.SourceProject.ID}, 1, 0)
	if err != nil {
		return m, err
	}
	if len(open) > 0 {
		return m, delivery.Errorf(delivery.Conflict, "Another open merge request already exists for this source branch: !%d", open[0].IID)
	}
	if err := s.bringHead(ctx, n.SourceProject.ID, target.ID, head); err != nil {
		return m, err
	}
	base, err := s.MergeBase(ctx, target.ID, start, head)
	if err != nil {
		return m, err
	}
	if err := checkTitle(n.Title); err != nil {
		return m, err
	}
	now := s.now()
	m = delivery.MergeRequest{ProjectID: target.ID, SourceProjectID: n.SourceProject.ID, SourceBranch: n.SourceBranch, TargetBranch: n.TargetBranch, Title: n.Title, Description: n.Description, State: "opened",
		Draft: isDraft(n.Title), AuthorID: who.User.ID, AssigneeIDs: n.AssigneeIDs, ReviewerIDs: n.ReviewerIDs, Labels: n.Labels, HeadSHA: head, BaseSHA: base, StartSHA: start, MergeStatus: "unchecked", CreatedAt: now, UpdatedAt: now}
	m.RemoveSourceBranch = !settings.KeepSourceBranch
	if n.RemoveSourceBranch != nil {
		m.RemoveSourceBranch = *n.RemoveSourceBranch
	}
	m.Squash = settings.SquashOption == "always" || settings.SquashOption == "default_on"
	if n.Squash != nil && settings.SquashOption != "always" && settings.SquashOption != "never" {
		m.Squash = *n.Squash
	}
	if m, err = s.store.CreateMergeRequest(ctx, m); err != nil {
		return m, err
	}
	return m, s.CreateRef(ctx, target.ID, headRef(m.IID), head)
}

// related reports whether changes may be asked from one project into another:
// itself, a fork, what it was forked from, or another fork of that.
func related(source, target delivery.Project) bool {
	return source.ID == target.ID || source.ForkedFromID == target.ID || target.ForkedFromID == source.ID || source.ForkedFromID != 0 && source.ForkedFromID == target.ForkedFromID
}

// CompareForks finds what a merge of a branch of one project into a branch of
// another would be made of: their merge base, the target's tip and the head,
// all present in the source project. The caller must be able to push there and
// to read the target.
func (s *Service) CompareForks(ctx context.Context, source delivery.Project, branch string, target delivery.Project, into string) (base, start, head string, err error) {
	if !related(source, target) {
		return "", "", "", delivery.Errorf(delivery.Invalid, "The source project is not a fork of the target project")
	}
	missing := func(p delivery.Project, name string) error {
		return &delivery.Error{Kind: delivery.NotFound, Message: "There is no branch " + clip(name, 200) + " in " + p.FullPath + "."}
	}
	head, ok, err := s.revision(ctx, source.ID, "refs/heads/"+branch)
	if err == nil && !ok {
		err = missing(source, branch)
	}
	if err != nil {
		return "", "", "", err
	}
	start, ok, err = s.revision(ctx, target.ID, "refs/heads/"+into)
	if err == nil && !ok {
		err = missing(target, into)
	}
	if err != nil {
		return "", "", "", err
	}
	if err := s.bringHead(ctx, target.ID, source.ID, start); err != nil {
		return "", "", "", err
	}
	base, err = s.MergeBase(ctx, source.ID, start, head)
	return base, start, head, err
}

// TitleOfDraft adds the mark of a draft to a title, or removes it.
func TitleOfDraft(title string, draft bool) string {
	for isDraft(title) {
		low := strings.ToLower(title)
		for _, mark := range []string{"draft:", "[draft]", "(draft)"} {
			if strings.HasPrefix(low, mark) {
				title = strings.TrimSpace(title[len(mark):])
				break
			}
		}
	}
	if draft {
		return "Draft: " + title
	}
	return title
}

func checkTitle(title string) error {
	if strings.TrimSpace(title) == "" {
		return invalidField("title", "can't be blank")
	}
	if len(title) > 255 {
		return invalidField("title", "is too long (maximum is 255 characters)")
	}
	return nil
}

// bringHead copies the objects of a commit from a fork into the target.
func (s *Service) bringHead(ctx context.Context, from, to int64, sha string) error {
	if from == to {
		return nil
	}
	_, err := s.git.run(ctx, s.RepositoryPath(to), nil, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", s.RepositoryPath(from), sha)
	if err != nil {
		return fmt.Errorf("forge: copy from fork: %w", err)
	}
	return nil
}

// MergeRequest returns a merge request by its number in the project.
func (s *Service) MergeRequest(ctx context.Context, projectID, iid int64) (delivery.MergeRequest, error) {
	return s.store.MergeRequestByIID(ctx, projectID, iid)
}

// MergeRequestByID returns a merge request by its id.
func (s *Service) MergeRequestByID(ctx context.Context, id int64) (delivery.MergeRequest, error) {
	return s.store.MergeRequestByID(ctx, id)
}

// MergeRequests lists merge requests.
func (s *Service) MergeRequests(ctx context.Context, f MergeRequestFilter, limit, offset int) ([]delivery.MergeRequest, int, error) {
	return s.store.MergeRequests(ctx, f, limit, offset)
}

// OpenMergeRequests lists the open merge requests of a source branch, for
// CI_OPEN_MERGE_REQUESTS.
func (s *Service) OpenMergeRequests(ctx context.Context, sourceProjectID int64, branch string) ([]delivery.MergeRequest, error) {
	list, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{SourceID: sourceProjectID, SourceBranch: branch, State: "opened"}, 0, 0)
	return list, err
}

// Mergeability is what stands between a merge request and its merge.
type Mergeability struct {
	Status    string // detailed_merge_status of GitLab; mergeable when nothing does
	Conflicts []string
	Diverged  int // commits that the target has and the source has not
}

// Mergeable finds out whether a merge request can be merged, and what is in
// the way.
func (s *Service) Mergeable(ctx context.Context, p delivery.Project, m delivery.MergeRequest) (Mergeability, error) {
	out := Mergeability{Status: "not_open"}
	if m.State != "opened" {
		return out, nil
	}
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return out, err
	}
	start, ok, err := s.revision(ctx, p.ID, "refs/heads/"+m.TargetBranch)
	if err != nil {
		return out, err
	}
	_, haveSource, err := s.sourceHead(ctx, m)
	if err != nil {
		return out, err
	}
	if !ok || !haveSource {
		out.Status = "broken_status"
		return out, nil
	}
	if _, out.Conflicts, err = s.mergeTree(ctx, p.ID, start, m.HeadSHA); err != nil {
		return out, err
	}
	if out.Diverged, _, err = s.Divergence(ctx, p.ID, start, m.HeadSHA); err != nil {
		return out, err
	}
	out.Status, err = s.gate(ctx, p, m, settings)
	if err != nil || out.Status != "" {
		return out, err
	}
	switch {
	case len(out.Conflicts) > 0:
		out.Status = "conflict"
	case out.Diverged > 0 && (settings.MergeMethod == "ff" && !m.Squash || settings.MergeMethod == "rebase_merge"):
		out.Status = "need_rebase"
	default:
		out.Status = "mergeable"
	}
	return out, nil
}

// gate checks the project's conditions; "" when all are met.
func (s *Service) gate(ctx context.Context, p delivery.Project, m delivery.MergeRequest, settings ProjectSettings) (string, error) {
	if m.Draft {
		return "draft_status", nil
	}
	if settings.DiscussionsMustBeResolved {
		n, err := s.store.Unresolved(ctx, m.ID)
		if err != nil {
			return "", err
		}
		if n > 0 {
			return "discussions_not_resolved", nil
		}
	}
	if settings.ApprovalsRequired > 0 {
		list, err := s.store.Approvals(ctx, m.ID)
		if err != nil {
			return "", err
		}
		if len(list) < settings.ApprovalsRequired {
			return "not_approved", nil
		}
	}
	if settings.PipelineMustSucceed {
		id, status, err := s.headPipeline(ctx, p.ID, m.HeadSHA)
		if err != nil {
			return "", err
		}
		switch {
		case id != 0 && (status == "success" || status == "skipped"):
		case status == "running" || status == "pending" || status == "created" || status == "preparing" || status == "waiting_for_resource":
			return "ci_still_running", nil
		default:
			return "ci_must_pass", nil
		}
	}
	return "", nil
}

// sourceHead returns the tip of the source branch now.
func (s *Service) sourceHead(ctx context.Context, m delivery.MergeRequest) (string, bool, error) {
	if m.SourceProjectID == 0 {
		return "", false, nil
	}
	return s.RefExists(ctx, m.SourceProjectID, "refs/heads/"+m.SourceBranch)
}

// CanMerge reports whether the caller's role allows merging into the branch.
func (s *Service) CanMerge(ctx context.Context, who delivery.Identity, p delivery.Project, branch string) (bool, error) {
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil || role < delivery.Developer || p.Archived || who.Kind == delivery.JobToken {
		return false, err
	}
	rules, err := s.store.Protections(ctx, p.ID)
	if err != nil {
		return false, err
	}
	rule, protected := effective(rules, false, branch)
	if !protected {
		return true, nil
	}
	may := func(need delivery.Role) bool { return need != Nobody && role >= need }
	return may(rule.MergeRole) || may(rule.PushRole), nil
}

// MergeOptions say how to merge.
type MergeOptions struct {
	SHA                string // must be the head, when set
	Message            string // of the merge commit
	SquashMessage      string
	Squash             *bool
	RemoveSourceBranch *bool
	WhenPipeline       bool // as soon as the head's pipeline has succeeded
}

var mergeRefusals = map[string]string{
	"draft_status": "it is a draft", "discussions_not_resolved": "there are unresolved threads", "not_approved": "it needs more approvals", "ci_must_pass": "its pipeline has not succeeded", "ci_still_running": "its pipeline is still running",
	"conflict": "it has conflicts with the target branch", "need_rebase": "it has to be rebased first", "not_open": "it is not open", "broken_status": "its source or target branch is missing",
}

// Merge merges a merge request. The error is of kind Forbidden where the
// caller may not, Conflict where the head is another one, and Stalled (405 in
// the API) where something is in the way.
func (s *Service) Merge(ctx context.Context, who delivery.Identity, p delivery.Project, iid int64, o MergeOptions) (delivery.MergeRequest, error) {
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return delivery.MergeRequest{}, err
	}
	defer unlock()
	m, err := s.store.MergeRequestByIID(ctx, p.ID, iid)
	if err != nil {
		return m, err
	}
	may, err := s.CanMerge(ctx, who, p, m.TargetBranch)
	if err != nil {
		return m, err
	}
	if !may || who.User == nil {
		return m, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden - you are not allowed to merge into " + m.TargetBranch}
	}
	if m, err = s.refresh(ctx, p, m); err != nil {
		return m, err
	}
	if o.SHA != "" && o.SHA != m.HeadSHA {
		return m, delivery.Errorf(delivery.Conflict, "SHA does not match HEAD of source branch: %s", m.HeadSHA)
	}
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return m, err
	}
	switch {
	case settings.SquashOption == "always" || settings.SquashOption == "never":
		m.Squash = settings.SquashOption == "always"
	case o.Squash != nil:
		m.Squash = *o.Squash
	}
	if o.RemoveSourceBranch != nil {
		m.RemoveSourceBranch = *o.RemoveSourceBranch
	}
	able, err := s.Mergeable(ctx, p, m)
	if err != nil {
		return m, err
	}
	if o.WhenPipeline && m.State == "opened" && len(able.Conflicts) == 0 {
		id, status, err := s.headPipeline(ctx, p.ID, m.HeadSHA)
		if err != nil {
			return m, err
		}
		if id != 0 && !finished(status) {
			before := m
			m.AutoMerge, m.MergedByID = true, who.User.ID
			if err := s.store.UpdateMergeRequest(ctx, m, "update", who.User.ID, ""); err != nil {
				return m, err
			}
			return m, s.noteChanges(ctx, before, m, who.User.ID)
		}
	}
	if able.Status != "mergeable" {
		return m, &delivery.Error{Kind: delivery.Stalled, Op: "forge: merge", Message: "405 Method Not Allowed - the merge request cannot be merged: " + mergeRefusals[able.Status]}
	}
	return s.doMerge(ctx, who, p, m, o)
}

func finished(status string) bool {
	return slices.Contains([]string{"success", "failed", "canceled", "skipped"}, status)
}

func (s *Service) doMerge(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, o MergeOptions) (delivery.MergeRequest, error) {
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return m, err
	}
	ref := "refs/heads/" + m.TargetBranch
	target, ok, err := s.RefExists(ctx, p.ID, ref)
	if err != nil || !ok {
		return m, refGone(err, m.TargetBranch)
	}
	tree, conflicts, err := s.mergeTree(ctx, p.ID, target, m.HeadSHA)
	if err != nil || len(conflicts) > 0 {
		return m, refGone(err, m.TargetBranch)
	}
	committer := s.signatureOf(who)
	source := m.HeadSHA
	if m.Squash {
		author := committer
		if u, err := s.access.User(ctx, m.AuthorID); err == nil {
			author.Name, author.Email = u.Name, u.Email
		}
		message := o.SquashMessage
		if message == "" {
			message = m.Title
		}
		parent, squashTree := m.BaseSHA, ""
		if settings.MergeMethod == "ff" || parent == "" {
			parent, squashTree = target, tree
		} else {
			head, err := s.Commit(ctx, p.ID, m.HeadSHA)
			if err != nil {
				return m, err
			}
			squashTree = head.Tree
		}
		if source, err = s.writeCommit(ctx, p.ID, squashTree, []string{parent}, author, committer, message); err != nil {
			return m, err
		}
		m.SquashCommitSHA = source
	}
	result := source
	if settings.MergeMethod != "ff" {
		message := o.Message
		if message == "" {
			message = fmt.Sprintf("Merge branch '%s' into '%s'\n\n%s\n\nSee merge request %s!%d", m.SourceBranch, m.TargetBranch, m.Title, p.FullPath, m.IID)
		}
		if result, err = s.writeCommit(ctx, p.ID, tree, []string{target, source}, committer, committer, message); err != nil {
			return m, err
		}
		m.MergeCommitSHA = result
	}
	if err := s.updateRefs(ctx, p.ID, who, []RefUpdate{{Ref: ref, Old: target, New: result}}, nil); err != nil {
		return m, err
	}
	m.State, m.MergeStatus, m.MergeError, m.AutoMerge = "merged", "mergeable", "", false
	m.MergedByID, m.MergedAt = who.User.ID, s.now()
	after := context.WithoutCancel(ctx)
	if err := s.store.UpdateMergeRequest(after, m, "merge", who.User.ID, ""); err != nil {
		return m, err
	}
	if err := s.systemNote(after, m, who.User.ID, "merged"); err != nil {
		s.log.Warn("the note of a merge is missing", "project", m.ProjectID, "request", m.IID, "err", err)
	}
	if m.RemoveSourceBranch {
		s.removeSource(after, who, m)
	}
	return m, nil
}

func refGone(err error, branch string) error {
	if err != nil {
		return err
	}
	return delivery.Errorf(delivery.Conflict, "The branch %s changed in the meantime; try again.", branch)
}

// removeSource deletes the source branch of a merged request where the caller
// may; the merge stands whether or not that works.
func (s *Service) removeSource(ctx context.Context, who delivery.Identity, m delivery.MergeRequest) {
	source, err := s.store.ProjectByID(ctx, m.SourceProjectID)
	if err == nil {
		tip, ok, terr := s.RefExists(ctx, source.ID, "refs/heads/"+m.SourceBranch)
		protected, perr := s.BranchProtected(ctx, source.ID, m.SourceBranch)
		if terr != nil || perr != nil || !ok || protected || tip != m.HeadSHA {
			return
		}
		err = s.deleteRef(ctx, who, source, "refs/heads/"+m.SourceBranch, "")
	}
	if err != nil && !delivery.IsNotFound(err) {
		s.log.Warn("source branch not removed", "project", m.SourceProjectID, "request", m.IID, "err", err)
	}
}

// refresh brings a merge request up to its source branch's tip.
func (s *Service) refresh(ctx context.Context, p delivery.Project, m delivery.MergeRequest) (delivery.MergeRequest, error) {
	if m.State != "opened" {
		return m, nil
	}
	head, ok, err := s.sourceHead(ctx, m)
	if err != nil || !ok || head == m.HeadSHA {
		return m, err
	}
	return s.moveHead(ctx, p, m, head, m.AuthorID)
}

// moveHead notes a new tip of the source branch: a new version, and approvals
// that no longer hold.
func (s *Service) moveHead(ctx context.Context, p delivery.Project, m delivery.MergeRequest, head string, userID int64) (delivery.MergeRequest, error) {
	if err := s.bringHead(ctx, m.SourceProjectID, p.ID, head); err != nil {
		return m, err
	}
	if err := s.CreateRef(ctx, p.ID, headRef(m.IID), head); err != nil {
		return m, err
	}
	start, ok, err := s.revision(ctx, p.ID, "refs/heads/"+m.TargetBranch)
	if err != nil {
		return m, err
	}
	if !ok {
		start = m.StartSHA
	}
	base, err := s.MergeBase(ctx, p.ID, start, head)
	if err != nil {
		return m, err
	}
	old := m.HeadSHA
	m.HeadSHA, m.StartSHA, m.BaseSHA, m.MergeStatus, m.AutoMerge = head, start, base, "unchecked", false
	if err := s.store.AddVersion(ctx, MergeRequestVersion{MergeRequestID: m.ID, HeadSHA: head, BaseSHA: base, StartSHA: start, CreatedAt: s.now()}); err != nil {
		return m, err
	}
	if err := s.store.ClearApprovals(ctx, m.ID); err != nil {
		return m, err
	}
	if err := s.retrace(ctx, m); err != nil {
		return m, err
	}
	if err := s.store.UpdateMergeRequest(ctx, m, "update", userID, old); err != nil {
		return m, err
	}
	return m, s.notePush(ctx, m, old, userID)
}

// MergeRequestChange changes a merge request; nil fields stay.
type MergeRequestChange struct {
	Title, Description, TargetBranch *string
	StateEvent                       string // close or reopen
	AssigneeIDs, ReviewerIDs         *[]int64
	Labels                           *[]string
	Squash, RemoveSourceBranch       *bool
	AutoMerge                        *bool // only false: cancel
}

// UpdateMergeRequest changes a merge request on behalf of the caller: its
// author, or a Developer of the project.
func (s *Service) UpdateMergeRequest(ctx context.Context, who delivery.Identity, p delivery.Project, iid int64, c MergeRequestChange) (delivery.MergeRequest, error) {
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return delivery.MergeRequest{}, err
	}
	defer unlock()
	m, err := s.store.MergeRequestByIID(ctx, p.ID, iid)
	if err != nil {
		return m, err
	}
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil {
		return m, err
	}
	if who.User == nil || role < delivery.Developer && who.User.ID != m.AuthorID {
		return m, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	action, before := "update", m
	if c.Title != nil {
		if err := checkTitle(*c.Title); err != nil {
			return m, err
		}
		m.Title, m.Draft = *c.Title, isDraft(*c.Title)
	}
	if c.Description != nil {
		m.Description = *c.Description
	}
	if c.TargetBranch != nil && *c.TargetBranch != m.TargetBranch {
		start, ok, err := s.revision(ctx, p.ID, "refs/heads/"+*c.TargetBranch)
		if err != nil {
			return m, err
		}
		if !ok {
			return m, invalidField("target_branch", "does not exist")
		}
		m.TargetBranch, m.StartSHA = *c.TargetBranch, start
		if m.BaseSHA, err = s.MergeBase(ctx, p.ID, start, m.HeadSHA); err != nil {
			return m, err
		}
		if err := s.store.AddVersion(ctx, MergeRequestVersion{MergeRequestID: m.ID, HeadSHA: m.HeadSHA, BaseSHA: m.BaseSHA, StartSHA: start, CreatedAt: s.now()}); err != nil {
			return m, err
		}
		if err := s.retrace(ctx, m); err != nil {
			return m, err
		}
	}
	if c.AssigneeIDs != nil {
		m.AssigneeIDs = *c.AssigneeIDs
	}
	if c.ReviewerIDs != nil {
		m.ReviewerIDs = *c.ReviewerIDs
	}
	if c.Labels != nil {
		m.Labels = *c.Labels
	}
	if c.Squash != nil {
		m.Squash = *c.Squash
	}
	if c.RemoveSourceBranch != nil {
		m.RemoveSourceBranch = *c.RemoveSourceBranch
	}
	if c.AutoMerge != nil && !*c.AutoMerge {
		m.AutoMerge, m.MergedByID = false, 0
	}
	switch {
	case c.StateEvent == "close" && m.State == "opened":
		m.State, m.ClosedAt, m.AutoMerge, action = "closed", s.now(), false, "close"
	case c.StateEvent == "reopen" && m.State == "closed":
		m.State, m.ClosedAt, action = "opened", time.Time{}, "reopen"
	}
	if err := s.store.UpdateMergeRequest(ctx, m, action, who.User.ID, ""); err != nil {
		return m, err
	}
	if err := s.noteChanges(ctx, before, m, who.User.ID); err != nil {
		return m, err
	}
	return s.store.MergeRequestByID(ctx, m.ID)
}

// RebaseMergeRequest replays the source branch on top of the target branch.
func (s *Service) RebaseMergeRequest(ctx context.Context, who delivery.Identity, p delivery.Project, iid int64) (delivery.MergeRequest, error) {
	m, err := s.store.MergeRequestByIID(ctx, p.ID, iid)
	if err != nil {
		return m, err
	}
	if m.State != "opened" || m.SourceProjectID == 0 {
		return m, delivery.Errorf(delivery.Invalid, "The merge request is not open.")
	}
	source, err := s.store.ProjectByID(ctx, m.SourceProjectID)
	if err != nil {
		return m, err
	}
	unlock, err := s.locks.lock(ctx, source.ID)
	if err != nil {
		return m, err
	}
	defer unlock()
	target, ok, err := s.revision(ctx, p.ID, "refs/heads/"+m.TargetBranch)
	if err != nil || !ok {
		return m, refGone(err, m.TargetBranch)
	}
	tip, ok, err := s.sourceHead(ctx, m)
	if err != nil || !ok {
		return m, refGone(err, m.SourceBranch)
	}
	ref := "refs/heads/" + m.SourceBranch
	if err := s.authorizeUpdates(ctx, who, source, []RefUpdate{{Ref: ref, Old: tip, New: tip}}, nil, true); err != nil {
		return m, err
	}
	if err := s.bringHead(ctx, p.ID, source.ID, target); err != nil {
		return m, err
	}
	next, conflicts, err := s.rebase(ctx, source.ID, tip, target, s.signatureOf(who))
	if err != nil {
		return m, err
	}
	if len(conflicts) > 0 {
		m.MergeError = "Rebase failed: conflicts in " + clip(strings.Join(conflicts, ", "), 300) + ". Rebase locally, resolve them and push the branch."
		if err := s.store.SetMergeStatus(ctx, m.ID, "conflict", m.MergeError); err != nil {
			return m, err
		}
		return m, delivery.Errorf(delivery.Conflict, "%s", m.MergeError)
	}
	if next == tip {
		return m, nil
	}
	if err := s.updateRefs(ctx, source.ID, who, []RefUpdate{{Ref: ref, Old: tip, New: next}}, nil); err != nil {
		return m, err
	}
	return s.moveHead(ctx, p, m, next, actorOf(who))
}

func actorOf(who delivery.Identity) int64 {
	if who.User != nil {
		return who.User.ID
	}
	return 0
}

// Approve approves a merge request, or takes the approval back. Authors cannot
// approve their own.
func (s *Service) Approve(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, sha string, approve bool) error {
	if err := s.mayApprove(ctx, who, p, m, sha, approve); err != nil {
		return err
	}
	list, err := s.store.Approvals(ctx, m.ID)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(a Approval) bool { return a.UserID == who.User.ID }) == approve {
		return nil
	}
	if err := s.store.SetApproval(ctx, m, who.User.ID, approve); err != nil {
		return err
	}
	verb := "approved"
	if !approve {
		verb = "unapproved"
	}
	return s.systemNote(ctx, m, who.User.ID, verb+" this merge request")
}

// mayApprove refuses who may not approve, and an approval of another version.
func (s *Service) mayApprove(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest, sha string, approve bool) error {
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil {
		return err
	}
	if who.User == nil || role < delivery.Developer || who.User.ID == m.AuthorID && approve {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "401 Unauthorized"}
	}
	if sha != "" && sha != m.HeadSHA {
		return delivery.Errorf(delivery.Conflict, "SHA does not match HEAD of source branch: %s", m.HeadSHA)
	}
	return nil
}

// Approvals lists who approved a merge request.
func (s *Service) Approvals(ctx context.Context, m delivery.MergeRequest) ([]Approval, error) {
	return s.store.Approvals(ctx, m.ID)
}

// Versions lists what a merge request looked like, newest first.
func (s *Service) Versions(ctx context.Context, m delivery.MergeRequest) ([]MergeRequestVersion, error) {
	return s.store.Versions(ctx, m.ID)
}

// DeleteMergeRequest removes a merge request and its notes.
func (s *Service) DeleteMergeRequest(ctx context.Context, who delivery.Identity, p delivery.Project, m delivery.MergeRequest) error {
	if err := s.store.DeleteMergeRequest(ctx, m.ID); err != nil {
		return err
	}
	s.access.Audit(ctx, who, "merge_request.deleted", "project", p.ID, fmt.Sprintf("!%d", m.IID), m.Title)
	return s.DeleteRef(ctx, p.ID, headRef(m.IID))
}

// RequestCommits lists the commits of a merge request, newest first.
func (s *Service) RequestCommits(ctx context.Context, m delivery.MergeRequest, limit int) ([]delivery.Commit, error) {
	not := m.StartSHA
	if m.State == "merged" && m.BaseSHA != "" {
		not = m.BaseSHA
	}
	return s.Commits(ctx, m.ProjectID, LogOptions{Rev: m.HeadSHA, Not: not, Limit: limit})
}

// RequestDiff returns the changes of a merge request: from the merge base to
// the head.
func (s *Service) RequestDiff(ctx context.Context, m delivery.MergeRequest, l DiffLimits) ([]FileDiff, error) {
	return s.Diff(ctx, m.ProjectID, m.BaseSHA, m.HeadSHA, nil, l)
}
