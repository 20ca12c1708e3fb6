package web

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/openid"
)

func (s *Server) signOnRoutes() {
	s.handle("GET /oauth/authorize", s.authorizePage)
	s.handle("POST /oauth/authorize", s.authorize)
}

// signOnView asks whether a program may know who is signed in.
type signOnView struct {
	openid.Request
	Query string
}

// signOnRequest reads the program's wish; only somebody who is signed in in a
// browser can be asked for consent.
func (s *Server) signOnRequest(r *Request) (openid.Request, error) {
	if r.Who.Kind != delivery.SessionUser {
		return openid.Request{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	return s.SignOn.Check(r.URL.Query())
}

func (s *Server) authorizePage(w http.ResponseWriter, r *Request) error {
	wish, err := s.signOnRequest(r)
	if err != nil {
		return err
	}
	// Browsers apply form-action to where the answer to a form leads, too.
	w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self' "+wish.Origin())
	return s.render(w, r, http.StatusOK, "signon", Page{Title: "Sign in to " + wish.Client.Name, Data: signOnView{wish, r.URL.RawQuery}})
}

func (s *Server) authorize(w http.ResponseWriter, r *Request) error {
	wish, err := s.signOnRequest(r)
	if err != nil {
		return err
	}
	to := s.SignOn.Deny(wish)
	if r.FormValue("answer") == "allow" {
		if to, err = s.SignOn.Grant(wish, r.Who.User.ID); err != nil {
			return err
		}
		s.Access.Audit(r.Context(), r.Who, "sign_on.granted", "user", r.Who.User.ID, wish.Client.Name, wish.Origin())
	}
	return redirect(w, r, to, "")
}
