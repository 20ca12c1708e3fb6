package openid

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Register adds discovery, token and userinfo to the mux. /oauth/authorize is a
// page, and /oauth/discovery/keys is the signer's.
func (p *Provider) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /.well-known/openid-configuration", p.serveDiscovery)
	mux.HandleFunc("POST /oauth/token", p.serveToken)
	mux.HandleFunc("GET /oauth/userinfo", p.serveUserinfo)
	mux.HandleFunc("POST /oauth/userinfo", p.serveUserinfo)
}

func (p *Provider) userinfoURL() string { return p.Issuer + "/oauth/userinfo" }

// serveDiscovery answers as OpenID Connect Discovery 1.0 says. The document also
// serves those who verify ID tokens of jobs.
func (p *Provider) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer":                                p.Issuer,
		"authorization_endpoint":                p.Issuer + "/oauth/authorize",
		"token_endpoint":                        p.Issuer + "/oauth/token",
		"userinfo_endpoint":                     p.userinfoURL(),
		"jwks_uri":                              p.Issuer + "/oauth/discovery/keys",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{"authorization_code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{"none"},
		"code_challenge_methods_supported":      []string{"S256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "groups"},
		"claims_supported":                      []string{"iss", "sub", "aud", "exp", "iat", "name", "nickname", "preferred_username", "email", "email_verified", "groups"},
	})
}

// serveToken exchanges a code (RFC 6749 section 4.1.3).
func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request) {
	refuse := func(code, text string) {
		answer(w, http.StatusBadRequest, map[string]string{"error": code, "error_description": text})
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse("invalid_request", "The form cannot be read.")
		return
	}
	if r.PostForm.Get("grant_type") != "authorization_code" {
		refuse("unsupported_grant_type", "Only authorization_code is offered.")
		return
	}
	client := r.PostForm.Get("client_id")
	// Libraries try Basic authentication first, also without a secret.
	if id, secret, ok := r.BasicAuth(); ok && client == "" && secret == "" {
		client = id
	}
	g, ok := p.exchange(r.PostForm.Get("code"), client, r.PostForm.Get("redirect_uri"), r.PostForm.Get("code_verifier"))
	if !ok {
		refuse("invalid_grant", "The code is wrong, too old or was used before.")
		return
	}
	who, err := p.People.Person(r.Context(), g.user)
	if delivery.IsNotFound(err) {
		refuse("invalid_grant", "The account is blocked.")
		return
	}
	if err != nil {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"})
		return
	}
	id := p.claims(client, who.ID, tokenLifetime)
	describe(id, who, g.request.Scopes)
	if g.request.Nonce != "" {
		id["nonce"] = g.request.Nonce
	}
	access := p.claims(p.userinfoURL(), who.ID, tokenLifetime)
	access["scope"] = strings.Join(g.request.Scopes, " ")
	idToken, err := p.Signer.SignToken(r.Context(), id)
	if err == nil {
		var accessToken string
		if accessToken, err = p.Signer.SignToken(r.Context(), access); err == nil {
			answer(w, http.StatusOK, map[string]any{
				"access_token": accessToken, "token_type": "Bearer", "expires_in": int(tokenLifetime.Seconds()),
				"id_token": idToken, "scope": access["scope"],
			})
			return
		}
	}
	answer(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
}

// serveUserinfo answers as OpenID Connect Core 1.0 section 5.3 says.
func (p *Provider) serveUserinfo(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user, scopes, err := p.Verify(r.Context(), token, p.userinfoURL())
	var who Person
	if err == nil {
		who, err = p.People.Person(r.Context(), user)
	}
	if !ok || err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	c := p.claims("", user, 0)
	doc := map[string]any{"sub": c["sub"]}
	describe(doc, who, scopes)
	answer(w, http.StatusOK, doc)
}

func answer(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error here means that the client has gone.
	_ = json.NewEncoder(w).Encode(doc)
}
