package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"

	"github.com/go-logr/logr"
	log "github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	appclientset "github.com/argoproj/argo-cd/v3/pkg/client/clientset/versioned"
	"github.com/argoproj/argo-cd/v3/reposerver/apiclient"
	logutils "github.com/argoproj/argo-cd/v3/util/log"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/argoproj/argo-cd/v3/util/tls"

	"github.com/slipwayhq/slipway/internal/gitops"
)

// repoServerTimeout is the limit of one call to the repo server, in seconds,
// as upstream's flags default.
const repoServerTimeout = 60

// Engine is Argo CD in this process. Make it with New, run it once with Run.
type Engine struct {
	config   *gitops.Config
	reporter Reporter
	folders  *folders

	rest    *rest.Config
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	apps    appclientset.Interface
	repo    apiclient.Clientset
	caches  *caches
	params  params

	metrics handlers
	hooks   handlers

	reconfigured  reconfigured
	notifications notifications
}

// New prepares the process environment and the clients. It opens no listener
// but the in-memory cache's, and talks to no server.
func New(c *gitops.Config, reporter Reporter) (*Engine, error) {
	f := newFolders(c)
	if err := setEnvironment(c, f); err != nil {
		return nil, fmt.Errorf("prepare the environment: %w", err)
	}
	klogger := logutils.NewLogrusLogger(log.StandardLogger())
	klog.SetLogger(klogger)
	ctrl.SetLogger(logr.New(klogger.GetSink()))
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.UserAgent = "slipway-gitops"
	if err := v1alpha1.SetK8SConfigDefaults(cfg); err != nil {
		return nil, err
	}
	e := &Engine{config: c, reporter: reporter, folders: f, rest: cfg, metrics: newHandlers(), hooks: newHandlers(),
		reconfigured:  reconfigured{wake: make(chan struct{}, 1)},
		notifications: notifications{configured: make(chan struct{})},
	}
	if e.kube, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, err
	}
	if e.dynamic, err = dynamic.NewForConfig(cfg); err != nil {
		return nil, err
	}
	if e.apps, err = appclientset.NewForConfig(cfg); err != nil {
		return nil, err
	}
	e.repo = apiclient.NewRepoServerClientset("unix:"+e.repoSocket(), repoServerTimeout, tls.Configuration{DisableTLS: true})
	if e.caches, err = newCaches(); err != nil {
		return nil, err
	}
	for _, name := range Components() {
		reporter.Waiting(name, "waiting for the Kubernetes API")
	}
	return e, nil
}

func (e *Engine) repoSocket() string {
	return filepath.Join(e.config.RunDir, "argocd-repo-server.sock")
}

// Run brings Argo CD up and returns when ctx ends (nil) or a component fails.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"cache", e.caches.run},
		{ComponentBootstrap, e.bootstrap().followSecrets},
		{ComponentBootstrap, func(ctx context.Context) error { return e.folders.follow(ctx, e) }},
		{ComponentController, e.followSettings},
		{ComponentRepoServer, e.runRepoServer},
		{ComponentController, e.runController},
		{ComponentServer, e.runServer},
		{ComponentApplicationSet, e.runApplicationSets},
		{ComponentNotifications, e.runNotifications},
	} {
		g.Go(func() error {
			err := part.run(ctx)
			if err == nil || ctx.Err() != nil {
				return nil
			}
			// Logged here too: upstream's code may end the process on the
			// cancellation that follows.
			log.WithError(err).Errorf("%s failed", part.name)
			return fmt.Errorf("%s: %w", part.name, err)
		})
	}
	return g.Wait()
}

func (e *Engine) bootstrap() *bootstrap {
	return &bootstrap{config: e.config, kube: e.kube, dynamic: e.dynamic}
}

// prepare waits for the Kubernetes API and makes the cluster ready.
func (e *Engine) prepare(ctx context.Context) error {
	if err := WaitForKubernetes(ctx, e.kube.Discovery(), func(cause string) {
		for _, name := range Components() {
			e.reporter.Waiting(name, cause)
		}
	}); err != nil {
		return err
	}
	for _, name := range Components() {
		e.reporter.Waiting(name, "starting")
	}
	if err := e.bootstrap().run(ctx); err != nil {
		return fmt.Errorf("%s: %w", ComponentBootstrap, err)
	}
	// Argo CD's server key and admin password, which every component reads.
	initCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := settings.NewSettingsManager(initCtx, e.kube, Namespace).InitializeSettings(true); err != nil {
		return fmt.Errorf("%s: %w", ComponentBootstrap, err)
	}
	var err error
	if e.params, err = readParams(ctx, e.kube); err != nil {
		return err
	}
	e.reporter.Ready(ComponentBootstrap)
	return nil
}

// WaitForKubernetes returns when the API server answers /readyz with 200; it
// tells waiting the reason for each look that failed.
func WaitForKubernetes(ctx context.Context, d discovery.DiscoveryInterface, waiting func(cause string)) error {
	for {
		err := d.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		waiting("waiting for the Kubernetes API: " + err.Error())
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// MetricsHandler serves /metrics/<component> for every component.
func (e *Engine) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := e.metrics.get(strings.TrimPrefix(r.URL.Path, "/metrics/"))
		if h == nil {
			http.NotFound(w, r)
			return
		}
		r2 := r.Clone(r.Context())
		r2.URL.Path = "/metrics"
		h.ServeHTTP(w, r2)
	})
}

// socketProxy forwards to the HTTP server behind a unix socket or a TCP address.
func socketProxy(network, address string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "localhost"
		},
		Transport: transportTo(network, address),
	}
}

// transportTo connects every request to one unix socket or TCP address.
func transportTo(network, address string) *http.Transport {
	return &http.Transport{
		MaxIdleConns: 2,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
}

var errStopped = errors.New("stopped by itself")
