package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func TestReleaseIsChangedAndDeleted(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/releases"
	s.post("dev", base, "tag", "v1/beta", "ref", "main", "name", "One", "description", "first",
		"link_id", "", "link_url", "https://example.com/app.tar.gz", "link_name", "", "link_type", "package",
		"link_id", "", "link_url", "", "link_name", "", "link_type", "other")
	doc := s.page("dev", base)
	s.has(doc, ".release li", "app.tar.gz")
	edit := doc.Find(".release a[href$='/edit']").AttrOr("href", "")
	if edit != base+"/v1%2Fbeta/edit" {
		t.Errorf("edited at %q", edit)
	}
	r, err := s.forge.Release(s.ctx, p.ID, "v1/beta")
	s.must(err)
	id := number(r.Links[0].ID)
	s.refused("dev", edit, http.StatusUnprocessableEntity, "name", "Two", "description", "x", "link_id", id, "link_url", "javascript:alert(1)", "link_name", "bad", "link_type", "other")
	s.post("dev", edit, "name", "Two", "description", "second", "link_id", id, "link_url", "", "link_name", "", "link_type", "other",
		"link_id", "", "link_url", "https://example.com/run", "link_name", "How to run", "link_type", "runbook")
	doc = s.page("dev", base)
	s.has(doc, ".release header", "Two")
	s.has(doc, ".release .prose", "second")
	s.count(doc, ".release li", 1)
	s.has(doc, ".release li", "How to run runbook")
	s.person("guest")
	if got := s.status("guest", http.MethodGet, edit, nil); got != http.StatusNotFound {
		t.Errorf("a stranger: %d", got)
	}
	s.post("dev", base+"/v1%2Fbeta/delete")
	if _, err := s.forge.Release(s.ctx, p.ID, "v1/beta"); !delivery.IsNotFound(err) {
		t.Errorf("the release is there: %v", err)
	}
	if _, err := s.forge.Tag(s.ctx, p, "v1/beta"); err != nil {
		t.Errorf("the tag went with it: %v", err)
	}
}

func TestFileIsRenamedAndMoved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("dev")
	p := s.project("acme/files", map[string]string{"docs/a.md": "one\n", "logo.bin": "\x00\x01"}, map[string]delivery.Role{"dev": delivery.Maintainer})
	doc := s.page("dev", "/acme/files/-/edit/main/docs/a.md")
	base := doc.Find("#edit input[name=base]").AttrOr("value", "")
	if v := doc.Find("#edit input[name=file_path]").AttrOr("value", ""); v != "docs/a.md" {
		t.Errorf("the path is %q", v)
	}
	to := s.post("dev", "/acme/files/-/edit/main/docs/a.md", "base", base, "file_path", "guide/b.md", "content", "two\n", "branch", "main", "commit_message", "Move")
	if to != "/acme/files/-/blob/main/guide/b.md" {
		t.Errorf("on to %s", to)
	}
	body, err := s.forge.ReadFile(s.ctx, p.ID, "main", "guide/b.md", 100)
	s.must(err)
	if string(body) != "two\n" {
		t.Errorf("the file holds %q", body)
	}
	if _, err := s.forge.ReadFile(s.ctx, p.ID, "main", "docs/a.md", 100); !delivery.IsNotFound(err) {
		t.Errorf("the old file: %v", err)
	}
	// What changed in between is not lost in a move.
	s.commit(p, "Change", map[string]string{"logo.bin": "\x00\x02"})
	s.refused("dev", "/acme/files/-/move/main/logo.bin", http.StatusConflict, "base", base, "file_path", "img/logo.bin", "branch", "main", "commit_message", "Move")
	s.refused("dev", "/acme/files/-/move/main/logo.bin", http.StatusUnprocessableEntity, "file_path", ".git/config", "branch", "main", "commit_message", "Move")
	s.post("dev", "/acme/files/-/move/main/logo.bin", "file_path", "img/logo.bin", "branch", "main", "commit_message", "Move")
	e, err := s.forge.Entry(s.ctx, p.ID, "main", "img/logo.bin")
	s.must(err)
	if e.Type != "blob" {
		t.Errorf("%+v", e)
	}
}

func TestAuditLogPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("ada")
	s.person("boss")
	s.makeAdmin("boss")
	_, err := s.forge.CreateProject(s.ctx, s.people["ada"], forge.NewProject{Path: "traced"})
	s.must(err)
	if got := s.status("ada", http.MethodGet, "/admin/audit_log", nil); got != http.StatusNotFound {
		t.Errorf("not an administrator: %d", got)
	}
	s.has(s.page("boss", "/admin/audit_log"), ".audit", "project.created")
	doc := s.page("boss", "/admin/audit_log?search=ADA/traced")
	s.count(doc, ".audit tbody tr", 1)
	s.has(doc, ".audit", "ada/traced")
	s.refused("boss", "/admin/users/"+number(s.people["ada"].User.ID)+"/delete", http.StatusConflict)
	s.person("gone")
	if got := s.status("boss", http.MethodPost, "/admin/users/"+number(s.people["gone"].User.ID)+"/delete", url.Values{}); got != http.StatusSeeOther {
		t.Errorf("deleting an account: %d", got)
	}
	if _, err := s.access.UserByName(s.ctx, "gone"); !delivery.IsNotFound(err) {
		t.Errorf("the account is there: %v", err)
	}
}
