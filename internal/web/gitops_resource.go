package web

import (
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// resourceView is one resource of an Application: as it is, as git wants it, what
// differs, and what was reported of it.
type resourceView struct {
	appNode
	App     string
	AppLink string
	Tab     string // events, live, desired or diff
	Tabs    []resourceTab
	Events  []gitops.Event
	Lines   []template.HTML // of a manifest
	Text    string          // the same, to be copied
	Files   []fileDiff
	Empty   string // why there is nothing to show
	Self    string
	At      string // where its forms go
	Problem string // why there are no actions

	Act, Manage bool
	Actions     []gitops.ResourceAction
}

type resourceTab struct {
	Name, Title, Link string
}

// resourceOf finds the resource in the Application's tree. Nothing outside of it
// is shown, so that rights in an Application are rights in nothing else.
func (s *Server) resourceOf(r *Request, a *gitops.Application) (appNode, error) {
	nodes, err := s.Operations.Server.Tree(r.Context(), a.Name)
	if err != nil {
		return appNode{}, err
	}
	for _, n := range appTree(a, nodes) {
		if n.Kind == r.FormValue("kind") && n.Name == r.FormValue("resource") && n.Namespace == r.FormValue("namespace") && n.Group == r.FormValue("group") {
			return n, nil
		}
	}
	return appNode{}, &delivery.Error{Kind: delivery.NotFound, Message: "The application " + a.Name + " has no such resource (any more).", Next: "Go back to its tree."}
}

func (s *Server) resourcePage(w http.ResponseWriter, r *Request) error {
	a, rights, err := s.application(r, toLook)
	if err != nil {
		return err
	}
	n, err := s.resourceOf(r, a)
	if err != nil {
		return err
	}
	v := resourceView{appNode: n, App: a.Name, AppLink: applicationPath(a.Name), At: applicationPath(a.Name) + "/resource", Tab: r.FormValue("tab"), Act: rights.Act, Manage: rights.Manage}
	for _, t := range []resourceTab{{Name: "events", Title: "Events"}, {Name: "live", Title: "Live"}, {Name: "desired", Title: "Desired"}, {Name: "diff", Title: "Difference"}} {
		if n.Sync == "" && (t.Name == "desired" || t.Name == "diff") {
			continue // made by a controller, not declared in git
		}
		t.Link = n.Link + "&tab=" + t.Name
		v.Tabs = append(v.Tabs, t)
	}
	if !slices.ContainsFunc(v.Tabs, func(t resourceTab) bool { return t.Name == v.Tab }) {
		v.Tab = "events"
	}
	v.Self = n.Link + "&tab=" + v.Tab
	if err := s.fillResource(r, &v); err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "application_resource", "resource", v)
	}
	s.resourceActions(r, &v)
	return s.render(w, r, http.StatusOK, "application_resource", Page{Title: n.Kind + " " + n.Name, Data: v})
}

// fillResource loads what the tab shows.
func (s *Server) fillResource(r *Request, v *resourceView) error {
	ctx := r.Context()
	switch v.Tab {
	case "events":
		client, err := s.Operations.Apps()
		if err != nil {
			return err
		}
		v.Events, err = client.ResourceEvents(ctx, gitops.ResourceKey{Kind: v.Kind, Namespace: v.Namespace, Name: v.Name})
		v.Events = v.Events[:min(len(v.Events), 4*eventsShown)]
		return err
	case "live":
		if v.UID == "" {
			v.Empty = "It is not in the cluster."
			return nil
		}
		raw, err := s.Operations.Server.Manifest(ctx, v.App, v.Node)
		if err != nil {
			return err
		}
		return v.show(string(raw))
	}
	list, err := s.Operations.Server.Differences(ctx, v.App)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(d gitops.Difference) bool {
		return d.ResourceKey == gitops.ResourceKey{Group: v.Group, Kind: v.Kind, Namespace: v.Namespace, Name: v.Name}
	})
	switch {
	case i < 0:
		v.Empty = "Argo CD does not compare it: it is a hook, or not declared in git."
	case v.Tab == "desired" && list[i].Target == "":
		v.Empty = "Git does not declare it any more."
	case v.Tab == "desired":
		return v.show(list[i].Target)
	default:
		if v.Files, err = differenceFiles(list[i : i+1]); err != nil {
			return err
		}
		if len(v.Files) == 0 {
			v.Empty = "Cluster and git agree."
		}
	}
	return nil
}

func (v *resourceView) show(manifest string) (err error) {
	if v.Text, err = gitops.Text(manifest); err != nil {
		return err
	}
	v.Lines = highlightLines("manifest.yaml", v.Text)
	return nil
}

// status is the word that kubectl shows for a pod, and more of the kind.
func (n appNode) Status() string { return strings.TrimSpace(n.Info["Status Reason"]) }

// Containers is how many of a pod's containers are ready, such as 1/1.
func (n appNode) Containers() string { return n.Info["Containers"] }

// Restarts counts the restarts of a pod's containers; "" for none.
func (n appNode) Restarts() string { return n.Info["Restart Count"] }

// Revision is the number that a controller gave, such as Rev:2.
func (n appNode) Revision() string { return n.Info["Revision"] }
