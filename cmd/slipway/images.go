package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipwayhq/slipway/internal/command/image"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/command/runner"
	"github.com/slipwayhq/slipway/internal/command/scan"
	"github.com/slipwayhq/slipway/internal/instance"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/trust"
)

// imageCommands are the commands of the registry, the scanner and the runners.
func (a *app) imageCommands() []*cobra.Command {
	images := image.New(a.connect)
	images.AddCommand(image.BuildCommand(a.connect, func() (string, error) {
		s, err := a.load()
		if err != nil {
			return "", err
		}
		return jobs.AdministratorSocket(s.DataDir), nil
	}))
	return []*cobra.Command{images, scan.New(a.connect), runner.New(a.connect, map[string]runner.Start{"containerd": runnerInContainers})}
}

// connect acts on the running instance as its administrator; SLIPWAY_URL and
// SLIPWAY_TOKEN name another platform and who acts there.
func (a *app) connect() (*rest.Client, error) {
	if address := os.Getenv("SLIPWAY_URL"); address != "" {
		return &rest.Client{URL: strings.TrimSuffix(address, "/"), Token: os.Getenv("SLIPWAY_TOKEN"), HTTP: http.DefaultClient}, nil
	}
	s, err := a.load()
	if err != nil {
		return nil, err
	}
	if err := s.resolve(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := instance.Dir(s.DataDir).Call(ctx, http.MethodGet, "/status", nil, nil); err != nil {
		return nil, err
	}
	token, err := os.ReadFile(s.adminTokenFile())
	if err != nil {
		return nil, fmt.Errorf("the administrator's token: %w", err)
	}
	client, err := s.httpClient()
	if err != nil {
		return nil, err
	}
	return &rest.Client{URL: s.ExternalURL, Token: strings.TrimSpace(string(token)), HTTP: client}, nil
}

// httpClient reaches the platform of this host: where it is served with TLS,
// its own authority is trusted beside the system's.
func (s *settings) httpClient() (*http.Client, error) {
	file := filepath.Join(s.dir.Path("trust"), trust.CertificateFile)
	if _, err := os.Stat(file); err != nil || !s.secure() {
		return http.DefaultClient, nil //nolint:nilerr // there is no authority: the system's count
	}
	transport, err := trust.Transport(file)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

// transport is that of httpClient.
func (s *settings) transport() (http.RoundTripper, error) {
	client, err := s.httpClient()
	if err != nil || client.Transport == nil {
		return http.DefaultTransport, err
	}
	return client.Transport, nil
}

// clusterUse names the images that the cluster needs: those of all pods, and
// those of everything that makes pods, former revisions included, so that a
// rollback finds its image.
type clusterUse struct{ kubeconfig string }

// users are the resources that name images, with the path to the pod's
// specification. The last is there only with Argo Rollouts.
var users = []struct {
	schema.GroupVersionResource
	spec []string
}{
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, []string{"spec"}},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}, []string{"spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, []string{"spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, []string{"spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, []string{"spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}, []string{"spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}, []string{"spec", "jobTemplate", "spec", "template", "spec"}},
	{schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "rollouts"}, []string{"spec", "template", "spec"}},
}

// InUse implements registry.Use.
func (u clusterUse) InUse(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, err := u.client()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, user := range users {
		list, err := client.Resource(user.GroupVersionResource).List(ctx, metav1.ListOptions{})
		if user.Group == "argoproj.io" && (apierrors.IsNotFound(err) || meta.IsNoMatchError(err)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", user.Resource, err)
		}
		for _, item := range list.Items {
			imagesOf(item, user.spec, seen)
		}
	}
	images := make([]string, 0, len(seen))
	for image := range seen {
		images = append(images, image)
	}
	return images, nil
}

// runsWhere returns how to find the pods that run an image, or nil without a
// cluster.
func (p *platform) runsWhere() func(context.Context, registry.Image) ([]string, error) {
	if !p.Cluster.Enabled {
		return nil
	}
	return func(ctx context.Context, image registry.Image) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return clusterUse{p.dir.Kubeconfig()}.pods(ctx, image)
	}
}

// pods names the pods that run an image or are to run it, as namespace/name.
func (u clusterUse) pods(ctx context.Context, image registry.Image) ([]string, error) {
	client, err := u.client()
	if err != nil {
		return nil, err
	}
	list, err := client.Resource(users[0].GroupVersionResource).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var out []string
	for _, item := range list.Items {
		images := map[string]bool{}
		imagesOf(item, users[0].spec, images)
		for name := range images {
			if strings.HasSuffix(name, image.Digest) {
				out = append(out, item.GetNamespace()+"/"+item.GetName())
				break
			}
		}
	}
	sort.Strings(out)
	return out, nil
}

func (u clusterUse) client() (dynamic.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", u.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("access to the cluster: %w", err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("access to the cluster: %w", err)
	}
	return client, nil
}

// imagesOf adds the images of a pod's specification and, for a pod, the
// digests that its containers run.
func imagesOf(item unstructured.Unstructured, spec []string, seen map[string]bool) {
	add := func(field, key string, path ...string) {
		list, _, err := unstructured.NestedSlice(item.Object, append(append([]string{}, path...), field)...)
		if err != nil {
			return // not a list: the API server would not have taken it
		}
		for _, entry := range list {
			if container, ok := entry.(map[string]any); ok {
				if image, ok := container[key].(string); ok && image != "" {
					seen[image] = true
				}
			}
		}
	}
	for _, field := range []string{"containers", "initContainers", "ephemeralContainers"} {
		add(field, "image", spec...)
	}
	for _, field := range []string{"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"} {
		add(field, "imageID", "status")
	}
}
