package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// accessLog writes one JSON object per request and line. Lines are buffered
// for up to a second; the file is opened for appending, so that it may be
// truncated by whoever rotates it.
type accessLog struct {
	mu  sync.Mutex
	f   *os.File
	buf *bufio.Writer
	bad bool // the last write failed; told once
	i   *Ingress
}

// accessEntry is one line. Queries, cookies and credentials are left out: they
// may hold what a client keeps secret.
type accessEntry struct {
	Time      string  `json:"time"`
	Client    string  `json:"client"`
	User      string  `json:"user,omitempty"`
	Method    string  `json:"method"`
	Scheme    string  `json:"scheme"`
	Host      string  `json:"host"`
	Path      string  `json:"path"`
	Protocol  string  `json:"protocol"`
	Status    int     `json:"status"`
	Bytes     int64   `json:"bytes"` // of the response's body
	Seconds   float64 `json:"seconds"`
	Namespace string  `json:"namespace,omitempty"`
	Ingress   string  `json:"ingress,omitempty"`
	Service   string  `json:"service,omitempty"`
	Revision  string  `json:"revision,omitempty"`
	Endpoint  string  `json:"endpoint,omitempty"`
	Canary    bool    `json:"canary,omitempty"`
	RequestID string  `json:"request_id,omitempty"`
	Agent     string  `json:"user_agent,omitempty"`
}

func newAccessLog(i *Ingress) (*accessLog, error) {
	f, err := os.OpenFile(i.cfg.AccessLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return &accessLog{f: f, buf: bufio.NewWriterSize(f, 64<<10), i: i}, nil
}

// run flushes every second until ctx ends, and closes the file.
func (l *accessLog) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			l.mu.Lock()
			defer l.mu.Unlock()
			if err := l.f.Close(); err != nil {
				l.i.log.Warn("the access log was not closed", "err", err)
			}
			l.f = nil
			return
		case <-tick.C:
			l.flush()
		}
	}
}

func (l *accessLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told(l.buf.Flush())
	if l.bad {
		l.buf.Reset(l.f) // a buffer keeps its error; the disk may have room again
	}
}

// told warns when writing begins to fail. The caller holds the lock.
func (l *accessLog) told(err error) {
	if err != nil && !l.bad {
		l.i.log.Warn("the access log cannot be written; requests are served without it", "err", err)
	}
	l.bad = err != nil
}

// request writes the line of a request.
func (l *accessLog) request(r *http.Request, seen *asked, o *outcome, rec *recorder, began time.Time) {
	e := accessEntry{
		Time: began.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Client: seen.client, User: clipped(seen.user, 256), Method: clipped(r.Method, 32), Scheme: schemeOf(r), Host: seen.host, Path: seen.path,
		Protocol: r.Proto, Status: rec.status, Bytes: rec.bytes, Seconds: time.Since(began).Seconds(),
		RequestID: clipped(r.Header.Get("X-Request-Id"), 128), Agent: clipped(r.UserAgent(), 256),
	}
	if e.Status == 0 {
		e.Status = 499 // the client went away before an answer
	}
	if o != nil {
		e.Namespace, e.Ingress, e.Service, e.Canary = o.route.namespace, o.route.name, o.backend.service, o.canary
		if o.endpoint != nil {
			e.Endpoint, e.Revision = o.endpoint.addr, o.endpoint.revision
		}
	}
	line, err := json.Marshal(e)
	if err != nil {
		return // cannot be: strings and numbers only
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil || l.bad {
		return
	}
	_, err = l.buf.Write(append(line, '\n'))
	l.told(err)
}

// asked is what the client asked for, before rewriting.
type asked struct{ client, user, host, path string }

func askedOf(r *http.Request) *asked {
	return &asked{client: clientAddr(r).String(), host: clipped(hostname(r.Host), 256), path: clipped(r.URL.Path, 2048)}
}

func clipped(s string, n int) string { return s[:min(len(s), n)] }
