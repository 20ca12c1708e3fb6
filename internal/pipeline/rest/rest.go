// Package rest serves the parts of the REST API v4 that belong to pipelines:
// pipelines, jobs, logs, artifacts, variables, schedules, triggers,
// environments, deployments, runners and the linter.
//
// It owns their JSON shapes, which are GitLab's (doc/api). It receives requests
// from an api.Router and emits calls of the pipeline engine. It must not import
// the store or another stage.
package rest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// Groups finds groups on behalf of a caller.
type Groups interface {
	// VisibleGroup returns the group that ref names and the caller's role in it.
	VisibleGroup(ctx context.Context, who delivery.Identity, ref string) (delivery.Group, delivery.Role, error)
}

type server struct {
	*pipeline.Engine
	groups Groups
}

var (
	guest      = api.Need{Role: delivery.Guest}
	guestOrJob = api.Need{Role: delivery.Guest, Scopes: []string{"read_api", delivery.ScopeJob}}
	developer  = api.Need{Role: delivery.Developer}
	maintainer = api.Need{Role: delivery.Maintainer}
	admin      = api.Need{Admin: true}
)

// Register adds the routes. groups may be nil: group variables and runners are
// then not offered.
func Register(rt *api.Router, e *pipeline.Engine, groups Groups) {
	s := &server{e, groups}
	s.pipelines(rt)
	s.jobs(rt)
	s.variables(rt)
	s.secrets(rt)
	s.schedules(rt)
	s.triggers(rt)
	s.environments(rt)
	s.runners(rt)
	s.lint(rt)
}

// number reads a numeric path value.
func number(r *api.Request, name string) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil || n <= 0 {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "Not Found"}
	}
	return n, nil
}

func missing(what string) error {
	return &delivery.Error{Kind: delivery.NotFound, Message: what + " Not Found"}
}

func page(p api.Page) pipeline.Page { return pipeline.Page{Limit: p.PerPage, Offset: p.Offset()} }

// userID is the account that acts, 0 for none.
func userID(r *api.Request) int64 {
	if r.Who.User == nil {
		return 0
	}
	return r.Who.User.ID
}

// when is a time in JSON; null for none.
func when(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// object is a JSON object; its keys are sorted when written.
type object = map[string]any

// user is the short form of an account.
func (s *server) user(ctx context.Context, id int64) (any, error) {
	if id == 0 {
		return nil, nil
	}
	u, err := s.UsersPort().User(ctx, id)
	if delivery.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	state := "active"
	if u.Blocked {
		state = "blocked"
	}
	return object{"id": u.ID, "username": u.Username, "name": u.Name, "state": state, "avatar_url": nil, "web_url": s.ExternalURL() + "/" + u.Username}, nil
}

// mayRun checks that the caller may run pipelines on a ref.
func (s *server) mayRun(r *api.Request, name string, tag bool) error {
	ok, err := s.RepositoriesPort().MayUpdate(r.Context(), userID(r), r.Project.ID, name, tag)
	if err != nil {
		return err
	}
	if !ok {
		return delivery.Errorf(delivery.Forbidden, "You do not have sufficient permission to run a pipeline on '%s'. Please select a different branch or contact your administrator for assistance.", name)
	}
	return nil
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) webURL(p delivery.Project, format string, args ...any) string {
	return s.ExternalURL() + "/" + p.FullPath + "/-/" + fmt.Sprintf(format, args...)
}
