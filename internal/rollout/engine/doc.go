// Package engine runs the Argo Rollouts controllers in this process.
//
// It owns Rollouts' resource definitions, its namespace and the platform's
// ClusterAnalysisTemplates. It receives a kubeconfig and the address of
// Prometheus; it emits nothing but what the controllers write to the cluster
// and readiness through Reporter. The controllers are put together from their
// exported constructors and not by upstream's Manager, which would listen on
// all addresses and end the process where this returns an error. Only
// cmd/slipway-gitops may import it. At most one engine is in a process: the
// upstream code keeps its configuration in package variables.
package engine

import "embed"

//go:generate go run ../../slimcrd -rules crds/rules.yaml -out crds

//go:embed crds/*.yaml
var crdFiles embed.FS

//go:embed templates/*.yaml
var templateFiles embed.FS

// Namespace is where the controllers' own ConfigMaps and Secrets live.
const Namespace = "argo-rollouts"

// Component is the name under which readiness is reported.
const Component = "argo-rollouts"

// Reporter is told how far the engine has come; called from any goroutine.
type Reporter interface {
	// Waiting names the root cause that keeps the component from being ready.
	Waiting(component, cause string)
	// Ready says that the component does its work.
	Ready(component string)
}
