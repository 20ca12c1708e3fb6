package web

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const todosOnPage = 30

func (s *Server) todoRoutes() {
	s.handle("GET /dashboard/todos", s.todosPage)
	s.handle("POST /dashboard/todos/done", s.allTodosDone)
	s.handle("POST /dashboard/todos/{id}/done", s.todoDone(true))
	s.handle("POST /dashboard/todos/{id}/restore", s.todoDone(false))
	s.handle("POST /dashboard/todos/mail", s.mailLevel)
	s.handle("GET /dashboard/merge_requests", s.ownRequestsPage)
}

// todosView is what waits for the person.
type todosView struct {
	Done       bool
	Rows       []todoRow
	Waiting    int
	Mail       string // how much e-mail they get; empty: none is sent here
	Prev, Next string
}

type todoRow struct {
	forge.Todo
	Project *delivery.Project
	Author  *delivery.User
	Link    string
	Word    string
}

var todoWords = map[string]string{
	forge.TodoAssigned: "assigned to you", forge.TodoReview: "asked for your review of", forge.TodoMentioned: "mentioned you in", forge.TodoAddressed: "spoke to you in", forge.TodoFailed: "the pipeline failed for",
}

// waiting counts the entries of the person who looks, for the head of pages.
func (s *Server) waiting(r *Request) (int, error) {
	if r.Who.User == nil || s.Forge == nil {
		return 0, nil
	}
	return s.Forge.TodosWaiting(r.Context(), r.Who)
}

func (s *Server) todosPage(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	v := todosView{Done: r.FormValue("state") == "done"}
	page := pageNumber(r)
	list, total, err := s.Forge.Todos(r.Context(), r.Who, forge.TodoFilter{Done: &v.Done}, todosOnPage, (page-1)*todosOnPage)
	if err != nil {
		return err
	}
	users := s.people(r.Context())
	for _, t := range list {
		row := todoRow{Todo: t, Word: todoWords[t.Action]}
		p, err := s.Forge.Project(r.Context(), t.ProjectID)
		if err != nil {
			return err
		}
		row.Project, row.Link = &p, requestLink(&p, t.IID)
		if t.CommitSHA != "" {
			row.Link = commitLink(&p, t.CommitSHA)
		}
		if t.NoteID != 0 {
			row.Link += "#note_" + strconv.FormatInt(t.NoteID, 10)
		}
		if row.Author, err = users.find(t.AuthorID); err != nil {
			return err
		}
		v.Rows = append(v.Rows, row)
	}
	if v.Waiting, err = s.waiting(r); err != nil {
		return err
	}
	if s.Forge.Mails() {
		if v.Mail, err = s.Forge.MailLevel(r.Context(), r.Who.User.ID); err != nil {
			return err
		}
	}
	v.Prev, v.Next = pagerLinks(r, page, page*todosOnPage < total)
	return s.render(w, r, http.StatusOK, "forge_todos", Page{Title: "To-do list", Data: v})
}

func (s *Server) todoDone(done bool) Handler {
	return func(w http.ResponseWriter, r *Request) error {
		if r.Who.User == nil {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		id, err := number(r, "id")
		if err != nil {
			return err
		}
		if _, err := s.Forge.TodoDone(r.Context(), r.Who.User.ID, id, done); err != nil {
			return err
		}
		to := "/dashboard/todos"
		if !done {
			to += "?state=done"
		}
		return redirect(w, r, to, "")
	}
}

func (s *Server) allTodosDone(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if err := s.Forge.AllTodosDone(r.Context(), r.Who.User.ID); err != nil {
		return err
	}
	return redirect(w, r, "/dashboard/todos", "Nothing waits any more.")
}

func (s *Server) mailLevel(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if err := s.Forge.SetMailLevel(r.Context(), r.Who.User.ID, r.FormValue("level")); err != nil {
		return err
	}
	return redirect(w, r, "/dashboard/todos", "Your choice is stored.")
}

// ownRequestsView lists the person's merge requests of all projects.
type ownRequestsView struct {
	Tab        string
	Rows       []ownRequestRow
	Prev, Next string
}

type ownRequestRow struct {
	requestRow
	Project *delivery.Project
}

// ownRequestsPage shows what the person is to review, was given or asked for.
func (s *Server) ownRequestsPage(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	visible := forge.FilterFor(r.Who)
	visible.Readable = true
	f := forge.MergeRequestFilter{State: "opened", OrderBy: "updated_at", Visible: &visible}
	v := ownRequestsView{Tab: r.FormValue("scope")}
	switch v.Tab {
	case "assigned":
		f.AssigneeID = r.Who.User.ID
	case "author":
		f.AuthorID = r.Who.User.ID
	default:
		v.Tab, f.ReviewerID = "review", r.Who.User.ID
	}
	page := pageNumber(r)
	list, total, err := s.Forge.MergeRequests(r.Context(), f, requestsOnPage, (page-1)*requestsOnPage)
	if err != nil {
		return err
	}
	users := s.people(r.Context())
	for _, m := range list {
		p, err := s.Forge.Project(r.Context(), m.ProjectID)
		if err != nil {
			return err
		}
		row := ownRequestRow{requestRow{MergeRequest: m, Link: requestLink(&p, m.IID)}, &p}
		if row.Author, err = users.find(m.AuthorID); err != nil {
			return err
		}
		v.Rows = append(v.Rows, row)
	}
	v.Prev, v.Next = pagerLinks(r, page, page*requestsOnPage < total)
	return s.render(w, r, http.StatusOK, "forge_ownrequests", Page{Title: "Your merge requests", Data: v})
}
