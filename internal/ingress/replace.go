package ingress

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// replacement is a text that stands in for another one in headers of an
// answer; the zero value replaces nothing.
type replacement struct{ from, to string }

// parseReplacement reads nginx's two words, such as "/ /shop", or "off".
func parseReplacement(v string, to *replacement) error {
	from, with, ok := strings.Cut(strings.TrimSpace(v), " ")
	with = strings.Trim(strings.TrimSpace(with), `"`)
	switch {
	case from == "off" && !ok:
		return nil
	case strings.HasPrefix(from, "~"):
		return errors.New("regular expressions are not supported here; name the text itself")
	case !ok || with == "" || strings.Contains(from+with, "$"):
		return fmt.Errorf("%q is not a text and its replacement, such as \"/ /shop\"", v)
	}
	if err := parseHeaderText(with, &with); err != nil {
		return err
	}
	*to = replacement{from, with}
	return nil
}

// replaces reports whether the route changes headers of answers.
func (s *settings) replaces() bool {
	none := replacement{}
	return s.cookiePath != none || s.cookieDomain != none || s.location != none
}

// replace changes what a backend, which does not know its address outside,
// says of addresses: as nginx's proxy_cookie_path, proxy_cookie_domain and
// proxy_redirect.
func (s *settings) replace(header http.Header) {
	for i, cookie := range header["Set-Cookie"] {
		attributes := strings.Split(cookie, ";")
		for k, attribute := range attributes[1:] {
			name, value, _ := strings.Cut(strings.TrimSpace(attribute), "=")
			switch {
			case strings.EqualFold(name, "path") && s.cookiePath.from != "":
				if rest, ok := strings.CutPrefix(value, s.cookiePath.from); ok {
					attributes[k+1] = " " + name + "=" + s.cookiePath.to + rest
				}
			case strings.EqualFold(name, "domain") && s.cookieDomain.from != "":
				if strings.EqualFold(strings.TrimPrefix(value, "."), strings.TrimPrefix(s.cookieDomain.from, ".")) {
					attributes[k+1] = " " + name + "=" + s.cookieDomain.to
				}
			}
		}
		header["Set-Cookie"][i] = strings.Join(attributes, ";")
	}
	if s.location.from == "" {
		return
	}
	if rest, ok := strings.CutPrefix(header.Get("Location"), s.location.from); ok {
		header.Set("Location", s.location.to+rest)
	}
}
