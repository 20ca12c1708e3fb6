package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestMembersPage(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.person("ned")
	const base = "/acme/plain/-/project_members"
	s.count(s.page("dev", base), "#new", 0)
	if got := s.status("dev", http.MethodPost, base, url.Values{"username": {"ned"}, "role": {"guest"}}); got != http.StatusForbidden {
		t.Errorf("a developer adds: %d", got)
	}
	s.refused("maya", base, http.StatusUnprocessableEntity, "username", "nobody-here", "role", "guest")
	if got := s.status("maya", http.MethodPost, base, url.Values{"username": {"ned"}, "role": {"owner"}}); got != http.StatusForbidden {
		t.Errorf("a maintainer makes an owner: %d", got)
	}
	s.post("maya", base, "username", "@ned", "role", "reporter")
	s.has(s.page("maya", base), ".members", "@ned")
	s.post("maya", base, "username", "ned", "role", "developer")
	m, err := s.access.MemberOf(s.ctx, 0, p.ID, s.people["ned"].User.ID, false)
	s.must(err)
	if m.Role != delivery.Developer {
		t.Errorf("the role is %s", m.Role)
	}
	remove := base + "/" + number(s.people["ned"].User.ID) + "/remove"
	if got := s.status("dev", http.MethodPost, remove, url.Values{}); got != http.StatusForbidden {
		t.Errorf("a developer removes: %d", got)
	}
	s.post("ned", remove)
	if got := s.status("ned", http.MethodGet, base, nil); got != http.StatusNotFound {
		t.Errorf("who left sees the project: %d", got)
	}
}

func TestProjectSettings(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	s.person("olga")
	p := s.project("acme/own", nil, map[string]delivery.Role{"olga": delivery.Owner, "maya": delivery.Maintainer, "dev": delivery.Developer})
	s.branch(p, "next", map[string]string{"x": "x"})
	const base = "/acme/own/-/settings"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
	s.count(s.page("maya", base), "#danger", 0)
	all := []string{"name", "Own", "description", "ours", "default_branch", "next", "merge_method", "ff", "squash_option", "default_on", "approvals", "1", "visibility", "public"}
	s.post("maya", base, all...)
	p, err := s.forge.Project(s.ctx, p.ID)
	s.must(err)
	if p.Name != "Own" || p.DefaultBranch != "next" || p.Visibility != delivery.Private {
		t.Errorf("stored: %+v; only owners change the visibility", p)
	}
	settings, err := s.forge.Settings(s.ctx, p.ID)
	s.must(err)
	if settings.MergeMethod != "ff" || settings.ApprovalsRequired != 1 {
		t.Errorf("settings: %+v", settings)
	}
	s.refused("olga", base, http.StatusUnprocessableEntity, all[:10]...)
	if got := s.status("maya", http.MethodPost, base+"/delete", url.Values{"confirm": {"acme/own"}}); got != http.StatusForbidden {
		t.Errorf("a maintainer deletes: %d", got)
	}
	s.refused("olga", base+"/delete", http.StatusUnprocessableEntity, "confirm", "own")
	s.post("olga", base+"/delete", "confirm", "acme/own")
	if _, err := s.forge.Project(s.ctx, p.ID); !delivery.IsNotFound(err) {
		t.Errorf("the project is there: %v", err)
	}
}

func TestProtectionsPage(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/repository"
	s.has(s.page("maya", base), "#branches tbody", "main")
	s.post("maya", base+"/protect", "kind", "branch", "pattern", "release/*", "push", "nobody", "merge", "developer")
	s.has(s.page("maya", base), "#branches tbody tr:last-child", "release/*nobodydeveloper and above")
	s.post("maya", base+"/protect", "kind", "tag", "pattern", "v*", "push", "maintainer")
	s.has(s.page("maya", base), "#tags tbody", "v*")
	s.refused("maya", base+"/protect", http.StatusUnprocessableEntity, "kind", "branch", "pattern", "", "push", "maintainer", "merge", "maintainer")
	s.refused("maya", base+"/protect", http.StatusUnprocessableEntity, "kind", "branch", "pattern", "x", "push", "everybody")
	s.post("maya", base+"/unprotect", "kind", "branch", "pattern", "release/*")
	if is, err := s.forge.BranchProtected(s.ctx, p.ID, "release/1"); err != nil || is {
		t.Errorf("still protected: %v %v", is, err)
	}
	if got := s.status("dev", http.MethodPost, base+"/unprotect", url.Values{"kind": {"branch"}, "pattern": {"main"}}); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
}

func TestProjectTokens(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	const base = "/acme/plain/-/settings/access_tokens"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
	s.refused("maya", base, http.StatusUnprocessableEntity, "name", "bot", "role", "owner", "scopes", "api")
	made := func(path string, form url.Values) *goquery.Document {
		doc, err := goquery.NewDocumentFromReader(s.do("maya", http.MethodPost, path, form).Body)
		s.must(err)
		return doc
	}
	doc := made(base, url.Values{"name": {"bot"}, "role": {"reporter"}, "scopes": {"read_repository"}})
	if secret := text(doc, "#new-token code"); !strings.HasPrefix(secret, "glpat-") {
		t.Errorf("secret %q", secret)
	}
	doc = made("/acme/plain/-/settings/deploy_tokens", url.Values{"name": {"cluster"}, "username": {"puller"}, "scopes": {"read_registry"}})
	secret := text(doc, "#new-token code")
	if who, err := s.access.AuthenticateBasic(s.ctx, text(doc, "#new-user code"), secret, "127.0.0.1"); err != nil || who.Kind != delivery.DeployToken {
		t.Errorf("the deploy token: %v %v", who, err)
	}
	s.has(s.page("maya", base), "#deploy .tokens", "puller")
	revoke := s.page("maya", base).Find("#deploy .tokens form").AttrOr("action", "")
	s.project("acme/other", nil, map[string]delivery.Role{"dev": delivery.Maintainer})
	if got := s.status("dev", http.MethodPost, strings.Replace(revoke, "plain", "other", 1), url.Values{}); got != http.StatusNotFound {
		t.Errorf("from another project: %d", got)
	}
	s.post("maya", revoke)
	if _, err := s.access.AuthenticateBasic(s.ctx, "puller", secret, "127.0.0.1"); err == nil {
		t.Error("a revoked deploy token signs in")
	}
}
