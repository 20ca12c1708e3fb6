package ingress

import (
	"net"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// hostname returns the host of a Host header in lower case, without port and
// trailing dot.
func hostname(hostport string) string {
	host := hostport
	if strings.IndexByte(hostport, ':') >= 0 {
		if h, _, err := net.SplitHostPort(hostport); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// normalPath returns the path by which a request is routed: without empty
// elements, "." and "..", as nginx has it. An application may read
// "/x/..//admin" as "/admin"; it must not get there by the route of "/", past
// what protects "/admin". ok is false when the path leads above the root.
func normalPath(p string) (normal string, ok bool) {
	if p == "" || p == "*" {
		return "/", true
	}
	if p[0] != '/' {
		return p, true
	}
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return p, true
	}
	var kept []string
	elements := strings.Split(p[1:], "/")
	for i, e := range elements {
		last := i == len(elements)-1
		switch e {
		case "", ".":
		case "..":
			if len(kept) == 0 {
				return "", false
			}
			kept = kept[:len(kept)-1]
		default:
			kept = append(kept, e)
			continue
		}
		if last {
			kept = append(kept, "") // the slash at the end stays
		}
	}
	return "/" + strings.Join(kept, "/"), true
}

// match returns the route for a host (as hostname returns it) and a decoded
// path, or nil. A host's own rules come before those of a wildcard, which
// covers exactly one label, and those before rules without a host. Within a
// host an exact path wins, then the longest; where a host matches and its
// paths do not, less specific hosts are still asked, so that a default
// backend gets what nobody else wants.
func (t *table) match(host, path string) *route {
	if v := t.hosts[host]; v != nil && host != "" {
		if r := v.match(path); r != nil {
			return r
		}
	}
	if _, parent, ok := strings.Cut(host, "."); ok {
		if v := t.hosts["*."+parent]; v != nil {
			if r := v.match(path); r != nil {
				return r
			}
		}
	}
	if v := t.hosts[""]; v != nil {
		return v.match(path)
	}
	return nil
}

// vhostFor returns the most specific host entry that covers the name, or nil.
func (t *table) vhostFor(host string) *vhost {
	if v := t.hosts[host]; v != nil && host != "" {
		return v
	}
	if _, parent, ok := strings.Cut(host, "."); ok {
		return t.hosts["*."+parent]
	}
	return nil
}

func (v *vhost) match(path string) *route {
	if r := v.exact[path]; r != nil {
		return r
	}
	for _, r := range v.others {
		if r.matches(path) {
			return r
		}
	}
	return nil
}

func (r *route) matches(path string) bool {
	switch {
	case r.regex != nil:
		return r.regex.MatchString(path)
	case r.pathType == networkingv1.PathTypeExact:
		return path == r.path
	case r.pathType == networkingv1.PathTypePrefix:
		return hasPathPrefix(path, r.path)
	default: // ImplementationSpecific: a plain prefix, as an nginx location
		return strings.HasPrefix(path, r.path)
	}
}

// hasPathPrefix matches element by element, as the Ingress API defines Prefix:
// /foo covers /foo, /foo/ and /foo/bar, but not /foobar; a trailing slash of
// the prefix is ignored.
func hasPathPrefix(path, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}
