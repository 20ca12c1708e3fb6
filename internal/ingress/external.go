package ingress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// externalAuth is what auth-url asks for: every request is first put, without
// its body, to a service that says whether it may go on. What is sent and how
// answers count is ingress-nginx's contract, so that oauth2-proxy and its like
// need no other settings.
type externalAuth struct {
	destination
	method     string
	signin     string // as given
	param      string // auth-signin-redirect-param
	signinURL  text   // with the address to come back to
	redirect   text   // X-Auth-Request-Redirect; nil: the request's path and query
	copied     []string
	keepCookie bool // pass Set-Cookie on with every answer
	headers    http.Header
	headersOf  string // a ConfigMap with headers for the service
}

func (s *settings) withExternal() *externalAuth {
	if s.external == nil {
		s.external = &externalAuth{method: http.MethodGet, param: "rd"}
	}
	return s.external
}

func parseAuthURL(s *settings, v string) (err error) {
	e := s.withExternal()
	e.destination, err = parseDestination(v)
	return err
}

func parseAuthMethod(s *settings, v string) error {
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, v) {
		return fmt.Errorf("%q is not a method", v)
	}
	s.withExternal().method = v
	return nil
}

func parseSignin(s *settings, v string) error {
	if err := parseToken(v, &s.withExternal().signin); err != nil {
		return err
	}
	_, err := parseText(v)
	return err
}

func parseAuthRedirect(s *settings, v string) (err error) {
	s.withExternal().redirect, err = parseText(v)
	return err
}

func parseAuthResponseHeaders(s *settings, v string) error {
	var names []string
	for _, name := range strings.Split(v, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("%q is not a header name", name)
		}
		names = append(names, http.CanonicalHeaderKey(name))
	}
	s.withExternal().copied = names
	return nil
}

// finish reads what depends on more than one annotation. Without auth-url the
// others have no effect.
func (e *externalAuth) finish() (*externalAuth, string) {
	if e == nil || e.url == nil || e.signin == "" {
		if e != nil && e.url == nil {
			e = nil
		}
		return e, ""
	}
	to := e.signin
	_, query, has := strings.Cut(to, "?")
	back := e.param + "=$pass_access_scheme://$http_host$escaped_request_uri"
	switch {
	case !has || query == "":
		to = strings.TrimSuffix(to, "?") + "?" + back
	case !strings.Contains("&"+query, "&"+e.param+"="):
		to += "&" + back
	}
	parsed, err := parseText(to)
	if err != nil {
		return e, annotationPrefix + "auth-signin: " + err.Error()
	}
	e.signinURL = parsed
	return e, ""
}

// addExternal finds the Service that auth-url names, and the headers for it.
func (b *builder) addExternal(p parsedIngress) {
	e := p.set.external
	if e == nil {
		return
	}
	e.headers = b.headersFrom(p, "auth-proxy-set-headers", e.headersOf)
	if problem := b.find(&e.destination); problem != "" {
		b.problem(p.key, annotationPrefix+"auth-url: "+problem+"; nobody is let in until this is put right")
	}
}

type askingKey struct{}

// verdict is an authentication service's answer.
type verdict struct {
	status int
	header http.Header
	err    error // why there is none
}

func (v verdict) permits() bool { return v.err == nil && v.status >= 200 && v.status < 300 }

// ask puts a request to the service that auth-url names.
func (h *handler) ask(route *route, r *http.Request) verdict {
	e := route.set.external
	u, err := url.Parse(e.url.of(r))
	if err != nil {
		return verdict{err: errors.New("its address is none for this request")}
	}
	setClient(r) // the question and the request have the same X-Request-ID
	ctx := context.WithValue(r.Context(), askingKey{}, true)
	if limit := route.set.readTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	question := e.question(ctx, u, r)
	w := &answerWriter{header: http.Header{}}
	err = h.put(&e.destination, route.set, w, question, u, "")
	if err == nil && w.status == 0 {
		err = errors.New("it did not answer")
	}
	return verdict{status: w.status, header: w.final, err: err}
}

// question makes the request that an authentication service gets.
func (e *externalAuth) question(ctx context.Context, u *url.URL, r *http.Request) *http.Request {
	q := r.Clone(ctx)
	q.Method = e.method
	address(q, u)
	q.Body, q.ContentLength, q.TransferEncoding, q.Trailer = http.NoBody, 0, nil, nil
	for _, name := range notAsked {
		q.Header.Del(name)
	}
	set := q.Header.Set
	set("X-Original-Url", schemeOf(r)+"://"+r.Host+r.URL.RequestURI())
	set("X-Original-Uri", r.URL.RequestURI())
	set("X-Original-Method", r.Method)
	set("X-Forwarded-Uri", r.URL.RequestURI())
	set("X-Forwarded-Method", r.Method)
	set("X-Sent-From", "nginx-ingress-controller")
	set("X-Scheme", schemeOf(r))
	redirect := r.URL.RequestURI()
	if e.redirect != nil {
		redirect = e.redirect.of(r)
	}
	set("X-Auth-Request-Redirect", redirect)
	maps.Copy(q.Header, e.headers)
	return q
}

// notAsked belongs to the request's body, to its connection, or to what the
// client has of the answer already.
var notAsked = append([]string{"Content-Encoding", "Expect", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range"}, connectionHeaders...)

// answerWriter keeps status and headers of an answer, and drops its body.
type answerWriter struct {
	header, final http.Header
	status        int
}

// Header implements http.ResponseWriter.
func (w *answerWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *answerWriter) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status, w.final = status, w.header.Clone()
	}
}

// Write implements http.ResponseWriter.
func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *answerWriter) Flush() { w.WriteHeader(http.StatusOK) }

// admitted passes on what the service said of a request that may go on.
func (e *externalAuth) admitted(v verdict, rec *recorder, r *http.Request) {
	for _, name := range e.copied {
		r.Header.Del(name) // a client's own would be believed
		if name == "X-Auth-Request-User" {
			rec.user = v.header.Get(name)
		}
		for _, value := range v.header.Values(name) {
			r.Header.Add(name, value)
		}
	}
	if cookies := v.header.Values("Set-Cookie"); len(cookies) > 0 {
		rec.onHeader(func(header http.Header) {
			for _, c := range cookies {
				header.Add("Set-Cookie", c)
			}
		})
	}
}

// deny answers a request that may not go on: to the page for signing in, or
// with the service's own status.
func (h *handler) deny(route *route, v verdict, w http.ResponseWriter, r *http.Request) {
	e := route.set.external
	if v.err != nil || v.status != http.StatusUnauthorized && v.status != http.StatusForbidden {
		text, cause := "The service that decides about this address cannot be asked.", v.err
		if v.err == nil {
			text = fmt.Sprintf("The service that decides about this address answered %d, which is neither yes nor no.", v.status)
			cause = fmt.Errorf("it answered %d", v.status)
		}
		if r.Context().Err() == nil {
			h.log.Warn("the service of auth-url did not decide", "ingress", route.ingress, "err", cause)
		}
		refuse(w, http.StatusInternalServerError, text)
		return
	}
	redirect := v.status == http.StatusUnauthorized && e.signinURL != nil
	if e.keepCookie || redirect {
		for _, c := range v.header.Values("Set-Cookie") {
			w.Header().Add("Set-Cookie", c)
		}
	}
	if redirect {
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, e.signinURL.of(r), http.StatusFound)
		return
	}
	for _, c := range v.header.Values("Www-Authenticate") {
		w.Header().Add("WWW-Authenticate", c)
	}
	refuse(w, v.status, "You may not use this address.")
}
