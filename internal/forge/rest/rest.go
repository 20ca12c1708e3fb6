// Package rest answers the API v4 routes of the forge: projects, repositories,
// branches, tags, commits, files, merge requests, releases, webhooks and
// search. The shapes are GitLab's, so that its clients work.
//
// It receives requests from the api router and calls the forge; it must not
// import another stage, the store or the web.
package rest

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// Accounts is what the routes ask about people and groups.
type Accounts interface {
	User(ctx context.Context, id int64) (delivery.User, error)
	UserByName(ctx context.Context, login string) (delivery.User, error)
	VisibleGroup(ctx context.Context, who delivery.Identity, ref string) (delivery.Group, delivery.Role, error)
	UserRole(ctx context.Context, u delivery.User, projectID int64) (delivery.Role, error)
	Avatars
}

// Avatars keeps the pictures of users, groups and projects; the kind is one of
// these words.
type Avatars interface {
	AvatarPathOf(kind string, id int64) string
	StoreProjectAvatar(ctx context.Context, who delivery.Identity, projectID int64, r *http.Request) error
	ServeProjectAvatar(w http.ResponseWriter, r *http.Request, projectID int64) error
}

// Version is what GET /version tells; clients choose features by it.
const Version = "17.9.0"

type handlers struct {
	f        *forge.Service
	accounts Accounts
	url      string
	revision string
}

// Register registers the forge's routes. revision is the platform's own
// version.
func Register(rt *api.Router, f *forge.Service, accounts Accounts, revision string) {
	h := &handlers{f: f, accounts: accounts, url: f.ExternalURL(), revision: revision}
	rt.Handle("GET /version", api.Need{Scopes: []string{"read_user", "read_api"}}, h.version)
	rt.Handle("GET /metadata", api.Need{Scopes: []string{"read_user", "read_api"}}, h.version)
	h.projects(rt)
	h.refs(rt)
	h.repository(rt)
	h.commits(rt)
	h.files(rt)
	h.mergeRequests(rt)
	h.notes(rt)
	h.draftNotes(rt)
	h.todos(rt)
	h.releases(rt)
	h.hooks(rt)
	h.search(rt)
}

func (h *handlers) version(w http.ResponseWriter, r *api.Request) error {
	return api.WriteJSON(w, http.StatusOK, map[string]any{"version": Version, "revision": h.revision, "enterprise": false, "kas": map[string]any{"enabled": false, "externalUrl": nil, "version": nil}})
}

// code wraps handlers that show a repository's content, which guests of a
// private project may not see.
func code(fn api.Handler) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		if !forge.CanRead(r.Project, r.Role) {
			if !r.Who.Signed() {
				return &delivery.Error{Kind: delivery.NotFound, Message: "404 Project Not Found"}
			}
			return forbidden()
		}
		return fn(w, r)
	}
}

// reader needs what code needs, and also accepts tokens that may only read
// repositories, and jobs.
var reader = api.Need{Role: delivery.Guest, Scopes: []string{"read_api", "read_repository"}}

func forbidden() error { return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"} }

func notFound(what string) error {
	return &delivery.Error{Kind: delivery.NotFound, Message: "404 " + what + " Not Found"}
}

func pathID(r *api.Request, name string) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil || id <= 0 {
		return 0, notFound("")
	}
	return id, nil
}

// actor is the id of the user who acts.
func actor(r *api.Request) int64 {
	if r.Who.User != nil {
		return r.Who.User.ID
	}
	return 0
}

// optional gives nil, and so null, for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// paged cuts a page out of a complete list and writes it.
func paged[T any](w http.ResponseWriter, r *api.Request, all []T) error {
	p := api.PageOf(r.Request)
	total := len(all)
	return api.List(w, r, p, total, all[min(p.Offset(), total):min(p.Offset()+p.PerPage, total)])
}

type userJSON struct {
	ID        int64  `json:"id"`
	Username  string `json:"username"`
	Name      string `json:"name"`
	State     string `json:"state"`
	AvatarURL any    `json:"avatar_url"`
	WebURL    string `json:"web_url"`
}

func (h *handlers) userShape(u delivery.User) *userJSON {
	state := "active"
	if u.Blocked {
		state = "blocked"
	}
	return &userJSON{ID: u.ID, Username: u.Username, Name: u.Name, State: state, AvatarURL: h.avatar("user", u.ID), WebURL: h.url + "/" + u.Username}
}

// avatar is the address of a picture, or null.
func (h *handlers) avatar(kind string, id int64) any {
	if path := h.accounts.AvatarPathOf(kind, id); path != "" {
		return h.url + path
	}
	return nil
}

// user looks a user up; one that is gone is shown as a ghost.
func (h *handlers) user(ctx context.Context, id int64) (*userJSON, error) {
	if id == 0 {
		return nil, nil
	}
	u, err := h.accounts.User(ctx, id)
	if delivery.IsNotFound(err) {
		return &userJSON{ID: id, Username: "ghost", Name: "Ghost User", State: "active", WebURL: h.url + "/ghost"}, nil
	}
	if err != nil {
		return nil, err
	}
	return h.userShape(u), nil
}

func (h *handlers) users(ctx context.Context, ids []int64) ([]*userJSON, error) {
	out := []*userJSON{}
	for _, id := range ids {
		u, err := h.user(ctx, id)
		if err != nil {
			return nil, err
		}
		if u != nil {
			out = append(out, u)
		}
	}
	return out, nil
}

func parseTime(s string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

func isTrue(s string) bool { return s == "true" || s == "1" || strings.EqualFold(s, "yes") }

// shapes answers each of a list as the API shows it.
func shapes[T any](r *api.Request, list []T, shape func(*api.Request, T) (map[string]any, error)) ([]map[string]any, error) {
	out := make([]map[string]any, 0, len(list))
	for _, v := range list {
		one, err := shape(r, v)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}
