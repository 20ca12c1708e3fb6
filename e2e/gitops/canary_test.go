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
        templates: [{templateName: success-rate, clusterScope: true}, {templateName: latency-p95, clusterScope: true}, {templateName: error-logs, clusterScope: true}]
        args:
          - {name: namespace, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
          - {name: service, value: web-canary}
          - {name: hash, valueFrom: {podTemplateHashValue: Latest}}
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

	l.api(t, "PUT", "/projects/acme%2Fweb/release_settings", map[string]any{"auto_revert": true})
	stop = l.traffic(t, "web.example.org")
	bad := l.release(t, "bad")
	i.Eventually("the bad version gets traffic", 40*time.Second, func() bool { return state().Weight == 20 })
	started := time.Now()
	var why string
	i.Eventually("the bad version aborted", 45*time.Second, func() bool { r := state(); why = r.Phase + " " + r.Message; return r.Aborted })
	if !strings.HasPrefix(why, "Degraded") || !strings.Contains(why, "success-rate") {
		t.Errorf("the rollout does not say why: %s", why)
	}
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
	l.checkAnalysis(t)
	l.checkRevert(t, bad)
	i.Eventually("healthy after the revert", 30*time.Second, func() bool {
		r := state()
		a, err := l.apps.Get(t.Context(), "web")
		return err == nil && r.Phase == "Healthy" && !r.Aborted && a.Sync.Status == "Synced"
	})
}

// checkRevert shows that the platform took the commit back by itself and says
// why: in git, in the rollout's events, and in the audit log.
func (l *lab) checkRevert(t *testing.T, bad string) {
	t.Helper()
	remote := strings.Replace(l.repo, "://", "://root:"+l.token+"@", 1)
	l.Eventually("the commit reverted in git", 20*time.Second, func() bool {
		l.git(t, l.clone, "fetch", "-q", remote, "main")
		return l.git(t, l.clone, "rev-parse", "FETCH_HEAD^") == bad
	})
	message := l.git(t, l.clone, "log", "-1", "--format=%an: %B", "FETCH_HEAD")
	if !strings.Contains(message, "success-rate failed with") || !strings.HasPrefix(message, "Administrator: Revert web to ") {
		t.Errorf("the commit says %s", message)
	}
	if diff := l.git(t, l.clone, "diff", "--stat", bad+"^", "FETCH_HEAD"); diff != "" {
		t.Errorf("the revert differs from the state before: %s", diff)
	}
	l.git(t, l.clone, "reset", "-q", "--hard", "FETCH_HEAD")
	events := l.Kubectl("-n", "web", "get", "events", "--field-selector", "involvedObject.kind=Rollout", "-o", "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}")
	for _, want := range []string{"RolloutAborted: Rollout aborted update", "RevertedInGit: Commit "} {
		if !strings.Contains(events, want) {
			t.Errorf("no event %q in\n%s", want, events)
		}
	}
	status, audit := l.apiText(t, "/audit_events?per_page=100")
	if status != 200 || !strings.Contains(audit, "release.reverted") || !strings.Contains(audit, "success-rate failed with") {
		t.Errorf("audit log: %d %s", status, audit)
	}
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
		if m.Name == "error-logs" && (len(m.Measurements) == 0 || m.Measurements[0].Phase != "Successful" || m.Measurements[0].Value != 0) {
			t.Errorf("the logs were not looked at: %+v", m)
		}
		if m.Name == "success-rate" {
			if m.Operator != ">=" || m.Limit != 0.95 || len(m.Measurements) < 2 || m.Measurements[len(m.Measurements)-1].Value >= 0.95 {
				t.Errorf("metric %+v", m)
			}
			return
		}
	}
	t.Error("success-rate was not measured")
}
