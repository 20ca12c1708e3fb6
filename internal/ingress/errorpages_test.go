package ingress

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// errorPagesOf says what a Service for error pages is told.
func errorPagesOf(w http.ResponseWriter, r *http.Request) {
	var status int
	_, _ = fmt.Sscan(r.Header.Get("X-Code"), &status)
	w.Header().Set("X-Page", "yes")
	w.WriteHeader(status)
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "page for %s %s %s%s", r.Method, r.URL.RequestURI(), r.Host, body)
	for _, h := range []string{"X-Code", "X-Format", "X-Original-URI", "X-Namespace", "X-Ingress-Name", "X-Service-Name", "X-Service-Port", "If-None-Match"} {
		fmt.Fprintf(w, " %s=%s", h, r.Header.Get(h))
	}
	if r.Header.Get("X-Request-Id") == "" {
		fmt.Fprint(w, " without a request ID")
	}
}

// answersAsked answers with the status of its path, and long.
func answersAsked(w http.ResponseWriter, r *http.Request) {
	var status int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d", &status); err != nil {
		status = 200
	}
	if status == 401 {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("X-Secret-Of-The-Error", "yes")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, strings.Repeat("the application's own ", 10000))
}

func withErrorPages(t *testing.T, annotations map[string]string) *app {
	a := newApp(t)
	web, pages := a.backend(answersAsked), a.backend(errorPagesOf)
	a.service("web", nil, web)
	a.service("pages", nil, pages)
	all := map[string]string{"default-backend": "pages", "custom-http-errors": "404, 401,503"}
	for k, v := range annotations {
		all[k] = v
	}
	a.ingress("web", all, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", web)
	a.waitEndpoints("pages", pages)
	return a
}

func TestErrorPages(t *testing.T) {
	t.Parallel()
	a := withErrorPages(t, map[string]string{"denylist-source-range": "127.0.0.7"})
	c, url := client(t, false), "http://"+a.host
	got := get(t, c, url+"/404?q=1", "Accept", "application/json", "If-None-Match", "x", "X-Code", "200")
	want := fmt.Sprintf("page for GET /?q=1 %s X-Code=404 X-Format=application/json X-Original-URI=/404?q=1 X-Namespace=%s X-Ingress-Name=web X-Service-Name=web X-Service-Port=80 If-None-Match=", a.host, a.ns)
	if got.status != 404 || got.body != want || got.header.Get("X-Secret-Of-The-Error") != "" {
		t.Errorf("%d %v\ngot  %s\nwant %s", got.status, got.header, got.body, want)
	}
	if got := get(t, c, url+"/401"); got.status != 401 || got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("401: %d %v", got.status, got.header)
	}
	// What is not listed is the application's own.
	for _, status := range []int{200, 500, 403} {
		if got := get(t, c, fmt.Sprintf("%s/%d", url, status)); got.status != status || !strings.HasPrefix(got.body, "the application's own") {
			t.Errorf("%d: %d %.40s", status, got.status, got.body)
		}
	}
	// A body is the application's; the page is asked for by GET, or by HEAD.
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/503", strings.NewReader("a body"))
	if err != nil {
		t.Fatal(err)
	}
	if got := do(t, c, req); got.status != 503 || !strings.HasPrefix(got.body, "page for GET / ") {
		t.Errorf("POST: %d %.60s", got.status, got.body)
	}
	if req, err = http.NewRequestWithContext(t.Context(), "HEAD", url+"/404", nil); err != nil {
		t.Fatal(err)
	}
	if got := do(t, c, req); got.status != 404 || got.header.Get("X-Page") != "yes" {
		t.Errorf("HEAD: %d %v", got.status, got.header)
	}
	eventually(t, "two requests are counted as 404 of the application", func() bool {
		return testutil.ToFloat64(shared.metrics.requests.WithLabelValues(a.ns, "web", "web", "", "false", "404")) == 2
	})
}

// A page that says 200 does not hide from the metrics that the application failed.
func TestErrorPagesDoNotHideErrors(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	web, pages := a.backend(answersAsked), a.backend(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well") })
	a.service("web", nil, web)
	a.service("pages", nil, pages)
	a.ingress("web", map[string]string{"default-backend": "pages", "custom-http-errors": "500"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", web)
	a.waitEndpoints("pages", pages)
	if got := get(t, client(t, false), "http://"+a.host+"/500"); got.status != 200 || got.body != "all is well" {
		t.Errorf("%d %.60s", got.status, got.body)
	}
	eventually(t, "the request is counted as 500", func() bool {
		return testutil.ToFloat64(shared.metrics.requests.WithLabelValues(a.ns, "web", "web", "", "false", "500")) == 1
	})
}

// A Service without endpoints is stood in for by default-backend, which gets
// the request as it is; where the ingress itself refuses, the page is shown.
func TestDefaultBackendStandsIn(t *testing.T) {
	t.Parallel()
	a := withErrorPages(t, map[string]string{"limit-rps": "1000", "denylist-source-range": "127.0.0.1"})
	c, url := client(t, false), "http://"+a.host
	got := get(t, c, url+"/x") // 403 is not listed
	if got.status != 403 || got.header.Get("X-Page") != "" {
		t.Errorf("refused: %d %s", got.status, got.body)
	}
	b := withErrorPages(t, map[string]string{"custom-http-errors": "403", "denylist-source-range": "127.0.0.1"})
	if got := get(t, c, "http://"+b.host+"/x"); got.status != 403 || got.header.Get("X-Page") != "yes" {
		t.Errorf("refused with a page: %d %s", got.status, got.body)
	}

	alone := newApp(t)
	pages := alone.backend(errorPagesOf)
	alone.service("web", nil)
	alone.service("pages", nil, pages)
	alone.ingress("web", map[string]string{"default-backend": "pages"}, pathOption{path: "/", service: "web"})
	alone.waitEndpoints("pages", pages)
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+alone.host+"/order?q=1", strings.NewReader(" and its body"))
	if err != nil {
		t.Fatal(err)
	}
	if got := do(t, c, req); got.status != 503 || !strings.HasPrefix(got.body, "page for POST /order?q=1 "+alone.host+" and its body X-Code=503") || !strings.Contains(got.body, "X-Service-Name=web X-Service-Port=80") {
		t.Errorf("without endpoints: %d %s", got.status, got.body)
	}
	// Endpoints that go a moment before: the request waits, then gets the page.
	web := alone.backend(echo)
	alone.endpoints("web", web)
	alone.waitEndpoints("web", web)
	alone.endpoints("web")
	alone.waitEndpoints("web")
	if got := get(t, c, "http://"+alone.host+"/"); got.status != 503 || !strings.HasPrefix(got.body, "page for GET / ") {
		t.Errorf("after the last endpoint: %d %s", got.status, got.body)
	}
	// Without pages the answer is as plain as without the annotation.
	alone.endpoints("pages")
	alone.waitEndpoints("pages")
	if got := get(t, c, "http://"+alone.host+"/"); got.status != 503 || got.body != "503 Service Unavailable\nService web has no ready endpoint.\n" {
		t.Errorf("without pages: %d %s", got.status, got.body)
	}
}

func TestErrorPagesProblems(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(answersAsked)
	a.service("web", nil, addr)
	a.ingress("web", map[string]string{"default-backend": "none", "custom-http-errors": "404"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	if got := get(t, client(t, false), "http://"+a.host+"/404"); got.status != 404 || !strings.HasPrefix(got.body, "the application's own") {
		t.Errorf("%d %.40s", got.status, got.body)
	}
	problems := strings.Join(shared.Problems()[a.ns+"/web"], "\n")
	if !strings.Contains(problems, "default-backend: Service none does not exist in namespace "+a.ns) {
		t.Errorf("problems %s", problems)
	}
	_, alone := parseAnnotations(map[string]string{annotationPrefix + "custom-http-errors": "404"})
	_, bad := parseAnnotations(map[string]string{annotationPrefix + "custom-http-errors": "4xx", annotationPrefix + "default-backend": "pages"})
	if len(alone) != 1 || !strings.Contains(alone[0], "has no effect without default-backend") || len(bad) != 1 || !strings.Contains(bad[0], `"4xx" is not a status`) {
		t.Errorf("problems %v %v", alone, bad)
	}
}

// What a backend says of its own address is put right.
func TestReplacements(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "a=1; Path=/; Domain=Internal.test; HttpOnly")
		w.Header().Add("Set-Cookie", "b=path=/; path=/x; domain=other.test")
		w.Header().Set("Location", "http://internal.test:8080/next")
		w.WriteHeader(302)
	})
	a.service("web", nil, addr)
	a.ingress("web", map[string]string{"proxy-cookie-path": "/ /shop/", "proxy-cookie-domain": "internal.test shop.test",
		"proxy-redirect-from": "http://internal.test:8080/", "proxy-redirect-to": "/shop/"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	got := get(t, client(t, false), "http://"+a.host+"/")
	cookies := strings.Join(got.header.Values("Set-Cookie"), " | ")
	if cookies != "a=1; Path=/shop/; Domain=shop.test; HttpOnly | b=path=/; path=/shop/x; domain=other.test" || got.header.Get("Location") != "/shop/next" {
		t.Errorf("got %s, %s", cookies, got.header.Get("Location"))
	}
	_, problems := parseAnnotations(map[string]string{annotationPrefix + "proxy-cookie-path": "~^/x /y", annotationPrefix + "proxy-cookie-domain": "off"})
	if len(problems) != 1 || !strings.Contains(problems[0], "regular expressions are not supported here") {
		t.Errorf("problems %v", problems)
	}
}
