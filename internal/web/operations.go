package web

import (
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// Operations are what the pages of applications and rollouts are made of. It
// is reached through functions, as the cluster's credentials appear after the
// platform has started; they return an error of kind Unavailable before that.
type Operations struct {
	Apps     func() (*gitops.Client, error)
	Server   *gitops.Server // Argo CD's API: tree, differences
	Mirror   *gitops.Mirror // the Applications, followed by a watch
	Reverter gitops.Reverter
	Rollouts func() (*rollout.Client, error)

	commits commitMemory
}

func (s *Server) operationsRoutes() {
	s.handle("GET /-/applications", s.applicationsPage)
	s.handle("GET /-/applications/{name}", s.applicationPage)
	s.handle("GET /-/applications/{name}/resource", s.resourcePage)
	s.handle("GET /-/applications/{name}/logs", s.podLogsPage)
	s.handle("GET /-/applications/{name}/sync", s.syncForm)
	s.handle("POST /-/applications/{name}/{action}", s.applicationAction)
	s.rolloutRoutes()
}
