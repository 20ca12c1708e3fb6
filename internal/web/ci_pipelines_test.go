package web_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const shopConfig = `stages: [build, test, deploy]
build:
  stage: build
  script: make
  artifacts: {paths: [out/]}
unit:
  stage: test
  script: make test
  parallel: 2
lint:
  stage: test
  needs: []
  script: make lint
  allow_failure: true
deploy:
  stage: deploy
  script: make deploy
  when: manual
  environment: {name: production, url: https://shop.example.com}
`

// shop is a project with a developer, a reporter and a pipeline whose jobs
// have ended but for the manual one.
func shop(t *testing.T) (*site, delivery.Project, string) {
	t.Helper()
	s := newSite(t)
	for _, who := range []string{"maya", "dev", "rep", "stranger"} {
		s.person(who)
	}
	p := s.project("acme/shop", map[string]string{".gitlab-ci.yml": shopConfig}, map[string]delivery.Role{"maya": delivery.Maintainer, "dev": delivery.Developer, "rep": delivery.Reporter})
	made := s.pushed(p)
	for range 4 {
		spec := s.take()
		switch spec.JobInfo.Name {
		case "lint":
			s.end(spec, "failed", "bad style\n")
			continue
		case "build":
			s.archive(spec, map[string]string{"out/app.txt": "hello", "out/deep/data.json": "{}"})
		case "unit 1/2":
			s.upload(spec, "junit", "gzip", "junit.xml.gz", gzipped(junit))
		}
		s.end(spec, "success", sampleLog())
	}
	return s, p, "/acme/shop/-/pipelines/" + number(made.ID)
}

func TestPipelineList(t *testing.T) {
	t.Parallel()
	s, _, link := shop(t)
	doc := s.page("dev", "/acme/shop/-/pipelines")
	row := doc.Find("tr[data-pipeline]").First()
	if got, _ := row.Find("a.strong").Attr("href"); got != link {
		t.Errorf("the first row leads to %s; want %s", got, link)
	}
	s.has(doc, "tr[data-pipeline] .badge", "Passed")
	if n := row.Find(".dots .st").Length(); n != 3 {
		t.Errorf("%d stages; want 3", n)
	}
	s.count(doc, "#pipelines[data-live]", 1)
	s.has(doc, "a.primary", "Run pipeline")
	s.count(s.page("rep", "/acme/shop/-/pipelines"), "a.primary", 0)
	s.has(s.page("dev", "/acme/shop/-/pipelines?status=failed"), "#pipelines", "No pipeline fits the filter")
	s.count(s.page("dev", "/acme/shop/-/pipelines?ref=main&source=push"), "tr[data-pipeline]:first-child", 1)
	fragment := s.do("dev", http.MethodGet, "/acme/shop/-/pipelines", nil, "X-Fragment", "1")
	body, err := io.ReadAll(fragment.Body)
	s.must(err)
	if !strings.HasPrefix(string(body), `<div id="pipelines"`) {
		t.Errorf("the fragment begins with %.60q", body)
	}
	if got := s.status("stranger", http.MethodGet, "/acme/shop/-/pipelines", nil); got != http.StatusNotFound {
		t.Errorf("a stranger got %d", got)
	}
}

func TestPipelinePage(t *testing.T) {
	t.Parallel()
	s, _, link := shop(t)
	doc := s.page("maya", link)
	s.count(doc, ".stage", 3)
	s.has(doc, "#stage-test .job-group summary", "unit")
	s.count(doc, "#stage-test .job-group .job-box.s-success", 3)
	s.count(doc, "#stage-test .job-box.s-allowed", 1)
	s.count(doc, `#stage-deploy form[action$="/play"]`, 1)
	for _, who := range []string{"rep", "dev"} { // main is protected: developers may not push to it
		s.count(s.page(who, link), "form[action*='/-/jobs/']", 0)
	}

	dag := s.page("dev", link+"/dag")
	s.count(dag, ".dag rect", 5)
	if n := dag.Find(".dag path").Length(); n == 0 {
		t.Error("the graph has no edges")
	}
	s.has(s.page("dev", link+"/builds"), "table.jobs", "lint")
	s.has(s.page("dev", link+"/failures"), ".log-tail", "bad style")
	tests := s.page("dev", link+"/test_report")
	s.has(tests, "#pipeline-body", "3 tests, 1 passed, 1 failed, 1 skipped")
	s.has(tests, ".case.s-row-failed pre", "AssertionError")
	s.has(s.page("dev", link+"/security"), ".empty", "No findings")
	s.has(s.page("dev", link+"/coverage"), ".empty", "No coverage")
	if got := s.status("dev", http.MethodGet, link+"/nonsense", nil); got != http.StatusNotFound {
		t.Errorf("an unknown tab gives %d", got)
	}
}

func TestPipelineActions(t *testing.T) {
	t.Parallel()
	s, p, link := shop(t)
	job, _ := s.page("dev", link).Find("#stage-deploy a").Attr("href")
	for _, who := range []string{"rep", "dev"} {
		if got := s.status(who, http.MethodPost, job+"/play", url.Values{}); got != http.StatusForbidden {
			t.Errorf("%s plays a job on the protected branch: %d", who, got)
		}
	}
	s.post("maya", job+"/play", "variable_key", "WHERE", "variable_value", "here", "variable_type", "env_var")
	spec := s.take()
	if spec.JobInfo.Name != "deploy" {
		t.Fatalf("took %s", spec.JobInfo.Name)
	}
	found := false
	for _, v := range spec.Variables {
		found = found || v.Key == "WHERE" && v.Value == "here"
	}
	if !found {
		t.Error("the variable of the form did not reach the job")
	}
	s.post("maya", job+"/cancel")
	s.has(s.page("maya", job), "#job-head .badge", "Cancel")

	if got := s.status("dev", http.MethodPost, "/acme/shop/-/pipelines", url.Values{"ref": {"nowhere"}}); got != http.StatusUnprocessableEntity {
		t.Errorf("a pipeline of no branch: %d", got)
	}
	form := s.page("maya", "/acme/shop/-/pipelines/new?var[COLOUR]=red")
	if v, _ := form.Find("input[name=variable_key]").First().Attr("value"); v != "COLOUR" {
		t.Errorf("the form was filled with %q", v)
	}
	made := s.post("maya", "/acme/shop/-/pipelines", "ref", "main", "variable_key", "COLOUR", "variable_value", "red")
	s.has(s.page("maya", made+"/variables"), "#pipeline-body td", "COLOURred")
	s.has(s.page("maya", made), "#stage-build .job-box .waits", "It waits for a runner to become free.")
	s.has(s.page("maya", made+"/builds"), "table.jobs td", "It waits for a runner to become free.")
	s.post("maya", made+"/cancel")
	s.has(s.page("maya", made), "#pipeline-head .badge", "Canceled")
	s.post("maya", made+"/retry")
	if got := s.status("maya", http.MethodPost, made+"/delete", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a maintainer deletes a pipeline: %d", got)
	}
	s.post("maya", made+"/cancel")
	s.commit(p, "Break it", map[string]string{".gitlab-ci.yml": "stages: [a]\njob:\n  stage: b\n  script: x\n"})
	resp := s.do("maya", http.MethodPost, "/acme/shop/-/pipelines", url.Values{"ref": {"main"}})
	if resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a broken configuration runs: %s", resp.Status)
	}
}

func TestJobPage(t *testing.T) {
	t.Parallel()
	s, _, link := shop(t)
	build, _ := s.page("dev", link).Find("#stage-build a").Attr("href")
	doc := s.page("maya", build)
	s.has(doc, "#job-head .badge", "Passed")
	s.has(doc, ".log-tail", `$ make test`)
	s.has(doc, ".log-tail .a-f1", "one failed")
	s.has(doc, ".log-tail .sec time", "00:03")
	if strings.Contains(text(doc, ".log-tail"), "progress 10%") || strings.Contains(text(doc, ".log-tail"), "section_") {
		t.Error("overwritten text and marks are shown")
	}
	s.has(doc, ".job-side", "Download")
	s.count(doc, `form[action$="/retry"]`, 1)

	raw := s.do("rep", http.MethodGet, build+"/raw", nil, "Range", "bytes=0-12")
	part, err := io.ReadAll(raw.Body)
	s.must(err)
	if raw.StatusCode != http.StatusPartialContent || string(part) != "section_start" {
		t.Errorf("range: %s %q", raw.Status, part)
	}
	piece := s.do("rep", http.MethodGet, build+"/log?offset=8", nil)
	all, err := io.ReadAll(piece.Body)
	s.must(err)
	if !strings.HasPrefix(string(all), "start:") || piece.Header.Get("X-Log-Done") != "true" || piece.Header.Get("X-Log-Offset") != "8" {
		t.Errorf("piece %.20q, headers %v", all, piece.Header)
	}

	browse := s.page("rep", build+"/artifacts/browse/out")
	s.has(browse, ".tree", "deep/")
	s.has(s.page("rep", build+"/artifacts/file/out/app.txt"), ".code", "hello")
	if got := s.do("rep", http.MethodGet, build+"/artifacts/raw/out/deep/data.json", nil); got.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("raw artifact is sent as %s", got.Header.Get("Content-Type"))
	}
	if got := s.status("rep", http.MethodGet, build+"/artifacts/browse/nothing", nil); got != http.StatusNotFound {
		t.Errorf("a folder that is not there: %d", got)
	}
	s.has(s.page("rep", "/acme/shop/-/artifacts"), "table", "artifacts.zip")
	if got := s.status("dev", http.MethodPost, build+"/erase", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a developer erases: %d", got)
	}
	s.post("maya", build+"/erase")
	s.has(s.page("maya", build), ".hint", "erased")

	list := s.page("rep", "/acme/shop/-/jobs?scope=finished")
	s.has(list, "table.jobs", "lint")
	s.count(list, "table.jobs form", 0)
}

func TestCommitShowsItsPipeline(t *testing.T) {
	t.Parallel()
	s, _, link := shop(t)
	doc := s.page("rep", "/acme/shop/-/commits/main")
	if got, _ := doc.Find(`a.st`).First().Attr("href"); !strings.HasPrefix(got, strings.TrimRight(link, "0123456789")) {
		t.Errorf("the status leads to %q", got)
	}
}
