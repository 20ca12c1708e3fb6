//go:build e2e

package gitops_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/util/proto"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/slipwayhq/slipway/internal/gitops/openapi"
)

// Argo CD merges by the schemas that it would have from the server's own v2
// document: built-in kinds, and those of Argo CD, Argo Rollouts and monitors.
func (l *lab) testSchemas(t *testing.T) {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(l.DataDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := client.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := openapi.Document(t.Context(), func(ctx context.Context, address string) ([]byte, error) {
		return client.RESTClient().Get().RequestURI(address).SetHeader("Accept", "application/json").DoRaw(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	want, got := mergeTypes(t, theirs), mergeTypes(t, ours)
	if len(want) < 400 {
		t.Errorf("the server describes only %d types", len(want))
	}
	// What the server says of itself is not stored in it.
	maps.DeleteFunc(want, func(name string, _ schema.TypeDef) bool {
		return slices.Contains([]string{
			"io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup", "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
			"io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions", "io.k8s.apimachinery.pkg.apis.meta.v1.GroupVersionForDiscovery",
			"io.k8s.apimachinery.pkg.apis.meta.v1.ServerAddressByClientCIDR", "io.k8s.apimachinery.pkg.version.Info",
		}, name)
	})
	for _, name := range slices.Sorted(maps.Keys(want)) {
		have, found := got[name]
		if expected := want[name]; !found {
			t.Errorf("%s is missing", name)
		} else if !expected.Atom.Equals(&have.Atom) {
			t.Errorf("%s is merged otherwise", name)
		}
	}
	for name := range got {
		if _, found := want[name]; !found {
			t.Errorf("%s is more than the server describes", name)
		}
	}
}

// mergeTypes are the types by which structured merging works. Relationships
// are compared by address there, so equal ones get the same.
func mergeTypes(t *testing.T, document *openapi_v2.Document) map[string]schema.TypeDef {
	t.Helper()
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		t.Fatal(err)
	}
	types, err := schemaconv.ToSchema(models)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]schema.TypeDef{}
	for _, def := range types.Types {
		intern(&def.Atom)
		out[def.Name] = def
	}
	return out
}

var relationships = map[schema.ElementRelationship]*schema.ElementRelationship{}

func intern(a *schema.Atom) {
	ref := func(r *schema.TypeRef) {
		if r.ElementRelationship != nil {
			if relationships[*r.ElementRelationship] == nil {
				relationships[*r.ElementRelationship] = r.ElementRelationship
			}
			r.ElementRelationship = relationships[*r.ElementRelationship]
		}
		intern(&r.Inlined)
	}
	if a.List != nil {
		ref(&a.List.ElementType)
	}
	if a.Map != nil {
		ref(&a.Map.ElementType)
		for i := range a.Map.Fields {
			ref(&a.Map.Fields[i].Type)
		}
	}
}
