package engine

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/argoproj/argo-cd/v3/applicationset/controllers"
	"github.com/argoproj/argo-cd/v3/applicationset/generators"
	appsetmetrics "github.com/argoproj/argo-cd/v3/applicationset/metrics"
	"github.com/argoproj/argo-cd/v3/applicationset/progressivesync"
	"github.com/argoproj/argo-cd/v3/applicationset/services"
	"github.com/argoproj/argo-cd/v3/applicationset/utils"
	"github.com/argoproj/argo-cd/v3/applicationset/webhook"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/db"
	"github.com/argoproj/argo-cd/v3/util/github_app"
	"github.com/argoproj/argo-cd/v3/util/metrics/kubectl"
	"github.com/argoproj/argo-cd/v3/util/settings"
)

// runApplicationSets runs the ApplicationSet controller until ctx ends.
func (e *Engine) runApplicationSets(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	namespaces := append([]string{Namespace}, e.params.namespaces...)
	watched := map[string]ctrlcache.Config{}
	for _, ns := range namespaces {
		watched[ns] = ctrlcache.Config{}
	}
	mgr, err := ctrl.NewManager(e.rest, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Cache:                  ctrlcache.Options{DefaultNamespaces: watched},
	})
	if err != nil {
		return err
	}
	e.metrics.put(ComponentApplicationSet, promhttp.HandlerFor(ctrlmetrics.Registry, promhttp.HandlerOpts{}))
	settingsMgr := settings.NewSettingsManager(ctx, e.kube, Namespace)
	argoDB := db.NewDB(Namespace, settingsMgr, e.kube)
	clusters, err := settings.NewClusterInformer(e.kube, Namespace)
	if err != nil {
		return err
	}
	informed, end := context.WithCancel(ctx)
	var informer sync.WaitGroup
	informer.Go(func() { clusters.Run(informed.Done()) })
	defer func() { end(); informer.Wait() }()
	if !cache.WaitForCacheSync(ctx.Done(), clusters.HasSynced) {
		return ctx.Err()
	}
	scm := generators.NewSCMConfig("", nil, true, false, github_app.NewAuthCredentials(argoDB.(db.RepoCredsDB)), false)
	argoService := services.NewArgoCDService(argoDB, true, e.repo, false)
	gens := generators.GetGenerators(ctx, mgr.GetClient(), e.kube, Namespace, argoService, e.dynamic, scm, clusters)
	client := utils.NewCacheSyncingClient(mgr.GetClient(), mgr.GetCache())
	hook, err := webhook.NewWebhookHandler(2, settingsMgr, mgr.GetClient(), gens)
	if err != nil {
		return err
	}
	e.hooks.put(ComponentApplicationSet, http.HandlerFunc(hook.Handler))
	metrics := appsetmetrics.NewApplicationsetMetrics(utils.NewAppsetLister(mgr.GetClient()), nil,
		func(a *v1alpha1.ApplicationSet) bool { return utils.IsNamespaceAllowed(namespaces, a.Namespace) })
	// The application controller's handler gathers this registry beside its
	// own, and each has the client metrics now: one process, one place.
	kubectl.RegisterWithPrometheus(unregisterer{ctrlmetrics.Registry})
	r := &controllers.ApplicationSetReconciler{
		Generators: gens,
		Client:     client,
		Scheme:     mgr.GetScheme(),
		// The reconciler's field still has the type that this deprecated call returns.
		Recorder:                     mgr.GetEventRecorderFor("applicationset-controller"), //nolint:staticcheck
		Renderer:                     &utils.Render{},
		Policy:                       utils.Policies[""],
		EnablePolicyOverride:         true,
		KubeClientset:                e.kube,
		ArgoDB:                       argoDB,
		ArgoCDNamespace:              Namespace,
		ApplicationSetNamespaces:     namespaces,
		Metrics:                      &metrics,
		MaxResourcesStatusCount:      5000,
		ClusterInformer:              clusters,
		ConcurrentApplicationUpdates: 1,
	}
	r.ProgressiveSyncManager = progressivesync.NewManager(client, mgr.GetAPIReader(), r)
	if err := r.SetupWithManager(mgr, false, 2); err != nil {
		return err
	}
	e.reporter.Ready(ComponentApplicationSet)
	return mgr.Start(ctx)
}

// unregisterer takes out of a registry what it is asked to put in.
type unregisterer struct{ prometheus.Registerer }

func (u unregisterer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		u.Unregister(c)
	}
}
