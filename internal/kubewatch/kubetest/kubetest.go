// Package kubetest completes client-go's fake of the Kubernetes API for tests.
//
// It receives a fake client and emits nothing. It must import nothing of ours.
package kubetest

import (
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Apply makes server-side apply create what is not there yet, which the fake
// does not; made, which may be nil, is told of it.
func Apply(kube *fake.FakeDynamicClient, made func(resource, name string)) {
	kube.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch := action.(clienttesting.PatchAction)
		if patch.GetPatchType() != types.ApplyPatchType {
			return false, nil, nil
		}
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(patch.GetPatch(), &u.Object); err != nil {
			return true, nil, err
		}
		err := kube.Tracker().Create(patch.GetResource(), u, patch.GetNamespace())
		if apierrors.IsAlreadyExists(err) {
			return true, u, kube.Tracker().Update(patch.GetResource(), u, patch.GetNamespace())
		}
		if err == nil && made != nil {
			made(patch.GetResource().Resource, u.GetName())
		}
		return true, u, err
	})
}
