// Package web is the user interface: server-rendered pages that read without
// JavaScript, static assets, and live fragments.
//
// It receives HTTP requests and calls the stages through the interfaces and
// services in Deps; it emits HTML. It must not import the store, and no stage
// may import it.
//
// A page is one typed struct and one template of the same name; handlers
// return errors, which become pages too. Routes below a project are those of
// GitLab: /group/project/-/pipelines and so on, so that links and habits work.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/ingress/route"
	"github.com/slipwayhq/slipway/internal/openid"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/scan"
)

//go:embed all:templates all:static
var assets embed.FS

// Deps are what the pages are made of. A nil part hides its pages.
type Deps struct {
	Access *access.Service
	Forge  *forge.Service
	// Pipelines is the CI engine; its pages need Forge too.
	Pipelines *pipeline.Engine
	// Registry, Scan and RunsWhere make the pages of images. RunsWhere names
	// the workloads that run an image, as namespace/name.
	Registry  *registry.Registry
	Scan      *scan.Service
	RunsWhere func(ctx context.Context, image registry.Image) ([]string, error)
	// Timeline makes the pages of the release timeline.
	Timeline Timeline
	// Places tells to which projects Rollouts belong; without it only
	// administrators see them.
	Places Places
	// Title names the instance; ExternalURL is its base URL without a slash at
	// the end.
	Title       string
	ExternalURL string
	Log         *slog.Logger
	// Metrics answers queries; Routes lists where applications are reached.
	Metrics Metrics
	Routes  func() []route.Route
	// AppsDomain is the domain of the applications and AppsPort the ingress's
	// HTTP port; empty where nothing can be deployed.
	AppsDomain string
	AppsPort   int
	// Authority returns the platform's root certificate as PEM, nil while there
	// is none; SecureURLs are the platform's addresses with TLS.
	Authority  func() []byte
	SecureURLs []string
	// Operations is nil where there is no cluster.
	Operations *Operations
	// SignOn lets people sign in to other programs; nil hides its page.
	SignOn *openid.Provider
	// Platform reports the components for the status page.
	Platform func(ctx context.Context) (any, error)
}

// Server serves the pages.
type Server struct {
	Deps
	templates *templates
	static    http.Handler
	hashes    map[string]string // asset name -> content hash, for cache-busting links
	global    *http.ServeMux
	project   *http.ServeMux // patterns below /-/ of a project, rooted at "/"
	group     *http.ServeMux // the same of a group
	patterns  []Pattern
	csrf      *http.CrossOriginProtection
	pages     map[string]bool // paths of pages that exist: "/-/rollouts", and "merge_requests" below a project
}

// Handler answers a request for a page. An error is rendered as a page; the
// handler must not have written anything when it returns one.
type Handler func(w http.ResponseWriter, r *Request) error

// Request is a request with what is known of the caller and, below a project,
// of that.
type Request struct {
	*http.Request
	Who     delivery.Identity
	Project *delivery.Project
	Group   *delivery.Group
	Role    delivery.Role // in the project or the group
}

// Pattern is a registered page: an http.ServeMux pattern, of the whole site or
// of what follows /-/ of a project or a group.
type Pattern struct {
	Area    string // global, project or group
	Pattern string
}

// Patterns lists the registered pages, for the test that walks all of them.
func (s *Server) Patterns() []Pattern { return slices.Clone(s.patterns) }

// Page is what every template gets: the layout's needs and the page's own
// data in Data.
type Page struct {
	Title   string
	Site    string
	User    *delivery.User
	Project *delivery.Project
	Group   *delivery.Group
	Role    delivery.Role
	Active  string // the active entry of the navigation, such as "pipelines"
	Notice  string
	Path    string
	Wide    bool
	Todos   int // entries of the person's to-do list
	Data    any
}

// New builds the server and parses every template, so that a broken one is
// found at start.
func New(d Deps) (*Server, error) {
	s := &Server{Deps: d, hashes: map[string]string{}, global: http.NewServeMux(), project: http.NewServeMux(), group: http.NewServeMux(), csrf: http.NewCrossOriginProtection(), pages: map[string]bool{}}
	if s.Title == "" {
		s.Title = "Slipway"
	}
	static, err := fs.Sub(assets, "static")
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	if err := s.hashAssets(static); err != nil {
		return nil, err
	}
	s.static = http.StripPrefix("/-/static/", http.FileServerFS(static))
	funcs := template.FuncMap{}
	for _, more := range []template.FuncMap{s.funcs(), s.ciFuncs(), s.scanFuncs(), timelineFuncs()} {
		maps.Copy(funcs, more)
	}
	if s.templates, err = newTemplates(assets, "templates", funcs); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	s.routes()
	return s, nil
}

func (s *Server) hashAssets(static fs.FS) error {
	return fs.WalkDir(static, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(static, name)
		if err != nil {
			return fmt.Errorf("web: %w", err)
		}
		sum := sha256.Sum256(b)
		s.hashes[name] = hex.EncodeToString(sum[:6])
		return nil
	})
}

// render writes a page. Nothing is sent before the template has succeeded.
func (s *Server) render(w http.ResponseWriter, r *Request, status int, name string, p Page) error {
	t, err := s.templates.page(name, layoutFile)
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	p.Site, p.User, p.Path = s.Title, r.Who.User, r.URL.RequestURI()
	if p.Project == nil {
		p.Project, p.Group, p.Role = r.Project, r.Group, r.Role
	}
	if c, err := r.Cookie("slipway_notice"); err == nil && p.Notice == "" {
		p.Notice = decodeNotice(c.Value)
		http.SetCookie(w, &http.Cookie{Name: "slipway_notice", Path: "/", MaxAge: -1})
	}
	if p.Todos, err = s.waiting(r); err != nil {
		s.Log.Warn("to-do list not counted", "err", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return fmt.Errorf("web: page %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(b.Bytes()); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

// fragment writes a template's named block without the layout, for live
// updates.
func (s *Server) fragment(w http.ResponseWriter, page, block string, data any) error {
	t, err := s.templates.page(page, block)
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("web: fragment %s of %s: %w", block, page, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(b.Bytes()); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

// handle registers a page outside of projects.
func (s *Server) handle(pattern string, h Handler) {
	if path, ok := strings.CutPrefix(pattern, "GET "); ok {
		s.pages[path] = true
	}
	s.patterns = append(s.patterns, Pattern{Area: "global", Pattern: pattern})
	s.global.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		s.serve(w, requestOf(req), h)
	})
}

// handleProject registers a page of a project. The pattern is that of the part
// after /-: "GET /pipelines/{id}". The project's own page is "GET /{$}". least
// is the role that the page needs.
func (s *Server) handleProject(pattern string, least delivery.Role, h Handler) {
	if path, ok := strings.CutPrefix(pattern, "GET /"); ok {
		s.pages[path] = true
	}
	s.patterns = append(s.patterns, Pattern{Area: "project", Pattern: pattern})
	s.project.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		s.serve(w, requestOf(req), func(w http.ResponseWriter, r *Request) error {
			if r.Role < least && least > delivery.Guest {
				if !r.Who.Signed() {
					return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
				}
				return &delivery.Error{Kind: delivery.Forbidden, Message: fmt.Sprintf("This needs the role %s in the project.", least)}
			}
			return h(w, r)
		})
	})
}

type requestKey struct{}

// requestOf returns the Request that ServeHTTP prepared. Handlers behind the
// inner muxes only see an *http.Request, so it travels in its context.
func requestOf(req *http.Request) *Request {
	r, ok := req.Context().Value(requestKey{}).(*Request)
	if !ok {
		return &Request{Request: req}
	}
	own := *r
	own.Request = req
	return &own
}

func (s *Server) serve(w http.ResponseWriter, r *Request, h Handler) {
	err := h(w, r)
	if err == nil || delivery.KindOf(err) == delivery.Canceled {
		return
	}
	s.fail(w, r, err)
}

// fail renders an error as a page. Who is not signed in is sent to the sign-in
// page where that may help.
func (s *Server) fail(w http.ResponseWriter, r *Request, err error) {
	kind := delivery.KindOf(err)
	if kind == delivery.InternalError {
		s.Log.Error("page failed", "path", r.URL.Path, "err", err)
	}
	if !r.Who.Signed() && (kind == delivery.Unauthenticated || kind == delivery.NotFound) && r.Method == http.MethodGet && r.Header.Get("X-Fragment") == "" {
		if kind == delivery.Unauthenticated {
			http.Redirect(w, r.Request, "/users/sign_in?return_to="+template.URLQueryEscaper(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
	}
	status := statusOf(kind)
	page := struct {
		Status  int
		Message string
		SignIn  bool
	}{status, delivery.UserMessage(err), !r.Who.Signed()}
	var e *delivery.Error
	if kind == delivery.NotFound && (!errors.As(err, &e) || e.Next == "") {
		page.Message = "This page does not exist, or you may not see it."
	}
	if err := s.render(w, r, status, "error", Page{Title: http.StatusText(status), Data: page}); err != nil {
		s.Log.Error("error page failed", "err", err)
		http.Error(w, http.StatusText(status), status)
	}
}

func statusOf(kind delivery.Kind) int {
	switch kind {
	case delivery.NotFound:
		return http.StatusNotFound
	case delivery.Invalid, delivery.Stalled:
		return http.StatusUnprocessableEntity
	case delivery.Unauthenticated:
		return http.StatusUnauthorized
	case delivery.Forbidden:
		return http.StatusForbidden
	case delivery.Conflict:
		return http.StatusConflict
	case delivery.TooLarge:
		return http.StatusRequestEntityTooLarge
	case delivery.TooMany:
		return http.StatusTooManyRequests
	case delivery.Unavailable, delivery.Waiting:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// ServeHTTP finds out who asks and for which project, then routes.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data: https:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'")
	if strings.HasPrefix(req.URL.Path, "/-/static/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		s.static.ServeHTTP(w, req)
		return
	}
	r := &Request{Request: req}
	if err := s.csrf.Check(req); err != nil {
		s.fail(w, r, &delivery.Error{Kind: delivery.Forbidden, Message: "The form came from another site and was refused.", Err: err})
		return
	}
	who, err := s.Access.Authenticate(req)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	r.Who = who
	if err := scopeOf(who, req.Method); err != nil {
		s.fail(w, r, err)
		return
	}
	r.Request = req.WithContext(context.WithValue(req.Context(), requestKey{}, r))
	s.route(w, r)
}

// scopeOf refuses tokens that are not made for all of a person's pages: those of
// jobs, of deployments and of narrower scopes. Pages can do what the whole API
// can, and show secrets to maintainers.
func scopeOf(who delivery.Identity, method string) error {
	need := []string{}
	if method == http.MethodGet || method == http.MethodHead {
		need = append(need, "read_api")
	}
	if who.Scopes == nil || who.HasScope(need...) {
		return nil
	}
	return &delivery.Error{Kind: delivery.Forbidden, Message: "This token's scopes do not cover the pages.", Next: "Use one with the scope api, or the REST API."}
}

// reserved are first path segments that no group or user can have.
var reserved = map[string]bool{
	"-": true, "users": true, "dashboard": true, "admin": true, "explore": true, "groups": true, "projects": true,
	"search": true, "help": true, "profile": true, "api": true, "v2": true, "jwt": true, "prometheus": true, "loki": true, "argocd": true, "uploads": true, "oauth": true,
}

// route sends a request to a global page or to a page of the project that its
// path begins with.
func (s *Server) route(w http.ResponseWriter, r *Request) {
	p := r.URL.Path
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if first == "groups" && p != "/groups" && p != "/groups/new" && s.Forge != nil {
		s.routeGroup(w, r)
		return
	}
	if p == "/" || reserved[first] {
		s.global.ServeHTTP(w, r.Request)
		return
	}
	full, rest, isPage := strings.Cut(strings.Trim(p, "/"), "/-/")
	if !isPage {
		full, rest = strings.TrimSuffix(full, "/-"), ""
	}
	if !isPage && !strings.Contains(full, "/") {
		s.serve(w, r, func(w http.ResponseWriter, r *Request) error { return s.namespacePage(w, r, full) })
		return
	}
	project, role, err := s.Access.VisibleProject(r.Context(), r.Who, full)
	if err != nil {
		if !isPage && delivery.IsNotFound(err) {
			s.serve(w, r, func(w http.ResponseWriter, r *Request) error { return s.namespacePage(w, r, full) })
			return
		}
		s.fail(w, r, err)
		return
	}
	if !strings.EqualFold(project.FullPath, full) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		// It was moved: the old address leads to the new one.
		to := *r.URL
		to.Path, to.RawPath = projectPath(project.FullPath), ""
		if isPage {
			to.Path = projectPath(project.FullPath, rest)
		}
		http.Redirect(w, r.Request, to.String(), http.StatusFound)
		return
	}
	r.Project, r.Role = &project, role
	own := *r
	s.project.ServeHTTP(w, below(r, rest, isPage, &own))
}

// below is the request for the part of the address after /-/, which carries
// what was found out about the part before.
func below(r *Request, rest string, isPage bool, own *Request) *http.Request {
	inner := r.Request.Clone(r.Context())
	inner.URL.Path, inner.URL.RawPath = "/"+rest, ""
	if raw := r.URL.EscapedPath(); isPage {
		if _, after, ok := strings.Cut(raw, "/-/"); ok {
			inner.URL.RawPath = "/" + after
		}
	}
	return inner.WithContext(context.WithValue(r.Context(), requestKey{}, own))
}
