// Command ingress measures the ingress beside a bare Caddy reverse proxy of the
// same version, in front of the same backend, in alternating runs.
//
//	go run ./bench/ingress [-seconds 4] [-runs 5] [-connections 32] [-json]
//
// It owns a backend and the two proxies, each a process of its own on
// 127.0.0.1, and their folders. The ingress gets its route the way it gets it
// after a restart without the cluster: from the routes it saved.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

const host = "bench.localhost"

type options struct {
	seconds     int
	runs        int
	connections int
	json        bool
}

// result is what one proxy gave: medians over the runs.
type result struct {
	Name         string    `json:"name"`
	PerSecond    float64   `json:"requests_per_second"`
	P50          float64   `json:"p50_ms"`
	P99          float64   `json:"p99_ms"`
	Failed       int       `json:"failed"`
	RunPerSecond []float64 `json:"runs"`
}

func main() {
	var o options
	flag.IntVar(&o.seconds, "seconds", 4, "length of one run")
	flag.IntVar(&o.runs, "runs", 5, "runs of each proxy")
	flag.IntVar(&o.connections, "connections", 32, "connections that send without pause")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	backend := flag.String("backend", "", "used by the program itself")
	flag.Parse()
	var err error
	if *backend != "" {
		err = serveBackend(*backend)
	} else {
		err = measure(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/ingress:", err)
		os.Exit(1)
	}
}

func serveBackend(addr string) error {
	body := []byte(`{"status":"ok","version":"1"}`)
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the proxy may be gone
	}))
}

func measure(o options) error {
	dir, err := os.MkdirTemp("", "bench-ingress")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"gate": "github.com/slipwayhq/slipway/e2e/ingress/gate", "caddy": "github.com/caddyserver/caddy/v2/cmd/caddy"} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	backend, ours, bare := freeAddr(), freeAddr(), freeAddr()
	if err := saveRoute(filepath.Join(dir, "gatedata", "ingress"), backend); err != nil {
		return err
	}
	caddyfile := fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\nhttp://%s {\n\tbind 127.0.0.1\n\treverse_proxy %s\n}\n", net.JoinHostPort(host, port(bare)), backend)
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), []byte(caddyfile), 0o600); err != nil {
		return err
	}
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, c := range []*exec.Cmd{
		exec.Command(self, "-backend", backend),
		exec.Command(filepath.Join(dir, "gate"), "-data", filepath.Join(dir, "gatedata"), "-http", ours, "-https", freeAddr(), "-metrics=false"),
		exec.Command(filepath.Join(dir, "caddy"), "run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile"),
	} {
		c.Stderr = os.Stderr
		home := filepath.Join(dir, "home")
		c.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
		if err := c.Start(); err != nil {
			return err
		}
		stops = append(stops, func() {
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()
		})
	}
	proxies := []struct{ name, addr string }{{"slipway ingress", ours}, {"bare caddy reverse_proxy", bare}}
	for _, p := range proxies {
		if err := awaitAnswer(p.addr); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	results := make([]result, len(proxies))
	latencies := make([][]time.Duration, len(proxies))
	for i := range proxies { // warm up
		if _, _, err := drive(proxies[i].addr, time.Second, o.connections); err != nil {
			return err
		}
	}
	for range o.runs {
		for i, p := range proxies {
			took, failed, err := drive(p.addr, time.Duration(o.seconds)*time.Second, o.connections)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			results[i].Name, results[i].Failed = p.name, results[i].Failed+failed
			results[i].RunPerSecond = append(results[i].RunPerSecond, float64(len(took))/float64(o.seconds))
			latencies[i] = append(latencies[i], took...)
		}
	}
	for i := range results {
		r := &results[i]
		sorted := slices.Sorted(slices.Values(r.RunPerSecond))
		r.PerSecond = sorted[len(sorted)/2]
		slices.Sort(latencies[i])
		r.P50, r.P99 = quantile(latencies[i], 0.5), quantile(latencies[i], 0.99)
	}
	return report(o, results)
}

func report(o options, results []result) error {
	ratio := results[0].PerSecond / results[1].PerSecond
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"results": results, "ratio": ratio})
	}
	fmt.Printf("%d connections, %d runs of %d s each, alternating; medians\n", o.connections, o.runs, o.seconds)
	for _, r := range results {
		fmt.Printf("%-26s %8.0f requests/s   p50 %6.2f ms   p99 %6.2f ms   failed %d\n", r.Name, r.PerSecond, r.P50, r.P99, r.Failed)
	}
	fmt.Printf("ratio %.2f (target: at least 0.80)\n", ratio)
	return nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Seconds() * 1000
}

// saveRoute writes the routes that an ingress finds when it starts.
func saveRoute(dir, backend string) error {
	ip, p, err := net.SplitHostPort(backend)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return err
	}
	type o = map[string]any
	meta := func(name string, labels o) o { return o{"namespace": "bench", "name": name, "labels": labels} }
	routes := o{
		"ingresses": []o{{"metadata": meta("bench", nil), "spec": o{"ingressClassName": "slipway", "rules": []o{{
			"host": host,
			"http": o{"paths": []o{{"path": "/", "pathType": "Prefix", "backend": o{"service": o{"name": "bench", "port": o{"number": 80}}}}}},
		}}}}},
		"services": []o{{"metadata": meta("bench", nil), "spec": o{"ports": []o{{"name": "http", "port": 80}}}}},
		"slices": []o{{
			"metadata": meta("bench-1", o{"kubernetes.io/service-name": "bench"}), "addressType": "IPv4",
			"endpoints": []o{{"addresses": []string{ip}}}, "ports": []o{{"name": "http", "port": n}},
		}},
	}
	raw, err := json.Marshal(routes)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "routes.json"), raw, 0o600))
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no loopback: nothing can be measured
	}
	defer l.Close()
	return l.Addr().String()
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr) // made by freeAddr
	return p
}

func awaitAnswer(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		c, err := dialClient(addr)
		if err == nil {
			err = c.request()
			_ = c.Close()
			if err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer in 20 s: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// client speaks just enough HTTP/1.1 to cost little beside what it measures.
type client struct {
	net.Conn
	r   *bufio.Reader
	req []byte
}

func dialClient(addr string) (*client, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, r: bufio.NewReader(c), req: []byte("GET /api/status HTTP/1.1\r\nHost: " + net.JoinHostPort(host, port(addr)) + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")}, nil
}

func (c *client) request() error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(c.req); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// drive keeps all connections busy for a while and returns the latencies.
func drive(addr string, d time.Duration, connections int) ([]time.Duration, int, error) {
	var mu sync.Mutex
	var all []time.Duration
	failed := 0
	var firstErr error
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			c, err := dialClient(addr)
			var took []time.Duration
			for err == nil && time.Now().Before(end) {
				start := time.Now()
				if err = c.request(); err == nil {
					took = append(took, time.Since(start))
				}
			}
			if c != nil {
				_ = c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				failed++
				firstErr = err
			}
		})
	}
	wg.Wait()
	return all, failed, firstErr
}
