package web

import (
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
	s.handleProject("GET /merge_requests/new", guest, s.newRequestPage)
	s.handleProject("POST /merge_requests", guest, s.createRequest)
	one := "/merge_requests/{iid}"
	for _, tab := range []string{"", "commits", "pipelines", "diffs"} {
		s.handleProject("GET "+strings.TrimSuffix(one+"/"+tab, "/"), guest, s.onRequest(func(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
			return s.showRequest(w, r, http.StatusOK, m, requestView{Tab: tab})
		}))
	}
	s.handleProject("GET "+one+"/edit", guest, s.onRequest(s.editRequestPage))
	s.handleProject("POST "+one, guest, s.onRequest(s.updateRequest))
	s.handleProject("POST "+one+"/approve", developer, s.requestForm(s.approveRequest(true)))
	s.handleProject("POST "+one+"/unapprove", developer, s.requestForm(s.approveRequest(false)))
	s.handleProject("POST "+one+"/merge", developer, s.requestForm(s.mergeRequest))
	s.handleProject("POST "+one+"/rebase", guest, s.requestForm(s.rebaseRequest))
	s.handleProject("POST "+one+"/revert", developer, s.onRequest(s.revertRequest))
	s.handleProject("POST "+one+"/cancel_auto_merge", developer, s.requestForm(s.cancelAutoMerge))
	s.handleProject("POST "+one+"/close", guest, s.requestForm(s.stateRequest("close")))
	s.handleProject("POST "+one+"/reopen", guest, s.requestForm(s.stateRequest("reopen")))
	s.handleProject("POST "+one+"/draft", guest, s.requestForm(s.draftRequest(true)))
	s.handleProject("POST "+one+"/ready", guest, s.requestForm(s.draftRequest(false)))
	s.handleProject("POST "+one+"/notes", guest, s.requestForm(s.addNote))
	s.handleProject("POST "+one+"/notes/{note}", guest, s.requestForm(s.editNote))
	s.handleProject("POST "+one+"/notes/{note}/apply", guest, s.requestForm(s.applySuggestion))
	s.handleProject("POST "+one+"/notes/{note}/delete", guest, s.requestForm(s.deleteNote))
	s.handleProject("POST "+one+"/review", guest, s.requestForm(s.submitReview))
	s.handleProject("POST "+one+"/review/discard", guest, s.requestForm(s.discardReview))
	s.handleProject("POST "+one+"/drafts/{draft}", guest, s.requestForm(s.editHeld))
	s.handleProject("POST "+one+"/drafts/{draft}/delete", guest, s.requestForm(s.deleteHeld))
	s.handleProject("POST "+one+"/drafts/{draft}/publish", guest, s.requestForm(s.publishHeld))
	s.handleProject("POST "+one+"/discussions/{discussion}/resolve", guest, s.requestForm(s.resolveThread(true)))
	s.handleProject("POST "+one+"/discussions/{discussion}/unresolve", guest, s.requestForm(s.resolveThread(false)))
}

// requestsView lists merge requests.
type requestsView struct {
	Rows          []requestRow
	State, Search string
	Filter        requestsFilter
	Filtered      bool
	Tabs          []requestsTab
	Total         int
	Prev, Next    string
	MayNew        bool
}

// requestsFilter are the fields that narrow the list; people by user name.
type requestsFilter struct{ Author, Assignee, Reviewer, Label, Target, Draft, Sort string }

type requestsTab struct {
	Name, State, Link string
	Count             int
	Current           bool
}

type requestRow struct {
	delivery.MergeRequest
	Author    *delivery.User
	Assignees []*delivery.User
	Reviewers []*delivery.User
	Link      string
}

func requestLink(p *delivery.Project, iid int64) string {
	return projectPath(p.FullPath, "merge_requests", strconv.FormatInt(iid, 10))
}

// requestsFilterOf reads the fields of the list; a person who does not exist
// finds nothing.
func (s *Server) requestsFilterOf(r *Request, v *requestsView) (forge.MergeRequestFilter, error) {
	v.Search = r.FormValue("search")
	v.Filter = requestsFilter{r.FormValue("author_username"), r.FormValue("assignee_username"), r.FormValue("reviewer_username"), r.FormValue("label_name"), r.FormValue("target_branch"), r.FormValue("draft"), r.FormValue("sort")}
	f := forge.MergeRequestFilter{ProjectIDs: []int64{r.Project.ID}, Search: v.Search, TargetBranch: v.Filter.Target}
	if number, ok := strings.CutPrefix(v.Search, "!"); ok { // a reference such as !12
		if iid, err := strconv.ParseInt(number, 10, 64); err == nil {
			f.Search, f.IIDs = "", []int64{iid}
		}
	}
	if v.Filter.Label != "" {
		f.Labels = splitLabels(v.Filter.Label)
	}
	if v.Filter.Draft == "yes" || v.Filter.Draft == "no" {
		draft := v.Filter.Draft == "yes"
		f.Draft = &draft
	}
	switch v.Filter.Sort {
	case "updated_desc":
		f.OrderBy = "updated_at"
	case "created_asc":
		f.Ascending = true
	case "title_asc":
		f.OrderBy, f.Ascending = "title", true
	}
	for name, to := range map[string]*int64{v.Filter.Author: &f.AuthorID, v.Filter.Assignee: &f.AssigneeID, v.Filter.Reviewer: &f.ReviewerID} {
		if name == "" {
			continue
		}
		u, err := s.Access.UserByName(r.Context(), strings.TrimPrefix(name, "@"))
		if err != nil && !delivery.IsNotFound(err) {
			return f, err
		}
		*to = u.ID
		if err != nil {
			*to = -1
		}
	}
	v.Filtered = v.Filter != requestsFilter{Sort: v.Filter.Sort} || v.Search != ""
	return f, nil
}

func (s *Server) requestsPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	v := requestsView{State: r.FormValue("state"), MayNew: r.Who.User != nil}
	f, err := s.requestsFilterOf(r, &v)
	if err != nil {
		return err
	}
	if v.State != "closed" && v.State != "merged" && v.State != "all" {
		v.State = "opened"
	}
	page := pageNumber(r)
	for _, t := range []requestsTab{{Name: "Open", State: "opened"}, {Name: "Merged", State: "merged"}, {Name: "Closed", State: "closed"}, {Name: "All", State: "all"}} {
		f.State, t.Current = t.State, t.State == v.State
		limit, offset := 1, 0
		if t.Current {
			limit, offset = requestsOnPage, (page-1)*requestsOnPage
		}
		list, total, err := s.Forge.MergeRequests(r.Context(), f, limit, offset)
		if err != nil {
			return err
		}
		if t.Current {
			v.Total = total
			if err := s.requestRows(r, &v, list); err != nil {
				return err
			}
		}
		q := r.URL.Query()
		q.Del("page")
		q.Set("state", t.State)
		t.Count, t.Link = total, "?"+q.Encode()
		v.Tabs = append(v.Tabs, t)
	}
	v.Prev, v.Next = pagerLinks(r, page, page*requestsOnPage < v.Total)
	return s.render(w, r, http.StatusOK, "forge_requests", Page{Title: "Merge requests", Active: "merge_requests", Data: v})
}

func (s *Server) requestRows(r *Request, v *requestsView, list []delivery.MergeRequest) error {
	users := s.people(r.Context())
	for _, m := range list {
		row := requestRow{MergeRequest: m, Link: requestLink(r.Project, m.IID)}
		var err error
		if row.Author, err = users.find(m.AuthorID); err != nil {
			return err
		}
		for _, pair := range []struct {
			ids []int64
			to  *[]*delivery.User
		}{{m.AssigneeIDs, &row.Assignees}, {m.ReviewerIDs, &row.Reviewers}} {
			for _, id := range pair.ids {
				u, err := users.find(id)
				if err != nil {
					return err
				}
				if u != nil {
					*pair.to = append(*pair.to, u)
				}
			}
		}
		v.Rows = append(v.Rows, row)
	}
	return nil
}

// rawRequest writes the changes as a diff or as patches that git can apply:
// /merge_requests/12.diff and 12.patch.
func (s *Server) rawRequest(w http.ResponseWriter, r *Request, m delivery.MergeRequest, kind string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return s.Forge.RawDiff(r.Context(), r.Project.ID, m.BaseSHA, m.HeadSHA, kind, w)
}
