package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/slipwayhq/slipway/internal/config"
)

// TestErrorLogsAreServed asks for the count of error logs as Argo Rollouts
// does, and as nobody else may.
func TestErrorLogsAreServed(t *testing.T) {
	t.Parallel()
	p := &platform{settings: &settings{Config: &config.Config{}}, mux: http.NewServeMux()}
	p.routeArgo("127.0.0.1:1")
	for _, c := range []struct {
		from, host, header string
		want               int
	}{
		{"127.0.0.1:5000", "127.0.0.1:8080", "", http.StatusBadRequest}, // it is there, and names what is missing
		{"[::1]:5000", "localhost:8080", "", http.StatusBadRequest},
		{"127.0.0.1:5000", "127.0.0.1:8080", "X-Forwarded-For", http.StatusNotFound}, // through a proxy
		{"127.0.0.1:5000", "127.0.0.1:8080", "Origin", http.StatusNotFound},          // by a page of another site
		{"127.0.0.1:5000", "elsewhere.test:8080", "", http.StatusNotFound},           // by a page whose name leads here
		{"192.0.2.7:5000", "127.0.0.1:8080", "", http.StatusNotFound},
	} {
		r := httptest.NewRequest(http.MethodGet, "/-/analysis/error-logs?namespace=shop&hash=abc", nil)
		r.RemoteAddr, r.Host = c.from, c.host
		if c.header != "" {
			r.Header.Set(c.header, "192.0.2.7")
		}
		w := httptest.NewRecorder()
		p.mux.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}
