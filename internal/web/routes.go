package web

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// routes registers every page. Each area has a file with its own function.
func (s *Server) routes() {
	s.handle("GET /users/sign_in", s.signInForm)
	s.handle("POST /users/sign_in", s.signIn)
	s.handle("POST /users/sign_out", s.signOut)
	s.handle("GET /-/status", s.statusPage)
	s.metricsRoutes()
	if s.Forge != nil {
		s.dashboardRoutes()
		s.codeRoutes()
		s.forgeRoutes()
		s.startRoutes()
		if s.Pipelines != nil {
			s.ciRoutes()
		}
	}
	if s.Timeline != nil {
		s.timelineRoutes()
	}
	if s.Operations != nil {
		s.operationsRoutes()
	}
	if s.SignOn != nil {
		s.signOnRoutes()
	}
	if s.Registry != nil {
		s.imageRoutes()
		s.imageProtectionRoutes()
	}
	s.scanRoutes()
	s.handle("/", func(http.ResponseWriter, *Request) error { return notFound() })
	for _, mux := range []*http.ServeMux{s.project, s.group} {
		mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
			s.serve(w, requestOf(req), func(http.ResponseWriter, *Request) error { return notFound() })
		})
	}
}

func notFound() error {
	return &delivery.Error{Kind: delivery.NotFound, Message: "This page does not exist."}
}

// statusPage shows the components and the memory budget to administrators.
func (s *Server) statusPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if r.Who.User == nil || !r.Who.User.Admin || s.Platform == nil {
		return notFound()
	}
	report, err := s.Platform(r.Context())
	if err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "status", "status", report)
	}
	return s.render(w, r, http.StatusOK, "status", Page{Title: "Status", Data: report})
}
