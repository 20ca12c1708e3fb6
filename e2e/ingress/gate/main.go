// Command gate runs the ingress and the metrics in one process, without the
// rest of the platform, for the end-to-end tests of traffic.
//
// It owns nothing, receives a kubeconfig and two addresses, and emits what
// internal/ingress and internal/observe/metrics serve.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/slipwayhq/slipway/internal/ingress"
	"github.com/slipwayhq/slipway/internal/observe/metrics"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the cluster")
	data := flag.String("data", "", "data directory")
	httpAddr := flag.String("http", "127.0.0.1:18080", "HTTP address")
	httpsAddr := flag.String("https", "127.0.0.1:18443", "HTTPS address")
	withMetrics := flag.Bool("metrics", true, "run the metrics too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *kubeconfig, *data, *httpAddr, *httpsAddr, *withMetrics); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, data, httpAddr, httpsAddr string, withMetrics bool) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	mux := http.NewServeMux()
	in, err := ingress.New(ingress.Config{
		HTTPAddr: httpAddr, HTTPSAddr: httpsAddr, Kubeconfig: kubeconfig, DataDir: filepath.Join(data, "ingress"),
		Platform: mux, PlatformHosts: []string{"slipway.localhost", "localhost"}, Addresses: []string{"127.0.0.1"}, Log: log,
		// What a test sends from these addresses comes from a proxy in front.
		TrustedProxies: []string{"127.0.0.7/32"}, ProxyProtocol: []string{"127.0.0.8/32"}, AccessLog: filepath.Join(data, "access.log"),
	})
	if err != nil {
		return err
	}
	mux.HandleFunc("/ca.crt", in.ServeCA)
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m, err := metrics.New(metrics.Config{
		DataDir: filepath.Join(data, "metrics"), Kubeconfig: kubeconfig, Node: true, Interval: 15 * time.Second,
		ExternalURL: "http://localhost/prometheus",
		Targets: append(metrics.ClusterTargets(),
			metrics.Target{Job: "slipway-ingress", Gatherer: in.Gatherer(), Interval: 5 * time.Second},
			metrics.Target{Job: "slipway", Gatherer: own}),
		Log: log,
	})
	if err != nil {
		return err
	}
	mux.Handle("/prometheus/", m.Handler())
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		for name, ready := range map[string]func() error{"ingress": in.Ready, "metrics": m.Ready} {
			if err := ready(); err != nil && (name != "metrics" || withMetrics) {
				http.Error(w, name+": "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
	})
	mux.HandleFunc("/problems", func(w http.ResponseWriter, _ *http.Request) {
		for _, p := range m.Problems() {
			fmt.Fprintln(w, p.Object, p.Message)
		}
	})
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runPart := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	runPart(in.Run)
	if withMetrics {
		runPart(m.Run)
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
