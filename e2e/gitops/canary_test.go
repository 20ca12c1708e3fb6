//go:build e2e

package gitops_test

import (
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/rollout"
)

const canaryManifests = `
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 1
  progressDeadlineSeconds: 60
  rollbackWindow: {revisions: 1}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: REGISTRY/acme/web:TAG
          ports: [{name: http, containerPort: 8000}]
          readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 3}}}
  strategy:
    canary:
      stableService: web
      canaryService: web-canary
      trafficRouting: {nginx: {stableIngress: web}}
      analysis:
        startingStep: 1
        templates: [{templateName: success-rate, clusterScope: true}, {templateName: latency-p95, clusterScope: true}]
        args:
          - {name: namespace, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
          - {name: service, value: web-canary}
          - {name: count, value: "0"}
          - {name: interval, value: 5s}
          - {name: initial-delay, value: 5s}
      steps: [{setWeight: 20}, {pause: {duration: 30s}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: slipway
  rules: [{host: web.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]
`

func (l *lab) release(t *testing.T, tag string) string {
	t.Helper()
	text := strings.NewReplacer("REGISTRY", strings.TrimPrefix(l.URL, "http://"), "TAG", tag).Replace(canaryManifests)
	return l.push(t, "release "+tag, map[string]string{"web/kustomization.yaml": kustomization("web.yaml"), "web/web.yaml": text})
}

// A good version is promoted by its metrics, also when the controllers are
// killed on the way; a bad one goes back by itself within 30 s of the first
// bad window, users of the stable version see nothing, and a revert commit
// makes git and cluster agree again.
func (l *lab) testCanary(t *testing.T) {
	i := l.With(t)
	l.images(t, "1", "2", "bad")
	l.release(t, "1")
	l.application(t, "web")
	state := func() *rollout.Rollout {
		r, err := l.rollouts.Get(t.Context(), "web", "web")
		if err != nil {
			return &rollout.Rollout{}
		}
		return r
	}
	image := func(r *rollout.Rollout) string { return strings.Join(r.Images, "") }
	i.Eventually("version 1 healthy", 90*time.Second, func() bool { r := state(); return r.Phase == "Healthy" && r.Ready == 1 })

	stop := l.traffic(t, "web.example.org")
	l.release(t, "2")
	i.Eventually("version 2 at its pause with 20 %", 40*time.Second, func() bool { r := state(); return r.Paused && r.Weight == 20 })
	l.killGitOps(t)
	i.Eventually("version 2 promoted", 2*time.Minute, func() bool {
		r := state()
		return r.Phase == "Healthy" && strings.HasSuffix(image(r), ":2") && r.Weight == 100
	})
	counts := stop()
	t.Logf("promotion: %v", counts)
	for answer, n := range counts {
		if !strings.HasPrefix(answer, "200 ") {
			t.Errorf("%d failed requests: %s", n, answer)
		}
	}

	stop = l.traffic(t, "web.example.org")
	l.release(t, "bad")
	i.Eventually("the bad version gets traffic", 40*time.Second, func() bool { return state().Weight == 20 })
	started := time.Now()
	i.Eventually("the bad version aborted", 45*time.Second, func() bool { return state().Aborted })
	t.Logf("first traffic to abort: %s", time.Since(started).Round(100*time.Millisecond))
	counts = stop()
	t.Logf("abort: %v", counts)
	if n := counts["500 bad"]; n == 0 || n*100 > 22*(n+counts["200 2"]) {
		t.Errorf("the bad version answered %d of %d requests", n, n+counts["200 2"])
	}
	for answer, n := range counts {
		if answer != "200 2" && answer != "500 bad" {
			t.Errorf("%d failed requests: %s", n, answer)
		}
	}
	if r := state(); r.Phase != "Degraded" || !strings.Contains(r.Message, "success-rate") {
		t.Errorf("the rollout does not say why: %s %s", r.Phase, r.Message)
	}
	l.checkAnalysis(t)

	l.git(t, l.clone, "revert", "--no-edit", "HEAD")
	l.git(t, l.clone, "push", "-q", strings.Replace(l.repo, "://", "://root:"+l.token+"@", 1), "HEAD:main")
	i.Eventually("healthy after the revert", 30*time.Second, func() bool {
		r := state()
		a, err := l.apps.Get(t.Context(), "web")
		return err == nil && r.Phase == "Healthy" && !r.Aborted && a.Sync.Status == "Synced"
	})
}

// checkAnalysis shows that the values and their limit can be drawn.
func (l *lab) checkAnalysis(t *testing.T) {
	t.Helper()
	revs, err := l.rollouts.Revisions(t.Context(), "web", "web")
	if err != nil {
		t.Fatal(err)
	}
	if len(revs) == 0 || len(revs[0].Analyses) == 0 {
		t.Fatalf("no analysis of the newest revision: %+v", revs)
	}
	for _, m := range revs[0].Analyses[0].Metrics {
		if m.Name == "success-rate" {
			if m.Operator != ">=" || m.Limit != 0.95 || len(m.Measurements) < 2 || m.Measurements[len(m.Measurements)-1].Value >= 0.95 {
				t.Errorf("metric %+v", m)
			}
			return
		}
	}
	t.Error("success-rate was not measured")
}
