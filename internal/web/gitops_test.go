package web_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/openid"
	"github.com/slipwayhq/slipway/internal/rollout"
	"github.com/slipwayhq/slipway/internal/web"
)

// One Application that is synced automatically, one by hand.
const gitopsObjects = `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: shop, namespace: argocd}
spec:
  project: default
  source: {repoURL: REPO, path: shop, targetRevision: main}
  destination: {namespace: shop}
  syncPolicy: {automated: {prune: true, selfHeal: true}}
status:
  sync: {status: OutOfSync, revision: NEW}
  health: {status: Progressing}
  conditions: [{type: SyncError, message: "shop/a.yaml: mapping values are not allowed"}]
  operationState:
    phase: Failed
    message: one or more objects failed to apply
    startedAt: "2026-01-02T03:04:05Z"
    operation: {initiatedBy: {automated: true}}
    syncResult:
      revision: NEW
      resources: [{kind: Service, namespace: shop, name: web, status: SyncFailed, message: "spec.ports[0].port: Invalid value"}, {kind: ConfigMap, namespace: shop, name: settings, status: Synced, message: configured}]
  resources:
  - {group: apps, version: v1, kind: Deployment, namespace: shop, name: web, status: OutOfSync, health: {status: Progressing}}
  - {version: v1, kind: Secret, namespace: shop, name: keys, status: Synced}
  - {version: v1, kind: ConfigMap, namespace: shop, name: gone, status: OutOfSync, health: {status: Missing}}
  history:
  - {id: 0, revision: OLD, deployedAt: "2026-01-01T00:00:00Z", source: {repoURL: REPO, path: shop}, initiatedBy: {username: "@maya"}}
  - {id: 1, revision: NEW, deployedAt: "2026-01-02T00:00:00Z", source: {repoURL: REPO, path: shop}, initiatedBy: {automated: true}}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: hand, namespace: argocd, ownerReferences: [{apiVersion: argoproj.io/v1alpha1, kind: ApplicationSet, name: folders, uid: "9"}]}
spec:
  project: default
  source: {repoURL: REPO, path: hand}
  destination: {namespace: hand}
status:
  sync: {status: Synced, revision: NEW}
  health: {status: Healthy}
  history:
  - {id: 3, revision: OLD, deployedAt: "2026-01-01T00:00:00Z"}
  - {id: 4, revision: NEW, deployedAt: "2026-01-02T00:00:00Z"}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: foreign, namespace: argocd}
spec: {project: default, source: {repoURL: "https://elsewhere.example/ops.git", path: x}, destination: {namespace: foreign}}
status: {sync: {status: Synced, revision: "0123456789012345678901234567890123456789"}, health: {status: Healthy}}
---
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: default, namespace: argocd}
spec: {sourceRepos: ["*"], destinations: [{server: "*", namespace: "*"}], clusterResourceWhitelist: [{group: "*", kind: "*"}], roles: [{name: ci, policies: ["p, proj:default:ci, applications, sync, default/*, allow"], jwtTokens: [{iat: 1}]}]}
---
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: folders, namespace: argocd}
spec: {generators: [{matrix: {generators: [{git: {}}, {list: {}}]}}], template: {metadata: {name: x}, spec: {project: default}}}
status: {conditions: [{type: ErrorOccurred, status: "True", message: "no such folder", lastTransitionTime: "2026-01-02T00:00:00Z"}]}
---
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: others, namespace: argocd}
spec: {generators: [{list: {}}], template: {metadata: {name: x}, spec: {project: default}}}
---
apiVersion: v1
kind: Event
metadata: {name: shop.1, namespace: argocd}
involvedObject: {kind: Application, name: shop}
reason: ResourceUpdated
message: Updated health status
type: Normal
count: 2
lastTimestamp: "2026-01-02T03:04:16Z"
`

// argoAnswers is Argo CD's API of the Application shop.
var argoAnswers = map[string]string{
	"shop/resource-tree": `{"nodes":[
	 {"group":"apps","version":"v1","kind":"Deployment","namespace":"shop","name":"web","uid":"1","health":{"status":"Progressing"}},
	 {"group":"apps","version":"v1","kind":"ReplicaSet","namespace":"shop","name":"web-1","uid":"2","parentRefs":[{"uid":"1"}],"info":[{"name":"Revision","value":"Rev:1"}]},
	 {"version":"v1","kind":"Pod","namespace":"shop","name":"web-1-x","uid":"3","parentRefs":[{"uid":"2"}],"info":[{"name":"Status Reason","value":"ImagePullBackOff"},{"name":"Containers","value":"0/1"}]},
	 {"version":"v1","kind":"Secret","namespace":"shop","name":"keys","uid":"4"}]}`,
	"shop/managed-resources": `{"items":[
	 {"group":"apps","kind":"Deployment","namespace":"shop","name":"web","targetState":"{\"kind\":\"Deployment\",\"spec\":{\"replicas\":2}}","liveState":"{}","normalizedLiveState":"{\"kind\":\"Deployment\",\"spec\":{\"replicas\":7}}","predictedLiveState":"{\"kind\":\"Deployment\",\"spec\":{\"replicas\":2}}"},
	 {"kind":"ConfigMap","namespace":"shop","name":"gone","targetState":"{\"kind\":\"ConfigMap\"}","liveState":"null"}]}`,
	"shop/resource/actions": `{"actions":[{"name":"restart","displayName":"Restart"},{"name":"scale","params":[{"name":"replicas"}]},{"name":"pause","disabled":true}]}`,
	"foreign/revisions/0123456789012345678901234567890123456789/metadata": `{"author":"Fay Elsewhere <fay@elsewhere.example>","date":"2026-01-02T03:04:05Z","message":"Grow\n\nbody"}`,
	"foreign/resource-tree": `{"nodes":[]}`,
	"shop/logs": `{"result":{"content":"hello from the pod","timeStampStr":"2026-01-02T03:04:05Z","podName":"web-1-x"}}
{"result":{"last":true}}
`,
}

// gitopsSite is a site with pages of Applications on a made-up cluster, and the
// newest commit of its repository.
func gitopsSite(t *testing.T) (*site, *fake.FakeDynamicClient, *gitopsReverter, string) {
	t.Helper()
	s := newSite(t)
	for _, name := range []string{"maya", "dora", "gus", "olga", "adam"} {
		s.person(name)
	}
	yes := true
	_, err := s.access.UpdateUser(s.ctx, s.root, s.people["adam"].User.ID, access.UserChange{Admin: &yes})
	s.must(err)
	p := s.project("acme/ops", map[string]string{"shop/a.yaml": "v1"}, map[string]delivery.Role{"maya": delivery.Maintainer, "dora": delivery.Developer, "gus": delivery.Guest})
	was, err := s.forge.Commit(s.ctx, p.ID, "main")
	s.must(err)
	s.commit(p, "Turn it blue", map[string]string{"shop/a.yaml": "v2"})
	now, err := s.forge.Commit(s.ctx, p.ID, "main")
	s.must(err)
	text := strings.NewReplacer("REPO", s.server.URL+"/acme/ops.git", "NEW", now.SHA, "OLD", was.SHA).Replace(gitopsObjects)
	var objects []runtime.Object
	for _, one := range strings.Split(text, "---\n") {
		u := &unstructured.Unstructured{}
		s.must(yaml.Unmarshal([]byte(one), u))
		objects = append(objects, u)
	}
	asked := &atomic.Value{}
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		gitops.Resource: "ApplicationList", {Version: "v1", Resource: "events"}: "EventList",
		{Group: "argoproj.io", Version: "v1alpha1", Resource: "applicationsets"}: "ApplicationSetList", {Group: "argoproj.io", Version: "v1alpha1", Resource: "appprojects"}: "AppProjectList",
	}, objects...)
	kube.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch := action.(clienttesting.PatchActionImpl)
		if patch.GetPatchType() != types.ApplyPatchType {
			return false, nil, nil
		}
		if strings.Contains(string(patch.GetPatch()), "sycnPolicy") {
			return true, nil, apierrors.NewInternalError(errors.New(".spec.sycnPolicy: field not declared in schema"))
		}
		return true, &unstructured.Unstructured{}, nil
	})
	argo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			if r.Header.Get("Content-Type") != "application/json" { // as Argo CD does
				http.Error(w, "Invalid content type", http.StatusUnsupportedMediaType)
				return
			}
			if r.Header.Get("Authorization") != "Bearer of-maya" {
				http.Error(w, `{"message":"permission denied"}`, http.StatusForbidden)
				return
			}
			body, _ := io.ReadAll(r.Body)
			asked.Store(r.Method + " " + r.URL.RequestURI() + " " + string(body))
			fmt.Fprint(w, "{}")
			return
		}
		path := strings.TrimPrefix(r.URL.Path, "/argocd/api/v1/applications/")
		body, ok := argoAnswers[path]
		if path == "shop/resource" {
			manifest := map[string]any{"apiVersion": "v1", "kind": r.FormValue("kind"), "metadata": map[string]any{"name": r.FormValue("resourceName")},
				"data": map[string]string{"password": "c2VjcmV0"}, "spec": map[string]any{"containers": []any{map[string]any{"name": "app"}}}}
			inner, _ := json.Marshal(manifest)
			outer, _ := json.Marshal(map[string]string{"manifest": string(inner)})
			body, ok = string(outer), true
		}
		if !ok {
			http.Error(w, `{"message":"not here"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, body)
	}))
	t.Cleanup(argo.Close)
	token := filepath.Join(t.TempDir(), "token")
	s.must(os.WriteFile(token, []byte("x"), 0o600))
	reverter := &gitopsReverter{asked: asked}
	signOn := openid.New(openid.Options{Issuer: s.server.URL, Signer: s.engine, Clients: []openid.Client{{ID: "argocd", Name: "Argo CD", Redirects: []string{"http://localhost/auth/callback"}}}})
	pages, err := web.New(web.Deps{Access: s.access, Forge: s.forge, Pipelines: s.engine, Metrics: sampleMetrics{}, Routes: sampleRoutes, ExternalURL: s.server.URL, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), SignOn: signOn,
		Operations: &web.Operations{
			Mirror: &gitops.Mirror{}, Reverter: reverter,
			Token:    func(_ context.Context, who delivery.Identity) (string, error) { return "of-" + who.User.Username, nil },
			Server:   gitops.NewServer(gitops.API{Address: strings.TrimPrefix(argo.URL, "http://"), RootPath: "/argocd", TokenFile: token}),
			Apps:     func() (*gitops.Client, error) { return gitops.NewClient(kube), nil },
			Rollouts: func() (*rollout.Client, error) { return rollout.NewClient(kube), nil },
		}})
	s.must(err)
	s.server.Config.Handler = pages
	return s, kube, reverter, now.SHA
}

// gitopsReverter notes what it was asked for, and what Argo CD was.
type gitopsReverter struct {
	did   string
	asked *atomic.Value // the last change that Argo CD was asked for
}

func (g *gitopsReverter) Revert(_ context.Context, r gitops.Reversal, by delivery.Identity) (string, error) {
	g.did = by.Name + " " + strings.Join(r.Paths, ",")
	return "0123456789abcdef", nil
}

func TestApplicationPages(t *testing.T) {
	t.Parallel()
	s, _, _, sha := gitopsSite(t)
	list := s.page("dora", "/-/applications")
	s.count(list, ".gitops-list tbody tr", 2) // not the one from elsewhere
	s.count(s.page("adam", "/-/applications"), ".gitops-list tbody tr", 3)
	s.count(s.page("gus", "/-/applications"), ".gitops-list tbody tr", 0)
	s.count(s.page("dora", "/-/applications?status=OutOfSync"), ".gitops-list tbody tr", 1)
	s.count(s.page("dora", "/-/applications?search=hand"), ".gitops-list tbody tr", 1)
	s.has(list, `td a[href="/acme/ops"]`, "acme/ops")

	page := s.page("dora", "/-/applications/shop")
	s.has(page, ".alert", "shop/a.yaml: mapping values")
	s.has(page, "#operation", "spec.ports[0].port: Invalid value")
	s.has(page, `.gitops-facts a[href="/acme/ops/-/commit/`+sha+`"]`, sha[:8])
	s.has(page, ".gitops-facts", "Turn it blue")
	s.has(page, "#differences .d-del", "replicas: 7")
	s.has(page, "#differences .d-add", "replicas: 2")
	s.has(page, `.gitops-tree td[style*="--depth:2"]`, "web-1-x")
	s.has(page, ".gitops-tree", "ImagePullBackOff 0/1")
	s.has(page, ".gitops-tree", "Missing")
	s.has(page, "#history", "@maya")
	s.has(page, "#events", "Updated health status")
	for who, want := range map[string]int{"dora": http.StatusOK, "gus": http.StatusNotFound, "olga": http.StatusNotFound, "adam": http.StatusOK} {
		if got := s.status(who, "GET", "/-/applications/shop", nil); got != want {
			t.Errorf("%s sees %d, want %d", who, got, want)
		}
	}
	if got := s.status("maya", "GET", "/-/applications/foreign", nil); got != http.StatusNotFound {
		t.Errorf("an application from elsewhere is the administrators': %d", got)
	}
}

func TestApplicationResource(t *testing.T) {
	t.Parallel()
	s, _, _, _ := gitopsSite(t)
	const at = "/-/applications/shop/resource?namespace=shop&"
	live := s.page("dora", at+"kind=Secret&resource=keys&tab=live")
	s.has(live, "table.code", "password: ++++++++")
	if strings.Contains(live.Text(), "c2VjcmV0") {
		t.Error("a secret is shown")
	}
	s.has(s.page("dora", at+"group=apps&kind=Deployment&resource=web&tab=diff"), ".d-del", "replicas: 7")
	s.has(s.page("dora", at+"group=apps&kind=Deployment&resource=web&tab=desired"), "table.code", "replicas: 2")
	s.count(s.page("dora", at+"kind=Pod&resource=web-1-x"), ".tabs a", 2) // no git, no difference
	s.has(s.page("dora", "/-/applications/shop/logs?namespace=shop&pod=web-1-x"), ".gitops-log", "hello from the pod")
	for _, path := range []string{"/-/applications/shop/resource?kind=Secret&namespace=kube-system&resource=keys", "/-/applications/shop/logs?namespace=kube-system&pod=web-1-x"} {
		if got := s.status("dora", "GET", path, nil); got != http.StatusNotFound {
			t.Errorf("%s is outside of the application, and answers %d", path, got)
		}
	}
}

func TestApplicationActions(t *testing.T) {
	t.Parallel()
	s, kube, reverter, _ := gitopsSite(t)
	operation := func(name string) string {
		t.Helper()
		u, err := kube.Resource(gitops.Resource).Namespace("argocd").Get(s.ctx, name, metav1.GetOptions{})
		s.must(err)
		body, err := json.Marshal(u.Object["operation"])
		s.must(err)
		return string(body)
	}
	s.has(s.page("dora", "/-/applications/hand"), "#history form", "Roll back")
	s.has(s.page("maya", "/-/applications/shop"), "#history form", "Revert to this")
	s.count(s.page("dora", "/-/applications/shop"), "#history form", 0) // main is protected
	s.has(s.page("dora", "/-/applications/shop/sync"), ".gitops-choice", "Deployment web")

	s.post("dora", "/-/applications/shop/sync", "prune", "yes", "dry_run", "yes", "option", "ServerSideApply=true", "option", "Evil=true", "scope", "some", "resource", `{"group":"apps","kind":"Deployment","namespace":"shop","name":"web"}`)
	if got := operation("shop"); !strings.Contains(got, `"username":"@dora"`) || !strings.Contains(got, `"dryRun":true`) || !strings.Contains(got, `"syncOptions":["ServerSideApply=true"]`) || !strings.Contains(got, `"kind":"Deployment"`) {
		t.Errorf("operation %s", got)
	}
	if got := s.status("dora", "POST", "/-/applications/shop/sync", url.Values{"revision": {"v1"}}); got != http.StatusConflict {
		t.Errorf("another revision under automated sync: %d", got)
	}
	s.post("dora", "/-/applications/hand/rollback", "id", "3")
	if got := operation("hand"); !strings.Contains(got, `"username":"@dora"`) {
		t.Errorf("operation %s", got)
	}
	s.post("maya", "/-/applications/shop/revert", "id", "0")
	if reverter.did != "maya shop" {
		t.Errorf("reverted: %q", reverter.did)
	}
	for _, c := range []struct {
		who, action string
		want        int
	}{
		{"gus", "sync", http.StatusNotFound}, {"dora", "delete", http.StatusForbidden}, {"dora", "explode", http.StatusNotFound},
		{"dora", "rollback", http.StatusUnprocessableEntity}, {"maya", "delete", http.StatusUnprocessableEntity},
	} {
		if got := s.status(c.who, "POST", "/-/applications/shop/"+c.action, url.Values{}); got != c.want {
			t.Errorf("%s by %s: %d, want %d", c.action, c.who, got, c.want)
		}
	}
	s.post("maya", "/-/applications/hand/delete", "confirm", "hand")
	if got := s.status("maya", "GET", "/-/applications/hand", nil); got != http.StatusNotFound {
		t.Errorf("deleted, and answers %d", got)
	}
}

// The list is narrowed, and all that it shows is refreshed or synced at once.
func TestApplicationsTogether(t *testing.T) {
	t.Parallel()
	s, kube, _, _ := gitopsSite(t)
	for query, want := range map[string]int{"health=Healthy": 1, "sync=OutOfSync": 1, "project=default": 2, "project=none": 0, "namespace=hand": 1, "health=Healthy&sync=OutOfSync": 0} {
		s.count(s.page("dora", "/-/applications?"+query), ".gitops-list tbody tr", want)
	}
	s.has(s.page("dora", "/-/applications"), `form[method="post"]`, "Sync 1 out of sync")
	s.has(s.page("dora", "/-/applications"), `.gitops-counts a[href="/-/applications?status=Synced"]`, "Synced 1")
	s.post("dora", "/-/applications", "action", "sync")
	u, err := kube.Resource(gitops.Resource).Namespace("argocd").Get(s.ctx, "shop", metav1.GetOptions{})
	s.must(err)
	if _, ok := u.Object["operation"]; !ok {
		t.Error("what is out of sync was not synced")
	}
	s.post("dora", "/-/applications?namespace=hand", "action", "refresh")
	for name, want := range map[string]string{"hand": "normal", "shop": "", "foreign": ""} {
		u, err := kube.Resource(gitops.Resource).Namespace("argocd").Get(s.ctx, name, metav1.GetOptions{})
		s.must(err)
		if got := u.GetAnnotations()["argocd.argoproj.io/refresh"]; got != want {
			t.Errorf("%s is refreshed %q, want %q", name, got, want)
		}
	}
	if got := s.status("dora", "POST", "/-/applications", url.Values{"action": {"explode"}}); got != http.StatusNotFound {
		t.Errorf("another action: %d", got)
	}
}

// Applications are made and changed in the caller's name: Argo CD decides.
func TestDeclare(t *testing.T) {
	t.Parallel()
	s, _, noted, _ := gitopsSite(t)
	form := s.page("maya", "/-/applications/-/new")
	s.has(form, `#new select[name="project"]`, "default")
	s.count(form, `#repos option[value="`+s.server.URL+`/acme/ops.git"]`, 1)
	s.post("maya", "/-/applications/-/new", "name", "blog", "project", "default", "repo", s.server.URL+"/acme/ops.git", "path", "/blog/", "auto", "yes", "heal", "yes", "make_namespace", "yes")
	asked := func() string { t.Helper(); text, _ := noted.asked.Load().(string); return text }
	for _, want := range []string{"POST /argocd/api/v1/applications ", `"path":"blog"`, `"namespace":"blog"`, `"automated":{"prune":false,"selfHeal":true}`, `"syncOptions":["CreateNamespace=true"]`, `"targetRevision":"HEAD"`} {
		if !strings.Contains(asked(), want) {
			t.Errorf("Argo CD was asked for %s, which lacks %s", asked(), want)
		}
	}
	s.has(s.refused("dora", "/-/applications/-/new", http.StatusUnprocessableEntity, "name", "blog", "repo", "x"), ".alert", "permission denied")
	const set = "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nmetadata: {name: folders}\nspec: {generators: []}\n"
	s.post("maya", "/-/applications/-/new", "as", "manifest", "manifest", set, "replace", "yes")
	if !strings.HasPrefix(asked(), "POST /argocd/api/v1/applicationsets?upsert=true ") {
		t.Errorf("Argo CD was asked for %s", asked())
	}
	for manifest, want := range map[string]string{
		"kind: Pod":  `and is "Pod"`,
		"a: b: c":    "no YAML",
		set + "x: [": "no YAML",
		"kind: AppProject\napiVersion: argoproj.io/v1alpha1":                                               "no metadata.name",
		"kind: Application\napiVersion: argoproj.io/v1alpha1\nmetadata: {name: a, namespace: b}":           "must be argocd",
		"kind: Application\napiVersion: argoproj.io/v1alpha1\nmetadata: {name: a}\nspec: {sycnPolicy: {}}": "spec.sycnPolicy",
	} {
		s.has(s.refused("maya", "/-/applications/-/new", http.StatusUnprocessableEntity, "as", "manifest", "manifest", manifest), ".alert", want)
	}
	s.has(s.page("maya", "/-/applications/hand/edit"), "textarea", "path: hand")
	s.post("maya", "/-/applications/hand/edit", "spec", "project: default\nsource: {path: other}\n")
	if asked() != `PUT /argocd/api/v1/applications/hand/spec {"project":"default","source":{"path":"other"}}` {
		t.Errorf("Argo CD was asked for %s", asked())
	}
	if got := s.status("dora", "GET", "/-/applications/hand/edit", nil); got != http.StatusForbidden {
		t.Errorf("a developer edits: %d", got)
	}
}

func TestApplicationSetsAndProjects(t *testing.T) {
	t.Parallel()
	s, kube, noted, _ := gitopsSite(t)
	const sets, projects = "/-/applications/-/sets", "/-/applications/-/projects"
	s.count(s.page("adam", sets), ".gitops-sets tbody tr", 2)
	s.count(s.page("dora", sets), ".gitops-sets tbody tr", 1)
	s.has(s.page("dora", sets), ".gitops-sets", "no such folder")
	set := s.page("dora", sets+"/folders")
	s.has(set, ".gitops-facts", "matrix (git, list)")
	s.has(set, "#applications", "hand")
	s.count(set, "#manifest", 0)
	s.has(s.page("adam", sets+"/folders"), "#manifest textarea", "kind: ApplicationSet")
	if got := s.status("dora", "GET", sets+"/others", nil); got != http.StatusNotFound {
		t.Errorf("a set that concerns others: %d", got)
	}
	s.post("dora", sets+"/folders/refresh")
	u, err := kube.Resource(schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applicationsets"}).Namespace("argocd").Get(s.ctx, "folders", metav1.GetOptions{})
	s.must(err)
	if u.GetAnnotations()["argocd.argoproj.io/application-set-refresh"] != "true" {
		t.Error("the set was not refreshed")
	}
	if got := s.status("maya", "POST", sets+"/folders/delete", url.Values{}); got != http.StatusUnprocessableEntity {
		t.Errorf("deleted without its name: %d", got)
	}
	s.post("maya", sets+"/folders/delete", "confirm", "folders")
	if got, _ := noted.asked.Load().(string); got != "DELETE /argocd/api/v1/applicationsets/folders " {
		t.Errorf("Argo CD was asked for %s", got)
	}
	s.has(s.page("dora", projects), `.gitops-projects a[href="/-/applications?project=default"]`, "2")
	project := s.page("dora", projects+"/default")
	s.has(project, "main", "proj:default:ci")
	s.has(project, "main", "1 token")
	s.count(project, "#manifest", 0)
	s.has(s.page("adam", projects+"/default"), "#manifest textarea", "kind: AppProject")
}

// A log is followed by events, and downloaded as a file.
func TestApplicationLogs(t *testing.T) {
	t.Parallel()
	s, _, _, _ := gitopsSite(t)
	const at = "/-/applications/shop/logs"
	text := func(path string) (string, http.Header) {
		res := s.do("dora", "GET", path, nil)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		s.must(err)
		return string(body), res.Header
	}
	stream, header := text(at + "/stream?namespace=shop&pod=web-1-x")
	want := "event: line\ndata: {\"text\":\"hello from the pod\",\"time\":\"2026-01-02T03:04:05Z\"}\n\nevent: end\ndata: {\"why\":\"\"}\n\n"
	if stream != want || header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("streamed %q as %s", stream, header.Get("Content-Type"))
	}
	file, header := text(at + "?namespace=shop&pod=web-1-x&download=yes")
	if file != "2026-01-02T03:04:05Z hello from the pod\n" || header.Get("Content-Disposition") != `attachment; filename="web-1-x-app.log"` {
		t.Errorf("downloaded %q as %s", file, header.Get("Content-Disposition"))
	}
	s.count(s.page("dora", at+"?namespace=shop&pod=web-1-x"), `[data-part="gitops-log"]`, 1)
	s.count(s.page("dora", at+"?namespace=shop&pod=web-1-x&previous=yes"), `[data-part="gitops-log"]`, 0)
	if got := s.status("dora", "GET", at+"/stream?namespace=kube-system&pod=web-1-x", nil); got != http.StatusNotFound {
		t.Errorf("the log of another pod: %d", got)
	}
}

// Consent is asked for, and leads back to the program only.
func TestSignOnPage(t *testing.T) {
	t.Parallel()
	s, _, _, _ := gitopsSite(t)
	sum := sha256.Sum256([]byte("verifier"))
	q := url.Values{"client_id": {"argocd"}, "redirect_uri": {"http://localhost:8085/auth/callback"}, "response_type": {"code"}, "scope": {"openid groups"}, "state": {"st"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	at := "/oauth/authorize?" + q.Encode()
	s.has(s.page("dora", at), "main", "@dora")
	answer := func(value string) string {
		res := s.do("dora", "POST", at, url.Values{"answer": {value}})
		defer res.Body.Close()
		_, err := io.Copy(io.Discard, res.Body)
		s.must(err)
		return res.Header.Get("Location")
	}
	if to := answer("allow"); !strings.HasPrefix(to, "http://localhost:8085/auth/callback?code=") || !strings.HasSuffix(to, "&state=st") {
		t.Errorf("sent to %s", to)
	}
	if to := answer("deny"); !strings.Contains(to, "error=access_denied") {
		t.Errorf("sent to %s", to)
	}
	q.Set("redirect_uri", "http://evil.example/auth/callback")
	if got := s.status("dora", "GET", "/oauth/authorize?"+q.Encode(), nil); got != http.StatusUnprocessableEntity {
		t.Errorf("another address: %d", got)
	}
}

// Actions and the deletion of one resource are asked for in the caller's name.
func TestResourceActions(t *testing.T) {
	t.Parallel()
	s, _, noted, _ := gitopsSite(t)
	asked := func() string { t.Helper(); text, _ := noted.asked.Load().(string); return text }
	const page, at = "/-/applications/shop/resource?group=apps&kind=Deployment&namespace=shop&resource=web", "/-/applications/shop/resource"
	key := []string{"group", "apps", "kind", "Deployment", "namespace", "shop", "resource", "web"}
	mine := s.page("maya", page)
	s.has(mine, "#actions button:not([disabled])", "Restart")
	s.count(mine, "#actions button", 2) // scale needs a number
	s.count(mine, "#actions button[disabled]", 1)
	s.count(mine, "#delete", 1)
	s.count(s.page("dora", page), "#delete", 0) // a developer may act, not delete
	s.count(s.page("dora", page), "#actions button", 2)
	s.post("maya", at+"/act", append(key, "action", "restart")...)
	for _, want := range []string{"POST /argocd/api/v1/applications/shop/resource/actions/v2 ", `"action":"restart"`, `"group":"apps"`, `"resourceName":"web"`, `"version":"v1"`} {
		if !strings.Contains(asked(), want) {
			t.Errorf("Argo CD was asked for %s, which lacks %s", asked(), want)
		}
	}
	s.post("maya", at+"/delete", append(key, "orphan", "yes")...)
	for _, want := range []string{"DELETE /argocd/api/v1/applications/shop/resource?", "force=false", "orphan=true", "resourceName=web"} {
		if !strings.Contains(asked(), want) {
			t.Errorf("Argo CD was asked for %s, which lacks %s", asked(), want)
		}
	}
	form := func(more ...string) url.Values {
		v := url.Values{}
		for list := append(append([]string{}, key...), more...); len(list) > 0; list = list[2:] {
			v.Set(list[0], list[1])
		}
		return v
	}
	for _, c := range []struct {
		who, does string
		form      url.Values
		want      int
	}{
		{"dora", "delete", form(), http.StatusForbidden},
		{"gus", "act", form("action", "restart"), http.StatusNotFound},
		{"dora", "act", form("action", "restart"), http.StatusForbidden}, // Argo CD refuses
		{"maya", "act", form("action", "pause"), http.StatusUnprocessableEntity},
		{"maya", "act", form("action", "explode"), http.StatusUnprocessableEntity},
		{"maya", "act", form("resource", "other", "action", "restart"), http.StatusNotFound},
		{"maya", "explode", form(), http.StatusNotFound},
	} {
		if got := s.status(c.who, "POST", at+"/"+c.does, c.form); got != c.want {
			t.Errorf("%s %s %v: %d, want %d", c.who, c.does, c.form, got, c.want)
		}
	}
}

// Of another server's repository, Argo CD knows who made a commit.
func TestForeignCommit(t *testing.T) {
	t.Parallel()
	s, _, _, _ := gitopsSite(t)
	s.has(s.page("adam", "/-/applications/foreign"), ".gitops-facts", "Grow by Fay Elsewhere")
}
