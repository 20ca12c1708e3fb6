package rollout

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

const experimentYAML = `
apiVersion: argoproj.io/v1alpha1
kind: Experiment
metadata: {name: web-new-2-1, namespace: shop, uid: ex, labels: {rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec:
  duration: 30s
  templates:
  - {name: baseline, template: {spec: {containers: [{name: app, image: "r/app:1"}]}}}
  - {name: canary, template: {spec: {containers: [{name: app, image: "r/app:2"}]}}}
status:
  phase: Running
  availableAt: "2026-01-02T03:04:05Z"
  templateStatuses: [{name: baseline, status: Running, serviceName: web-base}, {name: canary, status: Progressing}]
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-new-2-1-baseline, namespace: shop, uid: rsb, ownerReferences: [{uid: ex}]}
spec: {replicas: 1}
status: {readyReplicas: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-new-2-1-baseline-x, namespace: shop, ownerReferences: [{uid: rsb}]}
status: {phase: Running}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisRun
metadata: {name: web-new-2-1-restarts, namespace: shop, ownerReferences: [{uid: ex}]}
spec: {metrics: [{name: restarts, successCondition: "result <= 0", provider: {prometheus: {query: "q"}}}]}
status: {phase: Running}
`

// add puts objects into the cluster of a test.
func add(t *testing.T, f *fake.FakeDynamicClient, text string) {
	t.Helper()
	resources := map[string]schema.GroupVersionResource{
		"Experiment": experiments, "ReplicaSet": replicaSets, "Pod": podResource, "AnalysisRun": analysisRuns,
		"Deployment": workloadResources["Deployment"].resource,
	}
	for _, doc := range strings.Split(text, "---\n") {
		var u unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Resource(resources[u.GetKind()]).Namespace(u.GetNamespace()).Create(t.Context(), &u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExperiments(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, nil)
	add(t, f, experimentYAML)
	revs, err := c.Revisions(t.Context(), "shop", "web")
	if err != nil || len(revs) != 2 || len(revs[0].Experiments) != 1 || len(revs[1].Experiments) != 0 {
		t.Fatalf("%+v %v", revs, err)
	}
	e := revs[0].Experiments[0]
	if e.Phase != "Running" || e.Duration != "30s" || e.Started.IsZero() || len(e.Versions) != 2 || len(e.Analyses) != 1 {
		t.Fatalf("%+v", e)
	}
	v := e.Versions[0]
	if v.Name != "baseline" || v.Phase != "Running" || v.Service != "web-base" || v.Images[0] != "r/app:1" || v.Ready != 1 || len(v.Pods) != 1 {
		t.Errorf("%+v", v)
	}
	if v := e.Versions[1]; v.Phase != "Progressing" || v.ManagedBy != "" {
		t.Errorf("%+v", v)
	}
	if len(revs[0].Analyses) != 1 {
		t.Errorf("the experiment's analysis is not the rollout's: %+v", revs[0].Analyses)
	}
}

// A Rollout that takes its pod template from a Deployment is of the images that
// are named there, and is undone there.
func TestWorkloadRef(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, func(u *unstructured.Unstructured) {
		unstructured.RemoveNestedField(u.Object, "spec", "template")
		set(t, map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "spec", "workloadRef")(u)
	})
	if r, err := c.Get(t.Context(), "shop", "web"); err != nil || len(r.Images) != 0 {
		t.Errorf("without its Deployment: %+v %v", r, err)
	}
	add(t, f, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {spec: {containers: [{name: app, image: "r/app:2"}]}}}
`)
	all, err := c.List(t.Context(), "")
	if err != nil || len(all) != 1 || strings.Join(all[0].Images, " ") != "r/app:2" {
		t.Errorf("list: %+v %v", all, err)
	}
	if err := c.Undo(t.Context(), "shop", "web", 0); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get(t.Context(), "shop", "web"); err != nil || strings.Join(r.Images, " ") != "r/app:1" {
		t.Errorf("undone: %+v %v", r, err)
	}
}
