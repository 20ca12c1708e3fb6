//go:build e2e

package runner_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// TestPrivateImages pulls from a registry that wants to know who asks: with
// DOCKER_AUTH_CONFIG, without, and when the image is there already.
func TestPrivateImages(t *testing.T) {
	host.Need(t)
	const user, password = "robot", "pass:with:colons"
	private := host.PrivateRegistry(t, user, password)
	b := host.Service(t, host.Registry(t), nil)
	job := func(config string, policy ...string) *delivery.JobSpec {
		spec := b.Job("echo it runs")
		spec.Image = &delivery.JobImage{Name: private + "/team/app:1", PullPolicy: policy}
		if config != "" {
			spec.Variables = append(spec.Variables, delivery.JobVariable{Key: "DOCKER_AUTH_CONFIG", Value: config, Masked: true})
		}
		return spec
	}
	auths := func(secret string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, private, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	good := auths(user + ":" + password)
	refused := b.Do(job(""))
	check(t, refused, "failed", "failed to pull image")
	if refused.Update.FailureReason != "image_pull_failure" {
		t.Errorf("reported %+v", refused.Update)
	}
	check(t, b.Do(job(auths(user+":wrong"))), "failed", "failed to pull image")
	check(t, b.Do(job(`{"auths":{"x":{"auth":"***"}}}`)), "failed", "Ignoring DOCKER_AUTH_CONFIG: the auth of x is not base64")
	check(t, b.Do(job(good, "never")), "failed", `the image is not present and the pull policy is "never"`)
	pulled := b.Do(job(good, "never", "always"))
	check(t, pulled, "success", `Attempt #2: Trying "always" pull policy`, "Authenticating with credentials from $DOCKER_AUTH_CONFIG", "it runs")
	for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(user + ":" + password))} {
		if strings.Contains(string(pulled.Trace), secret) {
			t.Errorf("the trace shows %q", secret)
		}
	}
	check(t, b.Do(job(good, "if-not-present")), "success", "it runs")
	// That it lies on the disk does not make it everybody's.
	for _, policy := range []string{"if-not-present", "never", "always"} {
		check(t, b.Do(job("", policy)), "failed", "failed to pull image")
	}
	service := b.Job("getent hosts db")
	service.Services = []delivery.JobImage{{Name: private + "/team/app:1", Alias: "db", Command: []string{"sleep", "60"}}}
	service.Variables = append(service.Variables, delivery.JobVariable{Key: "DOCKER_AUTH_CONFIG", Value: good, Masked: true})
	check(t, b.Do(service), "success", "db")
}

// TestLargeFiles checks out a repository with LFS: the real git-lfs fetches with
// the job's token, in the job's network.
func TestLargeFiles(t *testing.T) {
	if _, err := exec.LookPath("git-lfs"); err != nil {
		t.Skip("needs git-lfs")
	}
	host.Need(t)
	const token, content = "token-of-the-job-5678", "the large file\n"
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	listener, err := net.Listen("tcp", host.Address(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "gitlab-ci-token" || password != token {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, content)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
		_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": []any{map[string]any{"oid": oid, "size": len(content), "authenticated": true,
			"actions": map[string]any{"download": map[string]any{"href": "http://" + address + "/objects/" + oid,
				"header": map[string]string{"Authorization": r.Header.Get("Authorization")}}}}}})
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	b := host.ServiceWithPorts(t, host.Registry(t), nil, address)
	dir := t.TempDir()
	script := `set -e
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@example.com GIT_COMMITTER_NAME=T GIT_COMMITTER_EMAIL=t@example.com
cd "$1"; git init -q --bare -b main main.git; git init -q -b main work; cd work
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %s\n' "$2" "$3" > big.bin; git add -A
echo '*.bin filter=lfs diff=lfs merge=lfs -text' > .gitattributes; git add .gitattributes; git commit -qm lfs; git push --no-verify -q ../main.git main; git rev-parse HEAD`
	command := exec.Command("sh", "-c", script, "sh", dir, oid, fmt.Sprint(len(content)))
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	b.Repository = filepath.Join(dir, "main.git")
	job := func(variables ...delivery.JobVariable) *delivery.JobSpec {
		spec := b.Job("cat big.bin")
		spec.Token = token
		spec.GitInfo = delivery.GitInfo{RepoURL: "http://" + address + "/group/main.git", Ref: "main", SHA: strings.TrimSpace(string(out)), RefType: "branch",
			Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}}
		spec.Variables = variables
		return spec
	}
	good := b.Do(job())
	check(t, good, "success", "$ cat big.bin\nthe large file\n")
	if strings.Contains(string(good.Trace), token) {
		t.Error("the trace shows the token")
	}
	check(t, b.Do(job(delivery.JobVariable{Key: "GIT_LFS_SKIP_SMUDGE", Value: "1"})), "success", "oid sha256:"+oid)
}
