package engine

import (
	"context"
	"net/http"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/openapi"

	schemas "github.com/slipwayhq/slipway/internal/gitops/openapi"
)

// leanKubectl is Argo CD's way to the cluster without two steps that cost much.
//
// The one is a download and a parse of the OpenAPI document for every object of
// every sync: asking whether the server validates fields. The answer is yes
// since Kubernetes 1.25, and kubectl's code then does nothing more; nor does
// Argo CD ask the server for strict validation. Objects are validated by the
// server either way.
//
// The other is the OpenAPI v2 document itself (LoadOpenAPISchema).
type leanKubectl struct{ kube.Kubectl }

// ManageResources implements kube.Kubectl.
func (k leanKubectl) ManageResources(config *rest.Config) (kube.ResourceOperations, func(), error) {
	ops, cleanup, err := k.Kubectl.ManageResources(config)
	if err != nil {
		return nil, nil, err
	}
	return operations{ops}, cleanup, nil
}

type operations struct{ kube.ResourceOperations }

// ApplyResource implements kube.ResourceOperations.
func (o operations) ApplyResource(ctx context.Context, obj *unstructured.Unstructured, dryRun cmdutil.DryRunStrategy, force, _, serverSide bool, manager string) (string, error) {
	return o.ResourceOperations.ApplyResource(ctx, obj, dryRun, force, false, serverSide, manager)
}

// LoadOpenAPISchema implements kube.Kubectl. The schemas come from the server's
// v3 documents, and Argo CD's controller uses only the parser that is made of
// them: the document itself would be kept for nobody.
func (k leanKubectl) LoadOpenAPISchema(config *rest.Config) (openapi.Resources, *managedfields.GvkParser, error) {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return schemas.Transport{Next: next} })
	_, parser, err := k.Kubectl.LoadOpenAPISchema(config)
	return nil, parser, err
}
