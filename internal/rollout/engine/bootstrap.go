package engine

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipwayhq/slipway/internal/manifest"
)

var clusterTemplateResource = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "clusteranalysistemplates"}

// bootstrap applies definitions, namespace and ClusterAnalysisTemplates. The
// templates are the platform's: to change one, copy it under another name.
func (e *Engine) bootstrap(ctx context.Context) error {
	crds, err := manifest.DecodeFiles(crdFiles, "crds")
	if err != nil {
		return err
	}
	if err := manifest.ApplyCRDs(ctx, e.dynamic, crds, pause); err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	_, err = e.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: manifest.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", Namespace, err)
	}
	templates, err := manifest.DecodeFiles(templateFiles, "templates")
	if err != nil {
		return err
	}
	for _, t := range templates {
		if err := e.address(t); err != nil {
			return err
		}
		if err := manifest.Apply(ctx, e.dynamic, clusterTemplateResource, t); err != nil {
			return err
		}
	}
	return nil
}

// address fills in where the platform answers, which the templates of the web
// provider name in full. Prometheus is served below the same address.
func (e *Engine) address(template *unstructured.Unstructured) error {
	metrics, _, err := unstructured.NestedSlice(template.Object, "spec", "metrics")
	if err != nil {
		return fmt.Errorf("template %s: %w", template.GetName(), err)
	}
	for _, m := range metrics {
		metric, ok := m.(map[string]any)
		if !ok {
			continue
		}
		url, found, err := unstructured.NestedString(metric, "provider", "web", "url")
		if err != nil {
			return fmt.Errorf("template %s: %w", template.GetName(), err)
		}
		if found {
			url = strings.Replace(url, "PLATFORM_URL", strings.TrimSuffix(e.options.PrometheusURL, "/prometheus"), 1)
			if err := unstructured.SetNestedField(metric, url, "provider", "web", "url"); err != nil {
				return fmt.Errorf("template %s: %w", template.GetName(), err)
			}
		}
	}
	return unstructured.SetNestedSlice(template.Object, metrics, "spec", "metrics")
}
