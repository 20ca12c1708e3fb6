package rollout

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
)

var serviceResource = schema.GroupVersionResource{Version: "v1", Resource: "services"}

// Services reads the Services of a namespace, or of all with "", and returns
// what names those that lead to a Rollout's stable pods: by their selectors, as
// Kubernetes does, whether the Rollout names them or not. The Service of the new
// version alone is left out.
func (c *Client) Services(ctx context.Context, namespace string) (func(*Rollout) []string, error) {
	all, err := list[corev1.Service](ctx, c.kube, serviceResource, namespace)
	if err != nil {
		return nil, err
	}
	return func(r *Rollout) []string {
		pods := labels.Set(maps.Clone(r.labels))
		if pods == nil {
			pods = labels.Set{}
		}
		pods[v1alpha1.DefaultRolloutUniqueLabelKey] = r.StableHash
		var names []string
		for _, s := range all {
			forNew := s.Name == r.CanaryService && s.Name != r.StableService
			if s.Namespace == r.Namespace && len(s.Spec.Selector) > 0 && !forNew && labels.SelectorFromSet(s.Spec.Selector).Matches(pods) {
				names = append(names, s.Name)
			}
		}
		slices.Sort(names)
		return names
	}, nil
}
