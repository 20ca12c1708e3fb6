package web

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const requestsOnPage = 30

func (s *Server) requestRoutes() {
	guest, developer := delivery.Guest, delivery.Developer
	s.handleProject("GET /merge_requests", guest, s.requestsPage)
	s.handleProject("GET /merge_requests/new", developer, s.newRequestPage)
	s.handleProject("POST /merge_requests", developer, s.createRequest)
	one := "/merge_requests/{iid}"
	for _, tab := range []string{"", "commits", "diffs"} {
		s.handleProject("GET "+strings.TrimSuffix(one+"/"+tab, "/"), guest, s.onRequest(func(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
			return s.showRequest(w, r, http.StatusOK, m, requestView{Tab: tab})
		}))
	}
	s.handleProject("POST "+one, guest, s.requestForm(s.updateRequest))
	s.handleProject("POST "+one+"/approve", developer, s.requestForm(s.approveRequest(true)))
	s.handleProject("POST "+one+"/unapprove", developer, s.requestForm(s.approveRequest(false)))
	s.handleProject("POST "+one+"/merge", developer, s.requestForm(s.mergeRequest))
	s.handleProject("POST "+one+"/rebase", developer, s.requestForm(s.rebaseRequest))
	s.handleProject("POST "+one+"/cancel_auto_merge", developer, s.requestForm(s.cancelAutoMerge))
	s.handleProject("POST "+one+"/close", guest, s.requestForm(s.stateRequest("close")))
	s.handleProject("POST "+one+"/reopen", guest, s.requestForm(s.stateRequest("reopen")))
	s.handleProject("POST "+one+"/notes", guest, s.requestForm(s.addNote))
	s.handleProject("POST "+one+"/discussions/{discussion}/resolve", guest, s.requestForm(s.resolveThread(true)))
	s.handleProject("POST "+one+"/discussions/{discussion}/unresolve", guest, s.requestForm(s.resolveThread(false)))
}

// requestsView lists merge requests.
type requestsView struct {
	Rows          []requestRow
	State, Search string
	Total         int
	Prev, Next    string
	MayNew        bool
}

type requestRow struct {
	delivery.MergeRequest
	Author *delivery.User
	Link   string
}

func requestLink(p *delivery.Project, iid int64) string {
	return projectPath(p.FullPath, "merge_requests", strconv.FormatInt(iid, 10))
}

func (s *Server) requestsPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	v := requestsView{State: r.FormValue("state"), Search: r.FormValue("search"), MayNew: r.Role >= delivery.Developer && r.Who.User != nil}
	f := forge.MergeRequestFilter{ProjectIDs: []int64{r.Project.ID}, Search: v.Search}
	switch v.State {
	case "closed", "merged":
		f.State = v.State
	case "all":
	default:
		v.State, f.State = "opened", "opened"
	}
	page := pageNumber(r)
	list, total, err := s.Forge.MergeRequests(r.Context(), f, requestsOnPage, (page-1)*requestsOnPage)
	if err != nil {
		return err
	}
	users := s.people(r.Context())
	for _, m := range list {
		row := requestRow{MergeRequest: m, Link: requestLink(r.Project, m.IID)}
		if row.Author, err = users.find(m.AuthorID); err != nil {
			return err
		}
		v.Rows = append(v.Rows, row)
	}
	v.Total = total
	v.Prev, v.Next = pagerLinks(r, page, page*requestsOnPage < total)
	return s.render(w, r, http.StatusOK, "forge_requests", Page{Title: "Merge requests", Active: "merge_requests", Data: v})
}

// newRequestView is the form of a new merge request, with what it would merge.
type newRequestView struct {
	Source, Target     string
	Title, Description string
	Squash, Remove     bool
	Branches           []delivery.Ref
	Commits            []delivery.Commit
	Files              []fileDiff
	Error              string
}

func (s *Server) newRequestPage(w http.ResponseWriter, r *Request) error {
	v := newRequestView{Source: r.FormValue("source_branch"), Target: r.FormValue("target_branch"), Remove: true}
	return s.showNewRequest(w, r, http.StatusOK, v)
}

func (s *Server) showNewRequest(w http.ResponseWriter, r *Request, status int, v newRequestView) error {
	ctx, p := r.Context(), r.Project
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Sign in as a person to ask for a merge."}
	}
	var err error
	if v.Branches, err = s.Forge.Branches(ctx, *p, forge.RefOptions{Sort: "updated"}); err != nil {
		return err
	}
	if v.Target == "" {
		v.Target = p.DefaultBranch
	}
	if v.Source != "" && v.Source != v.Target {
		err := s.previewRequest(ctx, p, &v)
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
		if err != nil && v.Error == "" {
			v.Error, status = "One of the branches does not exist.", http.StatusUnprocessableEntity
		}
	}
	return s.render(w, r, status, "forge_newrequest", Page{Title: "New merge request", Active: "merge_requests", Data: v})
}

func (s *Server) previewRequest(ctx context.Context, p *delivery.Project, v *newRequestView) error {
	source, target := "refs/heads/"+v.Source, "refs/heads/"+v.Target
	base, err := s.Forge.MergeBase(ctx, p.ID, target, source)
	if err != nil {
		return err
	}
	if v.Commits, err = s.Forge.CommitsBetween(ctx, p.ID, target, source, 250); err != nil {
		return err
	}
	files, err := s.Forge.Diff(ctx, p.ID, base, source, nil, forge.DiffLimits{})
	if err != nil {
		return err
	}
	v.Files = diffFiles(files)
	if v.Title == "" && v.Description == "" {
		v.Title = strings.ReplaceAll(strings.ReplaceAll(v.Source, "-", " "), "_", " ")
		if len(v.Commits) == 1 {
			c := v.Commits[0]
			v.Title, v.Description = c.Title(), strings.TrimSpace(strings.TrimPrefix(c.Message, c.Title()))
		}
	}
	return nil
}

func (s *Server) createRequest(w http.ResponseWriter, r *Request) error {
	v := newRequestView{Source: r.FormValue("source_branch"), Target: r.FormValue("target_branch"), Title: r.FormValue("title"), Description: r.FormValue("description"),
		Squash: r.FormValue("squash") != "", Remove: r.FormValue("remove_source_branch") != ""}
	m, err := s.Forge.CreateMergeRequest(r.Context(), r.Who, *r.Project, forge.NewMergeRequest{SourceProject: *r.Project, SourceBranch: v.Source, TargetBranch: v.Target,
		Title: v.Title, Description: v.Description, Squash: &v.Squash, RemoveSourceBranch: &v.Remove})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showNewRequest(w, r, status, v)
	}
	return redirect(w, r, requestLink(r.Project, m.IID), "")
}

// requestView is one merge request.
type requestView struct {
	Tab                         string // "", commits or diffs
	Request                     delivery.MergeRequest
	Link                        string
	Author, MergedBy            *delivery.User
	Body                        template.HTML
	Able                        forge.Mergeability
	Reason                      string // why it cannot be merged
	Approvals                   []*delivery.User
	Approved                    bool // by the caller
	Threads                     []threadView
	Commits                     []delivery.Commit
	Files                       []fileDiff
	Error, Draft                string // what went wrong, and the note that was typed
	MayMerge, MayEdit           bool
	MayApprove, MayNote, Rebase bool
	PipelineRuns                bool
}

type threadView struct {
	ID         string
	Notes      []noteView
	Resolvable bool
	Resolved   bool
	Place      string // the line that it is about
}

type noteView struct {
	forge.Note
	Author *delivery.User
	Body   template.HTML
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
		iid, err := number(r, "iid")
		if err != nil {
			return err
		}
		m, err := s.Forge.MergeRequest(r.Context(), r.Project.ID, iid)
		if err != nil {
			return err
		}
		return h(w, r, m)
	}
}

// requestForm handles a form of a merge request: what fails is shown on its
// page, with the note that was being written.
func (s *Server) requestForm(do func(r *Request, m delivery.MergeRequest) (notice string, err error)) Handler {
	return s.onRequest(func(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
		if r.Who.User == nil {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		notice, err := do(r, m)
		if err == nil {
			return redirect(w, r, requestLink(r.Project, m.IID), notice)
		}
		kind := delivery.KindOf(err)
		switch kind {
		case delivery.Invalid, delivery.Conflict, delivery.Stalled:
			return s.showRequest(w, r, statusOf(kind), m, requestView{Error: delivery.UserMessage(err), Draft: r.FormValue("note")})
		}
		return err
	})
}

func (s *Server) showRequest(w http.ResponseWriter, r *Request, status int, m delivery.MergeRequest, v requestView) error {
	ctx, p := r.Context(), r.Project
	v.Request, v.Link = m, requestLink(p, m.IID)
	v.Body = markdown(m.Description, linkBase{p.FullPath, p.DefaultBranch, ""})
	users := s.people(ctx)
	var err error
	if v.Author, err = users.find(m.AuthorID); err != nil {
		return err
	}
	if v.MergedBy, err = users.find(m.MergedByID); err != nil {
		return err
	}
	if err := s.requestState(r, users, &v); err != nil {
		return err
	}
	switch v.Tab {
	case "commits":
		v.Commits, err = s.Forge.RequestCommits(ctx, m, 250)
	case "diffs":
		var files []forge.FileDiff
		files, err = s.Forge.RequestDiff(ctx, m, forge.DiffLimits{})
		v.Files = diffFiles(files)
	default:
		v.Threads, err = s.threads(r, users, m)
	}
	if err != nil {
		return err
	}
	return s.render(w, r, status, "forge_request", Page{Title: fmt.Sprintf("%s (!%d)", m.Title, m.IID), Active: "merge_requests", Data: v})
}

// requestState finds out what stands in the way and what the caller may do.
func (s *Server) requestState(r *Request, users *people, v *requestView) error {
	ctx, p, m := r.Context(), *r.Project, v.Request
	var err error
	if v.Able, err = s.Forge.Mergeable(ctx, p, m); err != nil {
		return err
	}
	if v.Able.Status != "mergeable" {
		if v.Reason = requestReasons[v.Able.Status]; v.Reason == "" {
			v.Reason = v.Able.Status
		}
	}
	approvals, err := s.Forge.Approvals(ctx, m)
	if err != nil {
		return err
	}
	for _, a := range approvals {
		u, err := users.find(a.UserID)
		if err != nil {
			return err
		}
		v.Approvals = append(v.Approvals, u)
		v.Approved = v.Approved || r.Who.User != nil && r.Who.User.ID == a.UserID
	}
	if r.Who.User == nil {
		return nil
	}
	v.MayNote = true
	v.MayEdit = r.Role >= delivery.Developer || r.Who.User.ID == m.AuthorID
	v.MayApprove = m.State == "opened" && r.Role >= delivery.Developer && (v.Approved || r.Who.User.ID != m.AuthorID)
	v.Rebase = m.State == "opened" && r.Role >= delivery.Developer && v.Able.Diverged > 0
	if m.State != "opened" {
		return nil
	}
	if v.MayMerge, err = s.Forge.CanMerge(ctx, r.Who, p, m.TargetBranch); err != nil {
		return err
	}
	_, status, err := s.Forge.HeadPipeline(ctx, p.ID, m.HeadSHA)
	switch status {
	case "created", "waiting_for_resource", "preparing", "pending", "running":
		v.PipelineRuns = true
	}
	return err
}

func (s *Server) threads(r *Request, users *people, m delivery.MergeRequest) ([]threadView, error) {
	list, err := s.Forge.Discussions(r.Context(), r.Project.ID, &m, "")
	if err != nil {
		return nil, err
	}
	var out []threadView
	for _, notes := range list {
		t := threadView{Resolved: true}
		for _, n := range notes {
			if t.ID = n.DiscussionID; n.Position != nil && t.Place == "" {
				t.Place = fmt.Sprintf("%s:%d", n.Position.NewPath, max(n.Position.NewLine, n.Position.OldLine))
			}
			if n.Resolvable {
				t.Resolvable, t.Resolved = true, t.Resolved && !n.ResolvedAt.IsZero()
			}
			view := noteView{Note: n, Body: markdown(n.Body, linkBase{r.Project.FullPath, r.Project.DefaultBranch, ""})}
			if view.Author, err = users.find(n.AuthorID); err != nil {
				return nil, err
			}
			t.Notes = append(t.Notes, view)
		}
		t.Resolved = t.Resolved && t.Resolvable
		out = append(out, t)
	}
	return out, nil
}

func (s *Server) updateRequest(r *Request, m delivery.MergeRequest) (string, error) {
	title, description := r.FormValue("title"), strings.ReplaceAll(r.FormValue("description"), "\r\n", "\n")
	_, err := s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, forge.MergeRequestChange{Title: &title, Description: &description})
	return "", err
}

func (s *Server) stateRequest(event string) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		_, err := s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, forge.MergeRequestChange{StateEvent: event})
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
	done, err := s.Forge.Merge(r.Context(), r.Who, *r.Project, m.IID, forge.MergeOptions{SHA: r.FormValue("sha"), Message: strings.ReplaceAll(r.FormValue("merge_message"), "\r\n", "\n"),
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

func (s *Server) addNote(r *Request, m delivery.MergeRequest) (string, error) {
	_, err := s.Forge.AddNote(r.Context(), r.Who, *r.Project, forge.NewNote{MergeRequest: &m, DiscussionID: r.FormValue("discussion"), Thread: r.FormValue("thread") != "", Body: strings.ReplaceAll(r.FormValue("note"), "\r\n", "\n")})
	return "", err
}

func (s *Server) resolveThread(resolved bool) func(*Request, delivery.MergeRequest) (string, error) {
	return func(r *Request, m delivery.MergeRequest) (string, error) {
		_, err := s.Forge.Resolve(r.Context(), r.Who, *r.Project, m, r.PathValue("discussion"), resolved)
		return "", err
	}
}
