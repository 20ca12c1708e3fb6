package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// askTimeout bounds the question why an upstream refused.
const askTimeout = 10 * time.Second

// unanswered holds a refusal of the engine back. The engine says of whatever it
// could not fetch that it is unknown, which leads people to look for a mistake
// in the name when a rate limit or a credential is what is wrong.
type unanswered struct {
	http.ResponseWriter
	status  int
	refused bool
}

func (w *unanswered) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	w.refused = status == http.StatusNotFound || status >= http.StatusInternalServerError
	if !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *unanswered) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// fetch lets the engine fetch a manifest, and says why it could not.
func (c *cache) fetch(w http.ResponseWriter, req *http.Request, engine http.Handler, u *upstream, repository, ref string) error {
	held := &unanswered{ResponseWriter: w}
	engine.ServeHTTP(held, req)
	if !held.refused {
		return nil
	}
	for _, key := range []string{"Content-Length", "Content-Type", "Docker-Content-Digest", "Etag"} {
		w.Header().Del(key)
	}
	err := u.refusal(req.Context(), repository, ref)
	if delivery.IsNotFound(err) {
		writeErrors(w, http.StatusNotFound, "MANIFEST_UNKNOWN", delivery.UserMessage(err))
		return nil
	}
	c.r.log.Warn("registry: an upstream gave no image", "upstream", u.Host, "image", repository, "reference", ref, "err", err)
	return err
}

// reference is a manifest as the upstream's client names it, with how to ask.
func (u *upstream) reference(ctx context.Context, repository, ref string) (name.Reference, []remote.Option, error) {
	scheme, host, _ := strings.Cut(u.URL, "://")
	var opts []name.Option
	if scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	parsed, err := name.ParseReference(strings.TrimSuffix(host, "/")+"/"+imageName(repository, ref), opts...)
	if err != nil {
		return nil, nil, delivery.Errorf(delivery.NotFound, "manifest unknown")
	}
	auth := authn.Anonymous
	if u.Username != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: u.Username, Password: u.Password})
	}
	return parsed, []remote.Option{remote.WithContext(ctx), remote.WithAuth(auth), remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes()}, nil
}

func imageName(repository, ref string) string {
	if validDigest(ref) {
		return repository + "@" + ref
	}
	return repository + ":" + ref
}

// refusal asks the upstream once more for a manifest and returns what stands
// against having it: of kind NotFound, TooMany, Forbidden or Unavailable.
func (u *upstream) refusal(ctx context.Context, repository, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	parsed, opts, err := u.reference(ctx, repository, ref)
	if err != nil {
		return err
	}
	_, err = remote.Get(parsed, opts...)
	return u.explain(err, imageName(repository, ref))
}

// explain is an upstream's refusal of something in the words of the cache.
func (u *upstream) explain(err error, what string) error {
	unavailable := func(why string, err error) error {
		return &delivery.Error{Kind: delivery.Unavailable, Message: fmt.Sprintf("%s did not give %s: %s.", u.Host, what, why), Next: "Try again later; what the cache has is served meanwhile.", Err: err}
	}
	var answer *transport.Error
	var said *delivery.Error
	switch {
	case err == nil:
		return unavailable("the connection broke", nil)
	case errors.As(err, &said):
		return said
	case !errors.As(err, &answer):
		return unavailable("it cannot be reached", err)
	case answer.StatusCode == http.StatusTooManyRequests:
		return &delivery.Error{Kind: delivery.TooMany, Err: err,
			Message: fmt.Sprintf("%s refuses %s for now, its rate limit is used up%s", u.Host, what, saying(answer)),
			Next:    u.signInAdvice("Images that the cache has are served on.")}
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		return &delivery.Error{Kind: delivery.Forbidden, Err: err,
			Message: fmt.Sprintf("%s denies %s: it does not exist there, or is not for %s%s", u.Host, what, u.who(), saying(answer)),
			Next:    u.signInAdvice("Check the name, and the file that registry.credentials names.")}
	case answer.StatusCode == http.StatusNotFound:
		return delivery.Errorf(delivery.NotFound, "manifest unknown: %s has no %s", u.Host, what)
	}
	return unavailable(fmt.Sprintf("it answered with status %d", answer.StatusCode), err)
}

// saying is what the upstream's own words add to a sentence.
func saying(answer *transport.Error) string {
	for _, d := range answer.Errors {
		if d.Message != "" {
			return ": " + strings.TrimSuffix(d.Message, ".") + "."
		}
	}
	return "."
}

func (u *upstream) who() string {
	if u.Username == "" {
		return "anonymous clients"
	}
	return "the user " + u.Username
}

// signInAdvice is the next step; whoever has given a credential needs another.
func (u *upstream) signInAdvice(otherwise string) string {
	if u.Username != "" {
		return otherwise
	}
	return fmt.Sprintf("Give the cache an account there by registry.credentials: {%s: FILE}.", u.Host)
}
