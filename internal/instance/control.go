package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/socket"
)

// ServeControl serves the control socket until ctx ends. Only root can connect
// to it, as it lies in a folder of root's.
func (d Dir) ServeControl(ctx context.Context, h http.Handler) error {
	l, err := socket.Listen(d.Socket())
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		srv.Shutdown(last)
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	<-stopped
	return nil
}

// HTTPClient returns a client whose every request goes to the control socket,
// whatever host its URL names.
func (d Dir) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", d.Socket())
	}}}
}

// Call sends a request to the control socket and decodes the JSON answer into
// out, which may be nil. When no instance runs the error is of kind
// Unavailable; when the caller may not reach the socket, Forbidden.
func (d Dir) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://slipway"+path, body)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	resp, err := d.HTTPClient().Do(req)
	switch {
	case errors.Is(err, syscall.EACCES):
		return &delivery.Error{Kind: delivery.Forbidden, Message: fmt.Sprintf("Only root may talk to the instance in %s.", d), Next: "Run the command with sudo."}
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return &delivery.Error{Kind: delivery.Unavailable, Message: fmt.Sprintf("Slipway does not run on %s.", d), Next: "Start it with: slipway up"}
	case err != nil:
		return fmt.Errorf("control: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var e struct {
			Message any `json:"message"`
		}
		if json.Unmarshal(raw, &e) == nil && e.Message != nil {
			return &delivery.Error{Kind: kindOf(resp.StatusCode), Message: fmt.Sprint(e.Message)}
		}
		return fmt.Errorf("control: %s: %s", resp.Status, bytes.TrimSpace(raw))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("control: decode answer: %w", err)
	}
	return nil
}

func kindOf(status int) delivery.Kind {
	switch status {
	case 400, 422:
		return delivery.Invalid
	case 401:
		return delivery.Unauthenticated
	case 403:
		return delivery.Forbidden
	case 404:
		return delivery.NotFound
	case 409:
		return delivery.Conflict
	case 503:
		return delivery.Unavailable
	}
	return delivery.InternalError
}
