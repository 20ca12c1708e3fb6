package metrics

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// apiAnswers asks the API what Grafana asks.
func apiAnswers(t *testing.T, m *Metrics) {
	srv := httptest.NewServer(m.Handler())
	defer srv.Close()
	ask := func(method, path string, form url.Values) map[string]any {
		t.Helper()
		var resp *http.Response
		var err error
		if method == "POST" {
			resp, err = http.PostForm(srv.URL+"/prometheus/api/v1/"+path, form)
		} else {
			resp, err = http.Get(srv.URL + "/prometheus/api/v1/" + path + "?" + form.Encode())
		}
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if resp.StatusCode != 200 || out["status"] != "success" {
			t.Errorf("%s %s: %d %v", method, path, resp.StatusCode, out)
		}
		return out
	}
	now := time.Now().UTC().Format(time.RFC3339)
	past := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	for _, method := range []string{"GET", "POST"} {
		ask(method, "query", url.Values{"query": {"1+1"}})
		ask(method, "query_range", url.Values{"query": {"answer"}, "start": {past}, "end": {now}, "step": {"15"}})
		ask(method, "series", url.Values{"match[]": {"answer"}})
		ask(method, "labels", nil)
		ask(method, "query_exemplars", url.Values{"query": {"answer"}, "start": {past}, "end": {now}})
		ask(method, "format_query", url.Values{"query": {"sum(answer)by(job)"}})
	}
	for _, path := range []string{"label/job/values", "metadata", "rules", "alerts", "targets", "status/buildinfo", "status/tsdb", "status/config", "status/flags", "status/runtimeinfo", "status/walreplay", "alertmanagers", "targets/metadata", "scrape_pools", "features", "notifications"} {
		ask("GET", path, nil)
	}
	groups := ask("GET", "rules", nil)["data"].(map[string]any)["groups"].([]any)
	if len(groups) < 2 {
		t.Errorf("the built-in rules are missing: %v", groups)
	}
	for path, want := range map[string]string{
		"/prometheus/graph?g0.expr=up%7Bjob%3D%22own%22%7D&g0.range_input=2h&g1.expr=answer": "/-/metrics?minutes=120&query=up%7Bjob%3D%22own%22%7D&query=answer",
		"/prometheus/":       "/-/metrics",
		"/prometheus/alerts": "/-/metrics/rules",
	} {
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if got := rec.Header().Get("Location"); got != want {
			t.Errorf("%s leads to %q, want %q", path, got, want)
		}
	}
}

// Browsers name the origin of every POST, also of the platform's own pages.
func TestPagesOfAnyOriginMayAsk(t *testing.T) {
	t.Parallel()
	m := start(t, Config{})
	for _, method := range []string{"POST", "OPTIONS"} {
		r := httptest.NewRequest(method, "/prometheus/api/v1/query", strings.NewReader("query=1"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://grafana.example")
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, r)
		if rec.Code/100 != 2 || rec.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v", method, rec.Code, rec.Header())
		}
	}
}

func TestFederation(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "level", Help: "Of something."}, []string{"tank"})
	g.WithLabelValues("a").Set(1.5)
	g.WithLabelValues("b").Set(2)
	reg.MustRegister(g)
	m := start(t, Config{Interval: 100 * time.Millisecond, Targets: []Target{{Job: "own", Gatherer: reg}}})
	eventually(t, "scraped", func() bool { _, ok := value(t, m, `level{tank="a"}`); return ok })
	for query, want := range map[string]string{
		`match[]=level&match[]=up{job="own"}`: `level{instance="test",job="own",tank="a"} 1.5 `,
		`match[]=sum(`:                        "parse error",
		``:                                    "",
	} {
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/prometheus/federate?"+strings.ReplaceAll(query, `"`, "%22"), nil))
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s: %d %s", query, rec.Code, rec.Body)
		}
		if n := strings.Count(rec.Body.String(), "# TYPE"); strings.Contains(query, "level") && n != 2 {
			t.Errorf("%d families:\n%s", n, rec.Body)
		}
	}
}
