package rollout

import (
	"math"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const canaryYAML = `
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata:
  name: web
  namespace: shop
  uid: ro
  annotations: {argocd.argoproj.io/tracking-id: "shop:argoproj.io/Rollout:shop/web"}
spec:
  replicas: 2
  template: {spec: {containers: [{name: app, image: "r/app:2"}]}}
  strategy:
    canary:
      stableService: web
      canaryService: web-canary
      trafficRouting: {nginx: {stableIngress: web}}
      steps: [{setWeight: 20}, {pause: {}}, {analysis: {templates: [{templateName: success-rate}]}}, {setWeight: 50}, {pause: {duration: 30}}]
status:
  phase: Paused
  message: CanaryPauseStep
  controllerPause: true
  pauseConditions: [{reason: CanaryPauseStep, startTime: "2026-01-02T03:04:05Z"}]
  currentStepIndex: 1
  currentPodHash: new
  stableRS: old
  canary: {weights: {canary: {weight: 20}, stable: {weight: 80}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-old, namespace: shop, uid: rs1, labels: {rollouts-pod-template-hash: old}, annotations: {rollout.argoproj.io/revision: "1"}, ownerReferences: [{uid: ro}]}
spec: {replicas: 2, template: {metadata: {labels: {app: web, rollouts-pod-template-hash: old}}, spec: {containers: [{name: app, image: "r/app:1"}]}}}
status: {readyReplicas: 2}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-new, namespace: shop, uid: rs2, labels: {rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec: {replicas: 1, template: {spec: {containers: [{name: app, image: "r/app:2"}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-new-x, namespace: shop, ownerReferences: [{uid: rs2}]}
status: {phase: Running, conditions: [{type: Ready, status: "False"}], containerStatuses: [{restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}}]}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisRun
metadata: {name: web-new-2-2, namespace: shop, labels: {rollout-type: Step, rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec:
  args: [{name: threshold, value: "0.95"}]
  metrics:
    - name: success-rate
      failureLimit: 1
      successCondition: "len(result) == 0 || isNaN(result[0]) ? 'pass' == 'pass' : result[0] >= {{args.threshold}}"
      provider: {prometheus: {query: "q"}}
status:
  phase: Failed
  message: bad
  metricResults:
    - name: success-rate
      phase: Failed
      measurements: [{value: "[0.4]", phase: Failed, finishedAt: "2026-01-02T03:04:05Z"}, {value: "[NaN]", phase: Successful}]
`

func newFake(t *testing.T, change func(*unstructured.Unstructured)) (*Client, *fake.FakeDynamicClient) {
	t.Helper()
	var objects []runtime.Object
	for _, doc := range strings.Split(canaryYAML, "---\n") {
		var u unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		if u.GetKind() == "Rollout" && change != nil {
			change(&u)
		}
		objects = append(objects, &u)
	}
	f := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		Resource: "RolloutList", replicaSets: "ReplicaSetList", podResource: "PodList", analysisRuns: "AnalysisRunList", experiments: "ExperimentList",
	}, objects...)
	c := NewClient(f)
	c.now = func() time.Time { return time.Unix(0, 0) }
	return c, f
}

func set(t *testing.T, v any, path ...string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		if err := unstructured.SetNestedField(u.Object, v, path...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	c, _ := newFake(t, nil)
	r, err := c.Get(t.Context(), "shop", "web")
	if err != nil {
		t.Fatal(err)
	}
	if r.Phase != "Paused" || r.PauseReason != "CanaryPauseStep" || r.Step != 1 || r.Weight != 20 || !r.ExactWeight || r.Application != "shop" || !r.Progressing() {
		t.Errorf("rollout %+v", r)
	}
	var steps []string
	for _, s := range r.Steps {
		steps = append(steps, s.Text)
	}
	if got := strings.Join(steps, " | "); got != "20 % | wait for promotion | analysis success-rate | 50 % | pause 30s" {
		t.Errorf("steps %s", got)
	}
	if _, err := c.Get(t.Context(), "shop", "none"); !delivery.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	c, _ := newFake(t, nil)
	revs, err := c.Revisions(t.Context(), "shop", "web")
	if err != nil {
		t.Fatal(err)
	}
	if len(revs) != 2 || revs[0].Role != "canary" || revs[1].Role != "stable" || revs[1].Ready != 2 {
		t.Fatalf("revisions %+v", revs)
	}
	if p := revs[0].Pods[0]; p.Ready || p.Restarts != 3 || p.Phase != "CrashLoopBackOff" {
		t.Errorf("pod %+v", p)
	}
	m := revs[0].Analyses[0].Metrics[0]
	if m.Operator != ">=" || m.Limit != 0.95 || m.FailureLimit != 1 || m.Query != "q" {
		t.Errorf("metric %+v", m)
	}
	if m.Measurements[0].Value != 0.4 || !math.IsNaN(m.Measurements[1].Value) {
		t.Errorf("measurements %+v", m.Measurements)
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	unpaused := set(t, []any{}, "status", "pauseConditions")
	aborted := set(t, true, "status", "abort")
	promoted := set(t, "new", "status", "stableRS")
	for _, tc := range []struct {
		name   string
		change func(*unstructured.Unstructured)
		act    func(*Client) error
		want   string // the patch; "" when refused
	}{
		{"promote at a pause", nil, func(c *Client) error { return c.Promote(t.Context(), "shop", "web") }, `{"status":{"pauseConditions":null}} status`},
		{"promote in a step", unpaused, func(c *Client) error { return c.Promote(t.Context(), "shop", "web") }, `{"status":{"currentStepIndex":2,"pauseConditions":null}} status`},
		{"promote after an abort", aborted, func(c *Client) error { return c.Promote(t.Context(), "shop", "web") }, ""},
		{"promote the stable", promoted, func(c *Client) error { return c.PromoteFull(t.Context(), "shop", "web") }, ""},
		{"full", nil, func(c *Client) error { return c.PromoteFull(t.Context(), "shop", "web") }, `{"status":{"promoteFull":true}} status`},
		{"pause", nil, func(c *Client) error { return c.Pause(t.Context(), "shop", "web") }, `{"spec":{"paused":true}} `},
		{"abort", nil, func(c *Client) error { return c.Abort(t.Context(), "shop", "web") }, `{"status":{"abort":true}} status`},
		{"abort the stable", promoted, func(c *Client) error { return c.Abort(t.Context(), "shop", "web") }, ""},
		{"retry", aborted, func(c *Client) error { return c.Retry(t.Context(), "shop", "web") }, `{"status":{"abort":false}} status`},
		{"retry without abort", nil, func(c *Client) error { return c.Retry(t.Context(), "shop", "web") }, ""},
		{"restart", nil, func(c *Client) error { return c.Restart(t.Context(), "shop", "web") }, `{"spec":{"restartAt":"1970-01-01T00:00:00Z"}} `},
		{"undo", nil, func(c *Client) error { return c.Undo(t.Context(), "shop", "web", 0) }, `"image":"r/app:1"`},
		{"undo to what is not", nil, func(c *Client) error { return c.Undo(t.Context(), "shop", "web", 9) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, f := newFake(t, tc.change)
			err := tc.act(c)
			var got string
			for _, a := range f.Actions() {
				if p, ok := a.(interface{ GetPatch() []byte }); ok {
					got = string(p.GetPatch()) + " " + a.GetSubresource()
				}
			}
			if tc.want == "" {
				if k := delivery.KindOf(err); k != delivery.Conflict && k != delivery.NotFound || got != "" {
					t.Errorf("got %v and patch %q, want a refusal", err, got)
				}
				return
			}
			if err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("patch %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestWatchTellsTheAbort(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, nil)
	changes := make(chan Change, 10)
	go func() { _ = c.Watch(t.Context(), nil, func(ch Change) { changes <- ch }) }()
	if ch := <-changes; ch.Aborted() {
		t.Fatal("not aborted yet")
	}
	u, err := f.Resource(Resource).Namespace("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set(t, true, "status", "abort")(u)
	set(t, "Degraded", "status", "phase")(u)
	// The fake loses events before its watch is open, so update until told.
	for {
		if _, err := f.Resource(Resource).Namespace("shop").Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		select {
		case ch := <-changes:
			e, worth := ch.Event()
			if !worth || !ch.Aborted() || !e.Aborted || e.Phase != "Degraded" || e.Weight != 0 || e.Image != "r/app:2" {
				t.Errorf("change %+v", e)
			}
			return
		default:
		}
	}
}
