package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// resourceActions lists what can be done with a resource besides syncing it.
// Without it the page still shows the resource.
func (s *Server) resourceActions(r *Request, v *resourceView) {
	if !v.Act || v.UID == "" {
		return
	}
	token, err := s.Operations.Token(r.Context(), r.Who)
	if err == nil {
		v.Actions, err = s.Operations.Server.Actions(r.Context(), token, v.App, v.Node)
	}
	if err != nil {
		v.Problem = delivery.UserMessage(err)
	}
}

// actOnResource runs an action of Argo CD, such as restart, or deletes one
// resource, in the caller's name.
func (s *Server) actOnResource(w http.ResponseWriter, r *Request) error {
	does := r.PathValue("does")
	rights := map[string]need{"act": toAct, "delete": toManage}
	n, ok := rights[does]
	if !ok {
		return notFound()
	}
	a, _, err := s.application(r, n)
	if err != nil {
		return err
	}
	node, err := s.resourceOf(r, a)
	if err != nil {
		return err
	}
	token, err := s.Operations.Token(r.Context(), r.Who)
	if err != nil {
		return err
	}
	what := node.Kind + " " + node.Name
	to, notice, audit := node.Link, "", "application.resource.deleted"
	if does == "delete" {
		err = s.Operations.Server.DeleteResource(r.Context(), token, a.Name, node.Node, r.FormValue("force") != "", r.FormValue("orphan") != "")
		to, notice = applicationPath(a.Name), what+" is being deleted."
	} else {
		action := r.FormValue("action")
		if err = s.knownAction(r, token, a, node, action); err == nil {
			err = s.Operations.Server.Act(r.Context(), token, a.Name, node.Node, action)
		}
		notice, audit = what+": "+action+" is under way.", "application.resource."+action
	}
	if err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, audit, "application", 0, a.Name, strings.TrimSpace(node.Namespace+" "+what))
	return redirect(w, r, to, notice)
}

// knownAction refuses what the resource does not offer, before it is noted.
func (s *Server) knownAction(r *Request, token string, a *gitops.Application, node appNode, action string) error {
	list, err := s.Operations.Server.Actions(r.Context(), token, a.Name, node.Node)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(o gitops.ResourceAction) bool { return o.Name == action && !o.Disabled }) {
		return delivery.Errorf(delivery.Invalid, "%s %s has no action %q now.", node.Kind, node.Name, action)
	}
	return nil
}
