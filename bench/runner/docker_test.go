package runner_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/dockerd"
	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// BenchmarkDockerRun is what BenchmarkJob is measured beside: `git clone` of
// the same repository from git http-backend on 127.0.0.1, and then `docker run`
// of the same image with the clone as its folder, by a real Docker Engine with
// its default network. There is no queue, no log that is kept and no result.
func BenchmarkDockerRun(b *testing.B) {
	bench := runnertest.NewBench(b, runnertest.Setup{})
	engine := dockerd.Start(b)
	engine.Load(b, host.Image(b), "debian:bookworm-slim")
	remote := gitServer(b, filepath.Dir(bench.Repository)) + "/" + filepath.Base(bench.Repository)
	run := func(script string) (clone, first, whole float64) {
		dir := filepath.Join(b.TempDir(), "clone")
		start := time.Now()
		fetch := exec.Command("git", "clone", "-q", "--depth", "2", remote, dir)
		fetch.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
		if out, err := fetch.CombinedOutput(); err != nil {
			b.Fatalf("clone: %v: %s", err, out)
		}
		clone = time.Since(start).Seconds() * 1000
		container := engine.Command("run", "--rm", "-v", dir+":/builds", "-w", "/builds", "debian:bookworm-slim", "sh", "-c", script)
		out, err := container.StdoutPipe()
		if err == nil {
			err = container.Start()
		}
		if err != nil {
			b.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if _, err := lines.ReadString('\n'); err == nil {
			first = time.Since(start).Seconds() * 1000
		}
		_, _ = io.Copy(io.Discard, lines) // Wait tells
		if err := container.Wait(); err != nil {
			b.Fatal(err)
		}
		return clone, first, time.Since(start).Seconds() * 1000
	}
	run("true") // warm
	var clones, first, whole []float64
	for b.Loop() {
		clone, line, _ := run("echo the first line")
		_, _, all := run("true")
		clones, first, whole = append(clones, clone), append(first, line), append(whole, all)
	}
	report(b, "docker_first_line", first)
	report(b, "docker_true", whole)
	report(b, "clone_of_it", clones)
}

// gitServer serves the repositories of a folder as git's own http-backend does.
func gitServer(b *testing.B, dir string) string {
	b.Helper()
	folder, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(folder)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + dir}, InheritEnv: []string{"PATH"}, Stderr: io.Discard}}
	go func() { _ = server.Serve(listener) }() // ends with Close
	b.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

// BenchmarkDockerBuild is what BenchmarkRebuild is measured beside: the same
// script with the same files, on a real Docker Engine with its BuildKit.
func BenchmarkDockerBuild(b *testing.B) {
	registry := host.Registry(b)
	engine := dockerd.Start(b)
	engine.Load(b, host.Image(b), "debian:bookworm-slim")
	file := filepath.Join(b.TempDir(), "sample")
	if err := os.WriteFile(file, []byte(sample(b)), 0o600); err != nil {
		b.Fatal(err)
	}
	measureRebuild(b, "docker_", func(version int) (build, push float64) {
		script := engine.Shell(rebuild)
		script.Dir = b.TempDir()
		script.Env = append(script.Env, "REGISTRY="+registry, "SAMPLE="+file, "VERSION="+strconv.Itoa(version))
		out, err := script.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return took(b, string(out))
	})
}
