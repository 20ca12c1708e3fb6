package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// referrersPages and referrersBytes bound what an upstream may list about one
// image: pages, and bytes of all of them together.
const (
	referrersPages = 100
	referrersBytes = 16 << 20
)

// serveReferrers lists what the upstream has about an image. While it is away
// the list is empty, so that programs which ask for signatures as they pull
// still get an image that the cache has.
func (c *cache) serveReferrers(w http.ResponseWriter, req *http.Request, u *upstream, repository, subject string) error {
	var list []v1.Descriptor
	if u.reachable(req.Context(), c.r.now) {
		var err error
		if list, err = u.referrers(req.Context(), repository, subject); err != nil {
			c.r.log.Warn("registry: an upstream gave no referrers", "upstream", u.Host, "image", repository, "subject", subject, "err", err)
			return err
		}
	}
	return writeReferrers(w, req, list)
}

// referrers asks the upstream for the artifacts about an image, by the tag of
// the referrers schema where it does not know the end point. Errors are as those
// of refusal, and nil for what is not there.
func (u *upstream) referrers(ctx context.Context, repository, subject string) ([]v1.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ref, opts, err := u.reference(ctx, repository, subject)
	if err != nil {
		return nil, err
	}
	opts = append(opts, remote.WithTransport(referrerPages{remote.DefaultTransport}))
	index, err := remote.Referrers(ref.Context().Digest(subject), opts...)
	if err != nil {
		if err = u.explain(err, "the referrers of "+repository+"@"+subject); delivery.IsNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	raw, err := index.RawManifest()
	var answer v1.Index
	if err == nil {
		err = json.Unmarshal(raw, &answer)
	}
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: u.Host + " lists referrers in a form that is not understood.", Next: "Ask it without the cache.", Err: err}
	}
	return answer.Manifests, nil
}

// referrerPages joins the pages of an answer about referrers, which a registry
// may cut at any length and continue under a Link (OCI distribution
// specification, "Listing referrers"); the client reads the first one only. It
// lies below the client's own transport, so that what it sends has the
// credential already: a Link to another server is refused.
type referrerPages struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper. What is wrong with the pages is an
// error of kind Unavailable, a refusal one of the client's.
func (p referrerPages) RoundTrip(req *http.Request) (*http.Response, error) {
	first, err := p.base.RoundTrip(req)
	if err != nil || first.StatusCode != http.StatusOK || !strings.Contains(req.URL.Path, "/referrers/") || first.Header.Get("Link") == "" {
		return first, err
	}
	var all v1.Index
	left := int64(referrersBytes)
	for page, n := first, 1; ; n++ {
		next, err := readReferrers(page, &all, &left)
		if err != nil {
			return nil, err
		}
		if next == nil {
			break
		}
		if n == referrersPages || next.Scheme != req.URL.Scheme || next.Host != req.URL.Host {
			return nil, listBroken(req, fmt.Sprintf("after page %d it leads on to %s", n, next.Redacted()), nil)
		}
		again := req.Clone(req.Context())
		again.URL = next
		if page, err = p.base.RoundTrip(again); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("registry: join referrers: %w", err)
	}
	first.Body, first.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	first.Header.Del("Content-Length")
	first.Header.Del("Link")
	return first, nil
}

// readReferrers adds a page to the index and returns the next one's address,
// nil after the last.
func readReferrers(page *http.Response, all *v1.Index, left *int64) (*url.URL, error) {
	defer page.Body.Close()
	if err := transport.CheckError(page, http.StatusOK); err != nil {
		if page.StatusCode == http.StatusNotFound { // not that there are none
			return nil, listBroken(page.Request, "a page of it is not there", err)
		}
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(page.Body, *left+1))
	if err != nil {
		return nil, err
	}
	if *left -= int64(len(raw)); *left < 0 {
		return nil, listBroken(page.Request, fmt.Sprintf("it is longer than %d MiB", referrersBytes>>20), nil)
	}
	var one v1.Index
	if err := json.Unmarshal(raw, &one); err != nil {
		return nil, listBroken(page.Request, "a page of it is no index", err)
	}
	one.Manifests = append(all.Manifests, one.Manifests...)
	*all = one
	return nextPage(page)
}

// nextPage reads the Link of a response (RFC 8288) as registries write it:
// </v2/...>; rel="next".
func nextPage(page *http.Response) (*url.URL, error) {
	link := page.Header.Get("Link")
	if link == "" {
		return nil, nil
	}
	target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.HasPrefix(link, "<") {
		return nil, listBroken(page.Request, "its Link is not understood", nil)
	}
	if !strings.Contains(strings.ToLower(strings.ReplaceAll(params, `"`, "")), "rel=next") {
		return nil, nil
	}
	next, err := page.Request.URL.Parse(target)
	if err != nil {
		return nil, listBroken(page.Request, "its Link is not understood", err)
	}
	return next, nil
}

func listBroken(req *http.Request, why string, err error) error {
	return &delivery.Error{Kind: delivery.Unavailable, Err: err,
		Message: fmt.Sprintf("The list of referrers of %s cannot be read: %s.", req.URL.Host, why), Next: "Ask that registry without the cache."}
}
