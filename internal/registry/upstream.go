package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/distribution/v3/registry/handlers"
)

// Upstream is a public registry that the cache stands before.
type Upstream struct {
	Host     string // as in image names: docker.io
	URL      string // where it is: https://registry-1.docker.io
	Username string // with Password, what the cache signs in with; empty: anonymously
	Password string
}

// DefaultUpstreams returns the public registries that the cache knows without
// being told.
func DefaultUpstreams() []Upstream {
	list := []Upstream{{Host: "docker.io", URL: "https://registry-1.docker.io"}}
	for _, host := range []string{"ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws", "registry.gitlab.com"} {
		list = append(list, Upstream{Host: host, URL: "https://" + host})
	}
	return list
}

const (
	dialTimeout  = 3 * time.Second  // an upstream that does not answer by then is away
	recheckAway  = 30 * time.Second // how long an upstream is taken to be away
	recheckThere = 30 * time.Second // how long it is taken to be there
)

// upstream is an Upstream with its storage root and the engine on it, opened
// when they are first needed.
type upstream struct {
	Upstream
	dir    string
	secret string

	open  sync.Mutex
	root  *root
	proxy *handlers.App // fetches what is missing
	local *handlers.App // serves what is there, and takes seeded images

	state   sync.Mutex
	there   bool
	checked time.Time
}

// start opens the storage root and the engine that needs no upstream, once.
func (u *upstream) start(ctx context.Context, now func() time.Time) error {
	u.open.Lock()
	defer u.open.Unlock()
	if u.local != nil {
		return nil
	}
	rt, err := openRoot(ctx, u.dir, now)
	if err != nil {
		return err
	}
	local, err := newApp(ctx, u.dir, u.secret, Upstream{}, admitted{})
	if err != nil {
		return err
	}
	u.root, u.local = rt, local
	return nil
}

// opened reports whether the storage root is open.
func (u *upstream) opened() bool {
	u.open.Lock()
	defer u.open.Unlock()
	return u.local != nil
}

// fetcher returns the engine that fetches what is missing, or nil while the
// upstream is away. The engine asks the upstream how to sign in when it is
// made, so it is made when the upstream first answers.
func (u *upstream) fetcher(ctx, req context.Context, now func() time.Time, log *slog.Logger) *handlers.App {
	if !u.reachable(req, now) {
		return nil
	}
	u.open.Lock()
	defer u.open.Unlock()
	if u.proxy == nil {
		proxy, err := newApp(ctx, u.dir, u.secret, u.Upstream, nil)
		if err != nil {
			log.Warn("registry: an upstream answers but cannot be used", "upstream", u.Host, "err", err)
			u.state.Lock()
			u.there = false
			u.state.Unlock()
			return nil
		}
		u.proxy = proxy
	}
	return u.proxy
}

// admitted is the access controller of the cache's engine: the cache has
// checked the caller before.
type admitted struct{}

func (admitted) Authorized(*http.Request, ...auth.Access) (*auth.Grant, error) {
	return &auth.Grant{}, nil
}

// reachable reports whether the upstream answers a connection. The engine's own
// transport waits for half a minute on a network that drops packets, for each
// request; this asks once for all.
func (u *upstream) reachable(ctx context.Context, now func() time.Time) bool {
	u.state.Lock()
	defer u.state.Unlock()
	keep := recheckAway
	if u.there {
		keep = recheckThere
	}
	if !u.checked.IsZero() && now().Sub(u.checked) < keep {
		return u.there
	}
	u.there, u.checked = u.dial(ctx) == nil, now()
	return u.there
}

func (u *upstream) dial(ctx context.Context) error {
	target, err := url.Parse(u.URL)
	if err != nil {
		return fmt.Errorf("registry: upstream %s: %w", u.Host, err)
	}
	req := &http.Request{URL: target}
	if via, err := http.ProxyFromEnvironment(req); err == nil && via != nil {
		target = via
	}
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[target.Scheme]
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(target.Hostname(), port))
	if err != nil {
		return fmt.Errorf("registry: upstream %s: %w", u.Host, err)
	}
	return conn.Close()
}

// ownAddress reports whether an address is one of this host's.
func ownAddress(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false // then nothing but the loopback is trusted
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok && ip.Unmap().WithZone("") == addr {
				return true
			}
		}
	}
	return false
}

func cacheDir(dir, host string) string { return filepath.Join(dir, host) }
