package gitops

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch/kubetest"
)

func placement(t *testing.T, owner string) Placement {
	t.Helper()
	return Placement{Owner: owner, Namespace: "acme-web", ImageFile: "environments/production/kustomization.yaml",
		Project: object(t, "{apiVersion: argoproj.io/v1alpha1, kind: AppProject, metadata: {name: acme-web, namespace: argocd}}"),
		Application: object(t, `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: acme-web, namespace: argocd, labels: {a: b}}
spec:
  source: {repoURL: "http://f/acme/web-deploy.git", path: environments/production}
  destination: {namespace: acme-web}
  syncPolicy: {automated: {prune: true}}`)}
}

func placeFake(t *testing.T, objects ...runtime.Object) *Client {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{Resource: "ApplicationList", appProjects: "AppProjectList", namespaces: "NamespaceList"}
	scheme := runtime.NewScheme()
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(scheme, kinds, objects...)
	kubetest.Apply(kube, nil)
	return NewClient(kube)
}

func automated(t *testing.T, c *Client) bool {
	t.Helper()
	u, err := c.applications().Get(t.Context(), "acme-web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	enabled, found, err := unstructured.NestedBool(u.Object, "spec", "syncPolicy", "automated", "enabled")
	if err != nil {
		t.Fatal(err)
	}
	return enabled || !found
}

func TestPlaceWaitsForTheFirstImage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := placeFake(t)
	for range 2 { // it can be repeated
		if err := c.Place(ctx, placement(t, "7")); err != nil {
			t.Fatal(err)
		}
		if automated(t, c) {
			t.Fatal("it syncs although there is no image")
		}
	}
	if owner, err := c.PlacedFor(ctx, "acme-web"); err != nil || owner != "7" {
		t.Errorf("owner %q, %v", owner, err)
	}
	asked := ""
	named := func(answer bool) func(string) (bool, error) {
		return func(file string) (bool, error) { asked = file; return answer, nil }
	}
	for _, one := range []struct {
		url    string
		answer bool
		want   bool
	}{{"http://f/acme/other.git", true, false}, {"http://f/acme/web-deploy.git", false, false}, {"http://f/acme/web-deploy.git", true, true}} {
		if err := c.LetGo(ctx, one.url, named(one.answer)); err != nil {
			t.Fatal(err)
		}
		if got := automated(t, c); got != one.want {
			t.Errorf("%+v: it syncs: %v", one, got)
		}
	}
	if asked != "environments/production/kustomization.yaml" {
		t.Errorf("asked for %q", asked)
	}
	if err := c.Place(ctx, placement(t, "7")); err != nil || !automated(t, c) {
		t.Errorf("a second time stops what runs: %v", err)
	}
	for _, owner := range []string{"8", "7", "7"} {
		if err := c.Displace(ctx, owner); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PlacedFor(ctx, "acme-web"); (err == nil) != (owner == "8") {
			t.Errorf("after the deletion of project %s: %v", owner, err)
		}
	}
	if err := c.Place(ctx, placement(t, "9")); err != nil {
		t.Errorf("its name is not free again: %v", err)
	}
}

func TestPlaceKeepsOutOfWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, old := range map[string]string{
		"a namespace of the cluster": "{apiVersion: v1, kind: Namespace, metadata: {name: acme-web}}",
		"another's namespace":        "{apiVersion: v1, kind: Namespace, metadata: {name: acme-web, annotations: {slipway.dev/project-id: '8'}}}",
		"an Application by hand":     "{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: acme-web, namespace: argocd}}",
	} {
		if err := placeFake(t, object(t, old)).Place(ctx, placement(t, "7")); delivery.KindOf(err) != delivery.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := placement(t, "7")
	p.Application.SetName("argocd")
	if err := placeFake(t).Place(ctx, p); err == nil {
		t.Error("an Application of another name was placed")
	}
}
