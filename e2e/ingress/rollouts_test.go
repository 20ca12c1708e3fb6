//go:build e2e

package ingress_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startRollouts runs the upstream controller of Argo Rollouts beside the
// cluster, with the resource definitions that the platform installs.
func (s *site) startRollouts() {
	s.t.Helper()
	crds, err := filepath.Abs("../../internal/rollout/engine/crds")
	s.must(err)
	for _, name := range []string{"rollouts", "analysisruns", "analysistemplates", "clusteranalysistemplates", "experiments"} {
		s.kubectl("apply", "--server-side", "-f", filepath.Join(crds, name+".yaml"))
	}
	bin := os.Getenv("SLIPWAY_ROLLOUTS_CONTROLLER")
	if bin == "" {
		bin = filepath.Join(s.Config.DataDir, "rollouts-controller")
		cmd := exec.CommandContext(s.ctx, "go", "build", "-ldflags=-s -w", "-o", bin, "github.com/argoproj/argo-rollouts/cmd/rollouts-controller")
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("build rollouts-controller: %v: %s", err, out)
		}
	}
	log, err := os.Create(filepath.Join(s.Config.DataDir, "logs", "rollouts.log"))
	s.must(err)
	defer log.Close()
	cmd := exec.Command(bin, "--kubeconfig", s.Config.Kubeconfig, "--leader-elect=false", "--metricsport", "18090", "--healthzPort", "18091")
	cmd.Stdout, cmd.Stderr = log, log
	s.must(s.Inside(cmd.Start))
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		_ = cmd.Wait()
	})
}

// rolloutManifest is of a version that works, or of one that fails; that one is
// kept at its first weight for so long that only the analysis can end it.
func rolloutManifest(version, fail string) string {
	first := "8s"
	if fail != "" {
		first = "60s"
	}
	return strings.NewReplacer("VERSION_", version, "FAIL_", fail, "FIRST_", first, "IMAGE_", appImage).Replace(`
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: app}
spec:
  replicas: 4
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: c
        image: IMAGE_
        env: [{name: VERSION, value: VERSION_}, {name: FAIL, value: "FAIL_"}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
  strategy:
    canary:
      stableService: app-stable
      canaryService: app-canary
      scaleDownDelaySeconds: 5
      abortScaleDownDelaySeconds: 5
      trafficRouting: {nginx: {stableIngress: app}}
      analysis:
        templates: [{templateName: errors}]
        startingStep: 1
        args: [{name: service, value: app-canary}]
      steps:
      - setWeight: 20
      - pause: {duration: FIRST_}
      - setWeight: 50
      - pause: {duration: 8s}
      - setWeight: 80
      - pause: {duration: 8s}
`)
}

const rolloutObjects = `
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: errors}
spec:
  args: [{name: service}]
  metrics:
  - name: errors
    interval: 2s
    initialDelay: 2s
    failureLimit: 1
    failureCondition: len(result) > 0 && !isNaN(result[0]) && result[0] > 0.05
    provider:
      prometheus:
        address: http://127.0.0.1:80/prometheus
        query: sum(rate(slipway_ingress_requests_total{service="{{args.service}}",canary="true",code=~"5.."}[15s])) / sum(rate(slipway_ingress_requests_total{service="{{args.service}}",canary="true"}[15s]))
---
apiVersion: v1
kind: Service
metadata: {name: app-stable}
spec: {selector: {app: app}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: app-canary}
spec: {selector: {app: app}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: bg}
spec: {selector: {app: bg}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
`

func blueGreenManifest(version string) string {
	return strings.NewReplacer("VERSION_", version, "IMAGE_", appImage).Replace(`
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: bg}
spec:
  replicas: 2
  selector: {matchLabels: {app: bg}}
  template:
    metadata: {labels: {app: bg}}
    spec:
      containers:
      - name: c
        image: IMAGE_
        env: [{name: VERSION, value: VERSION_}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
  strategy:
    blueGreen: {activeService: bg, scaleDownDelaySeconds: 5}
`)
}

func (s *site) rolloutPhase(name, phase, version string) {
	s.t.Helper()
	s.eventually("Rollout "+name+" is "+phase, func() error {
		got := s.kubectl("get", "rollout", name, "-o", `jsonpath={.status.phase} {.spec.template.spec.containers[0].env[0].value} {.status.observedGeneration} {.metadata.generation} {.status.message}`)
		f := strings.Fields(got)
		if len(f) < 4 || f[0] != phase || f[1] != version || f[2] != f[3] {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// TestArgoRolloutsUnderLoad has the real Argo Rollouts promote a canary, abort
// a broken one by its error rate, and switch blue-green, each under 200
// requests per second.
func TestArgoRolloutsUnderLoad(t *testing.T) {
	s := startSite(t, "eroll")
	s.startRollouts()
	bgIngress := strings.Replace(ingressManifest("bg", "bg"), appHost, "bg.localhost", 1)
	s.apply(rolloutObjects + ingressManifest("app", "app-stable") + bgIngress + rolloutManifest("v1", "") + "---" + blueGreenManifest("v1"))
	s.rolloutPhase("app", "Healthy", "v1")
	s.rolloutPhase("bg", "Healthy", "v1")
	for _, host := range []string{appHost, "bg.localhost"} {
		s.eventually("the application answers", func() error { return s.expect("http://127.0.0.1:80/", host, 200, "v1") })
	}

	t.Run("full canary", func(t *testing.T) {
		l := s.underLoad(appHost, func(l *load) {
			s.apply(rolloutManifest("v2", ""))
			s.plateauOf(t, l, "20", "200 v2", 20)
			s.plateauOf(t, l, "50", "200 v2", 50)
			s.plateauOf(t, l, "80", "200 v2", 80)
			s.rolloutPhase("app", "Healthy", "v2")
			time.Sleep(7 * time.Second) // the old pods are scaled down under load
		})
		l.only(t, "200 v1", "200 v2")
	})
	t.Run("canary aborted by its errors", func(t *testing.T) {
		var started, aborted time.Time
		l := s.underLoad(appHost, func(l *load) {
			s.apply(rolloutManifest("v3", "yes"))
			s.eventually("the broken version answers", func() error {
				if l.snapshot()["500 v3"] == 0 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			started = time.Now()
			s.settle()
			before := l.snapshot()
			s.rolloutPhase("app", "Degraded", "v3")
			aborted = time.Now()
			bad, good := l.snapshot()["500 v3"]-before["500 v3"], l.snapshot()["200 v2"]-before["200 v2"]
			if share := 100 * float64(bad) / float64(bad+good); share > 22 {
				t.Errorf("the broken version answered %.1f %% of the requests at its weight of 20 %%", share)
			}
			s.settle()
			if after := l.during(func() { time.Sleep(7 * time.Second) }); after["500 v3"] > 0 {
				t.Errorf("after the abort: %v", after)
			}
		})
		l.only(t, "200 v2", "500 v3")
		t.Logf("aborted %s after the first error; the message: %s", aborted.Sub(started).Round(100*time.Millisecond),
			s.kubectl("get", "rollout", "app", "-o", "jsonpath={.status.message}"))
		if d := aborted.Sub(started); d > 30*time.Second {
			t.Errorf("aborted after %s", d)
		}
		if share := 100 * float64(l.counts["500 v3"]) / float64(sum(l.counts)); share > 22 {
			t.Errorf("the broken version answered %.1f %% of all", share)
		}
	})
	t.Run("blue-green", func(t *testing.T) {
		l := s.underLoad("bg.localhost", func(*load) {
			s.apply(blueGreenManifest("v2"))
			s.rolloutPhase("bg", "Healthy", "v2")
			time.Sleep(7 * time.Second) // the old pods are scaled down under load
		})
		l.only(t, "200 v1", "200 v2")
		if err := s.expect("http://127.0.0.1:80/", "bg.localhost", 200, "v2"); err != nil {
			t.Error(err)
		}
	})
}

// underLoad sends the load while f runs.
func (s *site) underLoad(host string, f func(*load)) *load {
	l := newLoad("http://127.0.0.1:80/", host, s.dial)
	ctx, stop := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() { l.run(ctx, rate); close(ended) }()
	func() {
		defer func() { stop(); <-ended }()
		f(l)
	}()
	return l
}

// plateauOf waits for the canary Ingress to have a weight and then measures
// the version's share for 5 seconds.
func (s *site) plateauOf(t *testing.T, l *load, weight, key string, percent int) {
	t.Helper()
	s.eventually("weight "+weight, func() error {
		got, err := s.Kubectl(s.ctx, "get", "ingress", "app-app-canary", "-o", `jsonpath={.metadata.annotations.nginx\.ingress\.kubernetes\.io/canary-weight}`)
		if err == nil && got != weight {
			err = fmt.Errorf("weight %q", got)
		}
		return err
	})
	s.settle()
	within(t, l.during(func() { time.Sleep(plateau) }), key, percent, 2)
}

// only fails the test for any other answer.
func (l *load) only(t *testing.T, keys ...string) {
	t.Helper()
	t.Logf("%d requests, %.0f per second: %v", l.sent, float64(l.sent)/l.lasted.Seconds(), l.counts)
	rest := l.sent
	for _, k := range keys {
		rest -= l.counts[k]
	}
	if rest > 0 {
		t.Errorf("%d of %d requests failed: %v, %v", rest, l.sent, l.counts, l.failures[:min(5, len(l.failures))])
	}
}
