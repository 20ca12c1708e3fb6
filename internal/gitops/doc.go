// Package gitops is the platform's view of Argo CD.
//
// It owns the configuration of slipway-gitops and a light client: the
// Applications with their sync and health, history, resource tree, differences
// and events, and the actions sync, refresh, rollback and revert. It receives
// a Kubernetes client and the address of the served Argo CD API; it emits
// release events through a callback when an Application's revision or health
// changes. The engine itself is in the package engine below and runs in
// another program, so this package must not import Argo CD, nor the store,
// the configuration or the web.
package gitops
