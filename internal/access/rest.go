package access

import (
	"net/http"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// rest answers the API v4 routes of accounts: users, groups, members, tokens
// and keys. The shapes are GitLab's (doc/api/users.md and its neighbours).
type rest struct {
	s   *Service
	url string
}

// RegisterAPI registers the routes of accounts. externalURL is the platform's
// address without a trailing slash.
func (s *Service) RegisterAPI(rt *api.Router, externalURL string) {
	h := &rest{s, externalURL}
	h.users(rt)
	h.tokens(rt)
	h.gpgKeys(rt)
	h.groups(rt)
	h.members(rt)
}

func (h *rest) users(rt *api.Router) {
	read := api.Need{Scopes: []string{"read_user", "read_api"}}
	admin := api.Need{Admin: true}
	rt.Handle("GET /user", read, h.currentUser)
	rt.Handle("GET /users", read, h.listUsers)
	rt.Handle("GET /users/{id}", read, h.getUser)
	rt.Handle("POST /users", admin, h.createUser)
	rt.Handle("PUT /users/{id}", admin, h.updateUser)
	rt.Handle("DELETE /users/{id}", admin, h.deleteUser)
	rt.Handle("POST /users/{id}/block", admin, h.setBlocked(true))
	rt.Handle("POST /users/{id}/unblock", admin, h.setBlocked(false))
	rt.Handle("PATCH /users/{id}/disable_two_factor", admin, h.disableTwoFactor)
	rt.Handle("GET /users/{id}/keys", read, h.listUserKeys)
	rt.Handle("POST /users/{id}/keys", admin, h.addUserKey)
	rt.Handle("GET /user/keys", read, h.listOwnKeys)
	rt.Handle("GET /user/keys/{key}", read, h.getOwnKey)
	rt.Handle("POST /user/keys", api.Need{}, h.addOwnKey)
	rt.Handle("DELETE /user/keys/{key}", api.Need{}, h.deleteOwnKey)
	rt.Handle("PUT /user/avatar", api.Need{}, h.setOwnAvatar)
	rt.Handle("GET /audit_events", admin, h.auditEvents)
}

// userJSON is what everyone may see of a user.
type userJSON struct {
	ID        int64  `json:"id"`
	Username  string `json:"username"`
	Name      string `json:"name"`
	State     string `json:"state"`
	Locked    bool   `json:"locked"`
	AvatarURL any    `json:"avatar_url"`
	WebURL    string `json:"web_url"`
}

func (h *rest) user(u delivery.User) userJSON {
	state := "active"
	if u.Blocked {
		state = "blocked"
	}
	return userJSON{ID: u.ID, Username: u.Username, Name: u.Name, State: state, AvatarURL: h.avatar(UserAvatar, u.ID), WebURL: h.url + "/" + u.Username}
}

// avatar is the address of a picture, or null.
func (h *rest) avatar(kind AvatarKind, id int64) any {
	if path := h.s.AvatarPath(kind, id); path != "" {
		return h.url + path
	}
	return nil
}

// accountJSON is what a user and administrators see.
type accountJSON struct {
	userJSON
	CreatedAt        *time.Time `json:"created_at"`
	Bot              bool       `json:"bot"`
	Email            string     `json:"email"`
	CommitEmail      string     `json:"commit_email"`
	PublicEmail      string     `json:"public_email"`
	IsAdmin          bool       `json:"is_admin"`
	CanCreateGroup   bool       `json:"can_create_group"`
	CanCreateProject bool       `json:"can_create_project"`
	TwoFactorEnabled bool       `json:"two_factor_enabled"`
	ConfirmedAt      *time.Time `json:"confirmed_at"`
	LastSignInAt     *time.Time `json:"last_sign_in_at"`
	ProjectsLimit    int64      `json:"projects_limit"`
	External         bool       `json:"external"`
	NamespaceID      int64      `json:"namespace_id,omitempty"`
	Identities       []any      `json:"identities"`
}

func (h *rest) account(a Account) accountJSON {
	return accountJSON{userJSON: h.user(a.User), CreatedAt: optional(a.CreatedAt), Bot: a.Bot, Email: a.Email, CommitEmail: a.Email, IsAdmin: a.Admin,
		CanCreateGroup: true, CanCreateProject: true, TwoFactorEnabled: a.TOTPSecret != "", ConfirmedAt: optional(a.CreatedAt), LastSignInAt: optional(a.LastSignIn), ProjectsLimit: 100000, Identities: []any{}}
}

// optional gives nil, and so null, for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func pathID(r *api.Request, name string) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "404 Not Found"}
	}
	return id, nil
}

func (h *rest) currentUser(w http.ResponseWriter, r *api.Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	a, err := h.s.Account(r.Context(), r.Who.User.ID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.account(a))
}

func (h *rest) listUsers(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	f := UserFilter{Search: q.Get("search"), Username: q.Get("username")}
	if q.Get("active") == "true" {
		no := false
		f.Blocked = &no
	}
	if q.Get("blocked") == "true" {
		yes := true
		f.Blocked = &yes
	}
	p := api.PageOf(r.Request)
	list, total, err := h.s.Users(r.Context(), f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]any, len(list))
	for i, a := range list {
		if r.Who.User != nil && r.Who.User.Admin {
			out[i] = h.account(a)
		} else {
			out[i] = h.user(a.User)
		}
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) getUser(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	a, err := h.s.Account(r.Context(), id)
	if err != nil {
		return err
	}
	if r.Who.User != nil && (r.Who.User.Admin || r.Who.User.ID == id) {
		return api.WriteJSON(w, http.StatusOK, h.account(a))
	}
	return api.WriteJSON(w, http.StatusOK, h.user(a.User))
}

type userParams struct {
	Email               *string `json:"email"`
	Username            *string `json:"username"`
	Name                *string `json:"name"`
	Password            *string `json:"password"`
	Admin               *bool   `json:"admin"`
	ForceRandomPassword *bool   `json:"force_random_password"`
	ResetPassword       *bool   `json:"reset_password"`
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (h *rest) createUser(w http.ResponseWriter, r *api.Request) error {
	var p userParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	n := NewUser{Username: deref(p.Username), Name: deref(p.Name), Email: deref(p.Email), Password: deref(p.Password), Admin: deref(p.Admin)}
	if n.Password == "" && !deref(p.ForceRandomPassword) && !deref(p.ResetPassword) {
		return delivery.Errorf(delivery.Invalid, "password, reset_password, force_random_password are missing, at least one parameter must be provided")
	}
	u, err := h.s.CreateUser(r.Context(), r.Who, n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.account(Account{User: u}))
}

func (h *rest) updateUser(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	var p userParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if _, err := h.s.UpdateUser(r.Context(), r.Who, id, UserChange{Name: p.Name, Email: p.Email, Username: p.Username, Password: p.Password, Admin: p.Admin}); err != nil {
		return err
	}
	a, err := h.s.Account(r.Context(), id)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.account(a))
}

func (h *rest) deleteUser(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	if err := h.s.DeleteUser(r.Context(), r.Who, id); err != nil {
		return err
	}
	return noContent(w)
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *rest) setBlocked(blocked bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		id, err := pathID(r, "id")
		if err != nil {
			return err
		}
		if _, err := h.s.UpdateUser(r.Context(), r.Who, id, UserChange{Blocked: &blocked}); err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusCreated, true)
	}
}

func (h *rest) disableTwoFactor(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	if err := h.s.DisableTOTP(r.Context(), r.Who, id); err != nil {
		return err
	}
	return noContent(w)
}

type keyJSON struct {
	ID          int64      `json:"id"`
	Title       string     `json:"title"`
	Key         string     `json:"key"`
	Fingerprint string     `json:"fingerprint_sha256"`
	CreatedAt   *time.Time `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at"`
	LastUsedAt  *time.Time `json:"last_used_at"`
	UsageType   KeyUsage   `json:"usage_type"`
}

func keyShape(k Key) keyJSON {
	return keyJSON{k.ID, k.Title, k.PublicKey, k.Fingerprint, optional(k.CreatedAt), optional(k.ExpiresAt), optional(k.LastUsed), k.Usage}
}

func (h *rest) keysOf(w http.ResponseWriter, r *api.Request, userID int64) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Keys(r.Context(), userID, 0, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]keyJSON, len(list))
	for i, k := range list {
		out[i] = keyShape(k)
	}
	return api.List(w, r, p, total, out)
}

func needUser(r *api.Request) (int64, error) {
	if r.Who.User == nil {
		return 0, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return r.Who.User.ID, nil
}

func (h *rest) listOwnKeys(w http.ResponseWriter, r *api.Request) error {
	id, err := needUser(r)
	if err != nil {
		return err
	}
	return h.keysOf(w, r, id)
}

func (h *rest) listUserKeys(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	if _, err := h.s.User(r.Context(), id); err != nil {
		return err
	}
	return h.keysOf(w, r, id)
}

func (h *rest) ownKey(r *api.Request) (Key, error) {
	user, err := needUser(r)
	if err != nil {
		return Key{}, err
	}
	id, err := pathID(r, "key")
	if err != nil {
		return Key{}, err
	}
	k, err := h.s.Key(r.Context(), id)
	if err == nil && k.UserID != user {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Key Not Found"}
	}
	return k, err
}

func (h *rest) getOwnKey(w http.ResponseWriter, r *api.Request) error {
	k, err := h.ownKey(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, keyShape(k))
}

func (h *rest) deleteOwnKey(w http.ResponseWriter, r *api.Request) error {
	k, err := h.ownKey(r)
	if err != nil {
		return err
	}
	if err := h.s.DeleteKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return noContent(w)
}

func (h *rest) addKeyTo(w http.ResponseWriter, r *api.Request, userID int64) error {
	var p struct {
		Title   string `json:"title"`
		Key     string `json:"key"`
		Expires string `json:"expires_at"`
		Usage   string `json:"usage_type"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	expires, err := expiresIn(p.Expires)
	if err != nil {
		return err
	}
	k, err := h.s.AddKey(r.Context(), r.Who, Key{UserID: userID, Usage: KeyUsage(p.Usage), Title: p.Title, PublicKey: p.Key, ExpiresAt: expires})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, keyShape(k))
}

func (h *rest) addOwnKey(w http.ResponseWriter, r *api.Request) error {
	id, err := needUser(r)
	if err != nil {
		return err
	}
	return h.addKeyTo(w, r, id)
}

func (h *rest) addUserKey(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	if _, err := h.s.User(r.Context(), id); err != nil {
		return err
	}
	return h.addKeyTo(w, r, id)
}

func (h *rest) auditEvents(w http.ResponseWriter, r *api.Request) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.AuditEvents(r.Context(), AuditFilter{}, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := make([]map[string]any, len(list))
	for i, e := range list {
		out[i] = map[string]any{"id": e.ID, "author_id": e.ActorID, "entity_id": e.TargetID, "entity_type": e.TargetType, "event_name": e.Action, "created_at": e.At,
			"details": map[string]any{"author_name": e.Actor, "target_type": e.TargetType, "target_details": e.Target, "ip_address": e.Address, "custom_message": e.Details}}
	}
	return api.List(w, r, p, total, out)
}
