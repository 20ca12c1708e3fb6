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
		from, forwarded string
		want            int
	}{
		{"127.0.0.1:5000", "", http.StatusBadRequest}, // it is there, and names what is missing
		{"127.0.0.1:5000", "192.0.2.7", http.StatusNotFound},
		{"192.0.2.7:5000", "", http.StatusNotFound},
	} {
		r := httptest.NewRequest(http.MethodGet, "/-/analysis/error-logs?namespace=shop&hash=abc", nil)
		r.RemoteAddr = c.from
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		w := httptest.NewRecorder()
		p.mux.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("from %s for %q: %d, want %d", c.from, c.forwarded, w.Code, c.want)
		}
	}
}
