package ingress

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// documented are the annotations of ingress-nginx's documentation
// (docs/user-guide/nginx-configuration/annotations.md).
const documented = `
app-root affinity affinity-mode affinity-canary-behavior auth-realm auth-secret auth-secret-type auth-type auth-tls-secret
auth-tls-verify-depth auth-tls-verify-client auth-tls-error-page auth-tls-pass-certificate-to-upstream auth-tls-match-cn auth-url
auth-cache-key auth-cache-duration auth-keepalive auth-keepalive-share-vars auth-keepalive-requests auth-keepalive-timeout
auth-proxy-set-headers auth-snippet auth-method auth-signin auth-signin-redirect-param auth-response-headers auth-request-redirect
auth-always-set-cookie enable-global-auth backend-protocol canary canary-by-header canary-by-header-value canary-by-header-pattern
canary-by-cookie canary-weight canary-weight-total client-body-buffer-size configuration-snippet custom-http-errors custom-headers
default-backend enable-cors cors-allow-origin cors-allow-methods cors-allow-headers cors-expose-headers cors-allow-credentials
cors-max-age force-ssl-redirect from-to-www-redirect http2-push-preload limit-connections limit-rps limit-rpm
limit-burst-multiplier limit-rate limit-rate-after limit-whitelist permanent-redirect permanent-redirect-code temporal-redirect
temporal-redirect-code preserve-trailing-slash proxy-body-size proxy-cookie-domain proxy-cookie-path proxy-connect-timeout
proxy-send-timeout proxy-read-timeout proxy-next-upstream proxy-next-upstream-timeout proxy-next-upstream-tries
proxy-request-buffering proxy-redirect-from proxy-redirect-to proxy-http-version proxy-ssl-secret proxy-ssl-ciphers proxy-ssl-name
proxy-ssl-protocols proxy-ssl-verify proxy-ssl-verify-depth proxy-ssl-server-name enable-rewrite-log rewrite-target satisfy
server-alias server-snippet service-upstream session-cookie-change-on-failure session-cookie-conditional-samesite-none
session-cookie-domain session-cookie-expires session-cookie-max-age session-cookie-name session-cookie-path
session-cookie-samesite session-cookie-secure ssl-redirect ssl-passthrough stream-snippet upstream-hash-by
upstream-hash-by-subset upstream-hash-by-subset-size x-forwarded-prefix load-balance upstream-vhost denylist-source-range
whitelist-source-range proxy-buffering proxy-buffers-number proxy-buffer-size proxy-busy-buffers-size proxy-max-temp-file-size
ssl-ciphers ssl-prefer-server-ciphers connection-proxy-header enable-access-log enable-opentelemetry
opentelemetry-trust-incoming-span use-regex enable-modsecurity enable-owasp-core-rules modsecurity-transaction-id
modsecurity-snippet mirror-request-body mirror-target mirror-host`

// Every annotation of ingress-nginx is known here, and has its place in the
// documentation.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(documented) {
		n := 0
		if annotationParsers[name] != nil {
			n++
		}
		if inherent[name] != "" {
			n++
		}
		if unsupported[name] != "" {
			n++
		}
		if n != 1 {
			t.Errorf("%s is in %d of the catalogue's parts", name, n)
		}
	}
	page, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	all := slices.AppendSeq(slices.Collect(maps.Keys(annotationParsers)), maps.Keys(unsupported))
	all = slices.AppendSeq(all, maps.Keys(inherent))
	for _, name := range all {
		if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "`"+name+":") {
			t.Errorf("docs/ingress.md does not name %s", name)
		}
	}
}
