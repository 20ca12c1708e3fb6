//go:build e2e

// Package ingress_test holds the end-to-end tests of traffic: a real cluster,
// the real ingress in front of it, and a constant load while things change.
package ingress_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
	"github.com/slipwayhq/slipway/internal/node"
)

const (
	appImage = "localhost/test/testapp:1"
	appHost  = "app.localhost"
	rate     = 200 // requests per second
	plateau  = 5 * time.Second
)

// site is a node with an ingress in front of its pods.
type site struct {
	*lab.Node
	t       *testing.T
	ctx     context.Context
	gate    string    // the program
	running *exec.Cmd // what runs of it
}

func startSite(t *testing.T, name string) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	n, err := lab.New(ctx, "/tmp", "sw-"+name)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Node: n, t: t, ctx: ctx}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			s.keepLogs()
		}
		if err := n.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	s.must(n.Start(ctx))
	_, err = n.WaitReady(ctx)
	s.must(err)
	s.importApp()
	s.startGate()
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) keepLogs() {
	dir, err := os.MkdirTemp("", "slipway-e2e-logs-")
	if err == nil {
		err = os.CopyFS(filepath.Join(dir, "logs"), os.DirFS(filepath.Join(s.Config.DataDir, "logs")))
	}
	s.t.Logf("logs: %s %v", dir, err)
}

func (s *site) build(name string) string {
	s.t.Helper()
	path := filepath.Join(s.Config.DataDir, name)
	cmd := exec.CommandContext(s.ctx, "go", "build", "-ldflags=-s -w", "-o", path, "github.com/slipwayhq/slipway/e2e/ingress/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("build %s: %v: %s", name, err, out)
	}
	return path
}

func (s *site) importApp() {
	s.t.Helper()
	content, err := os.ReadFile(s.build("testapp"))
	s.must(err)
	var archive bytes.Buffer
	s.must(node.WriteProgramImage(&archive, appImage, content))
	tar := filepath.Join(s.Config.DataDir, "testapp.tar")
	s.must(os.WriteFile(tar, archive.Bytes(), 0o600))
	s.must(node.ImportImage(s.ctx, s.Config, node.KubernetesNamespace, tar))
}

// startGate runs the ingress in the node's network namespace, on ports 80 and
// 443 of its loopback address.
func (s *site) startGate() {
	s.t.Helper()
	if s.gate = os.Getenv("SLIPWAY_GATE"); s.gate == "" {
		s.gate = s.build("gate")
	}
	s.runGate()
	s.t.Cleanup(func() { s.endGate(syscall.SIGTERM) })
	s.eventually("the ingress is ready", func() error { return s.expect("http://127.0.0.1:80/readyz", "localhost", 200, "") })
}

func (s *site) runGate() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Config.DataDir, "logs", "gate.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	s.must(err)
	defer log.Close()
	cmd := exec.Command(s.gate, "-kubeconfig", s.Config.Kubeconfig, "-data", filepath.Join(s.Config.DataDir, "gate-data"), "-http", "127.0.0.1:80", "-https", "127.0.0.1:443")
	cmd.Stdout, cmd.Stderr = log, log
	s.must(s.Inside(cmd.Start))
	s.running = cmd
}

func (s *site) endGate(signal syscall.Signal) {
	if s.running != nil {
		_ = s.running.Process.Signal(signal) // it may have ended already
		_ = s.running.Wait()
		s.running = nil
	}
}

func (s *site) eventually(what string, f func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Minute)
	defer cancel()
	if err := lab.Until(ctx, f); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (s *site) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return s.Dial(ctx, network, "127.0.0.1:80")
}

func (s *site) expect(url, host string, status int, body string) error {
	l := newLoad(url, host, s.dial)
	defer l.close()
	got, err := l.request()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(got, fmt.Sprint(status)+" ") || !strings.Contains(got, body) {
		return fmt.Errorf("got %q, want %d %q", got, status, body)
	}
	return nil
}

func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.Kubectl(s.ctx, args...)
	s.must(err)
	return out
}

func (s *site) apply(manifest string) {
	s.t.Helper()
	_, err := s.KubectlInput(s.ctx, manifest, "apply", "-f", "-")
	s.must(err)
}

// deployment runs a version of the application behind a Service of its name.
func deployment(name, version, fail string, replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[4]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, site: app}}
    spec:
      containers:
      - name: c
        image: %[5]s
        env: [{name: VERSION, value: %[2]s}, {name: FAIL, value: %[3]q}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
`, name, version, fail, replicas, appImage)
}

func ingressManifest(name, service string, annotations ...string) string {
	return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, annotations: {%s}}
spec:
  ingressClassName: slipway
  rules:
  - host: %s
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: %s, port: {name: http}}}}]}
---
`, name, strings.Join(annotations, ", "), appHost, service)
}

// weight sets the canary's weight as Argo Rollouts does.
func (s *site) weight(service string, percent int) {
	s.t.Helper()
	s.apply(ingressManifest("app-canary", service,
		`nginx.ingress.kubernetes.io/canary: "true"`, fmt.Sprintf(`nginx.ingress.kubernetes.io/canary-weight: "%d"`, percent)))
}

// settle waits until a new weight is in force; the request that notices is the
// load's own.
func (s *site) settle() { time.Sleep(500 * time.Millisecond) }

// TestReleasesUnderLoad sends 200 requests per second for the whole of a full
// canary, an aborted canary of a broken version, blue-green switches, restarts
// and scaling: no request fails beyond those the broken version answers, and
// every version gets its weight within two points.
func TestReleasesUnderLoad(t *testing.T) {
	s := startSite(t, "etraf")
	s.apply(deployment("stable", "v1", "", 2) + deployment("canary", "v2", "", 2) + deployment("broken", "v3", "yes", 1) + ingressManifest("app", "stable"))
	for _, d := range []string{"stable", "canary", "broken"} {
		s.kubectl("rollout", "status", "deployment/"+d, "--timeout=60s")
	}
	s.eventually("the application answers", func() error { return s.expect("http://127.0.0.1:80/", appHost, 200, "v1") })
	l := newLoad("http://127.0.0.1:80/", appHost, s.dial)
	ctx, stop := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() { l.run(ctx, rate); close(ended) }()

	t.Run("canary", func(t *testing.T) {
		for _, w := range []int{5, 20, 50, 80, 100} {
			s.weight("canary", w)
			s.settle()
			counts := l.during(func() { time.Sleep(plateau) })
			within(t, counts, "200 v2", w, 2)
		}
		s.weight("canary", 0)
		s.settle()
	})
	t.Run("aborted canary of a broken version", func(t *testing.T) {
		s.weight("broken", 20)
		s.settle()
		counts := l.during(func() { time.Sleep(plateau) })
		within(t, counts, "500 v3", 20, 2)
		s.weight("broken", 0)
		s.settle()
		if counts := l.during(func() { time.Sleep(plateau) }); counts["500 v3"] > 0 {
			t.Errorf("after the abort: %v", counts)
		}
		s.kubectl("delete", "ingress", "app-canary")
	})
	t.Run("blue-green", func(t *testing.T) {
		for i, to := range []string{"canary", "stable", "canary", "stable"} {
			s.kubectl("patch", "service", "stable", "-p", fmt.Sprintf(`{"spec":{"selector":{"app":%q}}}`, to))
			s.settle()
			want := []string{"200 v2", "200 v1"}[i%2]
			if counts := l.during(func() { time.Sleep(time.Second) }); counts[want] != sum(counts) {
				t.Errorf("after switch %d: %v, want only %s", i, counts, want)
			}
		}
	})
	t.Run("restarts and scaling", func(t *testing.T) {
		s.kubectl("rollout", "restart", "deployment/stable")
		s.kubectl("rollout", "status", "deployment/stable", "--timeout=90s")
		for _, n := range []string{"4", "1", "3"} {
			s.kubectl("scale", "deployment/stable", "--replicas="+n)
			s.kubectl("rollout", "status", "deployment/stable", "--timeout=90s")
		}
		pod := s.kubectl("get", "pods", "-l", "app=stable", "-o", "jsonpath={.items[0].metadata.name}")
		s.kubectl("delete", "pod", pod, "--wait=false")
		s.kubectl("rollout", "status", "deployment/stable", "--timeout=90s")
	})
	stop()
	<-ended
	t.Logf("%d requests: %v", l.sent, l.counts)
	for k, n := range l.counts {
		if k != "200 v1" && k != "200 v2" && k != "500 v3" {
			t.Errorf("%d times %q", n, k)
		}
	}
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(l.failures), l.sent, l.failures[:min(5, len(l.failures))])
	}
	s.metricsAgree()
}

// within checks a share in percent.
func within(t *testing.T, counts map[string]int, key string, percent, points int) {
	t.Helper()
	total := sum(counts)
	if total < rate {
		t.Fatalf("only %d answers: %v", total, counts)
	}
	share := 100 * float64(counts[key]) / float64(total)
	t.Logf("weight %d: %.2f %% of %d", percent, share, total)
	if share < float64(percent-points) || share > float64(percent+points) {
		t.Errorf("%s got %.2f %%, want %d ± %d: %v", key, share, percent, points, counts)
	}
}

// metricsAgree asks the metrics what the load knows: which version answered
// what, told apart by service and revision.
func (s *site) metricsAgree() {
	s.t.Helper()
	s.measured(
		`slipway_ingress_requests_total{service="broken",code="500",revision!=""} > 100`,
		`slipway_ingress_requests_total{service="canary",code="200",revision!="",canary="true"} > 1000`,
		`histogram_quantile(0.95, sum by (le) (slipway_ingress_request_duration_seconds_bucket{service="stable"})) < 1`,
		`up{job="kubelet",metrics_path="/metrics/cadvisor"} == 1`,
		`kube_pod_info{pod=~"stable-.*"}`,
	)
}

// measured waits until each query has a result.
func (s *site) measured(queries ...string) {
	s.t.Helper()
	for _, q := range queries {
		s.eventually(q, func() error {
			l := newLoad("http://127.0.0.1:80/prometheus/api/v1/query?query="+url.QueryEscape(q), "localhost", s.dial)
			defer l.close()
			got, err := l.request()
			if err == nil && !strings.Contains(got, `"metric"`) {
				err = fmt.Errorf("no result: %s", got)
			}
			return err
		})
	}
}

const monitors = `
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: stable}
spec:
  selector: {matchLabels: {app: stable}}
  endpoints: [{port: http, interval: 1s}]
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: canary}
spec:
  selector: {matchLabels: {app: canary}}
  podMetricsEndpoints: [{port: http, interval: 1s}]
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: versions}
spec:
  groups:
  - name: versions
    interval: 1s
    rules: [{record: "site:versions:count", expr: "count(testapp_info)"}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: wrong}
spec:
  selector: {matchLabels: {app: stable}}
  endpoints: [{port: http, interval: 5s, scrapeTimeout: 1m}]
`

// TestMonitorsAndFaults scrapes applications by monitors and annotations, then
// takes the cluster and the ingress away under load.
func TestMonitorsAndFaults(t *testing.T) {
	s := startSite(t, "eflt")
	annotated := strings.Replace(deployment("annotated", "v3", "", 1), "labels: {app: annotated, site: app}",
		`labels: {app: annotated, site: app}, annotations: {prometheus.io/scrape: "true", prometheus.io/port: "8080"}`, 1)
	s.apply(deployment("stable", "v1", "", 2) + deployment("canary", "v2", "", 1) + annotated + ingressManifest("app", "stable"))
	s.eventually("the monitors are applied", func() error {
		_, err := s.KubectlInput(s.ctx, monitors, "apply", "-f", "-")
		return err
	})
	for _, d := range []string{"stable", "canary", "annotated"} {
		s.kubectl("rollout", "status", "deployment/"+d, "--timeout=60s")
	}
	s.measured(
		`testapp_info{version="v1",job="stable",service="stable",namespace="default",pod=~"stable-.+",revision!=""}`,
		`testapp_info{version="v2",job="default/canary",pod=~"canary-.+"}`,
		`testapp_info{version="v3",pod=~"annotated-.+"}`,
		`site:versions:count >= 3`,
		`container_memory_working_set_bytes{pod=~"stable-.+",container="c"} > 0`,
		`apiserver_request_total`, `etcd_server_has_leader == 1`, `node_memory_MemTotal_bytes`, `coredns_build_info`,
		// What is not kept is not asked for: only buckets are dropped.
		`max(scrape_samples_scraped{job=~"apiserver|etcd|coredns|kube.+",metrics_path!="/metrics/cadvisor"} / scrape_samples_post_metric_relabeling) < 4`,
		`count(grpc_server_handled_total{job="etcd",grpc_method="Range"}) > 10`, `count(grpc_server_handled_total{job="etcd",grpc_method="LeaseKeepAlive"}) == 1`,
	)
	t.Run("annotations", s.annotations)
	s.eventually("the wrong monitor is reported", func() error {
		return s.expect("http://127.0.0.1:80/problems", "localhost", 200, "ServiceMonitor default/wrong endpoint 0: scrapeTimeout 1m is longer than the interval 5s")
	})
	s.eventually("the application answers", func() error { return s.expect("http://127.0.0.1:80/", appHost, 200, "v1") })

	l := newLoad("http://127.0.0.1:80/", appHost, s.dial)
	ctx, stop := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() { l.run(ctx, rate); close(ended) }()
	s.must(s.Kill(lab.Cluster))
	s.eventually("the ingress says that the cluster is away", func() error {
		return s.expect("http://127.0.0.1:80/readyz", "localhost", 503, "connection refused")
	})
	stop()
	<-ended
	if len(l.failures) > 0 || l.counts["200 v1"] != l.sent {
		t.Errorf("without the control plane: %v of %d, %v", l.counts, l.sent, l.failures)
	}
	s.endGate(syscall.SIGKILL)
	s.runGate()
	s.eventually("a new ingress serves the old routes without the cluster", func() error { return s.expect("http://127.0.0.1:80/", appHost, 200, "v1") })
	s.must(s.Start(s.ctx))
	s.eventually("everything is ready again", func() error { return s.expect("http://127.0.0.1:80/readyz", "localhost", 200, "") })
	s.kubectl("scale", "deployment/stable", "--replicas=3")
	s.kubectl("rollout", "status", "deployment/stable", "--timeout=60s")
	s.measured(`count(testapp_info{job="stable"}) == 3`)
}
