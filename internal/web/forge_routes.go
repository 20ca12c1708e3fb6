package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// forgeRoutes registers the pages of accounts, and those of a project that the
// forge alone makes.
func (s *Server) forgeRoutes() {
	s.profileRoutes()
	s.groupRoutes()
	s.avatarRoutes()
	s.editRoutes()
	s.requestRoutes()
	s.forkRoutes()
	s.todoRoutes()
	s.projectSettingsRoutes()
	s.repositoryRoutes()
	s.moveRoutes()
	s.twoFactorRoutes()
	s.hookRoutes()
	s.releaseRoutes()
	s.adminRoutes()
}

// handleOwn registers a page for people who signed in with a browser: tokens
// may neither read nor change the account that they stand for.
func (s *Server) handleOwn(pattern string, h Handler) {
	s.handle(pattern, func(w http.ResponseWriter, r *Request) error {
		if !r.Who.Signed() {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
		}
		if r.Who.Kind != delivery.SessionUser || r.Who.User == nil {
			return &delivery.Error{Kind: delivery.Forbidden, Message: "This page is for people who signed in, not for tokens."}
		}
		return h(w, r)
	})
}

// correctable splits off what the person at a form can put right: the sentence
// to show above it and the status to answer with. Other errors are returned.
func correctable(err error) (message string, status int, rest error) {
	if err == nil {
		return "", http.StatusOK, nil
	}
	switch kind := delivery.KindOf(err); kind {
	case delivery.Invalid, delivery.Conflict, delivery.TooLarge:
		return delivery.UserMessage(err), statusOf(kind), nil
	}
	return "", 0, err
}

// dayOf reads the value of a date field; empty is the zero time. A token or a
// membership ends at the beginning of that day, UTC.
func dayOf(v string) (time.Time, error) {
	if v = strings.TrimSpace(v); v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, v)
	if err != nil {
		return t, &delivery.Error{Kind: delivery.Invalid, Message: "The date must look like 2030-12-31.", Err: err}
	}
	return t, nil
}
