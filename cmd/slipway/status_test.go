package main

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/ingress/route"
)

func TestStatusTellsAddresses(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printStatus(&out, report{Addresses: addressesOf([]route.Route{
		{Namespace: "shop", Service: "web", URL: "http://shop.localhost/", Endpoints: 2},
		{Namespace: "any", Service: "web"},
		{Namespace: "blog", Service: "site", URL: "http://blog.localhost/"},
	})})
	for _, line := range []string{"http://shop.localhost/ shop/web", "http://blog.localhost/ blog/site no pod is ready"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), "any/web") {
		t.Errorf("a route for any host has no address:\n%s", out.String())
	}
}
