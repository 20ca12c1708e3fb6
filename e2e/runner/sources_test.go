//go:build e2e

package runner_test

import (
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// gitServer serves the repositories below dir to those who know the token.
func gitServer(t *testing.T, dir, token string) string {
	t.Helper()
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"}}
	listener, err := net.Listen("tcp", host.Address(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "gitlab-ci-token" || password != token {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// TestSubmodules checks out a project with submodules: one of this platform,
// fetched with the job's token in the job's network, and hostile ones that must
// not be.
func TestSubmodules(t *testing.T) {
	if _, err := os.Stat("/usr/lib/git-core/git-http-backend"); err != nil {
		t.Skip("needs git-http-backend")
	}
	host.Need(t)
	dir := t.TempDir()
	const token = "token-of-the-job-1234"
	address := gitServer(t, dir, token)
	registry := host.Registry(t)
	b := host.ServiceWithPorts(t, registry, nil, address)
	script := `set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@example.com GIT_COMMITTER_NAME=T GIT_COMMITTER_EMAIL=t@example.com GIT_ALLOW_PROTOCOL=file
cd "$1"; mkdir -p group
git init -q --bare -b main group/library.git; git init -q -b main lib; (cd lib; echo from the library > lib.txt; git add -A; git commit -qm lib; git push -q ../group/library.git main)
git init -q --bare -b main group/main.git; git init -q -b main main; cd main
git submodule --quiet add ../group/library.git sub; git config -f .gitmodules submodule.sub.url ../library.git
git add -A; git commit -qm main; git push -q ../group/main.git main; git rev-parse HEAD
git submodule --quiet add ../group/library.git evil; git config -f .gitmodules submodule.evil.url "file://$1/group/library.git"
git add -A; git commit -qm evil; git push -q ../group/main.git main:evil; git rev-parse HEAD`
	command := exec.Command("sh", "-c", script, "sh", dir)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	commits := strings.Fields(string(out))
	b.Repository = filepath.Join(dir, "group", "main.git")
	job := func(ref, sha string, script ...string) *delivery.JobSpec {
		spec := b.Job(script...)
		spec.Token = token
		spec.GitInfo = delivery.GitInfo{RepoURL: "http://" + address + "/group/main.git", Ref: ref, SHA: sha, RefType: "branch", Depth: 20,
			Refspecs: []string{"+refs/heads/" + ref + ":refs/remotes/origin/" + ref}}
		spec.Variables = []delivery.JobVariable{{Key: "GIT_SUBMODULE_STRATEGY", Value: "recursive"}}
		return spec
	}
	good := b.Do(job("main", commits[0], "cat sub/lib.txt"))
	check(t, good, "success", "from the library", "Updating/initializing submodules recursively with git depth set to 20...", "Updated submodules")
	if strings.Contains(string(good.Trace), token) {
		t.Error("the trace shows the token")
	}
	check(t, b.Do(job("evil", commits[1], "cat evil/lib.txt")), "failed", "transport 'file' not allowed")
	// The same over the network: a repository that is not on this disk.
	b.Repository = ""
	check(t, b.Do(job("main", commits[0], "cat sub/lib.txt", "git fetch -q origin evil 2>&1 || echo no git in the image")), "success", "from the library")
}
