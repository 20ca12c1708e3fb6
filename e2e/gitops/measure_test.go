//go:build e2e

package gitops_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/e2e/instance"
)

const measured = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {release: "%[2]d"}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {release: "%[2]d"}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: web, image: %[1]s/acme/web:1, readinessProbe: {httpGet: {path: /readyz, port: 8000}, periodSeconds: 1}}
`

// TestMeasure measures, and judges nothing: a loaded machine measures itself.
// It runs where SLIPWAY_BENCH is set; "quick" leaves out the rest.
func TestMeasure(t *testing.T) {
	if os.Getenv("SLIPWAY_BENCH") == "" {
		t.Skip("a measurement: set SLIPWAY_BENCH=1")
	}
	quick := os.Getenv("SLIPWAY_BENCH") == "quick"
	i := instance.New(t, "swgmem", 41, withoutEngines)
	var without map[string]float64
	if !quick {
		i.Up()
		time.Sleep(rest)
		without = memory(t, i)
		i.Run("down")
	}
	config, err := os.ReadFile(i.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.Config, []byte(strings.Replace(string(config), withoutEngines, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLabOn(t, i)
	l.images(t, "1")
	registry := strings.TrimPrefix(l.URL, "http://")
	files := map[string]string{}
	for n := range 9 {
		folder := fmt.Sprintf("app%d", n)
		files[folder+"/kustomization.yaml"] = kustomization("a.yaml")
		files[folder+"/a.yaml"] = fmt.Sprintf(configMap, "a", "1")
	}
	files["web/kustomization.yaml"] = kustomization("web.yaml")
	files["web/web.yaml"] = fmt.Sprintf(measured, registry, 0)
	l.push(t, "first", files)
	for n := range 9 {
		l.application(t, fmt.Sprintf("app%d", n))
	}
	l.application(t, "web")
	l.Eventually("ten Applications are Synced and Healthy", 3*time.Minute, func() bool {
		apps, err := l.apps.List(t.Context())
		ready := 0
		for _, a := range apps {
			if a.Sync.Status == "Synced" && a.Health.Status == "Healthy" {
				ready++
			}
		}
		return err == nil && ready == 10
	})
	cfg, err := clientcmd.BuildConfigFromFlags("", l.DataDir+"/kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	kube, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var applied, healthy []time.Duration
	for release := 1; release <= 7; release++ {
		a, h := l.measureRelease(t, kube, registry, release)
		applied, healthy = append(applied, a), append(healthy, h)
	}
	slices.Sort(applied)
	slices.Sort(healthy)
	fmt.Printf("git push to applied: median %.2f s, worst %.2f s (limit 3 s)\n", applied[3].Seconds(), applied[6].Seconds())
	fmt.Printf("git push to healthy, image present: median %.2f s, worst %.2f s (limit 6 s)\n", healthy[3].Seconds(), healthy[6].Seconds())

	if quick {
		return
	}
	time.Sleep(rest)
	l.reportMemory(t, without)
}

// rest is how long nothing happens before memory is read: programs give back
// what busy times took once in five minutes (internal/footprint).
const rest = 390 * time.Second

// withoutEngines is the platform without Argo CD, Argo Rollouts and Prometheus.
const withoutEngines = "gitops: {enabled: false}\nmetrics: {enabled: false}\n"

// reportMemory prints what Argo CD, Argo Rollouts and Prometheus cost at rest,
// all together: their own program, what they add to the others (the API
// server's watches and definitions, the metrics' database), and the sum.
func (l *lab) reportMemory(t *testing.T, without map[string]float64) {
	t.Helper()
	down := 0
	for _, target := range l.targets(t) {
		if target != "up" {
			down++
		}
	}
	if down > 0 {
		fmt.Printf("%d targets are not scraped\n", down)
	}
	with := memory(t, l.Instance)
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(with)) {
		fmt.Printf("%s at rest with 10 Applications: %.0f MB PSS, without Argo CD, Argo Rollouts and metrics %.0f MB\n", name, with[name], without[name])
		sum += with[name] - without[name]
	}
	fmt.Printf("Argo CD, Argo Rollouts and Prometheus with 10 Applications and all %d targets: %.0f MB PSS above the rest (limit 300 MB)\n", len(l.targets(t)), sum)
}

// targets are the states of what Prometheus scrapes.
func (l *lab) targets(t *testing.T) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.URL+"/prometheus/api/v1/targets?state=active", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var doc struct {
		Data struct {
			ActiveTargets []struct{ Health string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, one := range doc.Data.ActiveTargets {
		states = append(states, one.Health)
	}
	return states
}

// memory is the proportional set size of each of the platform's processes, in MB.
func memory(t *testing.T, i *instance.Instance) map[string]float64 {
	t.Helper()
	components, _ := i.Status()
	out := map[string]float64{}
	for name, c := range components {
		if c.PID != 0 {
			out[name] = pss(t, c.PID)
		}
	}
	server, err := os.ReadFile(filepath.Join(i.DataDir, "run", "slipway.lock"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(server)))
	if err != nil {
		t.Fatal(err)
	}
	out["slipway"] = pss(t, pid)
	return out
}

// measureRelease pushes a release and returns the times from the start of `git
// push` until the Deployment has the new template, and until its pods serve it.
func (l *lab) measureRelease(t *testing.T, kube dynamic.Interface, registry string, release int) (applied, healthy time.Duration) {
	t.Helper()
	resource := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	w, err := kube.Resource(resource).Namespace("web").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	start := time.Now()
	l.push(t, "release", map[string]string{"web/web.yaml": fmt.Sprintf(measured, registry, release)})
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		select {
		case <-limit.C:
			t.Fatalf("release %d is not healthy after a minute", release)
		case e := <-w.ResultChan():
			d, ok := e.Object.(*unstructured.Unstructured)
			if !ok || d.GetAnnotations()["release"] != strconv.Itoa(release) {
				continue
			}
			if applied == 0 {
				applied = time.Since(start)
			}
			seen, _, _ := unstructured.NestedInt64(d.Object, "status", "observedGeneration")
			updated, _, _ := unstructured.NestedInt64(d.Object, "status", "updatedReplicas")
			available, _, _ := unstructured.NestedInt64(d.Object, "status", "availableReplicas")
			total, _, _ := unstructured.NestedInt64(d.Object, "status", "replicas")
			if seen == d.GetGeneration() && updated == 1 && available == 1 && total == 1 {
				return applied, time.Since(start)
			}
		}
	}
}

// pss returns the proportional set size of a process in MB (10^6 bytes).
func pss(t *testing.T, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kb, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb * 1024 / 1e6
		}
	}
	t.Fatalf("no Pss of process %d", pid)
	return 0
}
