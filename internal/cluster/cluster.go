package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"

	"github.com/slipwayhq/slipway/internal/footprint"
	"github.com/slipwayhq/slipway/internal/node"
)

// stopTimeout bounds an orderly stop; the supervisor kills after 15 s.
const stopTimeout = 10 * time.Second

// The components as they are reported.
const (
	etcdName       = "etcd"
	apiServerName  = "kube-apiserver"
	controllerName = "kube-controller-manager"
	schedulerName  = "kube-scheduler"
	containerdName = "containerd"
	kubeletName    = "kubelet"
	nodeName       = "node"
	proxyName      = "kube-proxy"
	dnsName        = "coredns"
	metricsName    = "metrics-server"
	volumesName    = "volumes"
	manifestsName  = "manifests"
)

// Run starts the cluster and keeps it running until ctx ends, or until a
// component fails: then it stops the others and returns that component's
// error, and the process has to be started anew, because Kubernetes'
// components keep global state. containerd may be absent or come and go.
// started is when the process began. The certificates are looked at twice a day
// and whenever something arrives on renew, which may be nil.
func Run(ctx context.Context, c node.Config, started time.Time, renew <-chan os.Signal) error {
	if err := applyLimits(c); err != nil {
		return err
	}
	for _, dir := range []string{c.ClusterDir(), c.KubeletDir(), c.VolumeDir(), c.PodLogDir(), filepath.Join(c.DataDir, "logs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the cluster's directories: %w", err)
		}
	}
	if err := node.CheckDisk(c.ClusterDir()); err != nil {
		return err
	}
	creds := newCredentials(c)
	if _, err := creds.ensure(); err != nil {
		return err
	}
	r := &running{config: c, creds: creds, board: newBoard(started), renewNow: renew}
	return r.run(ctx)
}

// applyLimits sets logging and the garbage collector's targets for the process.
func applyLimits(c node.Config) error {
	logs.InitLogs()
	// kube-proxy's command applies a whole logging configuration, which may be
	// done only once in a process; until then klog's own defaults are the same.
	if _, err := logs.GlogSetter(strconv.Itoa(c.Logging.Verbosity)); err != nil {
		return fmt.Errorf("configure logging: %w", err)
	}
	// The components watch deprecated kinds on purpose.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	silence()
	debug.SetGCPercent(c.Resources.GoGC)
	debug.SetMemoryLimit(c.Resources.GoMemoryLimit)
	return nil
}

// running is one run of the cluster.
type running struct {
	config   node.Config
	creds    *credentials
	board    *board
	renewNow <-chan os.Signal
	group    sync.WaitGroup
	fail     context.CancelCauseFunc
}

// component runs until its context ends.
type component func(context.Context, node.Config, *credentials) error

func (r *running) run(parent context.Context) error {
	b := r.board
	b.add(etcdName)
	b.add(apiServerName, etcdName)
	b.add(manifestsName, apiServerName)
	b.add(controllerName, apiServerName)
	b.add(schedulerName, apiServerName)
	b.add(containerdName)
	b.add(kubeletName, containerdName, controllerName, apiServerName)
	b.add(nodeName, kubeletName, containerdName, apiServerName)
	b.add(proxyName, apiServerName)
	b.add(dnsName, manifestsName, apiServerName)
	b.add(metricsName, manifestsName, apiServerName)
	b.add(volumesName, manifestsName, apiServerName)

	// Clients of the API server stop first, then it, then etcd.
	ctx, fail := context.WithCancelCause(parent)
	r.fail = fail
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(parent))
	defer stopServer()

	checks, err := newChecks(r.config, r.creds, b.started)
	if err != nil {
		return err
	}
	r.goOn(func() error { return b.serve(ctx, r.config.HealthSocket) })
	r.watch(ctx, containerdName, checks.containerd.Serves)
	r.goOn(func() error { return r.renew(ctx) })
	r.goOn(func() error { return r.returnMemory(ctx) })

	etcd, err := startEtcd(ctx, r.config)
	if err != nil {
		fail(err)
		if parent.Err() != nil {
			return nil // stopped while it started
		}
		return err
	}
	defer etcd.Close()
	b.set(etcdName, nil)
	r.goOn(func() error {
		select {
		case err := <-etcd.Err():
			return fmt.Errorf("etcd: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	server := make(chan error, 1)
	go func() { server <- runAPIServer(serverCtx, r.config, r.creds) }()
	r.watch(ctx, apiServerName, checks.apiServerReady)
	r.startClients(ctx, checks)

	select {
	case <-ctx.Done():
	case err := <-server:
		server <- nil
		fail(fmt.Errorf("%s: %w", apiServerName, err))
	}
	r.stop(stopServer, server)
	if cause := context.Cause(ctx); parent.Err() == nil {
		return cause
	}
	return nil
}

// startClients starts everything that needs the API server.
func (r *running) startClients(ctx context.Context, checks *checks) {
	ports := r.config.Ports
	r.goOn(func() error { return r.applyManifests(ctx) })
	r.start(ctx, controllerName, runControllerManager, apiServerName)
	r.watch(ctx, controllerName, checks.controllersBuilt)
	r.start(ctx, schedulerName, runScheduler, apiServerName)
	r.watch(ctx, schedulerName, checks.get("https://127.0.0.1:%d/readyz", ports.Scheduler))
	// The CSI volume plugin keeps the node's name in a global variable, which
	// the controllers empty and the kubelet sets: the kubelet must be last, or
	// the node is never ready.
	r.start(ctx, kubeletName, startKubelet, controllerName, containerdName)
	r.watch(ctx, kubeletName, checks.get("http://127.0.0.1:%d/healthz", ports.KubeletHealth))
	r.watch(ctx, nodeName, checks.nodeReady, kubeletName)
	r.start(ctx, proxyName, runProxy, apiServerName)
	r.watch(ctx, proxyName, checks.get("http://127.0.0.1:%d/healthz", ports.ProxyHealth))
	r.start(ctx, dnsName, runDNS, manifestsName)
	r.watch(ctx, dnsName, func(ctx context.Context) error { return checkDNS(ctx, r.config) }, manifestsName)
	r.start(ctx, metricsName, runMetrics, manifestsName)
	r.watch(ctx, metricsName, checks.metricsServed, manifestsName)
	r.start(ctx, volumesName, func(ctx context.Context, c node.Config, creds *credentials) error {
		r.board.set(volumesName, nil)
		return runVolumes(ctx, c, creds)
	}, manifestsName)
}

// startKubelet runs the kubelet once the pod sandbox image is there.
func startKubelet(ctx context.Context, c node.Config, creds *credentials) error {
	if err := node.ImportPause(ctx, c); err != nil {
		return err
	}
	return runKubelet(ctx, c, creds)
}

// start runs a component once the others have been ready.
func (r *running) start(ctx context.Context, name string, run component, after ...string) {
	r.goOn(func() error {
		if err := r.board.wait(ctx, after...); err != nil {
			return nil
		}
		err := run(ctx, r.config, r.creds)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("ended")
		}
		return fmt.Errorf("%s: %w", name, err)
	})
}

// watch checks a component once the others have been ready.
func (r *running) watch(ctx context.Context, name string, c check, after ...string) {
	r.goOn(func() error {
		if r.board.wait(ctx, after...) == nil {
			r.board.watch(ctx, name, c)
		}
		return nil
	})
}

// goOn runs f beside the others; its error ends the whole run.
func (r *running) goOn(f func() error) {
	r.group.Go(func() {
		if err := f(); err != nil {
			r.fail(err)
		}
	})
}

// stop waits for the components, then stops the API server, all of it within
// stopTimeout. kube-proxy cannot be stopped and is left to the process's end.
func (r *running) stop(stopServer context.CancelFunc, server <-chan error) {
	deadline := time.After(stopTimeout)
	stopServer()
	select {
	case err := <-server:
		if err != nil {
			klog.ErrorS(err, "API server ended with an error")
		}
	case <-deadline:
		klog.InfoS("API server did not stop in time", "limit", stopTimeout)
	}
}

// applyManifests retries until the objects are in, because parts of the API
// server come up one after another.
func (r *running) applyManifests(ctx context.Context) error {
	if r.board.wait(ctx, apiServerName) != nil {
		return nil
	}
	for {
		err := applyManifests(ctx, r.config, r.creds)
		if ctx.Err() != nil {
			return nil
		}
		r.board.set(manifestsName, err)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(failInterval):
		}
	}
}

// renew keeps the certificates fresh. The components read them again by
// themselves.
func (r *running) renew(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-r.renewNow:
		}
		renewed, err := r.creds.ensure()
		if err != nil {
			klog.ErrorS(err, "Certificates were not renewed; next try follows", "after", renewEvery)
		} else if len(renewed) > 0 {
			klog.InfoS("Certificates renewed", "names", renewed)
		}
	}
}

// settle is how long after the start the memory that only the start needed is
// given back: the API server builds its schemas and discovery until then.
const settle = time.Minute

// returnMemory gives what the start has taken and freed back to the host, and
// what busy times leave. The runtime would keep a good part of it.
func (r *running) returnMemory(ctx context.Context) error {
	for _, s := range r.board.states {
		if r.board.wait(ctx, s.Name) != nil {
			return nil
		}
	}
	if err := footprint.Keep(ctx, settle); err != nil {
		klog.ErrorS(err, "Memory is not given back")
	}
	return nil
}
