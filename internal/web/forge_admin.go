package web

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/forge"
)

const usersOnPage = 50

func (s *Server) adminRoutes() {
	s.handleAdmin("GET /admin", s.adminPage)
	s.handleAdmin("GET /admin/audit_log", s.auditPage)
	s.handleAdmin("GET /admin/users", s.usersPage)
	s.handleAdmin("POST /admin/users/{id}/disable_two_factor", s.resetTwoFactor)
	s.handleAdmin("POST /admin/users/{id}/delete", s.deleteUser)
	s.handleAdmin("POST /admin/users", s.createUser)
	for _, what := range []string{"block", "unblock", "grant_admin", "revoke_admin"} {
		s.handleAdmin("POST /admin/users/{id}/"+what, s.changeUser(what))
	}
}

// handleAdmin registers a page for administrators; others are told that there
// is no such page.
func (s *Server) handleAdmin(pattern string, h Handler) {
	s.handleOwn(pattern, func(w http.ResponseWriter, r *Request) error {
		if !r.Who.User.Admin {
			return notFound()
		}
		return h(w, r)
	})
}

// adminView is the front page of the administration.
type adminView struct {
	Users, Projects, Groups int
	Events                  []access.AuditEvent // the newest
}

func (s *Server) adminPage(w http.ResponseWriter, r *Request) error {
	ctx := r.Context()
	var v adminView
	var err error
	if _, v.Users, err = s.Access.Users(ctx, access.UserFilter{}, 1, 0); err != nil {
		return err
	}
	if _, v.Projects, err = s.Forge.Projects(ctx, forge.FilterFor(r.Who), 1, 0); err != nil {
		return err
	}
	if _, v.Groups, err = s.Access.Groups(ctx, access.GroupFilter{Viewer: r.Who.User.ID, All: true}, 1, 0); err != nil {
		return err
	}
	if v.Events, _, err = s.Access.AuditEvents(ctx, access.AuditFilter{}, 10, 0); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "forge_admin", Page{Title: "Administration", Data: v})
}

// auditView is a page of the audit log.
type auditView struct {
	Events             []access.AuditEvent
	Total              int
	Search, Prev, Next string
}

const eventsOnPage = 100

func (s *Server) auditPage(w http.ResponseWriter, r *Request) error {
	page := pageNumber(r)
	v := auditView{Search: strings.TrimSpace(r.URL.Query().Get("search"))}
	var err error
	if v.Events, v.Total, err = s.Access.AuditEvents(r.Context(), access.AuditFilter{Search: v.Search}, eventsOnPage, (page-1)*eventsOnPage); err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, page*eventsOnPage < v.Total)
	return s.render(w, r, http.StatusOK, "forge_audit", Page{Title: "Audit log", Data: v})
}

// resetTwoFactor turns an account's second factor off, when its device is lost.
func (s *Server) resetTwoFactor(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	if err := s.Access.DisableTOTP(r.Context(), r.Who, id); err != nil {
		return err
	}
	return redirect(w, r, "/admin/users", "The account signs in with its password alone now.")
}

func (s *Server) deleteUser(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	message, status, err := correctable(s.Access.DeleteUser(r.Context(), r.Who, id))
	if err != nil {
		return err
	}
	if message != "" {
		return s.showUsers(w, r, status, usersView{Error: message})
	}
	return redirect(w, r, "/admin/users", "The account is deleted.")
}

// usersView lists accounts and makes one.
type usersView struct {
	Rows                  []access.Account
	Self                  int64
	Total                 int
	Search, Prev, Next    string
	Username, Name, Email string
	Admin                 bool
	Error                 string
}

func (s *Server) usersPage(w http.ResponseWriter, r *Request) error {
	return s.showUsers(w, r, http.StatusOK, usersView{})
}

func (s *Server) showUsers(w http.ResponseWriter, r *Request, status int, v usersView) error {
	page := pageNumber(r)
	v.Search, v.Self = r.URL.Query().Get("search"), r.Who.User.ID
	var err error
	if v.Rows, v.Total, err = s.Access.Users(r.Context(), access.UserFilter{Search: v.Search}, usersOnPage, (page-1)*usersOnPage); err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, page*usersOnPage < v.Total)
	return s.render(w, r, status, "forge_users", Page{Title: "Users", Data: v})
}

func (s *Server) createUser(w http.ResponseWriter, r *Request) error {
	v := usersView{Username: strings.TrimSpace(r.FormValue("username")), Name: r.FormValue("name"), Email: r.FormValue("email"), Admin: r.FormValue("admin") != ""}
	_, err := s.Access.CreateUser(r.Context(), r.Who, access.NewUser{Username: v.Username, Name: v.Name, Email: v.Email, Password: r.FormValue("password"), Admin: v.Admin})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showUsers(w, r, status, v)
	}
	return redirect(w, r, "/admin/users", "The account "+v.Username+" is there.")
}

func (s *Server) changeUser(what string) Handler {
	return func(w http.ResponseWriter, r *Request) error {
		id, err := number(r, "id")
		if err != nil {
			return err
		}
		var c access.UserChange
		yes := what == "block" || what == "grant_admin"
		if what == "block" || what == "unblock" {
			c.Blocked = &yes
		} else {
			c.Admin = &yes
		}
		u, err := s.Access.UpdateUser(r.Context(), r.Who, id, c)
		if err != nil {
			return err
		}
		return redirect(w, r, "/admin/users", "The account "+u.Username+" is changed.")
	}
}
