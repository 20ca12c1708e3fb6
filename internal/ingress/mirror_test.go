package ingress

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// copies is a target that notes what it gets and never answers before it is told to.
func copies(t *testing.T) (http.HandlerFunc, chan string, func()) {
	seen, answer := make(chan string, 100), make(chan struct{})
	return func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s host=%s id=%s client=%s %d bytes", r.Method, r.URL.RequestURI(), r.Host, r.Header.Get("X-Request-Id"), r.Header.Get("X-Forwarded-For"), len(body))
		select {
		case <-answer:
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
	}, seen, func() { close(answer) }
}

func received(t *testing.T, seen chan string) string {
	t.Helper()
	select {
	case s := <-seen:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("no copy came")
		return ""
	}
}

func (a *app) mirrored(result string) float64 {
	return testutil.ToFloat64(shared.metrics.mirrored.WithLabelValues(a.ns, "web", result))
}

// The copy has everything of the original, which does not wait for it.
func TestMirror(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	target, seen, answer := copies(t)
	web, shadow := a.backend(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d", r.URL.RequestURI(), n)
	}), a.backend(target)
	a.service("web", nil, web)
	a.service("shadow", nil, shadow)
	a.ingress("web", map[string]string{"mirror-target": "http://shadow." + a.ns + ".svc.cluster.local$request_uri", "rewrite-target": "/rewritten"}, pathOption{path: "/.*", service: "web"})
	a.waitEndpoints("web", web)
	a.waitEndpoints("shadow", shadow)
	c, url := client(t, false), "http://"+a.host
	post := func(path string, body io.Reader) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if got := do(t, c, req); got.status != 200 || !strings.HasPrefix(got.body, "/rewritten") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	host := "host=shadow." + a.ns + ".svc.cluster.local"
	if got := get(t, c, url+"/a?b=c", "X-Request-Id", "r1"); got.status != 200 {
		t.Errorf("original: %d", got.status)
	}
	if got, want := received(t, seen), "GET /a?b=c "+host+" id="; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "client=127.0.0.1 0 bytes") {
		t.Errorf("copy: %s", got)
	}
	post("/with-a-length", strings.NewReader(strings.Repeat("x", 1000)))
	if got := received(t, seen); !strings.HasPrefix(got, "POST /with-a-length") || !strings.HasSuffix(got, "1000 bytes") {
		t.Errorf("copy: %s", got)
	}
	post("/in-chunks", io.MultiReader(strings.NewReader("abc"), strings.NewReader("def")))
	if got := received(t, seen); !strings.HasPrefix(got, "POST /in-chunks") || !strings.HasSuffix(got, " 6 bytes") {
		t.Errorf("copy: %s", got)
	}
	post("/too-large", strings.NewReader(strings.Repeat("x", mirrorBody+1)))
	post("/too-large-in-chunks", io.MultiReader(strings.NewReader(strings.Repeat("x", mirrorBody)), strings.NewReader("y")))
	eventually(t, "the large ones are dropped", func() bool { return a.mirrored("dropped") == 2 })
	answer()
	eventually(t, "the copies are answered", func() bool { return a.mirrored("sent") == 3 })
}

func TestMirrorWithoutBodyAndElsewhere(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	target, seen, answer := copies(t)
	answer()
	web, shadow := a.backend(echo), a.backend(target)
	a.service("web", nil, web)
	a.service("shadow", nil, shadow)
	a.ingress("web", map[string]string{"mirror-target": "http://shadow." + a.ns + ".svc/copy", "mirror-request-body": "off", "mirror-host": "test.example.com"}, pathOption{path: "/", service: "web"})
	// A host that is served here is asked here, and its own copies end there.
	loop := newApp(t)
	loop.service("web", nil, web)
	loop.ingress("web", map[string]string{"mirror-target": "http://" + a.host + "$request_uri"}, pathOption{path: "/", service: "web"})
	self := newApp(t)
	self.service("web", nil, web)
	self.ingress("web", map[string]string{"mirror-target": "http://$host$request_uri"}, pathOption{path: "/", service: "web"})
	gone := newApp(t)
	gone.service("web", nil, web)
	gone.ingress("web", map[string]string{"mirror-target": "http://127.0.0.1:1/"}, pathOption{path: "/", service: "web"})
	for _, x := range []*app{a, loop, self, gone} {
		x.waitEndpoints("web", web)
	}
	a.waitEndpoints("shadow", shadow)
	c := client(t, false)
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+a.host+"/x", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	if got := do(t, c, req); got.status != 200 {
		t.Errorf("original: %d", got.status)
	}
	if got := received(t, seen); !strings.HasPrefix(got, "POST /copy host=test.example.com ") || !strings.HasSuffix(got, " 0 bytes") {
		t.Errorf("copy: %s", got)
	}
	for name, x := range map[string]struct {
		a      *app
		result string
	}{"served here": {loop, "sent"}, "itself": {self, "sent"}, "this host's own address": {gone, "failed"}} {
		if got := get(t, c, "http://"+x.a.host+"/"); got.status != 200 {
			t.Errorf("%s: %d", name, got.status)
		}
		eventually(t, name+" is "+x.result, func() bool { return x.a.mirrored(x.result) == 1 })
	}
	eventually(t, "the original and its copy are counted", func() bool {
		return testutil.ToFloat64(shared.metrics.requests.WithLabelValues(self.ns, "web", "web", "", "false", "200")) == 2
	})
	_, problems := parseAnnotations(map[string]string{annotationPrefix + "mirror-target": "test.example.com", annotationPrefix + "mirror-request-body": "yes"})
	if len(problems) != 2 {
		t.Errorf("problems %v", problems)
	}
}

// There are never more copies, and never more memory for them, than allowed.
func TestMirrorsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMirrors(t.Context(), nil)
	for i := range mirrorMost {
		if !m.reserve(1) {
			t.Fatalf("copy %d has no room", i)
		}
	}
	if m.reserve(0) {
		t.Error("one more has room")
	}
	for range mirrorMost {
		m.release(1)
	}
	if !m.reserve(mirrorMemory) || m.reserve(1) {
		t.Error("memory is not bounded")
	}
	m.release(mirrorMemory)
	m.close()
	if m.reserve(0) {
		t.Error("a copy after the end")
	}
}
