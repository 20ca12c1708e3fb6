// Command slipway-cluster runs Kubernetes in one process: etcd, the control
// plane, the kubelet, kube-proxy, CoreDNS, metrics-server and the provisioner
// of local volumes. The supervisor starts it beside containerd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/cluster"
	"github.com/slipwayhq/slipway/internal/node"
)

const usage = `slipway-cluster runs a Kubernetes node with its control plane.

Usage:
  slipway-cluster --config FILE

FILE is JSON as "slipway up" writes it to <data directory>/run/slipway-cluster.json.
The state of every component is served as GET /readyz on its health_socket.
SIGHUP renews certificates that are missing or near their end at once; otherwise
they are looked at twice a day.

Example:
  slipway-cluster --config /var/lib/slipway/run/slipway-cluster.json
`

func main() {
	started := time.Now()
	// Kubernetes' libraries register flags of their own with the global set.
	flags := flag.NewFlagSet("slipway-cluster", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	path := flags.String("config", "", "configuration file")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		os.Exit(2)
	}
	if *path == "" || flags.NArg() > 0 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *path, started); err != nil {
		fmt.Fprintln(os.Stderr, "slipway-cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, started time.Time) error {
	config, err := node.Load(path)
	if err != nil {
		return err
	}
	renew := make(chan os.Signal, 1)
	signal.Notify(renew, syscall.SIGHUP)
	defer signal.Stop(renew)
	return cluster.Run(ctx, config, started, renew)
}
