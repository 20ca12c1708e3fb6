package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slipwayhq/slipway/internal/socket"
)

// localSuffix marks the made-up host names of targets that are not reached
// over TCP: those in this process, and those behind a Unix socket.
const localSuffix = ".slipway.internal"

// localTargets serves the metrics of this process on a private Unix socket,
// where the scrape manager, which only speaks HTTP, finds them like any other
// target. Nothing listens on TCP for that.
type localTargets struct {
	socket string
	mux    *http.ServeMux

	mu      sync.Mutex
	sockets map[string]string // made-up host -> socket path
}

func newLocalTargets(cfg Config) (*localTargets, error) {
	l := &localTargets{
		socket:  filepath.Join(cfg.DataDir, "local.sock"),
		mux:     http.NewServeMux(),
		sockets: map[string]string{},
	}
	seen := map[string]bool{}
	for i, t := range cfg.Targets {
		if t.Job == "" {
			return nil, fmt.Errorf("target %d has no job", i)
		}
		set := 0
		for _, ok := range []bool{t.Gatherer != nil, t.Handler != nil, t.URL != ""} {
			if ok {
				set++
			}
		}
		if set != 1 {
			return nil, fmt.Errorf("target %s needs exactly one of a gatherer, a handler and a URL", t.Job)
		}
		if t.URL == "" {
			if seen[t.Job] {
				return nil, fmt.Errorf("target %s is given twice in this process", t.Job)
			}
			seen[t.Job] = true
			h := t.Handler
			if h == nil {
				h = promhttp.HandlerFor(t.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
			}
			l.handle(t.Job, h)
		}
	}
	return l, nil
}

// handle serves a job's metrics at /<job>.
func (l *localTargets) handle(job string, h http.Handler) { l.mux.Handle("/"+job, h) }

// gather serves a registry's metrics at /<job>.
func (l *localTargets) gather(job string, g prometheus.Gatherer) {
	l.handle(job, promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
}

// address returns what a scrape configuration says for a target: scheme,
// host:port and path.
func (l *localTargets) address(t Target) (scheme, addr, path string, err error) {
	if t.URL == "" {
		return "http", "local" + localSuffix + ":80", "/" + t.Job, nil
	}
	if rest, ok := strings.CutPrefix(t.URL, "unix://"); ok {
		socket, path, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(path, "/") {
			return "", "", "", fmt.Errorf("target %s: %q is not unix:///path/to/socket:/http/path", t.Job, t.URL)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for host, s := range l.sockets {
			if s == socket {
				return "http", host + ":80", path, nil
			}
		}
		host := "socket" + strconv.Itoa(len(l.sockets)) + localSuffix
		l.sockets[host] = socket
		return "http", host + ":80", path, nil
	}
	u, err := url.Parse(t.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", "", "", fmt.Errorf("target %s: %q is not an http, https or unix address", t.Job, t.URL)
	}
	if u.Path == "" {
		u.Path = "/metrics"
	}
	return u.Scheme, u.Host, u.Path, nil
}

// dial connects made-up hosts to their sockets and everything else over TCP.
func (l *localTargets) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	host, _, err := net.SplitHostPort(addr)
	if err != nil || !strings.HasSuffix(host, localSuffix) {
		return d.DialContext(ctx, network, addr)
	}
	if host == "local"+localSuffix {
		return d.DialContext(ctx, "unix", l.socket)
	}
	l.mu.Lock()
	socket := l.sockets[host]
	l.mu.Unlock()
	return d.DialContext(ctx, "unix", socket)
}

// serve answers on the private socket until ctx ends.
func (l *localTargets) serve(ctx context.Context) error {
	return socket.Serve(ctx, l.socket, l.mux)
}
