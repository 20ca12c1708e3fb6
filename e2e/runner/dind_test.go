//go:build e2e

package runner_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/slipwayhq/slipway/e2e/runner/dockerd"
	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// entrypoint is that of the public docker images, as far as it matters: it asks
// its docker whether the job's shell is one of docker's commands.
const entrypoint = `#!/bin/sh
set -eu
if [ "${1#-}" != "$1" ]; then
	set -- docker "$@"
fi
if docker help "$1" > /dev/null 2>&1; then
	set -- docker "$@"
fi
exec "$@"
`

// dockerImage is like the public docker:27: it has a real docker program at the
// same place, and the same entrypoint.
func dockerImage(t *testing.T) v1.Image {
	t.Helper()
	program, err := os.ReadFile(dockerd.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	files := tar.NewWriter(&archive)
	for path, content := range map[string][]byte{"usr/local/bin/docker": program, "usr/bin/docker": program, "usr/local/bin/docker-entrypoint.sh": []byte(entrypoint)} {
		if err := files.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(host.Image(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"sh"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_VERSION=27.5.1", "DOCKER_TLS_CERTDIR=/certs"}})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestDockerInDockerPipeline is the pipeline that most projects have: the image
// docker, which brings a docker program of its own, docker:dind as a service, and
// the variables that go with TLS.
func TestDockerInDockerPipeline(t *testing.T) {
	registry := host.Registry(t)
	ref, err := name.ParseReference(registry+"/docker.io/library/docker:27", name.Insecure)
	if err == nil {
		err = remote.Write(ref, dockerImage(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	bench := host.Service(t, registry, nil)
	spec := bench.Job(host.Script(`
until docker info; do sleep 1; done
command -v docker
docker version | head -1
/usr/local/bin/docker version | head -1
docker context create tls-environment && docker buildx create --use tls-environment
echo secret | docker login -u user --password-stdin "$REGISTRY"
printf 'FROM debian:bookworm-slim\nRUN echo built in the usual pipeline > /said\nCMD ["cat", "/said"]\n' > Dockerfile
docker pull "$REGISTRY/group/app:latest" || true
docker build --cache-from "$REGISTRY/group/app:latest" --build-arg BUILDKIT_INLINE_CACHE=1 -t "$REGISTRY/group/app:v1" -t "$REGISTRY/group/app:latest" .
docker push "$REGISTRY/group/app" --all-tags
docker run --rm "$REGISTRY/group/app:v1"
DOCKER_HOST=ssh://deploy@prod.example.com docker ps || echo "refused another machine"
docker compose up -d || echo "refused compose"
`)...)
	spec.Image = &delivery.JobImage{Name: "docker:27"}
	spec.Services = []delivery.JobImage{{Name: "docker:27-dind", Alias: "docker", Command: []string{"--tls=false"}}}
	spec.Variables = []delivery.JobVariable{{Key: "REGISTRY", Value: registry, Public: true}}
	for name, value := range map[string]string{"DOCKER_HOST": "tcp://docker:2376", "DOCKER_TLS_CERTDIR": "/certs", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs/client", "DOCKER_DRIVER": "overlay2"} {
		spec.Variables = append(spec.Variables, delivery.JobVariable{Key: name, Value: value, Public: true})
	}
	job := bench.Do(spec)
	plain := runnertest.Plain(job.Trace)
	if job.Status != "success" {
		t.Fatalf("the job is %s:\n%s", job.Status, plain)
	}
	for _, text := range []string{"The service docker:27-dind is not started", "\n/usr/local/bin/docker\n", "Login Succeeded", "\nbuilt in the usual pipeline\n",
		"refused another machine", "refused compose", "services of the job"} {
		if !strings.Contains(plain, text) {
			t.Errorf("the trace has no %q:\n%s", text, plain)
		}
	}
	if got := strings.Count(plain, "\nClient: docker command of Slipway\n"); got < 2 {
		t.Errorf("the image's own docker program was called:\n%s", plain)
	}
}

// TestBuildkitStopsWhenIdle: buildkitd ends after its idle time, the next build
// starts it again, and the layers are still there.
func TestBuildkitStopsWhenIdle(t *testing.T) {
	registry := host.Registry(t)
	bench := host.ServiceWith(t, registry, nil, func(c *jobs.Config) { c.BuildIdle = 200 * time.Millisecond })
	pidFile := filepath.Join(host.Need(t).Dir, "runner", "buildkit", "buildkitd.pid")
	running := func() bool {
		raw, err := os.ReadFile(pidFile)
		if err != nil {
			return false
		}
		if _, err := strconv.Atoi(string(raw)); err != nil {
			return false
		}
		exe, err := os.Readlink("/proc/" + string(raw) + "/exe")
		return err == nil && filepath.Base(exe) == "buildkitd"
	}
	if running() {
		t.Fatal("buildkitd runs before a build needs it")
	}
	for i, want := range []string{"DONE", "CACHED"} {
		job := bench.Do(bench.Job(host.Script(`printf 'FROM debian:bookworm-slim\nRUN echo idle > /idle\n' | docker build -t idle -`)...))
		plain := runnertest.Plain(job.Trace)
		if job.Status != "success" || !strings.Contains(plain, want) {
			t.Fatalf("build %d has no %s:\n%s", i+1, want, plain)
		}
		for end := time.Now().Add(30 * time.Second); running(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("buildkitd is still there after its idle time")
			}
		}
	}
}
