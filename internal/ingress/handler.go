package ingress

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// handler is the one handler of Caddy's servers: it asks the table of this
// moment where a request goes.
type handler struct{ *Ingress }

// CaddyModule implements caddy.Module.
func (h *handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: h.moduleID("http.handlers")}
}

// Provision implements caddy.Provisioner. It is called for each server.
func (h *handler) Provision(ctx caddy.Context) error {
	p, certs := h.proxies.Load(), h.certs.Load()
	p.mu <- struct{}{}
	defer func() { <-p.mu }()
	if p.ctx.Context != nil {
		return nil
	}
	p.ctx = ctx
	if err := certs.provision(ctx); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	certs.sync(h.table.Load())
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Del("Server")
	t := h.table.Load()
	if r.TLS == nil && h.certs.Load().issuer.HandleHTTPChallenge(w, r) {
		return nil
	}
	host := hostname(r.Host)
	if h.isPlatform(t, host) && h.cfg.Platform != nil {
		h.cfg.Platform.ServeHTTP(&plainWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}, r)
		return nil
	}
	path, ok := normalPath(r.URL.Path)
	if !ok {
		refuse(w, http.StatusBadRequest, "The path leads above the root.")
		return nil
	}
	route := t.match(host, path)
	if route == nil {
		began, seen := time.Now(), askedOf(r)
		rec := &recorder{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
		h.noRoute(t, rec, r, host)
		if h.access != nil {
			h.access.request(r, seen, nil, rec, began)
		}
		return nil
	}
	h.serveRoute(t, route, w, r)
	return nil
}

// noRoute answers for hosts and paths that no Ingress claims.
func (h *handler) noRoute(t *table, w http.ResponseWriter, r *http.Request, host string) {
	if to := t.www[host]; to != "" {
		redirectTo(w, r, to+portSuffix(r.Host))
		return
	}
	if v := t.vhostFor(host); v != nil {
		for _, other := range append(slices.Collect(maps.Values(v.exact)), v.others...) {
			if other.set.appRoot != "" && r.URL.Path == "/" {
				http.Redirect(w, r, other.set.appRoot, http.StatusFound)
				return
			}
		}
		refuse(w, http.StatusNotFound, fmt.Sprintf("No Ingress of %s serves this path.", host))
		return
	}
	refuse(w, http.StatusNotFound, "No Ingress serves this host.")
}

// refuse answers with a short plain text, or the route's error page.
func refuse(w http.ResponseWriter, status int, text string) {
	if rec, ok := w.(*recorder); ok && rec.replaced(status) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "%d %s\n%s\n", status, http.StatusText(status), text) // the client may be gone
}

// serveRoute answers a request that belongs to a route, and counts it.
func (h *handler) serveRoute(t *table, route *route, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	o := outcome{route: route, backend: route.backend}
	set := route.set
	var seen *asked
	if h.access != nil && !set.noAccessLog {
		seen = askedOf(r)
	}
	defer func() {
		// Also when the reverse proxy aborts a response half way (by panic).
		h.metrics.request(&o, rec.status, time.Since(start))
		if seen != nil {
			h.access.request(r, seen, &o, rec, start)
		}
	}()
	if set.headers != nil {
		rec.onHeader(func(header http.Header) { maps.Copy(header, set.headers) })
	}
	pages := h.errorPage(route, &o, rec, r)
	if h.early(t, route, rec, r) {
		return
	}
	leave, ok := h.enter(t, route, rec, r)
	if !ok {
		return
	}
	defer leave()
	if seen != nil {
		seen.user = rec.user
	}
	be, canary, bound := h.choose(route, r)
	o.backend, o.canary = be, canary
	if limit := set.bodyLimit(t); limit > 0 {
		if r.ContentLength > limit {
			refuse(rec, http.StatusRequestEntityTooLarge, fmt.Sprintf("The request is larger than the limit of %d bytes.", limit))
			return
		}
		r.Body = http.MaxBytesReader(rec, r.Body, limit)
	}
	defer h.mirror(route, r)()
	prepare(route, r)
	if len(be.endpoints) == 0 && time.Since(be.emptySince) > holdEmpty {
		if pages.fallback() {
			return
		}
		refuse(rec, http.StatusServiceUnavailable, noEndpoints(be))
		return
	}
	proxy, err := h.proxies.Load().get(r.Context(), set, false)
	if err != nil {
		h.log.Error("no reverse proxy", "ingress", route.ingress, "err", err)
		refuse(rec, http.StatusInternalServerError, "The ingress cannot reach this application.")
		return
	}
	a := &attempt{key: be.key, set: set, bound: bound}
	if set.hashBy != nil {
		a.hash, a.hashed = set.hashBy.of(r), true
	}
	r = r.WithContext(context.WithValue(r.Context(), attemptKey{}, a))
	if set.affinity != nil {
		rec.onHeader(func(header http.Header) { setAffinity(header, set.affinity, a, r) })
	}
	if set.replaces() {
		rec.onHeader(set.replace)
	}
	err = proxy.ServeHTTP(rec, r, nothingMore)
	o.endpoint = a.last
	switch {
	case err != nil && a.last == nil && a.problem == "" && pages.fallback():
	case err != nil:
		h.failed(route, be, a, rec, r, err)
	case a.withheld != 0 && rec.status == 0:
		o.status = a.withheld
		refuse(rec, a.withheld, "The application answered with an error, and there is no page for it at the moment.")
	}
}

func noEndpoints(be *backend) string {
	if be.problem != "" {
		return be.problem + "."
	}
	return fmt.Sprintf("Service %s has no ready endpoint.", be.service)
}

// failed answers for a backend that did not.
func (h *handler) failed(route *route, be *backend, a *attempt, rec *recorder, r *http.Request, err error) {
	status := http.StatusBadGateway
	var he caddyhttp.HandlerError
	if errors.As(err, &he) && he.StatusCode != 0 {
		status = he.StatusCode
	}
	var tooLarge *http.MaxBytesError
	text := ""
	switch {
	case errors.As(err, &tooLarge):
		status, text = http.StatusRequestEntityTooLarge, fmt.Sprintf("The request is larger than the limit of %d bytes.", tooLarge.Limit)
	case status == 499:
	case status == http.StatusServiceUnavailable && a.problem != "":
		text = a.problem + "."
	case status == http.StatusServiceUnavailable:
		text = noEndpoints(be)
	case status == http.StatusGatewayTimeout:
		text = fmt.Sprintf("Service %s did not answer in time.", be.service)
	default:
		text = fmt.Sprintf("Service %s closed the connection or refused it.", be.service)
	}
	if status >= 500 {
		addr := ""
		if a.last != nil {
			addr = a.last.addr
		}
		h.log.Warn("request failed", "ingress", route.ingress, "service", be.service, "endpoint", addr, "method", r.Method, "status", status, "err", err)
	}
	if rec.status == 0 {
		refuse(rec, status, text)
	}
}

// early answers what needs no backend: refused clients, redirects and
// cross-origin preflights. It reports whether it did.
func (h *handler) early(t *table, route *route, w http.ResponseWriter, r *http.Request) bool {
	set := route.set
	if set.denyAll {
		refuse(w, http.StatusServiceUnavailable, "This route is closed: its Ingress has an annotation that cannot be honoured.")
		return true
	}
	if !set.satisfyAny && !set.admits(clientAddr(r)) {
		refuse(w, http.StatusForbidden, "Your address may not use this route.")
		return true
	}
	if r.TLS == nil && h.cfg.HTTPSAddr != "" && (set.forceSSLRedirect || set.sslRedirect && route.tls) && !forwardedTLS(r) {
		u := *r.URL
		u.Scheme, u.Host = "https", hostname(r.Host)
		if strings.Contains(u.Host, ":") {
			u.Host = "[" + u.Host + "]"
		}
		if p := portOf(h.cfg.HTTPSAddr); p != 443 {
			u.Host += ":" + strconv.Itoa(p)
		}
		// 308 keeps the method, as ingress-nginx's http-redirect-code default.
		http.Redirect(w, r, u.String(), http.StatusPermanentRedirect)
		return true
	}
	if v := t.hosts[route.host]; v != nil && v.clients != nil && !h.certified(v.clients, w, r) {
		return true
	}
	if set.redirect != "" {
		to := strings.NewReplacer("$request_uri", r.URL.RequestURI(), "$host", hostname(r.Host), "$scheme", schemeOf(r)).Replace(set.redirect)
		http.Redirect(w, r, to, set.redirectCode)
		return true
	}
	if set.appRoot != "" && r.URL.Path == "/" {
		http.Redirect(w, r, set.appRoot, http.StatusFound)
		return true
	}
	return set.cors != nil && set.cors.answer(w, r)
}

// redirectTo sends the client to the same path of another host, keeping the method.
func redirectTo(w http.ResponseWriter, r *http.Request, host string) {
	u := *r.URL
	u.Scheme, u.Host = schemeOf(r), host
	http.Redirect(w, r, u.String(), http.StatusPermanentRedirect)
}

// portSuffix returns ":8080" of a Host header, or "".
func portSuffix(hostport string) string {
	if _, port, err := net.SplitHostPort(hostport); err == nil {
		return ":" + port
	}
	return ""
}

// choose decides between the route's backend and its canary. The endpoint is
// set when an affinity cookie binds the client to one.
func (h *handler) choose(route *route, r *http.Request) (be *backend, canary bool, bound *endpoint) {
	alt := route.alternate
	aff := route.set.affinity
	if alt == nil {
		return route.backend, false, route.backend.bound(r, aff)
	}
	if aff != nil && aff.canarySticky {
		if e := route.backend.bound(r, aff); e != nil {
			return route.backend, false, e
		}
		if e := alt.backend.bound(r, aff); e != nil {
			return alt.backend, true, e
		}
	}
	// A canary without endpoints gets nothing, as in ingress-nginx.
	if len(alt.backend.endpoints) > 0 && alt.rule.decide(r, route.sequence.draw) {
		return alt.backend, true, alt.backend.bound(r, aff)
	}
	return route.backend, false, route.backend.bound(r, aff)
}

// prepare makes the request what the backend is to see: its path, host and
// the headers about the client that Caddy does not set itself.
func prepare(route *route, r *http.Request) {
	set := route.set
	if set.rewriteTarget != "" && route.regex != nil {
		rewrite(route, r)
	}
	if set.upstreamVhost != "" {
		r.Host = set.upstreamVhost
	}
	if set.prefixHeader != "" {
		r.Header.Set("X-Forwarded-Prefix", set.prefixHeader)
	}
	setClient(r)
}

// setClient sets the headers about the client that Caddy does not set itself.
func setClient(r *http.Request) {
	if a := clientAddr(r); a.IsValid() {
		r.Header.Set("X-Real-Ip", a.String())
	}
	if r.Header.Get("X-Request-Id") == "" {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails: crypto/rand
		r.Header.Set("X-Request-Id", hex.EncodeToString(id[:]))
	}
}

// rewrite replaces the path by the target, in which $1 is what the path's
// first group matched.
func rewrite(route *route, r *http.Request) {
	path, _ := normalPath(r.URL.Path) // one that leads above the root has no route
	m := route.regex.FindStringSubmatchIndex(path)
	if m == nil {
		return
	}
	target := expandGroups(route.set.rewriteTarget, path, m)
	if query, ok := strings.CutPrefix(target, "?"); ok {
		target = "/?" + query
	}
	p, query, has := strings.Cut(target, "?")
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	r.URL.Path, r.URL.RawPath = p, ""
	if has {
		if r.URL.RawQuery != "" {
			query += "&" + r.URL.RawQuery
		}
		r.URL.RawQuery = query
	}
}

// expandGroups replaces $0 to $9; unlike regexp's Expand it knows no names, so
// that "$1abc" is group 1 followed by abc, as in nginx.
func expandGroups(target, src string, m []int) string {
	var b strings.Builder
	for i := 0; i < len(target); i++ {
		if target[i] != '$' || i+1 == len(target) || target[i+1] < '0' || target[i+1] > '9' {
			b.WriteByte(target[i])
			continue
		}
		i++
		g := int(target[i] - '0')
		if 2*g+1 < len(m) && m[2*g] >= 0 {
			b.WriteString(src[m[2*g]:m[2*g+1]])
		}
	}
	return b.String()
}

// clientAddr returns the client's address, which Caddy takes from
// X-Forwarded-For only when a trusted proxy sent it.
func clientAddr(r *http.Request) netip.Addr {
	s := clientIP(r)
	if s == "" {
		s = hostname(r.RemoteAddr)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func forwardedTLS(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

func (s *settings) bodyLimit(t *table) int64 {
	if s.maxBody >= 0 {
		return s.maxBody
	}
	return t.maxBody
}

// plainWriter gives the platform's handlers what net/http's own writer has,
// which Caddy's wrappers offer to http.ResponseController only.
type plainWriter struct {
	caddyhttp.ResponseWriterWrapper
}

// Flush implements http.Flusher.
func (p *plainWriter) Flush() {
	_ = http.NewResponseController(p.ResponseWriter).Flush() // http.Flusher has no error; the next write has it
}

// Hijack implements http.Hijacker. It fails on HTTP/2 and HTTP/3.
func (p *plainWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(p.ResponseWriter).Hijack()
}

// recorder notes the status of a response.
type recorder struct {
	caddyhttp.ResponseWriterWrapper
	status int
	bytes  int64               // of the body
	user   string              // who was admitted; empty when nobody asked
	before []func(http.Header) // called once, before the final headers are written
	// instead answers a refusal in another way; it reports whether it did.
	instead func(status int) bool
}

// replaced reports whether the refusal has another answer.
func (r *recorder) replaced(status int) bool {
	instead := r.instead
	r.instead = nil // the other answer may be refused too
	return instead != nil && r.status == 0 && instead(status)
}

// onHeader has f see the final headers before they are written.
func (r *recorder) onHeader(f func(http.Header)) { r.before = append(r.before, f) }

// WriteHeader notes the final status; informational ones pass through.
func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		if r.status == 0 {
			r.status = status
			for _, f := range r.before {
				f(r.Header())
			}
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriterWrapper.ReadFrom(src)
	r.bytes += n
	return n, err
}
