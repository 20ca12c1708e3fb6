package engine

import (
	"context"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	log "github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/argoproj/argo-cd/v3/common"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/argo"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// reconfigurePause gathers the changes of one edit and leaves Argo CD's own
// watch of its settings the time to take them.
const reconfigurePause = 2 * time.Second

// What a change of settings asks for; the greater one includes the lesser.
const (
	compareNothing int32 = iota
	compareAgain         // with the manifests as they were rendered
	renderAgain          // and compare
)

// reconfigured has Applications compared anew when a setting that comparisons
// depend on changes. Upstream leaves that to the regular comparison minutes
// later, and what was rendered with other options in its cache for a day.
type reconfigured struct {
	need atomic.Int32
	wake chan struct{}
}

// tell notes a change of a ConfigMap of Argo CD; it does not block.
func (r *reconfigured) tell(name string, before, after map[string]string) {
	effect := settingsEffect(name, before, after)
	if effect == compareNothing {
		return
	}
	for {
		now := r.need.Load()
		if effect <= now || r.need.CompareAndSwap(now, effect) {
			break
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// settingsEffect is what follows from a change of one of Argo CD's ConfigMaps.
func settingsEffect(name string, before, after map[string]string) int32 {
	if maps.Equal(before, after) {
		return compareNothing
	}
	switch name {
	case common.ArgoCDTLSCertsConfigMapName, common.ArgoCDKnownHostsConfigMapName, common.ArgoCDGPGKeysConfigMapName:
		return compareAgain
	case common.ArgoCDConfigMapName:
	default:
		return compareNothing
	}
	keys := maps.Clone(before)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, after)
	effect := compareNothing
	for k := range keys {
		old, was := before[k]
		now, is := after[k]
		if old == now && was == is {
			continue
		}
		section, _, _ := strings.Cut(k, ".")
		switch section {
		case "kustomize", "helm", "jsonnet", "application", "installationID":
			return renderAgain
		case "resource":
			effect = compareAgain
		}
	}
	return effect
}

// followSettings acts on what tell noted, until ctx ends.
func (e *Engine) followSettings(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.reconfigured.wake:
		}
		if kubewatch.Pause(ctx, reconfigurePause) != nil {
			return nil
		}
		kind := v1alpha1.RefreshTypeNormal
		if e.reconfigured.need.Swap(compareNothing) == renderAgain {
			kind = v1alpha1.RefreshTypeHard
		}
		e.refresh(ctx, kind, func(*v1alpha1.Application) bool { return true })
	}
}

// refresh asks for a comparison of the Applications that which chooses.
func (e *Engine) refresh(ctx context.Context, kind v1alpha1.RefreshType, which func(*v1alpha1.Application) bool) {
	for _, namespace := range append([]string{Namespace}, e.params.namespaces...) {
		client := e.apps.ArgoprojV1alpha1().Applications(namespace)
		list, err := client.List(ctx, metav1.ListOptions{})
		if err != nil {
			log.WithError(err).Warn("the Applications could not be listed to have them compared")
			continue
		}
		for i := range list.Items {
			a := &list.Items[i]
			if !which(a) {
				continue
			}
			if _, err := argo.RefreshApp(client, a.Name, kind, nil); err != nil && !apierrors.IsNotFound(err) {
				log.WithError(err).WithField("application", a.Name).Warn("an Application could not be asked to be compared")
			}
		}
	}
}
