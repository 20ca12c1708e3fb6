package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func TestGroupVariablesAndRunners(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	group, _, err := s.access.VisibleGroup(s.ctx, s.root, "acme")
	s.must(err)
	_, err = s.access.SetMember(s.ctx, s.root, delivery.Owner, access.Member{User: *s.people["maya"].User, Role: delivery.Owner, GroupID: group.ID})
	s.must(err)
	const base = "/groups/acme/-/settings/ci_cd"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden && got != http.StatusNotFound {
		t.Errorf("a developer of a project reads the group's variables: %d", got)
	}
	s.has(s.page("maya", base), ".side-title", "acme")
	s.post("maya", base+"/variables", "key", "SHARED", "value", "for-all-projects", "visibility", "masked", "environment_scope", "*")
	s.has(s.page("maya", base), ".variables", "SHARED masked")

	resp := s.do("maya", http.MethodPost, base+"/runners", url.Values{"description": {"for the group"}, "run_untagged": {"on"}})
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if token := text(doc, "#new-runner-token .token code"); !strings.HasPrefix(token, "glrt-") {
		t.Errorf("the new runner's token is %q", token)
	}
	doc = s.page("maya", base+"?section=runners")
	s.has(doc, ".runners", "for the group")
	s.has(doc, ".runners .badge", "never contacted")
	s.count(doc, ".runners form[action$='/pause']", 1) // the instance's is not theirs
	s.has(s.page("maya", "/acme/plain/-/settings/ci_cd"), ".runners", "for the group")

	s.commit(p, "Add pipeline", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n"})
	_, err = s.engine.Create(s.ctx, pipeline.Request{ProjectID: p.ID, UserID: s.root.User.ID, Ref: "main", Source: pipeline.SourceWeb})
	s.must(err)
	spec, err := s.runner.Request(s.ctx)
	s.must(err)
	found := false
	for _, v := range spec.Variables {
		found = found || v.Key == "SHARED" && v.Value == "for-all-projects" && v.Masked
	}
	if !found {
		t.Error("the job does not get the group's variable")
	}
	del, _ := doc.Find(".runners form[action$='/delete']").Attr("action")
	s.post("maya", del)
	if strings.Contains(text(s.page("maya", base), ".runners"), "for the group") {
		t.Error("the runner is still there")
	}
}

func TestGeneralPipelineSettings(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/ci_cd"
	form := s.page("maya", base+"?section=general")
	if v, _ := form.Find("input[name=build_timeout]").Attr("value"); v != "3600" {
		t.Errorf("the default timeout is %q", v)
	}
	s.count(form, "textarea[name=namespaces]", 0)
	s.post("maya", base+"/general", "jobs_enabled", "on", "build_timeout", "1800", "git_depth", "0", "git_strategy", "clone", "rollback_allowed", "on",
		"namespaces", "production shop")
	set, err := s.engine.ProjectSettings(s.ctx, p.ID)
	s.must(err)
	if set.BuildTimeout != 1800 || set.GitDepth != 0 || set.GitStrategy != "clone" || set.ForwardDeployment || !set.RollbackAllowed || set.AutoCancel != "disabled" || len(set.Namespaces) != 0 {
		t.Errorf("stored %+v", set)
	}
	resp := s.do("maya", http.MethodPost, base+"/general", url.Values{"build_timeout": {"5"}, "git_depth": {"0"}, "git_strategy": {"clone"}})
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(text(doc, ".alert"), "build_timeout is between") {
		t.Errorf("a timeout of five seconds: %s %q", resp.Status, text(doc, ".alert"))
	}
	s.person("boss")
	yes := true
	_, err = s.access.UpdateUser(s.ctx, s.root, s.people["boss"].User.ID, access.UserChange{Admin: &yes})
	s.must(err)
	s.post("boss", base+"/general", "jobs_enabled", "on", "build_timeout", "1800", "git_depth", "0", "git_strategy", "clone", "namespaces", "production shop protected\nreview/* shop-review\n")
	set, err = s.engine.ProjectSettings(s.ctx, p.ID)
	s.must(err)
	if len(set.Namespaces) != 2 || !set.Namespaces[0].Protected || set.Namespaces[1].Environment != "review/*" {
		t.Errorf("namespaces %+v", set.Namespaces)
	}
}

func TestResourceGroupOrder(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/ci_cd"
	s.commit(p, "Add pipeline", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n  resource_group: boat\n"})
	_, err := s.engine.Create(s.ctx, pipeline.Request{ProjectID: p.ID, UserID: s.root.User.ID, Ref: "main", Source: pipeline.SourceWeb})
	s.must(err)
	s.has(s.page("maya", base), "#resources", "boat")
	s.post("maya", base+"/resource_groups", "key", "boat", "mode", "newest_first")
	if v := text(s.page("maya", base), "#resources option[selected]"); v != "newest_first" {
		t.Errorf("the order is %q", v)
	}
	if got := s.status("maya", http.MethodPost, base+"/resource_groups", url.Values{"key": {"boat"}, "mode": {"x"}}); got != http.StatusUnprocessableEntity {
		t.Errorf("an unknown order: %d", got)
	}
}
