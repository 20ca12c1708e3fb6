package trust

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

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
	pods       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// managedBy marks our ConfigMaps: one of the same name without it is somebody
// else's and stays as it is.
const managedBy = "app.kubernetes.io/managed-by"

// recheck is how often a namespace whose pods still mount the bundle from its
// ConfigMap is looked at again.
const recheck = 15 * time.Minute

// Distribute keeps the ConfigMap slipway-ca with the files but the bundle in
// every namespace until ctx ends, and the policy by which new pods look for the
// certificates. A ConfigMap that is changed or deleted comes back.
func Distribute(ctx context.Context, kube dynamic.Interface, files map[string]string, log *slog.Logger) {
	d := newDistributor(kube, files, log)
	done := make(chan struct{}, 3)
	go func() { putPolicies(ctx, kube, log); done <- struct{}{} }()
	go func() { d.followNamespaces(ctx); done <- struct{}{} }()
	go func() { d.followConfigMaps(ctx); done <- struct{}{} }()
	var again <-chan time.Time
	for {
		if again == nil && len(d.bundled) > 0 {
			again = time.After(recheck)
		}
		select {
		case <-again:
			again = nil
			for _, namespace := range slices.Collect(maps.Keys(d.bundled)) {
				d.keep(ctx, namespace)
			}
		case namespace := <-d.wanted:
			d.keep(ctx, namespace)
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
	files  map[string]string // of a ConfigMap
	full   map[string]string // with the bundle
	log    *slog.Logger
	wanted chan string
	// bundled are the namespaces whose ConfigMap still has the bundle.
	bundled map[string]bool
}

func newDistributor(kube dynamic.Interface, files map[string]string, log *slog.Logger) *distributor {
	d := &distributor{kube: kube, files: maps.Clone(files), full: files, log: log, wanted: make(chan string, 1024), bundled: map[string]bool{}}
	delete(d.files, BundleFile)
	return d
}

func (d *distributor) keep(ctx context.Context, namespace string) {
	if err := d.put(ctx, namespace); err != nil && ctx.Err() == nil {
		d.log.Warn("a namespace has no ConfigMap with the certificate authority", "namespace", namespace, "err", err)
	}
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
			if data := dataOf(u); !maps.Equal(data, d.files) && !maps.Equal(data, d.full) && u.GetLabels()[managedBy] == "slipway" {
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

func dataOf(u *unstructured.Unstructured) map[string]string {
	data, _, err := unstructured.NestedStringMap(u.Object, "data")
	if err != nil {
		return nil // a value that is no text: somebody else's
	}
	return data
}

// put makes a namespace's ConfigMap what it should be. A namespace that is
// going is left alone.
func (d *distributor) put(ctx context.Context, namespace string) error {
	delete(d.bundled, namespace)
	ns, err := d.kube.Resource(namespaces).Get(ctx, namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && deleting(ns) {
		return nil
	}
	if err != nil {
		return err
	}
	api := d.kube.Resource(configMaps).Namespace(namespace)
	have, err := api.Get(ctx, ConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = api.Create(ctx, configMap(namespace, d.files), metav1.CreateOptions{FieldManager: "slipway"})
	case err != nil:
	case have.GetLabels()[managedBy] != "slipway":
		return nil
	default:
		err = d.update(ctx, api, have)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, "NamespaceTerminating") {
		return nil // the watch tells of it again
	}
	return err
}

// update writes what differs. A ConfigMap that has the bundle, as earlier
// versions made it, keeps it while a pod may have it open.
func (d *distributor) update(ctx context.Context, api dynamic.ResourceInterface, have *unstructured.Unstructured) error {
	data, files := dataOf(have), d.files
	if data[BundleFile] != "" {
		list, err := d.kube.Resource(pods).Namespace(have.GetNamespace()).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list.Items, mounts) {
			files, d.bundled[have.GetNamespace()] = d.full, true
		}
	}
	if maps.Equal(data, files) {
		return nil
	}
	object := configMap(have.GetNamespace(), files)
	object.SetResourceVersion(have.GetResourceVersion())
	_, err := api.Update(ctx, object, metav1.UpdateOptions{FieldManager: "slipway"})
	return err
}

// mounts reports whether a pod has a volume with the ConfigMap.
func mounts(pod unstructured.Unstructured) bool {
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	return slices.ContainsFunc(volumes, func(volume any) bool {
		fields, _ := volume.(map[string]any)
		if name, _, _ := unstructured.NestedString(fields, "configMap", "name"); name == ConfigMap {
			return true
		}
		sources, _, _ := unstructured.NestedSlice(fields, "projected", "sources")
		return slices.ContainsFunc(sources, func(source any) bool {
			fields, _ := source.(map[string]any)
			name, _, _ := unstructured.NestedString(fields, "configMap", "name")
			return name == ConfigMap
		})
	})
}

func configMap(namespace string, files map[string]string) *unstructured.Unstructured {
	data := map[string]any{}
	for k, v := range files {
		data[k] = v
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{"name": ConfigMap, "namespace": namespace, "labels": map[string]any{managedBy: "slipway"},
			"annotations": map[string]any{"kubernetes.io/description": "The platform's own certificate authority. Pods see it, and a bundle with the public ones, in /etc/slipway/certs."}},
	}}
}
