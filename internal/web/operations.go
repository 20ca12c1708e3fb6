package web

import (
	"context"

	"github.com/slipwayhq/slipway/internal/delivery"
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
	// Token makes a token of Argo CD's with a person's rights, for what Argo
	// CD's own policy decides.
	Token    func(ctx context.Context, who delivery.Identity) (string, error)
	Rollouts func() (*rollout.Client, error)

	commits commitMemory
}

func (s *Server) operationsRoutes() {
	s.handle("GET /-/applications", s.applicationsPage)
	s.handle("POST /-/applications", s.applicationsAction)
	s.handle("GET "+declarePath, s.declareForm)
	s.handle("POST "+declarePath, s.declare)
	s.handle("GET "+setsPath, s.setsPage)
	s.handle("GET "+setsPath+"/{set}", s.setPage)
	s.handle("POST "+setsPath+"/{set}/{action}", s.setAction)
	s.handle("GET "+projectsPath, s.appProjectsPage)
	s.handle("GET "+projectsPath+"/{project}", s.appProjectPage)
	s.handle("POST "+projectsPath+"/{project}/delete", s.deleteAppProject)
	s.handle("GET /-/applications/{name}", s.applicationPage)
	s.handle("GET /-/applications/{name}/edit", s.editForm)
	s.handle("POST /-/applications/{name}/edit", s.edit)
	s.handle("GET /-/applications/{name}/logs/stream", s.podLogsStream)
	s.handle("GET /-/applications/{name}/resource", s.resourcePage)
	s.handle("POST /-/applications/{name}/resource/{does}", s.actOnResource)
	s.handle("GET /-/applications/{name}/logs", s.podLogsPage)
	s.handle("GET /-/applications/{name}/sync", s.syncForm)
	s.handle("POST /-/applications/{name}/{action}", s.applicationAction)
	s.rolloutRoutes()
}
