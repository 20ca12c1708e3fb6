//go:build e2e

package runner_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
	"github.com/slipwayhq/slipway/internal/toolwire"
)

func TestDockerBuildAndPush(t *testing.T) {
	registry := host.Registry(t)
	b := host.Service(t, registry, nil)
	spec := b.Job(host.Script(`
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
docker push "$REGISTRY/group/project:latest" # there already: said again, for the registry's records
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

// TestAdministratorBuilds builds outside of any job, from a folder that only
// the caller sees.
func TestAdministratorBuilds(t *testing.T) {
	registry := host.Registry(t)
	host.Service(t, registry, nil)
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM debian:bookworm-slim\nCOPY . /src\nRUN cat /src/sub/f\n", "sub/f": "from a folder"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket := jobs.AdministratorSocket(host.Need(t).Dir)
	var out, errs bytes.Buffer
	var code int
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = os.Stat(socket); err == nil {
			break
		}
	}
	if err == nil {
		code, err = toolwire.Run(socket, toolwire.Call{Tool: "docker", Args: []string{"build", "-t", registry + "/team/app:1", "--push", "."}, Dir: dir}, nil, &out, &errs, nil)
	}
	if err != nil || code != 0 || !strings.Contains(errs.String(), "from a folder") {
		t.Fatalf("code %d, %v\n%s%s", code, err, out.String(), errs.String())
	}
	if info, err := os.Stat(filepath.Dir(socket)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the administrator's endpoint is open: %v %v", info, err)
	}
	ref, err := name.ParseReference(registry+"/team/app:1", name.Insecure)
	if err == nil {
		_, err = remote.Get(ref)
	}
	if err != nil {
		t.Error(err)
	}
}
