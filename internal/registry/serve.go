package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Handler serves the OCI distribution protocol under /v2/. Names below one of
// the upstreams' hosts (docker.io/library/debian), and requests whose ns
// parameter names one (containerd's mirrors), are served by the cache.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(r.serve)
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	req = r.cache.normalize(req)
	rt := parseRoute(req.URL.Path)
	c, err := r.bearer(req, rt)
	if err != nil {
		r.refuse(w, req, rt, err)
		return
	}
	if c != nil {
		req = req.WithContext(context.WithValue(req.Context(), claimsKey{}, c))
	}
	if host, name, ok := r.cache.split(rt.name); ok {
		r.cache.serve(w, req, c, rt, host, name)
		return
	}
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if rt.kind == routeOther || c == nil || !c.allows("repository", rt.name, actionOf(req.Method)) {
		if rt.kind == routeReferrers {
			r.challenge(w, req, rt, c != nil)
			return
		}
		r.engine.ServeHTTP(w, req) // answers, or asks for a token
		return
	}
	err = r.serveRepository(w, req, c, rt)
	if err != nil {
		r.fail(w, req, err)
	}
}

// serveRepository serves a request that the caller may make.
func (r *Registry) serveRepository(w http.ResponseWriter, req *http.Request, c *claims, rt route) error {
	switch {
	case rt.kind == routeManifest && req.Method == http.MethodPut:
		return r.putManifest(w, req, c, rt)
	case rt.kind == routeManifest && req.Method == http.MethodDelete:
		return r.deleteManifest(w, req, c, rt)
	case rt.kind == routeReferrers:
		return r.serveReferrers(w, req, rt)
	case rt.kind == routeBlob && req.Method == http.MethodDelete:
		return r.deleteBlob(w, req, rt)
	case rt.kind == routeBlob, rt.kind == routeManifest && validDigest(rt.reference):
		r.root.seen.note(rt.reference)
	case rt.kind == routeUpload && (req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch):
		if err := r.admitUpload(req, c, rt); err != nil {
			return err
		}
	}
	r.engine.ServeHTTP(w, req)
	return nil
}

// admitUpload refuses an upload for which there is no room, and notes the blob
// that it makes or mounts.
func (r *Registry) admitUpload(req *http.Request, c *claims, rt route) error {
	if err := r.checkSpace(req.ContentLength); err != nil {
		return err
	}
	q := req.URL.Query()
	if req.Method == http.MethodPost {
		by, err := c.caller(rt.name)
		if err != nil {
			return err
		}
		g, err := r.guard(req.Context(), by)
		if err == nil {
			err = g.push(rt.name)
		}
		if err != nil {
			return err
		}
		if err := r.checkQuota(req.Context(), c, rt.name, nil); err != nil {
			return err
		}
	}
	for _, key := range []string{"digest", "mount"} {
		if d := q.Get(key); validDigest(d) {
			r.root.seen.note(d)
		}
	}
	return nil
}

func actionOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return actionPull
	case http.MethodDelete:
		return actionDelete
	}
	return actionPush
}

// bearer returns what the caller proved: by the token of the token service, or
// by Basic credentials, which are turned into the same claims. Without
// credentials it returns nil.
func (r *Registry) bearer(req *http.Request, rt route) (*claims, error) {
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	switch {
	case strings.EqualFold(scheme, "bearer") && value != "":
		return r.verify(value)
	case strings.EqualFold(scheme, "basic") && value != "":
		user, secret, ok := req.BasicAuth()
		if !ok {
			return nil, delivery.Errorf(delivery.Unauthenticated, "The Authorization header cannot be read.")
		}
		who, err := r.signIn(req.Context(), user, secret)
		if err != nil {
			return nil, err
		}
		return r.claimsFor(req, who, rt)
	}
	return nil, nil
}

// claimsFor works out what an identity may do in one request.
func (r *Registry) claimsFor(req *http.Request, who delivery.Identity, rt route) (*claims, error) {
	c := &claims{Kind: string(who.Kind), JobID: who.JobID}
	c.Subject = who.Name
	if who.User != nil {
		c.UserID = who.User.ID
	}
	var scopes []string
	if rt.name != "" {
		scopes = append(scopes, "repository:"+rt.name+":pull,push,delete")
		if from := req.URL.Query().Get("from"); from != "" {
			scopes = append(scopes, "repository:"+from+":pull")
		}
	} else if strings.HasPrefix(req.URL.Path, "/v2/_catalog") {
		scopes = append(scopes, "registry:catalog:*")
	}
	var err error
	c.Access, err = r.grants(req.Context(), who, scopes)
	return c, err
}

// refuse answers a request whose credentials are wrong.
func (r *Registry) refuse(w http.ResponseWriter, req *http.Request, rt route, err error) {
	if kind := delivery.KindOf(err); kind != delivery.Unauthenticated && kind != delivery.Forbidden {
		r.fail(w, req, err)
		return
	}
	scope := ""
	if rt.name != "" {
		scope = "repository:" + rt.name + ":" + scopeActions(req.Method)
	}
	w.Header().Set("WWW-Authenticate", bearerChallenge(req, scope, "invalid_token"))
	writeErrors(w, http.StatusUnauthorized, "UNAUTHORIZED", delivery.UserMessage(err))
}

func (r *Registry) challenge(w http.ResponseWriter, req *http.Request, rt route, signed bool) {
	code := ""
	if signed {
		code = "insufficient_scope"
	}
	w.Header().Set("WWW-Authenticate", bearerChallenge(req, "repository:"+rt.name+":"+scopeActions(req.Method), code))
	writeErrors(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

func scopeActions(method string) string {
	if actionOf(method) == actionPush {
		return "pull,push"
	}
	return actionOf(method)
}

// fail answers with an error in the distribution protocol's shape. Clients show
// the message of a 4xx to people, so conditions that a person must mend are
// DENIED rather than 5xx.
func (r *Registry) fail(w http.ResponseWriter, req *http.Request, err error) {
	status, code := http.StatusInternalServerError, "UNKNOWN"
	switch delivery.KindOf(err) {
	case delivery.NotFound:
		status, code = http.StatusNotFound, "NAME_UNKNOWN"
	case delivery.Invalid:
		status, code = http.StatusBadRequest, "MANIFEST_INVALID"
	case delivery.Forbidden, delivery.Stalled:
		status, code = http.StatusForbidden, "DENIED"
	case delivery.Conflict:
		status, code = http.StatusConflict, "DENIED"
	case delivery.TooLarge:
		status, code = http.StatusRequestEntityTooLarge, "SIZE_INVALID"
	case delivery.TooMany:
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case delivery.Unavailable, delivery.Waiting:
		status, code = http.StatusServiceUnavailable, "UNAVAILABLE"
	case delivery.InternalError:
		if req.Context().Err() == nil {
			r.log.Error("registry request failed", "method", req.Method, "path", req.URL.Path, "err", err)
		}
	}
	var e *delivery.Error
	if errors.As(err, &e) && e.Kind == delivery.Unimplemented {
		status, code = http.StatusMethodNotAllowed, "UNSUPPORTED"
	}
	writeErrors(w, status, code, delivery.UserMessage(err))
}

// writeErrors writes the distribution protocol's error body.
func writeErrors(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
	if err != nil {
		panic(err) // strings always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
