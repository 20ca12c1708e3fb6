package ingress

import (
	"net"
	"strconv"
	"strings"

	public "github.com/slipwayhq/slipway/internal/ingress/route"
)

// Route is what one path of one host leads to now, for people.
type Route = public.Route

// Routes lists the routes in force, in no particular order.
func (i *Ingress) Routes() []Route {
	t := i.table.Load()
	out := make([]Route, 0, len(t.routes))
	for _, r := range t.routes {
		o := Route{
			Namespace: r.namespace, Ingress: r.name, Host: r.host, Path: r.path, PathType: string(r.pathType),
			Service: r.backend.service, Endpoints: len(r.backend.endpoints),
			URL: i.urlOf(r), TLS: t.tlsKind(r), Problems: t.problems[r.ingress],
		}
		if alt := r.alternate; alt != nil {
			o.Canary = &public.Canary{
				Ingress: alt.name, Service: alt.backend.service, Endpoints: len(alt.backend.endpoints),
				Weight: min(100, 100*float64(alt.rule.weight)/float64(alt.rule.weightTotal)),
				Header: alt.rule.header, Cookie: alt.rule.cookie,
			}
			o.Problems = append(o.Problems[:len(o.Problems):len(o.Problems)], t.problems[alt.ingress]...)
		}
		out = append(out, o)
	}
	return out
}

// Problems lists what is wrong with Ingresses, by "namespace/name".
func (i *Ingress) Problems() map[string][]string { return i.table.Load().problems }

func (i *Ingress) urlOf(r *route) string {
	if r.host == "" || strings.HasPrefix(r.host, "*") || r.regex != nil {
		return ""
	}
	scheme, addr, standard := "http", i.cfg.HTTPAddr, 80
	if r.tls && i.cfg.HTTPSAddr != "" || addr == "" {
		scheme, addr, standard = "https", i.cfg.HTTPSAddr, 443
	}
	host := r.host
	if p := portOf(addr); p != standard {
		host = net.JoinHostPort(host, strconv.Itoa(p))
	}
	return scheme + "://" + host + r.path
}

func (t *table) tlsKind(r *route) string {
	_, parent, _ := strings.Cut(r.host, ".")
	switch {
	case !r.tls:
		return ""
	case t.certs[r.host] != nil || t.certs["*."+parent] != nil:
		return "secret"
	case t.acme[r.host]:
		return "acme"
	}
	return "internal"
}
