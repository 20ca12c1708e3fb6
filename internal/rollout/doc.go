// Package rollout is the platform's view of Argo Rollouts.
//
// It owns a light client: the Rollouts with their steps, weights, revisions,
// pods and analysis values against their limits, and the actions promote,
// pause, abort, retry, restart and undo. It receives a Kubernetes client; it
// emits changes through Watch, from which the platform makes its events. The
// controllers are in the package engine below and run in another program, so
// this package must not import them, nor another stage, the store, the
// configuration or the web.
package rollout
