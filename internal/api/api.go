// Package api is the plumbing of the REST API v4: routing with access checks,
// GitLab's error bodies, parameters and pagination. The stages register their
// own routes on a Router and keep their own shapes.
//
// It receives HTTP requests under /api/v4 and must import no stage and no
// store; who the caller is and what a project is come through the two
// interfaces that the wiring provides.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Authenticator tells who makes a request: by session cookie, PRIVATE-TOKEN,
// JOB-TOKEN, Authorization header or the private_token and job_token
// parameters. No credentials give the anonymous identity; wrong ones an error
// of kind Unauthenticated.
type Authenticator interface {
	Authenticate(r *http.Request) (delivery.Identity, error)
}

// Projects finds projects on behalf of a caller.
type Projects interface {
	// VisibleProject returns the project that ref names (a number or a full
	// path) and the caller's role in it. Where the caller may not know of the
	// project the error is of kind NotFound.
	VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error)
}

// Request is an HTTP request with what the router found out about it.
type Request struct {
	*http.Request
	Who     delivery.Identity
	Project delivery.Project // set for routes with {project}
	Role    delivery.Role    // the caller's role in Project; Owner for administrators
}

// Handler answers a request. An error is written in GitLab's shape by the
// router; a handler must not have written anything when it returns one.
type Handler func(w http.ResponseWriter, r *Request) error

// Need says what a route asks of the caller.
type Need struct {
	Anyone bool          // the anonymous caller may pass
	Admin  bool          // administrators only
	Role   delivery.Role // least role in {project}; Guest lets everyone pass who may see it
	Scopes []string      // token scopes that suffice besides api; nil: api, and read_api for GET and HEAD
}

// Router routes /api/v4. Register everything before serving.
type Router struct {
	mux      *http.ServeMux
	auth     Authenticator
	projects Projects
	log      *slog.Logger
	patterns []string
}

// NewRouter returns a router without routes.
func NewRouter(auth Authenticator, projects Projects, log *slog.Logger) *Router {
	rt := &Router{mux: http.NewServeMux(), auth: auth, projects: projects, log: log}
	rt.mux.HandleFunc("/api/v4/", func(w http.ResponseWriter, r *http.Request) {
		WriteError(w, &delivery.Error{Kind: delivery.NotFound, Message: "404 Not Found"})
	})
	return rt
}

// Handle registers a handler. The pattern is http.ServeMux's, with its method
// and without the /api/v4 prefix: "GET /projects/{project}/jobs". A path value
// named project is resolved and checked before the handler runs.
func (rt *Router) Handle(pattern string, need Need, h Handler) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		panic("api: pattern without a method: " + pattern)
	}
	hasProject := strings.Contains(path, "{project}")
	rt.patterns = append(rt.patterns, pattern)
	rt.mux.HandleFunc(method+" /api/v4"+path, func(w http.ResponseWriter, req *http.Request) {
		r := &Request{Request: req}
		err := rt.admit(r, need, hasProject)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			rt.fail(w, req, pattern, err)
		}
	})
}

// Patterns lists the registered patterns, for the test that walks every route
// with every role.
func (rt *Router) Patterns() []string { return append([]string(nil), rt.patterns...) }

func (rt *Router) admit(r *Request, need Need, hasProject bool) error {
	who, err := rt.auth.Authenticate(r.Request)
	if err != nil {
		return err
	}
	r.Who = who
	if !who.Signed() && !need.Anyone {
		if !hasProject || need.Role > delivery.Guest {
			return unauthorized()
		}
	}
	if who.Signed() && !who.HasScope(need.scopes(r.Method)...) {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden - the token's scopes do not allow this"}
	}
	admin := who.User != nil && who.User.Admin
	if need.Admin && !admin {
		return forbidden()
	}
	if !hasProject {
		return nil
	}
	r.Project, r.Role, err = rt.projects.VisibleProject(r.Context(), who, r.PathValue("project"))
	if err != nil {
		return err
	}
	if r.Role < need.Role && need.Role > delivery.Guest {
		if !who.Signed() {
			return unauthorized()
		}
		return forbidden()
	}
	return nil
}

func (n Need) scopes(method string) []string {
	if n.Scopes != nil {
		return n.Scopes
	}
	if method == http.MethodGet || method == http.MethodHead {
		return []string{"read_api"}
	}
	return nil
}

func unauthorized() error {
	return &delivery.Error{Kind: delivery.Unauthenticated, Message: "401 Unauthorized"}
}

func forbidden() error {
	return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
}

func (rt *Router) fail(w http.ResponseWriter, r *http.Request, pattern string, err error) {
	kind := delivery.KindOf(err)
	if kind == delivery.InternalError && r.Context().Err() == nil {
		rt.log.Error("request failed", "route", pattern, "err", err)
	}
	WriteError(w, err)
}

// ServeHTTP routes the request.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) { rt.mux.ServeHTTP(w, r) }

var statusOf = map[delivery.Kind]int{
	delivery.NotFound: 404, delivery.Invalid: 400, delivery.Unauthenticated: 401, delivery.Forbidden: 403,
	delivery.Conflict: 409, delivery.TooLarge: 413, delivery.TooMany: 429, delivery.Unavailable: 503,
	delivery.Waiting: 503, delivery.Stalled: 422, delivery.Unimplemented: 501, delivery.Canceled: 499,
}

// Status returns the HTTP status for an error kind.
func Status(kind delivery.Kind) int {
	if s, ok := statusOf[kind]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// WriteError writes err in GitLab's shape: {"message": "..."} or, for invalid
// input with fields, {"message": {"field": ["..."]}}. Details of internal
// errors are not shown.
func WriteError(w http.ResponseWriter, err error) {
	kind := delivery.KindOf(err)
	status := Status(kind)
	var message any
	var e *delivery.Error
	switch {
	case kind == delivery.InternalError || !errors.As(err, &e):
		status, message = http.StatusInternalServerError, "500 Internal Server Error"
	case len(e.Fields) > 0:
		message = e.Fields
	case kind == delivery.NotFound && !strings.HasPrefix(e.Message, "404"):
		message = "404 " + strings.TrimSuffix(e.Message, ".")
	default:
		message = delivery.UserMessage(e)
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Slipway"`)
	}
	WriteJSON(w, status, map[string]any{"message": message})
}

// WriteJSON writes v with the media type that GitLab's runner insists on.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, err = w.Write(body)
	if err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}
