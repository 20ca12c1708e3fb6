// Package manifest applies the platform's own Kubernetes objects.
//
// It owns the idempotent, server-side apply of YAML that is embedded in an
// engine. It receives a dynamic client and documents, emits nothing, and
// imports neither an engine nor a stage.
package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
)

// FieldManager is the name under which the platform owns the fields it sets.
const FieldManager = "slipway"

// CRDResource is the resource of CustomResourceDefinitions.
var CRDResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Decode reads every document of a YAML stream; empty documents are skipped.
func Decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	dec := yaml.NewYAMLOrJSONDecoder(r, 4096)
	var objs []*unstructured.Unstructured
	for {
		var u unstructured.Unstructured
		if err := dec.Decode(&u.Object); errors.Is(err, io.EOF) {
			return objs, nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			objs = append(objs, &u)
		}
	}
}

// DecodeFiles reads the *.yaml files of a directory that contain a kind; other
// files, such as rules for generators, are skipped.
func DecodeFiles(fsys fs.FS, dir string) ([]*unstructured.Unstructured, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	var objs []*unstructured.Unstructured
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".yaml") {
			continue
		}
		data, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found, err := Decode(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		for _, u := range found {
			if u.GetKind() != "" {
				objs = append(objs, u)
			}
		}
	}
	return objs, nil
}

// Apply sets the object's fields by server-side apply and takes ownership of
// them from whoever set them before. It is for objects that belong to the
// platform, not for those that users edit.
func Apply(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, obj *unstructured.Unstructured) error {
	var target dynamic.ResourceInterface = client.Resource(resource)
	if ns := obj.GetNamespace(); ns != "" {
		target = client.Resource(resource).Namespace(ns)
	}
	_, err := target.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", obj.GetKind(), obj.GetName(), err)
	}
	return nil
}

// ApplyCRDs applies CustomResourceDefinitions and returns when the API server
// serves all of them; poll waits between two looks and ends on ctx.
func ApplyCRDs(ctx context.Context, client dynamic.Interface, crds []*unstructured.Unstructured, poll func(context.Context) error) error {
	for _, crd := range crds {
		if err := Apply(ctx, client, CRDResource, crd); err != nil {
			return err
		}
	}
	for _, crd := range crds {
		for {
			got, err := client.Resource(CRDResource).Get(ctx, crd.GetName(), metav1.GetOptions{})
			if err == nil && established(got) {
				break
			}
			if err := poll(ctx); err != nil {
				return fmt.Errorf("wait for %s to be served: %w", crd.GetName(), err)
			}
		}
	}
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	conds, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conds {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
			return true
		}
	}
	return false
}
