//go:build e2e

package runner_test

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

func check(t *testing.T, job runnertest.Job, status string, texts ...string) {
	t.Helper()
	plain := runnertest.Plain(job.Trace)
	if job.Status != status {
		t.Errorf("the job is %s, want %s:\n%s", job.Status, status, plain)
	}
	for _, text := range texts {
		if !strings.Contains(plain, text) {
			t.Errorf("the trace has no %q:\n%s", text, plain)
		}
	}
}

// TestServices builds a server's image, and uses it as a service: by its own
// name, by aliases, with variables; one that fails is reported.
func TestServices(t *testing.T) {
	registry := host.Registry(t)
	b := host.Service(t, registry, nil)
	build := b.Job(host.Script(`
cat > server.pl <<'EOF'
use IO::Socket::INET; $| = 1; sleep 1;
my $s = IO::Socket::INET->new(LocalPort => 5555, Listen => 5, ReuseAddr => 1) or die; print "listening\n";
while (my $c = $s->accept) { print $c "greeting: $ENV{GREETING}\n"; close $c }
EOF
printf 'FROM debian:bookworm-slim\nCOPY server.pl /\nEXPOSE 5555\nCMD ["perl", "/server.pl"]\n' > Dockerfile
docker build -q -t $REGISTRY/group/server:1 . && docker push -q $REGISTRY/group/server:1`)...)
	variables := []delivery.JobVariable{{Key: "REGISTRY", Value: registry}, {Key: "GREETING", Value: "from the job"}}
	build.Variables = variables
	check(t, b.Do(build), "success")

	use := b.Job(`ask() { bash -c "exec 3<>/dev/tcp/$1/5555; cat <&3"; }`, "ask db; ask database; ask group-server", "docker version")
	use.Variables = append([]delivery.JobVariable{{Key: "CI_DEBUG_SERVICES", Value: "true"}}, variables...)
	alias := strings.ReplaceAll(strings.Split(registry, ":")[0]+"/group/server", "/", "-")
	use.Steps[0].Script[1] = "ask db; ask database; ask " + alias
	use.Services = []delivery.JobImage{
		{Name: "$REGISTRY/group/server:1", Alias: "db,database", Variables: []delivery.JobVariable{{Key: "GREETING", Value: "hello $CI_SERVER"}}},
		// It listens at another port than its image says.
		{Name: "$REGISTRY/group/server:1", Alias: "elsewhere", Command: []string{"perl", "-MIO::Socket::INET", "-e",
			`$s = IO::Socket::INET->new(LocalPort => 7001, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }`},
			Variables: []delivery.JobVariable{{Key: "HEALTHCHECK_TCP_PORT", Value: "7001"}}},
		{Name: "docker:24-dind", Alias: "docker"},
		{Name: "debian:bookworm-slim", Alias: "broken", Entrypoint: []string{"sh", "-c", "echo going down >&2; exit 1"}},
	}
	done := b.Do(use)
	if text := runnertest.Plain(done.Trace); strings.Contains(text, "group/server:1 probably didn't start") {
		t.Errorf("a service with a health check of its own is not ready:\n%s", text)
	}
	check(t, done, "success", "-db-database] listening", "greeting: hello yes\ngreeting: hello yes\ngreeting: hello yes", "The service docker:24-dind is not started",
		"*** WARNING: Service debian:bookworm-slim probably didn't start properly.", "going down", "Waiting for services to be up and running")
}

// TestLimits lets jobs meet their limits.
func TestLimits(t *testing.T) {
	b := host.Service(t, host.Registry(t), nil)
	hungry := b.Job("echo eating", `perl -e '$x = "x" x (400 * 1024 * 1024); print length($x)'`)
	hungry.Variables = []delivery.JobVariable{{Key: "KUBERNETES_MEMORY_LIMIT", Value: "100Mi"}}
	check(t, b.Do(hungry), "failed", "the job used more memory than its limit of 0.1 GB")
	waiting := b.Job("true")
	waiting.Image = &delivery.JobImage{Name: "debian:bookworm-slim", Entrypoint: []string{"/no/such/program"}}
	check(t, b.Do(waiting), "failed", "the image has no shell to run the script")
	policy := b.Job("true")
	policy.Image = &delivery.JobImage{Name: "debian:bookworm-slim", PullPolicy: []string{"sometimes"}}
	check(t, b.Do(policy), "failed", "is not one of the allowed_pull_policies")
	user := b.Job("id -un", "touch own-file", "docker version")
	user.Image = &delivery.JobImage{Name: "debian:bookworm-slim", ExecutorOpts: &delivery.JobExecutorOpts{Docker: &delivery.JobDockerOpts{User: "nobody"}}}
	check(t, b.Do(user), "success", "$ id -un\nnobody")
}
