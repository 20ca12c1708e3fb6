package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Annotations and finalizers that Argo CD documents.
const (
	refreshAnnotation = "argocd.argoproj.io/refresh"
	pathsAnnotation   = "argocd.argoproj.io/manifest-generate-paths"
	cascadeFinalizer  = "resources-finalizer.argocd.argoproj.io"
)

// Client reads Applications and acts on them through the Kubernetes API, so it
// works while the Argo CD API is down; what needs rendered manifests (tree,
// differences) is on Server. Safe for concurrent use. Errors are of kind
// NotFound, Conflict, Invalid or Unavailable.
type Client struct{ kube dynamic.Interface }

// NewClient returns a Client on the platform's cluster.
func NewClient(kube dynamic.Interface) *Client { return &Client{kube: kube} }

func (c *Client) applications() dynamic.ResourceInterface {
	return c.kube.Resource(Resource).Namespace(Namespace)
}

// List returns all Applications, by name.
func (c *Client) List(ctx context.Context) ([]*Application, error) {
	list, err := c.applications().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list Applications", "", err)
	}
	apps := make([]*Application, 0, len(list.Items))
	for i := range list.Items {
		a, err := decode(&list.Items[i])
		if err != nil {
			return nil, err
		}
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(a, b *Application) int { return strings.Compare(a.Name, b.Name) })
	return apps, nil
}

// Get returns one Application.
func (c *Client) Get(ctx context.Context, name string) (*Application, error) {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, failed("read Application", name, err)
	}
	return decode(u)
}

// Refresh makes Argo CD compare at once; hard also renders the manifests
// again instead of taking them from the cache.
func (c *Client) Refresh(ctx context.Context, name string, hard bool) error {
	kind := "normal"
	if hard {
		kind = "hard"
	}
	return c.patch(ctx, "refresh", name, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{refreshAnnotation: kind}},
	})
}

// SyncOptions are the choices of a sync by hand.
type SyncOptions struct {
	Revision  string        // "" takes the Application's target revision
	Prune     bool          // delete what git no longer has
	DryRun    bool          // only say what would be done
	Force     bool          // delete and create again what cannot be changed
	Options   []string      // Argo CD's sync options, such as "ServerSideApply=true"
	Resources []ResourceKey // only these; empty means all
	By        string        // the user who asks
}

// ResourceKey names a resource in the destination.
type ResourceKey struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Sync starts a sync and returns at once. It is a Conflict while another
// operation runs, and for another revision than the Application follows under
// automated sync, which would undo it at once (Argo CD's API refuses it too).
func (c *Client) Sync(ctx context.Context, name string, o SyncOptions) error {
	if o.Revision != "" && !o.DryRun {
		a, err := c.Get(ctx, name)
		if err != nil {
			return err
		}
		if a.Automated.Enabled && (len(a.Sources) == 0 || o.Revision != a.Sources[0].TargetRevision) {
			return delivery.Errorf(delivery.Conflict, "This application is synced automatically from git, so the sync of another revision would be undone at once. Push, or revert the commit, instead.")
		}
	}
	sync := map[string]any{"prune": o.Prune}
	if o.Revision != "" {
		sync["revision"] = o.Revision
	}
	if o.DryRun {
		sync["dryRun"] = true
	}
	if o.Force {
		sync["syncStrategy"] = map[string]any{"hook": map[string]any{"force": true}}
	}
	if len(o.Options) > 0 {
		sync["syncOptions"] = o.Options
	}
	if len(o.Resources) > 0 {
		sync["resources"] = o.Resources
	}
	return c.operate(ctx, "sync", name, o.By, sync)
}

// ErrAutomated is returned by Rollback under automated sync, where Argo CD
// would bring the newest commit back at once. Revert is the way there.
var ErrAutomated = delivery.Errorf(delivery.Conflict, "This application is synced automatically from git, so a rollback would be undone at once. Revert the commit instead.")

// Rollback syncs the revision of a history entry, git unchanged.
func (c *Client) Rollback(ctx context.Context, name string, historyID int64, prune bool, by string) error {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return failed("read Application", name, err)
	}
	a, err := decode(u)
	if err != nil {
		return err
	}
	if a.Automated.Enabled {
		return ErrAutomated
	}
	raw, _, _ := unstructured.NestedSlice(u.Object, "status", "history")
	for _, e := range raw {
		entry, ok := e.(map[string]any)
		if id, _, _ := unstructured.NestedInt64(entry, "id"); !ok || id != historyID {
			continue
		}
		sync := map[string]any{"prune": prune, "syncStrategy": map[string]any{"apply": map[string]any{}}}
		for _, k := range []string{"revision", "revisions", "source", "sources"} {
			if v, ok := entry[k]; ok {
				sync[k] = v
			}
		}
		return c.operate(ctx, "rollback", name, by, sync)
	}
	return delivery.Errorf(delivery.NotFound, "Application %s has no history entry %d.", name, historyID)
}

// operate hands the application controller an operation, as Argo CD's API
// server does; the optimistic lock keeps two users apart.
func (c *Client) operate(ctx context.Context, what, name, by string, sync map[string]any) error {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return failed("read Application", name, err)
	}
	phase, _, _ := unstructured.NestedString(u.Object, "status", "operationState", "phase")
	if _, pending := u.Object["operation"]; pending || phase == "Running" {
		return delivery.Errorf(delivery.Conflict, "Application %s is being synced already; wait for the end or terminate it.", name)
	}
	return c.patch(ctx, what, name, map[string]any{
		"metadata":  map[string]any{"resourceVersion": u.GetResourceVersion()},
		"operation": map[string]any{"initiatedBy": map[string]any{"username": by}, "sync": sync, "retry": map[string]any{}},
	})
}

// Terminate ends the running operation.
func (c *Client) Terminate(ctx context.Context, name string) error {
	a, err := c.Get(ctx, name)
	if err != nil {
		return err
	}
	if a.Operation == nil || a.Operation.Phase != "Running" {
		return delivery.Errorf(delivery.Conflict, "No operation of application %s is running.", name)
	}
	return c.patch(ctx, "terminate", name, map[string]any{"status": map[string]any{"operationState": map[string]any{"phase": "Terminating"}}})
}

// Delete removes an Application; cascade also removes what it deployed.
func (c *Client) Delete(ctx context.Context, name string, cascade bool) error {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return failed("read Application", name, err)
	}
	has := slices.Contains(u.GetFinalizers(), cascadeFinalizer)
	if has != cascade {
		finalizers := slices.DeleteFunc(u.GetFinalizers(), func(f string) bool { return f == cascadeFinalizer })
		if cascade {
			finalizers = append(finalizers, cascadeFinalizer)
		}
		change := map[string]any{"metadata": map[string]any{"finalizers": finalizers, "resourceVersion": u.GetResourceVersion()}}
		if err := c.patch(ctx, "delete", name, change); err != nil {
			return err
		}
	}
	if err := c.applications().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return failed("delete Application", name, err)
	}
	return nil
}

// Apply creates an Application or brings it to the given manifest.
func (c *Client) Apply(ctx context.Context, manifest *unstructured.Unstructured) error {
	_, err := c.applications().Apply(ctx, manifest.GetName(), manifest, metav1.ApplyOptions{FieldManager: "slipway", Force: true})
	if err != nil {
		return failed("apply Application", manifest.GetName(), err)
	}
	return nil
}

// Event is a Kubernetes event about a resource.
type Event struct {
	Type    string // Normal, Warning
	Reason  string
	Message string
	Object  string // kind/name
	Count   int32
	Last    time.Time
}

// Events returns the events of an Application, newest first.
func (c *Client) Events(ctx context.Context, name string) ([]Event, error) {
	return c.events(ctx, Namespace, "involvedObject.kind=Application,involvedObject.name="+name)
}

// ResourceEvents returns the events of a resource in the cluster, newest first.
func (c *Client) ResourceEvents(ctx context.Context, k ResourceKey) ([]Event, error) {
	return c.events(ctx, k.Namespace, "involvedObject.kind="+k.Kind+",involvedObject.name="+k.Name)
}

func (c *Client) events(ctx context.Context, namespace, selector string) ([]Event, error) {
	resource := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	list, err := c.kube.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return nil, failed("list events", "", err)
	}
	events := make([]Event, 0, len(list.Items))
	for i := range list.Items {
		var e corev1.Event
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &e); err != nil {
			return nil, fmt.Errorf("gitops: decode event: %w", err)
		}
		last := e.LastTimestamp.Time
		if last.IsZero() {
			last = e.EventTime.Time
		}
		events = append(events, Event{e.Type, e.Reason, e.Message, e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name, e.Count, last})
	}
	slices.SortStableFunc(events, func(a, b Event) int { return b.Last.Compare(a.Last) })
	return events, nil
}

func (c *Client) patch(ctx context.Context, what, name string, change map[string]any) error {
	body, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("gitops: %s: %w", what, err)
	}
	if _, err := c.applications().Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "slipway"}); err != nil {
		return failed(what, name, err)
	}
	return nil
}

// failed gives an error of the Kubernetes API its kind.
func failed(op, name string, err error) error {
	return kubewatch.Failed("gitops: "+op, "application", name, err)
}
