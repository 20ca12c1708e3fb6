package engine

import (
	"context"

	"k8s.io/apimachinery/pkg/util/wait"

	commitclient "github.com/argoproj/argo-cd/v3/commitserver/apiclient"
	"github.com/argoproj/argo-cd/v3/controller"
	"github.com/argoproj/argo-cd/v3/controller/sharding"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/pkg/ratelimiter"
	"github.com/argoproj/argo-cd/v3/util/argo"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	cacheutil "github.com/argoproj/argo-cd/v3/util/cache"
	kubeutil "github.com/argoproj/argo-cd/v3/util/kube"
	"github.com/argoproj/argo-cd/v3/util/settings"
)

// compareUnfinished asks for a comparison of the Applications that are not
// Synced. The controller keeps in memory only that it wants to compare after a
// sync: a process that ends in between would leave the Application as it was
// before the sync until the next regular comparison, minutes later.
func (e *Engine) compareUnfinished(ctx context.Context) {
	e.refresh(ctx, v1alpha1.RefreshTypeNormal, func(a *v1alpha1.Application) bool {
		return a.Status.Sync.Status != v1alpha1.SyncStatusCodeSynced || finishedSince(a)
	})
}

// finishedSince reports whether a sync ended after the last comparison.
func finishedSince(a *v1alpha1.Application) bool {
	op, compared := a.Status.OperationState, a.Status.ReconciledAt
	return op != nil && op.FinishedAt != nil && (compared == nil || op.FinishedAt.After(compared.Time))
}

// runController runs the application controller until ctx ends.
func (e *Engine) runController(ctx context.Context) error {
	p := e.params
	var c *controller.ApplicationController
	mgr := settings.NewSettingsManager(ctx, e.kube, Namespace, settings.WithRepoOrClusterChangedHandler(func() {
		c.InvalidateProjectsCache()
	}))
	shards, err := sharding.GetClusterSharding(e.kube, mgr, "legacy", false)
	if err != nil {
		return err
	}
	var backoff *wait.Backoff
	if p.selfHealBackoff > 0 {
		backoff = &wait.Backoff{Duration: p.selfHealBackoff, Factor: float64(p.selfHealFactor), Cap: p.selfHealCap}
	}
	c, err = controller.NewApplicationController(
		Namespace, mgr, e.kube, e.apps, e.repo,
		commitclient.NewCommitServerClientset(""),
		e.caches.appState(),
		leanKubectl{Kubectl: kubeutil.NewKubectl(), own: e.rest.Host},
		p.resync,
		0, // no hard resync, as upstream
		p.resyncJitter,
		p.selfHealTimeout,
		backoff,
		p.syncTimeout,
		p.resync+p.resyncJitter, // grace for repo server errors
		0,                       // metrics port: the address is set below
		0,
		nil, nil, nil,
		int64(p.kubectlLimit),
		true, // resource health in the Application's status
		shards,
		p.namespaces,
		ratelimiter.GetDefaultAppRateLimiterConfig(),
		p.serverSideDiff,
		false,
		normalizers.IgnoreNormalizerOpts{JQExecutionTimeout: normalizers.DefaultJQExecutionTimeout},
		argo.DefaultEnableEventList(),
		false,
	)
	if err != nil {
		return err
	}
	ms := c.GetMetricsServer()
	cacheutil.CollectMetrics(e.caches.client, ms, nil)
	// Upstream insists on a listener of its own; ours serves the same handler.
	ms.Addr = loopbackAnyPort
	e.metrics.put(ComponentController, ms.Handler)
	e.reporter.Ready(ComponentController)
	e.compareUnfinished(ctx)
	c.Run(ctx, p.statusProcessors, p.opProcessors, 1)
	if ctx.Err() == nil {
		return errStopped
	}
	return nil
}
