package cluster

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"text/template"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/node"
)

//go:embed manifests/*.yaml
var manifestFiles embed.FS

// fieldManager is the name under which the platform's objects are applied.
const fieldManager = "slipway-cluster"

func restConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return config, nil
}

// manifests renders the objects every cluster starts with.
func manifests(c node.Config, ca []byte) ([]*unstructured.Unstructured, error) {
	templates, err := template.ParseFS(manifestFiles, "manifests/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse manifests: %w", err)
	}
	values := struct {
		node.Config
		Gateway, CABundle string
	}{c, c.Gateway().String(), base64.StdEncoding.EncodeToString(ca)}
	var objects []*unstructured.Unstructured
	for _, file := range templates.Templates() {
		var text bytes.Buffer
		if err := file.Execute(&text, values); err != nil {
			return nil, fmt.Errorf("render manifest %s: %w", file.Name(), err)
		}
		for decoder := yaml.NewYAMLOrJSONDecoder(&text, 4096); ; {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("decode manifest %s: %w", file.Name(), err)
			}
			if len(object.Object) > 0 {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}

// applyManifests brings the objects every cluster starts with into the API
// server. Fields that others have added stay.
func applyManifests(ctx context.Context, c node.Config, creds *credentials) error {
	ca, err := os.ReadFile(creds.cert("ca"))
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	objects, err := manifests(c, ca)
	if err != nil {
		return err
	}
	config, err := restConfig(creds.kubeconfig("admin"))
	if err != nil {
		return err
	}
	config.QPS = -1 // two dozen requests, once
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client for manifests: %w", err)
	}
	for _, object := range objects {
		// Only kinds with regular plurals are in the manifests.
		resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		_, err := client.Resource(resource).Namespace(object.GetNamespace()).
			Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}
