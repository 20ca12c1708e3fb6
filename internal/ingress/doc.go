// Package ingress is the traffic plane: Caddy, embedded, in front of the
// applications of the cluster and of the platform itself.
//
// It owns the listeners for HTTP and HTTPS (HTTP/1.1, HTTP/2, HTTP/3), the
// internal certificate authority, the routing table made from the Kubernetes
// Ingress API, the traffic weights of canaries, and the request metrics per
// service and revision. It receives a kubeconfig (which may appear later, and
// whose cluster may go away) and the platform's own http.Handler; it emits
// the status of Ingresses, Kubernetes events about bad annotations, and
// metrics. Caddy is configured once, at start: every later change swaps one
// immutable routing table, so no change ever closes a connection.
//
// It must not import other stages, the store, the configuration or the web.
package ingress
