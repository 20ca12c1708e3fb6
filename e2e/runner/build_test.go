package runner_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
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
