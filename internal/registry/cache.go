package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// cache is the pull-through cache: one storage root per upstream, served by the
// engine's own proxy while the upstream answers and from the disk alone while
// it does not.
type cache struct {
	ctx       context.Context // of the registry; ends with Close
	r         *Registry
	upstreams map[string]*upstream
}

func newCache(ctx context.Context, r *Registry, dir, secret string) *cache {
	c := &cache{ctx: ctx, r: r, upstreams: map[string]*upstream{}}
	for _, u := range r.cfg.Upstreams {
		c.upstreams[u.Host] = &upstream{Upstream: u, dir: cacheDir(dir, u.Host), secret: secret}
	}
	return c
}

func (c *cache) close() error {
	var errs []error
	for _, u := range c.upstreams {
		u.open.Lock()
		if u.local != nil {
			errs = append(errs, u.local.Shutdown())
		}
		if u.proxy != nil {
			errs = append(errs, u.proxy.Shutdown())
		}
		u.open.Unlock()
	}
	return errors.Join(errs...)
}

// split tells whether a repository name lies in the cache: below the host name
// of an upstream. A Docker Hub name of one component is in library.
func (c *cache) split(name string) (host, rest string, ok bool) {
	host, rest, ok = strings.Cut(name, "/")
	if !ok || c.upstreams[host] == nil {
		return "", "", false
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host, rest, true
}

// normalize puts the upstream that containerd names in the ns parameter of a
// mirror request in front of the path's repository.
func (c *cache) normalize(req *http.Request) *http.Request {
	ns := req.URL.Query().Get("ns")
	if ns == "" || c.upstreams[ns] == nil {
		return req
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || rest == "" || strings.HasPrefix(rest, ns+"/") {
		return req
	}
	return withPath(req, "/v2/"+ns+"/"+rest)
}

func withPath(req *http.Request, p string) *http.Request {
	clone := *req
	u := *req.URL
	u.Path, u.RawPath = p, ""
	clone.URL = &u
	clone.RequestURI = u.RequestURI()
	return &clone
}

// allowed returns which actions an identity has on cached images: everyone who
// has signed in pulls; administrators also seed and delete.
func (c *cache) allowed(who delivery.Identity, want []string) []string {
	admin := isAdmin(who) && who.HasScope("write_registry")
	return only(want, func(a string) bool { return who.Signed() && a == actionPull || admin })
}

// admits reports whether the request may be served.
func (c *cache) admits(req *http.Request, claims *claims, rt route) bool {
	action := actionOf(req.Method)
	if claims != nil && claims.allows("repository", rt.name, action) {
		return true
	}
	if action != actionPull || req.Header.Get("X-Forwarded-For") != "" {
		return false
	}
	addr, err := netip.ParseAddrPort(req.RemoteAddr)
	return err == nil && c.r.cfg.Trusted(addr.Addr())
}

func (c *cache) serve(w http.ResponseWriter, req *http.Request, claims *claims, rt route, host, name string) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if !c.admits(req, claims, rt) {
		c.r.challenge(w, req, rt, claims != nil)
		return
	}
	if err := c.serveUpstream(w, req, claims, rt, host, name); err != nil {
		c.r.fail(w, req, err)
	}
}

func (c *cache) serveUpstream(w http.ResponseWriter, req *http.Request, claims *claims, rt route, host, name string) error {
	u := c.upstreams[host]
	if err := u.start(c.ctx, c.r.now); err != nil {
		return err
	}
	if rt.kind == routeReferrers {
		return c.serveReferrers(w, req, u, name, rt.reference)
	}
	inner := withPath(req, "/v2/"+name+strings.TrimPrefix(req.URL.Path, "/v2/"+rt.name))
	if validDigest(rt.reference) {
		u.root.seen.note(rt.reference)
	}
	if action := actionOf(req.Method); action != actionPull {
		return c.seedOverHTTP(w, inner, u, rt, host)
	}
	// Who pushes asks first whether a blob is there, and wants a plain no.
	seeds := claims != nil && claims.allows("repository", rt.name, actionPush)
	engine, err := c.engineFor(req, u, rt, name, seeds)
	if err != nil {
		return err
	}
	if rt.kind == routeManifest && engine != http.Handler(u.local) {
		if err := c.fetch(w, inner, engine, u, name, rt.reference); err != nil {
			return err
		}
	} else {
		engine.ServeHTTP(w, inner)
	}
	if rt.kind == routeManifest && req.Method == http.MethodGet {
		u.root.used(name, rt.reference, c.r.now())
	}
	return nil
}

// engineFor chooses who answers a pull: the disk for content that is named by
// its digest and stored, the upstream while it is there, and else the disk.
func (c *cache) engineFor(req *http.Request, u *upstream, rt route, name string, seeds bool) (http.Handler, error) {
	here := u.root.has(rt.kind, name, rt.reference)
	if here && validDigest(rt.reference) {
		return u.local, nil
	}
	space := c.r.checkSpace(0)
	if space == nil {
		if engine := u.fetcher(c.ctx, req.Context(), c.r.now, c.r.log); engine != nil {
			return engine, nil
		}
	}
	switch {
	case here || rt.kind == routeTags || seeds:
		return u.local, nil
	case space != nil:
		return nil, space
	}
	return nil, &delivery.Error{Kind: delivery.Unavailable,
		Message: fmt.Sprintf("%s cannot be reached, and the cache has no copy of %s.", u.Host, displayName(name, rt)),
		Next:    "Try again when the network is back, or store the image under this name with \"slipway image push\"."}
}

func displayName(name string, rt route) string {
	if validDigest(rt.reference) {
		return name + "@" + rt.reference
	}
	return name + ":" + rt.reference
}

// seedOverHTTP takes a push into the cache. Locations that the engine hands out
// lead back to the cache's names.
func (c *cache) seedOverHTTP(w http.ResponseWriter, req *http.Request, u *upstream, rt route, host string) error {
	if err := c.r.checkSpace(req.ContentLength); err != nil {
		return err
	}
	for _, key := range []string{"digest", "mount"} {
		if d := req.URL.Query().Get(key); validDigest(d) {
			u.root.seen.note(d)
		}
	}
	rw := &relocated{ResponseWriter: w, prefix: "/v2/" + host + "/"}
	u.local.ServeHTTP(rw, req)
	if rt.kind == routeManifest && req.Method == http.MethodPut {
		if dgst := w.Header().Get("Docker-Content-Digest"); validDigest(dgst) {
			name := strings.TrimSuffix(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/"+rt.reference)
			return u.root.pin(name, dgst)
		}
	}
	return nil
}

// relocated rewrites the Location of a response.
type relocated struct {
	http.ResponseWriter
	prefix string
	done   bool
}

func (w *relocated) WriteHeader(status int) {
	if !w.done {
		w.done = true
		if u, err := url.Parse(w.Header().Get("Location")); err == nil && strings.HasPrefix(u.Path, "/v2/") {
			u.Path, u.RawPath = w.prefix+strings.TrimPrefix(u.Path, "/v2/"), ""
			w.Header().Set("Location", u.String())
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *relocated) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Paths of distribution's layout (registry/storage/paths.go, layout v2).
const layoutRoot = "/docker/registry/v2"

func splitDigest(d string) (algorithm, hex string) {
	algorithm, hex, _ = strings.Cut(d, ":")
	return algorithm, hex
}

func blobPath(d string) string {
	a, h := splitDigest(d)
	return path.Join(layoutRoot, "blobs", a, h[:2], h, "data")
}

func layerLinkPath(name, d string) string {
	a, h := splitDigest(d)
	return path.Join(layoutRoot, "repositories", name, "_layers", a, h, "link")
}

func manifestLinkPath(name, d string) string {
	a, h := splitDigest(d)
	return path.Join(layoutRoot, "repositories", name, "_manifests/revisions", a, h, "link")
}

func tagLinkPath(name, tag string) string {
	return path.Join(layoutRoot, "repositories", name, "_manifests/tags", tag, "current/link")
}

func (rt *root) file(p string) string { return filepath.Join(rt.dir, filepath.FromSlash(p)) }

// has reports whether the root can serve a reference of a repository alone.
func (rt *root) has(kind routeKind, name, ref string) bool {
	exists := func(p string) bool {
		_, err := os.Stat(rt.file(p))
		return err == nil
	}
	switch {
	case kind == routeBlob:
		return exists(layerLinkPath(name, ref)) && exists(blobPath(ref))
	case kind == routeManifest && validDigest(ref):
		return exists(manifestLinkPath(name, ref)) && exists(blobPath(ref))
	case kind == routeManifest:
		d := rt.tagged(name, ref)
		return d != "" && exists(manifestLinkPath(name, d)) && exists(blobPath(d))
	}
	return false
}

// tagged returns the digest that a tag points to, or "".
func (rt *root) tagged(name, tag string) string {
	raw, err := os.ReadFile(rt.file(tagLinkPath(name, tag)))
	if d := strings.TrimSpace(string(raw)); err == nil && validDigest(d) {
		return d
	}
	return ""
}

// used notes that a cached image was pulled: by the time of its link, so that
// the order of use outlives a restart. A time in the future marks an image that
// was seeded and that the cache could not fetch again; it stays.
func (rt *root) used(name, ref string, now time.Time) {
	if !validDigest(ref) {
		ref = rt.tagged(name, ref)
	}
	if ref == "" {
		return
	}
	link := rt.file(manifestLinkPath(name, ref))
	if info, err := os.Stat(link); err == nil && info.ModTime().Before(now) {
		_ = os.Chtimes(link, now, now) // only the order of eviction depends on it
	}
}

// pinned is the time that marks a seeded image.
var pinned = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

func (rt *root) pin(name, dgst string) error {
	if err := os.Chtimes(rt.file(manifestLinkPath(name, dgst)), pinned, pinned); err != nil {
		return fmt.Errorf("registry: keep seeded image %s@%s: %w", name, dgst, err)
	}
	return nil
}
