package ingress

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// text is an annotation's value with nginx's variables, such as
// "https://$host/start?rd=$escaped_request_uri".
type text []textPart

// textPart is literal text or a variable.
type textPart struct {
	text  string
	value func(*http.Request) string
}

// parseText reads text with variables: "$request_uri" or "${remote_addr}".
func parseText(v string) (text, error) {
	var parts text
	for v != "" {
		i := strings.IndexByte(v, '$')
		if i < 0 {
			parts = append(parts, textPart{text: v})
			break
		}
		if i > 0 {
			parts = append(parts, textPart{text: v[:i]})
		}
		v = v[i+1:]
		name := ""
		if rest, ok := strings.CutPrefix(v, "{"); ok {
			if name, v, ok = strings.Cut(rest, "}"); !ok {
				return nil, fmt.Errorf("the variable ${%s is not closed", rest)
			}
		} else {
			n := 0
			for n < len(v) && (v[n] == '_' || v[n] >= 'a' && v[n] <= 'z' || v[n] >= '0' && v[n] <= '9' || v[n] >= 'A' && v[n] <= 'Z') {
				n++
			}
			name, v = v[:n], v[n:]
		}
		value := variable(name)
		if value == nil {
			return nil, fmt.Errorf("the variable $%s is not known here", name)
		}
		parts = append(parts, textPart{value: value})
	}
	return parts, nil
}

// varies reports whether the text has a variable.
func (t text) varies() bool {
	return slices.ContainsFunc(t, func(p textPart) bool { return p.value != nil })
}

// of is the text for a request.
func (t text) of(r *http.Request) string {
	var b strings.Builder
	for _, p := range t {
		if p.value != nil {
			b.WriteString(p.value(r))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// variable returns how one of nginx's variables is found, or nil for one that
// is not known here.
func variable(name string) func(*http.Request) string {
	switch name {
	case "request_uri":
		return func(r *http.Request) string { return r.URL.RequestURI() }
	case "escaped_request_uri":
		return func(r *http.Request) string { return escapeURI(r.URL.RequestURI()) }
	case "uri", "document_uri":
		return func(r *http.Request) string { return r.URL.Path }
	case "args", "query_string":
		return func(r *http.Request) string { return r.URL.RawQuery }
	case "host":
		return func(r *http.Request) string { return hostname(r.Host) }
	case "http_host", "best_http_host":
		return func(r *http.Request) string { return r.Host }
	case "scheme":
		return schemeOf
	case "pass_access_scheme":
		return func(r *http.Request) string {
			if forwardedTLS(r) {
				return "https"
			}
			return schemeOf(r)
		}
	case "request_method":
		return func(r *http.Request) string { return r.Method }
	case "remote_addr", "binary_remote_addr":
		return func(r *http.Request) string { return clientAddr(r).String() }
	}
	if header, ok := strings.CutPrefix(name, "http_"); ok && header != "" {
		header = strings.ReplaceAll(header, "_", "-")
		return func(r *http.Request) string { return r.Header.Get(header) }
	}
	if cookie, ok := strings.CutPrefix(name, "cookie_"); ok && cookie != "" {
		return func(r *http.Request) string {
			if c, err := r.Cookie(cookie); err == nil {
				return c.Value
			}
			return ""
		}
	}
	if arg, ok := strings.CutPrefix(name, "arg_"); ok && arg != "" {
		return func(r *http.Request) string { return r.URL.Query().Get(arg) }
	}
	return nil
}

// escapeURI is nginx's ngx.escape_uri: a space becomes %20.
func escapeURI(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// clientIP is the client's address in Caddy's variables, which a trusted proxy
// may have named.
func clientIP(r *http.Request) string {
	s, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return s
}
