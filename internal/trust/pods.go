package trust

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// podsManifest has the policy by which new pods look for the certificates.
//
//go:embed pods.yaml
var podsManifest []byte

// admission are the resources of the manifest, by kind.
var admission = map[string]schema.GroupVersionResource{
	"MutatingAdmissionPolicy":        {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicies"},
	"MutatingAdmissionPolicyBinding": {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings"},
}

// retryAfter is how long a refused policy waits for the next try.
const retryAfter = 5 * time.Second

// putPolicies puts the policy into the cluster, and tries again until it is
// there or ctx ends. One of its name that is not ours stays as it is.
func putPolicies(ctx context.Context, kube dynamic.Interface, log *slog.Logger) {
	for told := false; ; told = true {
		err := putPolicy(ctx, kube)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !told {
			log.Warn("new pods do not see the certificate authority by themselves; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryAfter):
		}
	}
}

func putPolicy(ctx context.Context, kube dynamic.Interface) error {
	for _, document := range bytes.Split(podsManifest, []byte("\n---\n")) {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return fmt.Errorf("trust: the policy for pods: %w", err)
		}
		api := kube.Resource(admission[object.GetKind()])
		have, err := api.Get(ctx, object.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = api.Create(ctx, object, metav1.CreateOptions{FieldManager: "slipway"})
		case err == nil && have.GetLabels()[managedBy] == "slipway":
			object.SetResourceVersion(have.GetResourceVersion())
			_, err = api.Update(ctx, object, metav1.UpdateOptions{FieldManager: "slipway"})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("trust: %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}
