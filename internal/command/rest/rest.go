// Package rest is the command line's client of the platform's REST API v4.
//
// It receives where the platform is and the token to act with, and emits
// decoded answers and delivery.Error kinds. It must import no stage.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Client talks to one platform.
type Client struct {
	URL   string // http://192.0.2.2:8080, without a path
	Token string // sent as PRIVATE-TOKEN
	HTTP  *http.Client
}

// Connect finds the platform that a command is about. Commands call it when
// they run, so that help works without one.
type Connect func() (*Client, error)

// Run makes a command's RunE of a function that also gets the client.
func (connect Connect) Run(fn func(c *cobra.Command, client *Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := connect()
		if err != nil {
			return err
		}
		return fn(c, client, args)
	}
}

// Host is the platform's host:port, and so the registry's name.
func (c *Client) Host() string {
	_, host, _ := strings.Cut(c.URL, "://")
	return strings.TrimSuffix(host, "/")
}

// Insecure reports whether the platform is reached over plain HTTP.
func (c *Client) Insecure() bool { return strings.HasPrefix(c.URL, "http://") }

// Call sends in (nil: nothing; an io.Reader: as it is, with the media type
// given; anything else: JSON) and decodes the answer into out, which may be nil
// or a *[]byte for the body as it is. Answers other than 2xx give an error with
// the kind and message of the answer.
func (c *Client) Call(ctx context.Context, method, path, media string, in, out any) (http.Header, error) {
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body = v
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body, media = bytes.NewReader(raw), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+"/api/v4"+path, body)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("PRIVATE-TOKEN", c.Token)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The platform does not answer at " + c.URL + ".", Next: "See it with: slipway status", Err: err}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The platform broke off its answer.", Err: err}
	}
	if resp.StatusCode/100 != 2 {
		return nil, failure(resp.StatusCode, raw)
	}
	switch v := out.(type) {
	case nil:
	case *[]byte:
		*v = raw
	default:
		if err := json.Unmarshal(raw, out); err != nil {
			return nil, fmt.Errorf("decode answer of %s: %w", path, err)
		}
	}
	return resp.Header, nil
}

// All reads every page of a listing.
func All[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var all []T
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	for page := 1; ; {
		var items []T
		header, err := c.Call(ctx, http.MethodGet, path+separator+"per_page=100&page="+strconv.Itoa(page), "", nil, &items)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		next, err := strconv.Atoi(header.Get("X-Next-Page"))
		if err != nil || next <= page {
			return all, nil
		}
		page = next
	}
}

// Escape makes a project's path one part of a URL.
func Escape(path string) string { return url.PathEscape(path) }

func failure(status int, raw []byte) error {
	kind := map[int]delivery.Kind{400: delivery.Invalid, 401: delivery.Unauthenticated, 403: delivery.Forbidden, 404: delivery.NotFound,
		409: delivery.Conflict, 413: delivery.TooLarge, 422: delivery.Stalled, 429: delivery.TooMany, 501: delivery.Unimplemented, 503: delivery.Unavailable}[status]
	if kind == "" {
		kind = delivery.InternalError
	}
	var body struct {
		Message json.RawMessage `json:"message"`
	}
	message := http.StatusText(status)
	if json.Unmarshal(raw, &body) == nil && len(body.Message) > 0 {
		if json.Unmarshal(body.Message, &message) != nil {
			message = string(body.Message)
		}
	}
	return &delivery.Error{Kind: kind, Message: message}
}
