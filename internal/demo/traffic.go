package demo

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// answer is one answer of the sample application through the ingress.
type answer struct {
	at      time.Time
	status  int // 0 when there was no HTTP answer
	version string
}

// visitor asks the application as a user would.
type visitor struct {
	client *http.Client
	host   string
}

func (d *Demo) visitor(name string) *visitor {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &visitor{host: d.host(name), client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, d.Ingress)
		},
	}}}
}

// visit makes one request for the application's front page.
func (v *visitor) visit(ctx context.Context) answer {
	a := answer{at: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.host+"/", nil)
	if err != nil {
		return a
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return a
	}
	defer resp.Body.Close()
	a.status, a.version = resp.StatusCode, resp.Header.Get("X-App-Version")
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		a.status = 0
		return a
	}
	var page struct{ Version string }
	if a.status == http.StatusOK && (json.Unmarshal(body, &page) != nil || page.Version != a.version) {
		a.version = ""
	}
	return a
}

// serves waits until the application answers with the version, ten times in a
// row, and returns when the first of these came.
func (v *visitor) serves(ctx context.Context, version string) (time.Time, error) {
	var first time.Time
	row := 0
	err := until(ctx, 50*time.Millisecond, func() (bool, error) {
		a := v.visit(ctx)
		if a.status != http.StatusOK || a.version != version {
			row = 0
			return false, nil
		}
		if row == 0 {
			first = a.at
		}
		row++
		return row >= 10, nil
	})
	return first, err
}

// traffic asks steadily until stopped.
type traffic struct {
	mu      sync.Mutex
	answers []answer
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

const (
	trafficWorkers = 4
	trafficPause   = 100 * time.Millisecond // per worker: about 40 requests a second in all
)

func (v *visitor) start(ctx context.Context) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel}
	for range trafficWorkers {
		t.wg.Go(func() {
			tick := time.NewTicker(trafficPause)
			defer tick.Stop()
			for {
				a := v.visit(ctx)
				if ctx.Err() != nil {
					return
				}
				t.mu.Lock()
				t.answers = append(t.answers, a)
				t.mu.Unlock()
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return t
}

// stop ends the traffic and returns what came back.
func (t *traffic) stop() []answer {
	t.cancel()
	t.wg.Wait()
	return t.answers
}

// tally counts answers by version, and failures by the version that made them;
// failures without a version are the platform's own.
type tally struct {
	all      int
	versions map[string]int
	failed   map[string]int
}

func count(answers []answer) tally {
	t := tally{all: len(answers), versions: map[string]int{}, failed: map[string]int{}}
	for _, a := range answers {
		t.versions[a.version]++
		if a.status != http.StatusOK {
			t.failed[a.version]++
		}
	}
	return t
}
