//go:build e2e

package gitops_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/e2e/instance"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// lab is a running platform with a group, a GitOps project and its clone.
type lab struct {
	*instance.Instance
	token    string
	clone    string
	repo     string // clone address without credentials
	kube     dynamic.Interface
	apps     *gitops.Client
	rollouts *rollout.Client
}

func newLab(t *testing.T) *lab {
	return newLabOn(t, instance.New(t, "swgitops", 40, ""))
}

// newLabOn starts the instance, and makes its group and projects.
func newLabOn(t *testing.T, i *instance.Instance) *lab {
	i.Up()
	token, err := os.ReadFile(filepath.Join(i.DataDir, "run", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Instance: i, token: strings.TrimSpace(string(token)), clone: filepath.Join(t.TempDir(), "ops"), repo: i.URL + "/acme/ops.git"}
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(i.DataDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	kube, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.kube, l.apps, l.rollouts = kube, gitops.NewClient(kube), rollout.NewClient(kube)
	group := l.api(t, "POST", "/groups", map[string]any{"name": "acme", "path": "acme"})
	for _, p := range []string{"ops", "web"} {
		l.api(t, "POST", "/projects", map[string]any{"name": p, "path": p, "namespace_id": group["id"]})
	}
	l.git(t, "", "init", "-q", "-b", "main", l.clone)
	return l
}

// api calls the REST API as the administrator, for one object.
func (l *lab) api(t *testing.T, method, path string, in any) map[string]any {
	t.Helper()
	var out map[string]any
	data := l.call(t, method, path, in)
	if len(data) > 0 && data[0] == '{' {
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// list calls the REST API as the administrator, for a list.
func (l *lab) list(t *testing.T, path string) []map[string]any {
	t.Helper()
	var out []map[string]any
	if err := json.Unmarshal(l.call(t, "GET", path, nil), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *lab) call(t *testing.T, method, path string, in any) []byte {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, l.URL+"/api/v4"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("PRIVATE-TOKEN", l.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %v\n%s", method, path, res.Status, err, data)
	}
	return data
}

// apiText reads from the REST API as the administrator.
func (l *lab) apiText(t *testing.T, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL+"/api/v4"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("PRIVATE-TOKEN", l.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func (l *lab) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.org", "GIT_COMMITTER_NAME=Test",
		"GIT_COMMITTER_EMAIL=test@example.org", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.ReplaceAll(strings.Join(args, " "), l.token, "***"), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits the files (an empty text deletes) and pushes them; it returns
// the commit.
func (l *lab) push(t *testing.T, message string, files map[string]string) string {
	t.Helper()
	for path, text := range files {
		full := filepath.Join(l.clone, path)
		if text == "" {
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.git(t, l.clone, "add", "-A")
	l.git(t, l.clone, "commit", "-q", "-m", message)
	l.git(t, l.clone, "push", "-q", strings.Replace(l.repo, "://", "://root:"+l.token+"@", 1), "HEAD:main")
	return l.git(t, l.clone, "rev-parse", "HEAD")
}

// application creates an automated Application of the folder, in a namespace
// of the same name.
func (l *lab) application(t *testing.T, folder string) {
	t.Helper()
	l.RunInput(fmt.Sprintf(`
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: %[1]s, namespace: argocd, finalizers: [resources-finalizer.argocd.argoproj.io]}
spec:
  project: default
  source: {repoURL: %[2]s, targetRevision: main, path: %[1]s}
  destination: {server: "https://kubernetes.default.svc", namespace: %[1]s}
  syncPolicy:
    automated: {prune: true, selfHeal: true}
    syncOptions: [CreateNamespace=true]
    retry: {limit: 5, refresh: true, backoff: {duration: 2s, factor: 1, maxDuration: 10s}}
`, folder, l.repo), "kubectl", "apply", "-f", "-")
}

// value returns a field of an object in the cluster, or "" when there is none.
func (l *lab) value(kind, namespace, name, path string) string {
	out, err := l.Try("kubectl", "-n", namespace, "get", kind, name, "--ignore-not-found", "-o", "jsonpath="+path)
	if err != nil {
		return ""
	}
	return out
}

// images builds releases of the test application and pushes each to the
// platform's registry, as acme/web:<tag>; the tag "bad" answers errors.
func (l *lab) images(t *testing.T, tags ...string) {
	t.Helper()
	registry := strings.TrimPrefix(l.URL, "http://")
	for _, tag := range tags {
		program := filepath.Join(t.TempDir(), "app")
		flags := "-s -w -X main.version=" + tag
		if tag == "bad" {
			flags += " -X main.fault=yes"
		}
		cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", flags, "-o", program, "./testapp")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the application: %v\n%s", err, out)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return programLayer(program) })
		if err != nil {
			t.Fatal(err)
		}
		img, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			t.Fatal(err)
		}
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		file = file.DeepCopy()
		file.OS, file.Architecture = "linux", "amd64"
		file.Config.Entrypoint, file.Config.User = []string{"/app"}, "65535"
		if img, err = mutate.ConfigFile(img, file); err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(registry+"/acme/web:"+tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "root", Password: l.token}), remote.WithContext(t.Context())); err != nil {
			t.Fatalf("push the image: %v", err)
		}
	}
}

func programLayer(program string) (io.ReadCloser, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(data))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return io.NopCloser(&b), w.Close()
}

// traffic asks the ingress for a host about 40 times a second until stop is
// called, which returns the number of answers by "<status> <version>".
func (l *lab) traffic(t *testing.T, host string) (stop func() map[string]int) {
	ctx, cancel := context.WithCancel(t.Context())
	counts := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			client := &http.Client{Timeout: 5 * time.Second}
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				key := l.ask(ctx, client, host)
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				counts[key]++
				mu.Unlock()
			}
		})
	}
	return func() map[string]int { cancel(); wg.Wait(); return counts }
}

func (l *lab) ask(ctx context.Context, client *http.Client, host string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Address+"/", nil)
	if err != nil {
		return err.Error()
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", res.StatusCode, strings.TrimSpace(string(body)))
}
