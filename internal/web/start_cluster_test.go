package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/PuerkitoBio/goquery"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/kubewatch/kubetest"
	"github.com/slipwayhq/slipway/internal/rollout"
	"github.com/slipwayhq/slipway/internal/web"
)

// placeCluster is a Kubernetes API that remembers what was made.
type placeCluster struct {
	kube *fake.FakeDynamicClient
	mu   sync.Mutex
	made []string
}

func newPlaceCluster() *placeCluster {
	kinds := map[schema.GroupVersionResource]string{gitops.Resource: "ApplicationList", {Version: "v1", Resource: "namespaces"}: "NamespaceList",
		{Group: "argoproj.io", Version: "v1alpha1", Resource: "appprojects"}: "AppProjectList"}
	c := &placeCluster{kube: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)}
	kubetest.Apply(c.kube, c.remember)
	c.kube.PrependReactor("create", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
		c.remember("namespaces", action.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured).GetName())
		return false, nil, nil
	})
	return c
}

func (c *placeCluster) remember(resource, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, resource+"/"+name)
}

// names lists what was made, by name.
func (c *placeCluster) names() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.made)
	return strings.Join(slices.Compact(slices.Clone(c.made)), " ")
}

func (c *placeCluster) operations() *web.Operations {
	return &web.Operations{
		Apps:     func() (*gitops.Client, error) { return gitops.NewClient(c.kube), nil },
		Rollouts: func() (*rollout.Client, error) { return rollout.NewClient(c.kube), nil },
	}
}

func newGroup(path string) access.NewGroup { return access.NewGroup{Path: path} }

func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

func document(t *testing.T, resp *http.Response) *goquery.Document {
	t.Helper()
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
