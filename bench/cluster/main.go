// Command cluster measures the cluster on a node of its own: how soon it is
// ready, what it takes at rest, how fast pods start and what they take.
//
// It needs root and the built programs (bin/, or $SLIPWAY_BIN), and prints one
// line per measurement with its limit; with -json an array of objects. It ends
// with 1 when something could not be measured; a limit that is exceeded is
// only shown, because a loaded machine measures itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
)

// result is one measurement.
type result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Limit is the most that Value may be; 0 means none is set.
	Limit float64 `json:"limit,omitempty"`
}

func main() {
	asJSON := flag.Bool("json", false, "print JSON")
	rest := flag.Duration("rest", 2*time.Minute, "how long the cluster rests before its memory is read")
	pods := flag.Int("pods", 100, "how many pods the large deployment has")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *rest+10*time.Minute)
	defer cancel()
	results, err := measure(ctx, *rest, *pods)
	print(results, *asJSON)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func print(results []result, asJSON bool) {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(results); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		return
	}
	for _, r := range results {
		limit := ""
		if r.Limit > 0 {
			limit = fmt.Sprintf("  (at most %g)", r.Limit)
			if r.Value > r.Limit {
				limit += "  EXCEEDED"
			}
		}
		fmt.Printf("%-58s %8.2f %-3s%s\n", r.Name, r.Value, r.Unit, limit)
	}
}

func measure(ctx context.Context, rest time.Duration, pods int) (results []result, err error) {
	n, err := lab.New(ctx, "/tmp", "sw-bench")
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, n.Destroy(ctx))
	}()
	add := func(name string, value float64, unit string, limit float64) {
		results = append(results, result{name, value, unit, limit})
		fmt.Fprintf(os.Stderr, "bench: %s: %.2f %s\n", name, value, unit)
	}
	seconds, health, err := timeToReady(ctx, n)
	if err != nil {
		return results, err
	}
	add("empty data directory to ready", seconds, "s", 15)
	for _, component := range health.Components {
		add("empty data directory to ready: "+component.Name, component.Seconds, "s", 0)
	}
	if err := n.Down(ctx); err != nil {
		return results, err
	}
	if seconds, _, err = timeToReady(ctx, n); err != nil {
		return results, err
	}
	add("stopped node to ready", seconds, "s", 8)
	if err := n.Kill(lab.Cluster); err != nil {
		return results, err
	}
	if seconds, _, err = timeToReady(ctx, n); err != nil {
		return results, err
	}
	add("killed slipway-cluster to ready", seconds, "s", 8)

	select {
	case <-ctx.Done():
		return results, ctx.Err()
	case <-time.After(rest):
	}
	atRest, err := programMemory(n)
	if err != nil {
		return results, err
	}
	add("at rest: slipway-cluster", atRest[lab.Cluster], "MB", 0)
	add("at rest: containerd", atRest[lab.Containerd], "MB", 0)
	add("at rest: both", atRest[lab.Cluster]+atRest[lab.Containerd], "MB", 450)

	if err := n.ImportTestImage(ctx); err != nil {
		return results, err
	}
	if _, err := deploy(ctx, n, "warm", 1); err != nil { // the image is unpacked once
		return results, err
	}
	if seconds, err = deploy(ctx, n, "pair", 2); err != nil {
		return results, err
	}
	add("deployment of 2 pods, created to Ready", seconds, "s", 1.5)
	if seconds, err = deploy(ctx, n, "many", pods); err != nil {
		return results, err
	}
	add(fmt.Sprintf("deployment of %d pods, created to Ready", pods), seconds, "s", 60)
	loaded, err := programMemory(n)
	if err != nil {
		return results, err
	}
	inPods, count, err := podMemory(n)
	if err != nil {
		return results, err
	}
	add("memory of one pod: its processes and its shim", inPods/float64(count), "MB", 0)
	growth := loaded[lab.Cluster] + loaded[lab.Containerd] - atRest[lab.Cluster] - atRest[lab.Containerd]
	add("memory of one pod, with the growth of both programs", (inPods+growth)/float64(count), "MB", 25)
	return results, nil
}

func timeToReady(ctx context.Context, n *lab.Node) (float64, lab.Health, error) {
	begin := time.Now()
	if err := n.Start(ctx); err != nil {
		return 0, lab.Health{}, err
	}
	health, err := n.WaitReady(ctx)
	return time.Since(begin).Seconds(), health, err
}
