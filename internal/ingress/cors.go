package ingress

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// cors are the answers to cross-origin requests.
type cors struct {
	origins     []string
	methods     string
	headers     string
	expose      string
	credentials bool
	maxAge      int // seconds
}

func (s *settings) withCORS() *cors {
	if s.cors == nil {
		s.cors = &cors{
			origins:     []string{"*"},
			methods:     "GET, PUT, POST, DELETE, PATCH, OPTIONS",
			headers:     "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
			credentials: true,
			maxAge:      1728000,
		}
	}
	return s.cors
}

func parseEnableCORS(s *settings, v string) error {
	on := false
	if err := parseBool(v, &on); err != nil {
		return err
	}
	if on {
		s.withCORS()
	}
	return nil
}

func parseOrigins(s *settings, v string) error {
	var origins []string
	for _, o := range strings.Split(v, ",") {
		if o = strings.TrimSpace(o); o != "" {
			origins = append(origins, o)
		}
	}
	if len(origins) == 0 {
		return errors.New("no origin is given")
	}
	s.withCORS().origins = origins
	return nil
}

// answer sets the headers of a cross-origin request and ends a preflight. It
// reports whether the request is done.
func (c *cors) answer(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	allowed := ""
	for _, o := range c.origins {
		if o == "*" {
			allowed = "*"
			if c.credentials {
				allowed = origin // "*" may not go with credentials
			}
			break
		}
		if o == origin || wildcardOrigin(o, origin) {
			allowed = origin
			break
		}
	}
	if allowed == "" {
		return false
	}
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", allowed)
	if allowed != "*" {
		header.Add("Vary", "Origin")
	}
	if c.credentials {
		header.Set("Access-Control-Allow-Credentials", "true")
	}
	if c.expose != "" {
		header.Set("Access-Control-Expose-Headers", c.expose)
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", c.methods)
	header.Set("Access-Control-Allow-Headers", c.headers)
	header.Set("Access-Control-Max-Age", strconv.Itoa(c.maxAge))
	w.WriteHeader(http.StatusNoContent)
	return true
}

// wildcardOrigin matches https://*.example.com.
func wildcardOrigin(pattern, origin string) bool {
	scheme, host, ok := strings.Cut(pattern, "://*.")
	if !ok {
		return false
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == scheme && strings.HasSuffix(u.Host, "."+host)
}
