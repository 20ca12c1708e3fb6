package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/pquerna/otp/totp"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const sampleKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl deploy@server"

func TestDeployKeysPage(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/deploy_keys"
	if got := s.status("dev", http.MethodGet, base, nil); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
	bad := s.refused("maya", base, http.StatusUnprocessableEntity, "title", "x", "key", "nonsense", "can_push", "on")
	s.count(bad, "#new input[name=can_push][checked]", 1)
	s.post("maya", base, "key", sampleKey)
	s.has(s.page("maya", base), ".keys", "deploy@server")
	s.refused("maya", base, http.StatusConflict, "key", sampleKey)
	keys, _, err := s.access.Keys(s.ctx, 0, p.ID, 10, 0)
	s.must(err)
	one := base + "/" + number(keys[0].ID)
	s.post("maya", one, "title", "cluster", "can_push", "on")
	s.has(s.page("maya", base), ".keys", "read and write")
	s.project("acme/other", nil, map[string]delivery.Role{"dev": delivery.Maintainer})
	if got := s.status("dev", http.MethodPost, strings.Replace(one, "plain", "other", 1)+"/delete", url.Values{}); got != http.StatusNotFound {
		t.Errorf("from another project: %d", got)
	}
	s.post("maya", one+"/delete")
	s.has(s.page("maya", base), ".keys", "No deploy keys")
}

func TestMirrorsPage(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const base = "/acme/plain/-/settings/mirrors"
	s.refused("maya", base, http.StatusUnprocessableEntity, "direction", "pull", "url", s.server.URL+"/acme/plain.git", "minutes", "30")
	s.refused("maya", base, http.StatusUnprocessableEntity, "direction", "pull", "url", "https://example.com/x.git", "minutes", "0")
	s.refused("maya", base, http.StatusUnprocessableEntity, "direction", "push", "url", "file:///etc", "minutes", "5")
	// One that the administrator no longer allows: the page says why it fails.
	s.oldMirror(p, "http://127.0.0.1:1/gone.git")
	s.post("maya", base+"/"+number(1)+"/sync")
	for {
		doc := s.page("maya", base)
		if strings.Contains(text(doc, ".mirrors .s-failed"), "failed") {
			s.has(doc, ".mirrors .alert", "not allowed")
			break
		}
		select {
		case <-s.ctx.Done():
			t.Fatal("the mirror was not tried")
		case <-time.After(20 * time.Millisecond):
		}
	}
	list, err := s.forge.Mirrors(s.ctx, p.ID)
	s.must(err)
	one := base + "/" + number(list[0].ID)
	s.post("maya", one+"/sync")
	resp := s.do("maya", http.MethodGet, base, nil, "X-Fragment", "1")
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	s.count(doc, "#mirrors", 1)
	s.count(doc, "h1", 0)
	if got := s.status("dev", http.MethodPost, one+"/sync", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a developer: %d", got)
	}
	s.post("maya", one+"/delete")
	s.has(s.page("maya", base), ".mirrors", "No mirrors")
}

func TestMovingAProject(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	s.person("olga")
	p := s.project("acme/own", nil, map[string]delivery.Role{"olga": delivery.Owner, "maya": delivery.Maintainer})
	const base = "/acme/own/-/settings"
	for _, what := range []string{"path", "transfer", "archive"} {
		if got := s.status("maya", http.MethodPost, base+"/"+what, url.Values{"path": {"x"}}); got != http.StatusForbidden {
			t.Errorf("%s as a maintainer: %d", what, got)
		}
	}
	s.refused("olga", base+"/path", http.StatusConflict, "path", "plain")
	s.refused("olga", base+"/path", http.StatusUnprocessableEntity, "path", "a b")
	s.post("olga", base+"/path", "path", "renamed")
	if got := s.do("olga", http.MethodGet, "/acme/own", nil).Header.Get("Location"); got != "/acme/renamed" {
		t.Errorf("the old address leads to %q", got)
	}
	s.refused("olga", "/acme/renamed/-/settings/transfer", http.StatusUnprocessableEntity, "namespace", "maya")
	if got := s.post("olga", "/acme/renamed/-/settings/transfer", "namespace", "olga"); got != "/olga/renamed" {
		t.Errorf("transferred to %s", got)
	}
	if got := s.do("olga", http.MethodGet, "/acme/own/-/branches", nil).Header.Get("Location"); got != "/olga/renamed/-/branches" {
		t.Errorf("the first address leads to %q", got)
	}
	// Something new at the old address takes it.
	s.project("acme/own", nil, nil)
	now, err := s.access.Project(s.ctx, "acme/own")
	s.must(err)
	if now.ID == p.ID {
		t.Error("the old address still leads to the moved project")
	}
	s.post("olga", "/olga/renamed/-/settings/archive")
	s.has(s.page("olga", "/olga/renamed/-/settings"), "#archive", "can be read, not changed")
	s.post("olga", "/olga/renamed/-/settings", "name", "Renamed", "default_branch", "main", "merge_method", "merge", "squash_option", "never", "approvals", "0", "visibility", "private")
	if now, err := s.forge.Project(s.ctx, p.ID); err != nil || !now.Archived {
		t.Errorf("the general form took the archiving back: %v", err)
	}
	s.post("olga", "/olga/renamed/-/settings/unarchive")
	if now, err := s.forge.Project(s.ctx, p.ID); err != nil || now.Archived {
		t.Errorf("still archived: %v", err)
	}
}

func TestTwoFactorPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("ada")
	const password, base = "correct horse battery", "/profile/two_factor"
	s.has(s.page("ada", base), "#off h2", "It is off")
	s.refused("ada", base, http.StatusUnprocessableEntity, "current_password", "wrong")
	s.post("ada", base, "current_password", password)
	doc := s.page("ada", base)
	s.count(doc, "svg.qr path", 1)
	secret := strings.ReplaceAll(text(doc, "#secret"), " ", "")
	address, err := url.Parse(doc.Find("a[href^='otpauth:']").AttrOr("href", ""))
	s.must(err)
	if address.Query().Get("secret") != secret || address.Host != "totp" {
		t.Errorf("the address is %s, the key %s", address, secret)
	}
	s.refused("ada", base+"/confirm", http.StatusUnprocessableEntity, "code", "000000")
	code, err := totp.GenerateCode(secret, time.Now())
	s.must(err)
	resp := s.do("ada", http.MethodPost, base+"/confirm", url.Values{"code": {code}})
	doc, err = goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	s.count(doc, "#codes li", 10)
	s.has(doc, "#on", "protected")
	recovery := doc.Find("#codes code").First().Text()
	s.count(s.page("ada", base), "#codes", 0)
	// The password alone no longer signs in; a recovery code does, once.
	for i, want := range []bool{false, true, false} {
		given := recovery
		if i == 0 {
			given = ""
		}
		_, _, err := s.access.SignIn(s.ctx, "ada", password, given, "127.0.0.1", "test")
		if (err == nil) != want {
			t.Errorf("sign-in %d: %v", i, err)
		}
	}
	resp = s.do("ada", http.MethodPost, base+"/codes", url.Values{"current_password": {password}})
	doc, err = goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	s.count(doc, "#codes li", 10)
	s.refused("ada", base+"/disable", http.StatusUnprocessableEntity, "current_password", "wrong")
	s.post("ada", base+"/disable", "current_password", password)
	if _, _, err := s.access.SignIn(s.ctx, "ada", password, "", "127.0.0.1", "test"); err != nil {
		t.Errorf("after it was turned off: %v", err)
	}
}
