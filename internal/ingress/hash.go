package ingress

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"
)

// hashPart is a piece of upstream-hash-by: literal text or a variable.
type hashPart struct {
	text  string
	value func(*http.Request) string
}

// parseHashBy reads nginx's text with variables, such as "$request_uri" or
// "${remote_addr}/$http_x_tenant". Those that make sense for a hash are known.
func parseHashBy(s *settings, v string) error {
	var parts []hashPart
	for v != "" {
		i := strings.IndexByte(v, '$')
		if i < 0 {
			parts = append(parts, hashPart{text: v})
			break
		}
		if i > 0 {
			parts = append(parts, hashPart{text: v[:i]})
		}
		v = v[i+1:]
		name := ""
		if rest, ok := strings.CutPrefix(v, "{"); ok {
			if name, v, ok = strings.Cut(rest, "}"); !ok {
				return fmt.Errorf("the variable ${%s is not closed", rest)
			}
		} else {
			n := 0
			for n < len(v) && (v[n] == '_' || v[n] >= 'a' && v[n] <= 'z' || v[n] >= '0' && v[n] <= '9' || v[n] >= 'A' && v[n] <= 'Z') {
				n++
			}
			name, v = v[:n], v[n:]
		}
		value := hashVariable(name)
		if value == nil {
			return fmt.Errorf("the variable $%s is not known here", name)
		}
		parts = append(parts, hashPart{value: value})
	}
	if !slices.ContainsFunc(parts, func(p hashPart) bool { return p.value != nil }) {
		return fmt.Errorf("%q has no variable, so that all requests would go to one endpoint", v)
	}
	s.hashBy = parts
	return nil
}

func hashVariable(name string) func(*http.Request) string {
	switch name {
	case "request_uri":
		return func(r *http.Request) string { return r.URL.RequestURI() }
	case "uri", "document_uri":
		return func(r *http.Request) string { return r.URL.Path }
	case "args", "query_string":
		return func(r *http.Request) string { return r.URL.RawQuery }
	case "host", "http_host":
		return func(r *http.Request) string { return hostname(r.Host) }
	case "scheme":
		return schemeOf
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

// hashOf is the text that chooses the endpoint of a request.
func hashOf(parts []hashPart, r *http.Request) string {
	var b strings.Builder
	for _, p := range parts {
		if p.value != nil {
			b.WriteString(p.value(r))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// pickBy chooses the endpoint with the highest score for the text (rendezvous
// hashing): when an endpoint comes or goes, only its own share moves. Those
// tried already, and those that failed a moment ago, are passed over while
// there are others.
func (be *backend) pickBy(text string, tried []*endpoint, now time.Time) *endpoint {
	var best, second *endpoint
	var top, next uint64
	for _, e := range be.endpoints {
		h := fnv.New64a()
		h.Write([]byte(e.id))
		h.Write([]byte{0})
		h.Write([]byte(text))
		score := mix(h.Sum64())
		if slices.Contains(tried, e) || e.failed.paused(now) {
			if second == nil || score > next {
				second, next = e, score
			}
			continue
		}
		if best == nil || score > top {
			best, top = e, score
		}
	}
	if best != nil {
		return best
	}
	return second
}

// mix spreads FNV's bits (the finalizer of MurmurHash3), whose high ones
// change too little with the last bytes of the input.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
