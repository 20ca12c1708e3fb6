// Package socket opens the unix sockets on which the platform's programs speak
// to each other, and serves HTTP on them.
//
// It receives a path below a folder that only root enters, and a handler; it
// emits nothing. It must import nothing of ours.
package socket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"
)

// Listen opens a socket that only its owner can connect to, in the place of one
// that a killed process may have left behind.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers on a socket until ctx ends; requests under way are cut off then.
func Serve(ctx context.Context, path string, h http.Handler) error {
	l, err := Listen(path)
	if err != nil {
		return err
	}
	return ServeOn(ctx, l, h)
}

// ServeOn is Serve on a listener of any kind, which it closes.
func ServeOn(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // the caller has ended what it serves
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
