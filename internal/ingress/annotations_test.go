package ingress

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAnnotations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		check       func(settings) bool
	}{
		{"proxy-read-timeout", "120", func(s settings) bool { return s.readTimeout == 2*time.Minute }},
		{"proxy-read-timeout", "90s", func(s settings) bool { return s.readTimeout == 90*time.Second }},
		{"proxy-body-size", "8m", func(s settings) bool { return s.maxBody == 8<<20 }},
		{"proxy-body-size", "0", func(s settings) bool { return s.maxBody == 0 }},
		{"proxy-body-size", "2G", func(s settings) bool { return s.maxBody == 2<<30 }},
		{"backend-protocol", "grpc", func(s settings) bool { return s.protocol == protoGRPC }},
		{"ssl-redirect", "false", func(s settings) bool { return !s.sslRedirect }},
		{"permanent-redirect", "https://x.test$request_uri", func(s settings) bool { return s.redirectCode == 301 }},
		{"whitelist-source-range", "10.0.0.0/8, 192.0.2.7", func(s settings) bool {
			return s.admits(netip.MustParseAddr("10.2.3.4")) && s.admits(netip.MustParseAddr("192.0.2.7")) && !s.admits(netip.MustParseAddr("192.0.2.8"))
		}},
		{"denylist-source-range", "192.0.2.0/24", func(s settings) bool {
			return !s.admits(netip.MustParseAddr("192.0.2.8")) && s.admits(netip.MustParseAddr("10.0.0.1"))
		}},
		{"server-alias", "a.test, B.test.", func(s settings) bool {
			return len(s.serverAliases) == 2 && s.serverAliases[1] == "b.test"
		}},
	} {
		set, problems := parseAnnotations(map[string]string{annotationPrefix + c.name: c.value})
		if len(problems) > 0 || !c.check(set) {
			t.Errorf("%s: %q: %v %+v", c.name, c.value, problems, set)
		}
	}
}

func TestBadAnnotationsNameThemselves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value, want string
		closed            bool
	}{
		{"proxy-read-timeout", "soon", `"soon" is not a number of seconds`, false},
		{"proxy-body-size", "8q", `"8q" is not a size such as 8m`, false},
		{"backend-protocol", "SOAP", `"SOAP" is not one of HTTP, HTTPS, GRPC, GRPCS`, false},
		{"canary", "maybe", `"maybe" is neither true nor false`, false},
		{"canary-weight", "10", `has no effect without nginx.ingress.kubernetes.io/canary: "true"`, false},
		{"rewrite-target", "x", `"x" does not start with a slash`, false},
		{"configuration-snippet", "return 200;", "not supported by this ingress: pieces of nginx's configuration cannot be used", false},
		{"enable-modsecurity", "true", "not supported by this ingress: there is no web application firewall here", false},
		{"no-such-thing", "x", "ingress-nginx has no such annotation", false},
		{"proxy-bodysize", "8m", "there is no such annotation; did you mean proxy-body-size?", false},
		{"whitelist-source-ranges", "10.0.0.0/8", "there is no such annotation; did you mean whitelist-source-range?", false},
		{"server_snippet", "return 200;", "did you mean server-snippet?", false},
		{"whitelist-source-range", "10.0.0.0/99", "neither an address nor a CIDR range; the route is closed", true},
		{"auth-url", "ldap://auth", "is not an http or https address; the route is closed", true},
		{"auth-tls-verify-client", "maybe", "not one of on, off, optional, optional_no_ca; the route is closed", true},
	} {
		set, problems := parseAnnotations(map[string]string{annotationPrefix + c.name: c.value})
		if len(problems) != 1 || !strings.Contains(problems[0], c.want) || !strings.HasPrefix(problems[0], annotationPrefix+c.name+": ") {
			t.Errorf("%s: %q: %q, want %q", c.name, c.value, problems, c.want)
		}
		if set.denyAll != c.closed {
			t.Errorf("%s: closed %v", c.name, set.denyAll)
		}
	}
}

// An annotation that asks for nothing is no problem.
func TestUnsupportedThatAsksForNothing(t *testing.T) {
	t.Parallel()
	if _, problems := parseAnnotations(map[string]string{annotationPrefix + "enable-modsecurity": "false", annotationPrefix + "limit-rate": "0"}); len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add("canary-by-header-pattern", "^(a|b)+$")
	f.Add("proxy-body-size", "8m")
	f.Add("whitelist-source-range", "10.0.0.0/8,::1/128")
	f.Add("rewrite-target", "/$1?x=$2")
	f.Fuzz(func(t *testing.T, name, value string) {
		set, _ := parseAnnotations(map[string]string{annotationPrefix + "canary": "true", annotationPrefix + name: value})
		if set.readTimeout < 0 || set.maxBody < -1 || set.redirect != "" && (set.redirectCode < 300 || set.redirectCode > 308) {
			t.Errorf("%s=%q: %+v", name, value, set)
		}
		if set.canary == nil || set.canary.weight < 0 || set.canary.weightTotal < 100 && name != "canary" {
			if name != "canary" {
				t.Errorf("%s=%q: %+v", name, value, set.canary)
			}
		}
	})
}
