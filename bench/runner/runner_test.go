// Package runner_test measures the built-in runner on a real containerd. Run
// it with `go test -bench . ./bench/runner`.
package runner_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/runner/host"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

func TestMain(m *testing.M) { os.Exit(host.Main(m)) }

// BenchmarkJob measures a job of one line with its image present: from the
// queue to its first line, and to its end.
func BenchmarkJob(b *testing.B) {
	h := host.Need(b)
	bench := runnertest.Start(b, runnertest.Setup{Executor: h.Executor(b, nil), BuildsDir: containerd.BuildsDir, Image: "debian:bookworm-slim"},
		func(c *runner.Config) { c.TraceInterval = 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	bench.Do(bench.Job("true")) // warm
	var first, whole []float64
	for b.Loop() {
		spec := bench.Job("echo the first line")
		start := time.Now()
		bench.Push(spec)
		if _, err := bench.Wait(ctx, spec.ID, func(job runnertest.Job) bool { return strings.Contains(string(job.Trace), "the first line\n") }); err != nil {
			b.Fatal(err)
		}
		first = append(first, time.Since(start).Seconds()*1000)
		bench.End(spec.ID)
		spec = bench.Job("true")
		start = time.Now()
		bench.Do(spec)
		whole = append(whole, time.Since(start).Seconds()*1000)
	}
	report(b, "first_line", first)
	report(b, "true_job", whole)
}

// BenchmarkPlainContainer is what the job is measured beside: a clone over the
// file transport and containerd's own `ctr run` of the same image, one after
// the other, with no network, limits, log or result.
func BenchmarkPlainContainer(b *testing.B) {
	h := host.Need(b)
	bench := runnertest.NewBench(b, runnertest.Setup{})
	ctr := filepath.Join(host.BinDir(), "ctr")
	run := func(i int) {
		clone := exec.Command("git", "clone", "-q", "--depth", "2", "file://"+bench.Repository, filepath.Join(b.TempDir(), "clone"))
		container := exec.Command(ctr, "--address", h.Config.ContainerdSocket, "--namespace", "slipway-jobs", "run", "--rm", host.BaseImage, fmt.Sprintf("plain-%d", i), "true")
		for _, command := range []*exec.Cmd{clone, container} {
			if out, err := command.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	}
	run(1 << 30) // warm
	var values []float64
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		run(i)
		values = append(values, time.Since(start).Seconds()*1000)
	}
	report(b, "plain_container", values)
}

func report(b *testing.B, name string, values []float64) {
	slices.Sort(values)
	b.ReportMetric(values[len(values)/2], name+"_p50_ms")
	b.ReportMetric(values[len(values)*95/100], name+"_p95_ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRebuild measures `docker build` of the sample application's image in
// a job, with one source line changed, and its push to a registry.
func BenchmarkRebuild(b *testing.B) {
	registry := host.Registry(b)
	bench := host.Service(b, registry, nil)
	build := func(version int) (build, push float64) {
		spec := bench.Job(host.Script(rebuild)...)
		spec.Variables = []delivery.JobVariable{{Key: "REGISTRY", Value: registry}, {Key: "VERSION", Value: strconv.Itoa(version)},
			{Key: "SAMPLE", Value: sample(b), File: true}}
		job := bench.Do(spec)
		plain := runnertest.Plain(job.Trace)
		if job.Status != "success" {
			b.Fatal(plain)
		}
		return took(b, plain)
	}
	measureRebuild(b, "", build)
}

// rebuild is what both sides run: a build of the sample application, of which
// one line is other than in the last version, and its push.
const rebuild = `
set -e
mkdir -p sample && base64 -d < "$SAMPLE" | tar -xz -C sample && cd sample
sed -i "1s/^/# version $VERSION\n/" app/main.py
image="$REGISTRY/bench/app:v$VERSION"
start=$(date +%s%N); docker build -q --target release -t "$image" . >/dev/null
built=$(date +%s%N); docker push -q "$image" >/dev/null; end=$(date +%s%N)
echo "built in $(( (built - start) / 1000000 )) ms, pushed in $(( (end - built) / 1000000 )) ms"
`

// sample is the sample application as an archive in base64.
func sample(b *testing.B) string {
	b.Helper()
	out, err := exec.Command("sh", "-c", "tar -cz --sort=name --owner=0 --group=0 --exclude=__pycache__ -C ../../applications/sample-fastapi-app . | base64 -w0").Output()
	if err != nil {
		b.Fatal(err)
	}
	return string(out)
}

// took reads the line at the end of rebuild; the results are in seconds.
func took(b *testing.B, output string) (build, push float64) {
	b.Helper()
	at := strings.LastIndex(output, "built in ")
	if at < 0 {
		b.Fatal(output)
	}
	if _, err := fmt.Sscanf(output[at:], "built in %f ms, pushed in %f ms", &build, &push); err != nil {
		b.Fatalf("%v: %s", err, output)
	}
	return build / 1000, push / 1000
}

// measureRebuild builds once from nothing and then again and again.
func measureRebuild(b *testing.B, prefix string, build func(version int) (build, push float64)) {
	cold, _ := build(0)
	var builds, pushes []float64
	for version := 1; b.Loop(); version++ {
		built, pushed := build(version)
		builds, pushes = append(builds, built), append(pushes, pushed)
	}
	slices.Sort(builds)
	slices.Sort(pushes)
	b.ReportMetric(builds[len(builds)/2], prefix+"rebuild_p50_s")
	b.ReportMetric(pushes[len(pushes)/2], prefix+"push_p50_s")
	b.ReportMetric(cold, prefix+"cold_build_s")
	b.ReportMetric(0, "ns/op")
}
