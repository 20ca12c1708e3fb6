//go:build e2e

package gitops_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// syncBuffer collects what several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const chartTemplate = `apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-web"}
data: {color: {{ .Values.color | quote }}, size: {{ .Values.size | quote }}, extra: {{ .Values.extra | quote }}}
`

const sets = `
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: listed, namespace: argocd}
spec:
  goTemplate: true
  generators: [{list: {elements: [{name: red}, {name: blue}]}}]
  template:
    metadata: {name: 'list-{{.name}}'}
    spec:
      project: default
      source: {repoURL: REPO, targetRevision: main, path: sets/one, kustomize: {namePrefix: '{{.name}}-'}}
      destination: {server: "https://kubernetes.default.svc", namespace: sets}
      syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
---
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: folders, namespace: argocd}
spec:
  goTemplate: true
  generators: [{git: {repoURL: REPO, revision: main, directories: [{path: sets/*}]}}]
  template:
    metadata: {name: 'dir-{{.path.basename}}'}
    spec:
      project: default
      source: {repoURL: REPO, targetRevision: main, path: '{{.path.path}}', kustomize: {namePrefix: dir-}}
      destination: {server: "https://kubernetes.default.svc", namespace: sets}
      syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
---
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: matrix, namespace: argocd}
spec:
  goTemplate: true
  generators:
  - matrix:
      generators:
      - git: {repoURL: REPO, revision: main, files: [{path: 'sets/*/config.json'}]}
      - list: {elements: [{zone: a}, {zone: b}]}
  template:
    metadata: {name: 'mat-{{.env}}-{{.zone}}'}
    spec:
      project: default
      source: {repoURL: REPO, targetRevision: main, path: 'sets/{{.env}}', kustomize: {namePrefix: 'mat-{{.zone}}-'}}
      destination: {server: "https://kubernetes.default.svc", namespace: sets}
      syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: chart, namespace: argocd}
spec:
  project: default
  sources:
  - repoURL: REPO
    targetRevision: main
    path: chart
    helm: {releaseName: rel, valueFiles: [$values/values/prod.yaml], parameters: [{name: extra, value: parameter}], valuesObject: {size: 5}}
  - {repoURL: REPO, targetRevision: main, ref: values}
  destination: {server: "https://kubernetes.default.svc", namespace: chart}
  syncPolicy: {automated: {}, syncOptions: [CreateNamespace=true]}
`

// ApplicationSets by list, git folders, git files and matrix; kustomize
// overrides; a chart in git with values from a second source. A pushed folder
// becomes an Application without polling.
func (l *lab) testSets(t *testing.T) {
	i := l.With(t)
	files := map[string]string{
		"chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\n", "chart/values.yaml": "color: red\nsize: 1\nextra: none\n",
		"chart/templates/web.yaml": chartTemplate, "values/prod.yaml": "color: green\n",
	}
	folder := func(name string) {
		files["sets/"+name+"/kustomization.yaml"] = kustomization("a.yaml")
		files["sets/"+name+"/a.yaml"] = fmt.Sprintf(configMap, name, "1")
		files["sets/"+name+"/config.json"] = fmt.Sprintf(`{"env": %q}`, name)
	}
	folder("one")
	folder("two")
	l.push(t, "sets", files)
	i.RunInput(strings.ReplaceAll(sets, "REPO", l.repo), "kubectl", "apply", "-f", "-")
	i.Eventually("every generator's Applications", time.Minute, func() bool {
		for _, name := range []string{"red-one", "blue-one", "dir-one", "dir-two", "mat-a-one", "mat-b-two"} {
			if l.value("configmap", "sets", name, "{.data.value}") != "1" {
				return false
			}
		}
		return true
	})
	i.Eventually("the chart, its values by precedence", 30*time.Second, func() bool {
		return l.value("configmap", "chart", "rel-web", "{.data.color} {.data.size} {.data.extra}") == "green 5 parameter"
	})
	files = map[string]string{}
	folder("three")
	l.push(t, "one more folder", files)
	i.Eventually("an Application of the new folder", 30*time.Second, func() bool { return l.value("configmap", "sets", "dir-three", "{.data.value}") == "1" })
	i.Kubectl("-n", "argocd", "delete", "applicationset", "listed", "folders", "matrix", "--wait=false")
}

const waves = `apiVersion: v1
kind: ConfigMap
metadata: {name: first, annotations: {argocd.argoproj.io/sync-wave: "-1"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: second, annotations: {argocd.argoproj.io/sync-wave: "1"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: before, annotations: {argocd.argoproj.io/hook: PreSync, argocd.argoproj.io/hook-delete-policy: HookSucceeded}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: after, annotations: {argocd.argoproj.io/hook: PostSync}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tuned}
data: {mine: "1", theirs: "1"}
`

const wavesApplication = `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: waves, namespace: argocd, annotations: {notifications.argoproj.io/subscribe.on-synced.hook: ""}}
spec:
  project: default
  source: {repoURL: REPO, targetRevision: main, path: waves}
  destination: {server: "https://kubernetes.default.svc", namespace: waves}
  ignoreDifferences: [{kind: ConfigMap, name: tuned, jsonPointers: [/data/theirs]}]
  syncPolicy: {automated: {selfHeal: true}, syncOptions: [CreateNamespace=true, RespectIgnoreDifferences=true]}
`

const notifications = `
apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-notifications-cm, namespace: argocd}
data:
  service.webhook.hook: "url: http://%s\n"
  template.synced: "webhook:\n  hook:\n    method: POST\n    path: /synced\n    body: '{{.app.metadata.name}} {{.app.status.operationState.phase}}'\n"
  trigger.on-synced: "- when: app.status.operationState.phase in ['Succeeded']\n  send: [synced]\n  oncePer: app.status.operationState.syncResult.revision\n"
`

// Hooks run in their phase and waves in their order; ignored differences stay,
// others are healed; a notification tells of the sync.
func (l *lab) testWaves(t *testing.T) {
	i := l.With(t)
	told := l.notified(t)
	l.push(t, "waves", map[string]string{"waves/all.yaml": waves})
	i.RunInput(strings.ReplaceAll(wavesApplication, "REPO", l.repo), "kubectl", "apply", "-f", "-")
	i.Eventually("the last phase", 40*time.Second, func() bool { return l.value("configmap", "waves", "after", "{.metadata.name}") != "" })
	order := map[string]int{}
	i.Eventually("the sync has succeeded", 30*time.Second, func() bool {
		a, err := l.apps.Get(t.Context(), "waves")
		if err != nil || a.Operation == nil || a.Operation.Phase != "Succeeded" {
			return false
		}
		for n, r := range a.Operation.Results {
			order[r.Name] = n + 1
		}
		return true
	})
	if order["before"] == 0 || order["before"] > order["first"] || order["first"] > order["second"] || order["second"] > order["after"] {
		t.Errorf("the order is %v", order)
	}
	i.Eventually("the hook that succeeded is deleted", 20*time.Second, func() bool { return l.value("configmap", "waves", "before", "{.metadata.name}") == "" })
	select {
	case got := <-told:
		if got != "/synced waves Succeeded" {
			t.Errorf("told %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("no notification")
	}
	i.Kubectl("-n", "waves", "patch", "configmap", "tuned", "-p", `{"data":{"theirs":"2","mine":"2"}}`)
	i.Eventually("healed but for what is ignored", 20*time.Second, func() bool {
		return l.value("configmap", "waves", "tuned", "{.data.mine} {.data.theirs}") == "1 2"
	})
}

// local is the test's own address on the instance's network.
func (l *lab) local(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("udp", l.Address+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host
}

const signedProject = `
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: signed, namespace: argocd}
spec:
  sourceRepos: ["*"]
  destinations: [{server: "*", namespace: "*"}]
  clusterResourceWhitelist: [{group: "", kind: Namespace}]
  signatureKeys: [{keyID: %[1]s}]
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: signed, namespace: argocd}
spec:
  project: signed
  source: {repoURL: %[2]s, targetRevision: main, path: signed}
  destination: {server: "https://kubernetes.default.svc", namespace: signed}
  syncPolicy:
    automated: {}
    syncOptions: [CreateNamespace=true]
    retry: {limit: 5, refresh: true, backoff: {duration: 2s, factor: 1, maxDuration: 10s}}
`

// Where a project demands signatures, a commit without one is not synced, with
// one it is. Known hosts and certificates reach the machine's files.
func (l *lab) testSignatures(t *testing.T) {
	i := l.With(t)
	i.Kubectl("-n", "argocd", "patch", "configmap", "argocd-ssh-known-hosts-cm", "--type", "merge", "-p", `{"data":{"ssh_known_hosts":"git.example.org ssh-ed25519 AAAA\n"}}`)
	i.Kubectl("-n", "argocd", "patch", "configmap", "argocd-tls-certs-cm", "--type", "merge", "-p", `{"data":{"git.example.org":"certificate"}}`)
	for file, want := range map[string]string{"ssh/ssh_known_hosts": "git.example.org ssh-ed25519", "tls/git.example.org": "certificate"} {
		i.Eventually(file, 20*time.Second, func() bool {
			b, err := os.ReadFile(filepath.Join(l.DataDir, "gitops", "config", file))
			return err == nil && strings.Contains(string(b), want)
		})
	}
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("gpg is not installed")
	}
	home, err := os.MkdirTemp("", "gpg") // its sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", home, "--batch", "--quiet"}, args...)...).Output()
		if err != nil {
			t.Fatalf("gpg %v: %v", args, err)
		}
		return string(out)
	}
	gpg("--passphrase", "", "--quick-gen-key", "Test <test@example.org>", "rsa2048", "sign", "never")
	id := ""
	for _, line := range strings.Split(gpg("--list-keys", "--with-colons"), "\n") {
		if f := strings.Split(line, ":"); f[0] == "pub" {
			id = f[4]
		}
	}
	keyFile := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(keyFile, []byte(gpg("--armor", "--export")), 0o600); err != nil {
		t.Fatal(err)
	}
	i.Run("argocd", "gpg", "add", "--from", keyFile)
	l.push(t, "unsigned", map[string]string{"signed/a.yaml": fmt.Sprintf(configMap, "a", "1")})
	i.RunInput(fmt.Sprintf(signedProject, id, l.repo), "kubectl", "apply", "-f", "-")
	i.Eventually("the unsigned commit is refused", 30*time.Second, func() bool {
		a, err := l.apps.Get(t.Context(), "signed")
		return err == nil && strings.Contains(a.Failed(), "Failed verifying revision")
	})
	if l.value("configmap", "signed", "a", "{.metadata.name}") != "" {
		t.Error("an unsigned commit was synced")
	}
	for key, value := range map[string]string{"gpg.program": "gpg", "user.signingkey": id, "commit.gpgsign": "true"} {
		l.git(t, l.clone, "config", key, value)
	}
	t.Setenv("GNUPGHOME", home)
	l.push(t, "signed", map[string]string{"signed/a.yaml": fmt.Sprintf(configMap, "a", "2")})
	l.git(t, l.clone, "config", "commit.gpgsign", "false")
	i.Eventually("the signed commit is synced", 40*time.Second, func() bool { return l.value("configmap", "signed", "a", "{.data.value}") == "2" })
	i.Kubectl("-n", "argocd", "delete", "application", "signed")
}

// What people use most of the stock program, each once.
func (l *lab) testCommandLine(t *testing.T) {
	i := l.With(t)
	for _, step := range []struct{ args, want string }{
		{"app create made --repo REPO --path chart --dest-server https://kubernetes.default.svc --dest-namespace made --sync-option CreateNamespace=true --helm-set color=blue", "created"},
		{"app sync made --prune", "made-web"},
		{"app get made", "Synced"},
		{"app manifests made", "color: blue"},
		{"app resources made", "made-web"},
		{"app set made --helm-set color=red", ""},
		{"app sync made --dry-run", "dry run"},
		{"app sync made", "made-web"},
		{"app history made", "REVISION"},
		{"app wait made --health --timeout 30", "Healthy"},
		{"app rollback made 0", "made-web"},
		{"app delete made --yes --wait", "deleted"},
		{"app list", "argocd/sync"},
		{"appset list", ""},
		{"proj list", "default"},
		{"account list", "slipway"},
		{"cluster list", "Successful"},
		{"repocreds list", l.URL},
	} {
		out, err := i.Try(append([]string{"argocd"}, strings.Fields(strings.ReplaceAll(step.args, "REPO", l.repo))...)...)
		if err != nil || !strings.Contains(out, step.want) {
			t.Errorf("argocd %s: %v\n%s", step.args, err, out)
		}
	}
	i.Kubectl("-n", "sync", "annotate", "configmap", "a", "note=1")
	if out, err := i.Try("argocd", "app", "diff", "sync"); err != nil {
		t.Errorf("what git does not name is no difference: %v\n%s", err, out)
	}
}

const fifty = `
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: fifty, namespace: argocd}
spec:
  goTemplate: true
  generators: [{list: {elements: [%s]}}]
  template:
    metadata: {name: 'many-{{.number}}'}
    spec:
      project: default
      source: {repoURL: %s, targetRevision: main, path: fifty, kustomize: {namePrefix: 'n{{.number}}-'}}
      destination: {server: "https://kubernetes.default.svc", namespace: fifty}
      syncPolicy: {automated: {selfHeal: true}, syncOptions: [CreateNamespace=true]}
`

// Fifty Applications are synced, and their list is one page of one watch: it
// and Argo CD's API answer meanwhile, and drift is healed as with a few.
func (l *lab) testFifty(t *testing.T) {
	i := l.With(t)
	var elements []string
	for n := range 50 {
		elements = append(elements, fmt.Sprintf("{number: \"%d\"}", n))
	}
	l.push(t, "fifty", map[string]string{"fifty/kustomization.yaml": kustomization("a.yaml"), "fifty/a.yaml": fmt.Sprintf(configMap, "one", "1")})
	dora := l.browser(t, "dora")
	stop, worst := make(chan struct{}), map[string]time.Duration{}
	var asking sync.WaitGroup
	var mu sync.Mutex
	done := sync.OnceFunc(func() { close(stop); asking.Wait() })
	defer done()
	for _, path := range []string{"/-/applications?search=many-", "/argocd/api/v1/applications?fields=items.metadata.name"} {
		asking.Go(func() {
			took := answersWithin(t, dora, l.URL+path, stop)
			mu.Lock()
			defer mu.Unlock()
			worst[path] = took
		})
	}
	start := time.Now()
	i.RunInput(fmt.Sprintf(fifty, strings.Join(elements, ", "), l.repo), "kubectl", "apply", "-f", "-")
	i.Eventually("fifty Applications are synced", 2*time.Minute, func() bool {
		apps, err := l.apps.List(t.Context())
		synced := 0
		for _, a := range apps {
			if strings.HasPrefix(a.Name, "many-") && a.Sync.Status == "Synced" {
				synced++
			}
		}
		return err == nil && synced == 50
	})
	t.Logf("fifty Applications synced after %s", time.Since(start).Round(time.Second))
	done()
	for path, took := range worst {
		t.Logf("%s answered in at most %s meanwhile", path, took.Round(time.Millisecond))
		if took > 5*time.Second {
			t.Errorf("%s took %s", path, took)
		}
	}
	start = time.Now()
	status, body := page(t, dora, l.URL+"/-/applications?search=many-")
	t.Logf("their list took %s", time.Since(start).Round(time.Millisecond))
	if n := strings.Count(body, `href="/-/applications/many-`); status != 200 || n != 50 {
		t.Errorf("the list (%d) has %d of them", status, n)
	}
	l.heals(t, "data of one of fifty", "configmap", "fifty", "n7-one", "{.data.value}", "1", `{"data":{"value":"2"}}`)
	l.heals(t, "a deleted one of fifty", "configmap", "fifty", "n8-one", "{.data.value}", "1", "")
	i.Kubectl("-n", "argocd", "delete", "applicationset", "fifty")
}
