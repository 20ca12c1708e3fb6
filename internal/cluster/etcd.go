package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/slipwayhq/slipway/internal/node"
)

func etcdDir(c node.Config) string { return filepath.Join(c.ClusterDir(), "etcd") }

// startEtcd starts the cluster's store and waits until it serves. It listens
// only on unix sockets in a directory of mode 0700, so that reaching it takes
// the same rights as reading its files.
func startEtcd(ctx context.Context, c node.Config) (*embed.Etcd, error) {
	client := url.URL{Scheme: "unix", Path: c.EtcdSocket()}
	peer := url.URL{Scheme: "unix", Path: c.EtcdSocket() + ".peer"}
	for _, socket := range []string{client.Path, peer.Path} {
		// A killed process leaves its socket behind.
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove stale etcd socket: %w", err)
		}
	}
	config := embed.NewConfig()
	config.Name = "slipway"
	config.Dir = etcdDir(c)
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{client}, []url.URL{peer}
	// Advertised addresses must have a port; nobody dials those of a single
	// member, and nothing listens there.
	advertised := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	config.AdvertiseClientUrls, config.AdvertisePeerUrls = []url.URL{advertised}, []url.URL{advertised}
	config.InitialCluster = config.Name + "=" + advertised.String()
	config.ListenMetricsUrls = []url.URL{{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", c.Ports.Etcd)}}
	config.LogLevel = c.Logging.Level
	config.LogOutputs = []string{"stderr"}
	config.WarningUnaryRequestDuration = time.Second
	// The entries that are kept for a lagging member are held in memory, and a
	// single member never lags.
	config.SnapshotCount = 5000
	config.SnapshotCatchUpEntries = 500
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case err := <-server.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		server.Close()
		return nil, ctx.Err()
	case <-time.After(time.Minute):
		server.Close()
		return nil, errors.New("etcd was not ready within a minute")
	}
}
