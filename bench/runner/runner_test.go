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

// BenchmarkRebuild measures `docker build` of a two-stage image with one source
// line changed.
func BenchmarkRebuild(b *testing.B) {
	registry := host.Registry(b)
	bench := host.Service(b, registry, nil)
	build := func(version int) time.Duration {
		spec := bench.Job(host.Script(fmt.Sprintf(`
mkdir app && cd app
for i in $(seq 200); do echo "line $i" > file$i.txt; done
echo 'version = %d' > main.py
cat > Dockerfile <<'EOF'
FROM debian:bookworm-slim AS base
RUN mkdir -p /opt/app && for i in $(seq 500); do echo $i > /opt/app/dep$i; done
FROM base
WORKDIR /srv
COPY . .
RUN cp main.py compiled.py
CMD ["cat", "compiled.py"]
EOF
start=$(date +%%s%%N); docker build -q -t "$REGISTRY/bench/app:v%d" . ; docker push -q "$REGISTRY/bench/app:v%d" >/dev/null; end=$(date +%%s%%N)
echo "took $(( (end - start) / 1000000 )) ms"
`, version, version, version))...)
		spec.Variables = []delivery.JobVariable{{Key: "REGISTRY", Value: registry}}
		job := bench.Do(spec)
		plain := runnertest.Plain(job.Trace)
		var milliseconds int64
		if at := strings.LastIndex(plain, "took "); job.Status != "success" || at < 0 {
			b.Fatal(plain)
		} else if _, err := fmt.Sscanf(plain[at:], "took %d ms", &milliseconds); err != nil {
			b.Fatal(err)
		}
		return time.Duration(milliseconds) * time.Millisecond
	}
	cold := build(0)
	var values []float64
	for version := 1; b.Loop(); version++ {
		values = append(values, build(version).Seconds())
	}
	slices.Sort(values)
	b.ReportMetric(values[len(values)/2], "rebuild_and_push_p50_s")
	b.ReportMetric(cold.Seconds(), "cold_s")
	b.ReportMetric(0, "ns/op")
}
