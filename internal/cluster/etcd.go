package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/slipwayhq/slipway/internal/node"
)

func etcdDir(c node.Config) string { return filepath.Join(c.ClusterDir(), "etcd") }

// etcd is a running etcd.
type etcd struct {
	*embed.Etcd
	level zap.AtomicLevel
}

// Close stops etcd. It is quiet, because etcd reports each listener that it
// closes as an error.
func (e *etcd) Close() {
	e.level.SetLevel(zapcore.DPanicLevel)
	e.Etcd.Close()
}

func etcdLogger(level string) (*zap.Logger, zap.AtomicLevel, error) {
	config := logutil.DefaultZapLoggerConfig
	config.Level = zap.NewAtomicLevelAt(logutil.ConvertToZapLevel(level))
	logger, err := config.Build()
	if err != nil {
		return nil, config.Level, fmt.Errorf("make etcd's log: %w", err)
	}
	return logger, config.Level, nil
}

// startEtcd starts the cluster's store and waits until it serves. It listens
// only on unix sockets in a directory of mode 0700, so that reaching it takes
// the same rights as reading its files.
func startEtcd(ctx context.Context, c node.Config) (*etcd, error) {
	client := url.URL{Scheme: "unix", Path: c.EtcdSocket()}
	peer := url.URL{Scheme: "unix", Path: c.EtcdSocket() + ".peer"}
	for _, socket := range []string{client.Path, peer.Path} {
		// A killed process leaves its socket behind.
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove stale etcd socket: %w", err)
		}
	}
	if err := removeUnborn(etcdDir(c)); err != nil {
		return nil, err
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
	// A data file that is mostly free pages is rewritten at the start.
	config.BootstrapDefragThresholdMegabytes = 100
	logger, level, err := etcdLogger(c.Logging.Level)
	if err != nil {
		return nil, err
	}
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
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
		if err := os.WriteFile(bornFile(config.Dir), nil, 0o600); err != nil {
			server.Close()
			return nil, fmt.Errorf("etcd: %w", err)
		}
		return &etcd{server, level}, nil
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

// bornFile exists since etcd first served from dir.
func bornFile(dir string) string { return filepath.Join(dir, "served") }

// removeUnborn removes the store of an etcd that was killed in its first moments:
// its log exists, but the entry is not in it that makes it the member of its own
// cluster, and without that it never elects itself. Nothing is lost, because
// nothing can be stored before that entry is committed.
func removeUnborn(dir string) error {
	if _, err := os.Stat(bornFile(dir)); err == nil {
		return nil
	}
	log := filepath.Join(dir, "member", "wal")
	// A store with a later part of its log, or with a snapshot, has served.
	parts, err := filepath.Glob(filepath.Join(log, "*.wal"))
	if err != nil {
		return fmt.Errorf("etcd's log: %w", err)
	}
	snapshots, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
	if err != nil {
		return fmt.Errorf("etcd's snapshots: %w", err)
	}
	if len(parts) != 1 || len(snapshots) > 0 {
		return nil
	}
	w, err := wal.OpenForRead(zap.NewNop(), log, walpb.Snapshot{})
	if err != nil {
		return fmt.Errorf("open etcd's log %s: %w", log, err)
	}
	defer w.Close() // always an error for a log that is opened to be read
	_, state, _, err := w.ReadAll()
	if err != nil {
		return fmt.Errorf("read etcd's log %s: %w", log, err)
	}
	if state.Commit > 0 {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the store of an etcd that never served: %w", err)
	}
	return nil
}
