//go:build e2e

package ingress_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load sends requests at a constant rate, whether they are answered or not,
// and counts the answers. It takes turns between connections that are kept, a
// new one for each request, and HTTP/2.
type load struct {
	host    string
	clients []*http.Client
	turn    atomic.Uint64
	url     string

	mu       sync.Mutex
	counts   map[string]int // by "status body"
	failures []string
	sent     int
	lasted   time.Duration // how long requests were sent; set when run has ended
}

func newLoad(url, host string, dial func(context.Context, string, string) (net.Conn, error)) *load {
	l := &load{host: host, url: url, counts: map[string]int{}}
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	for _, transport := range []*http.Transport{
		{DialContext: dial, MaxIdleConnsPerHost: 64},
		{DialContext: dial, DisableKeepAlives: true},
		{DialContext: dial, Protocols: &http2},
	} {
		l.clients = append(l.clients, &http.Client{Timeout: 15 * time.Second, Transport: transport})
	}
	return l
}

func (l *load) close() {
	for _, c := range l.clients {
		c.CloseIdleConnections()
	}
}

// run sends rate requests per second until ctx ends, then waits for the rest.
// Where the machine leaves out a tick, the next one makes up for it.
func (l *load) run(ctx context.Context, rate int) {
	var wg sync.WaitGroup
	start, begun := time.Now(), 0
	defer func() {
		l.lasted = time.Since(start)
		wg.Wait()
	}()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for due := int(time.Since(start).Seconds() * float64(rate)); begun < due; begun++ {
				wg.Go(l.one)
			}
		}
	}
}

func (l *load) one() {
	key, err := l.request()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s: %v", time.Now().Format("15:04:05.000"), err))
		return
	}
	l.counts[key]++
}

func (l *load) request() (string, error) {
	req, err := http.NewRequest(http.MethodGet, l.url, nil)
	if err != nil {
		return "", err
	}
	req.Host = l.host
	turn := l.turn.Add(1) % uint64(len(l.clients))
	resp, err := l.clients[turn].Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if turn == 2 && resp.ProtoMajor != 2 {
		return "", fmt.Errorf("%s instead of HTTP/2", resp.Proto)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body), nil
}

// snapshot returns the counts so far.
func (l *load) snapshot() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// during returns how often each answer came while f ran.
func (l *load) during(f func()) map[string]int {
	before := l.snapshot()
	f()
	after := l.snapshot()
	for k, n := range before {
		if after[k] -= n; after[k] == 0 {
			delete(after, k)
		}
	}
	return after
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
