package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/web"
)

// startSite is a site with a cluster that takes what it is given.
func startSite(t *testing.T) (*site, *placeCluster) {
	t.Helper()
	c := newPlaceCluster()
	return newSiteWith(t, func(d *web.Deps) {
		d.AppsDomain, d.AppsPort = "apps.example", 8088
		d.Operations = c.operations()
	}), c
}

func TestFirstDeploymentOfAnExample(t *testing.T) {
	t.Parallel()
	s, cluster := startSite(t)
	s.person("maya")
	if _, err := s.access.CreateGroup(s.ctx, s.people["maya"], newGroup("acme")); err != nil {
		t.Fatal(err)
	}
	if to := s.post("maya", "/projects", "namespace", "acme", "path", "Site", "visibility", "private"); to != "/acme/Site/-/start" {
		t.Fatalf("a new project leads to %s", to)
	}
	doc := s.page("maya", "/acme/Site/-/start")
	s.has(doc, "#push-commands", "git remote add origin http://maya@")
	s.has(doc, "#start[data-live] .start-way [aria-current]", "Your code")
	resp := s.do("maya", http.MethodPost, "/acme/Site/-/start/token", nil)
	if doc = document(t, resp); !strings.HasPrefix(text(doc, "#token"), "glpat-") {
		t.Errorf("the token is %q", text(doc, "#token"))
	}
	if to := s.post("maya", "/acme/Site/-/start/example", "example", "static"); to != "/acme/Site/-/start" {
		t.Errorf("the example leads to %s", to)
	}
	if got := s.status("maya", http.MethodPost, "/acme/Site/-/start/example", form("example", "static")); got != http.StatusConflict {
		t.Errorf("a second example: %d", got)
	}
	doc = s.page("maya", "/acme/Site/-/start")
	s.has(doc, "#start", "public/index.html says what this is")
	s.has(doc, ".start-file summary", "nginx.conf")
	s.has(doc, ".start-file pre", "host: site.apps.example")
	s.count(doc, "#start[data-live]", 0) // somebody works in it

	resp = s.do("maya", http.MethodPost, "/acme/Site/-/start?again=1", form("language", "static", "port", "80", "host", "site", "ready", "/"))
	if doc = document(t, resp); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a privileged port: %s", resp.Status)
	}
	s.has(doc, ".alert", "from 1024 to 65535")

	fields := []string{"language", "static", "port", "8080", "host", "site", "ready", "/"}
	if to := s.post("maya", "/acme/Site/-/start?again=1", fields...); to != "/acme/Site/-/start" {
		t.Errorf("the deployment leads to %s", to)
	}
	p, err := s.access.Project(s.ctx, "acme/site")
	s.must(err)
	config, err := s.access.Project(s.ctx, "acme/Site-deploy")
	s.must(err)
	made := s.pushed(p)
	if made.YAMLErrors != "" {
		t.Errorf("the pipeline: %s", made.YAMLErrors)
	}
	for id, files := range map[int64][]string{p.ID: {".gitlab-ci.yml", "Dockerfile", "nginx.conf", ".dockerignore"}, config.ID: {"environments/production/rollout.yaml", "argocd/application.yaml"}} {
		for _, file := range files {
			if _, err := s.forge.ReadFile(s.ctx, id, "main", file, 1<<20); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if list, err := s.access.Allowances(s.ctx, config.ID); err != nil || len(list) != 1 || list[0].Source.ID != p.ID || !list[0].Push {
		t.Errorf("the jobs may not push: %+v, %v", list, err)
	}
	if got := cluster.names(); got != "applications/acme-site appprojects/acme-site namespaces/acme-site" {
		t.Errorf("the cluster has %s", got)
	}
	doc = s.page("maya", "/acme/Site/-/start")
	s.has(doc, "#start[data-live] .start-steps", "Waits for the first image.")
	if to := s.post("maya", "/acme/Site/-/start?again=1", fields...); to != "/acme/Site/-/start" {
		t.Errorf("it cannot be repeated: %s", to)
	}
}

func TestFirstDeploymentNeedsRights(t *testing.T) {
	t.Parallel()
	s, cluster := startSite(t)
	s.person("dev")
	s.person("guest")
	s.project("acme/web", map[string]string{"index.html": "<h1>hi</h1>"}, map[string]delivery.Role{"dev": delivery.Developer, "guest": delivery.Guest})
	doc := s.page("dev", "/acme/web")
	s.count(doc, `a[href="/acme/web/-/start"]`, 0) // the sample timeline says that it is deployed
	doc = s.page("dev", "/acme/web/-/start")
	s.count(doc, ".start-form button", 0)
	s.has(doc, ".start-form", "needs the role maintainer")
	for who, want := range map[string]int{"dev": http.StatusForbidden, "guest": http.StatusForbidden, "": http.StatusNotFound} {
		if got := s.status(who, http.MethodPost, "/acme/web/-/start", form("language", "static", "port", "8080", "host", "web")); got != want {
			t.Errorf("%q may deploy: %d", who, got)
		}
	}
	if got := s.status("guest", http.MethodGet, "/acme/web/-/start", nil); got != http.StatusForbidden {
		t.Errorf("a guest sees the page: %d", got)
	}
	if got := cluster.names(); got != "" {
		t.Errorf("the cluster has %s", got)
	}
}

// TestEveryLanguagesPipelineCompiles sends the form for a repository of each
// language and reads the pipeline that the push makes.
func TestEveryLanguagesPipelineCompiles(t *testing.T) {
	t.Parallel()
	s, _ := startSite(t)
	s.person("maya")
	for path, c := range map[string]struct {
		language, command string
		files             map[string]string
		jobs              int
	}{
		"acme/py":     {"python", "uvicorn main:app --port 8080", map[string]string{"requirements.txt": "fastapi\n", "main.py": "app = FastAPI()\n", "test_main.py": ""}, 5},
		"acme/pyapp":  {"python", "python3 main.py", map[string]string{"main.py": "", "pyproject.toml": ""}, 4},
		"acme/gosvc":  {"go", "", map[string]string{"go.mod": "module x\n\ngo 1.26.0\n", "main.go": "", "main_test.go": ""}, 5},
		"acme/node":   {"node", "node server.js", map[string]string{"package.json": `{"scripts":{"start":"node server.js","test":"node --test"}}`, "package-lock.json": "{}"}, 5},
		"acme/docker": {"docker", "", map[string]string{"Dockerfile": "FROM scratch\nEXPOSE 9000\n"}, 3},
		"acme/own":    {"go", "", map[string]string{"go.mod": "module x\n\ngo 1.26.0\n", "main.go": "", "main_test.go": "", "Dockerfile": "FROM scratch\n"}, 4},
	} {
		p := s.project(path, c.files, map[string]delivery.Role{"maya": delivery.Maintainer})
		if _, err := s.access.SetMember(s.ctx, s.root, delivery.Owner, access.Member{User: *s.people["maya"].User, Role: delivery.Maintainer, GroupID: p.Namespace.ID}); err != nil {
			t.Logf("%s: %v", path, err) // it is one already
		}
		if to := s.post("maya", "/"+path+"/-/start?again=1", "language", c.language, "command", c.command, "port", "8080", "host", p.Path); to != "/"+path+"/-/start" {
			t.Fatalf("%s leads to %s", path, to)
		}
		made := s.pushed(p)
		if made.YAMLErrors != "" {
			t.Errorf("%s: %s", path, made.YAMLErrors)
		}
		doc := s.page("maya", fmt.Sprintf("/%s/-/pipelines/%d", path, made.ID))
		if got := doc.Find("#pipeline-body .job-box").Length(); got != c.jobs {
			t.Errorf("%s has %d jobs; want %d", path, got, c.jobs)
		}
	}
}
