package gitops

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const appYAML = `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: shop
  namespace: argocd
  finalizers: [resources-finalizer.argocd.argoproj.io]
  annotations: {argocd.argoproj.io/manifest-generate-paths: ".;/base"}
spec:
  project: default
  source: {repoURL: "http://f/acme/ops.git", path: envs/production, targetRevision: main}
  destination: {server: "https://kubernetes.default.svc", namespace: shop}
  syncPolicy: {automated: {prune: true, selfHeal: true}}
status:
  sync: {status: Synced, revision: eeee5555eeee} # a later commit, elsewhere in the repository
  health: {status: Degraded, lastTransitionTime: "2026-01-02T03:04:05Z"}
  conditions: [{type: ComparisonError, message: "base/cm.yaml: bad field"}]
  operationState:
    phase: Succeeded
    startedAt: "2026-01-02T03:04:05Z"
    operation: {initiatedBy: {automated: true}}
    syncResult: {revision: cccc3333cccc, resources: [{group: "", kind: Service, namespace: shop, name: web, status: Synced, message: ok}]}
  resources: [{kind: Service, name: web, namespace: shop, status: Synced, health: {status: Healthy}}]
  history:
    - {id: 0, revision: aaaa1111aaaa, deployedAt: "2026-01-01T00:00:00Z", source: {repoURL: "http://f/acme/ops.git"}, initiatedBy: {username: ann}}
    - {id: 1, revision: bbbb2222bbbb, deployedAt: "2026-01-01T01:00:00Z", source: {repoURL: "http://f/acme/ops.git"}, initiatedBy: {automated: true}}
    - {id: 2, revision: cccc3333cccc, deployedAt: "2026-01-01T02:00:00Z", source: {repoURL: "http://f/acme/ops.git"}, initiatedBy: {automated: true}}
`

func object(t *testing.T, y string) *unstructured.Unstructured {
	t.Helper()
	var u unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(y), &u.Object); err != nil {
		t.Fatal(err)
	}
	return &u
}

func newFake(t *testing.T, objects ...runtime.Object) (*Client, *fake.FakeDynamicClient) {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{Resource: "ApplicationList", {Version: "v1", Resource: "events"}: "EventList"}
	f := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, objects...)
	return NewClient(f), f
}

func raw(t *testing.T, f *fake.FakeDynamicClient, name string) *unstructured.Unstructured {
	t.Helper()
	u, err := f.Resource(Resource).Namespace(Namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestGetDecodes(t *testing.T) {
	t.Parallel()
	c, _ := newFake(t, object(t, appYAML))
	a, err := c.Get(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if !a.Automated.SelfHeal || a.Sync.Revision != "eeee5555eeee" || a.Failed() != "base/cm.yaml: bad field" {
		t.Errorf("decoded %+v", a)
	}
	if len(a.History) != 3 || a.History[0].ID != 2 || a.History[2].By != "ann" || !a.History[0].Automated {
		t.Errorf("history %+v", a.History)
	}
	if a.Operation.Results[0].Name != "web" || a.Resources[0].Health != "Healthy" {
		t.Errorf("resources %+v %+v", a.Operation, a.Resources)
	}
	if got := strings.Join(a.ManifestPaths, " "); got != "envs/production base" {
		t.Errorf("manifest paths %q", got)
	}
	if _, err := c.Get(t.Context(), "none"); delivery.KindOf(err) != delivery.NotFound || delivery.UserMessage(err) != "There is no application none." {
		t.Errorf("missing application: %v", err)
	}
}

func TestRefreshSyncTerminate(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, object(t, appYAML))
	ctx := t.Context()
	if err := c.Refresh(ctx, "shop", true); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, f, "shop").GetAnnotations()[refreshAnnotation]; got != "hard" {
		t.Errorf("refresh annotation %q", got)
	}
	if err := c.Terminate(ctx, "shop"); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("terminate without an operation: %v", err)
	}
	if err := c.Sync(ctx, "shop", SyncOptions{Prune: true, By: "ann", Options: []string{"ServerSideApply=true"}}); err != nil {
		t.Fatal(err)
	}
	op, _, _ := unstructured.NestedMap(raw(t, f, "shop").Object, "operation")
	who, _, _ := unstructured.NestedString(op, "initiatedBy", "username")
	prune, _, _ := unstructured.NestedBool(op, "sync", "prune")
	if who != "ann" || !prune {
		t.Errorf("operation %v", op)
	}
	if err := c.Sync(ctx, "shop", SyncOptions{}); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("second sync: %v", err)
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	c, _ := newFake(t, object(t, appYAML))
	if err := c.Rollback(t.Context(), "shop", 0, false, "ann"); !errors.Is(err, ErrAutomated) {
		t.Errorf("rollback under automated sync: %v", err)
	}
	manual := object(t, appYAML)
	unstructured.RemoveNestedField(manual.Object, "spec", "syncPolicy")
	c, f := newFake(t, manual)
	if err := c.Rollback(t.Context(), "shop", 9, false, "ann"); delivery.KindOf(err) != delivery.NotFound {
		t.Errorf("unknown entry: %v", err)
	}
	if err := c.Rollback(t.Context(), "shop", 0, false, "ann"); err != nil {
		t.Fatal(err)
	}
	revision, _, _ := unstructured.NestedString(raw(t, f, "shop").Object, "operation", "sync", "revision")
	if revision != "aaaa1111aaaa" {
		t.Errorf("rolled back to %q", revision)
	}
}

func TestDeleteCascade(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, object(t, appYAML))
	if err := c.Delete(t.Context(), "shop", false); err != nil {
		t.Fatal(err)
	}
	var patched string
	for _, a := range f.Actions() {
		if p, ok := a.(interface{ GetPatch() []byte }); ok {
			patched = string(p.GetPatch())
		}
	}
	if !strings.Contains(patched, `"finalizers":[]`) {
		t.Errorf("finalizer kept: %s", patched)
	}
	if _, err := c.Get(t.Context(), "shop"); !delivery.IsNotFound(err) {
		t.Errorf("after delete: %v", err)
	}
}

type fakeReverter struct{ got Reversal }

func (f *fakeReverter) Revert(_ context.Context, r Reversal, _ delivery.Identity) (string, error) {
	f.got = r
	return "dddd", nil
}

func TestRevert(t *testing.T) {
	t.Parallel()
	c, _ := newFake(t, object(t, appYAML))
	for _, tc := range []struct {
		id   int64
		good string
		kind delivery.Kind
	}{{0, "bbbb2222bbbb", ""}, {0 + 1, "bbbb2222bbbb", ""}, {2, "", delivery.Conflict}, {7, "", delivery.NotFound}} {
		r := &fakeReverter{}
		commit, err := c.Revert(t.Context(), r, "shop", tc.id, delivery.Identity{})
		if delivery.KindOf(err) != tc.kind {
			t.Errorf("entry %d: %v", tc.id, err)
			continue
		}
		if tc.kind == "" && (commit != "dddd" || r.got.Good != tc.good || r.got.Bad != "cccc3333cccc" || r.got.Branch != "main" || r.got.Paths[1] != "base") {
			t.Errorf("entry %d: %+v", tc.id, r.got)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	c, f := newFake(t, object(t, appYAML))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan Change, 10)
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, nil, func(ch Change) { changes <- ch }) }()
	if ch := <-changes; ch.Before != nil || ch.After.Name != "shop" {
		t.Fatalf("first change %+v", ch)
	}
	// The fake loses events before its watch is open, so ask until one comes.
	var ch Change
	for i := 0; ch.After == nil; i++ {
		if err := c.Refresh(ctx, "shop", i%2 == 0); err != nil {
			t.Fatal(err)
		}
		select {
		case ch = <-changes:
		default:
		}
	}
	if _, worth := ch.Event(); worth {
		t.Error("a refresh is no event")
	}
	u := raw(t, f, "shop")
	if err := unstructured.SetNestedField(u.Object, "Healthy", "status", "health", "status"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Resource(Resource).Namespace(Namespace).Update(ctx, u, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for {
		if e, worth := (<-changes).Event(); worth {
			if e.Health != "Healthy" || e.Revision != "eeee5555eeee" || e.Namespace != "shop" {
				t.Errorf("event %+v", e)
			}
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("end of the watch: %v", err)
	}
}
