package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/argoproj/argo-cd/v3/pkg/apiclient"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/server"
	"github.com/argoproj/argo-cd/v3/util/argo"
	"github.com/argoproj/argo-cd/v3/util/dex"
	"github.com/argoproj/argo-cd/v3/util/session"
	"github.com/argoproj/argo-cd/v3/util/settings"

	"github.com/slipwayhq/slipway/internal/grpccalls"
	"github.com/slipwayhq/slipway/internal/socket"
)

// runServer serves the Argo CD API until ctx ends. Upstream's server returns
// when its settings changed, and is then started again with them.
func (e *Engine) runServer(ctx context.Context) error {
	opts, err := e.serverOptions()
	if err != nil {
		return err
	}
	s := server.NewServer(ctx, opts, server.ApplicationSetOpts{GitSubmoduleEnabled: true, EnableScmProviders: true})
	s.Init(ctx)
	mgr := settings.NewSettingsManager(ctx, e.kube, Namespace)
	if err := writeToken(mgr, session.NewUserStateStorage(e.caches.client), e.config.API.TokenFile); err != nil {
		return err
	}
	for {
		listeners, err := e.serverListeners()
		if err != nil {
			return err
		}
		runCtx, cancel := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { e.watchServer(runCtx) })
		s.Run(runCtx, listeners)
		cancel()
		watch.Wait()
		if ctx.Err() != nil {
			return nil
		}
		if s.TerminateRequested() {
			return errStopped
		}
		e.reporter.Waiting(ComponentServer, "restarting with changed settings")
	}
}

func (e *Engine) serverOptions() (server.ArgoCDServerOpts, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return server.ArgoCDServerOpts{}, err
	}
	ctrlClient, err := client.New(e.rest, client.Options{Scheme: scheme})
	if err != nil {
		return server.ArgoCDServerOpts{}, err
	}
	host, port, err := splitAddress(e.config.API.Address)
	if err != nil {
		return server.ArgoCDServerOpts{}, err
	}
	base := "/"
	if e.config.API.RootPath != "" {
		base = e.config.API.RootPath
	}
	return server.ArgoCDServerOpts{
		Insecure:                true, // plain HTTP on loopback, behind the platform's listener
		ListenHost:              host,
		ListenPort:              port,
		Namespace:               Namespace,
		BaseHRef:                base,
		RootPath:                e.config.API.RootPath,
		DynamicClientset:        e.dynamic,
		KubeControllerClientset: client.NewNamespacedClient(client.NewDryRunClient(ctrlClient), Namespace),
		KubeClientset:           e.kube,
		AppClientset:            e.apps,
		RepoClientset:           e.repo,
		DexTLSConfig:            &dex.DexTLSConfig{DisableTLS: true},
		ContentTypes:            []string{"application/json"},
		EnableGZip:              true,
		Cache:                   e.caches.apiServer(),
		RepoServerCache:         e.caches.repoServer(),
		RedisClient:             e.caches.client,
		StaticAssetsDir:         filepath.Join(e.config.DataDir, "empty"),
		XFrameOptions:           "sameorigin",
		ContentSecurityPolicy:   "frame-ancestors 'self';",
		ApplicationNamespaces:   e.params.namespaces,
		WebhookParallelism:      4,
		WebhookRefreshWorkers:   4,
		EnableK8sEvent:          argo.DefaultEnableEventList(),
		SyncWithReplaceAllowed:  true,
	}, nil
}

func splitAddress(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(p); err != nil {
		return "", 0, fmt.Errorf("address %s: %w", address, err)
	}
	return host, port, nil
}

// serverListeners opens the API's address and keeps its metrics on a socket.
func (e *Engine) serverListeners() (*server.Listeners, error) {
	path := filepath.Join(e.config.RunDir, "argocd-server-metrics.sock")
	metrics, err := socket.Listen(path)
	if err != nil {
		return nil, err
	}
	main, err := net.Listen("tcp", e.config.API.Address)
	if err != nil {
		return nil, errors.Join(err, metrics.Close())
	}
	conn, err := grpc.NewClient(e.config.API.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(apiclient.MaxGRPCMessageSize)))
	if err != nil {
		return nil, errors.Join(err, main.Close(), metrics.Close())
	}
	client := &http.Client{Transport: transportTo("unix", path), Timeout: 10 * time.Second}
	served := grpccalls.Served(client, "http://localhost/metrics")
	e.metrics.put(ComponentServer, promhttp.HandlerFor(grpccalls.Gatherer(served), promhttp.HandlerOpts{}))
	return &server.Listeners{Main: main, Metrics: metrics, GatewayConn: conn}, nil
}

// watchServer reports the API ready once it answers.
func (e *Engine) watchServer(ctx context.Context) {
	url := "http://" + e.config.API.Address + e.config.API.RootPath + "/healthz"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				e.hooks.put(ComponentServer, socketProxy("tcp", e.config.API.Address))
				e.reporter.Ready(ComponentServer)
				return
			}
		}
		if pause(ctx) != nil {
			return
		}
	}
}
