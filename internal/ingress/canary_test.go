package ingress

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// TestCanaryDecision is the table of ingress-nginx's documentation.
func TestCanaryDecision(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		annotations map[string]string
		header      map[string]string
		cookie      string
		want        bool
	}{
		{"weight 0", map[string]string{"canary-weight": "0"}, nil, "", false},
		{"weight 100", map[string]string{"canary-weight": "100"}, nil, "", true},
		{"weight equals total", map[string]string{"canary-weight": "200", "canary-weight-total": "200"}, nil, "", true},
		{"no rule", nil, nil, "", false},
		{"header always", map[string]string{"canary-by-header": "X-Canary"}, map[string]string{"X-Canary": "always"}, "", true},
		{"header never beats weight", map[string]string{"canary-by-header": "X-Canary", "canary-weight": "100"}, map[string]string{"X-Canary": "never"}, "", false},
		{"other header value falls to weight", map[string]string{"canary-by-header": "X-Canary", "canary-weight": "100"}, map[string]string{"X-Canary": "maybe"}, "", true},
		{"header value", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-value": "blue"}, map[string]string{"X-Canary": "blue"}, "", true},
		{"with a header value, always says nothing", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-value": "blue"}, map[string]string{"X-Canary": "always"}, "", false},
		{"with a header value, never says nothing", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-value": "blue", "canary-weight": "100"}, map[string]string{"X-Canary": "never"}, "", true},
		{"header pattern", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-pattern": "^bl.e$"}, map[string]string{"X-Canary": "blue"}, "", true},
		{"header pattern does not match", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-pattern": "^bl.e$"}, map[string]string{"X-Canary": "red"}, "", false},
		{"value wins over pattern", map[string]string{"canary-by-header": "X-Canary", "canary-by-header-value": "x", "canary-by-header-pattern": ".*"}, map[string]string{"X-Canary": "y"}, "", false},
		{"cookie always", map[string]string{"canary-by-cookie": "canary"}, nil, "always", true},
		{"cookie never beats weight", map[string]string{"canary-by-cookie": "canary", "canary-weight": "100"}, nil, "never", false},
		{"other cookie value falls to weight", map[string]string{"canary-by-cookie": "canary", "canary-weight": "100"}, nil, "x", true},
		{"header beats cookie", map[string]string{"canary-by-header": "X-Canary", "canary-by-cookie": "canary"}, map[string]string{"X-Canary": "never"}, "always", false},
		{"an unclear header falls to the cookie", map[string]string{"canary-by-header": "X-Canary", "canary-by-cookie": "canary"}, map[string]string{"X-Canary": "?"}, "always", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			full := map[string]string{annotationPrefix + "canary": "true"}
			for k, v := range c.annotations {
				full[annotationPrefix+k] = v
			}
			set, problems := parseAnnotations(full)
			if len(problems) > 0 {
				t.Fatalf("problems: %v", problems)
			}
			r := httptest.NewRequest("GET", "/", nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if c.cookie != "" {
				r.AddCookie(&http.Cookie{Name: "canary", Value: c.cookie})
			}
			var s sequence
			if got := set.canary.decide(r, s.draw); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestWeightIsExact holds the sequence to its promise: any hundred requests
// in a row are within two points of the weight.
func TestWeightIsExact(t *testing.T) {
	t.Parallel()
	for _, total := range []int{100, 1000} {
		for weight := 0; weight <= total; weight += total / 20 {
			rule := &canaryRule{weight: weight, weightTotal: total}
			var s sequence
			for window := range 50 {
				hits := 0
				for range 100 {
					if rule.byWeight(s.draw) {
						hits++
					}
				}
				want := 100 * weight / total
				if hits < want-2 || hits > want+2 {
					t.Fatalf("weight %d of %d, window %d: %d of 100", weight, total, window, hits)
				}
			}
		}
	}
}

func TestCanaryIngress(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	stable, canary := a.backend(say("stable")), a.backend(say("canary"))
	a.service("stable", nil, stable)
	a.service("canary", nil, canary)
	a.ingress("web", nil, pathOption{path: "/", service: "stable"})
	a.waitEndpoints("stable", stable)
	c := client(t, false)
	url := "http://" + a.host + "/"
	share := func(n int) int {
		hits := 0
		for range n {
			switch got := get(t, c, url); got.body {
			case "canary":
				hits++
			case "stable":
			default:
				t.Fatalf("answer: %d %q", got.status, got.body)
			}
		}
		return hits
	}
	if got := share(10); got != 0 {
		t.Errorf("without a canary: %d", got)
	}
	for _, weight := range []int{20, 50, 5, 100, 0} {
		a.ingress("web-canary", map[string]string{"canary": "true", "canary-weight": fmt.Sprint(weight)}, pathOption{path: "/", service: "canary"})
		a.waitEndpoints("canary", canary)
		if got := share(200); got < 2*weight-4 || got > 2*weight+4 {
			t.Errorf("weight %d: %d of 200", weight, got)
		}
	}
	// A canary without endpoints gets nothing.
	a.ingress("web-canary", map[string]string{"canary": "true", "canary-weight": "100"}, pathOption{path: "/", service: "canary"})
	a.endpoints("canary")
	a.waitEndpoints("canary")
	if got := share(10); got != 0 {
		t.Errorf("a canary without endpoints got %d", got)
	}
}

func TestCanaryNeedsItsMainIngress(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(say("x"))
	a.service("x", nil, addr)
	a.ingress("lonely", map[string]string{"canary": "true", "canary-weight": "50"}, pathOption{path: "/", service: "x"})
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 404 {
		t.Errorf("a canary alone serves: %d", got.status)
	}
	if p := shared.table.Load().problems[a.ns+"/lonely"]; len(p) != 1 {
		t.Errorf("problems: %v", p)
	}
	a.ingress("main", nil, pathOption{path: "/other", service: "x", kind: networkingv1.PathTypeExact})
	if p := shared.table.Load().problems[a.ns+"/lonely"]; len(p) != 1 {
		t.Errorf("problems: %v", p)
	}
}
