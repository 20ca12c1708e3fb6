package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestHooksPage(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	const base = "/acme/plain/-/hooks"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
	s.refused("maya", base, http.StatusUnprocessableEntity, "url", "ftp://example.com", "push", "on")
	link := s.post("maya", base, "url", "https://hooks.example.com/in", "token", "very-secret-token", "push", "on", "pipeline", "on")
	doc := s.page("maya", link)
	s.count(doc, "#hook input[name=pipeline][checked]", 1)
	if html, err := doc.Html(); err != nil || len(html) == 0 || doc.Find("input[name=token]").AttrOr("value", "") != "" {
		t.Errorf("the token is shown: %v", err)
	}
	one := link[:len(link)-len("/edit")]
	s.post("maya", one, "url", "https://hooks.example.com/in", "tag_push", "on")
	s.count(s.page("maya", link), "#hook input[name=no_token]", 1) // the token is kept
	s.post("maya", one+"/test")
	doc = s.page("maya", link)
	s.has(doc, ".deliveries", "Push Hook")
	s.post("maya", doc.Find(".deliveries form").AttrOr("action", ""))
	s.count(s.page("maya", link), ".deliveries tbody tr", 2)
	s.project("acme/other", nil, map[string]delivery.Role{"dev": delivery.Maintainer})
	if got := s.status("dev", http.MethodPost, "/acme/other"+one[len("/acme/plain"):]+"/delete", url.Values{}); got != http.StatusNotFound {
		t.Errorf("from another project: %d", got)
	}
	s.post("maya", one+"/delete")
	s.has(s.page("maya", base), ".hooks", "No webhooks")
}

func TestReleasesPage(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/releases"
	s.has(s.page("dev", base), ".empty", "No releases")
	s.refused("maya", base, http.StatusUnprocessableEntity, "tag", "v1", "ref", "no-such-branch")
	s.post("dev", base, "tag", "v1.0", "ref", "main", "name", "First", "description", "It *works*.")
	doc := s.page("dev", base)
	s.has(doc, ".release header", "First")
	s.has(doc, ".release em", "works")
	if _, there, err := s.forge.RefExists(s.ctx, p.ID, "refs/tags/v1.0"); err != nil || !there {
		t.Errorf("no tag: %v", err)
	}
	s.person("out")
	if got := s.status("out", http.MethodGet, base, nil); got != http.StatusNotFound {
		t.Errorf("a stranger: %d", got)
	}
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.person("out")
	s.commit(p, "Add", map[string]string{"src/engine.txt": "first\nThe Turbine turns\n"})
	doc := s.page("maya", "/acme/plain/-/search?search=turbine")
	s.has(doc, "#lines", "src/engine.txt:2")
	s.has(doc, "#files", "No file")
	s.has(s.page("maya", "/acme/plain/-/search?search=ENGINE"), "#files", "src/engine.txt")
	s.has(s.page("maya", "/search?search=plain"), "#projects", "acme/plain")
	s.has(s.page("out", "/search?search=plain"), "#projects", "No project")
	if got := s.status("out", http.MethodGet, "/acme/plain/-/search?search=turbine", nil); got != http.StatusNotFound {
		t.Errorf("a stranger searches: %d", got)
	}
}

func TestAdminPages(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	s.person("adam")
	yes := true
	_, err := s.access.UpdateUser(s.ctx, s.root, s.people["adam"].User.ID, access.UserChange{Admin: &yes})
	s.must(err)
	for _, path := range []string{"/admin", "/admin/users"} {
		if got := s.status("maya", http.MethodGet, path, nil); got != http.StatusNotFound {
			t.Errorf("%s for a user: %d", path, got)
		}
	}
	doc := s.page("adam", "/admin")
	s.count(doc, "main a[href='/admin/runners']", 1)
	s.count(doc, "main a[href='/admin/ci_cd']", 1)
	s.has(doc, ".audit", "user.created")
	s.refused("adam", "/admin/users", http.StatusUnprocessableEntity, "username", "bad name", "email", "x@example.com", "password", "long enough secret")
	s.post("adam", "/admin/users", "username", "zoe", "name", "Zoe", "email", "zoe@example.com", "password", "long enough secret")
	s.has(s.page("adam", "/admin/users?search=zoe"), ".users", "@zoe")
	u, err := s.access.UserByName(s.ctx, "dev")
	s.must(err)
	block := "/admin/users/" + number(u.ID) + "/block"
	if got := s.status("maya", http.MethodPost, block, url.Values{}); got != http.StatusNotFound {
		t.Errorf("a user blocks: %d", got)
	}
	s.post("adam", block)
	s.has(s.page("adam", "/admin/users"), "#user-"+number(u.ID), "blocked")
	if got := s.status("dev", http.MethodGet, "/profile", nil); got == http.StatusOK {
		t.Error("a blocked account has pages")
	}
	if got := s.status("adam", http.MethodPost, "/admin/users/"+number(s.people["adam"].User.ID)+"/block", url.Values{}); got != http.StatusForbidden {
		t.Errorf("blocks itself: %d", got)
	}
}
