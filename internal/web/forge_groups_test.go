package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func TestGroupPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("olga")
	s.person("ned")
	if got := s.post("olga", "/groups", "path", "team", "name", "Team", "visibility", "private"); got != "/groups/team" {
		t.Errorf("made, on to %s", got)
	}
	s.refused("olga", "/groups", http.StatusConflict, "path", "team", "visibility", "private")
	s.post("olga", "/groups", "parent", "team", "path", "web", "visibility", "private")
	s.refused("olga", "/groups", http.StatusUnprocessableEntity, "parent", "team", "path", "open", "visibility", "public")
	if got := s.status("ned", http.MethodPost, "/groups", url.Values{"parent": {"team"}, "path": {"x"}, "visibility": {"private"}}); got != http.StatusNotFound {
		t.Errorf("a stranger's subgroup: %d", got)
	}
	p, err := s.forge.CreateProject(s.ctx, s.people["olga"], forge.NewProject{NamespacePath: "team/web", Path: "shop", Readme: true})
	s.must(err)
	doc := s.page("olga", "/groups/team")
	s.has(doc, ".groups", "team/web")
	s.count(doc, ".side nav a", 6)
	s.has(s.page("olga", "/team/web"), ".projects", "shop")
	s.has(s.page("olga", "/groups/team?search=shop"), ".projects", "shop")
	s.has(s.page("olga", "/dashboard/groups"), ".groups", "team/web")
	s.has(s.page("ned", "/explore/groups"), ".groups", "No groups")
	for _, path := range []string{"/groups/team", "/groups/team/-/group_members", "/groups/team/-/edit", "/groups/team/-/hooks"} {
		if got := s.status("ned", http.MethodGet, path, nil); got != http.StatusNotFound {
			t.Errorf("%s as a stranger: %d", path, got)
		}
	}
	// Members, inherited below.
	s.post("olga", "/groups/team/-/group_members", "username", "ned", "role", "reporter")
	s.has(s.page("ned", "/groups/team/-/group_members"), ".members", "@ned")
	s.has(s.page("ned", "/team/web/shop/-/project_members"), ".members", "team")
	if got := s.status("ned", http.MethodGet, "/groups/team/-/edit", nil); got != http.StatusForbidden {
		t.Errorf("a reporter's settings: %d", got)
	}
	// A new path: the old addresses lead on.
	s.post("olga", "/groups/team/-/edit/path", "path", "crew")
	resp := s.do("ned", http.MethodGet, "/team/web/shop/-/commits/main", nil)
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != "/crew/web/shop/-/commits/main" {
		t.Errorf("the old address: %s %s", resp.Status, got)
	}
	s.refused("olga", "/groups/crew/-/edit/delete", http.StatusUnprocessableEntity, "confirm", "crew/x")
	s.refused("olga", "/groups/crew/-/edit/delete", http.StatusConflict, "confirm", "crew")
	s.must(s.forge.DeleteProject(s.ctx, s.people["olga"], p))
	s.post("olga", "/groups/crew/-/edit/delete", "confirm", "crew")
	if _, err := s.access.UserByName(s.ctx, "olga"); err != nil {
		t.Error(err)
	}
	if got := s.status("olga", http.MethodGet, "/groups/crew", nil); got != http.StatusNotFound {
		t.Errorf("a deleted group: %d", got)
	}
}

func TestGroupTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("olga")
	g, err := s.access.CreateGroup(s.ctx, s.people["olga"], access.NewGroup{Path: "team"})
	s.must(err)
	inside, err := s.forge.CreateProject(s.ctx, s.people["olga"], forge.NewProject{NamespacePath: "team", Path: "shop", Readme: true})
	s.must(err)
	outside, err := s.forge.CreateProject(s.ctx, s.people["olga"], forge.NewProject{Path: "own", Readme: true})
	s.must(err)
	internal, err := s.forge.CreateProject(s.ctx, s.people["olga"], forge.NewProject{Path: "internal", Visibility: delivery.Internal, Readme: true})
	s.must(err)
	made := func(path string, form url.Values) (string, string) {
		doc, err := goquery.NewDocumentFromReader(s.do("olga", http.MethodPost, path, form).Body)
		s.must(err)
		return text(doc, "#new-token code"), text(doc, "#new-user code")
	}
	secret, _ := made("/groups/team/-/settings/access_tokens", url.Values{"name": {"bot"}, "role": {"developer"}, "scopes": {"api"}})
	if !strings.HasPrefix(secret, "glpat-") {
		t.Fatalf("secret %q", secret)
	}
	deploy, user := made("/groups/team/-/settings/deploy_tokens", url.Values{"name": {"puller"}, "scopes": {"read_repository"}})
	for _, c := range []struct {
		user, secret string
		want         delivery.Role
	}{{"bot", secret, delivery.Developer}, {user, deploy, delivery.Reporter}} {
		who, err := s.access.AuthenticateBasic(s.ctx, c.user, c.secret, "127.0.0.1")
		s.must(err)
		if role, err := s.access.RoleIn(s.ctx, who, inside); err != nil || role != c.want {
			t.Errorf("%s inside: %s %v; want %s", who.Kind, role, err, c.want)
		}
		for _, p := range []delivery.Project{outside, internal} {
			if _, _, err := s.access.VisibleProject(s.ctx, who, p.FullPath); !delivery.IsNotFound(err) {
				t.Errorf("%s sees %s: %v", who.Kind, p.FullPath, err)
			}
		}
		list, _, err := s.forge.Projects(s.ctx, forge.FilterFor(who), 0, 0)
		s.must(err)
		for _, p := range list {
			if p.ID != inside.ID {
				t.Errorf("%s lists %s", who.Kind, p.FullPath)
			}
		}
	}
	page := s.page("olga", "/groups/team/-/settings/access_tokens")
	s.has(page, ".tokens", "developer")
	s.has(page, "#deploy .tokens", user)
	// A project's page does not revoke a group's token.
	revoke := page.Find("#deploy .tokens form").AttrOr("action", "")
	if got := s.status("olga", http.MethodPost, strings.Replace(revoke, "/groups/team/", "/team/shop/", 1), url.Values{}); got != http.StatusNotFound {
		t.Errorf("from a project: %d", got)
	}
	s.post("olga", revoke)
	if _, err := s.access.AuthenticateBasic(s.ctx, user, deploy, "127.0.0.1"); err == nil {
		t.Error("a revoked deploy token signs in")
	}
	// The bot goes with the group.
	s.must(s.forge.DeleteProject(s.ctx, s.people["olga"], inside))
	s.must(s.access.DeleteGroup(s.ctx, s.people["olga"], g))
	if _, err := s.access.AuthenticateBasic(s.ctx, "bot", secret, "127.0.0.1"); err == nil {
		t.Error("the group's token outlived it")
	}
	bots, _, err := s.access.Users(s.ctx, access.UserFilter{Bots: true, Search: "group_"}, 0, 0)
	s.must(err)
	if len(bots) > 0 {
		t.Errorf("bots are left: %v", bots)
	}
}

func TestGroupHooksPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("olga")
	_, err := s.access.CreateGroup(s.ctx, s.people["olga"], access.NewGroup{Path: "team"})
	s.must(err)
	edit := s.post("olga", "/groups/team/-/hooks", "url", "https://hooks.example.com/x", "token", "hush", "push", "on")
	doc := s.page("olga", edit)
	if v := doc.Find("input[name=token]").AttrOr("value", ""); v != "" || strings.Contains(doc.Text(), "hush") {
		t.Error("the token is shown")
	}
	s.refused("olga", "/groups/team/-/hooks", http.StatusUnprocessableEntity, "url", "http://127.0.0.1/x")
	if got := s.status("olga", http.MethodPost, strings.TrimSuffix(edit, "/edit")+"/test", url.Values{}); got != http.StatusUnprocessableEntity {
		t.Errorf("a test without projects: %d", got)
	}
}
