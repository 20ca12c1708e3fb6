package openid_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/openid"
)

type signer struct{ key *rsa.PrivateKey }

func (s signer) SignToken(_ context.Context, c jwt.MapClaims) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodRS256, c).SignedString(s.key)
}

func (s signer) PublicKey(context.Context) (*rsa.PublicKey, error) { return &s.key.PublicKey, nil }

type people struct{}

func (people) Person(_ context.Context, id int64) (openid.Person, error) {
	if id != 7 {
		return openid.Person{}, delivery.Errorf(delivery.NotFound, "blocked")
	}
	return openid.Person{ID: 7, Username: "ann", Name: "Ann", Email: "ann@example.org", Groups: []string{"@acme:developer"}}, nil
}

const (
	verifier = "a-verifier-of-forty-three-characters-or-more-x"
	callback = "http://localhost:8085/auth/callback"
)

func newProvider(t *testing.T, now *time.Time) (*openid.Provider, signer) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := signer{key}
	return openid.New(openid.Options{
		Issuer: "http://here", Signer: s, People: people{}, Now: func() time.Time { return *now },
		Clients: []openid.Client{{ID: "argocd", Name: "Argo CD", Redirects: []string{"http://here/argocd/auth/callback", "http://localhost/auth/callback"}}},
	}), s
}

func wish(change func(url.Values)) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"client_id": {"argocd"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid profile groups"}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	if change != nil {
		change(q)
	}
	return q
}

func TestCheck(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	p, _ := newProvider(t, &now)
	for name, c := range map[string]struct {
		change func(url.Values)
		ok     bool
	}{
		"good":               {nil, true},
		"registered address": {func(q url.Values) { q.Set("redirect_uri", "http://here/argocd/auth/callback") }, true},
		"unknown client":     {func(q url.Values) { q.Set("client_id", "x") }, false},
		"another host":       {func(q url.Values) { q.Set("redirect_uri", "http://evil:8085/auth/callback") }, false},
		"another path":       {func(q url.Values) { q.Set("redirect_uri", "http://localhost:8085/evil") }, false},
		"a host that looks":  {func(q url.Values) { q.Set("redirect_uri", "http://localhost@evil/auth/callback") }, false},
		"no PKCE":            {func(q url.Values) { q.Del("code_challenge") }, false},
		"plain PKCE":         {func(q url.Values) { q.Set("code_challenge_method", "plain") }, false},
		"no openid":          {func(q url.Values) { q.Set("scope", "profile") }, false},
		"implicit":           {func(q url.Values) { q.Set("response_type", "id_token") }, false},
	} {
		if _, err := p.Check(wish(c.change)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// code lets person in and returns the code that the browser carries back.
func code(t *testing.T, p *openid.Provider, person int64) string {
	t.Helper()
	r, err := p.Check(wish(nil))
	if err != nil {
		t.Fatal(err)
	}
	to, err := p.Grant(r, person)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, callback+"?") || u.Query().Get("state") != "s" {
		t.Fatalf("sent to %s: %v", to, err)
	}
	return u.Query().Get("code")
}

func exchange(t *testing.T, p *openid.Provider, code, verifier string) (int, map[string]any) {
	t.Helper()
	mux := http.NewServeMux()
	p.Register(mux)
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}
	r := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("argocd", "")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return w.Code, doc
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p, _ := newProvider(t, &now)
	c := code(t, p, 7)
	status, doc := exchange(t, p, c, verifier)
	if status != 200 {
		t.Fatalf("%d %v", status, doc)
	}
	id, access := doc["id_token"].(string), doc["access_token"].(string)
	if user, _, err := p.Verify(t.Context(), id, "argocd"); err != nil || user != 7 {
		t.Errorf("%d %v", user, err)
	}
	if _, _, err := p.Verify(t.Context(), access, "argocd"); delivery.KindOf(err) != delivery.Unauthenticated {
		t.Errorf("the access token is for userinfo only: %v", err)
	}
	mux := http.NewServeMux()
	p.Register(mux)
	for token, want := range map[string]string{access: `"@acme:developer"`, id: "invalid_token", "x": "invalid_token"} {
		r := httptest.NewRequest("GET", "/oauth/userinfo", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("userinfo: %s, want %s", w.Body, want)
		}
	}
	now = now.Add(13 * time.Hour)
	if _, _, err := p.Verify(t.Context(), id, "argocd"); delivery.KindOf(err) != delivery.Unauthenticated {
		t.Errorf("expired: %v", err)
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p, s := newProvider(t, &now)
	again := code(t, p, 7)
	exchange(t, p, again, verifier)
	old := code(t, p, 7)
	now = now.Add(2 * time.Minute)
	blocked := code(t, p, 8)
	for name, c := range map[string][2]string{
		"used before": {again, verifier}, "too old": {old, verifier}, "blocked account": {blocked, verifier},
		"wrong verifier": {code(t, p, 7), "another"}, "made up": {"x", verifier},
	} {
		if status, doc := exchange(t, p, c[0], c[1]); status != 400 || doc["error"] != "invalid_grant" {
			t.Errorf("%s: %d %v", name, status, doc)
		}
	}
	// A job's ID token has the same issuer and perhaps the same audience.
	job, err := s.SignToken(t.Context(), jwt.MapClaims{"iss": "http://here", "aud": "argocd", "sub": "project_path:acme/web:ref_type:branch:ref:main", "exp": now.Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Verify(t.Context(), job, "argocd"); delivery.KindOf(err) != delivery.Unauthenticated {
		t.Errorf("a job signed in as a person: %v", err)
	}
}
