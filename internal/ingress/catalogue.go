package ingress

import (
	"errors"
	"maps"
	"slices"

	"github.com/slipwayhq/slipway/internal/spelling"
)

// annotationParsers maps each supported annotation to its reader. A reader
// leaves the settings as they are when it returns an error.
var annotationParsers = map[string]func(*settings, string) error{
	"ssl-redirect":                          func(s *settings, v string) error { return parseBool(v, &s.sslRedirect) },
	"force-ssl-redirect":                    func(s *settings, v string) error { return parseBool(v, &s.forceSSLRedirect) },
	"permanent-redirect":                    func(s *settings, v string) error { return s.setRedirect(v, 301) },
	"temporal-redirect":                     func(s *settings, v string) error { return s.setRedirect(v, 302) },
	"app-root":                              parseAppRoot,
	"use-regex":                             func(s *settings, v string) error { return parseBool(v, &s.useRegex) },
	"rewrite-target":                        parseRewriteTarget,
	"upstream-vhost":                        func(s *settings, v string) error { return parseToken(v, &s.upstreamVhost) },
	"x-forwarded-prefix":                    func(s *settings, v string) error { return parseHeaderText(v, &s.prefixHeader) },
	"backend-protocol":                      parseProtocol,
	"proxy-connect-timeout":                 func(s *settings, v string) error { return parseSeconds(v, &s.connectTimeout) },
	"proxy-read-timeout":                    func(s *settings, v string) error { return parseSeconds(v, &s.readTimeout) },
	"proxy-send-timeout":                    func(s *settings, v string) error { return parseSeconds(v, &s.sendTimeout) },
	"proxy-body-size":                       func(s *settings, v string) error { return parseSize(v, &s.maxBody) },
	"whitelist-source-range":                func(s *settings, v string) error { return s.setAllow(v) },
	"allowlist-source-range":                func(s *settings, v string) error { return s.setAllow(v) },
	"denylist-source-range":                 func(s *settings, v string) error { return s.setDeny(v) },
	"server-alias":                          parseAliases,
	"session-cookie-domain":                 func(s *settings, v string) error { return parseToken(v, &s.withAffinity().domain) },
	"session-cookie-secure":                 func(s *settings, v string) error { return parseBool(v, &s.withAffinity().secure) },
	"session-cookie-samesite":               parseSameSite,
	"affinity":                              parseAffinity,
	"affinity-mode":                         parseAffinityMode,
	"affinity-canary-behavior":              parseAffinityCanary,
	"session-cookie-name":                   parseCookieName,
	"session-cookie-path":                   func(s *settings, v string) error { return parseHeaderText(v, &s.withAffinity().path) },
	"session-cookie-max-age":                func(s *settings, v string) error { return parseCount(v, &s.withAffinity().maxAge) },
	"session-cookie-expires":                func(s *settings, v string) error { return parseCount(v, &s.withAffinity().maxAge) },
	"enable-cors":                           parseEnableCORS,
	"cors-allow-origin":                     parseOrigins,
	"cors-allow-methods":                    func(s *settings, v string) error { return parseHeaderText(v, &s.withCORS().methods) },
	"cors-allow-headers":                    func(s *settings, v string) error { return parseHeaderText(v, &s.withCORS().headers) },
	"cors-expose-headers":                   func(s *settings, v string) error { return parseHeaderText(v, &s.withCORS().expose) },
	"cors-allow-credentials":                func(s *settings, v string) error { return parseBool(v, &s.withCORS().credentials) },
	"cors-max-age":                          func(s *settings, v string) error { return parseCount(v, &s.withCORS().maxAge) },
	"canary":                                func(*settings, string) error { return nil }, // read before the others
	"canary-weight":                         parseCanaryWeight,
	"canary-weight-total":                   parseCanaryWeightTotal,
	"canary-by-header":                      parseCanaryHeader,
	"canary-by-header-value":                func(s *settings, v string) error { return s.onCanary(func(c *canaryRule) { c.headerValue = v }) },
	"canary-by-header-pattern":              parseCanaryPattern,
	"canary-by-cookie":                      parseCanaryCookie,
	"permanent-redirect-code":               func(*settings, string) error { return nil }, // read after the others
	"temporal-redirect-code":                func(*settings, string) error { return nil },
	"proxy-ssl-verify":                      parseNoVerify,
	"enable-access-log":                     parseAccessLog,
	"ssl-passthrough":                       parseNoPassthrough,
	"from-to-www-redirect":                  func(s *settings, v string) error { return parseBool(v, &s.wwwRedirect) },
	"auth-url":                              parseAuthURL,
	"auth-method":                           parseAuthMethod,
	"auth-signin":                           parseSignin,
	"auth-signin-redirect-param":            func(s *settings, v string) error { return parseToken(v, &s.withExternal().param) },
	"auth-response-headers":                 parseAuthResponseHeaders,
	"auth-request-redirect":                 parseAuthRedirect,
	"auth-proxy-set-headers":                func(s *settings, v string) error { return parseToken(v, &s.withExternal().headersOf) },
	"auth-always-set-cookie":                func(s *settings, v string) error { return parseBool(v, &s.withExternal().keepCookie) },
	"auth-type":                             parseAuthType,
	"auth-secret":                           parseAuthSecret,
	"auth-secret-type":                      parseAuthSecretType,
	"auth-realm":                            func(s *settings, v string) error { return parseHeaderText(v, &s.withAuth().realm) },
	"limit-rps":                             func(s *settings, v string) error { return parseCount(v, &s.withLimits().rps) },
	"limit-rpm":                             func(s *settings, v string) error { return parseCount(v, &s.withLimits().rpm) },
	"limit-connections":                     func(s *settings, v string) error { return parseCount(v, &s.withLimits().connections) },
	"limit-burst-multiplier":                parseMultiplier,
	"limit-whitelist":                       parseLimitAllow,
	"limit-allowlist":                       parseLimitAllow,
	"auth-tls-secret":                       func(s *settings, v string) error { return parseToken(v, &s.withClientCerts().secret) },
	"auth-tls-verify-client":                parseVerifyClient,
	"auth-tls-verify-depth":                 func(s *settings, v string) error { return parseCount(v, &s.withClientCerts().depth) },
	"auth-tls-error-page":                   parseErrorPage,
	"auth-tls-match-cn":                     parseMatchCN,
	"auth-tls-pass-certificate-to-upstream": func(s *settings, v string) error { return parseBool(v, &s.withClientCerts().pass) },
	"custom-http-errors":                    parseErrorCodes,
	"default-backend":                       func(s *settings, v string) error { return parseToken(v, &s.withErrorPages().service) },
	"mirror-target":                         parseMirrorTarget,
	"mirror-request-body":                   parseMirrorBody,
	"mirror-host":                           func(s *settings, v string) error { return parseToken(v, &s.withMirror().hostHeader) },
	"proxy-cookie-path":                     func(s *settings, v string) error { return parseReplacement(v, &s.cookiePath) },
	"proxy-cookie-domain":                   func(s *settings, v string) error { return parseReplacement(v, &s.cookieDomain) },
	"proxy-redirect-from":                   func(s *settings, v string) error { return parseToken(v, &s.location.from) },
	"proxy-redirect-to":                     func(s *settings, v string) error { return parseToken(v, &s.location.to) },
	"proxy-ssl-name":                        func(s *settings, v string) error { return parseToken(v, &s.sslName) },
	"upstream-hash-by":                      parseHashBy,
	"custom-headers":                        func(s *settings, v string) error { return parseToken(v, &s.headersFrom) },
	"satisfy":                               parseSatisfy,
}

// inherent are annotations that ask for what is so here anyway, or for what
// has no counterpart that a user could miss, with what is so. Their values are
// not looked at.
var inherent = map[string]string{
	"proxy-http-version":                       "HTTP/1.1 or HTTP/2, by what the endpoint speaks",
	"proxy-buffering":                          unbuffered,
	"proxy-request-buffering":                  unbuffered,
	"proxy-buffer-size":                        unbuffered,
	"proxy-buffers-number":                     unbuffered,
	"proxy-busy-buffers-size":                  unbuffered,
	"proxy-max-temp-file-size":                 unbuffered,
	"client-body-buffer-size":                  unbuffered,
	"websocket-services":                       "WebSocket needs no setting",
	"proxy-ssl-server-name":                    "the name of proxy-ssl-name or upstream-vhost is always sent",
	"proxy-ssl-verify-depth":                   "there is no verification that it would limit",
	"service-upstream":                         "endpoints are addressed directly, and a change of them loses no request",
	"preserve-trailing-slash":                  "redirects keep the path as it is",
	"auth-cache-key":                           uncached,
	"auth-cache-duration":                      uncached,
	"auth-keepalive":                           keptOpen,
	"auth-keepalive-requests":                  keptOpen,
	"auth-keepalive-timeout":                   keptOpen,
	"auth-keepalive-share-vars":                "question and request have the same X-Request-ID",
	"connection-proxy-header":                  keptOpen,
	"load-balance":                             "endpoints get requests in rotation",
	"enable-global-auth":                       "there is no question that all Ingresses share",
	"session-cookie-change-on-failure":         "a client whose endpoint fails gets another one",
	"session-cookie-conditional-samesite-none": "it is for browsers of before 2020",
	"http2-push-preload":                       "browsers take no pushes any more",
	"enable-rewrite-log":                       "it is nginx's own log",
	"ssl-prefer-server-ciphers":                "the order of ciphers is Go's",
	"opentelemetry-trust-incoming-span":        "headers of a trace pass through",
}

const (
	unbuffered = "requests and responses pass through as they come"
	uncached   = "every request is asked about"
	keptOpen   = "connections are kept open"
)

// unsupported are the other annotations of ingress-nginx, with the reason why
// they have no effect here, and what to use instead.
var unsupported = map[string]string{
	"configuration-snippet":        snippets,
	"server-snippet":               snippets,
	"stream-snippet":               snippets,
	"auth-snippet":                 snippets,
	"modsecurity-snippet":          firewall,
	"enable-modsecurity":           firewall,
	"enable-owasp-core-rules":      firewall,
	"modsecurity-transaction-id":   firewall,
	"limit-rate":                   "the speed of a response is not limited here",
	"limit-rate-after":             "the speed of a response is not limited here",
	"proxy-next-upstream":          retries,
	"proxy-next-upstream-timeout":  retries,
	"proxy-next-upstream-tries":    retries,
	"enable-opentelemetry":         "the ingress makes no spans of its own; headers of a trace pass through",
	"proxy-ssl-secret":             "the certificate of a backend is not verified, and none is shown to it",
	"proxy-ssl-ciphers":            ciphers,
	"proxy-ssl-protocols":          ciphers,
	"ssl-ciphers":                  ciphers,
	"upstream-hash-by-subset":      "each value of upstream-hash-by leads to one endpoint",
	"upstream-hash-by-subset-size": "each value of upstream-hash-by leads to one endpoint",
}

const (
	snippets = "pieces of nginx's configuration cannot be used: requests are served by another program, and a snippet could read every Secret"
	firewall = "there is no web application firewall here; put one between Ingress and application"
	retries  = "a request is tried with another endpoint where that is safe, for at most 10 s"
	ciphers  = "the ciphers and versions are Go's defaults: TLS 1.2 and 1.3"
)

// annotationProblem says why an annotation has no effect. One that asks for
// nothing has none to be missed.
func annotationProblem(name, value string) error {
	if inherent[name] != "" {
		return nil
	}
	if why := unsupported[name]; why != "" {
		if value == "false" || value == "off" || value == "0" {
			return nil
		}
		return errors.New("not supported by this ingress: " + why)
	}
	known := slices.AppendSeq(slices.Collect(maps.Keys(annotationParsers)), maps.Keys(unsupported))
	known = slices.AppendSeq(known, maps.Keys(inherent))
	if meant := spelling.DidYouMean(name, known); meant != "" {
		return errors.New("there is no such annotation" + meant)
	}
	return errors.New("not supported by this ingress: ingress-nginx has no such annotation")
}
