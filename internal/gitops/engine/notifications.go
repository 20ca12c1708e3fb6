package engine

import (
	"context"

	"github.com/argoproj/notifications-engine/pkg/controller"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	notifications "github.com/argoproj/argo-cd/v3/notification_controller/controller"
	service "github.com/argoproj/argo-cd/v3/util/notification/argocd"
)

// runNotifications runs the notifications controller until ctx ends.
func (e *Engine) runNotifications(ctx context.Context) error {
	svc, err := service.NewArgoCDService(e.kube, e.dynamic, Namespace, e.repo)
	if err != nil {
		return err
	}
	defer svc.Close()
	registry := controller.NewMetricsRegistry("argocd")
	e.metrics.put(ComponentNotifications, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	c := notifications.NewController(e.kube, e.dynamic, svc, Namespace, e.params.namespaces, "", registry,
		"argocd-notifications-secret", "argocd-notifications-cm", false)
	if err := c.Init(ctx); err != nil {
		return err
	}
	e.reporter.Ready(ComponentNotifications)
	c.Run(ctx, 1)
	if ctx.Err() == nil {
		return errStopped
	}
	return nil
}
