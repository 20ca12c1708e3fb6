package ingress

import (
	"net/http"
	"net/netip"
	"slices"
)

// enter admits a request by rate, password and the service of auth-url, or
// answers it. When it does, the function returned must be called at the
// request's end.
func (h *handler) enter(t *table, route *route, w *recorder, r *http.Request) (leave func(), ok bool) {
	set := route.set
	addr := clientAddr(r)
	if l := set.limits; l != nil && !slices.ContainsFunc(l.allow, func(p netip.Prefix) bool { return addr.IsValid() && p.Contains(addr) }) {
		done, refused := h.usage.enter(route.ingress, addr, l)
		if refused != "" {
			// 503 is ingress-nginx's limit-req-status-code.
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, refused)
			return nil, false
		}
		leave = done
	} else {
		leave = func() {}
	}
	if !h.known(t, route, w, r) {
		leave()
		return nil, false
	}
	return leave, true
}

// known admits a request by password and the service of auth-url, or answers
// it. With satisfy: any one of these, or a source range, is enough.
func (h *handler) known(t *table, route *route, w *recorder, r *http.Request) bool {
	set := route.set
	if set.satisfyAny && len(set.allow)+len(set.deny) > 0 && set.admits(clientAddr(r)) {
		return true
	}
	password := set.auth != nil && set.auth.creds.admit(r)
	if password {
		w.user, _, _ = r.BasicAuth()
	}
	if password && set.satisfyAny {
		return true
	}
	if set.external != nil && (set.auth == nil || password || set.satisfyAny) {
		if r.Context().Value(askingKey{}) != nil {
			refuse(w, http.StatusInternalServerError, "The address of auth-url asks that address itself: it needs an Ingress without auth-url.")
			return false
		}
		v := h.ask(route, r)
		if !v.permits() {
			h.deny(route, v, w, r)
			return false
		}
		set.external.admitted(v, w, r)
		return true
	}
	switch {
	case set.auth != nil && !password:
		set.auth.ask(w)
		return false
	case set.auth == nil && set.satisfyAny && !set.admits(clientAddr(r)):
		refuse(w, http.StatusForbidden, "Your address may not use this route.")
		return false
	}
	return true
}

// admits reports whether a client's address may use the route: the denied
// ranges are looked at first.
func (s *settings) admits(a netip.Addr) bool {
	in := func(ranges []netip.Prefix) bool {
		return a.IsValid() && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if in(s.deny) {
		return false
	}
	return len(s.allow) == 0 || in(s.allow)
}
