package web

import (
	"net/http"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

const listed = 200 // rows of lists without pages

func (s *Server) profileRoutes() {
	s.handleOwn("GET /profile", s.profilePage)
	s.handleOwn("POST /profile", s.updateProfile)
	s.handleOwn("POST /profile/password", s.updatePassword)
	s.handleOwn("POST /profile/sessions/{id}/end", s.endSession)
	s.handleOwn("POST /profile/sessions/end", s.endOtherSessions)
	s.handleOwn("GET /profile/tokens", s.tokensPage)
	s.handleOwn("POST /profile/tokens", s.createToken)
	s.handleOwn("POST /profile/tokens/{id}/revoke", s.revokeToken)
	s.handleOwn("GET /profile/keys", s.keysPage)
	s.handleOwn("POST /profile/keys", s.addKey)
	s.handleOwn("POST /profile/keys/{id}/delete", s.deleteKey)
	s.handleOwn("GET /profile/gpg_keys", s.gpgKeysPage)
	s.handleOwn("POST /profile/gpg_keys", s.addGPGKey)
	s.handleOwn("POST /profile/gpg_keys/{id}/delete", s.deleteGPGKey)
}

// profileView is the account of the signed-in person.
type profileView struct {
	Tab           string
	Name, Email   string
	Username      string
	Sessions      []access.Session
	Current       int64 // the session of this browser
	Error         string
	PasswordError string
}

func (s *Server) profilePage(w http.ResponseWriter, r *Request) error {
	return s.showProfile(w, r, http.StatusOK, profileView{Name: r.Who.User.Name, Email: r.Who.User.Email})
}

func (s *Server) showProfile(w http.ResponseWriter, r *Request, status int, v profileView) error {
	var err error
	if v.Sessions, err = s.Access.Sessions(r.Context(), r.Who.User.ID); err != nil {
		return err
	}
	if v.Current, err = s.currentSession(r); err != nil {
		return err
	}
	v.Tab, v.Username = "profile", r.Who.User.Username
	return s.render(w, r, status, "forge_profile", Page{Title: "Preferences", Data: v})
}

// currentSession is the id of the session that this request came with.
func (s *Server) currentSession(r *Request) (int64, error) {
	c, err := r.Cookie(access.SessionCookie)
	if err != nil {
		return 0, nil // signed in with a password for this one request
	}
	_, session, err := s.Access.SessionIdentity(r.Context(), c.Value)
	return session.ID, err
}

func (s *Server) updateProfile(w http.ResponseWriter, r *Request) error {
	v := profileView{Name: r.FormValue("name"), Email: r.FormValue("email")}
	_, err := s.Access.UpdateUser(r.Context(), r.Who, r.Who.User.ID, access.UserChange{Name: &v.Name, Email: &v.Email})
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showProfile(w, r, status, v)
	}
	return redirect(w, r, "/profile", "Your account is stored.")
}

func (s *Server) updatePassword(w http.ResponseWriter, r *Request) error {
	keep, err := s.currentSession(r)
	if err != nil {
		return err
	}
	next := r.FormValue("password")
	if next != r.FormValue("password_confirmation") {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "The new password and its repetition differ."}
	} else {
		err = s.Access.ChangePassword(r.Context(), r.Who, r.FormValue("current_password"), next, keep)
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		return s.showProfile(w, r, status, profileView{Name: r.Who.User.Name, Email: r.Who.User.Email, PasswordError: message})
	}
	return redirect(w, r, "/profile", "The password is changed. Your other sessions have ended.")
}

func (s *Server) endSession(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	if err := s.Access.EndSession(r.Context(), r.Who, r.Who.User.ID, id); err != nil {
		return err
	}
	return redirect(w, r, "/profile#sessions", "The session has ended.")
}

func (s *Server) endOtherSessions(w http.ResponseWriter, r *Request) error {
	keep, err := s.currentSession(r)
	if err != nil {
		return err
	}
	if err := s.Access.EndSessions(r.Context(), r.Who, r.Who.User.ID, keep); err != nil {
		return err
	}
	return redirect(w, r, "/profile#sessions", "All your other sessions have ended.")
}

// scopeChoice is a scope that a token may get.
type scopeChoice struct {
	Name, Words string
	On          bool
}

func choices(all []scopeChoice, on []string) []scopeChoice {
	out := make([]scopeChoice, len(all))
	for i, c := range all {
		for _, name := range on {
			c.On = c.On || c.Name == name
		}
		out[i] = c
	}
	return out
}

var personalScopes = []scopeChoice{
	{Name: "api", Words: "everything, by the API and git"},
	{Name: "read_api", Words: "read everything by the API"},
	{Name: "read_user", Words: "read your account"},
	{Name: "read_repository", Words: "pull"},
	{Name: "write_repository", Words: "pull and push"},
	{Name: "read_registry", Words: "pull images"},
	{Name: "write_registry", Words: "push images"},
	{Name: "create_runner", Words: "create runners"},
}

// tokensView lists tokens and makes one. Secret is shown once, right after.
type tokensView struct {
	Tab      string
	Tokens   []tokenRow
	Scopes   []scopeChoice
	Name     string
	Expires  string
	Secret   string
	Error    string
	Base     string
	Tomorrow string
}

type tokenRow struct {
	access.Token
	State string // active, expired or revoked
}

func tokenRows(list []access.Token) []tokenRow {
	var out []tokenRow
	now := time.Now()
	for _, t := range list {
		row := tokenRow{t, "active"}
		switch {
		case !t.RevokedAt.IsZero():
			row.State = "revoked"
		case !t.Active(now):
			row.State = "expired"
		}
		out = append(out, row)
	}
	return out
}

func tomorrow() string { return time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly) }

func (s *Server) tokensPage(w http.ResponseWriter, r *Request) error {
	return s.showTokens(w, r, http.StatusOK, tokensView{Name: r.FormValue("name"), Expires: time.Now().UTC().AddDate(0, 0, 365).Format(time.DateOnly)}, nil)
}

func (s *Server) showTokens(w http.ResponseWriter, r *Request, status int, v tokensView, scopes []string) error {
	list, _, err := s.Access.Tokens(r.Context(), access.TokenFilter{Kind: delivery.PersonalToken, UserID: r.Who.User.ID}, listed, 0)
	if err != nil {
		return err
	}
	v.Tab, v.Tokens, v.Scopes, v.Base, v.Tomorrow = "tokens", tokenRows(list), choices(personalScopes, scopes), "/profile/tokens", tomorrow()
	return s.render(w, r, status, "forge_tokens", Page{Title: "Access tokens", Data: v})
}

func (s *Server) createToken(w http.ResponseWriter, r *Request) error {
	v := tokensView{Name: r.FormValue("name"), Expires: r.FormValue("expires_at")}
	scopes := r.Form["scopes"]
	expires, err := dayOf(v.Expires)
	if err == nil {
		_, v.Secret, err = s.Access.CreatePersonalToken(r.Context(), r.Who, r.Who.User.ID, access.NewToken{Name: v.Name, Scopes: scopes, ExpiresAt: expires})
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if v.Error = message; message == "" {
		v.Name, scopes = "", nil
	}
	return s.showTokens(w, r, status, v, scopes)
}

// token is the one that the path names, whoever's it is.
func (s *Server) token(r *Request) (access.Token, error) {
	id, err := number(r, "id")
	if err != nil {
		return access.Token{}, err
	}
	return s.Access.Token(r.Context(), id)
}

func (s *Server) revokeToken(w http.ResponseWriter, r *Request) error {
	t, err := s.token(r)
	if err != nil {
		return err
	}
	if t.Kind != delivery.PersonalToken || t.UserID != r.Who.User.ID {
		return notFound()
	}
	if err := s.Access.RevokeToken(r.Context(), r.Who, t); err != nil {
		return err
	}
	return redirect(w, r, "/profile/tokens", "The token is revoked.")
}

// keysView lists SSH keys and adds one.
type keysView struct {
	Tab            string
	Keys           []access.Key
	Title, Key     string
	Usage          access.KeyUsage
	Expires, Error string
	Tomorrow       string
}

func (s *Server) keysPage(w http.ResponseWriter, r *Request) error {
	return s.showKeys(w, r, http.StatusOK, keysView{})
}

func (s *Server) showKeys(w http.ResponseWriter, r *Request, status int, v keysView) error {
	var err error
	if v.Keys, _, err = s.Access.Keys(r.Context(), r.Who.User.ID, 0, listed, 0); err != nil {
		return err
	}
	v.Tab, v.Tomorrow = "keys", tomorrow()
	return s.render(w, r, status, "forge_keys", Page{Title: "SSH keys", Data: v})
}

func (s *Server) addKey(w http.ResponseWriter, r *Request) error {
	v := keysView{Title: r.FormValue("title"), Key: r.FormValue("key"), Usage: access.KeyUsage(r.FormValue("usage")), Expires: r.FormValue("expires_at")}
	expires, err := dayOf(v.Expires)
	if err == nil {
		_, err = s.Access.AddKey(r.Context(), r.Who, access.Key{UserID: r.Who.User.ID, Title: v.Title, PublicKey: v.Key, Usage: v.Usage, ExpiresAt: expires})
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showKeys(w, r, status, v)
	}
	return redirect(w, r, "/profile/keys", "The key is added.")
}

func (s *Server) deleteKey(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	k, err := s.Access.Key(r.Context(), id)
	if err != nil {
		return err
	}
	if k.UserID != r.Who.User.ID {
		return notFound()
	}
	if err := s.Access.DeleteKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return redirect(w, r, "/profile/keys", "The key is deleted.")
}
