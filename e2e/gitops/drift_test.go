//go:build e2e

package gitops_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/jsonpath"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// healWithin is the promise: from the change by hand until it is undone.
const healWithin = 10 * time.Second

// drifting needs no image: it is about what git declares, not what runs.
const drifting = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {team: one}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.org/web:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {value: "1"}
`

// drifted are the kinds that are changed by hand.
var drifted = map[string]schema.GroupVersionResource{
	"deployment": {Group: "apps", Version: "v1", Resource: "deployments"},
	"service":    {Version: "v1", Resource: "services"},
	"configmap":  {Version: "v1", Resource: "configmaps"},
}

// heals checks that a change by hand is undone in time: a merge patch, or the
// deletion where that is empty. It talks to the API itself, as starting kubectl
// takes seconds on a busy machine.
func (l *lab) heals(t *testing.T, what, kind, namespace, name, path, want, patch string) {
	t.Helper()
	objects := l.kube.Resource(drifted[kind]).Namespace(namespace)
	value := func() string {
		u, err := objects.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		p, b := jsonpath.New("field"), &strings.Builder{}
		if err := p.Parse(path); err != nil {
			t.Fatal(err)
		}
		if err := p.Execute(b, u.Object); err != nil {
			return err.Error()
		}
		return b.String()
	}
	if before := value(); before != want {
		t.Fatalf("%s: before the change it is %q", what, before)
	}
	var err error
	if patch == "" {
		err = objects.Delete(t.Context(), name, metav1.DeleteOptions{})
	} else {
		_, err = objects.Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	start := time.Now()
	l.With(t).Eventually(what+" is healed", healWithin, func() bool { return value() == want })
	t.Logf("%s: healed after %s", what, time.Since(start).Round(10*time.Millisecond))
}

// What somebody changes or deletes by hand comes back by itself within ten
// seconds, each kind of change, and also the second time.
func (l *lab) testDrift(t *testing.T) {
	i := l.With(t)
	l.push(t, "what will drift", map[string]string{"drift/all.yaml": drifting})
	l.application(t, "drift")
	i.Eventually("synced", 30*time.Second, func() bool { return l.value("deployment", "drift", "web", "{.spec.replicas}") == "0" })
	for range 2 {
		l.heals(t, "a scale", "deployment", "drift", "web", "{.spec.replicas}", "0", `{"spec":{"replicas":1}}`)
		l.heals(t, "an edited field", "deployment", "drift", "web", "{.spec.template.spec.containers[0].image}", "example.org/web:1", `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"example.org/other:1"}]}}}}`)
		l.heals(t, "a label", "deployment", "drift", "web", "{.metadata.labels.team}", "one", `{"metadata":{"labels":{"team":"two"}}}`)
		l.heals(t, "data of a ConfigMap", "configmap", "drift", "settings", "{.data.value}", "1", `{"data":{"value":"2"}}`)
		l.heals(t, "a deleted Service", "service", "drift", "web", "{.spec.ports[0].port}", "80", "")
		l.heals(t, "a deleted Deployment", "deployment", "drift", "web", "{.spec.replicas}", "0", "")
	}
	i.Kubectl("-n", "argocd", "delete", "application", "drift")
}

const finalized = `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: %[1]s, namespace: argocd, finalizers: [%[3]s]}
spec:
  project: default
  source: {repoURL: %[2]s, targetRevision: main, path: drift}
  destination: {server: "https://kubernetes.default.svc", namespace: %[1]s}
  syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
`

// Deleting an Application does what its finalizer says: in the foreground, in
// the background, or without one nothing.
func (l *lab) testFinalizers(t *testing.T) {
	i := l.With(t)
	for name, finalizer := range map[string]string{"foreground": "resources-finalizer.argocd.argoproj.io", "background": "resources-finalizer.argocd.argoproj.io/background", "none": ""} {
		i.RunInput(fmt.Sprintf(finalized, name, l.repo, finalizer), "kubectl", "apply", "-f", "-")
	}
	for _, name := range []string{"foreground", "background", "none"} {
		i.Eventually(name+" is synced", 40*time.Second, func() bool { return l.value("deployment", name, "web", "{.metadata.name}") == "web" })
		i.Kubectl("-n", "argocd", "delete", "application", name, "--timeout=60s")
		left := func() string {
			out, err := i.Try("kubectl", "-n", name, "get", "deployment/web", "service/web", "configmap/settings", "--ignore-not-found", "-o", "name")
			if err != nil {
				return err.Error()
			}
			return strings.TrimSpace(out)
		}
		if name == "none" {
			if got := left(); strings.Count(got, "\n") != 2 {
				t.Errorf("without a finalizer, what was deployed stays, and there is %q", got)
			}
			continue
		}
		i.Eventually("what "+name+" deployed is gone", 20*time.Second, func() bool { return left() == "" })
	}
}

const killedSet = `
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: killed, namespace: argocd}
spec:
  goTemplate: true
  generators: [{list: {elements: [%s]}}]
  template:
    metadata: {name: 'killed-{{.number}}', annotations: {notifications.argoproj.io/subscribe.on-synced.hook: ""}}
    spec:
      project: default
      source: {repoURL: %s, targetRevision: main, path: drift, kustomize: {namePrefix: 'k{{.number}}-'}}
      destination: {server: "https://kubernetes.default.svc", namespace: killed}
      syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
`

// A kill while an ApplicationSet generates and its Applications sync: all are
// there in the end, and the notification of each has been sent.
func (l *lab) testKillSet(t *testing.T) {
	i := l.With(t)
	const count = 12
	told := l.notified(t)
	var elements []string
	for n := range count {
		elements = append(elements, fmt.Sprintf("{number: \"%d\"}", n))
	}
	l.push(t, "kustomized", map[string]string{"drift/kustomization.yaml": kustomization("all.yaml")})
	i.RunInput(fmt.Sprintf(killedSet, strings.Join(elements, ", "), l.repo), "kubectl", "apply", "-f", "-")
	made := func() (some, synced int) {
		apps, err := l.apps.List(t.Context())
		if err != nil {
			return 0, 0
		}
		for _, a := range apps {
			if strings.HasPrefix(a.Name, "killed-") {
				some++
				if a.Sync.Status == "Synced" {
					synced++
				}
			}
		}
		return some, synced
	}
	i.Eventually("the first Application", 30*time.Second, func() bool { some, _ := made(); return some > 0 })
	l.killGitOps(t)
	i.Eventually("all are generated and synced", 2*time.Minute, func() bool { _, synced := made(); return synced == count })
	missing := map[string]bool{}
	for n := range count {
		missing[fmt.Sprintf("/synced killed-%d Succeeded", n)] = true
	}
	limit := time.After(time.Minute)
	for len(missing) > 0 {
		select {
		case got := <-told:
			delete(missing, got)
		case <-limit:
			t.Fatalf("not told: %v", missing)
		}
	}
	i.Kubectl("-n", "argocd", "delete", "applicationset", "killed", "--wait=false")
}

// notified sets notifications up and returns what they send.
func (l *lab) notified(t *testing.T) <-chan string {
	t.Helper()
	// The side of the instance's link that this test is on.
	listener, err := net.Listen("tcp", l.local(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told <- r.URL.Path + " " + string(body)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	l.With(t).RunInput(fmt.Sprintf(notifications, listener.Addr()), "kubectl", "apply", "-f", "-")
	return told
}

// answersWithin asks for a page again and again until stop is closed, and
// returns the longest time that an answer took.
func answersWithin(t *testing.T, c *http.Client, address string, stop <-chan struct{}) time.Duration {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	var worst time.Duration
	for {
		start := time.Now()
		if status, _ := page(t, c, address); status != http.StatusOK {
			t.Errorf("%s answers %d", address, status)
		}
		worst = max(worst, time.Since(start))
		select {
		case <-stop:
			return worst
		case <-tick.C:
		}
	}
}

// An Application is made, changed and deleted on the pages, as people do who
// know Argo CD's.
func (l *lab) testDeclare(t *testing.T) {
	i := l.With(t)
	root := l.browserOf(t, "root", l.rootPassword(t))
	form := map[string][]string{"name": {"made-here"}, "repo": {l.repo}, "path": {"sync"}, "project": {"default"}, "auto": {"yes"}, "prune": {"yes"}, "make_namespace": {"yes"}}
	post := func(path string, values map[string][]string, want int, text string) {
		t.Helper()
		res, err := root.PostForm(l.URL+path, values)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want || !strings.Contains(string(body), text) {
			t.Errorf("%s answers %s, without %q:\n%.600s", path, res.Status, text, body)
		}
	}
	const declare = "/-/applications/-/new"
	form["path"] = []string{"nowhere"}
	post(declare, form, http.StatusUnprocessableEntity, "nowhere")
	form["path"] = []string{"sync"}
	post(declare, form, http.StatusSeeOther, "")
	i.Eventually("synced", 30*time.Second, func() bool { return l.value("configmap", "made-here", "a", "{.data.value}") != "" })
	const edit = "/-/applications/made-here/edit"
	post(edit, map[string][]string{"spec": {"project: default\nsycnPolicy: {}\n"}}, http.StatusUnprocessableEntity, "sycnPolicy")
	post(edit, map[string][]string{"spec": {fmt.Sprintf("project: default\nsource: {repoURL: %q, path: sync, targetRevision: main, kustomize: {namePrefix: x-}}\ndestination: {server: https://kubernetes.default.svc, namespace: made-here}\nsyncPolicy: {automated: {prune: true}}\n", l.repo)}}, http.StatusSeeOther, "")
	i.Eventually("the change is synced", 30*time.Second, func() bool { return l.value("configmap", "made-here", "x-a", "{.data.value}") != "" })
	post("/-/applications/made-here/delete", map[string][]string{"confirm": {"made-here"}}, http.StatusSeeOther, "")
	i.Eventually("deleted", 30*time.Second, func() bool {
		_, err := l.apps.Get(t.Context(), "made-here")
		return delivery.IsNotFound(err) && l.value("configmap", "made-here", "x-a", "{.metadata.name}") == ""
	})
	for path, want := range map[string]string{"/-/applications/-/projects/default": "Resources without namespace", "/-/applications/-/sets": "ApplicationSets"} {
		if status, body := page(t, root, l.URL+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s answers %d without %q", path, status, want)
		}
	}
}
