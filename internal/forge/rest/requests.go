package rest

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (h *handlers) mergeRequests(rt *api.Router) {
	guest := api.Need{Role: delivery.Guest}
	rt.Handle("GET /merge_requests", api.Need{}, h.allMergeRequests)
	rt.Handle("GET /groups/{group}/merge_requests", api.Need{Anyone: true}, h.groupMergeRequests)
	rt.Handle("GET /projects/{project}/merge_requests", guest, code(h.projectMergeRequests))
	rt.Handle("POST /projects/{project}/merge_requests", api.Need{Role: delivery.Developer}, h.createMergeRequest)
	one := "/projects/{project}/merge_requests/{iid}"
	rt.Handle("GET "+one, guest, h.request(h.getMergeRequest))
	rt.Handle("PUT "+one, guest, h.request(h.updateMergeRequest))
	rt.Handle("DELETE "+one, api.Need{Role: delivery.Owner}, h.request(h.deleteMergeRequest))
	rt.Handle("PUT "+one+"/merge", guest, h.request(h.merge))
	rt.Handle("POST "+one+"/cancel_merge_when_pipeline_succeeds", guest, h.request(h.cancelAutoMerge))
	rt.Handle("PUT "+one+"/rebase", guest, h.request(h.rebase))
	rt.Handle("GET "+one+"/commits", guest, h.request(h.requestCommits))
	rt.Handle("GET "+one+"/changes", guest, h.request(h.requestChanges))
	rt.Handle("GET "+one+"/diffs", guest, h.request(h.requestDiffs))
	rt.Handle("GET "+one+"/versions", guest, h.request(h.requestVersions))
	rt.Handle("GET "+one+"/versions/{version}", guest, h.request(h.requestVersion))
	rt.Handle("GET "+one+"/raw_diffs", guest, h.request(h.requestRawDiffs))
	rt.Handle("GET "+one+"/reviewers", guest, h.request(h.reviewers))
	rt.Handle("GET "+one+"/participants", guest, h.request(h.participants))
	rt.Handle("GET "+one+"/approvals", guest, h.request(h.approvals))
	rt.Handle("POST "+one+"/approve", guest, h.request(h.approve(true)))
	rt.Handle("POST "+one+"/unapprove", guest, h.request(h.approve(false)))
}

// requestHandler answers about a merge request that the caller may read.
type requestHandler func(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error

func (h *handlers) request(fn requestHandler) api.Handler {
	return code(func(w http.ResponseWriter, r *api.Request) error {
		iid, err := pathID(r, "iid")
		if err != nil {
			return err
		}
		m, err := h.f.MergeRequest(r.Context(), r.Project.ID, iid)
		if err != nil {
			return err
		}
		return fn(w, r, m)
	})
}

func (h *handlers) requestShape(r *api.Request, p delivery.Project, m delivery.MergeRequest) (map[string]any, error) {
	ctx := r.Context()
	author, err := h.user(ctx, m.AuthorID)
	if err != nil {
		return nil, err
	}
	assignees, err := h.users(ctx, m.AssigneeIDs)
	if err != nil {
		return nil, err
	}
	reviewers, err := h.users(ctx, m.ReviewerIDs)
	if err != nil {
		return nil, err
	}
	var assignee any
	if len(assignees) > 0 {
		assignee = assignees[0]
	}
	merger, err := h.user(ctx, m.MergedByID)
	if err != nil {
		return nil, err
	}
	var mergedBy any
	if merger != nil {
		mergedBy = merger
	}
	labels := m.Labels
	if labels == nil {
		labels = []string{}
	}
	status := "unchecked"
	switch m.MergeStatus {
	case "conflict", "need_rebase", "broken_status":
		status = "cannot_be_merged"
	case "mergeable", "draft_status", "discussions_not_resolved", "not_approved", "ci_must_pass", "ci_still_running", "not_open":
		status = "can_be_merged"
	}
	var source any
	if m.SourceProjectID != 0 {
		source = m.SourceProjectID
	}
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return map[string]any{
		"id": m.ID, "iid": m.IID, "project_id": m.ProjectID, "title": m.Title, "description": m.Description, "state": m.State, "created_at": optional(m.CreatedAt), "updated_at": optional(m.UpdatedAt), "merged_by": mergedBy, "merge_user": mergedBy,
		"merged_at": optional(m.MergedAt), "closed_by": nil, "closed_at": optional(m.ClosedAt), "target_branch": m.TargetBranch, "source_branch": m.SourceBranch, "user_notes_count": 0, "upvotes": 0, "downvotes": 0,
		"author": author, "assignees": assignees, "assignee": assignee, "reviewers": reviewers, "source_project_id": source, "target_project_id": m.ProjectID, "labels": labels, "draft": m.Draft, "work_in_progress": m.Draft, "imported": false,
		"milestone": nil, "merge_when_pipeline_succeeds": m.AutoMerge, "merge_status": status, "detailed_merge_status": m.MergeStatus, "sha": m.HeadSHA, "merge_commit_sha": null(m.MergeCommitSHA), "squash_commit_sha": null(m.SquashCommitSHA),
		"discussion_locked": nil, "should_remove_source_branch": m.RemoveSourceBranch, "force_remove_source_branch": m.RemoveSourceBranch, "reference": "!" + itoa(m.IID),
		"references": map[string]string{"short": "!" + itoa(m.IID), "relative": "!" + itoa(m.IID), "full": p.FullPath + "!" + itoa(m.IID)}, "web_url": h.f.RequestURL(p, m.IID),
		"squash": m.Squash, "squash_on_merge": m.Squash, "has_conflicts": m.MergeStatus == "conflict", "blocking_discussions_resolved": m.MergeStatus != "discussions_not_resolved", "merge_error": null(m.MergeError),
		"diff_refs": map[string]any{"base_sha": m.BaseSHA, "head_sha": m.HeadSHA, "start_sha": m.StartSHA},
	}, nil
}

// live adds what is found out for a single merge request.
func (h *handlers) live(r *api.Request, m delivery.MergeRequest) (map[string]any, error) {
	able, err := h.f.Mergeable(r.Context(), r.Project, m)
	if err != nil {
		return nil, err
	}
	if m.State == "opened" {
		m.MergeStatus = able.Status
	} else {
		m.MergeStatus = "not_open"
	}
	out, err := h.requestShape(r, r.Project, m)
	if err != nil {
		return nil, err
	}
	all, _, err := h.f.Notes(r.Context(), r.Project.ID, &m, "", true, 0, 0)
	if err != nil {
		return nil, err
	}
	notes, open := 0, 0
	for _, n := range all {
		if !n.System {
			notes++
		}
		if n.Resolvable && n.ResolvedAt.IsZero() {
			open++
		}
	}
	out["blocking_discussions_resolved"] = open == 0
	out["user_notes_count"], out["has_conflicts"], out["diverged_commits_count"] = notes, len(able.Conflicts) > 0, able.Diverged
	if len(able.Conflicts) > 0 {
		out["merge_status"] = "cannot_be_merged"
	}
	may, err := h.f.CanMerge(r.Context(), r.Who, r.Project, m.TargetBranch)
	if err != nil {
		return nil, err
	}
	out["user"] = map[string]bool{"can_merge": may}
	id, status, err := h.f.HeadPipeline(r.Context(), r.Project.ID, m.HeadSHA)
	if err != nil {
		return nil, err
	}
	out["head_pipeline"], out["pipeline"] = nil, nil
	if id != 0 {
		p := map[string]any{"id": id, "project_id": r.Project.ID, "sha": m.HeadSHA, "ref": m.SourceBranch, "status": status, "web_url": h.f.WebURL(r.Project) + "/-/pipelines/" + itoa(id)}
		out["head_pipeline"], out["pipeline"] = p, p
	}
	changes, err := h.f.ChangedFiles(r.Context(), r.Project.ID, m.BaseSHA, m.HeadSHA)
	if err != nil && !delivery.IsNotFound(err) {
		return nil, err
	}
	out["changes_count"] = strconv.Itoa(len(changes))
	out["first_contribution"], out["subscribed"] = false, false
	return out, nil
}

func (h *handlers) requestFilter(r *api.Request) (forge.MergeRequestFilter, error) {
	q := r.URL.Query()
	f := forge.MergeRequestFilter{State: q.Get("state"), SourceBranch: q.Get("source_branch"), TargetBranch: q.Get("target_branch"), Search: q.Get("search"), OrderBy: q.Get("order_by"), Ascending: q.Get("sort") == "asc"}
	for _, s := range q["iids[]"] {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			f.IIDs = append(f.IIDs, n)
		}
	}
	if l := q.Get("labels"); l != "" {
		f.Labels = strings.Split(l, ",")
	}
	if d := q.Get("wip") + q.Get("draft"); d != "" {
		v := isTrue(d)
		f.Draft = &v
	}
	ids := map[string]*int64{"author": &f.AuthorID, "assignee": &f.AssigneeID, "reviewer": &f.ReviewerID}
	for name, to := range ids {
		if n, err := strconv.ParseInt(q.Get(name+"_id"), 10, 64); err == nil {
			*to = n
		}
		if login := q.Get(name + "_username"); login != "" {
			u, err := h.accounts.UserByName(r.Context(), login)
			if delivery.IsNotFound(err) {
				*to = -1
			} else if err != nil {
				return f, err
			} else {
				*to = u.ID
			}
		}
	}
	return f, nil
}

func (h *handlers) writeRequests(w http.ResponseWriter, r *api.Request, f forge.MergeRequestFilter) error {
	p := api.PageOf(r.Request)
	list, total, err := h.f.MergeRequests(r.Context(), f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	projects := map[int64]delivery.Project{r.Project.ID: r.Project}
	out := make([]map[string]any, 0, len(list))
	for _, m := range list {
		project, ok := projects[m.ProjectID]
		if !ok {
			if project, err = h.f.Project(r.Context(), m.ProjectID); err != nil {
				return err
			}
			projects[m.ProjectID] = project
		}
		shape, err := h.requestShape(r, project, m)
		if err != nil {
			return err
		}
		out = append(out, shape)
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) projectMergeRequests(w http.ResponseWriter, r *api.Request) error {
	f, err := h.requestFilter(r)
	if err != nil {
		return err
	}
	f.ProjectIDs = []int64{r.Project.ID}
	return h.writeRequests(w, r, f)
}

// readable narrows a filter to projects whose code the caller may read.
func readable(r *api.Request) *forge.ProjectFilter {
	v := forge.FilterFor(r.Who)
	v.Readable = true
	return &v
}

func (h *handlers) allMergeRequests(w http.ResponseWriter, r *api.Request) error {
	f, err := h.requestFilter(r)
	if err != nil {
		return err
	}
	f.Visible = readable(r)
	switch r.URL.Query().Get("scope") {
	case "all":
	case "assigned_to_me":
		f.AssigneeID = actor(r)
	default:
		f.AuthorID = actor(r)
	}
	return h.writeRequests(w, r, f)
}

func (h *handlers) groupMergeRequests(w http.ResponseWriter, r *api.Request) error {
	g, _, err := h.accounts.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
	if err != nil {
		return err
	}
	f, err := h.requestFilter(r)
	if err != nil {
		return err
	}
	f.Visible = readable(r)
	f.Visible.GroupID, f.Visible.Subgroups = g.ID, true
	return h.writeRequests(w, r, f)
}

type requestParams struct {
	SourceBranch    string   `json:"source_branch"`
	TargetBranch    *string  `json:"target_branch"`
	TargetProjectID int64    `json:"target_project_id"`
	Title           *string  `json:"title"`
	Description     *string  `json:"description"`
	AssigneeID      *int64   `json:"assignee_id"`
	AssigneeIDs     *[]int64 `json:"assignee_ids"`
	ReviewerIDs     *[]int64 `json:"reviewer_ids"`
	Labels          *labels  `json:"labels"`
	RemoveSource    *bool    `json:"remove_source_branch"`
	Squash          *bool    `json:"squash"`
	StateEvent      string   `json:"state_event"`
}

// labels are written as a list or as one string with commas.
type labels []string

// UnmarshalJSON reads either form.
func (l *labels) UnmarshalJSON(b []byte) error {
	s, err := strconv.Unquote(string(b))
	if err == nil {
		*l = nil
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*l = append(*l, part)
			}
		}
		return nil
	}
	var list []string
	if err := unmarshal(b, &list); err != nil {
		return err
	}
	*l = list
	return nil
}

func (p requestParams) assignees() *[]int64 {
	if p.AssigneeIDs != nil {
		return p.AssigneeIDs
	}
	if p.AssigneeID != nil {
		ids := []int64{}
		if *p.AssigneeID != 0 {
			ids = append(ids, *p.AssigneeID)
		}
		return &ids
	}
	return nil
}

// createMergeRequest is asked of the source project.
func (h *handlers) createMergeRequest(w http.ResponseWriter, r *api.Request) error {
	var p requestParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.SourceBranch == "" || p.TargetBranch == nil || p.Title == nil {
		return delivery.Errorf(delivery.Invalid, "source_branch, target_branch and title are needed")
	}
	source, target := r.Project, r.Project
	if p.TargetProjectID != 0 && p.TargetProjectID != source.ID {
		var role delivery.Role
		var err error
		if target, role, err = h.f.VisibleProject(r.Context(), r.Who, itoa(p.TargetProjectID)); err != nil {
			return err
		}
		if !forge.CanRead(target, role) {
			return forbidden()
		}
	}
	m, err := h.f.CreateMergeRequest(r.Context(), r.Who, target, forge.NewMergeRequest{SourceProject: source, SourceBranch: p.SourceBranch, TargetBranch: *p.TargetBranch, Title: *p.Title, Description: deref(p.Description),
		AssigneeIDs: deref(p.assignees()), ReviewerIDs: deref(p.ReviewerIDs), Labels: deref(p.Labels), RemoveSourceBranch: p.RemoveSource, Squash: p.Squash})
	if err != nil {
		return err
	}
	r.Project = target
	out, err := h.live(r, m)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, out)
}

func (h *handlers) writeLive(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, status int) error {
	out, err := h.live(r, m)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out)
}

func (h *handlers) getMergeRequest(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	return h.writeLive(w, r, m, http.StatusOK)
}

func (h *handlers) updateMergeRequest(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	var p requestParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	m, err := h.f.UpdateMergeRequest(r.Context(), r.Who, r.Project, m.IID, forge.MergeRequestChange{Title: p.Title, Description: p.Description, TargetBranch: p.TargetBranch, StateEvent: p.StateEvent,
		AssigneeIDs: p.assignees(), ReviewerIDs: p.ReviewerIDs, Labels: (*[]string)(p.Labels), Squash: p.Squash, RemoveSourceBranch: p.RemoveSource})
	if err != nil {
		return err
	}
	return h.writeLive(w, r, m, http.StatusOK)
}

func (h *handlers) deleteMergeRequest(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	if err := h.f.DeleteMergeRequest(r.Context(), r.Who, r.Project, m); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) merge(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	var p struct {
		Message       string `json:"merge_commit_message"`
		SquashMessage string `json:"squash_commit_message"`
		Squash        *bool  `json:"squash"`
		RemoveSource  *bool  `json:"should_remove_source_branch"`
		WhenPipeline  bool   `json:"merge_when_pipeline_succeeds"`
		AutoMerge     bool   `json:"auto_merge"`
		SHA           string `json:"sha"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	m, err := h.f.Merge(r.Context(), r.Who, r.Project, m.IID, forge.MergeOptions{SHA: p.SHA, Message: p.Message, SquashMessage: p.SquashMessage, Squash: p.Squash, RemoveSourceBranch: p.RemoveSource, WhenPipeline: p.WhenPipeline || p.AutoMerge})
	if delivery.KindOf(err) == delivery.Stalled {
		return api.WriteJSON(w, http.StatusMethodNotAllowed, map[string]string{"message": delivery.UserMessage(err)})
	}
	if err != nil {
		return err
	}
	return h.writeLive(w, r, m, http.StatusOK)
}

func (h *handlers) cancelAutoMerge(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	no := false
	m, err := h.f.UpdateMergeRequest(r.Context(), r.Who, r.Project, m.IID, forge.MergeRequestChange{AutoMerge: &no})
	if err != nil {
		return err
	}
	return h.writeLive(w, r, m, http.StatusCreated)
}

func (h *handlers) rebase(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	_, err := h.f.RebaseMergeRequest(r.Context(), r.Who, r.Project, m.IID)
	// GitLab rebases later and tells of conflicts in merge_error.
	if err != nil && delivery.KindOf(err) != delivery.Conflict {
		return err
	}
	return api.WriteJSON(w, http.StatusAccepted, map[string]bool{"rebase_in_progress": false})
}

func (h *handlers) requestCommits(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	list, err := h.f.RequestCommits(r.Context(), m, 1000)
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(list))
	for _, c := range list {
		out = append(out, h.commitShape(r.Project, c))
	}
	return paged(w, r, out)
}

func (h *handlers) requestChanges(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	out, err := h.live(r, m)
	if err != nil {
		return err
	}
	diffs, err := h.f.RequestDiff(r.Context(), m, forge.DiffLimits{})
	if err != nil {
		return err
	}
	out["changes"], out["overflow"] = diffShapes(diffs), false
	return api.WriteJSON(w, http.StatusOK, out)
}

func (h *handlers) requestDiffs(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	diffs, err := h.f.RequestDiff(r.Context(), m, forge.DiffLimits{})
	if err != nil {
		return err
	}
	return paged(w, r, diffShapes(diffs))
}

func (h *handlers) requestVersions(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	list, err := h.f.Versions(r.Context(), m)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, v := range list {
		out = append(out, versionShape(v))
	}
	return paged(w, r, out)
}

func versionShape(v forge.MergeRequestVersion) map[string]any {
	return map[string]any{"id": v.ID, "head_commit_sha": v.HeadSHA, "base_commit_sha": v.BaseSHA, "start_commit_sha": v.StartSHA, "created_at": v.CreatedAt, "merge_request_id": v.MergeRequestID, "state": "collected", "real_size": ""}
}

// requestVersion is one version with its commits and changes.
func (h *handlers) requestVersion(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	id, err := pathID(r, "version")
	if err != nil {
		return err
	}
	list, err := h.f.Versions(r.Context(), m)
	if err != nil {
		return err
	}
	for _, v := range list {
		if v.ID != id {
			continue
		}
		diffs, err := h.f.Diff(r.Context(), r.Project.ID, v.BaseSHA, v.HeadSHA, nil, forge.DiffLimits{})
		if err != nil {
			return err
		}
		commits, err := h.f.CommitsBetween(r.Context(), r.Project.ID, v.StartSHA, v.HeadSHA, 1000)
		if err != nil {
			return err
		}
		shapes := make([]map[string]any, 0, len(commits))
		for _, c := range commits {
			shapes = append(shapes, h.commitShape(r.Project, c))
		}
		out := versionShape(v)
		out["commits"], out["diffs"], out["real_size"] = shapes, diffShapes(diffs), strconv.Itoa(len(diffs))
		return api.WriteJSON(w, http.StatusOK, out)
	}
	return notFound("Version")
}

func (h *handlers) requestRawDiffs(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return h.f.RawDiff(r.Context(), r.Project.ID, m.BaseSHA, m.HeadSHA, "diff", w)
}

// reviewers are who was asked for a review, with what they said.
func (h *handlers) reviewers(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	approvals, err := h.f.Approvals(r.Context(), m)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, id := range m.ReviewerIDs {
		u, err := h.user(r.Context(), id)
		if err != nil {
			return err
		}
		state := "unreviewed"
		for _, a := range approvals {
			if a.UserID == id {
				state = "approved"
			}
		}
		out = append(out, map[string]any{"user": u, "state": state, "created_at": m.CreatedAt})
	}
	return paged(w, r, out)
}

func (h *handlers) participants(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	notes, _, err := h.f.Notes(r.Context(), r.Project.ID, &m, "", true, 0, 0)
	if err != nil {
		return err
	}
	seen := map[int64]bool{m.AuthorID: true}
	ids := []int64{m.AuthorID}
	for _, n := range notes {
		if !seen[n.AuthorID] {
			seen[n.AuthorID] = true
			ids = append(ids, n.AuthorID)
		}
	}
	out, err := h.users(r.Context(), ids)
	if err != nil {
		return err
	}
	return paged(w, r, out)
}

func (h *handlers) approvals(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
	return h.writeApprovals(w, r, m, http.StatusOK)
}

func (h *handlers) writeApprovals(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest, status int) error {
	list, err := h.f.Approvals(r.Context(), m)
	if err != nil {
		return err
	}
	set, err := h.f.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	by, mine := []map[string]any{}, false
	for _, a := range list {
		u, err := h.user(r.Context(), a.UserID)
		if err != nil {
			return err
		}
		mine = mine || a.UserID == actor(r)
		by = append(by, map[string]any{"user": u, "approved_at": a.At})
	}
	left := max(0, set.ApprovalsRequired-len(list))
	return api.WriteJSON(w, status, map[string]any{"id": m.ID, "iid": m.IID, "project_id": m.ProjectID, "title": m.Title, "description": m.Description, "state": m.State, "created_at": m.CreatedAt, "updated_at": m.UpdatedAt, "merge_status": m.MergeStatus,
		"approved": left == 0, "approvals_required": set.ApprovalsRequired, "approvals_left": left, "approved_by": by, "user_has_approved": mine, "user_can_approve": !mine && actor(r) != m.AuthorID && r.Role >= delivery.Developer})
}

func (h *handlers) approve(yes bool) requestHandler {
	return func(w http.ResponseWriter, r *api.Request, m delivery.MergeRequest) error {
		var p struct {
			SHA string `json:"sha"`
		}
		if err := api.Decode(r, &p); err != nil {
			return err
		}
		if err := h.f.Approve(r.Context(), r.Who, r.Project, m, p.SHA, yes); err != nil {
			return err
		}
		return h.writeApprovals(w, r, m, http.StatusCreated)
	}
}

func (h *handlers) commitMergeRequests(w http.ResponseWriter, r *api.Request) error {
	sha, err := h.f.ResolveRef(r.Context(), r.Project.ID, r.PathValue("sha"))
	if err != nil {
		return err
	}
	list, err := h.f.RequestsOfCommit(r.Context(), r.Project.ID, sha)
	if err != nil {
		return err
	}
	out, err := shapes(r, list, func(r *api.Request, m delivery.MergeRequest) (map[string]any, error) {
		return h.requestShape(r, r.Project, m)
	})
	if err != nil {
		return err
	}
	return paged(w, r, out)
}
