package ingress

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// gatekeeper answers as oauth2-proxy does: 202 with the user for a known
// session, 401 without one, 403 for another group's.
func gatekeeper(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Seen", fmt.Sprintf("%s %s url=%s uri=%s method=%s rd=%s real=%s length=%d upgrade=%s tenant=%s", r.Method, r.URL.RequestURI(),
		r.Header.Get("X-Original-Url"), r.Header.Get("X-Original-Uri"), r.Header.Get("X-Original-Method"), r.Header.Get("X-Auth-Request-Redirect"),
		r.Header.Get("X-Real-Ip"), r.ContentLength, r.Header.Get("Upgrade"), r.Header.Get("X-Tenant")))
	w.Header().Add("Set-Cookie", "session=renewed")
	w.Header().Add("Set-Cookie", "csrf=2")
	c, _ := r.Cookie("session")
	switch {
	case c == nil:
		w.Header().Set("WWW-Authenticate", `Bearer realm="shop"`)
		w.WriteHeader(401)
	case c.Value == "ann":
		w.Header().Set("X-Auth-Request-User", "ann")
		w.Header().Add("X-Auth-Request-Groups", "staff")
		w.Header().Add("X-Auth-Request-Groups", "admin")
		w.WriteHeader(202)
	case c.Value == "broken":
		w.WriteHeader(500)
	default:
		w.WriteHeader(403)
	}
}

func saysWho(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "user=%s groups=%s email=%s", r.Header.Get("X-Auth-Request-User"), r.Header.Values("X-Auth-Request-Groups"), r.Header.Get("X-Auth-Request-Email"))
	if r.ContentLength > 0 {
		fmt.Fprintf(w, " body=%d", r.ContentLength)
	}
}

// guarded is an application behind a gatekeeper, which is a Service of the
// cluster and also at /oauth2 of the same host.
func guarded(t *testing.T, annotations map[string]string) *app {
	a := newApp(t)
	web, gate := a.backend(saysWho), a.backend(gatekeeper)
	a.service("web", nil, web)
	a.service("gate", nil, gate)
	a.ingress("gate", nil, pathOption{path: "/oauth2", service: "gate"})
	full := map[string]string{"auth-response-headers": "X-Auth-Request-User, x-auth-request-groups, X-Auth-Request-Email"}
	for k, v := range annotations {
		full[k] = strings.ReplaceAll(v, "NS", a.ns)
	}
	a.ingress("web", full, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", web)
	a.waitEndpoints("gate", gate)
	return a
}

func TestExternalAuth(t *testing.T) {
	t.Parallel()
	c := client(t, false)
	for name, address := range map[string]string{
		"a Service":            "http://gate.NS.svc.cluster.local/oauth2/auth",
		"a Service, short":     "http://gate.NS:80/oauth2/auth",
		"this ingress":         "https://$host/oauth2/auth",
		"this ingress by HTTP": "$scheme://${http_host}/oauth2/auth",
	} {
		a := guarded(t, map[string]string{"auth-url": address})
		url := "http://" + a.host + "/deep/path?q=1"
		got := get(t, c, url, "Cookie", "session=ann", "X-Auth-Request-Email", "forged@x", "X-Auth-Request-User", "root")
		if got.status != 200 || got.body != "user=ann groups=[staff admin] email=" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if cookies := got.header.Values("Set-Cookie"); len(cookies) != 2 || cookies[0] != "session=renewed" {
			t.Errorf("%s: cookies %v", name, cookies)
		}
		got = get(t, c, url)
		if got.status != 401 || got.header.Get("WWW-Authenticate") != `Bearer realm="shop"` || len(got.header.Values("Set-Cookie")) > 0 || strings.Contains(got.body, "user=") {
			t.Errorf("%s: without a session: %d %v %s", name, got.status, got.header, got.body)
		}
		if got = get(t, c, url, "Cookie", "session=eve"); got.status != 403 {
			t.Errorf("%s: of another group: %d", name, got.status)
		}
		if got = get(t, c, url, "Cookie", "session=broken"); got.status != 500 || !strings.Contains(got.body, "answered 500") {
			t.Errorf("%s: broken: %d %s", name, got.status, got.body)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader("hello"))
		req.Header.Set("Cookie", "session=ann")
		if got = do(t, c, req); got.status != 200 || !strings.HasSuffix(got.body, " body=5") {
			t.Errorf("%s: with a body: %d %s", name, got.status, got.body)
		}
	}
}

// What a gatekeeper is asked with, as ingress-nginx's template has it.
func TestExternalAuthQuestion(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	seen := make(chan *http.Request, 10)
	web := a.backend(echo)
	gate := a.backend(func(w http.ResponseWriter, r *http.Request) { seen <- r; gatekeeper(w, r) })
	a.service("web", nil, web)
	a.service("gate", nil, gate)
	a.configMap("tenant", map[string]string{"X-Tenant": "t1"})
	a.ingress("web", map[string]string{"auth-url": "http://gate." + a.ns + ".svc/auth?allowed=staff", "auth-proxy-set-headers": "tenant", "auth-method": "HEAD"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("gate", gate)
	a.waitEndpoints("web", web)
	eventually(t, "the gatekeeper sees the headers of the ConfigMap", func() bool {
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", "http://"+a.host+"/x?q=1", strings.NewReader("body"))
		req.Header.Set("Cookie", "session=ann")
		req.Header.Set("If-None-Match", `"x"`)
		req.Header.Set("X-Real-Ip", "6.6.6.6")
		if got := do(t, client(t, false), req); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		r := <-seen
		if r.Header.Get("X-Tenant") != "t1" {
			return false
		}
		for k, want := range map[string]string{
			"X-Original-Url": "http://" + a.host + "/x?q=1", "X-Original-Uri": "/x?q=1", "X-Original-Method": "PUT", "X-Auth-Request-Redirect": "/x?q=1",
			"X-Forwarded-Method": "PUT", "X-Forwarded-Uri": "/x?q=1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "If-None-Match": "", "Cookie": "session=ann",
		} {
			if got := r.Header.Get(k); got != want {
				t.Errorf("%s is %q, want %q", k, got, want)
			}
		}
		if r.Method != "HEAD" || r.RequestURI != "/auth?allowed=staff" || r.Host != "gate."+a.ns+".svc" || r.ContentLength > 0 {
			t.Errorf("asked %s %s of %s with %d bytes", r.Method, r.RequestURI, r.Host, r.ContentLength)
		}
		return true
	})
}

func TestExternalAuthSignin(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ signin, param, want string }{
		{"https://$host/oauth2/start?rd=$escaped_request_uri", "", "https://HOST/oauth2/start?rd=%2Fa%20b%3Fc%3D1%26d%3D2"},
		{"https://login.test/start", "", "https://login.test/start?rd=http://HOST%2Fa%20b%3Fc%3D1%26d%3D2"},
		{"https://login.test/start?x=1", "back", "https://login.test/start?x=1&back=http://HOST%2Fa%20b%3Fc%3D1%26d%3D2"},
	} {
		annotations := map[string]string{"auth-url": "http://gate.NS.svc/auth", "auth-signin": x.signin}
		if x.param != "" {
			annotations["auth-signin-redirect-param"] = x.param
		}
		a := guarded(t, annotations)
		got := get(t, client(t, false), "http://"+a.host+"/a%20b?c=1&d=2")
		want := strings.ReplaceAll(x.want, "HOST", a.host)
		// The path is sent encoded, and encoded once more as a parameter.
		want = strings.Replace(want, "%2Fa%20b", "%2Fa%2520b", 1)
		if got.status != 302 || got.header.Get("Location") != want || len(got.header.Values("Set-Cookie")) != 2 {
			t.Errorf("%s: %d %s %v, want %s", x.signin, got.status, got.header.Get("Location"), got.header.Values("Set-Cookie"), want)
		}
		if got := get(t, client(t, false), "http://"+a.host+"/", "Cookie", "session=eve"); got.status != 403 {
			t.Errorf("%s: of another group: %d", x.signin, got.status)
		}
	}
}

func TestExternalAuthRefusesWhatItCannotAsk(t *testing.T) {
	t.Parallel()
	c := client(t, false)
	for address, text := range map[string]string{
		"http://nothing.NS.svc/auth":      "cannot be asked",
		"http://127.0.0.1:1/auth":         "cannot be asked", // this host's own addresses are closed
		"http://169.254.169.254/metadata": "cannot be asked",
		"https://$host/other/auth":        "asks that address itself",
	} {
		a := guarded(t, map[string]string{"auth-url": address})
		got := get(t, c, "http://"+a.host+"/", "Cookie", "session=ann")
		if got.status != 500 {
			t.Errorf("%s: %d %s", address, got.status, got.body)
		}
		if text == "cannot be asked" && !strings.Contains(got.body, text) {
			t.Errorf("%s: %s", address, got.body)
		}
	}
	for _, bad := range []string{"ftp://x/auth", "auth.test", "https://$http_x_host/auth", "https://$nope/auth", "https:///auth", ""} {
		a := guarded(t, map[string]string{"auth-url": bad})
		if got := get(t, c, "http://"+a.host+"/"); got.status != 503 || !strings.Contains(fmt.Sprint(shared.Problems()[a.ns+"/web"]), "auth-url: ") {
			t.Errorf("%q: %d %v", bad, got.status, shared.Problems()[a.ns+"/web"])
		}
	}
	a := guarded(t, map[string]string{"auth-url": "http://nothing.NS.svc/auth"})
	if got := fmt.Sprint(shared.Problems()[a.ns+"/web"]); !strings.Contains(got, "auth-url: Service nothing does not exist; nobody is let in") {
		t.Errorf("problems %s", got)
	}
}

func TestExternalAuthSatisfiesAny(t *testing.T) {
	t.Parallel()
	c := client(t, false)
	in := guarded(t, map[string]string{"auth-url": "http://gate.NS.svc/auth", "satisfy": "any", "whitelist-source-range": "127.0.0.1"})
	if got := get(t, c, "http://"+in.host+"/"); got.status != 200 {
		t.Errorf("by address: %d", got.status)
	}
	out := guarded(t, map[string]string{"auth-url": "http://gate.NS.svc/auth", "satisfy": "any", "whitelist-source-range": "127.0.0.9"})
	if got := get(t, c, "http://"+out.host+"/"); got.status != 401 {
		t.Errorf("neither: %d", got.status)
	}
	if got := get(t, c, "http://"+out.host+"/", "Cookie", "session=ann"); got.status != 200 {
		t.Errorf("by session: %d", got.status)
	}
	both := guarded(t, map[string]string{"auth-url": "http://gate.NS.svc/auth", "whitelist-source-range": "127.0.0.9"})
	if got := get(t, c, "http://"+both.host+"/", "Cookie", "session=ann"); got.status != 403 {
		t.Errorf("by session from elsewhere, where all are asked for: %d", got.status)
	}
}

func TestEscapedRequestURI(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/a?b=c&d=%20e+f", nil)
	v, err := parseText("$escaped_request_uri")
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.QueryUnescape(v.of(r))
	if err != nil || back != "/a?b=c&d=%20e+f" {
		t.Errorf("%s: %s %v", v.of(r), back, err)
	}
}
