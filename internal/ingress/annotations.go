package ingress

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// annotationPrefix is ingress-nginx's: its annotations are the best documented
// contract there is for an Ingress, and the one that Argo Rollouts writes.
// The meaning of each is that of
// https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
const annotationPrefix = "nginx.ingress.kubernetes.io/"

// settings are the options of one Ingress, from its annotations.
type settings struct {
	canary *canaryRule // nil unless the Ingress is a canary

	sslRedirect      bool // redirect to HTTPS when the host has TLS
	forceSSLRedirect bool // redirect to HTTPS always
	redirect         string
	redirectCode     int
	appRoot          string
	useRegex         bool
	rewriteTarget    string
	upstreamVhost    string
	prefixHeader     string // X-Forwarded-Prefix
	protocol         protocol
	connectTimeout   time.Duration
	readTimeout      time.Duration
	sendTimeout      time.Duration
	maxBody          int64 // bytes; 0: no limit; -1: the default
	allow            []netip.Prefix
	deny             []netip.Prefix
	denyAll          bool // a source range that could not be read: let nobody in
	affinity         *affinity
	cors             *cors
	acme             bool
	serverAliases    []string
	wwwRedirect      bool // between example.com and www.example.com
	auth             *basicAuth
	external         *externalAuth
	clients          *clientCerts
	satisfyAny       bool // a source range, a password or the service of auth-url is enough
	limits           *limits
	hashBy           text   // chooses the endpoint; nil: in rotation
	headersFrom      string // a ConfigMap with response headers
	headers          http.Header
	noAccessLog      bool
	errorPages       *errorPages
	mirror           *mirror
	cookiePath       replacement // of cookies that the backend sets
	cookieDomain     replacement
	location         replacement // of the backend's redirects
	sslName          string      // what an HTTPS backend is called
}

// protocol is what the backend speaks.
type protocol string

const (
	protoHTTP  protocol = "HTTP"
	protoHTTPS protocol = "HTTPS"
	protoGRPC  protocol = "GRPC"
	protoGRPCS protocol = "GRPCS"
)

func defaultSettings() settings {
	return settings{
		sslRedirect:    true,
		protocol:       protoHTTP,
		connectTimeout: 2 * time.Second,
		readTimeout:    60 * time.Second,
		sendTimeout:    60 * time.Second,
		maxBody:        -1,
	}
}

// protective annotations limit who may reach an application. When one of them
// is not supported or cannot be read, nobody may: an open door would be worse.
var protective = []string{"whitelist-source-range", "allowlist-source-range", "denylist-source-range", "auth-url", "auth-type", "auth-secret", "auth-secret-type", "auth-method", "auth-signin", "auth-response-headers", "auth-tls-secret", "auth-tls-verify-client", "auth-tls-verify-depth", "auth-tls-match-cn", "satisfy"}

// parseAnnotations reads the annotations of an Ingress. Each problem names its
// annotation; the setting of a bad annotation keeps its default, except that
// an unreadable protective one closes the route.
func parseAnnotations(annotations map[string]string) (settings, []string) {
	s := defaultSettings()
	var problems []string
	if v, ok := annotations[annotationPrefix+"canary"]; ok {
		on := false
		if err := parseBool(v, &on); err != nil {
			problems = append(problems, annotationPrefix+"canary: "+err.Error())
		}
		if on {
			s.canary = &canaryRule{weightTotal: 100}
		}
	}
	names := make([]string, 0, len(annotations))
	for name := range annotations {
		if strings.HasPrefix(name, annotationPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, full := range names {
		name := strings.TrimPrefix(full, annotationPrefix)
		var err error
		if parse := annotationParsers[name]; parse != nil {
			err = parse(&s, annotations[full])
		} else {
			err = annotationProblem(name, annotations[full])
		}
		if err == nil {
			continue
		}
		if slices.Contains(protective, name) {
			s.denyAll = true
			err = fmt.Errorf("%w; the route is closed until this is put right", err)
		}
		problems = append(problems, full+": "+err.Error())
	}
	problems = append(problems, s.finish(annotations)...)
	return s, problems
}

// finish reads what depends on more than one annotation.
func (s *settings) finish(annotations map[string]string) (problems []string) {
	for name, code := range map[string]int{"permanent-redirect": 301, "temporal-redirect": 302} {
		v, ok := annotations[annotationPrefix+name+"-code"]
		if !ok || s.redirectCode != code {
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 300 || n > 308 {
			problems = append(problems, fmt.Sprintf("%s%s-code: %q is not a redirect status (300 to 308)", annotationPrefix, name, v))
			continue
		}
		s.redirectCode = n
	}
	if strings.EqualFold(annotations["kubernetes.io/tls-acme"], "true") {
		s.acme = true
	}
	if s.auth != nil && annotations[annotationPrefix+"auth-type"] == "" {
		s.auth = nil // a Secret or realm without a type has no effect
	}
	if s.clients != nil && s.clients.secret == "" {
		s.clients = nil // without authorities the others have no effect
	}
	var problem string
	if s.external, problem = s.external.finish(); problem != "" {
		problems = append(problems, problem)
	}
	if e := s.errorPages; e != nil && e.service == "" {
		s.errorPages = nil
		problems = append(problems, annotationPrefix+"custom-http-errors: has no effect without default-backend, which names the Service that answers")
	}
	if s.mirror != nil && s.mirror.url == nil {
		s.mirror = nil // without a target the others have no effect
	}
	if s.location.from == "off" || s.location.from == "default" || s.location.from == "" || s.location.to == "" {
		s.location = replacement{}
	}
	if s.limits != nil && s.limits.connections+s.limits.rps+s.limits.rpm == 0 {
		s.limits = nil
	}
	if s.affinity != nil && annotations[annotationPrefix+"affinity"] == "" {
		s.affinity = nil // cookie settings without affinity have no effect
	}
	if s.cors != nil && !strings.EqualFold(annotations[annotationPrefix+"enable-cors"], "true") {
		s.cors = nil
	}
	return problems
}

func parseBool(v string, to *bool) error {
	b, err := strconv.ParseBool(strings.TrimSpace(v))
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	*to = b
	return nil
}

// parseSeconds reads a number of seconds, as ingress-nginx does, and also
// durations such as 90s or 5m.
func parseSeconds(v string, to *time.Duration) error {
	v = strings.TrimSpace(v)
	if n, err := strconv.Atoi(v); err == nil {
		if n < 0 || n > 365*24*3600 {
			return fmt.Errorf("%q is not a number of seconds", v)
		}
		*to = time.Duration(n) * time.Second
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a number of seconds", v)
	}
	*to = d
	return nil
}

func parseCount(v string, to *int) error {
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a whole number", v)
	}
	*to = n
	return nil
}

// parseSize reads nginx's sizes: a number with an optional k, m or g. 0 means
// no limit.
func parseSize(v string, to *int64) error {
	t := strings.ToLower(strings.TrimSpace(v))
	factor := int64(1)
	for suffix, f := range map[string]int64{"k": 1 << 10, "m": 1 << 20, "g": 1 << 30} {
		if rest, ok := strings.CutSuffix(t, suffix); ok {
			t, factor = rest, f
			break
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is not a size such as 8m", v)
	}
	*to = n * factor
	return nil
}

// parseHeaderText accepts what may stand in a header's value.
func parseHeaderText(v string, to *string) error {
	for _, r := range v {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("%q has control characters", v)
		}
	}
	*to = strings.TrimSpace(v)
	return nil
}

// parseToken accepts one word: no spaces, no control characters.
func parseToken(v string, to *string) error {
	if v == "" || strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("%q is not a single word", v)
	}
	*to = v
	return nil
}

func (s *settings) setRedirect(v string, code int) error {
	// A permanent redirect wins over a temporary one, as in ingress-nginx
	// where it is written later in the location.
	if s.redirect != "" && s.redirectCode == 301 {
		return nil
	}
	var to string
	if err := parseToken(v, &to); err != nil {
		return err
	}
	s.redirect, s.redirectCode = to, code
	return nil
}

func parseAppRoot(s *settings, v string) error {
	if !strings.HasPrefix(v, "/") {
		return fmt.Errorf("%q does not start with a slash", v)
	}
	return parseToken(v, &s.appRoot)
}

func parseRewriteTarget(s *settings, v string) error {
	if v == "" {
		return nil
	}
	if !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "$") {
		return fmt.Errorf("%q does not start with a slash", v)
	}
	return parseToken(v, &s.rewriteTarget)
}

func parseProtocol(s *settings, v string) error {
	switch p := protocol(strings.ToUpper(strings.TrimSpace(v))); p {
	case protoHTTP, protoHTTPS, protoGRPC, protoGRPCS:
		s.protocol = p
	case "AUTO_HTTP":
		s.protocol = protoHTTP
	default:
		return fmt.Errorf("%q is not one of HTTP, HTTPS, GRPC, GRPCS", v)
	}
	return nil
}

func parseRanges(v string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, part := range strings.Split(v, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if p, err := netip.ParsePrefix(part); err == nil {
			out = append(out, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(part)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range", part)
		}
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	if len(out) == 0 {
		return nil, errors.New("no range is given")
	}
	return out, nil
}

func (s *settings) setAllow(v string) (err error) {
	ranges, err := parseRanges(v)
	s.allow = append(s.allow, ranges...)
	return err
}

func (s *settings) setDeny(v string) (err error) {
	ranges, err := parseRanges(v)
	s.deny = append(s.deny, ranges...)
	return err
}

func parseAliases(s *settings, v string) error {
	for _, a := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		a = strings.ToLower(strings.TrimSuffix(a, "."))
		if strings.ContainsAny(a, "~^$()[]\\/:") {
			return fmt.Errorf("%q is not a host name (regular expressions are not supported here)", a)
		}
		s.serverAliases = append(s.serverAliases, a)
	}
	return nil
}

func parseAccessLog(s *settings, v string) error {
	on := true
	err := parseBool(v, &on)
	s.noAccessLog = !on
	return err
}

func parseNoVerify(_ *settings, v string) error {
	if v == "on" {
		return errors.New("verifying the certificate of a backend is not supported")
	}
	return nil
}

func parseNoPassthrough(_ *settings, v string) error {
	on := false
	if err := parseBool(v, &on); err != nil {
		return err
	}
	if on {
		return errors.New("not supported by this ingress")
	}
	return nil
}
