package gitops

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// ownerAnnotation names the project of the forge, by id, that a namespace and
// its Application were made for.
const ownerAnnotation = "slipway.dev/project-id"

// holdAnnotation names the file of the GitOps repository that does not name an
// image yet: until it does, there is nothing that could run, and automated
// sync is off. holdLabel makes such Applications easy to find.
const (
	holdAnnotation = "slipway.dev/waits-for-image-in"
	holdLabel      = "slipway.dev/waits-for-image"
)

var (
	namespaces  = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	appProjects = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "appprojects"}
)

// Placement gives a project of the forge a namespace of its own and an
// Application that deploys into it. All three objects have the namespace's name.
type Placement struct {
	Owner       string // the project's id
	Namespace   string
	Project     *unstructured.Unstructured // AppProject
	Application *unstructured.Unstructured
	// ImageFile of the repository gets the image's digest from the first
	// pipeline; a new Application waits for that, see LetGo.
	ImageFile string
}

// Place makes the placement, or brings it to the given manifests. It may be
// repeated. It is a Conflict where the namespace or the Application belongs to
// somebody else. The namespace refuses privileged pods (Pod Security Standard
// "baseline"), because who may push manifests is no administrator.
func (c *Client) Place(ctx context.Context, p Placement) error {
	labels := p.Application.GetLabels()
	for _, o := range []*unstructured.Unstructured{p.Project, p.Application} {
		if o.GetName() != p.Namespace || o.GetNamespace() != Namespace {
			return fmt.Errorf("gitops: place %s: %s %s/%s has another name", p.Namespace, o.GetKind(), o.GetNamespace(), o.GetName())
		}
		o.SetAnnotations(map[string]string{ownerAnnotation: p.Owner})
	}
	old, err := c.applications().Get(ctx, p.Namespace, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return failed("place", p.Namespace, err)
	}
	if err == nil && old.GetAnnotations()[ownerAnnotation] != p.Owner {
		return taken("application", p.Namespace)
	}
	if first := apierrors.IsNotFound(err); first || old.GetLabels()[holdLabel] != "" {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[holdLabel] = "true"
		p.Application.SetLabels(labels)
		p.Application.SetAnnotations(map[string]string{ownerAnnotation: p.Owner, holdAnnotation: p.ImageFile})
		if err := unstructured.SetNestedField(p.Application.Object, false, "spec", "syncPolicy", "automated", "enabled"); err != nil {
			return fmt.Errorf("gitops: place %s: %w", p.Namespace, err)
		}
	}
	if err := c.ownNamespace(ctx, p.Namespace, p.Owner); err != nil {
		return err
	}
	options := metav1.ApplyOptions{FieldManager: "slipway", Force: true}
	if _, err := c.kube.Resource(appProjects).Namespace(Namespace).Apply(ctx, p.Namespace, p.Project, options); err != nil {
		return failed("place project", p.Namespace, err)
	}
	return c.Apply(ctx, p.Application)
}

// ownNamespace makes the namespace unless it is the owner's already.
func (c *Client) ownNamespace(ctx context.Context, name, owner string) error {
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	ns.SetName(name)
	ns.SetAnnotations(map[string]string{ownerAnnotation: owner})
	ns.SetLabels(map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
	_, err := c.kube.Resource(namespaces).Create(ctx, ns, metav1.CreateOptions{FieldManager: "slipway"})
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return failed("create namespace", name, err)
	}
	old, err := c.kube.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return failed("read namespace", name, err)
	}
	if old.GetAnnotations()[ownerAnnotation] != owner {
		return taken("namespace", name)
	}
	return nil
}

// PlacedFor returns the id of the project that an Application was placed for,
// or "" for one that somebody made by hand. It is a NotFound without one.
func (c *Client) PlacedFor(ctx context.Context, name string) (string, error) {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", failed("read Application", name, err)
	}
	return u.GetAnnotations()[ownerAnnotation], nil
}

// LetGo turns the automated sync of Applications on that wait for their first
// image, where named says that their file has one now.
func (c *Client) LetGo(ctx context.Context, repoURL string, named func(file string) (bool, error)) error {
	list, err := c.applications().List(ctx, metav1.ListOptions{LabelSelector: holdLabel})
	if err != nil {
		return failed("list waiting Applications", "", err)
	}
	for i := range list.Items {
		u := &list.Items[i]
		source, _, err := unstructured.NestedString(u.Object, "spec", "source", "repoURL")
		if err != nil || source != repoURL {
			continue // made by hand in another form, or of another repository
		}
		ok, err := named(u.GetAnnotations()[holdAnnotation])
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		change := map[string]any{
			"metadata": map[string]any{"labels": map[string]any{holdLabel: nil}, "annotations": map[string]any{holdAnnotation: nil}},
			"spec":     map[string]any{"syncPolicy": map[string]any{"automated": map[string]any{"enabled": true}}},
		}
		if err := c.patch(ctx, "let go", u.GetName(), change); err != nil {
			return err
		}
	}
	return nil
}

// Displace takes away what was placed for a project: the Application with what
// it applied, the namespace and the AppProject, in this order, as Argo CD needs
// the last to delete the first. It may be repeated, and waits until all is gone.
func (c *Client) Displace(ctx context.Context, owner string) error {
	list, err := c.applications().List(ctx, metav1.ListOptions{})
	if err != nil {
		return failed("list Applications", "", err)
	}
	for i := range list.Items {
		name := list.Items[i].GetName()
		if list.Items[i].GetAnnotations()[ownerAnnotation] != owner {
			continue
		}
		if err := c.Delete(ctx, name, true); err != nil && !delivery.IsNotFound(err) {
			return err
		}
		if err := c.gone(ctx, name); err != nil {
			return err
		}
		if err := c.DeleteNamespace(ctx, name); err != nil {
			return err
		}
		err := c.kube.Resource(appProjects).Namespace(Namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return failed("delete project", name, err)
		}
	}
	return nil
}

// gone waits until an Application is deleted.
func (c *Client) gone(ctx context.Context, name string) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.applications().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return failed("read Application", name, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// DeleteNamespace deletes a namespace with everything in it and waits until it
// is gone; one that is not there is no error.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.kube.Resource(namespaces).Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		// A conflict only says that it is on its way already.
		if err != nil && !apierrors.IsConflict(err) {
			return failed("delete namespace", name, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Waiting reports whether an Application waits for its first image.
func (a *Application) Waiting() bool { return a.Labels[holdLabel] != "" }

func taken(what, name string) error {
	return &delivery.Error{Kind: delivery.Conflict, Message: fmt.Sprintf("The cluster has a %s %s that belongs to something else.", what, name), Next: "Rename the project, or delete the other one."}
}
