package web_test

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// plain is a site with one project without pipelines.
func plain(t *testing.T) (*site, delivery.Project) {
	t.Helper()
	s := newSite(t)
	for _, who := range []string{"maya", "dev"} {
		s.person(who)
	}
	return s, s.project("acme/plain", nil, map[string]delivery.Role{"maya": delivery.Maintainer, "dev": delivery.Developer})
}

func TestSchedules(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/pipeline_schedules"
	s.has(s.page("maya", base), ".empty", "Nothing is scheduled")
	bad := url.Values{"description": {"nightly"}, "ref": {"main"}, "cron": {"every day"}, "cron_timezone": {"UTC"}}
	resp := s.do("maya", http.MethodPost, base, bad)
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if resp.StatusCode != http.StatusUnprocessableEntity || text(doc, ".alert") == "" {
		t.Errorf("a broken interval: %s %q", resp.Status, text(doc, ".alert"))
	}
	if v, _ := doc.Find("input[name=cron]").Attr("value"); v != "every day" {
		t.Errorf("what was typed is lost: %q", v)
	}
	if got := s.status("dev", http.MethodPost, base, url.Values{"description": {"x"}, "ref": {"main"}, "cron": {"0 4 * * *"}}); got != http.StatusForbidden {
		t.Errorf("a developer schedules on a protected branch: %d", got)
	}
	s.post("maya", base, "description", "nightly", "ref", "main", "cron", "0 4 * * *", "cron_timezone", "Europe/Berlin", "active", "on",
		"variable_type", "env_var", "variable_key", "DEEP", "variable_value", "yes")
	list := s.page("maya", base)
	s.has(list, ".schedules", "nightly")
	edit, _ := list.Find("a.button.small").Attr("href")
	form := s.page("maya", edit)
	if v, _ := form.Find("input[name=variable_key]").First().Attr("value"); v != "DEEP" {
		t.Errorf("the schedule's variable is %q", v)
	}
	link := strings.TrimSuffix(edit, "/edit")
	if got := s.status("dev", http.MethodPost, link+"/delete", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a developer deletes another's schedule: %d", got)
	}
	s.commit(p, "Add pipeline", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n"})
	made := s.post("maya", link+"/play")
	s.has(s.page("maya", made), "#pipeline-head", "schedule")
	s.has(s.page("maya", base), ".schedules .badge", "Pending")
	s.post("maya", link+"/delete")
	s.has(s.page("maya", base), ".empty", "Nothing is scheduled")
}

func TestVariables(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/ci_cd"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden {
		t.Errorf("a developer reads variables: %d", got)
	}
	s.post("maya", base+"/variables", "key", "TOKEN", "value", "s3cret-value-1", "visibility", "masked", "protected", "on", "environment_scope", "production", "description", "for the shop")
	s.post("maya", base+"/variables", "key", "CERT", "value", "line one\r\nline two", "variable_type", "file", "visibility", "visible")
	s.post("maya", base+"/variables", "key", "GONE", "value", "never-seen-again", "visibility", "hidden")
	doc := s.page("maya", base)
	s.has(doc, ".variables", "TOKEN protected maskedfor the shop")
	s.has(doc, ".variables", "CERT file")
	html, err := doc.Html()
	s.must(err)
	if strings.Contains(html, "never-seen-again") {
		t.Error("a hidden value is in the page")
	}
	resp := s.do("maya", http.MethodPost, base+"/variables", url.Values{"key": {"SHORT"}, "value": {"x"}, "visibility": {"masked"}})
	if resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a masked value that is too short: %s", resp.Status)
	}
	hidden := ""
	doc.Find(".variables form[action$='/delete']").Each(func(_ int, f *goquery.Selection) {
		if label, _ := f.Find("button").Attr("aria-label"); label == "Delete GONE" {
			hidden, _ = f.Attr("action")
		}
	})
	s.post("maya", strings.TrimSuffix(hidden, "/delete"), "key", "GONE", "value", "", "description", "renamed")
	var kept string
	s.must(s.engine.View(s.ctx, func(tx pipeline.Tx) error {
		list, err := tx.Variables(pipeline.OwnerProject, p.ID)
		for _, v := range list {
			if v.Key == "GONE" && err == nil {
				if !v.Hidden || !v.Masked {
					t.Error("a hidden variable became visible")
				}
				kept, err = s.engine.Unseal(v.Sealed)
			}
			if v.Key == "CERT" && err == nil {
				if value, err := s.engine.Unseal(v.Sealed); err != nil || value != "line one\nline two" {
					t.Errorf("the file's value is %q, %v", value, err)
				}
			}
		}
		return err
	}))
	if kept != "never-seen-again" {
		t.Errorf("the hidden value is %q after an edit that left it alone", kept)
	}
	s.post("maya", hidden)
	if strings.Contains(text(s.page("maya", base), ".variables"), "GONE") {
		t.Error("the variable is still there")
	}
}

func TestRunnersAndTriggers(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	const base = "/acme/plain/-/settings/ci_cd"
	resp := s.do("maya", http.MethodPost, base+"/runners", url.Values{"description": {"arm builder"}, "tag_list": {"arm64, docker"}})
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	token := text(doc, "#new-runner-token .token code")
	if !strings.HasPrefix(token, "glrt-") {
		t.Errorf("the new runner's token is %q", token)
	}
	doc = s.page("maya", base)
	s.has(doc, ".runners", "arm builder arm64 docker")
	s.count(doc, "#new-runner-token", 0)
	pause, _ := doc.Find(".runners form[action$='/pause']").Attr("action")
	s.post("maya", pause)
	s.has(s.page("maya", base), ".runners .badge", "paused")
	s.post("maya", strings.TrimSuffix(pause, "pause")+"delete")
	if got := s.status("maya", http.MethodPost, base+"/runners/1/pause", url.Values{}); got != http.StatusNotFound {
		t.Errorf("a maintainer pauses the instance's runner: %d", got)
	}

	resp = s.do("maya", http.MethodPost, base+"/triggers", url.Values{"description": {"from the shop"}})
	doc, err = goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if got := text(doc, "#new-trigger-token .token code"); !strings.HasPrefix(got, "glptt-") {
		t.Errorf("the trigger's token is %q", got)
	}
	remove, _ := s.page("maya", base).Find("form[action*='/triggers/']").Attr("action")
	s.post("maya", remove)

	s.project("acme/other", nil, map[string]delivery.Role{"maya": delivery.Maintainer})
	s.post("maya", base+"/token_access", "project", "acme/other", "push", "on")
	s.has(s.page("maya", base), "#token_access td", "acme/other push")
	if got := s.status("maya", http.MethodPost, base+"/token_access", url.Values{"project": {"acme/nothing"}}); got != http.StatusUnprocessableEntity {
		t.Errorf("access for a project that is not there: %d", got)
	}
	if got := s.status("maya", http.MethodGet, "/admin/ci_cd", nil); got != http.StatusNotFound {
		t.Errorf("the administrators' page: %d", got)
	}
}

func TestAdminCI(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	yes := true
	_, err := s.access.UpdateUser(s.ctx, s.root, s.people["maya"].User.ID, access.UserChange{Admin: &yes})
	s.must(err)
	doc := s.page("maya", "/admin/runners")
	s.has(doc, ".runners", "test runner")
	s.post("maya", "/admin/ci_cd/runners/1/pause")
	s.post("maya", "/admin/ci_cd/variables", "key", "PROXY", "value", "http://proxy", "visibility", "visible")
	s.has(s.page("maya", "/admin/ci_cd"), ".variables", "PROXY")
	if got := s.status("dev", http.MethodPost, "/admin/ci_cd/runners/1/resume", url.Values{}); got != http.StatusNotFound {
		t.Errorf("a user resumes the instance's runner: %d", got)
	}
}

func TestBadge(t *testing.T) {
	t.Parallel()
	s, _, _ := shop(t)
	for path, want := range map[string]string{"main/pipeline.svg": "passed", "main/coverage.svg": "unknown", "feature/x/pipeline.svg": "unknown"} {
		resp := s.do("rep", http.MethodGet, "/acme/shop/-/badges/"+path, nil)
		body, err := io.ReadAll(resp.Body)
		s.must(err)
		if resp.Header.Get("Content-Type") != "image/svg+xml" || !strings.Contains(string(body), ">"+want+"<") {
			t.Errorf("%s: %s %.200s", path, resp.Status, body)
		}
	}
	if got := s.status("", http.MethodGet, "/acme/shop/-/badges/main/pipeline.svg", nil); got == http.StatusOK {
		t.Error("the badge of a private project is public")
	}
}

func TestEnvironments(t *testing.T) {
	t.Parallel()
	s, _, link := shop(t)
	const base = "/acme/shop/-/environments"
	job, _ := s.page("maya", link).Find("#stage-deploy a").Attr("href")
	for range 2 {
		if strings.Contains(text(s.page("maya", job), "#job-head"), "Passed") {
			job = s.post("maya", job+"/retry")
		} else {
			s.post("maya", job+"/play")
		}
		s.end(s.take(), "success", "deployed\n")
	}
	list := s.page("rep", base)
	s.has(list, ".environment h2", "production")
	s.has(list, ".environment .badge", "Passed")
	env, _ := list.Find(".environment h2 a").Attr("href")
	doc := s.page("maya", env)
	s.count(doc, "#deployments tbody tr", 2)
	s.count(doc, "#deployments tr.current", 1)
	s.has(doc, "#deployments tr:last-child button", "Roll back")
	s.count(s.page("rep", env), "#deployments button", 0)
	back, _ := doc.Find("#deployments tr:last-child form").Attr("action")
	if got := s.status("rep", http.MethodPost, back, url.Values{}); got != http.StatusForbidden {
		t.Errorf("a reporter rolls back: %d", got)
	}
	if got := s.status("maya", http.MethodPost, env+"/delete", url.Values{}); got != http.StatusForbidden {
		t.Errorf("an environment in use is deleted: %d", got)
	}
	s.post("maya", env, "external_url", "https://shop.example.com", "tier", "production", "description", "what customers see")
	if got := s.status("maya", http.MethodPost, env, url.Values{"external_url": {"javascript:alert(1)"}, "tier": {"other"}}); got != http.StatusUnprocessableEntity {
		t.Errorf("a script as an address: %d", got)
	}
	s.post("maya", env+"/stop")
	s.has(s.page("maya", base+"?scope=stopped"), ".environment", "production")
	s.post("maya", env+"/delete")
	s.post("maya", base, "name", "review/x", "tier", "")
}

func TestEditor(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const editor, lint = "/acme/plain/-/ci/editor", "/acme/plain/-/ci/lint"
	doc := s.page("maya", editor)
	s.count(doc, ".starters a", 6)
	fragment := func(content string) *goquery.Document {
		resp := s.do("maya", http.MethodPost, lint, url.Values{"branch": {"main"}, "content": {content}}, "X-Fragment", "1")
		d, err := goquery.NewDocumentFromReader(resp.Body)
		s.must(err)
		return d
	}
	bad := fragment("stages: [a]\njob:\n  stage: a\n  scirpt: x\n")
	s.has(bad, "#lint .alert", "script")
	if line, _ := bad.Find("#lint li[data-line]").Attr("data-line"); line == "" || line == "0" {
		t.Errorf("the error has the line %q", line)
	}
	good := fragment(shopConfig)
	s.has(good, ".notice", "5 jobs")
	s.count(good, ".stage", 3)
	s.count(good, ".dag rect", 5)
	whole := s.do("maya", http.MethodPost, lint, url.Values{"branch": {"main"}, "content": {"job:\n"}})
	if whole.StatusCode != http.StatusOK {
		t.Errorf("without the script: %s", whole.Status)
	}
	if got := s.status("dev", http.MethodPost, editor, url.Values{"branch": {"main"}, "target": {"main"}, "content": {"x: 1"}, "message": {"no"}}); got != http.StatusForbidden {
		t.Errorf("a developer commits to a protected branch: %d", got)
	}
	s.post("maya", editor, "branch", "main", "target", "main", "content", "job:\r\n  script: echo\r\n", "message", "Add a pipeline")
	body, err := s.forge.ReadFile(s.ctx, p.ID, "main", ".gitlab-ci.yml", 1<<20)
	s.must(err)
	if string(body) != "job:\n  script: echo\n" {
		t.Errorf("committed %q", body)
	}
	s.pushed(p)
	form := s.page("maya", editor)
	base, _ := form.Find("input[name=base]").Attr("value")
	s.commit(p, "Meanwhile", map[string]string{".gitlab-ci.yml": "other:\n  script: echo\n"})
	resp := s.do("maya", http.MethodPost, editor, url.Values{"branch": {"main"}, "target": {"main"}, "base": {base}, "exists": {"1"}, "content": {"mine:\n  script: echo\n"}, "message": {"Mine"}})
	if resp.StatusCode != http.StatusConflict && resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a change in between is overwritten: %s", resp.Status)
	}
	s.post("dev", editor, "branch", "main", "target", "try-it", "exists", "1", "base", "", "content", "mine:\n  script: echo\n", "message", "Mine")
}

func TestStartersAreValid(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	files, err := filepath.Glob("starters/*.yml")
	s.must(err)
	if len(files) < 5 {
		t.Fatalf("only %d starters", len(files))
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		s.must(err)
		got, err := s.engine.Lint(s.ctx, pipeline.LintRequest{UserID: s.root.User.ID, ProjectID: p.ID, Content: string(text), Ref: "main", DryRun: true})
		s.must(err)
		if !got.Valid || got.Plan == nil || len(got.Plan.Jobs) == 0 {
			t.Errorf("%s: %v", f, got.Errors)
		}
	}
}

func TestNarrowTokensGetNoPages(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.commit(p, "Add pipeline", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n"})
	s.pushed(p)
	token := ""
	for _, v := range s.take().Variables {
		if v.Key == "CI_JOB_TOKEN" {
			token = v.Value
		}
	}
	if token == "" {
		t.Fatal("the job has no token")
	}
	for method, path := range map[string]string{http.MethodGet: "/acme/plain/-/settings/ci_cd", http.MethodPost: "/acme/plain/-/settings/ci_cd/runners"} {
		if got := s.do("", method, path, url.Values{}, "JOB-TOKEN", token); got.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s with a job's token: %s", method, path, got.Status)
		}
	}
	for scope, want := range map[string]int{"read_api": http.StatusForbidden, "api": http.StatusSeeOther} {
		_, secret, err := s.access.CreatePersonalToken(s.ctx, s.root, s.people["maya"].User.ID, access.NewToken{Name: scope, Scopes: []string{scope}})
		s.must(err)
		if got := s.do("", http.MethodGet, "/acme/plain/-/settings/ci_cd", nil, "PRIVATE-TOKEN", secret); got.StatusCode != http.StatusOK {
			t.Errorf("reading with %s: %s", scope, got.Status)
		}
		if got := s.do("", http.MethodPost, "/acme/plain/-/settings/ci_cd/variables", url.Values{"key": {"A"}, "value": {"b"}, "environment_scope": {scope}}, "PRIVATE-TOKEN", secret); got.StatusCode != want {
			t.Errorf("changing with %s: %s", scope, got.Status)
		}
	}
}
