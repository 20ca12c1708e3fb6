package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// TestServe serves the pages with sample data for looking at them in a
// browser, signed in as a maintainer, until it is interrupted:
//
//	SLIPWAY_WEB_SERVE=127.0.0.1:8099 go test -run TestServe -timeout 0 ./internal/web
func TestServe(t *testing.T) {
	addr := os.Getenv("SLIPWAY_WEB_SERVE")
	if addr == "" {
		t.Skip("only on request: SLIPWAY_WEB_SERVE names no address")
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	s := openSite(t, ctx, cancel, nil)
	s.person("maya")
	p := s.project("acme/shop", map[string]string{".gitlab-ci.yml": shopConfig, "src/cart.py": "def add(a, b):\n    return a + b\n"}, map[string]delivery.Role{"maya": delivery.Owner})
	s.seed(p)
	backend, err := url.Parse(s.server.URL)
	s.must(err)
	proxy := httputil.NewSingleHostReverseProxy(backend)
	front := &http.Server{Addr: addr, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie(access.SessionCookie); err != nil {
			r.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: s.cookies["maya"]})
		}
		r.Host = backend.Host
		r.Header.Set("Origin", s.server.URL)
		proxy.ServeHTTP(w, r)
	})}
	go func() {
		<-ctx.Done()
		front.Close()
	}()
	fmt.Printf("http://%s/acme/shop/-/pipelines\n", addr)
	if err := front.ListenAndServe(); err != http.ErrServerClosed {
		t.Fatal(err)
	}
}

// seed runs pipelines with every outcome.
func (s *site) seed(p delivery.Project) {
	s.t.Helper()
	s.pushed(p)
	for range 4 {
		spec := s.take()
		switch spec.JobInfo.Name {
		case "lint":
			s.end(spec, "failed", "\x1b[31msrc/cart.py:1:1: E302 expected 2 blank lines\x1b[0m\n")
			continue
		case "build":
			s.archive(spec, map[string]string{"out/app.txt": "hello", "out/deep/data.json": "{}", "out/logo.svg": "<svg/>"})
		case "unit 1/2":
			s.upload(spec, "junit", "gzip", "junit.xml.gz", gzipped(junit))
			s.upload(spec, "codequality", "raw", "gl-code-quality-report.json", []byte(`[{"description":"Function is too long","check_name":"length","fingerprint":"a1","severity":"major","location":{"path":"src/cart.py","lines":{"begin":2}}},{"description":"Unused import","check_name":"unused","fingerprint":"a2","severity":"minor","location":{"path":"src/cart.py","lines":{"begin":1}}}]`))
			s.upload(spec, "cobertura", "gzip", "coverage.xml.gz", gzipped(`<coverage><sources><source>.</source></sources><packages><package><classes><class filename="src/cart.py"><lines><line number="1" hits="1"/><line number="2" hits="0"/></lines></class></classes></package></packages></coverage>`))
		}
		s.end(spec, "success", sampleLog())
	}
	s.commit(p, "Serve the cart faster", map[string]string{"src/cart.py": "def add(a, b):\n    return b + a\n"})
	s.pushed(p)
	s.end(s.take(), "failed", "\x1b[32;1m$ make\x1b[0;m\nmake: *** [Makefile:3: all] Error 2\n")
	s.commit(p, "Mend the build of the cart service after the change of its interface last week", map[string]string{"src/cart.py": "def add(a, b):\n    return sum([a, b])\n"})
	s.pushed(p)
	big := s.take()
	var b strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&b, "\x1b[36m%07d\x1b[0m compiling module %d of the application with optimisation and checks on, please be patient\n", i, i%977)
	}
	text := sampleLog() + b.String()
	const piece = 1 << 20
	for at := 0; at < len(text); at += piece {
		if code, _, err := s.runner.Trace(s.ctx, big, int64(at), []byte(text[at:min(len(text), at+piece)])); err != nil || code != 202 {
			s.t.Fatalf("trace: %d %v", code, err)
		}
	}
	unit := s.take()
	if code, _, err := s.runner.Trace(s.ctx, unit, 0, []byte(sampleLog())); err != nil || code != 202 {
		s.t.Fatalf("trace: %d %v", code, err)
	}
}
