package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// refused sends a form that must come back with a message.
func (s *site) refused(who, path string, status int, pairs ...string) *goquery.Document {
	s.t.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	resp := s.do(who, http.MethodPost, path, form)
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if resp.StatusCode != status || text(doc, ".alert") == "" {
		s.t.Errorf("POST %s as %s: %s %q; want %d and a message", path, who, resp.Status, text(doc, ".alert"), status)
	}
	return doc
}

func TestProfile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("ada")
	if got := s.status("", http.MethodGet, "/profile", nil); got != http.StatusSeeOther {
		t.Errorf("nobody's profile: %d", got)
	}
	s.post("ada", "/profile", "name", "Ada L.", "email", "ada@example.org")
	doc := s.page("ada", "/profile")
	if v, _ := doc.Find("#account input[name=name]").Attr("value"); v != "Ada L." {
		t.Errorf("the name is %q", v)
	}
	s.count(doc, ".sessions tbody tr", 1)
	s.has(doc, ".sessions", "this browser")
	s.refused("ada", "/profile", http.StatusUnprocessableEntity, "name", "Ada", "email", "nonsense")
	s.refused("ada", "/profile/password", http.StatusUnprocessableEntity, "current_password", "wrong", "password", "another long secret", "password_confirmation", "another long secret")
	s.refused("ada", "/profile/password", http.StatusUnprocessableEntity, "current_password", "correct horse battery", "password", "another long secret", "password_confirmation", "other")
	second, _, err := s.access.SignIn(s.ctx, "ada", "correct horse battery", "", "127.0.0.2", "second")
	s.must(err)
	s.post("ada", "/profile/password", "current_password", "correct horse battery", "password", "another long secret", "password_confirmation", "another long secret")
	if who, _, err := s.access.SessionIdentity(s.ctx, second); err == nil && who.Signed() {
		t.Error("the other session outlived the password")
	}
	s.count(s.page("ada", "/profile"), ".sessions tbody tr", 1)
}

func TestProfileTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("ada")
	s.person("eve")
	s.refused("ada", "/profile/tokens", http.StatusUnprocessableEntity, "name", "laptop", "expires_at", "2031-01-01")
	s.refused("ada", "/profile/tokens", http.StatusUnprocessableEntity, "name", "laptop", "scopes", "api", "expires_at", "2001-01-01")
	resp := s.do("ada", http.MethodPost, "/profile/tokens", url.Values{"name": {"laptop"}, "scopes": {"read_api", "read_repository"}})
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	secret := text(doc, "#new-token code")
	if !strings.HasPrefix(secret, "glpat-") {
		t.Fatalf("no secret: %s %q", resp.Status, secret)
	}
	list := s.page("ada", "/profile/tokens")
	s.has(list, ".tokens", "laptop")
	s.count(list, "#new-token", 0)
	if got := s.do("", http.MethodGet, "/profile/tokens", nil, "PRIVATE-TOKEN", secret).StatusCode; got != http.StatusForbidden {
		t.Errorf("a token reads the tokens: %d", got)
	}
	revoke, _ := list.Find(".tokens form").Attr("action")
	if got := s.status("eve", http.MethodPost, revoke, url.Values{}); got != http.StatusNotFound {
		t.Errorf("another revokes: %d", got)
	}
	s.post("ada", revoke)
	s.has(s.page("ada", "/profile/tokens"), ".tokens", "revoked")
	if _, err := s.access.AuthenticateBasic(s.ctx, "ada", secret, "127.0.0.1"); delivery.KindOf(err) != delivery.Unauthenticated {
		t.Errorf("a revoked token signs in: %v", err)
	}
}

func TestProfileKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("ada")
	s.person("eve")
	bad := s.refused("ada", "/profile/keys", http.StatusUnprocessableEntity, "title", "x", "key", "ssh-rsa nonsense")
	if got := bad.Find("textarea[name=key]").Text(); got != "ssh-rsa nonsense" {
		t.Errorf("what was typed is lost: %q", got)
	}
	s.post("ada", "/profile/keys", "key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@laptop")
	doc := s.page("ada", "/profile/keys")
	s.has(doc, ".keys", "ada@laptop")
	remove, _ := doc.Find(".keys form").Attr("action")
	if got := s.status("eve", http.MethodPost, remove, url.Values{}); got != http.StatusNotFound {
		t.Errorf("another deletes: %d", got)
	}
	s.post("ada", remove)
	keys, _, err := s.access.Keys(s.ctx, s.people["ada"].User.ID, 0, 10, 0)
	s.must(err)
	if len(keys) != 0 {
		t.Errorf("keys are left: %v", keys)
	}
}
