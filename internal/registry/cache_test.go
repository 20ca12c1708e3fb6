package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	container "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
)

// public is a stand-in for a public registry: a registry of its own behind a
// proxy that counts requests and can be taken away.
type public struct {
	*fixture
	front    *httptest.Server
	requests atomic.Int64
	refusal  atomic.Int64 // a status that every request is answered with; 0: none
}

func startPublic(t *testing.T) *public {
	t.Helper()
	p := &public{fixture: start(t, nil)}
	target, err := url.Parse(p.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // tokens are fetched through the proxy as well
	}}
	p.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		if status := p.refusal.Load(); status != 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(int(status))
			fmt.Fprint(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(p.front.Close)
	return p
}

func startCache(t *testing.T, p *public, change func(*registry.Config)) *fixture {
	t.Helper()
	return start(t, func(c *registry.Config) {
		c.Upstreams = []registry.Upstream{{Host: "docker.io", URL: p.front.URL}, {Host: "quay.io", URL: "http://127.0.0.1:1"}}
		if change != nil {
			change(c)
		}
	})
}

func (f *fixture) pull(ref string, who ...remote.Option) (container.Image, error) {
	opts := append([]remote.Option{remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes()}, who...)
	img, err := remote.Image(f.ref(ref), opts...)
	if err != nil {
		return nil, err
	}
	return img, readAll(img)
}

func TestCachePullsThroughAndServesAlone(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	first, second := image(t, 2), image(t, 1)
	p.push("library/debian:12", first, as("dev"))
	f := startCache(t, p, nil)

	for _, ref := range []string{"docker.io/library/debian:12", "docker.io/debian:12"} {
		got, err := f.pull(ref)
		if err != nil || digestOf(t, got) != digestOf(t, first) {
			t.Fatalf("%s: %v", ref, err)
		}
	}
	before := p.requests.Load()
	if _, err := f.pull("docker.io/library/debian@" + digestOf(t, first)); err != nil {
		t.Error(err)
	}
	if n := p.requests.Load() - before; n != 0 {
		t.Errorf("what is stored was asked for %d times", n)
	}
	p.push("library/debian:12", second, as("dev"))
	if got, err := f.pull("docker.io/library/debian:12"); err != nil || digestOf(t, got) != digestOf(t, second) {
		t.Errorf("a tag that moved upstream: %v", err)
	}
	p.push("library/debian:13", first, as("dev"))

	p.front.Close()
	f.clock.advance(time.Hour)
	if got, err := f.pull("docker.io/library/debian:12"); err != nil || digestOf(t, got) != digestOf(t, second) {
		t.Errorf("without the upstream: %v", err)
	}
	if _, err := f.pull("docker.io/library/debian:13"); err == nil || !strings.Contains(err.Error(), "docker.io cannot be reached, and the cache has no copy of library/debian:13") {
		t.Errorf("what the cache never had: %v", err)
	}
	if _, err := f.pull("quay.io/x/y:1"); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("an upstream that never was there: %v", err)
	}
}

func TestCacheUnderstandsContainerdMirrors(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	img := image(t, 1)
	p.push("library/debian:12", img, as("dev"))
	f := startCache(t, p, nil)
	for _, path := range []string{"/v2/library/debian/manifests/12?ns=docker.io", "/v2/docker.io/library/debian/manifests/12?ns=docker.io"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, f.server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json, */*")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Docker-Content-Digest") != digestOf(t, img) {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestCacheRights(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	p.push("library/debian:12", image(t, 1), as("dev"))
	f := startCache(t, p, func(c *registry.Config) { c.Trusted = func(netip.Addr) bool { return false } })
	if _, err := f.pull("docker.io/library/debian:12"); err == nil {
		t.Error("a stranger's address was served without a sign-in")
	}
	for _, who := range []string{"nobody", "admin"} {
		if _, err := f.pull("docker.io/library/debian:12", as(who)); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := f.pull("docker.io/library/debian:12", asJob(1)); err != nil {
		t.Errorf("a job: %v", err)
	}
	if err := remote.Write(f.ref("docker.io/library/debian:mine"), image(t, 1), as("dev")); err == nil {
		t.Error("a developer changed what everybody pulls")
	}
}

func TestCacheSignsInUpstream(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("corp/base", delivery.Private)
	img := image(t, 1)
	p.push("corp/base:1", img, as("dev"))
	f := start(t, func(c *registry.Config) {
		c.Upstreams = []registry.Upstream{{Host: "docker.io", URL: p.front.URL, Username: "rep", Password: "rep"}}
	})
	if got, err := f.pull("docker.io/corp/base:1"); err != nil || digestOf(t, got) != digestOf(t, img) {
		t.Error(err)
	}
	anonymous := startCache(t, p, nil)
	if _, err := anonymous.pull("docker.io/corp/base:1"); err == nil {
		t.Error("a private image came without credentials")
	}
}

// TestCacheSaysWhy: what an upstream refuses is not called unknown, and what is
// cached serves on.
func TestCacheSaysWhy(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	p.push("library/debian:12", image(t, 2), as("dev"))
	p.push("library/debian:13", image(t, 1), as("dev"))
	f := startCache(t, p, nil)
	if _, err := f.pull("docker.io/library/debian:12"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pull("docker.io/library/debian:none"); err == nil || !strings.Contains(err.Error(), "MANIFEST_UNKNOWN: manifest unknown: docker.io has no library/debian:none") {
		t.Errorf("what the upstream does not have: %v", err)
	}
	for status, want := range map[int64]string{
		http.StatusTooManyRequests:     "TOOMANYREQUESTS: docker.io refuses library/debian:13 for now, its rate limit is used up: You have reached your pull rate limit. Give the cache an account there by registry.credentials",
		http.StatusUnauthorized:        "DENIED: docker.io denies library/debian:13: it does not exist there, or is not for anonymous clients",
		http.StatusInternalServerError: "UNAVAILABLE: docker.io did not give library/debian:13: it answered with status 500.",
	} {
		p.refusal.Store(status)
		if _, err := f.pull("docker.io/library/debian:12"); err != nil {
			t.Errorf("%d: what is cached: %v", status, err)
		}
		if _, err := f.pull("docker.io/library/debian:13"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", status, err)
		}
	}
	p.refusal.Store(0)
	if _, err := f.pull("docker.io/library/debian:13"); err != nil {
		t.Errorf("the upstream gives again: %v", err)
	}
	wrong := start(t, func(c *registry.Config) {
		c.Upstreams = []registry.Upstream{{Host: "docker.io", URL: p.front.URL, Username: "rep", Password: "wrong"}}
	})
	if _, err := wrong.pull("docker.io/library/debian:13"); err == nil || !strings.Contains(err.Error(), "is not for the user rep: HTTP Basic: Access denied") {
		t.Errorf("a wrong credential: %v", err)
	}
}

func TestSeededImagesStay(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/alpine", delivery.Public)
	p.front.Close()
	f := startCache(t, p, func(c *registry.Config) { c.CacheSize = 1 })
	made, pushed := image(t, 2), image(t, 1)
	dgst, err := f.Seed(t.Context(), "docker.io/library/debian:bookworm-slim", made)
	if err != nil || dgst != digestOf(t, made) {
		t.Fatal(dgst, err)
	}
	if err := remote.Write(f.ref("docker.io/library/ubuntu:22.04"), pushed, as("admin")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"debian", "debian:1", "example.org/debian:1", "docker.io/library/debian", "docker.io/UPPER:1"} {
		if _, err := f.Seed(t.Context(), bad, made); delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	f.clock.advance(1000 * time.Hour)
	if done, err := f.Collect(t.Context()); err != nil || done.Images+done.Blobs != 0 {
		t.Errorf("seeded images went: %+v, %v", done, err)
	}
	for ref, img := range map[string]container.Image{"docker.io/library/debian:bookworm-slim": made, "docker.io/library/ubuntu:22.04": pushed} {
		if got, err := f.pull(ref); err != nil || digestOf(t, got) != digestOf(t, img) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	list, err := f.CachedImages(t.Context())
	if err != nil || len(list) != 2 || !list[0].Seeded || list[0].Reference != "docker.io/library/debian:bookworm-slim" || list[0].Size < 2000 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestCacheKeepsItsSize(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	f := startCache(t, p, func(c *registry.Config) { c.CacheSize = 6000 })
	for i := range 4 {
		tag := fmt.Sprint(i)
		p.push("library/debian:"+tag, image(t, 1), as("dev")) // each about 2 kB
		if _, err := f.pull("docker.io/library/debian:" + tag); err != nil {
			t.Fatal(err)
		}
		f.clock.advance(time.Hour)
	}
	if _, err := f.pull("docker.io/library/debian:0"); err != nil { // used again
		t.Fatal(err)
	}
	f.clock.advance(3 * time.Hour)
	done, err := f.Collect(t.Context())
	if err != nil || done.Images == 0 || done.Blobs == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	p.front.Close()
	f.clock.advance(time.Hour)
	for tag, want := range map[string]bool{"0": true, "3": true, "1": false} {
		if _, err := f.pull("docker.io/library/debian:" + tag); (err == nil) != want {
			t.Errorf("debian:%s: %v", tag, err)
		}
	}
}

// TestCacheKeepsWhatRuns: a pod names its image by a tag, and the node may
// report another registry's name for it.
func TestCacheKeepsWhatRuns(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	f := startCache(t, p, func(c *registry.Config) {
		c.CacheSize, c.Use = 1, using{"debian:short", "docker.io/library/debian:full", "index.docker.io/library/debian:multi"}
	})
	part := image(t, 1)
	if err := remote.WriteIndex(p.ref("library/debian:multi"), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: part}), as("dev")); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Index(f.ref("docker.io/library/debian:multi")); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"short", "full", "other"} {
		p.push("library/debian:"+tag, image(t, 1), as("dev"))
		if _, err := f.pull("docker.io/library/debian:" + tag); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.pull("docker.io/library/debian@" + digestOf(t, part)); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(3 * time.Hour)
	if done, err := f.Collect(t.Context()); err != nil || done.Images != 1 || done.Blobs == 0 {
		t.Errorf("%+v, %v", done, err)
	}
	p.front.Close()
	f.clock.advance(time.Hour)
	for ref, want := range map[string]bool{":short": true, ":full": true, ":other": false, "@" + digestOf(t, part): true} {
		if _, err := f.pull("docker.io/library/debian" + ref); (err == nil) != want {
			t.Errorf("debian%s: %v", ref, err)
		}
	}
	if _, err := remote.Index(f.ref("docker.io/library/debian:multi")); err != nil {
		t.Errorf("an index in use: %v", err)
	}
}

func TestWrongNodeCredential(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.people.add("g/app", delivery.Private)
	f.push("g/app:1", image(t, 1), as("dev"))
	for _, secret := range []string{"", "guess"} {
		who := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "slipway-node", Password: secret}))
		if _, err := f.pull("g/app:1", who); err == nil {
			t.Errorf("the secret %q was taken", secret)
		}
	}
	user, secret := f.NodeCredential()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/v2/g/app/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, secret) // as containerd sends the header of hosts.toml
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the node's header: %s", resp.Status)
	}
}

// TestCacheReferrers: what is known about a cached image is the upstream's to
// say; while it is away nothing is known, which is not an error.
func TestCacheReferrers(t *testing.T) {
	t.Parallel()
	p := startPublic(t)
	p.people.add("library/debian", delivery.Public)
	img := image(t, 1)
	p.push("library/debian:12", img, as("dev"))
	subject, err := partial.Descriptor(img)
	if err != nil {
		t.Fatal(err)
	}
	signature := mutate.Subject(mutate.ConfigMediaType(mutate.MediaType(image(t, 1), types.OCIManifestSchema1), "application/vnd.example.signature"), *subject).(container.Image)
	p.push("library/debian:sig", signature, as("dev"))
	f := startCache(t, p, nil)
	ask := func(digest, query string) (status int, filtered string, got []string) {
		t.Helper()
		resp, err := http.Get(f.server.URL + "/v2/docker.io/library/debian/referrers/" + digest + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var index ocispec.Index
		if err := json.NewDecoder(resp.Body).Decode(&index); err != nil {
			t.Error(err)
		}
		if resp.StatusCode == 200 && (index.MediaType != ocispec.MediaTypeImageIndex || index.Manifests == nil || resp.Header.Get("Content-Type") != index.MediaType) {
			t.Errorf("%s%s: not an index: %+v", digest, query, index)
		}
		for _, m := range index.Manifests {
			got = append(got, m.Digest.String())
		}
		return resp.StatusCode, resp.Header.Get("OCI-Filters-Applied"), got
	}
	want := digestOf(t, signature)
	for _, c := range []struct {
		digest, query, filtered string
		want                    []string
	}{
		{digestOf(t, img), "", "", []string{want}},
		{digestOf(t, img), "?artifactType=application/vnd.example.signature", "artifactType", []string{want}},
		{digestOf(t, img), "?artifactType=other", "artifactType", nil},
		{want, "", "", nil},
	} {
		if status, filtered, got := ask(c.digest, c.query); status != 200 || filtered != c.filtered || !slices.Equal(got, c.want) {
			t.Errorf("%s%s: %d, %q, %v", c.digest, c.query, status, filtered, got)
		}
	}
	if _, err := f.pull("docker.io/library/debian@" + want); err != nil {
		t.Errorf("a listed artifact: %v", err)
	}
	p.refusal.Store(http.StatusTooManyRequests)
	if status, _, _ := ask(digestOf(t, img), ""); status != http.StatusTooManyRequests {
		t.Errorf("an upstream that refuses: %d", status)
	}
	p.front.Close()
	f.clock.advance(time.Hour)
	if status, _, got := ask(digestOf(t, img), ""); status != 200 || got != nil {
		t.Errorf("without the upstream: %d, %v", status, got)
	}
}

// TestCacheReferrersInPages: an upstream cuts its list as it likes; all of it
// counts, or the answer says why not. A credential goes to the upstream only.
func TestCacheReferrersInPages(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	subject := "sha256:" + strings.Repeat("a", 64)
	one := func(n int) string { return fmt.Sprintf("sha256:%064x", n) }
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return // the ping
		}
		n, _ := strconv.Atoi(r.URL.Query().Get("last"))
		next := fmt.Sprintf(`<%s?last=%d>; rel="next"`, r.URL.Path, n+1)
		switch m := mode.Load().(string); {
		case m == "foreign":
			next = "<" + other.URL + r.URL.Path + `>; rel="next"`
		case n == 1 && m == "cut":
			w.WriteHeader(http.StatusNotFound)
			return
		case n == 1 && m == "limit":
			w.WriteHeader(http.StatusTooManyRequests)
			return
		case n == 2 && m == "whole":
			next = ""
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		if next != "" {
			w.Header().Set("Link", next)
		}
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: godigest.Digest(one(n)), Size: 2}}}
		index.SchemaVersion = 2
		json.NewEncoder(w).Encode(index)
	}))
	t.Cleanup(front.Close)
	f := start(t, func(c *registry.Config) {
		c.Upstreams = []registry.Upstream{{Host: "docker.io", URL: front.URL}}
	})
	for _, c := range []struct {
		mode   string
		status int
		want   string
	}{
		{"whole", 200, one(2)},
		{"foreign", http.StatusServiceUnavailable, "after page 1 it leads on to " + other.URL},
		{"cut", http.StatusServiceUnavailable, "a page of it is not there"},
		{"limit", http.StatusTooManyRequests, "rate limit"},
		{"endless", http.StatusServiceUnavailable, "after page 100"},
	} {
		mode.Store(c.mode)
		resp, err := http.Get(f.server.URL + "/v2/docker.io/library/debian/referrers/" + subject)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %d %s %v", c.mode, resp.StatusCode, body, err)
		}
		if c.mode == "whole" && strings.Count(string(body), `"digest"`) != 3 {
			t.Errorf("three pages: %s", body)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("another server was asked")
	}
}
