package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// mirrorBody is the largest body that is mirrored, in bytes. A request
	// with a larger one is not mirrored at all: half of it would be another
	// request.
	mirrorBody = 1 << 20
	// mirrorMost is how many copies there are at a time, and mirrorMemory how
	// many bytes of their bodies. Beyond that requests are not mirrored.
	mirrorMost   = 128
	mirrorMemory = 16 << 20
	// mirrorWait is how long the target may take, in place of a longer
	// proxy-read-timeout.
	mirrorWait = 30 * time.Second
	// mirrorTold is how often a target that fails is told in the log.
	mirrorTold = 10 * time.Second
)

// mirror is what mirror-target asks for: a copy of every request, whose answer
// nobody sees. Unlike nginx's it waits for nothing: the original goes on as it
// would without.
type mirror struct {
	destination
	hostHeader string // mirror-host
	noBody     bool
}

func (s *settings) withMirror() *mirror {
	if s.mirror == nil {
		s.mirror = &mirror{}
	}
	return s.mirror
}

func parseMirrorTarget(s *settings, v string) (err error) {
	m := s.withMirror()
	m.destination, err = parseDestination(v)
	return err
}

func parseMirrorBody(s *settings, v string) error {
	switch v {
	case "on", "off":
		s.withMirror().noBody = v == "off"
		return nil
	}
	return fmt.Errorf("%q is neither on nor off", v)
}

// addMirror finds the Service that mirror-target names.
func (b *builder) addMirror(p parsedIngress) {
	m := p.set.mirror
	if m == nil {
		return
	}
	if b.platform[m.host] {
		b.problem(p.key, annotationPrefix+"mirror-target: the platform itself takes no copies")
		p.set.mirror = nil
		return
	}
	if problem := b.find(&m.destination); problem != "" {
		b.problem(p.key, annotationPrefix+"mirror-target: "+problem)
	}
}

// mirrors bounds the copies on their way, and waits for them at the end.
type mirrors struct {
	ctx context.Context // of the Run: ends them
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	count  int
	memory int64 // bytes
	told   time.Time
	wait   sync.WaitGroup
}

func newMirrors(ctx context.Context, log *slog.Logger) *mirrors { return &mirrors{ctx: ctx, log: log} }

// reserve takes room for a copy; release gives it back.
func (m *mirrors) reserve(size int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.count >= mirrorMost || m.memory+size > mirrorMemory {
		return false
	}
	m.count++
	m.memory += size
	m.wait.Add(1)
	return true
}

func (m *mirrors) release(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count--
	m.memory -= size
	m.wait.Done()
}

// close waits for what is on its way; nothing more is taken. The context of
// the mirrors must have ended.
func (m *mirrors) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wait.Wait()
}

func (m *mirrors) failed(ingress string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.told) >= mirrorTold && m.ctx.Err() == nil {
		m.told = time.Now()
		m.log.Warn("a request was not mirrored", "ingress", ingress, "err", err)
	}
}

// mirroring is one copy. Its state decides who gives back its room: whoever
// sends it, or the original's end when its body was not read to its end.
type mirroring struct {
	h        *handler
	route    *route
	q        *http.Request
	u        *url.URL
	reserved int64
	body     bytes.Buffer
	state    atomic.Int32
}

const (
	mirrorCollecting = iota
	mirrorSent
	mirrorGivenUp
)

type mirroredKey struct{}

// mirror sends a copy of the request to where mirror-target says: at once
// where there is no body, and otherwise when the original's has passed. The
// function returned must be called at the original's end.
func (h *handler) mirror(route *route, r *http.Request) (end func()) {
	m, all := route.set.mirror, h.mirrors.Load()
	nothing := func() {}
	if m == nil || r.Context().Value(mirroredKey{}) != nil || r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect {
		return nothing
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	u, err := url.Parse(m.url.of(r))
	if err != nil || server == nil {
		h.metrics.mirror(route, "failed")
		all.failed(route.ingress, errors.New("the address is none for this request"))
		return nothing
	}
	withBody := !m.noBody && r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	var size int64
	if withBody {
		if size = r.ContentLength; size < 0 {
			size = mirrorBody
		}
	}
	if size > mirrorBody || !all.reserve(size) {
		h.metrics.mirror(route, "dropped")
		return nothing
	}
	setClient(r) // both have the same X-Request-ID
	c := &mirroring{h: h, route: route, u: u, reserved: size, q: m.copy(r, u, server, withBody)}
	if !withBody {
		c.send(all)
		return nothing
	}
	r.Body = &mirroredBody{ReadCloser: r.Body, c: c, all: all}
	return func() {
		if c.state.CompareAndSwap(mirrorCollecting, mirrorGivenUp) {
			all.release(c.reserved)
			h.metrics.mirror(route, "dropped")
		}
	}
}

// copy makes the request that the target gets, with a context of its own: the
// original may end, and Caddy's variables are for one request at a time.
func (m *mirror) copy(r *http.Request, u *url.URL, server *caddyhttp.Server, withBody bool) *http.Request {
	q := r.Clone(context.WithValue(context.WithoutCancel(r.Context()), mirroredKey{}, true))
	address(q, u)
	for _, name := range connectionHeaders {
		q.Header.Del(name)
	}
	q.Header.Del("Expect")
	q.Body, q.TransferEncoding, q.Trailer = http.NoBody, nil, nil
	if !withBody {
		q.ContentLength = 0
		q.Header.Del("Content-Encoding")
	}
	return caddyhttp.PrepareRequest(q, caddy.NewReplacer(), &answerWriter{header: http.Header{}}, server)
}

// send starts the copy on its way. The room it has was reserved.
func (c *mirroring) send(all *mirrors) {
	if !c.state.CompareAndSwap(mirrorCollecting, mirrorSent) {
		return
	}
	limit := mirrorWait
	if read := c.route.set.readTimeout; read > 0 {
		limit = min(limit, read)
	}
	go func() {
		defer all.release(c.reserved) // which also says that it has ended
		ctx, cancel := context.WithTimeout(c.q.Context(), limit)
		defer cancel()
		defer context.AfterFunc(all.ctx, cancel)()
		q := c.q.WithContext(ctx)
		if q.ContentLength = int64(c.body.Len()); q.ContentLength > 0 {
			q.Body = io.NopCloser(&c.body)
		}
		m := c.route.set.mirror
		w := &answerWriter{header: http.Header{}}
		err := c.h.put(&m.destination, c.route.set, w, q, c.u, m.hostHeader)
		if err != nil {
			c.h.metrics.mirror(c.route, "failed")
			all.failed(c.route.ingress, err)
			return
		}
		c.h.metrics.mirror(c.route, "sent")
	}()
}

// mirroredBody passes the original's body on, and keeps a copy.
type mirroredBody struct {
	io.ReadCloser
	c   *mirroring
	all *mirrors
}

// Read implements io.Reader.
func (b *mirroredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	c := b.c
	if c.state.Load() != mirrorCollecting {
		return n, err
	}
	if int64(c.body.Len()+n) > c.reserved {
		if c.state.CompareAndSwap(mirrorCollecting, mirrorGivenUp) {
			b.all.release(c.reserved)
			c.h.metrics.mirror(c.route, "dropped")
		}
		return n, err
	}
	c.body.Write(p[:n])
	if err == io.EOF || c.q.ContentLength > 0 && int64(c.body.Len()) == c.q.ContentLength {
		c.send(b.all)
	}
	return n, err
}
