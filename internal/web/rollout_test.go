package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/rollout"
	"github.com/slipwayhq/slipway/internal/web"
)

const rolloutObjects = `
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: cart, namespace: shop, uid: ro, annotations: {argocd.argoproj.io/tracking-id: "shop:argoproj.io/Rollout:shop/cart"}}
spec:
  replicas: 2
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: app, image: "r/cart:2"}]}}
  strategy:
    canary:
      stableService: cart-stable
      canaryService: cart-canary
      trafficRouting: {nginx: {stableIngress: cart}}
      steps: [{setWeight: 20}, {pause: {duration: 30}}, {setWeight: 50}]
status:
  phase: Degraded
  message: 'RolloutAborted: Rollout aborted update to revision 2: Metric "success-rate" assessed Failed due to failed (2) > failureLimit (1)'
  abort: true
  currentStepIndex: 0
  currentPodHash: new
  stableRS: old
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: cart-old, namespace: shop, uid: rs1, labels: {rollouts-pod-template-hash: old}, annotations: {rollout.argoproj.io/revision: "1"}, ownerReferences: [{uid: ro}]}
spec: {replicas: 2, template: {spec: {containers: [{name: app, image: "r/cart:1"}]}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: cart-new, namespace: shop, uid: rs2, labels: {rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec: {replicas: 0, template: {spec: {containers: [{name: app, image: "r/cart:2"}]}}}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisRun
metadata: {name: cart-new-2, namespace: shop, labels: {rollout-type: Background, rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec:
  args: [{name: threshold, value: "0.95"}]
  metrics: [{name: success-rate, failureLimit: 1, successCondition: "len(result) == 0 || result[0] >= {{args.threshold}}", provider: {prometheus: {query: up}}}]
status:
  phase: Failed
  metricResults:
  - name: success-rate
    phase: Failed
    measurements:
    - {phase: Successful, value: "[0.99]", finishedAt: "2026-01-02T03:04:05Z"}
    - {phase: Successful, value: "[NaN]", finishedAt: "2026-01-02T03:04:10Z"}
    - {phase: Failed, value: "[0.5]", finishedAt: "2026-01-02T03:04:15Z"}
---
apiVersion: argoproj.io/v1alpha1
kind: Experiment
metadata: {name: cart-new-2-1, namespace: shop, uid: ex, labels: {rollouts-pod-template-hash: new}, annotations: {rollout.argoproj.io/revision: "2"}, ownerReferences: [{uid: ro}]}
spec: {duration: 30s, templates: [{name: baseline, template: {spec: {containers: [{name: app, image: "r/cart:1"}]}}}]}
status: {phase: Running, templateStatuses: [{name: baseline, status: Running}]}
---
apiVersion: v1
kind: Event
metadata: {name: cart.1, namespace: shop}
involvedObject: {kind: Rollout, name: cart}
reason: RolloutAborted
message: Rollout aborted update to revision 2
type: Warning
lastTimestamp: "2026-01-02T03:04:16Z"
---
apiVersion: v1
kind: Service
metadata: {name: cart-stable, namespace: shop}
spec: {selector: {app: cart, rollouts-pod-template-hash: old}}
---
apiVersion: v1
kind: Service
metadata: {name: inner, namespace: shop}
spec: {selector: {app: worker}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: worker, namespace: shop, uid: ro2}
spec: {template: {metadata: {labels: {app: worker}}}, strategy: {canary: {}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: alone, namespace: shop, uid: ro3}
spec: {template: {metadata: {labels: {app: alone}}}, strategy: {canary: {}}}
`

// samplePlaces knows one Rollout.
type samplePlaces struct {
	roles map[string]delivery.Role
	did   []string
	on    bool
}

func (p *samplePlaces) Place(context.Context, string, string) (release.Place, error) {
	return release.Place{Environment: "shop", Why: "success-rate failed with 0.5 (wanted >= 0.95)."}, nil
}
func (p *samplePlaces) RoleAt(_ context.Context, who delivery.Identity, _ release.Place) (delivery.Role, error) {
	return p.roles[who.Name], nil
}
func (p *samplePlaces) TakeBack(_ context.Context, who delivery.Identity, namespace, name string) (string, error) {
	p.did = append(p.did, "revert "+namespace+"/"+name+" by "+who.Name)
	return "Commit abc takes it back.", nil
}
func (p *samplePlaces) Namespaces(context.Context, int64) (map[string]string, error) {
	return map[string]string{"production": "shop"}, nil
}
func (p *samplePlaces) Settings(context.Context, int64) (release.Settings, error) {
	return release.Settings{AutoRevert: p.on}, nil
}
func (p *samplePlaces) SetAutoRevert(_ context.Context, _ delivery.Identity, _ delivery.Project, on bool) error {
	p.on = on
	return nil
}

// rolloutSite is a site with pages of rollouts on a made-up cluster.
func rolloutSite(t *testing.T) (*site, *fake.FakeDynamicClient, *samplePlaces) {
	t.Helper()
	s := newSite(t)
	var objects []runtime.Object
	for _, text := range strings.Split(rolloutObjects, "---\n") {
		u := &unstructured.Unstructured{}
		s.must(yaml.Unmarshal([]byte(text), u))
		objects = append(objects, u)
	}
	argo := schema.GroupVersion{Group: "argoproj.io", Version: "v1alpha1"}
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		argo.WithResource("rollouts"): "RolloutList", argo.WithResource("analysisruns"): "AnalysisRunList", argo.WithResource("experiments"): "ExperimentList", argo.WithResource("applications"): "ApplicationList",
		{Group: "apps", Version: "v1", Resource: "replicasets"}: "ReplicaSetList", {Version: "v1", Resource: "pods"}: "PodList", {Version: "v1", Resource: "events"}: "EventList", {Version: "v1", Resource: "services"}: "ServiceList",
	}, objects...)
	places := &samplePlaces{roles: map[string]delivery.Role{"maya": delivery.Maintainer, "rita": delivery.Reporter}}
	pages, err := web.New(web.Deps{Access: s.access, Forge: s.forge, Pipelines: s.engine, Metrics: sampleMetrics{}, Routes: sampleRoutes, ExternalURL: s.server.URL, Log: slog.New(slog.DiscardHandler), Places: places,
		Operations: &web.Operations{
			Apps:     func() (*gitops.Client, error) { return gitops.NewClient(kube), nil },
			Rollouts: func() (*rollout.Client, error) { return rollout.NewClient(kube), nil },
		}})
	s.must(err)
	s.server.Config.Handler = pages
	for _, name := range []string{"maya", "rita", "olga"} {
		s.person(name)
	}
	return s, kube, places
}

func TestRolloutPage(t *testing.T) {
	t.Parallel()
	s, kube, places := rolloutSite(t)
	const at = "/-/rollouts/shop/cart"
	s.has(s.page("maya", "/-/rollouts"), "td", "success-rate failed with 0.5")
	doc := s.page("maya", at)
	s.has(doc, "#why", "success-rate failed with 0.5 (wanted >= 0.95).")
	s.has(doc, "#difference dd", "r/cart:2")
	s.has(doc, "#difference div:nth-child(2) dd", "r/cart:1")
	s.has(doc, "li.stopped", "20 %")
	s.has(doc, "p.addresses a", "https://cart.localhost/")
	s.count(doc, "p.addresses a", 1)
	s.has(s.page("maya", "/-/rollouts/shop/worker"), "p.addresses", "no Ingress leads to the Service inner.")
	s.has(s.page("maya", "/-/rollouts/shop/alone"), "p.addresses", "No Service leads to its pods.")
	s.has(doc, "#events .badge", "RolloutAborted")
	s.count(doc, `[data-metric=success-rate] [data-part=chart][data-limit="0.95"][data-points="[[1767323045,0.99],[1767323050,null],[1767323055,0.5]]"]`, 1)
	s.has(doc, "#actions", "Retry")
	s.has(doc, "#revision-2 [data-experiment=cart-new-2-1]", "baseline")

	s.count(s.page("rita", at), "#actions", 0)
	if got := s.status("rita", http.MethodPost, at+"/retry", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a reporter's retry: %d", got)
	}
	if got := s.status("olga", http.MethodGet, at, nil); got != http.StatusNotFound {
		t.Errorf("a stranger sees it: %d", got)
	}
	s.has(s.page("olga", "/-/rollouts"), "p.empty", "None of the rollouts")
	s.post("maya", at+"/revert")
	if len(places.did) != 1 || places.did[0] != "revert shop/cart by maya" {
		t.Errorf("did %v", places.did)
	}
	s.post("maya", at+"/retry")
	u, err := kube.Resource(rollout.Resource).Namespace("shop").Get(t.Context(), "cart", metav1.GetOptions{})
	s.must(err)
	if aborted, _, _ := unstructured.NestedBool(u.Object, "status", "abort"); aborted {
		t.Error("the retry did nothing")
	}

	// Upstream's name of the reason.
	s.must(unstructured.SetNestedSlice(u.Object, []any{map[string]any{"reason": string(v1alpha1.PauseReasonInconclusiveAnalysis), "startTime": "2026-01-02T03:04:05Z"}}, "status", "pauseConditions"))
	_, err = kube.Resource(rollout.Resource).Namespace("shop").Update(t.Context(), u, metav1.UpdateOptions{})
	s.must(err)
	s.has(s.page("maya", at), "p.notice", "an analysis could not decide")
}

func TestReleaseSettings(t *testing.T) {
	t.Parallel()
	s, _, places := rolloutSite(t)
	p := s.project("shop/cart", map[string]string{"a": "1"}, map[string]delivery.Role{"maya": delivery.Maintainer, "rita": delivery.Developer})
	at := "/" + p.FullPath + "/-/settings/releases"
	s.count(s.page("maya", at), "#releases input[name=auto_revert]:not([checked])", 1)
	if got := s.status("rita", http.MethodGet, at, nil); got != http.StatusForbidden {
		t.Errorf("a developer reads the settings: %d", got)
	}
	if got := s.status("rita", http.MethodPost, at, url.Values{"auto_revert": {"on"}}); got != http.StatusForbidden || places.on {
		t.Errorf("a developer changes the settings: %d", got)
	}
	s.post("maya", at, "auto_revert", "on")
	s.count(s.page("maya", at), "#releases input[name=auto_revert][checked]", 1)
	if !places.on {
		t.Error("not turned on")
	}
}
