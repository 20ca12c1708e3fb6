package web

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// requestView is one merge request.
type requestView struct {
	Tab                 string // "", commits, pipelines or diffs
	Request             delivery.MergeRequest
	Link                string
	Source              *delivery.Project // nil: the fork is gone, or may not be seen
	Author, MergedBy    *delivery.User
	Assignees           []*delivery.User
	Reviewers           []reviewerView
	Body                template.HTML
	Able                forge.Mergeability
	Checks              []requestCheck
	Reason              string // why it cannot be merged
	Approvals           []*delivery.User
	ApprovalsNeeded     int
	Approved            bool // by the caller
	Threads             []threadView
	Review              reviewView
	Unresolved          int
	Commits             []delivery.Commit
	Pipelines           []pipeline.Pipeline
	Versions            []versionView
	Outdated            string // what is shown when it is not the current version
	Diff                *diffView
	Error, Draft        string // what went wrong, and the note that was typed
	MayMerge, MayEdit   bool
	MayApprove, MayNote bool
	Rebase              bool
	PipelineRuns        bool
	Squash              string // the project's option: never, always or as chosen
	Fetch               string // address of the source for a local check
	Total               struct{ Commits, Files int }
}

type reviewerView struct {
	*delivery.User
	Approved bool
}

// requestCheck is one condition of the merge.
type requestCheck struct {
	OK, Waits bool
	Aside     bool // worth knowing, but no condition here
	Text      string
}

// requestReasons word what stands between a merge request and its merge.
var requestReasons = map[string]string{
	"draft_status": "It is a draft.", "discussions_not_resolved": "There are unresolved threads.", "not_approved": "It needs more approvals.",
	"ci_must_pass": "Its pipeline must succeed.", "ci_still_running": "Its pipeline is still running.", "conflict": "It conflicts with the target branch.",
	"need_rebase": "It has to be rebased on the target branch first.", "broken_status": "Its source or target branch is gone.", "not_open": "It is not open.",
}

type requestHandler func(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error

// onRequest finds the merge request of the address.
func (s *Server) onRequest(h requestHandler) Handler {
	return func(w http.ResponseWriter, r *Request) error {
		if err := readable(r); err != nil {
			return err
		}
		name, raw := r.PathValue("iid"), ""
		for _, kind := range []string{"diff", "patch"} {
			if cut, ok := strings.CutSuffix(name, "."+kind); ok && r.Method == http.MethodGet {
				name, raw = cut, kind
				r.SetPathValue("iid", name)
			}
		}
		iid, err := number(r, "iid")
		if err != nil {
			return err
		}
		m, err := s.Forge.MergeRequest(r.Context(), r.Project.ID, iid)
		if err != nil {
			return err
		}
		if raw != "" {
			return s.rawRequest(w, r, m, raw)
		}
		return h(w, r, m)
	}
}

// requestForm handles a form of a merge request: what fails is shown on its
// page, with the note that was being written. A form on another tab says so in
// its field "tab", to come back there.
func (s *Server) requestForm(do func(r *Request, m delivery.MergeRequest) (notice string, err error)) Handler {
	return s.onRequest(func(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
		if r.Who.User == nil {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		notice, err := do(r, m)
		back := requestLink(r.Project, m.IID)
		tab := ""
		if r.FormValue("tab") == "diffs" {
			tab = "diffs"
			back += "/diffs"
		}
		if err == nil {
			if at := r.FormValue("at"); at != "" && !strings.ContainsAny(at, "/\\ ") {
				back += "#" + at
			}
			if id, ok := strings.CutPrefix(notice, "#"); ok {
				back, _, _ = strings.Cut(back, "#")
				back += "#" + id
				notice = ""
			}
			return redirect(w, r, back, notice)
		}
		kind := delivery.KindOf(err)
		switch kind {
		case delivery.Invalid, delivery.Conflict, delivery.Stalled:
			return s.showRequest(w, r, statusOf(kind), m, requestView{Tab: tab, Error: delivery.UserMessage(err), Draft: r.FormValue("note"), Review: reviewView{Summary: r.FormValue("summary")}})
		}
		return err
	})
}

func (s *Server) showRequest(w http.ResponseWriter, r *Request, status int, m delivery.MergeRequest, v requestView) error {
	ctx, p := r.Context(), r.Project
	v.Request, v.Link = m, requestLink(p, m.IID)
	users := s.people(ctx)
	if err := s.requestPeople(r, users, &v); err != nil {
		return err
	}
	if err := s.requestState(r, users, &v); err != nil {
		return err
	}
	var err error
	if v.Threads, err = s.threads(r, users, &v); err != nil {
		return err
	}
	for _, t := range v.Threads {
		if t.Resolvable && !t.Resolved {
			v.Unresolved++
		}
	}
	s.requestChecks(&v)
	switch v.Tab {
	case "commits":
		v.Commits, err = s.Forge.RequestCommits(ctx, m, 250)
	case "pipelines":
		v.Pipelines, err = s.requestPipelines(r, m)
	case "diffs":
		err = s.requestDiff(w, r, &v)
		if err == nil && v.Diff.alone(r) {
			return s.fragment(w, "forge_request", "diff", v.Diff)
		}
	default:
		v.Body = s.noteHTML(r, m.Description)
	}
	if err != nil {
		return err
	}
	return s.render(w, r, status, "forge_request", Page{Title: fmt.Sprintf("%s (!%d)", m.Title, m.IID), Active: "merge_requests", Wide: v.Tab == "diffs", Data: v})
}

// requestPeople finds who has to do with it, and where it comes from.
func (s *Server) requestPeople(r *Request, users *people, v *requestView) (err error) {
	ctx, m := r.Context(), v.Request
	if v.Author, err = users.find(m.AuthorID); err != nil {
		return err
	}
	if v.MergedBy, err = users.find(m.MergedByID); err != nil {
		return err
	}
	approvals, err := s.Forge.Approvals(ctx, m)
	if err != nil {
		return err
	}
	approved := map[int64]bool{}
	for _, a := range approvals {
		u, err := users.find(a.UserID)
		if err != nil {
			return err
		}
		approved[a.UserID] = true
		v.Approvals = append(v.Approvals, u)
		v.Approved = v.Approved || r.Who.User != nil && r.Who.User.ID == a.UserID
	}
	for _, id := range m.AssigneeIDs {
		u, err := users.find(id)
		if err != nil {
			return err
		}
		if u != nil {
			v.Assignees = append(v.Assignees, u)
		}
	}
	for _, id := range m.ReviewerIDs {
		u, err := users.find(id)
		if err != nil {
			return err
		}
		if u != nil {
			v.Reviewers = append(v.Reviewers, reviewerView{u, approved[id]})
		}
	}
	if m.SourceProjectID == m.ProjectID {
		v.Source, v.Fetch = r.Project, "origin"
		return nil
	}
	source, err := s.Forge.Project(ctx, m.SourceProjectID)
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if seen, _, err := s.Access.VisibleProject(ctx, r.Who, source.FullPath); err == nil {
		v.Source, v.Fetch = &seen, s.Forge.HTTPURL(seen)
	} else if !delivery.IsNotFound(err) && delivery.KindOf(err) != delivery.Unauthenticated {
		return err
	}
	return nil
}

// requestState finds out what stands in the way and what the caller may do.
func (s *Server) requestState(r *Request, users *people, v *requestView) error {
	ctx, p, m := r.Context(), *r.Project, v.Request
	settings, err := s.Forge.Settings(ctx, p.ID)
	if err != nil {
		return err
	}
	v.ApprovalsNeeded, v.Squash = settings.ApprovalsRequired, settings.SquashOption
	v.MayNote = r.Who.User != nil
	v.MayEdit = v.MayNote && (r.Role >= delivery.Developer || r.Who.User.ID == m.AuthorID)
	if v.Tab != "" {
		return nil // only the overview says whether it can be merged, which takes a trial merge
	}
	if v.Able, err = s.Forge.Mergeable(ctx, p, m); err != nil {
		return err
	}
	if v.Able.Status != "mergeable" {
		if v.Reason = requestReasons[v.Able.Status]; v.Reason == "" {
			v.Reason = v.Able.Status
		}
	}
	if err := s.pipelineCheck(r, settings, v); err != nil {
		return err
	}
	if r.Who.User == nil {
		return nil
	}
	v.MayApprove = m.State == "opened" && r.Role >= delivery.Developer && (v.Approved || r.Who.User.ID != m.AuthorID)
	v.Rebase = m.State == "opened" && r.Role >= delivery.Developer && v.Able.Diverged > 0
	if m.State != "opened" {
		return nil
	}
	v.MayMerge, err = s.Forge.CanMerge(ctx, r.Who, p, m.TargetBranch)
	return err
}

func (s *Server) pipelineCheck(r *Request, settings forge.ProjectSettings, v *requestView) error {
	id, status, err := s.Forge.HeadPipeline(r.Context(), r.Project.ID, v.Request.HeadSHA)
	if err != nil {
		return err
	}
	switch status {
	case "created", "waiting_for_resource", "preparing", "pending", "running":
		v.PipelineRuns = true
	}
	if !settings.PipelineMustSucceed {
		return nil
	}
	check := requestCheck{OK: status == "success" || status == "skipped", Waits: v.PipelineRuns, Text: "The pipeline must succeed"}
	switch {
	case id == 0:
		check.Text += "; there is none for the latest commit"
	case !check.OK:
		check.Text += fmt.Sprintf("; it is %s", strings.ToLower(ciWord(status)))
	}
	v.Checks = append(v.Checks, check)
	return nil
}

// requestChecks lists the conditions that count here, met or not.
func (s *Server) requestChecks(v *requestView) {
	m := v.Request
	if m.State != "opened" || v.Tab != "" {
		v.Checks = nil
		return
	}
	add := func(ok bool, text string, args ...any) {
		v.Checks = append(v.Checks, requestCheck{OK: ok, Text: fmt.Sprintf(text, args...)})
	}
	if v.Able.Status == "broken_status" {
		add(false, "The source and the target branch must exist")
		return
	}
	if m.Draft {
		add(false, "It must not be a draft")
	}
	if v.ApprovalsNeeded > 0 {
		add(len(v.Approvals) >= v.ApprovalsNeeded, "Approvals: %d of %d", len(v.Approvals), v.ApprovalsNeeded)
	}
	switch {
	case v.Able.Status == "discussions_not_resolved":
		add(false, "All threads must be resolved; %d are open", v.Unresolved)
	case v.Unresolved > 0:
		v.Checks = append(v.Checks, requestCheck{OK: true, Aside: true, Text: plural(v.Unresolved, "thread is", "threads are") + " not resolved"})
	}
	if v.Able.Status == "need_rebase" {
		add(false, "It must be rebased: %s has %s that it lacks", m.TargetBranch, plural(v.Able.Diverged, "commit", "commits"))
	}
	if len(v.Able.Conflicts) > 0 {
		add(false, "There are conflicts with %s", m.TargetBranch)
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// requestPipelines lists the pipelines of the request and of its head commits.
func (s *Server) requestPipelines(r *Request, m delivery.MergeRequest) ([]pipeline.Pipeline, error) {
	if s.Pipelines == nil {
		return nil, nil
	}
	versions, err := s.Forge.Versions(r.Context(), m)
	if err != nil {
		return nil, err
	}
	var out []pipeline.Pipeline
	seen := map[int64]bool{}
	for i, v := range versions {
		if i == 20 {
			break
		}
		list, _, err := s.Pipelines.Pipelines(r.Context(), pipeline.PipelineFilter{ProjectID: m.ProjectID, SHA: v.HeadSHA}, pipeline.Page{Limit: 20})
		if err != nil {
			return nil, err
		}
		for _, one := range list {
			if !seen[one.ID] {
				seen[one.ID] = true
				out = append(out, one)
			}
		}
	}
	slices.SortFunc(out, func(a, b pipeline.Pipeline) int { return int(b.ID - a.ID) })
	return out, nil
}

func (s *Server) stateRequest(event string) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		_, err := s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, forge.MergeRequestChange{StateEvent: event})
		return "", err
	}
}

// draftRequest marks it as a draft or as ready by its title, as GitLab does.
func (s *Server) draftRequest(draft bool) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		title := forge.TitleOfDraft(m.Title, draft)
		_, err := s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, forge.MergeRequestChange{Title: &title})
		return "", err
	}
}

func (s *Server) approveRequest(yes bool) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		if yes && r.Who.User.ID == m.AuthorID {
			return "", &delivery.Error{Kind: delivery.Invalid, Message: "Authors cannot approve their own merge requests."}
		}
		return "", s.Forge.Approve(r.Context(), r.Who, *r.Project, m, r.FormValue("sha"), yes)
	}
}

func (s *Server) mergeRequest(r *Request, m delivery.MergeRequest) (string, error) {
	squash, remove := r.FormValue("squash") != "", r.FormValue("remove_source_branch") != ""
	message := func(name string) string { return strings.ReplaceAll(r.FormValue(name), "\r\n", "\n") }
	done, err := s.Forge.Merge(r.Context(), r.Who, *r.Project, m.IID, forge.MergeOptions{SHA: r.FormValue("sha"), Message: message("merge_message"), SquashMessage: message("squash_message"),
		Squash: &squash, RemoveSourceBranch: &remove, WhenPipeline: r.FormValue("when_pipeline") != ""})
	switch {
	case err != nil:
		return "", err
	case done.State == "merged":
		return "Merged.", nil
	case done.AutoMerge:
		return "It will be merged when its pipeline succeeds.", nil
	}
	return "", nil
}

func (s *Server) rebaseRequest(r *Request, m delivery.MergeRequest) (string, error) {
	_, err := s.Forge.RebaseMergeRequest(r.Context(), r.Who, *r.Project, m.IID)
	return "The source branch is rebased.", err
}

func (s *Server) cancelAutoMerge(r *Request, m delivery.MergeRequest) (string, error) {
	no := false
	_, err := s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, forge.MergeRequestChange{AutoMerge: &no})
	return "", err
}

// revertRequest makes a branch that takes a merged request back and goes on to
// the merge request for it.
func (s *Server) revertRequest(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
	ctx, p := r.Context(), *r.Project
	sha := m.MergeCommitSHA
	if sha == "" {
		sha = m.SquashCommitSHA
	}
	if m.State != "merged" || sha == "" || r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Invalid, Message: "There is no merge commit to revert."}
	}
	branch := "revert-" + short(sha)
	if _, err := s.Forge.CreateBranch(ctx, r.Who, p, branch, "refs/heads/"+m.TargetBranch); err != nil {
		return err
	}
	if _, err := s.Forge.Pick(ctx, r.Who, p, forge.PickOptions{Commit: sha, Branch: branch, Revert: true, Message: fmt.Sprintf("Revert \"%s\"\n\nThis reverts merge request !%d", m.Title, m.IID)}); err != nil {
		if derr := s.Forge.DeleteBranch(ctx, r.Who, p, branch); derr != nil {
			s.Log.Warn("the branch of a failed revert stays", "project", p.ID, "branch", branch, "err", derr)
		}
		message, status, rest := correctable(err)
		if rest != nil {
			return rest
		}
		return s.showRequest(w, r, status, m, requestView{Error: message})
	}
	return redirect(w, r, withQuery(projectPath(p.FullPath, "merge_requests", "new"), "source_branch", branch, "target_branch", m.TargetBranch), "")
}
