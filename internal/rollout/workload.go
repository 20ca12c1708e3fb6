package rollout

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// workloadResources are what a Rollout may take its pod template from, and
// where it is there; the list is upstream's (rollout/templateref.go).
var workloadResources = map[string]struct {
	resource schema.GroupVersionResource
	path     []string
}{
	"Deployment":  {schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, []string{"spec", "template"}},
	"ReplicaSet":  {replicaSets, []string{"spec", "template"}},
	"PodTemplate": {schema.GroupVersionResource{Version: "v1", Resource: "podtemplates"}, []string{"template"}},
}

// fillTemplate reads the pod template of a Rollout with a workloadRef, which
// the controller keeps in its memory only. Where it is not there, the template
// stays empty: the Rollout's own status tells of that.
func (c *Client) fillTemplate(ctx context.Context, ro *v1alpha1.Rollout) error {
	ref := ro.Spec.WorkloadRef
	if ref == nil {
		return nil
	}
	of, ok := workloadResources[ref.Kind]
	if !ok {
		return nil
	}
	u, err := c.kube.Resource(of.resource).Namespace(ro.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return failed("read "+ref.Kind, ref.Name, err)
	}
	template, _, err := unstructured.NestedMap(u.Object, of.path...)
	if err == nil {
		ro.Spec.Template = corev1.PodTemplateSpec{}
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(template, &ro.Spec.Template)
	}
	if err != nil {
		return fmt.Errorf("rollout: decode %s %s/%s: %w", ref.Kind, ro.Namespace, ref.Name, err)
	}
	return nil
}

// templateOwner returns the object that holds a Rollout's pod template and the
// JSON path to it.
func (c *Client) templateOwner(ro *v1alpha1.Rollout) (dynamic.ResourceInterface, string, string, error) {
	ref := ro.Spec.WorkloadRef
	if ref == nil {
		return c.kube.Resource(Resource).Namespace(ro.Namespace), ro.Name, "/spec/template", nil
	}
	of, ok := workloadResources[ref.Kind]
	if !ok {
		return nil, "", "", delivery.Errorf(delivery.Invalid, "Rollout %s refers to a %s, from which it can take no template.", ro.Name, ref.Kind)
	}
	path := ""
	for _, part := range of.path {
		path += "/" + part
	}
	return c.kube.Resource(of.resource).Namespace(ro.Namespace), ref.Name, path, nil
}
