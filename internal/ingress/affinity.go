package ingress

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// affinity binds a client to an endpoint by a cookie.
type affinity struct {
	cookie       string
	path         string
	maxAge       int // seconds; 0: a session cookie
	domain       string
	secure       bool // also over plain HTTP
	sameSite     http.SameSite
	canarySticky bool // clients of the canary stay there
}

func (s *settings) withAffinity() *affinity {
	if s.affinity == nil {
		s.affinity = &affinity{cookie: "INGRESSCOOKIE", path: "/", canarySticky: true}
	}
	return s.affinity
}

func parseAffinity(s *settings, v string) error {
	if v != "cookie" {
		return fmt.Errorf("%q is not supported; the only affinity is cookie", v)
	}
	s.withAffinity()
	return nil
}

func parseAffinityMode(_ *settings, v string) error {
	if v != "balanced" && v != "persistent" {
		return fmt.Errorf("%q is neither balanced nor persistent", v)
	}
	return nil
}

func parseAffinityCanary(s *settings, v string) error {
	switch v {
	case "sticky":
		s.withAffinity().canarySticky = true
	case "legacy":
		s.withAffinity().canarySticky = false
	default:
		return fmt.Errorf("%q is neither sticky nor legacy", v)
	}
	return nil
}

func parseSameSite(s *settings, v string) error {
	modes := map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}
	mode, ok := modes[strings.ToLower(v)]
	if !ok {
		return fmt.Errorf("%q is not one of Lax, Strict, None", v)
	}
	s.withAffinity().sameSite = mode
	return nil
}

var cookieName = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)

func parseCookieName(s *settings, v string) error {
	if !cookieName.MatchString(v) {
		return fmt.Errorf("%q is not a cookie name", v)
	}
	s.withAffinity().cookie = v
	return nil
}

func setAffinity(header http.Header, aff *affinity, a *attempt, r *http.Request) {
	if a.last == nil {
		return
	}
	if c, err := r.Cookie(aff.cookie); err == nil && c.Value == a.last.id {
		return
	}
	c := http.Cookie{Name: aff.cookie, Value: a.last.id, Path: aff.path, Domain: aff.domain, HttpOnly: true, Secure: r.TLS != nil || aff.secure, MaxAge: aff.maxAge, SameSite: aff.sameSite}
	header.Add("Set-Cookie", c.String())
}
