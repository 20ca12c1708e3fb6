package engine

import (
	"context"
	"sync"

	"github.com/argoproj/notifications-engine/pkg/controller"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	notifier "github.com/argoproj/argo-cd/v3/notification_controller/controller"
	service "github.com/argoproj/argo-cd/v3/util/notification/argocd"
)

// notificationsConfig is the ConfigMap with services, triggers and templates.
const notificationsConfig = "argocd-notifications-cm"

// notifications tells when there is something to notify with.
type notifications struct {
	configured chan struct{} // closed then
	once       sync.Once
}

// tell notes the content of a ConfigMap of Argo CD.
func (n *notifications) tell(name string, data map[string]string) {
	if name == notificationsConfig && len(data) > 0 {
		n.once.Do(func() { close(n.configured) })
	}
}

// runNotifications runs the notifications controller until ctx ends, from when
// it is configured: it keeps every Application as a tree of maps, ten times the
// size of its JSON, and without a service it can tell nobody.
func (e *Engine) runNotifications(ctx context.Context) error {
	registry := controller.NewMetricsRegistry("argocd")
	e.metrics.put(ComponentNotifications, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	e.reporter.Ready(ComponentNotifications)
	select {
	case <-ctx.Done():
		return nil
	case <-e.notifications.configured:
	}
	svc, err := service.NewArgoCDService(e.kube, e.dynamic, Namespace, e.repo)
	if err != nil {
		return err
	}
	defer svc.Close()
	c := notifier.NewController(e.kube, e.dynamic, svc, Namespace, e.params.namespaces, "", registry,
		"argocd-notifications-secret", notificationsConfig, false)
	if err := c.Init(ctx); err != nil {
		return err
	}
	c.Run(ctx, 1)
	if ctx.Err() == nil {
		return errStopped
	}
	return nil
}
