package engine

import (
	"context"
	"reflect"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/openapi"
)

// leanKubectl is Argo CD's way to clusters without two steps that cost much.
//
// The one is a download and a parse of the OpenAPI document for every object of
// every sync: asking whether the server validates fields. The answer is yes
// since Kubernetes 1.25, and kubectl's code then does nothing more; nor does
// Argo CD ask the server for strict validation. Objects are validated by the
// server either way.
//
// The other is the same once more for every object that changed, to learn how
// it is merged (withoutDocument).
type leanKubectl struct {
	kube.Kubectl
	own string // the address of the platform's own cluster
}

// ManageResources implements kube.Kubectl.
func (k leanKubectl) ManageResources(config *rest.Config) (kube.ResourceOperations, func(), error) {
	ops, cleanup, err := k.Kubectl.ManageResources(config)
	if err != nil {
		return nil, nil, err
	}
	if config.Host == k.own {
		withoutDocument(ops)
	}
	return operations{ops}, cleanup, nil
}

type operations struct{ kube.ResourceOperations }

// ApplyResource implements kube.ResourceOperations.
func (o operations) ApplyResource(ctx context.Context, obj *unstructured.Unstructured, dryRun cmdutil.DryRunStrategy, force, _, serverSide bool, manager string) (string, error) {
	return o.ResourceOperations.ApplyResource(ctx, obj, dryRun, force, false, serverSide, manager)
}

// withoutDocument lets kubectl's apply learn from its built-in types how objects
// are merged, as it does when a server has no OpenAPI document. It is right for
// the platform's own cluster, which is of the same version as those types;
// custom resources have no strategic merge either way. Upstream has no option
// for it, so the factory in a private field is wrapped; it reports whether the
// field is there. Without it all goes as upstream.
func withoutDocument(ops kube.ResourceOperations) bool {
	v := reflect.ValueOf(ops)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	field := v.Elem().FieldByName("fact")
	if !field.IsValid() || field.Type() != reflect.TypeFor[cmdutil.Factory]() {
		return false
	}
	fact := reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
	fact.Set(reflect.ValueOf(factory{fact.Interface().(cmdutil.Factory)}))
	return true
}

// factory is kubectl's way to a cluster, which has no OpenAPI document.
type factory struct{ cmdutil.Factory }

// OpenAPISchema implements openapi.OpenAPIResourcesGetter: there is none.
func (factory) OpenAPISchema() (openapi.Resources, error) { return nil, nil }
