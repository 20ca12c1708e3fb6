package web

import (
	"errors"
	"net"
	"net/http"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// signInPage is the sign-in form.
type signInPage struct {
	Login    string
	ReturnTo string
	NeedCode bool
	Error    string
}

func (s *Server) signInForm(w http.ResponseWriter, r *Request) error {
	if r.Who.Signed() {
		return redirect(w, r, localPath(r.FormValue("return_to")), "")
	}
	return s.render(w, r, http.StatusOK, "signin", Page{Title: "Sign in", Data: signInPage{ReturnTo: localPath(r.FormValue("return_to"))}})
}

func (s *Server) signIn(w http.ResponseWriter, r *Request) error {
	p := signInPage{Login: r.FormValue("login"), ReturnTo: localPath(r.FormValue("return_to"))}
	secret, _, err := s.Access.SignIn(r.Context(), p.Login, r.FormValue("password"), r.FormValue("code"), clientAddress(r.Request), r.UserAgent())
	if err != nil {
		kind := delivery.KindOf(err)
		if kind != delivery.Unauthenticated && kind != delivery.TooMany && kind != delivery.Forbidden {
			return err
		}
		p.NeedCode = errors.Is(err, access.ErrCodeNeeded)
		p.Error = delivery.UserMessage(err)
		return s.render(w, r, statusOf(kind), "signin", Page{Title: "Sign in", Data: p})
	}
	s.Access.SetCookie(w, secret)
	return redirect(w, r, p.ReturnTo, "")
}

func (s *Server) signOut(w http.ResponseWriter, r *Request) error {
	if c, err := r.Cookie(access.SessionCookie); err == nil {
		if err := s.Access.SignOut(r.Context(), c.Value); err != nil {
			return err
		}
	}
	s.Access.ClearCookie(w)
	return redirect(w, r, "/users/sign_in", "You are signed out.")
}

// clientAddress is the address that throttling and the audit log use.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
