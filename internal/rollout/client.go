package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Resource is the Kubernetes resource of Rollouts.
var Resource = v1alpha1.RolloutGVR

var (
	replicaSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	// eventResource is the core API's; kubectl shows both kinds.
	eventResource = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	analysisRuns  = v1alpha1.AnalysisRunGVR
	experiments   = v1alpha1.SchemeGroupVersion.WithResource("experiments")
)

// Client reads Rollouts and acts on them through the Kubernetes API, with the
// same patches as the kubectl plugin. Safe for concurrent use. Errors are of
// kind NotFound, Conflict, Invalid or Unavailable.
type Client struct {
	kube dynamic.Interface
	now  func() time.Time
}

// NewClient returns a Client on the platform's cluster.
func NewClient(kube dynamic.Interface) *Client { return &Client{kube: kube, now: time.Now} }

// List returns the Rollouts of a namespace, or of all with "".
func (c *Client) List(ctx context.Context, namespace string) ([]*Rollout, error) {
	list, err := c.kube.Resource(Resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list Rollouts", "", err)
	}
	var out []*Rollout
	for i := range list.Items {
		ro, err := decode(&list.Items[i])
		if err != nil {
			return nil, err
		}
		if err := c.fillTemplate(ctx, ro); err != nil {
			return nil, err
		}
		out = append(out, convert(ro))
	}
	slices.SortFunc(out, func(a, b *Rollout) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return out, nil
}

// Get returns one Rollout.
func (c *Client) Get(ctx context.Context, namespace, name string) (*Rollout, error) {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return convert(ro), nil
}

// Revisions returns a Rollout's versions with their pods and analyses, newest
// first.
func (c *Client) Revisions(ctx context.Context, namespace, name string) ([]Revision, error) {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	o, err := c.objects(ctx, namespace)
	if err != nil {
		return nil, err
	}
	revs := o.revisions(ro)
	slices.SortFunc(revs, func(a, b Revision) int { return int(b.Number - a.Number) })
	return revs, nil
}

// objects reads what tells of the Rollouts of a namespace.
func (c *Client) objects(ctx context.Context, namespace string) (*objects, error) {
	var o objects
	var err error
	if o.sets, err = list[appsv1.ReplicaSet](ctx, c.kube, replicaSets, namespace); err != nil {
		return nil, err
	}
	if o.pods, err = list[corev1.Pod](ctx, c.kube, podResource, namespace); err != nil {
		return nil, err
	}
	if o.runs, err = list[v1alpha1.AnalysisRun](ctx, c.kube, analysisRuns, namespace); err != nil {
		return nil, err
	}
	if o.experiments, err = list[v1alpha1.Experiment](ctx, c.kube, experiments, namespace); err != nil {
		return nil, err
	}
	slices.SortFunc(o.runs, func(a, b v1alpha1.AnalysisRun) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	slices.SortFunc(o.pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return &o, nil
}

func list[T any](ctx context.Context, kube dynamic.Interface, r schema.GroupVersionResource, namespace string) ([]T, error) {
	l, err := kube.Resource(r).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list "+r.Resource, "", err)
	}
	out := make([]T, len(l.Items))
	for i := range l.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(l.Items[i].Object, &out[i]); err != nil {
			return nil, fmt.Errorf("rollout: decode %s %s: %w", r.Resource, l.Items[i].GetName(), err)
		}
	}
	return out, nil
}

// Promote ends the current pause or analysis step; what follows it is done.
func (c *Client) Promote(ctx context.Context, namespace, name string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	if ro.Status.StableRS == ro.Status.CurrentPodHash {
		return delivery.Errorf(delivery.Conflict, "Rollout %s has no new version to promote.", name)
	}
	if ro.Status.Abort {
		return delivery.Errorf(delivery.Conflict, "Rollout %s was aborted; retry it or revert the commit.", name)
	}
	if ro.Spec.Paused {
		if err := c.patch(ctx, ro, types.MergePatchType, spec("paused", false), ""); err != nil {
			return err
		}
	}
	status := map[string]any{"pauseConditions": nil}
	inconclusive := ro.Status.Canary.CurrentStepAnalysisRunStatus != nil &&
		ro.Status.Canary.CurrentStepAnalysisRunStatus.Status == v1alpha1.AnalysisPhaseInconclusive
	switch paused := len(ro.Status.PauseConditions) > 0; {
	case paused && inconclusive && ro.Status.ControllerPause:
		status["controllerPause"] = false
		status["currentStepIndex"] = nextStep(ro)
	case paused:
		// Clearing the conditions is enough: the controller goes on.
	case ro.Spec.Strategy.Canary != nil && len(ro.Spec.Strategy.Canary.Steps) > 0:
		status["currentStepIndex"] = nextStep(ro)
	}
	return c.patch(ctx, ro, types.MergePatchType, map[string]any{"status": status}, "status")
}

func nextStep(ro *v1alpha1.Rollout) int32 {
	var i int32
	if ro.Status.CurrentStepIndex != nil {
		i = *ro.Status.CurrentStepIndex
	}
	return min(i+1, int32(len(ro.Spec.Strategy.Canary.Steps)))
}

// PromoteFull skips all steps, pauses and analyses that remain.
func (c *Client) PromoteFull(ctx context.Context, namespace, name string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	if ro.Status.StableRS == ro.Status.CurrentPodHash {
		return delivery.Errorf(delivery.Conflict, "Rollout %s has no new version to promote.", name)
	}
	if ro.Spec.Paused {
		if err := c.patch(ctx, ro, types.MergePatchType, spec("paused", false), ""); err != nil {
			return err
		}
	}
	return c.patch(ctx, ro, types.MergePatchType, statusField("promoteFull", true), "status")
}

// Pause holds the Rollout where it is; Promote lets it go on.
func (c *Client) Pause(ctx context.Context, namespace, name string) error {
	return c.act(ctx, namespace, name, types.MergePatchType, spec("paused", true), "")
}

// Resume lets a Rollout go on that a user has paused; a pause of its steps is
// ended by Promote.
func (c *Client) Resume(ctx context.Context, namespace, name string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	if !ro.Spec.Paused {
		return delivery.Errorf(delivery.Conflict, "Rollout %s was not paused by a user; promote it to end a pause of its steps.", name)
	}
	return c.patch(ctx, ro, types.MergePatchType, spec("paused", false), "")
}

// Abort sends all traffic back to the stable version. Git still asks for the
// new one: revert the commit, or retry.
func (c *Client) Abort(ctx context.Context, namespace, name string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	if ro.Status.StableRS == ro.Status.CurrentPodHash {
		return delivery.Errorf(delivery.Conflict, "Rollout %s has no new version to abort.", name)
	}
	return c.patch(ctx, ro, types.MergePatchType, statusField("abort", true), "status")
}

// Retry starts an aborted Rollout again from its first step.
func (c *Client) Retry(ctx context.Context, namespace, name string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	if !ro.Status.Abort {
		return delivery.Errorf(delivery.Conflict, "Rollout %s is not aborted; there is nothing to retry.", name)
	}
	return c.patch(ctx, ro, types.MergePatchType, statusField("abort", false), "status")
}

// Restart replaces the pods without a new version.
func (c *Client) Restart(ctx context.Context, namespace, name string) error {
	return c.act(ctx, namespace, name, types.MergePatchType, spec("restartAt", c.now().UTC().Format(time.RFC3339)), "")
}

// Undo takes the pod template of an earlier revision, in the Rollout or in what
// its workloadRef names; 0 is the one before the current. Under automated sync Argo CD undoes it: revert the commit there.
func (c *Client) Undo(ctx context.Context, namespace, name string, revision int64) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	sets, err := list[appsv1.ReplicaSet](ctx, c.kube, replicaSets, namespace)
	if err != nil {
		return err
	}
	revs := (&objects{sets: sets}).revisions(ro)
	slices.SortFunc(revs, func(a, b Revision) int { return int(b.Number - a.Number) })
	var target string
	for i, r := range revs {
		if r.Number == revision || revision == 0 && i == 1 {
			target = r.ManagedBy
		}
	}
	for i := range sets {
		if sets[i].Name != target || target == "" {
			continue
		}
		template := sets[i].Spec.Template
		delete(template.Labels, v1alpha1.DefaultRolloutUniqueLabelKey)
		owner, name, path, err := c.templateOwner(ro)
		if err != nil {
			return err
		}
		body, err := json.Marshal([]any{map[string]any{"op": "replace", "path": path, "value": template}})
		if err != nil {
			return fmt.Errorf("rollout: patch: %w", err)
		}
		if _, err := owner.Patch(ctx, name, types.JSONPatchType, body, metav1.PatchOptions{FieldManager: "slipway"}); err != nil {
			return failed("change the template of Rollout", ro.Name, err)
		}
		return nil
	}
	return delivery.Errorf(delivery.NotFound, "Rollout %s has no revision %d in its history.", name, revision)
}

// Event is a Kubernetes event of a Rollout or of one of its analysis runs or
// experiments.
type Event struct {
	At      time.Time // of the last time
	Kind    string    // of the object
	Object  string
	Reason  string
	Message string
	Warning bool
	Count   int32
}

// Events returns what was told of a Rollout, its analysis runs and its
// experiments, newest first, at most limit. Kubernetes keeps events for one hour.
func (c *Client) Events(ctx context.Context, namespace, name string, limit int) ([]Event, error) {
	all, err := list[corev1.Event](ctx, c.kube, eventResource, namespace)
	if err != nil {
		return nil, err
	}
	var out []Event
	for _, e := range all {
		about := e.InvolvedObject
		if !(about.Kind == "Rollout" && about.Name == name || (about.Kind == "AnalysisRun" || about.Kind == "Experiment") && strings.HasPrefix(about.Name, name+"-")) {
			continue
		}
		at := e.LastTimestamp.Time
		if at.IsZero() {
			at = latest(e.EventTime.Time, e.FirstTimestamp.Time, e.CreationTimestamp.Time)
		}
		out = append(out, Event{At: at, Kind: about.Kind, Object: about.Name, Reason: e.Reason, Message: e.Message, Warning: e.Type == corev1.EventTypeWarning, Count: max(1, e.Count)})
	}
	slices.SortStableFunc(out, func(a, b Event) int { return b.At.Compare(a.At) })
	return out[:min(len(out), limit)], nil
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// Announce writes a Kubernetes event about a Rollout.
func (c *Client) Announce(ctx context.Context, namespace, name, reason, message string, warning bool) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	now := metav1.NewTime(c.now())
	e := corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Rollout", Namespace: namespace, Name: name, UID: ro.UID, ResourceVersion: ro.ResourceVersion},
		Reason:         reason, Message: message[:min(len(message), 1024)], Type: corev1.EventTypeNormal, Count: 1,
		FirstTimestamp: now, LastTimestamp: now, Source: corev1.EventSource{Component: "slipway"},
	}
	if warning {
		e.Type = corev1.EventTypeWarning
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&e)
	if err != nil {
		return fmt.Errorf("rollout: event: %w", err)
	}
	if _, err := c.kube.Resource(eventResource).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{}); err != nil {
		return failed("write event", name, err)
	}
	return nil
}

func spec(key string, v any) map[string]any { return map[string]any{"spec": map[string]any{key: v}} }

func statusField(key string, v any) map[string]any {
	return map[string]any{"status": map[string]any{key: v}}
}

func (c *Client) act(ctx context.Context, namespace, name string, kind types.PatchType, change any, sub string) error {
	ro, err := c.get(ctx, namespace, name)
	if err != nil {
		return err
	}
	return c.patch(ctx, ro, kind, change, sub)
}

func (c *Client) get(ctx context.Context, namespace, name string) (*v1alpha1.Rollout, error) {
	u, err := c.kube.Resource(Resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, failed("read Rollout", name, err)
	}
	ro, err := decode(u)
	if err != nil {
		return nil, err
	}
	return ro, c.fillTemplate(ctx, ro)
}

func (c *Client) patch(ctx context.Context, ro *v1alpha1.Rollout, kind types.PatchType, change any, sub string) error {
	body, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("rollout: patch: %w", err)
	}
	var subs []string
	if sub != "" {
		subs = []string{sub}
	}
	_, err = c.kube.Resource(Resource).Namespace(ro.Namespace).Patch(ctx, ro.Name, kind, body, metav1.PatchOptions{FieldManager: "slipway"}, subs...)
	if err != nil {
		return failed("change Rollout", ro.Name, err)
	}
	return nil
}

// decode tolerates what the controller would refuse: an unknown field is no
// reason to show nothing.
func decode(u *unstructured.Unstructured) (*v1alpha1.Rollout, error) {
	var ro v1alpha1.Rollout
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &ro); err != nil {
		return nil, fmt.Errorf("rollout: decode %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return &ro, nil
}

// failed gives an error of the Kubernetes API its kind.
func failed(op, name string, err error) error {
	return kubewatch.Failed("rollout: "+op, "rollout", name, err)
}
