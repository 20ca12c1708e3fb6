//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/instance"
)

// deployPipeline has a job that deploys with kubectl, one that has no access,
// and one that asks for a namespace that nobody gave it.
const deployPipeline = `
default: {image: "debian:bookworm-slim"}
stages: [test, deploy]
plain:
  stage: test
  script:
    - test -z "${KUBECONFIG:-}"
    - if command -v kubectl; then exit 1; fi
deploy:
  stage: deploy
  script:
    - kubectl create configmap hello --from-literal=said="$CI_COMMIT_SHORT_SHA" --dry-run=client -o yaml | kubectl apply -f -
    - if kubectl get nodes; then exit 1; fi
    - if kubectl --namespace kube-system get secrets; then exit 1; fi
  environment: {name: production, kubernetes: {}}
greedy:
  stage: deploy
  script: "true"
  allow_failure: true
  environment: {name: staging, kubernetes: {namespace: kube-system}}
`

// deployJob pushes a project whose pipeline deploys with kubectl, and runs one
// of its jobs from the working copy in a container.
func deployJob(t *testing.T, i *instance.Instance) {
	raw, err := os.ReadFile(filepath.Join(i.DataDir, "run", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(raw))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".gitlab-ci.yml"), []byte(deployPipeline), 0o600); err != nil {
		t.Fatal(err)
	}
	i.Run("group", "create", "e2e-deploy")
	i.Run("project", "create", "e2e-deploy/app")
	header := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+token))
	for _, args := range [][]string{{"init", "--quiet", "--initial-branch=main"}, {"add", "--all"}, {"-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "commit", "--quiet", "--message=Deploy"},
		{"push", "--quiet", i.URL + "/e2e-deploy/app.git", "main"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0="+header)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	api := func(path string) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.URL+"/api/v4/projects/e2e-deploy%2Fapp/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("PRIVATE-TOKEN", token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	var pipelines []struct {
		ID     int64
		Status string
	}
	i.Eventually("the pipeline ends", 3*time.Minute, func() bool {
		if err := json.Unmarshal(api("pipelines"), &pipelines); err != nil {
			t.Fatal(err)
		}
		return len(pipelines) == 1 && (pipelines[0].Status == "success" || pipelines[0].Status == "failed")
	})
	var jobs []struct {
		ID            int64
		Name, Status  string
		FailureReason string `json:"failure_reason"`
	}
	if err := json.Unmarshal(api(fmt.Sprintf("pipelines/%d/jobs", pipelines[0].ID)), &jobs); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"plain": "success ", "deploy": "success ", "greedy": "failed unmet_prerequisites"}
	for _, j := range jobs {
		if got := j.Status + " " + j.FailureReason; got != want[j.Name] {
			t.Errorf("%s: %s; want %s\n%s", j.Name, got, want[j.Name], api(fmt.Sprintf("jobs/%d/trace", j.ID)))
		}
		delete(want, j.Name)
	}
	if len(want) > 0 {
		t.Errorf("no jobs %v", want)
	}
	if out := i.Kubectl("get", "configmaps", "--all-namespaces", "--field-selector=metadata.name=hello", "--output=jsonpath={.items[*].metadata.namespace}"); !strings.HasPrefix(out, "app-") || !strings.HasSuffix(strings.TrimSpace(out), "-production") {
		t.Errorf("it was deployed to %q", out)
	}

	out, err := i.TryWithin(3*time.Minute, "ci", "run", filepath.Join(dir, ".gitlab-ci.yml"), "plain", "--executor", "containers")
	if err != nil || !strings.Contains(out, "Pipeline: success") {
		t.Errorf("ci run in a container: %v\n%s", err, out)
	}
}
