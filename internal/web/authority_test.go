package web_test

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"testing"

	"github.com/slipwayhq/slipway/internal/web"
)

// TestAuthorityPage: docker looks for a registry's authority in a folder that
// is named with the port.
func TestAuthorityPage(t *testing.T) {
	t.Parallel()
	other := httptest.NewTLSServer(nil)
	t.Cleanup(other.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw})
	ctx, cancel := context.WithCancel(t.Context())
	s := openSite(t, ctx, cancel, func(d *web.Deps) {
		d.ExternalURL, d.Authority = "https://slipway.test:8443", func() []byte { return root }
	})
	s.person("maya")
	page := s.page("maya", "/-/ca")
	s.has(page, "pre", "/etc/docker/certs.d/slipway.test:8443/ca.crt")
	s.has(page, "pre", "https://slipway.test:8443/-/ca.crt")
}
