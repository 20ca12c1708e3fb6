package gitops

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Names in Argo CD's policies. Those of people and of roles begin with "@",
// which no local account, role or project role of Argo CD does, so that an
// account called "admin" gains nothing by its name:
//
//	@alice           the person
//	@acme:developer  whoever is at least Developer in the group or project acme
const (
	PolicyAccount  = "slipway"          // the platform's own account, with which it calls the API
	PolicyUsers    = "slipway:users"    // everybody who is signed in
	PolicyAdmins   = "slipway:admins"   // the platform's administrators
	PolicyAuditors = "slipway:auditors" // administrators by a token that only reads
)

// policyRoles are the roles that names are made of.
var policyRoles = []delivery.Role{delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner}

// PolicyNames returns the names that a role in a group or project gives: its
// own and those of every lower role.
func PolicyNames(fullPath string, role delivery.Role) []string {
	var names []string
	for _, r := range policyRoles {
		if r <= role {
			names = append(names, policyName(fullPath, r))
		}
	}
	return names
}

func policyName(fullPath string, r delivery.Role) string {
	return "@" + fullPath + ":" + strings.ToLower(r.String())
}

// Rights say what a role in the project of an Application's source allows: they
// hold for the pages and, by Policy, for Argo CD's API alike. Who may read the
// project may look; who may push to it decides what runs anyway.
var Rights = struct{ Look, Act, Manage delivery.Role }{
	Look:   delivery.Reporter,   // the Application, its resources, logs and events
	Act:    delivery.Developer,  // refresh, sync, roll back, actions on resources
	Manage: delivery.Maintainer, // change and delete the Application
}

// SourceProject is the forge's project that an Application comes from: the
// first of its sources that is there. It returns false where none is; such an
// Application is the administrators'.
func SourceProject(forgeURL string, a *Application) (fullPath string, ok bool) {
	for _, s := range a.Sources {
		if path, ok := ProjectPath(forgeURL, s.RepoURL); ok {
			return path, true
		}
	}
	return "", false
}

// PolicyBase is what the platform needs whatever else Argo CD's policy says:
// all rights for its own account and its administrators.
const PolicyBase = "g, " + PolicyAccount + ", role:admin\n" +
	"g, " + PolicyAdmins + ", role:admin\n" +
	"g, " + PolicyAuditors + ", role:readonly\n"

// Policy returns Argo CD's policy (the CSV of argocd-rbac-cm) that gives people
// the rights in Applications that their roles in the source projects give.
// open reports whether everybody who is signed in may read a project. It begins
// with PolicyBase, so that policy.csv is free for what users write there.
func Policy(forgeURL string, apps []*Application, open func(fullPath string) bool) string {
	var lines []string
	// Argo CD looks at those groups of a person only that have a role.
	add := func(name, resource, action, object string) {
		lines = append(lines, fmt.Sprintf("g, %s, role:%s", name, name),
			fmt.Sprintf("p, role:%s, %s, %s, %s, allow", name, resource, action, object))
	}
	add(PolicyUsers, "projects", "get", "*")
	add(PolicyUsers, "clusters", "get", "*")
	for _, a := range apps {
		path, ok := SourceProject(forgeURL, a)
		if !ok {
			continue
		}
		object := a.Project + "/" + a.Name
		lookers := policyName(path, Rights.Look)
		if open(path) {
			lookers = PolicyUsers
		}
		add(lookers, "applications", "get", object)
		add(lookers, "logs", "get", object)
		actors, managers := policyName(path, Rights.Act), policyName(path, Rights.Manage)
		add(actors, "applications", "sync", object)
		add(actors, "applications", "action/*", object)
		for _, action := range []string{"update", "update/*", "delete", "delete/*", "override"} {
			add(managers, "applications", action, object)
		}
	}
	slices.Sort(lines)
	return "# Written by the platform from the roles in its projects.\n" + PolicyBase + strings.Join(slices.Compact(lines), "\n") + "\n"
}
