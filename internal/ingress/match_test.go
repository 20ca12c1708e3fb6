package ingress

import (
	"regexp"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// TestPathTypes is the table of the Ingress API's documentation
// (concepts/services-networking/ingress, "Examples").
func TestPathTypes(t *testing.T) {
	t.Parallel()
	const (
		prefix = networkingv1.PathTypePrefix
		exact  = networkingv1.PathTypeExact
		impl   = networkingv1.PathTypeImplementationSpecific
	)
	for _, c := range []struct {
		kind networkingv1.PathType
		path string
		req  string
		want bool
	}{
		{prefix, "/", "/anything", true},
		{exact, "/foo", "/foo", true},
		{exact, "/foo", "/bar", false},
		{exact, "/foo", "/foo/", false},
		{exact, "/foo/", "/foo", false},
		{prefix, "/foo", "/foo", true},
		{prefix, "/foo", "/foo/", true},
		{prefix, "/foo/", "/foo", true},
		{prefix, "/foo/", "/foo/", true},
		{prefix, "/aaa/bb", "/aaa/bbb", false},
		{prefix, "/aaa/bbb", "/aaa/bbb", true},
		{prefix, "/aaa/bbb/", "/aaa/bbb", true},
		{prefix, "/aaa/bbb", "/aaa/bbb/", true},
		{prefix, "/aaa/bbb", "/aaa/bbb/ccc", true},
		{prefix, "/aaa/bbb", "/aaa/bbbxyz", false},
		{prefix, "/aaa", "/aaa/ccc", true},
		{impl, "/aaa", "/aaabbb", true},
	} {
		r := &route{path: c.path, pathType: c.kind}
		if got := r.matches(c.req); got != c.want {
			t.Errorf("%s %s on %s: %v", c.kind, c.path, c.req, got)
		}
	}
}

func TestNormalPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/": "/", "": "/", "*": "/", "/a/b": "/a/b", "/a//b": "/a/b", "//": "/", "//a": "/a", "/a/./b": "/a/b", "/a/../b": "/b", "/a/..": "/", "/a/b/..": "/a/", "/a/.": "/a/",
		"/a/...": "/a/...", "/.well-known/x": "/.well-known/x", "/a/": "/a/", "/a//": "/a/", "/x/..//admin": "/admin",
	} {
		if got, ok := normalPath(in); got != want || !ok {
			t.Errorf("%q: %q %v, want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"/..", "/../a", "/a/../../b", "//../a"} {
		if got, ok := normalPath(in); ok {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestHostPrecedence(t *testing.T) {
	t.Parallel()
	tb := emptyTable()
	add := func(host, path string, kind networkingv1.PathType) *route {
		v := tb.hosts[host]
		if v == nil {
			v = &vhost{name: host, exact: map[string]*route{}}
			tb.hosts[host] = v
		}
		r := &route{host: host, path: path, pathType: kind}
		if kind == networkingv1.PathTypeExact {
			v.exact[path] = r
		} else {
			v.others = append(v.others, r)
		}
		return r
	}
	exactHost := add("foo.bar.com", "/", networkingv1.PathTypePrefix)
	wildcard := add("*.bar.com", "/", networkingv1.PathTypePrefix)
	wildcardExact := add("*.bar.com", "/x", networkingv1.PathTypeExact)
	anyHost := add("", "/", networkingv1.PathTypePrefix)
	for _, c := range []struct {
		host, path string
		want       *route
	}{
		{"foo.bar.com", "/x", exactHost},
		{"other.bar.com", "/", wildcard},
		{"other.bar.com", "/x", wildcardExact},
		{"baz.foo.bar.com", "/", anyHost}, // a wildcard covers one label only
		{"bar.com", "/", anyHost},
		{"", "/", anyHost},
	} {
		if got := tb.match(c.host, c.path); got != c.want {
			t.Errorf("%s%s: %+v", c.host, c.path, got)
		}
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Foo.Test": "foo.test", "foo.test:80": "foo.test", "foo.test.": "foo.test", "[::1]:443": "::1", "[::1]": "::1", "10.0.0.1:8": "10.0.0.1", "": "",
	} {
		if got := hostname(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzPathMatch(f *testing.F) {
	f.Add("/foo", "/foo/bar")
	f.Add("/", "//")
	f.Add("/a/", "/a")
	f.Fuzz(func(t *testing.T, path, req string) {
		if !strings.HasPrefix(path, "/") || !strings.HasPrefix(req, "/") {
			return
		}
		p := &route{path: path, pathType: networkingv1.PathTypePrefix}
		e := &route{path: path, pathType: networkingv1.PathTypeExact}
		i := &route{path: path, pathType: networkingv1.PathTypeImplementationSpecific}
		if e.matches(req) && !p.matches(req) {
			t.Errorf("%q matches %q exactly but not as a prefix", path, req)
		}
		if p.matches(req) && !i.matches(req) && !strings.HasSuffix(path, "/") {
			t.Errorf("%q matches %q by element but not by text", path, req)
		}
	})
}

func FuzzRewrite(f *testing.F) {
	f.Add("/api(/|$)(.*)", "/$2", "/api/v1")
	f.Fuzz(func(t *testing.T, pattern, target, path string) {
		re, err := regexp.Compile("(?i)^" + pattern)
		if err != nil {
			return
		}
		if m := re.FindStringSubmatchIndex(path); m != nil {
			expandGroups(target, path, m)
		}
	})
}
