package rollout

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

const servicesYAML = `
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}}
---
metadata: {name: web-stable, namespace: shop}
spec: {selector: {app: web, rollouts-pod-template-hash: old}}
---
metadata: {name: web-canary, namespace: shop}
spec: {selector: {app: web, rollouts-pod-template-hash: new}}
---
metadata: {name: other, namespace: shop}
spec: {selector: {app: other}}
---
metadata: {name: narrower, namespace: shop}
spec: {selector: {app: web, tier: x}}
---
metadata: {name: by-hand, namespace: shop}
spec: {ports: [{port: 80}]}
---
metadata: {name: web, namespace: elsewhere}
spec: {selector: {app: web}}
`

func TestServices(t *testing.T) {
	t.Parallel()
	var objects []runtime.Object
	for _, doc := range strings.Split(servicesYAML, "---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetAPIVersion("v1")
		u.SetKind("Service")
		objects = append(objects, u)
	}
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{serviceResource: "ServiceList"}, objects...)
	for _, c := range []struct {
		namespace string
		ro        Rollout
		want      []string
	}{
		{"shop", Rollout{labels: map[string]string{"app": "web"}, StableHash: "old", CurrentHash: "new"}, []string{"web", "web-stable"}},
		{"", Rollout{labels: map[string]string{"app": "web"}, StableHash: "old", CurrentHash: "new"}, []string{"web", "web-stable"}},
		{"shop", Rollout{labels: map[string]string{"app": "web"}, StableHash: "new", StableService: "web-stable", CanaryService: "web-canary"}, []string{"web"}},
		{"shop", Rollout{labels: map[string]string{"app": "web"}, StableHash: "new", StableService: "web-canary"}, []string{"web", "web-canary"}},
		{"shop", Rollout{labels: map[string]string{"app": "none"}, StableHash: "old"}, nil},
		{"shop", Rollout{}, nil},
	} {
		c.ro.Namespace = "shop"
		lead, err := NewClient(kube).Services(t.Context(), c.namespace)
		if err != nil {
			t.Fatal(err)
		}
		if got := lead(&c.ro); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.ro, got, c.want)
		}
	}
}
