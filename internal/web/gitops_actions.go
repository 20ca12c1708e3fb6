package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// syncView is the form of a sync by hand.
type syncView struct {
	*gitops.Application
	At        string
	Resources []syncResource
	Options   []syncOption
	Only      bool // only what is out of sync is chosen at first
}

// syncResource is one that can be chosen alone.
type syncResource struct {
	gitops.Managed
	Value string // its key, as the form sends it
}

// syncOption is one of Argo CD's sync options.
type syncOption struct{ Name, Title, Hint string }

// syncOptions are those that make sense for one sync by hand; the lasting ones
// belong into the Application.
var syncOptions = []syncOption{
	{"ServerSideApply=true", "Server-side apply", "the API server merges; conflicts are taken over"},
	{"Replace=true", "Replace", "kubectl replace: fields that others set are lost"},
	{"ApplyOutOfSyncOnly=true", "Apply only what differs", "faster with many resources"},
	{"PruneLast=true", "Prune last", "delete when everything else is healthy"},
	{"PrunePropagationPolicy=foreground", "Wait for deletions", "dependents first"},
	{"Validate=false", "Skip schema validation", "kubectl apply --validate=false"},
	{"CreateNamespace=true", "Create the namespace", "when it is missing"},
}

func (s *Server) syncForm(w http.ResponseWriter, r *Request) error {
	a, _, err := s.application(r, toAct)
	if err != nil {
		return err
	}
	v := syncView{Application: a, At: applicationPath(a.Name), Options: syncOptions}
	for _, m := range a.Resources {
		key, err := json.Marshal(gitops.ResourceKey{Group: m.Group, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name})
		if err != nil {
			return err
		}
		v.Resources = append(v.Resources, syncResource{m, string(key)})
	}
	return s.render(w, r, http.StatusOK, "application_sync", Page{Title: "Sync " + a.Name, Data: v})
}

// appActions are the actions with the rights that they need.
var appActions = map[string]need{"refresh": toAct, "sync": toAct, "rollback": toAct, "revert": toAct, "terminate": toAct, "delete": toManage}

func (s *Server) applicationAction(w http.ResponseWriter, r *Request) error {
	action := r.PathValue("action")
	n, ok := appActions[action]
	if !ok {
		return notFound()
	}
	a, _, err := s.application(r, n)
	if err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	to, notice := applicationPath(a.Name), ""
	by := "@" + r.Who.User.Username // as people are called in Argo CD
	switch action {
	case "refresh":
		notice = "Argo CD compares again."
		hard := r.FormValue("hard") != ""
		if hard {
			notice = "Argo CD renders the manifests anew and compares."
		}
		err = client.Refresh(r.Context(), a.Name, hard)
	case "sync":
		var o gitops.SyncOptions
		if o, err = readSync(r); err != nil {
			return err
		}
		o.By, notice = by, "The sync has started."
		if o.DryRun {
			notice = "The dry run has started; nothing is changed."
		}
		err = client.Sync(r.Context(), a.Name, o)
	case "rollback":
		id, parseErr := entryOf(r)
		if parseErr != nil {
			return parseErr
		}
		err, notice = client.Rollback(r.Context(), a.Name, id, r.FormValue("prune") != "", by), "The rollback has started."
	case "revert":
		notice, err = s.revertApplication(r, client, a)
	case "terminate":
		err, notice = client.Terminate(r.Context(), a.Name), "The running operation is being ended."
	case "delete":
		if r.FormValue("confirm") != a.Name {
			return delivery.Errorf(delivery.Invalid, "Type the application's name, %s, to delete it.", a.Name)
		}
		cascade := r.FormValue("keep") == ""
		to, notice = "/-/applications", fmt.Sprintf("The application %s is being deleted, with what it deployed.", a.Name)
		if !cascade {
			notice = fmt.Sprintf("The application %s is deleted; what it deployed stays.", a.Name)
		}
		err = client.Delete(r.Context(), a.Name, cascade)
	}
	if err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, "application."+action, "application", 0, a.Name, "")
	return redirect(w, r, to, notice)
}

// revertApplication is the way back under automated sync: a commit in the name
// of the caller, who must be allowed to push.
func (s *Server) revertApplication(r *Request, client *gitops.Client, a *gitops.Application) (notice string, err error) {
	id, err := entryOf(r)
	if err != nil {
		return "", err
	}
	sha, err := client.Revert(r.Context(), s.Operations.Reverter, a.Name, id, r.Who)
	if err != nil {
		return "", err
	}
	return "Commit " + short(sha) + " takes the changes back in git; the sync follows.", nil
}

func entryOf(r *Request) (int64, error) {
	id, err := strconv.ParseInt(r.FormValue("id"), 10, 64)
	if err != nil {
		return 0, &delivery.Error{Kind: delivery.Invalid, Message: "Name the entry of the history to go back to."}
	}
	return id, nil
}

// readSync reads the form of a sync.
func readSync(r *Request) (gitops.SyncOptions, error) {
	if err := r.ParseForm(); err != nil {
		return gitops.SyncOptions{}, &delivery.Error{Kind: delivery.Invalid, Message: "The form cannot be read.", Err: err}
	}
	o := gitops.SyncOptions{
		Revision: strings.TrimSpace(r.FormValue("revision")), Prune: r.FormValue("prune") != "",
		DryRun: r.FormValue("dry_run") != "", Force: r.FormValue("force") != "",
	}
	for _, known := range syncOptions {
		for _, chosen := range r.Form["option"] {
			if chosen == known.Name {
				o.Options = append(o.Options, chosen)
			}
		}
	}
	if r.FormValue("scope") != "some" {
		return o, nil
	}
	for _, text := range r.Form["resource"] {
		var key gitops.ResourceKey
		if err := json.Unmarshal([]byte(text), &key); err != nil || key.Kind == "" || key.Name == "" {
			return o, delivery.Errorf(delivery.Invalid, "The resource %q is not one of the application's.", text)
		}
		o.Resources = append(o.Resources, key)
	}
	if len(o.Resources) == 0 {
		return o, delivery.Errorf(delivery.Invalid, "Choose at least one resource, or all of them.")
	}
	return o, nil
}
