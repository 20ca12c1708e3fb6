package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/ingress/route"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// Places says to which projects Rollouts belong, and takes versions back in
// git. The release timeline implements it.
type Places interface {
	Place(ctx context.Context, namespace, rollout string) (release.Place, error)
	// RoleAt returns what the caller may do with the Rollout of a place.
	RoleAt(ctx context.Context, who delivery.Identity, p release.Place) (delivery.Role, error)
	// TakeBack commits the state before into the GitOps repository.
	TakeBack(ctx context.Context, who delivery.Identity, namespace, rollout string) (string, error)
	// Namespaces returns the namespaces of a project's environments by name.
	Namespaces(ctx context.Context, projectID int64) (map[string]string, error)
	Settings(ctx context.Context, projectID int64) (release.Settings, error)
	SetAutoRevert(ctx context.Context, who delivery.Identity, p delivery.Project, on bool) error
}

func (s *Server) rolloutRoutes() {
	s.handle("GET /-/rollouts", s.rolloutsPage)
	s.handle("GET /-/rollouts/{namespace}/{name}", s.rolloutPage)
	s.handle("POST /-/rollouts/{namespace}/{name}/{action}", s.rolloutAction)
	if s.Places != nil {
		s.handleProject("GET /settings/releases", delivery.Maintainer, s.releaseSettingsPage)
		s.handleProject("POST /settings/releases", delivery.Maintainer, s.updateReleaseSettings)
	}
}

// rolloutRole returns the place of a Rollout and the caller's role there.
// Where nothing is known of its project, only administrators have one.
func (s *Server) rolloutRole(r *Request, namespace, name string) (release.Place, delivery.Role, error) {
	if !r.Who.Signed() {
		return release.Place{}, delivery.NoAccess, signInFirst()
	}
	if s.Places == nil {
		if r.Who.User != nil && r.Who.User.Admin {
			return release.Place{}, delivery.Owner, nil
		}
		return release.Place{}, delivery.NoAccess, nil
	}
	place, err := s.Places.Place(r.Context(), namespace, name)
	if err != nil {
		return place, delivery.NoAccess, err
	}
	role, err := s.Places.RoleAt(r.Context(), r.Who, place)
	return place, role, err
}

// rolloutsView lists the Rollouts that the caller may see.
type rolloutsView struct {
	Rollouts []rolloutRow
	Hidden   bool // there are others
}

type rolloutRow struct {
	*rollout.Rollout
	Place     release.Place
	Addresses []string
}

func (s *Server) rolloutsPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return signInFirst()
	}
	client, err := s.Operations.Rollouts()
	if err != nil {
		return err
	}
	list, err := client.List(r.Context(), "")
	if err != nil {
		return err
	}
	services, err := client.Services(r.Context(), "")
	if err != nil {
		return err
	}
	v := rolloutsView{}
	for _, one := range list {
		place, role, err := s.rolloutRole(r, one.Namespace, one.Name)
		if err != nil {
			return err
		}
		if role < delivery.Reporter {
			v.Hidden = true
			continue
		}
		v.Rollouts = append(v.Rollouts, rolloutRow{one, place, s.addressesOf(one.Namespace, leadsTo(services(one)))})
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "rollouts", "rollouts", v)
	}
	return s.render(w, r, http.StatusOK, "rollouts", Page{Title: "Rollouts", Data: v})
}

func (s *Server) rolloutPage(w http.ResponseWriter, r *Request) error {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	place, role, err := s.rolloutRole(r, namespace, name)
	if err != nil {
		return err
	}
	if role < delivery.Reporter {
		return notFound()
	}
	client, err := s.Operations.Rollouts()
	if err != nil {
		return err
	}
	ro, err := client.Get(r.Context(), namespace, name)
	if err != nil {
		return err
	}
	services, err := client.Services(r.Context(), namespace)
	if err != nil {
		return err
	}
	v := rolloutView{Rollout: ro, Place: place, MayAct: role >= delivery.Developer && r.Who.User != nil, Services: services(ro)}
	v.Addresses = s.addressesOf(ro.Namespace, leadsTo(v.Services))
	if err := s.fillRollout(r, client, &v); err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "rollout", "rollout", v)
	}
	return s.render(w, r, http.StatusOK, "rollout", Page{Title: ro.Name, Wide: true, Data: v})
}

func (s *Server) rolloutAction(w http.ResponseWriter, r *Request) error {
	namespace, name, action := r.PathValue("namespace"), r.PathValue("name"), r.PathValue("action")
	place, role, err := s.rolloutRole(r, namespace, name)
	switch {
	case err != nil:
		return err
	case role < delivery.Reporter:
		return notFound()
	case role < delivery.Developer:
		return &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role developer in the project and in the repository that declares this rollout."}
	}
	client, err := s.Operations.Rollouts()
	if err != nil {
		return err
	}
	notice, err := s.operateRollout(r, client, place, namespace, name, action)
	if err != nil {
		return err
	}
	return redirect(w, r, "/-/rollouts/"+namespace+"/"+name, notice)
}

// rolloutNotices say what an action has done.
var rolloutNotices = map[string]string{
	"promote": "Promoted: the rollout goes on.", "promote-full": "Promoted fully: everybody gets the new version.",
	"pause": "Paused: the rollout stays where it is.", "resume": "The rollout goes on.",
	"abort": "Aborted: everybody goes back to the stable version.", "retry": "The rollout starts again from its first step.",
	"restart": "The pods are being replaced.", "undo": "The rollout goes back to that revision.",
}

func (s *Server) operateRollout(r *Request, client *rollout.Client, place release.Place, namespace, name, action string) (string, error) {
	ctx := r.Context()
	actions := map[string]func(context.Context, string, string) error{
		"promote": client.Promote, "promote-full": client.PromoteFull, "pause": client.Pause, "resume": client.Resume,
		"abort": client.Abort, "retry": client.Retry, "restart": client.Restart,
	}
	notice := rolloutNotices[action]
	var err error
	switch act := actions[action]; {
	case act != nil:
		err = act(ctx, namespace, name)
	case action == "undo":
		revision, parseErr := strconv.ParseInt(r.FormValue("revision"), 10, 64)
		if parseErr != nil || revision < 0 {
			return "", &delivery.Error{Kind: delivery.Invalid, Message: "Name the revision to go back to."}
		}
		err = client.Undo(ctx, namespace, name, revision)
	case action == "revert" && s.Places != nil:
		return s.Places.TakeBack(ctx, r.Who, namespace, name) // records itself
	default:
		return "", notFound()
	}
	if err == nil {
		target, id, kind := namespace+"/"+name, int64(0), "rollout"
		if place.ProjectID != 0 {
			kind, id = "project", place.ProjectID
		}
		s.Access.Audit(ctx, r.Who, "rollout."+strings.ReplaceAll(action, "-", "_"), kind, id, target, notice)
	}
	return notice, err
}

// leadsTo tells of a route whether it leads to one of the Services.
func leadsTo(services []string) func(route.Route) bool {
	return func(one route.Route) bool { return slices.Contains(services, one.Service) }
}

// everyRoute counts all.
func everyRoute(route.Route) bool { return true }

// addressesOf lists where applications of a namespace are reached, as far as
// the routes count.
func (s *Server) addressesOf(namespace string, counts func(route.Route) bool) []string {
	if s.Routes == nil {
		return nil
	}
	var out []string
	for _, one := range s.Routes() {
		if one.Namespace != namespace || one.URL == "" || !counts(one) {
			continue
		}
		if !slices.Contains(out, one.URL) {
			out = append(out, one.URL)
		}
	}
	slices.Sort(out)
	return out
}

// environmentAddresses returns where a project's environments are reached, by
// name, as far as Rollouts of the project run there.
func (s *Server) environmentAddresses(r *Request) (map[string][]string, error) {
	if s.Places == nil || s.Routes == nil {
		return nil, nil
	}
	namespaces, err := s.Places.Namespaces(r.Context(), r.Project.ID)
	out := map[string][]string{}
	for name, namespace := range namespaces {
		out[name] = s.addressesOf(namespace, everyRoute)
	}
	return out, err
}

// releaseSettingsView is the form of what a project wants of its releases.
type releaseSettingsView struct {
	release.Settings
	By string // in whose name reverts are made
}

func (s *Server) releaseSettingsPage(w http.ResponseWriter, r *Request) error {
	settings, err := s.Places.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	v := releaseSettingsView{Settings: settings}
	if v.UserID != 0 {
		u, err := s.Access.User(r.Context(), v.UserID)
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
		v.By = u.Name
		if err != nil || u.Blocked {
			v.By = fmt.Sprintf("an account that is gone or blocked (%d)", v.UserID)
		}
	}
	return s.render(w, r, http.StatusOK, "rollout_settings", Page{Title: "Release settings", Active: "settings-releases", Data: v})
}

func (s *Server) updateReleaseSettings(w http.ResponseWriter, r *Request) error {
	on := r.FormValue("auto_revert") != ""
	if err := s.Places.SetAutoRevert(r.Context(), r.Who, *r.Project, on); err != nil {
		return err
	}
	notice := "An aborted version stays in git until somebody reverts its commit."
	if on {
		notice = "The commit of an aborted version is reverted automatically, in your name."
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings/releases"), notice)
}
