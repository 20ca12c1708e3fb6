package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what an Ingress needs to run. Zero values take the defaults named
// at each field.
type Config struct {
	// HTTPAddr and HTTPSAddr are the listen addresses, such as ":80" and
	// ":443". HTTPSAddr is used for TCP and, for HTTP/3, for UDP.
	HTTPAddr, HTTPSAddr string
	// Kubeconfig is the path of the cluster's administrator kubeconfig. The
	// file may appear after start and may be replaced at any time. Empty
	// means that there is no cluster: only the platform is served.
	Kubeconfig string
	// DataDir holds the certificate authority, certificates and the last
	// known routes. It is created with mode 0700.
	DataDir string
	// Class is the IngressClass that is served; default "slipway".
	Class string
	// Platform answers requests for PlatformHosts. It may be nil.
	Platform http.Handler
	// PlatformHosts are the host names and addresses of the platform itself,
	// without ports. The first one also names the certificate that clients
	// get which send no server name.
	PlatformHosts []string
	// TrustedProxies are the CIDR ranges of proxies in front of this one,
	// whose X-Forwarded-For is believed.
	TrustedProxies []string
	// Addresses are published in the status of every Ingress.
	Addresses []string
	// MaxBody is the default limit of request bodies in bytes for routes
	// without the proxy-body-size annotation; 0 means no limit. The platform
	// has its own limits.
	MaxBody int64
	// ProxyProtocol are the CIDR ranges of load balancers in front, which tell
	// the client's address by the PROXY protocol (version 1 or 2). Their
	// connections may begin with it; others may not.
	ProxyProtocol []string
	// AccessLog is the path of a file for one JSON line per request; empty for
	// none.
	AccessLog string
	// ACME configures public certificates for Ingresses that ask for them.
	ACME ACME
	// Log receives warnings and errors; default slog.Default().
	Log *slog.Logger
}

// ACME says where public certificates come from. They are used for Ingresses
// with the annotation kubernetes.io/tls-acme: "true".
type ACME struct {
	// Directory is the directory URL; default is Let's Encrypt.
	Directory string
	// Email is the account's contact; may be empty.
	Email string
	// TrustedRoots is a PEM file with roots to trust when talking to
	// Directory; empty for the system's.
	TrustedRoots string
}

// Ingress is the running traffic plane. Because Caddy keeps one running
// configuration per process, only one Ingress may run in a process at a time.
type Ingress struct {
	cfg   Config
	id    string // distinguishes this instance's Caddy modules
	log   *slog.Logger
	table atomic.Pointer[table]
	// changed is closed and replaced whenever the table changes.
	changedMu sync.Mutex
	changed   chan struct{}

	counters *counters
	usage    *usage
	access   *accessLog // nil without one; of the current Run
	registry *prometheus.Registry
	metrics  *requestMetrics
	certs    atomic.Pointer[certificates] // of the current Run, as proxies
	proxies  atomic.Pointer[proxies]
	mirrors  atomic.Pointer[mirrors]
	watch    *watcher
	serving  chan struct{} // closed when Caddy serves for the first time
	once     sync.Once
	serveErr atomic.Pointer[error]
}

// instances numbers the Ingresses of this process: Caddy's module registry is
// global and refuses a name twice.
var instances atomic.Int64

// New returns an Ingress that is ready to Run. It fails when the configuration
// is wrong or the data directory cannot be made.
func New(cfg Config) (*Ingress, error) {
	if cfg.HTTPAddr == "" && cfg.HTTPSAddr == "" {
		return nil, errors.New("ingress: neither an HTTP nor an HTTPS address is configured")
	}
	if cfg.DataDir == "" {
		return nil, errors.New("ingress: no data directory is configured")
	}
	if cfg.Class == "" {
		cfg.Class = "slipway"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("ingress: data directory: %w", err)
	}
	for i, h := range cfg.PlatformHosts {
		cfg.PlatformHosts[i] = strings.ToLower(strings.TrimSuffix(h, "."))
	}
	i := &Ingress{
		cfg:      cfg,
		id:       fmt.Sprintf("slipway_%d", instances.Add(1)),
		log:      cfg.Log,
		changed:  make(chan struct{}),
		counters: newCounters(),
		usage:    newUsage(),
		registry: prometheus.NewRegistry(),
		serving:  make(chan struct{}),
	}
	i.metrics = newRequestMetrics(i.registry)
	i.certs.Store(newCertificates(i))
	i.proxies.Store(newProxies(i))
	i.watch = newWatcher(i)
	i.table.Store(emptyTable())
	i.registerModules()
	return i, nil
}

// Run serves until ctx ends, then closes the listeners, lets running requests
// end for a few seconds, and returns. The routes known at the last stop are
// served at once, before the cluster has been reached. It returns an error
// when the listeners cannot be opened. It may be called again after it
// returned.
func (i *Ingress) Run(ctx context.Context) error {
	i.certs.Store(newCertificates(i))
	i.proxies.Store(newProxies(i))
	mirrors := newMirrors(ctx, i.log)
	i.mirrors.Store(mirrors)
	if inputs, err := readSnapshot(i.snapshotPath()); err != nil {
		i.log.Warn("the routes of the last run cannot be read; waiting for the cluster", "err", err)
	} else if inputs != nil {
		i.apply(inputs)
	}
	loops := []func(context.Context){i.watch.run, i.metrics.run}
	if i.cfg.AccessLog != "" {
		l, err := newAccessLog(i)
		if err != nil {
			err = fmt.Errorf("ingress: %w", err)
			i.serveErr.Store(&err)
			return err
		}
		i.access = l
		loops = append(loops, l.run)
	}
	if err := i.start(); err != nil {
		err = fmt.Errorf("ingress: %w", err)
		i.serveErr.Store(&err)
		return err
	}
	i.serveErr.Store(nil)
	i.once.Do(func() { close(i.serving) })
	var wg sync.WaitGroup
	for _, f := range loops {
		wg.Go(func() { f(ctx) })
	}
	<-ctx.Done()
	err := i.stop()
	mirrors.close()
	wg.Wait()
	return err
}

// Ready returns nil when the listeners are open and the routes follow the
// cluster, and otherwise an error that names the root cause. Without a
// cluster the platform and the last known routes are still served.
func (i *Ingress) Ready() error {
	if err := i.serveErr.Load(); err != nil {
		return *err
	}
	select {
	case <-i.serving:
	default:
		return errors.New("the listeners are not open yet")
	}
	return i.watch.ready()
}

// Serving is closed when the listeners are open.
func (i *Ingress) Serving() <-chan struct{} { return i.serving }

// Gatherer returns the request metrics: slipway_ingress_requests_total,
// slipway_ingress_request_duration_seconds and slipway_ingress_canary_weight.
func (i *Ingress) Gatherer() prometheus.Gatherer { return i.registry }

func (i *Ingress) snapshotPath() string { return filepath.Join(i.cfg.DataDir, "routes.json") }

// apply makes a table of the inputs and serves it from now on.
func (i *Ingress) apply(in *inputs) {
	t := buildTable(in, tableOptions{
		class:         i.cfg.Class,
		platformHosts: i.cfg.PlatformHosts,
		maxBody:       i.cfg.MaxBody,
		counters:      i.counters,
		previous:      i.table.Load(),
		now:           time.Now(),
	})
	i.table.Store(t)
	i.metrics.observe(t)
	i.certs.Load().sync(t)
	i.changedMu.Lock()
	close(i.changed)
	i.changed = make(chan struct{})
	i.changedMu.Unlock()
}

// tableChanged returns a channel that is closed at the next table change. Take
// it before reading the table, or a change in between is missed.
func (i *Ingress) tableChanged() <-chan struct{} {
	i.changedMu.Lock()
	defer i.changedMu.Unlock()
	return i.changed
}
