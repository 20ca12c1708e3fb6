// Package engine runs Argo CD in one process: application controller, repo
// server, API server, ApplicationSet controller and notifications controller,
// built from the upstream constructors, with miniredis in place of Redis and
// no pods.
//
// It owns Argo CD's resource definitions, its namespace, the defaults in its
// ConfigMaps and the platform's keys in its Secrets. It receives
// gitops.Config and a Kubernetes API; it emits nothing but what Argo CD
// writes to the cluster and readiness through Reporter. Only cmd/slipway-gitops
// may import it: it pulls all of Argo CD in. Upstream code reads the process
// environment, writes to logrus' standard logger and ends the process on some
// failures, so there is at most one engine in a process and a supervisor above.
package engine

import "embed"

//go:generate go run ../../slimcrd -rules crds/rules.yaml -out crds

//go:embed crds/*.yaml
var crdFiles embed.FS

// Namespace is where Argo CD's objects live, as its documentation says.
const Namespace = "argocd"

// Reporter is told how far each component has come. It is called from any
// goroutine.
type Reporter interface {
	// Waiting names the root cause that keeps a component from being ready.
	Waiting(component, cause string)
	// Ready says that the component does its work.
	Ready(component string)
}

// The components, as they are reported and as their metrics are addressed.
const (
	ComponentBootstrap      = "argocd-bootstrap"
	ComponentRepoServer     = "argocd-repo-server"
	ComponentController     = "argocd-application-controller"
	ComponentServer         = "argocd-server"
	ComponentApplicationSet = "argocd-applicationset-controller"
	ComponentNotifications  = "argocd-notifications-controller"
)

// Components lists all of them in their start order.
func Components() []string {
	return []string{ComponentBootstrap, ComponentRepoServer, ComponentController, ComponentServer, ComponentApplicationSet, ComponentNotifications}
}
