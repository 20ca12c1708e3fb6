package web

import (
	"context"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// appRights is what the caller may do with an Application; see gitops.Rights.
type appRights struct {
	Project           *delivery.Project // its source on this platform, where the caller may see it
	Look, Act, Manage bool
}

// appGate answers for many Applications of one request, asking once per project.
type appGate struct {
	s     *Server
	r     *Request
	known map[string]appRights
}

func (s *Server) appGate(r *Request) (*appGate, error) {
	if r.Who.User == nil {
		return nil, &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	return &appGate{s, r, map[string]appRights{}}, nil
}

// rights are those of the caller's role in the Application's source project.
func (g *appGate) rights(ctx context.Context, a *gitops.Application) (appRights, error) {
	admin := g.r.Who.User.Admin
	path, ok := gitops.SourceProject(g.s.ExternalURL, a)
	if !ok {
		return appRights{Look: admin, Act: admin, Manage: admin}, nil
	}
	if known, ok := g.known[path]; ok {
		return known, nil
	}
	p, role, err := g.s.Access.VisibleProject(ctx, g.r.Who, path)
	if err != nil && !delivery.IsNotFound(err) {
		return appRights{}, err
	}
	rights := appRights{Look: admin, Act: admin, Manage: admin}
	if err == nil {
		rights = appRights{
			Project: &p,
			Look:    admin || role >= gitops.Rights.Look || p.Visibility != delivery.Private,
			Act:     admin || role >= gitops.Rights.Act,
			Manage:  admin || role >= gitops.Rights.Manage,
		}
	}
	g.known[path] = rights
	return rights, nil
}

// need is what a page asks of the caller.
type need int

const (
	toLook need = iota
	toAct
	toManage
)

// application finds the Application of the address and checks the caller's
// rights; one that may not be seen is not there.
func (s *Server) application(r *Request, n need) (*gitops.Application, appRights, error) {
	gate, err := s.appGate(r)
	if err != nil {
		return nil, appRights{}, err
	}
	name := r.PathValue("name")
	a, err := s.oneApplication(r.Context(), name)
	if err != nil {
		return nil, appRights{}, err
	}
	rights, err := gate.rights(r.Context(), a)
	switch {
	case err != nil:
		return nil, appRights{}, err
	case !rights.Look:
		return nil, appRights{}, delivery.Errorf(delivery.NotFound, "There is no application %s.", name)
	case n == toAct && !rights.Act:
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role " + gitops.Rights.Act.String() + " in the project that the application comes from.", Next: "Or ask one of its members."}
	case n == toManage && !rights.Manage:
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role " + gitops.Rights.Manage.String() + " in the project that the application comes from.", Next: "Or ask one of its members."}
	}
	return a, rights, err
}

// oneApplication takes the Application from the mirror where that is fresh.
func (s *Server) oneApplication(ctx context.Context, name string) (*gitops.Application, error) {
	list, fresh := s.Operations.Mirror.List()
	if fresh {
		for _, a := range list {
			if a.Name == name {
				return a, nil
			}
		}
	}
	// A page right after `kubectl apply` may be ahead of the watch.
	client, err := s.Operations.Apps()
	if err != nil {
		return nil, err
	}
	return client.Get(ctx, name)
}

// allApplications costs no request while the mirror is fresh.
func (s *Server) allApplications(ctx context.Context) ([]*gitops.Application, error) {
	if list, fresh := s.Operations.Mirror.List(); fresh {
		return list, nil
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return nil, err
	}
	return client.List(ctx)
}
