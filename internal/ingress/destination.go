package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// destination is an address that an annotation names, for requests that the
// ingress makes itself: a Service of the cluster, a host that is served here,
// or one outside.
type destination struct {
	url     text
	host    string // of the URL, without its port; empty when it varies
	port    int    // 0: the scheme's
	https   bool
	backend *backend // of a Service; nil when it is served here or outside
}

func parseDestination(v string) (d destination, err error) {
	v = strings.TrimSpace(v)
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok || scheme != "http" && scheme != "https" && scheme != "$scheme" && scheme != "$pass_access_scheme" {
		return d, fmt.Errorf("%q is not an http or https address", v)
	}
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	for _, path := range []string{"$request_uri", "${request_uri}", "$uri", "${uri}"} {
		host, _, _ = strings.Cut(host, path) // these begin with a slash
	}
	address, err := parseText(v)
	if err != nil {
		return d, err
	}
	if strings.Contains(host, "$") {
		// A client chooses the Host header: such an address is looked for
		// among the hosts that are served here, and nowhere else.
		if h := strings.Trim(host, "${}"); h != "host" && h != "http_host" && h != "best_http_host" {
			return d, fmt.Errorf("%q names its host by a variable other than $host", v)
		}
	} else {
		u, err := url.Parse("http://" + host)
		if err != nil || u.Hostname() == "" || u.User != nil {
			return d, fmt.Errorf("%q has no host", v)
		}
		d.host = strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		d.port, _ = strconv.Atoi(u.Port()) // url.Parse takes only digits; 0 without
	}
	d.url, d.https = address, scheme == "https"
	return d, nil
}

// find looks for the Service that a destination names, and says what is wrong
// with it.
func (b *builder) find(d *destination) (problem string) {
	namespace, name, ok := b.serviceOf(d.host)
	if !ok {
		return ""
	}
	port := d.port
	if port == 0 {
		port = 80
		if d.https {
			port = 443
		}
	}
	d.backend, problem = b.backendFor(namespace, networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: int32(port)}}})
	return problem
}

// serviceOf reads a cluster's name of a Service: name.namespace.svc, with or
// without the cluster's domain, and name.namespace where there is such one.
func (b *builder) serviceOf(host string) (namespace, name string, ok bool) {
	parts := strings.Split(host, ".")
	switch {
	case len(parts) >= 3 && parts[2] == "svc" && (len(parts) == 3 || strings.HasSuffix(host, ".svc.cluster.local") || b.services[parts[1]+"/"+parts[0]] != nil):
		return parts[1], parts[0], true
	case len(parts) == 2 && b.services[parts[1]+"/"+parts[0]] != nil:
		return parts[1], parts[0], true
	}
	return "", "", false
}

// address makes a request one for the address.
func address(q *http.Request, u *url.URL) {
	q.URL, q.Host, q.RequestURI = &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, u.Host, u.RequestURI()
	if q.URL.Path == "" {
		q.URL.Path = "/"
	}
	if u.Scheme == "https" && q.TLS == nil {
		q.TLS = impliedTLS(hostname(u.Host))
	}
}

// put makes a request of the ingress's own, for the address u of a
// destination. hostHeader is what a Service or a host outside gets as Host;
// empty for that of the address.
func (h *handler) put(d *destination, set *settings, w http.ResponseWriter, q *http.Request, u *url.URL, hostHeader string) error {
	a, host := &attempt{set: set}, hostname(u.Host)
	switch {
	case d.backend != nil:
		a.key = d.backend.key
	case h.servedHere(h.table.Load(), d, u):
		return h.askHere(w, q)
	case d.host == "":
		return fmt.Errorf("no Ingress serves %s%s", clipped(host, 256), u.Path)
	default:
		port := u.Port()
		if port == "" {
			port = map[bool]string{true: "443", false: "80"}[u.Scheme == "https"]
		}
		a.direct = &endpoint{addr: net.JoinHostPort(host, port), external: true}
	}
	if hostHeader != "" {
		q.Host = hostHeader
	}
	return h.askBackend(w, q, u, a)
}

// servedHere reports whether the address leads back to this ingress, which
// then asks its own handler: no name has to be resolved for that, and no
// certificate to be trusted.
func (h *handler) servedHere(t *table, d *destination, u *url.URL) bool {
	if port := u.Port(); port != "" && port != strconv.Itoa(portOf(h.cfg.HTTPAddr)) && port != strconv.Itoa(portOf(h.cfg.HTTPSAddr)) {
		return false
	}
	host := hostname(u.Host)
	if h.cfg.Platform != nil && h.isPlatform(t, host) {
		return true
	}
	if d.host != "" { // an Ingress for any host does not make every name ours
		return t.vhostFor(host) != nil
	}
	path, ok := normalPath(u.Path)
	return ok && t.match(host, path) != nil
}

func (h *handler) askHere(w http.ResponseWriter, q *http.Request) (err error) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = errors.New("it broke off its answer")
		} else if p != nil {
			panic(p)
		}
	}()
	return h.ServeHTTP(w, q, nil)
}

func (h *handler) askBackend(w http.ResponseWriter, q *http.Request, u *url.URL, a *attempt) error {
	set := *a.set
	set.protocol, set.upstreamVhost, set.sslName, set.errorPages = protoHTTP, "", "", nil
	if u.Scheme == "https" {
		set.protocol, set.upstreamVhost = protoHTTPS, hostname(u.Host)
	}
	proxy, err := h.proxies.Load().get(q.Context(), &set, true)
	if err != nil {
		return err
	}
	q = q.WithContext(context.WithValue(q.Context(), attemptKey{}, a))
	err = proxy.ServeHTTP(w, q, nothingMore)
	if err != nil && a.problem != "" {
		return errors.New(a.problem)
	}
	if err != nil && a.last == nil {
		return errors.New("it has no ready endpoint")
	}
	return err
}
