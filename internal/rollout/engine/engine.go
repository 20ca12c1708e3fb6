package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	smiclientset "github.com/servicemeshinterface/smi-sdk-go/pkg/gen/client/split/clientset/versioned"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	kubectlscheme "k8s.io/kubectl/pkg/scheme"

	"github.com/argoproj/argo-rollouts/controller/metrics"
	"github.com/argoproj/argo-rollouts/metricproviders/prometheus"
	clientset "github.com/argoproj/argo-rollouts/pkg/client/clientset/versioned"
	"github.com/argoproj/argo-rollouts/utils/config"
	"github.com/argoproj/argo-rollouts/utils/defaults"
	istioutil "github.com/argoproj/argo-rollouts/utils/istio"
	"github.com/argoproj/argo-rollouts/utils/plugin"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Options say where the engine works.
type Options struct {
	// Kubeconfig names an administrator's kubeconfig.
	Kubeconfig string
	// PrometheusURL answers analysis queries that name no address.
	PrometheusURL string
	// IngressClasses are the classes of the Ingresses whose canary weights the
	// controller sets by NGINX annotations.
	IngressClasses []string
}

// Resync and worker numbers. Upstream's defaults are 15 minutes and 10 to 30
// workers; on one node fewer suffice, and each holds memory.
const (
	resync  = 15 * time.Minute
	workers = 4
)

// Engine is Argo Rollouts in this process. Make it with New, run it once.
type Engine struct {
	options  Options
	reporter Reporter

	kube      kubernetes.Interface
	argo      clientset.Interface
	dynamic   dynamic.Interface
	smi       smiclientset.Interface
	discovery discovery.DiscoveryInterface
	requests  *metrics.K8sRequestsCountProvider
	set       *controllerSet
	handler   http.Handler
}

// New makes the clients and the controllers; it talks to no server. It must
// return before anything in the process applies an object with kubectl's code;
// see cleanKubectlScheme.
func New(o Options, reporter Reporter) (*Engine, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.UserAgent = "slipway-rollouts"
	cfg.QPS, cfg.Burst = defaults.DefaultQPS, defaults.DefaultBurst
	e := &Engine{options: o, reporter: reporter, requests: &metrics.K8sRequestsCountProvider{}}
	if err := e.clients(cfg); err != nil {
		return nil, err
	}
	if e.set, err = e.controllers(); err != nil {
		return nil, err
	}
	if err := cleanKubectlScheme(); err != nil {
		return nil, err
	}
	reporter.Waiting(Component, "waiting for the Kubernetes API")
	return e, nil
}

// cleanKubectlScheme takes the types of Rollouts out of kubectl's scheme, into
// which upstream's event recorder puts them when it is linked. Argo CD applies
// with kubectl's code, which would take them for built-in types and send
// strategic merge patches, which the API server refuses for custom resources.
// The recorder has its scheme by then: it is made with the controllers.
func cleanKubectlScheme() error {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	if err := errors.Join(metav1.AddMetaToScheme(s), scheme.AddToScheme(s)); err != nil {
		return err
	}
	kubectlscheme.Scheme = s
	return nil
}

func (e *Engine) clients(cfg *rest.Config) (err error) {
	if e.kube, err = kubernetes.NewForConfig(cfg); err != nil {
		return err
	}
	if e.argo, err = clientset.NewForConfig(cfg); err != nil {
		return err
	}
	if e.dynamic, err = dynamic.NewForConfig(cfg); err != nil {
		return err
	}
	if e.smi, err = smiclientset.NewForConfig(cfg); err != nil {
		return err
	}
	e.discovery, err = discovery.NewDiscoveryClientForConfig(cfg)
	return err
}

// Run makes the cluster ready, runs the controllers and returns when ctx ends
// (nil) or a controller fails.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", Component, err)
	}
	return nil
}

func (e *Engine) run(ctx context.Context) error {
	if err := e.waitForKubernetes(ctx); err != nil {
		return err
	}
	e.reporter.Waiting(Component, "starting")
	if err := e.bootstrap(ctx); err != nil {
		return err
	}
	if e.options.PrometheusURL != "" {
		// The provider takes its default address from the environment only.
		if err := os.Setenv(prometheus.EnvVarArgoRolloutsPrometheusAddress, e.options.PrometheusURL); err != nil {
			return err
		}
	}
	if _, err := config.InitializeConfig(e.kube, defaults.DefaultRolloutsConfigMapName); err != nil {
		return err
	}
	if err := plugin.DownloadPlugins(plugin.FileDownloaderImpl{}, e.kube); err != nil {
		return fmt.Errorf("plugins of ConfigMap %s: %w", defaults.DefaultRolloutsConfigMapName, err)
	}
	defer goplugin.CleanupClients()
	set := e.set
	for _, f := range set.factories {
		f.Start(ctx.Done())
	}
	if istioutil.DoesIstioExist(e.dynamic, metav1.NamespaceAll) {
		set.istio.Start(ctx.Done())
	}
	if !cache.WaitForCacheSync(ctx.Done(), set.synced...) {
		return errors.New("the caches of its resources did not fill")
	}
	e.reporter.Ready(Component)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, set.stop)()
	for _, run := range set.runs {
		g.Go(func() error {
			if err := run(ctx); err != nil {
				return err
			}
			if ctx.Err() == nil {
				return errors.New("a controller stopped by itself")
			}
			return nil
		})
	}
	return g.Wait()
}

func (e *Engine) waitForKubernetes(ctx context.Context) error {
	for {
		err := e.discovery.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		e.reporter.Waiting(Component, "waiting for the Kubernetes API: "+err.Error())
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause is the time between two looks at something that should happen soon.
func pause(ctx context.Context) error {
	return kubewatch.Pause(ctx, 100*time.Millisecond)
}

// MetricsHandler serves the controllers' metrics; 503 until they run.
func (e *Engine) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.handler == nil {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		e.handler.ServeHTTP(w, r)
	})
}
