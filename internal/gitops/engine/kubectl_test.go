package engine

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	kubeutil "github.com/argoproj/argo-cd/v3/util/kube"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/gitops/openapi"
)

// A new version of Argo CD may have its factory elsewhere: then objects are
// merged as upstream does it, at the price of a document for each.
func TestWithoutDocument(t *testing.T) {
	t.Parallel()
	ops, cleanup, err := kubeutil.NewKubectl().ManageResources(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer cleanup()
	if !withoutDocument(ops) {
		t.Fatal("kubectl's factory is not where it was")
	}
	if withoutDocument(nil) || withoutDocument(operations{}) {
		t.Error("what has no factory has none to wrap")
	}
	if doc, err := (factory{}).OpenAPISchema(); doc != nil || err != nil {
		t.Errorf("%v, %v", doc, err)
	}
}

// Argo CD makes its clients of the kubeconfig in its environment.
func TestArgoKubeconfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := filepath.Join(dir, "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority: ca.crt}}], users: [{name: u, user: {token: secret}}]}`
	for name, content := range map[string]string{given: text, filepath.Join(dir, "ca.crt"): "a certificate"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, err := argoKubeconfig(&gitops.Config{Kubeconfig: given, RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.CAFile != filepath.Join(dir, "ca.crt") || config.BearerToken != "secret" {
		t.Errorf("authority %s", config.CAFile)
	}
	rt, err := rest.HTTPWrappersForConfig(config, http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, ours := rt.(openapi.Transport); ours {
			return
		}
		wrapper, ok := rt.(interface{ WrappedRoundTripper() http.RoundTripper })
		if !ok {
			t.Fatalf("documents are not answered: %T", rt)
		}
		rt = wrapper.WrappedRoundTripper()
	}
}
