package ingress

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// errorPages is what custom-http-errors and default-backend ask for: a Service
// that answers instead of an error, and instead of a Service without
// endpoints. What it is told is ingress-nginx's contract
// (https://kubernetes.github.io/ingress-nginx/user-guide/custom-errors/), so
// that images made for that serve here too.
type errorPages struct {
	codes   []int
	service string
	backend *backend // nil while there is no such Service
}

func (s *settings) withErrorPages() *errorPages {
	if s.errorPages == nil {
		s.errorPages = &errorPages{}
	}
	return s.errorPages
}

func parseErrorCodes(s *settings, v string) error {
	var codes []int
	for _, part := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 300 || n > 599 {
			return fmt.Errorf("%q is not a status (300 to 599)", part)
		}
		codes = append(codes, n)
	}
	slices.Sort(codes)
	s.withErrorPages().codes = slices.Compact(codes)
	return nil
}

// addErrorPages finds the Service that default-backend names; its first port
// counts, as in ingress-nginx.
func (b *builder) addErrorPages(p parsedIngress) {
	e := p.set.errorPages
	if e == nil {
		return
	}
	var port *corev1.ServicePort
	if svc := b.services[p.ing.Namespace+"/"+e.service]; svc == nil {
		b.problem(p.key, fmt.Sprintf("%sdefault-backend: Service %s does not exist in namespace %s; errors are answered without it", annotationPrefix, e.service, p.ing.Namespace))
		return
	} else if len(svc.Spec.Ports) > 0 {
		port = &svc.Spec.Ports[0]
	}
	if port == nil {
		b.problem(p.key, fmt.Sprintf("%sdefault-backend: Service %s has no port; errors are answered without it", annotationPrefix, e.service))
		return
	}
	be, problem := b.backendFor(p.ing.Namespace, networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: e.service, Port: networkingv1.ServiceBackendPort{Number: port.Port}}})
	if problem != "" {
		b.problem(p.key, annotationPrefix+"default-backend: "+problem)
	}
	e.backend = be
}

// usable returns the backend for error pages when it has endpoints. It may be
// called on nil.
func (e *errorPages) usable() *backend {
	if e == nil || e.backend == nil || len(e.backend.endpoints) == 0 {
		return nil
	}
	return e.backend
}

// withheld names the statuses whose answers are kept from the client, as the
// key of a reverse proxy.
func (e *errorPages) withheld() string {
	if e.usable() == nil || len(e.codes) == 0 {
		return ""
	}
	return fmt.Sprint(e.codes)
}

// withheldModule takes an answer that an error page replaces: Caddy closes it,
// and nothing of it is written.
type withheldModule struct{ *Ingress }

func (m *withheldModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: m.moduleID("http.handlers") + "_withheld"}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (m *withheldModule) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	a, _ := r.Context().Value(attemptKey{}).(*attempt)
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	status, _ := repl.Get("http.reverse_proxy.status_code")
	if a.withheld, _ = status.(int); a.withheld == http.StatusUnauthorized {
		// How to sign in is said by a header, which nginx keeps too.
		if ask, ok := repl.GetString("http.reverse_proxy.header.Www-Authenticate"); ok && ask != "" {
			w.Header().Set("WWW-Authenticate", ask)
		}
	}
	return nil
}

// page is what a Service for error pages is told of a request.
type page struct {
	h       *handler
	route   *route
	o       *outcome
	rec     *recorder
	r       *http.Request
	address string // as the client asked for it, before rewriting
}

// errorPage has the errors of this request answered by the route's Service for
// them. It returns nil where there is none.
func (h *handler) errorPage(route *route, o *outcome, rec *recorder, r *http.Request) *page {
	if route.set.errorPages.usable() == nil {
		return nil
	}
	p := &page{h: h, route: route, o: o, rec: rec, r: r, address: r.URL.RequestURI()}
	rec.instead = p.instead
	return p
}

// instead answers with the page for a status. It reports false, with nothing
// written, when there is no page for that status or it cannot be had.
func (p *page) instead(status int) bool {
	if !slices.Contains(p.route.set.errorPages.codes, status) {
		return false
	}
	p.o.status = status // whatever the page says, this is what happened
	q := p.r.Clone(p.r.Context())
	if q.Method != http.MethodHead {
		q.Method = http.MethodGet
	}
	q.URL = &url.URL{Path: "/", RawQuery: q.URL.RawQuery}
	q.Body, q.ContentLength, q.TransferEncoding, q.Trailer = http.NoBody, 0, nil, nil
	for _, name := range notAsked {
		q.Header.Del(name)
	}
	return p.send(q, status, p.o.backend)
}

// fallback gives the request itself to the Service for error pages, because
// its own one has no endpoints. It may be called on nil.
func (p *page) fallback() bool {
	if p == nil || p.r.Context().Err() != nil {
		return false
	}
	served := p.o.backend
	p.o.backend, p.o.canary, p.o.endpoint = p.route.set.errorPages.backend, false, nil
	p.rec.instead = nil
	if p.send(p.r, http.StatusServiceUnavailable, served) {
		return true
	}
	p.o.backend = served
	return false
}

func (p *page) send(q *http.Request, status int, served *backend) bool {
	h, e := p.h, p.route.set.errorPages
	set := q.Header.Set
	set("X-Code", strconv.Itoa(status))
	set("X-Format", strings.Join(q.Header.Values("Accept"), ", "))
	set("X-Original-Uri", p.address)
	set("X-Namespace", p.route.namespace)
	set("X-Ingress-Name", p.route.name)
	set("X-Service-Name", served.service)
	set("X-Service-Port", served.key[strings.LastIndexByte(served.key, ':')+1:])
	setClient(q)
	plain := *p.route.set
	plain.protocol, plain.upstreamVhost, plain.errorPages = protoHTTP, "", nil
	proxy, err := h.proxies.Load().get(q.Context(), &plain, false)
	if err == nil {
		a := &attempt{key: e.backend.key, set: &plain}
		err = proxy.ServeHTTP(p.rec, q.WithContext(context.WithValue(q.Context(), attemptKey{}, a)), nothingMore)
		if status == http.StatusServiceUnavailable && p.o.backend == e.backend {
			p.o.endpoint = a.last
		}
	}
	if err != nil && q.Context().Err() == nil {
		h.log.Warn("no error page", "ingress", p.route.ingress, "service", e.service, "status", status, "err", err)
	}
	return err == nil || p.rec.status != 0
}

// nothingMore ends a chain of handlers.
var nothingMore = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
