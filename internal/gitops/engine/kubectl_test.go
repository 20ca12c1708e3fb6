package engine

import (
	"testing"

	kubeutil "github.com/argoproj/argo-cd/v3/util/kube"
	"k8s.io/client-go/rest"
)

// A new version of Argo CD may have its factory elsewhere: then objects are
// merged as upstream does it, at the price of a document for each.
func TestWithoutDocument(t *testing.T) {
	t.Parallel()
	ops, cleanup, err := kubeutil.NewKubectl().ManageResources(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	if !withoutDocument(ops) {
		t.Fatal("kubectl's factory is not where it was")
	}
	if withoutDocument(nil) || withoutDocument(operations{}) {
		t.Error("what has no factory has none to wrap")
	}
	if doc, err := (factory{}).OpenAPISchema(); doc != nil || err != nil {
		t.Errorf("%v, %v", doc, err)
	}
}
