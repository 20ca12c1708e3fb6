package jobaccess_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/cluster/jobaccess"
)

func TestOwnNamespace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, slug, want string
	}{
		{"shop", "production", "shop-7-production"},
		{"My_Shop.v2", "review-x", "my-shop-v2-7-review-x"},
		{"__", "p", "project-7-p"},
		{strings.Repeat("long", 20), "staging", strings.Repeat("long", 13) + "l-7-staging"},
	} {
		got := jobaccess.OwnNamespace(jobaccess.Request{ProjectID: 7, ProjectPath: c.path, Slug: c.slug})
		if got != c.want || len(got) > 63 {
			t.Errorf("%s %s: %q (%d); want %q", c.path, c.slug, got, len(got), c.want)
		}
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	bindings := schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(scheme, map[schema.GroupVersionResource]string{bindings: "RoleBindingList"})
	var seconds int64
	client.PrependReactor("create", "serviceaccounts", func(a kubetesting.Action) (bool, runtime.Object, error) {
		create := a.(kubetesting.CreateAction)
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		o := create.GetObject().(*unstructured.Unstructured).DeepCopy()
		seconds, _, _ = unstructured.NestedInt64(o.Object, "spec", "expirationSeconds")
		return true, o, unstructured.SetNestedField(o.Object, "the-token", "status", "token")
	})
	r := jobaccess.Request{ProjectID: 7, ProjectPath: "shop", Environment: "production", Slug: "production", Granted: []string{"shop"}, Lifetime: time.Minute}
	for range 2 { // the second time everything is there
		a, err := jobaccess.For(t.Context(), client, "https://192.0.2.3:6443", []byte("CA"), r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Namespace != "shop" || a.Token != "the-token" || seconds != 600 {
			t.Errorf("%+v, %d s", a, seconds)
		}
		c, err := clientcmd.Load([]byte(a.Kubeconfig))
		if err != nil {
			t.Fatal(err)
		}
		if c.Clusters["slipway"].Server != "https://192.0.2.3:6443" || c.Contexts[c.CurrentContext].Namespace != "shop" {
			t.Errorf("kubeconfig %s", a.Kubeconfig)
		}
	}
	for _, ns := range []string{"shop", "shop-7-production"} {
		list, err := client.Resource(bindings).Namespace(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 2 {
			t.Errorf("bindings in %s: %v %v", ns, list, err)
		}
	}
	own, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Get(t.Context(), "shop-7-production", metav1.GetOptions{})
	if err != nil || own.GetLabels()["pod-security.kubernetes.io/enforce"] != "baseline" {
		t.Errorf("namespace %v %v", own, err)
	}
	r.Granted = nil // taken back
	if a, err := jobaccess.For(t.Context(), client, "", nil, r); err != nil || a.Namespace != "shop-7-production" {
		t.Errorf("%+v %v", a, err)
	}
	if list, err := client.Resource(bindings).Namespace("shop").List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("bindings that were taken back: %v %v", list, err)
	}
	r.Wanted = "kube-system"
	var denied *jobaccess.NotGrantedError
	if _, err := jobaccess.For(t.Context(), client, "", nil, r); !errors.As(err, &denied) {
		t.Errorf("a namespace of somebody else: %v", err)
	}
	r.Wanted = "shop-7-production"
	if a, err := jobaccess.For(t.Context(), client, "", nil, r); err != nil || a.Namespace != "shop-7-production" {
		t.Errorf("%+v %v", a, err)
	}
}
