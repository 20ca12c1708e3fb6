package trust

import (
	"context"
	"log/slog"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// managedBy marks our ConfigMaps: one of the same name without it is somebody
// else's and stays as it is.
const managedBy = "app.kubernetes.io/managed-by"

// Distribute keeps the ConfigMap slipway-ca with the files in every namespace
// until ctx ends, and the policy by which new pods see it. A ConfigMap that is
// changed or deleted comes back.
func Distribute(ctx context.Context, kube dynamic.Interface, files map[string]string, log *slog.Logger) {
	d := &distributor{kube: kube, files: files, log: log, wanted: make(chan string, 1024)}
	done := make(chan struct{}, 3)
	go func() { mountInPods(ctx, kube, log); done <- struct{}{} }()
	go func() { d.followNamespaces(ctx); done <- struct{}{} }()
	go func() { d.followConfigMaps(ctx); done <- struct{}{} }()
	for {
		select {
		case namespace := <-d.wanted:
			if err := d.put(ctx, namespace); err != nil && ctx.Err() == nil {
				log.Warn("a namespace has no ConfigMap with the certificate authority", "namespace", namespace, "err", err)
			}
		case <-ctx.Done():
			for range cap(done) {
				<-done
			}
			return
		}
	}
}

type distributor struct {
	kube   dynamic.Interface
	files  map[string]string
	log    *slog.Logger
	wanted chan string
}

func (d *distributor) want(ctx context.Context, namespace string) {
	select {
	case d.wanted <- namespace:
	case <-ctx.Done():
	}
}

func (d *distributor) followNamespaces(ctx context.Context) {
	f := kubewatch.Follower[string]{Resource: d.kube.Resource(namespaces), Decode: nameUnless(deleting),
		Tell: func(before, after *string) {
			if after != nil && *after != "" && (before == nil || *before == "") {
				d.want(ctx, *after)
			}
		}}
	f.Run(ctx)
}

func (d *distributor) followConfigMaps(ctx context.Context) {
	f := kubewatch.Follower[unstructured.Unstructured]{Resource: selected{d.kube.Resource(configMaps)},
		Decode: func(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
			slim := &unstructured.Unstructured{}
			slim.SetNamespace(u.GetNamespace())
			if !d.same(u) && u.GetLabels()[managedBy] == "slipway" {
				slim.SetName("differs")
			}
			return slim, nil
		},
		Tell: func(before, after *unstructured.Unstructured) {
			switch {
			case after == nil:
				d.want(ctx, before.GetNamespace())
			case after.GetName() == "differs":
				d.want(ctx, after.GetNamespace())
			}
		}}
	f.Run(ctx)
}

func deleting(u *unstructured.Unstructured) bool { return u.GetDeletionTimestamp() != nil }

// nameUnless decodes an object to its name, or to "" where not is true.
func nameUnless(not func(*unstructured.Unstructured) bool) func(*unstructured.Unstructured) (*string, error) {
	return func(u *unstructured.Unstructured) (*string, error) {
		name := u.GetName()
		if not(u) {
			name = ""
		}
		return &name, nil
	}
}

// selected narrows a resource to the ConfigMaps of our name.
type selected struct {
	dynamic.NamespaceableResourceInterface
}

const ours = "metadata.name=" + ConfigMap

func (s selected) List(ctx context.Context, o metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	o.FieldSelector = ours
	return s.NamespaceableResourceInterface.List(ctx, o)
}

func (s selected) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector = ours
	return s.NamespaceableResourceInterface.Watch(ctx, o)
}

func (d *distributor) same(u *unstructured.Unstructured) bool {
	data, _, err := unstructured.NestedStringMap(u.Object, "data")
	return err == nil && maps.Equal(data, d.files)
}

// put makes a namespace's ConfigMap what it should be. A namespace that is
// going is left alone.
func (d *distributor) put(ctx context.Context, namespace string) error {
	ns, err := d.kube.Resource(namespaces).Get(ctx, namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && deleting(ns) {
		return nil
	}
	if err != nil {
		return err
	}
	data := map[string]any{}
	for k, v := range d.files {
		data[k] = v
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{"name": ConfigMap, "namespace": namespace, "labels": map[string]any{managedBy: "slipway"},
			"annotations": map[string]any{"kubernetes.io/description": "Certificates by which pods trust the platform's own certificate authority."}},
	}}
	api := d.kube.Resource(configMaps).Namespace(namespace)
	have, err := api.Get(ctx, ConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = api.Create(ctx, object, metav1.CreateOptions{FieldManager: "slipway"})
	case err != nil:
	case have.GetLabels()[managedBy] != "slipway" || d.same(have):
		return nil
	default:
		object.SetResourceVersion(have.GetResourceVersion())
		_, err = api.Update(ctx, object, metav1.UpdateOptions{FieldManager: "slipway"})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, "NamespaceTerminating") {
		return nil // the watch tells of it again
	}
	return err
}
