package runner_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// registryServer is a plain distribution registry with the base image as the
// platform's cache would have it. It returns its host:port.
func registryServer(t testing.TB) string {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": t.TempDir()}, "delete": configuration.Parameters{"enabled": true}}}
	config.Catalog.MaxEntries = 100
	app := handlers.NewApp(context.Background(), config)
	listener, err := net.Listen("tcp", hostAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: app}
	go func() { _ = server.Serve(listener) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	address := listener.Addr().String()
	archive, err := baseArchive(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(address+"/docker.io/library/debian:bookworm-slim", name.Insecure)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// hostAddress is an address of this host that jobs can reach.
func hostAddress(t testing.TB) string {
	t.Helper()
	connection, err := net.Dial("udp", "203.0.113.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP.String()
}

// service wires the whole built-in runner as the platform does.
func service(t testing.TB, registry string, change func(*jobs.Config)) *runnertest.Bench {
	t.Helper()
	h := needHost(t)
	if _, err := os.Stat(filepath.Join(binDir(), "buildkitd")); err != nil {
		t.Skip("needs buildkitd")
	}
	b := runnertest.NewBench(t, runnertest.Setup{Image: "debian:bookworm-slim", Deadline: deadline})
	_, port, _ := net.SplitHostPort(registry)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	config := jobs.Config{
		Instance: "swr", DataDir: h.dir, BinDir: binDir(), Socket: h.config.ContainerdSocket,
		JobSubnet: netip.MustParsePrefix("10.94.0.0/24"), BuildSubnet: netip.MustParsePrefix("10.95.0.0/24"),
		Blocked: []netip.Prefix{netip.MustParsePrefix("10.92.0.0/15")}, HostPorts: []uint16{uint16(number)},
		Registry: registry, RegistryHTTP: true, Mirrors: map[string]string{"docker.io": registry + "/docker.io"}, PullPolicy: []string{"if-not-present"},
		RegistryHosts: registryHosts(t, registry), Concurrent: 4, Limits: runner.Limits{Memory: 2 << 30, PIDs: 1024},
		Session: delivery.RunnerSession{SystemID: "s_test"}, Coordinator: b.Coordinator, Repositories: b,
	}
	if change != nil {
		change(&config)
	}
	s, err := jobs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	return b
}

func registryHosts(t testing.TB, registry string) string {
	t.Helper()
	dir := t.TempDir()
	for host, text := range map[string]string{
		registry:    fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n", registry),
		"docker.io": fmt.Sprintf("server = \"http://%[1]s/v2/docker.io\"\n[host.\"http://%[1]s/v2/docker.io\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n", registry),
	} {
		if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// script is a job's script from a text block.
func script(text string) []string {
	return []string{strings.TrimSpace(text)}
}

func TestDockerBuildAndPush(t *testing.T) {
	registry := registryServer(t)
	b := service(t, registry, nil)
	spec := b.Job(script(`
set -ex
mkdir -p app && cd app
cat > Dockerfile <<'EOF'
# syntax=docker/dockerfile:1
FROM debian:bookworm-slim AS base
ARG GREETING
RUN --mount=type=secret,id=token test "$(cat /run/secrets/token)" = s3cret
RUN <<SH
echo "$GREETING from a heredoc" > /greeting
SH
FROM base
COPY data.txt /data.txt
CMD ["cat", "/greeting", "/data.txt"]
EOF
echo data > data.txt; echo ignored > secret.txt; echo secret.txt > .dockerignore
export TOKEN=s3cret
docker build --build-arg GREETING=hello --secret id=token,env=TOKEN -t "$REGISTRY/group/project:v1" --iidfile iid .
docker images
docker tag "$REGISTRY/group/project:v1" "$REGISTRY/group/project:latest"
docker push "$REGISTRY/group/project:v1"
docker push "$REGISTRY/group/project:latest"
docker inspect --format '{{.Os}} {{index .Config.Cmd 0}}' "$REGISTRY/group/project:v1"
docker run --rm "$REGISTRY/group/project:v1"
printf 'FROM %s/group/project:v1\nRUN cat /data.txt\n' "$REGISTRY" | docker build -t second -
docker run --rm -v "$PWD:/work" -w /work second sh -c 'cat iid; echo; cat secret.txt'
`)...)
	spec.Variables = []delivery.JobVariable{{Key: "REGISTRY", Value: registry, Public: true}}
	job := b.Do(spec)
	plain := runnertest.Plain(job.Trace)
	if job.Status != "success" {
		t.Fatalf("the job is %s:\n%s", job.Status, plain)
	}
	for _, text := range []string{"hello from a heredoc\ndata\n", "linux cat", "latest: digest: sha256:", "ignored"} {
		if !strings.Contains(plain, text) {
			t.Errorf("the trace has no %q:\n%s", text, plain)
		}
	}
	ref, err := name.ParseReference(registry+"/group/project:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Get(ref); err != nil {
		t.Errorf("the image is not in the registry: %v", err)
	}
	// Another job knows nothing of these images.
	other := b.Do(b.Job("docker images -q", "docker run --rm second true"))
	if other.Status != "failed" {
		t.Errorf("another job ran the image:\n%s", runnertest.Plain(other.Trace))
	}
}
