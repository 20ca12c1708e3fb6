package web_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/ingress/route"
	"github.com/slipwayhq/slipway/internal/observe"
)

// sampleMetrics answers two queries.
type sampleMetrics struct{}

func (sampleMetrics) Query(_ context.Context, expr string, at time.Time) (observe.Result, error) {
	if expr != "up" {
		return observe.Result{}, errors.New(`1:5: parse error: unexpected end of input`)
	}
	return observe.Result{Kind: "vector", Series: []observe.Series{
		{Labels: map[string]string{"__name__": "up", "job": "kubelet"}, Points: []observe.Point{{At: at, Value: 1}}},
		{Labels: map[string]string{"__name__": "up", "job": "<b>"}, Points: []observe.Point{{At: at, Value: 0}}},
	}}, nil
}

func (sampleMetrics) Targets() []observe.TargetState {
	return []observe.TargetState{
		{Pool: "kubelet", URL: "https://10.0.0.1:10250/metrics", Health: "up", Labels: map[string]string{"job": "kubelet"}},
		{Pool: "serviceMonitor/shop/cart/0", URL: "http://10.42.0.7:8080/metrics", Health: "down", LastError: "connection refused", Labels: map[string]string{"job": "cart"}},
	}
}

func (sampleMetrics) Problems() []observe.Problem {
	return []observe.Problem{{Object: "ServiceMonitor shop/broken", Message: "endpoint 0: scrapeTimeout 1m is longer than the interval 5s"}}
}

func (sampleMetrics) Rules() []observe.RuleGroup {
	return []observe.RuleGroup{{Name: "cart", Source: "PrometheusRule shop/cart", Interval: time.Minute, Rules: []observe.Rule{
		{Name: "CartSlow", Alerting: true, State: "firing", Health: "ok", Query: "up == 0", Alerts: []observe.Alert{
			{State: "firing", Labels: map[string]string{"alertname": "CartSlow", "pod": "cart-1"}, Annotations: map[string]string{"summary": "The cart is slow"}, Value: 2},
		}},
		{Name: "cart:broken", Health: "err", LastError: "many-to-many matching not allowed", Query: "a + b"},
	}}}
}

func sampleRoutes() []route.Route {
	return []route.Route{
		{Namespace: "shop", Ingress: "cart", Host: "cart.localhost", Path: "/", Service: "cart-stable", Endpoints: 2, URL: "https://cart.localhost/", TLS: "internal",
			Canary: &route.Canary{Service: "cart-canary", Weight: 20, Header: "X-Canary"}},
		{Namespace: "shop", Ingress: "old", Host: "old.localhost", Path: "/", Service: "old", URL: "http://old.localhost/", Problems: []string{"Service old does not exist"}},
	}
}

func TestMetricsPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("maya")
	s.has(s.page("maya", "/-/metrics"), "section.card li a", "CPU by pod")
	doc := s.page("maya", "/-/metrics?query=up&minutes=15")
	s.count(doc, ".result tbody tr", 2)
	s.has(doc, ".result tbody tr:nth-child(1) code", `up{job="kubelet"}`)
	s.has(doc, ".result tbody tr:nth-child(2) code", `up{job="<b>"}`)
	s.count(doc, `[data-part=chart][data-query=up][data-minutes="15"]`, 1)
	s.has(s.page("maya", "/-/metrics?query=sum("), "[role=alert]", "unexpected end of input")
	// Several expressions, a time that is past, and a step; one is wrong.
	doc = s.page("maya", "/-/metrics?query=up&query=sum(&query=&minutes=60&end=2026-01-02T03:04&step=30")
	s.count(doc, `[data-part=chart][data-end="1767323040"][data-step="30"]`, 1)
	s.count(doc, "[role=alert]", 1)
	s.count(doc, "textarea[name=query]", 2)
	s.count(s.page("maya", "/-/metrics?query=up&add=1"), "textarea[name=query]", 2)

	doc = s.page("maya", "/-/metrics/rules")
	s.has(doc, "#alerts tbody tr", "CartSlow")
	s.has(doc, "#alerts tbody tr", "The cart is slow")
	s.has(doc, "#alerts code", `{pod="cart-1"}`)
	s.has(doc, "#rules .alert", "many-to-many")
	s.count(doc, `nav.tabs a[aria-current=page][href="/-/metrics/rules"]`, 1)

	doc = s.page("maya", "/-/metrics/targets")
	s.has(doc, "h1 + span", "1 up, 1 down")
	s.has(doc, "#problems td", "ServiceMonitor shop/broken")
	s.has(doc, "section:nth-of-type(2) header strong", "serviceMonitor/shop/cart/0") // what is down comes first
	s.has(doc, "section:nth-of-type(2) .alert", "connection refused")

	doc = s.page("maya", "/-/metrics/addresses")
	s.has(doc, `a[href="https://cart.localhost/"]`, "https://cart.localhost/")
	s.has(doc, "tbody tr:nth-child(1)", "20 % to cart-canary, by header X-Canary")
	s.has(doc, "tbody tr:nth-child(2) .alert", "Service old does not exist")

	for _, path := range []string{"/-/metrics", "/-/metrics/targets", "/-/metrics/addresses"} {
		if got := s.status("", http.MethodGet, path, nil); got == http.StatusOK {
			t.Errorf("%s answers the anonymous caller", path)
		}
	}
}
