package web

import (
	"net/http"
	"sort"
	"strconv"

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
	Rollouts func() (*rollout.Client, error)
}

func (s *Server) operationsRoutes() {
	s.handle("GET /-/applications", s.applicationsPage)
	s.handle("GET /-/applications/{name}", s.applicationPage)
	s.handle("POST /-/applications/{name}/{action}", s.applicationAction)
	s.rolloutRoutes()
}

// operator refuses who may not see what runs: everybody who is signed in may
// look, administrators may act.
func operator(r *Request, act bool) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if act && !r.Who.User.Admin {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Only administrators may do this here; push to the GitOps repository instead."}
	}
	return nil
}

type applicationsView struct{ Applications []*gitops.Application }

func (s *Server) applicationsPage(w http.ResponseWriter, r *Request) error {
	if err := operator(r, false); err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	list, err := client.List(r.Context())
	if err != nil {
		return err
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	v := applicationsView{list}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "applications", "applications", v)
	}
	return s.render(w, r, http.StatusOK, "applications", Page{Title: "Applications", Data: v})
}

// applicationView is one Application with its tree and what differs.
type applicationView struct {
	*gitops.Application
	Nodes       []gitops.Node
	Differences []gitops.Difference
	Problem     string // why tree and differences are missing
	Failure     string
	MayAct      bool
}

func (s *Server) applicationPage(w http.ResponseWriter, r *Request) error {
	if err := operator(r, false); err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	a, err := client.Get(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	v := applicationView{Application: a, Failure: a.Failed(), MayAct: r.Who.User.Admin}
	if v.Nodes, err = s.Operations.Server.Tree(r.Context(), a.Name); err != nil {
		v.Problem = delivery.UserMessage(err)
	}
	if a.Sync.Status == "OutOfSync" {
		if v.Differences, err = s.Operations.Server.Differences(r.Context(), a.Name); err != nil {
			v.Problem = delivery.UserMessage(err)
		}
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "application", "application", v)
	}
	return s.render(w, r, http.StatusOK, "application", Page{Title: a.Name, Data: v})
}

func (s *Server) applicationAction(w http.ResponseWriter, r *Request) error {
	if err := operator(r, true); err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	name, notice := r.PathValue("name"), ""
	switch r.PathValue("action") {
	case "refresh":
		err, notice = client.Refresh(r.Context(), name, r.FormValue("hard") != ""), "Argo CD compares again."
	case "sync":
		err = client.Sync(r.Context(), name, gitops.SyncOptions{Prune: r.FormValue("prune") != "", By: r.Who.User.Username})
		notice = "The sync has started."
	case "rollback":
		id, parseErr := strconv.ParseInt(r.FormValue("id"), 10, 64)
		if parseErr != nil {
			return &delivery.Error{Kind: delivery.Invalid, Message: "Name the entry of the history to go back to."}
		}
		err, notice = client.Rollback(r.Context(), name, id, false, r.Who.User.Username), "The rollback has started."
	case "terminate":
		err, notice = client.Terminate(r.Context(), name), "The running operation is being ended."
	default:
		return notFound()
	}
	if err != nil {
		return err
	}
	return redirect(w, r, "/-/applications/"+name, notice)
}
