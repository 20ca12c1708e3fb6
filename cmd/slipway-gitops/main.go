// Command slipway-gitops runs Argo CD and Argo Rollouts in one process: the
// controllers, the repo server and the API server, with no pods and no Redis.
//
// The supervisor starts it as `slipway-gitops --config <file>`; the file is
// gitops.Config. It logs JSON lines to stderr and serves readiness, metrics
// and the push webhook on the unix socket named there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	log "github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/slipwayhq/slipway/internal/footprint"
	"github.com/slipwayhq/slipway/internal/gitops"
	argocd "github.com/slipwayhq/slipway/internal/gitops/engine"
	rollouts "github.com/slipwayhq/slipway/internal/rollout/engine"
	"github.com/slipwayhq/slipway/internal/socket"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-gitops:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("slipway-gitops", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Runs Argo CD and Argo Rollouts without pods.\n\nUsage: slipway-gitops --config <data>/run/slipway-gitops.json\n")
		flags.PrintDefaults()
	}
	file := flags.String("config", "", "configuration `file` (JSON), as the supervisor writes it")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *file == "" {
		return errors.New("--config is missing: give the file that `slipway up` writes")
	}
	c, err := gitops.LoadConfig(*file)
	if err != nil {
		return err
	}
	debug.SetGCPercent(c.GOGC)
	if c.MemoryLimit > 0 {
		debug.SetMemoryLimit(c.MemoryLimit)
	}
	level, err := log.ParseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	log.SetLevel(level)
	log.SetFormatter(&log.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	if c.ClusterDNS != "" {
		names := &clusterNames{server: c.ClusterDNS, domain: c.ClusterDomain, dial: (&net.Dialer{}).DialContext}
		net.DefaultResolver = names.resolver()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return serve(ctx, c)
}

// serve runs both engines until ctx ends or one of them fails.
func serve(ctx context.Context, c *gitops.Config) error {
	status := newStatus(append(argocd.Components(), rollouts.Component), time.Now())
	cd, err := argocd.New(c, status)
	if err != nil {
		return err
	}
	// Plugins of Argo Rollouts are kept in a folder relative to this one.
	if err := os.Chdir(c.DataDir); err != nil {
		return err
	}
	// Before Argo CD runs: see rollouts.New.
	ro, err := rollouts.New(rollouts.Options{
		Kubeconfig: c.Kubeconfig, PrometheusURL: c.PrometheusURL, IngressClasses: c.IngressClasses,
	}, status)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", status)
	mux.Handle("GET /metrics/", cd.MetricsHandler())
	mux.Handle("GET /metrics/"+rollouts.Component, stripTo("/metrics", ro.MetricsHandler()))
	mux.Handle("POST /api/webhook", cd.WebhookHandler())

	g, ctx := errgroup.WithContext(ctx)
	private := http.NewServeMux()
	private.Handle("/", mux)
	footprint.Profiles(private)
	g.Go(func() error { return socket.Serve(ctx, c.HealthSocket, private) })
	if c.MetricsAddress != "" {
		g.Go(func() error {
			l, err := net.Listen("tcp", c.MetricsAddress)
			if err != nil {
				return err
			}
			return socket.ServeOn(ctx, l, mux)
		})
	}
	g.Go(func() error { return stopped(ctx, "Argo CD", cd.Run(ctx)) })
	g.Go(func() error { return stopped(ctx, "Argo Rollouts", ro.Run(ctx)) })
	g.Go(func() error { trimWhenReady(ctx, status); return nil })
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// Upstream's parts end on ctx, but some only at their next turn; nothing
	// they hold needs more than a few seconds, as all state is in the cluster.
	select {
	case err := <-done:
		return err
	case <-time.After(8 * time.Second):
		log.Warn("some controllers did not stop in 8 s; leaving them")
		return nil
	}
}

// trimWhenReady gives back what only the start needed, a while after it, and
// what busy times leave.
func trimWhenReady(ctx context.Context, s *status) {
	const look, settle = time.Second, 20 * time.Second
	for !s.allReady() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(look):
		}
	}
	if err := footprint.Keep(ctx, settle); err != nil {
		log.WithError(err).Warn("memory is not given back")
	}
}

// stopped makes an engine's silent end an error, so that the supervisor
// restarts the program.
func stopped(ctx context.Context, name string, err error) error {
	if err == nil && ctx.Err() == nil {
		return fmt.Errorf("%s stopped by itself", name)
	}
	return err
}

func stripTo(path string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Clone(r.Context())
		c.URL.Path = path
		h.ServeHTTP(w, c)
	})
}
