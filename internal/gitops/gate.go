package gitops

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// gateMemory is how long a person's rights are remembered: a change of roles or
// a blocked account is felt after it at the latest.
const gateMemory = 10 * time.Second

// People is what the Gate needs of the platform's accounts.
type People interface {
	// Authenticate tells who sent a request, by session or token of the platform.
	Authenticate(r *http.Request) (delivery.Identity, error)
	// Signed tells who signed in to Argo CD with the token, which this platform
	// issued. An account that is blocked is Unauthenticated.
	Signed(ctx context.Context, token string) (delivery.Identity, error)
	// Mint makes a token of Argo CD's with the person's present rights.
	Mint(ctx context.Context, who delivery.Identity) (string, error)
	// Login checks a name and a password and returns the token to come with
	// from then on. known is false where the platform has no such account.
	Login(r *http.Request, username, password string) (token string, known bool, err error)
}

// Gate stands before Argo CD's API and lets the platform's people in: by their
// session, a personal or project access token, the token of `argocd login
// --sso`, or a name and password. Each becomes a short-lived token with the rights of this moment. Argo
// CD's own tokens pass as they are. Safe for concurrent use.
type Gate struct {
	People People
	Issuer string // of the tokens that the platform signs
	Next   http.Handler
	Now    func() time.Time // nil: time.Now

	mu     sync.Mutex
	minted map[string]minted
}

type minted struct {
	token string
	at    time.Time
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isLogin(r) {
		g.login(w, r)
		return
	}
	who, ours, err := g.caller(r)
	var token string
	if err == nil && ours {
		token, err = g.token(r.Context(), who)
	}
	if err != nil {
		refuseCall(w, r, err)
		return
	}
	if ours {
		r = r.Clone(r.Context())
		r.Header.Del("Cookie")
		r.Header.Set("Authorization", "Bearer "+token)
		if r.Header.Get("Token") != "" {
			r.Header.Set("Token", token)
		}
	}
	g.Next.ServeHTTP(w, r)
}

// caller finds out who asks; ours is false where Argo CD should decide.
func (g *Gate) caller(r *http.Request) (who delivery.Identity, ours bool, err error) {
	token := r.Header.Get("Token") // gRPC metadata of the argocd program
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token == "" {
		token = strings.TrimSpace(bearer)
	}
	if token == "" {
		if _, err := r.Cookie("argocd.token"); err == nil {
			return who, false, nil
		}
		who, err = g.People.Authenticate(r)
		if err == nil && who.Signed() {
			return who, true, fit(who)
		}
		return who, false, err
	}
	if strings.Count(token, ".") == 2 {
		if issuer(token) != g.Issuer {
			return who, false, nil
		}
		who, err = g.People.Signed(r.Context(), token)
		return who, true, err
	}
	ask := r.Clone(r.Context())
	ask.Header = http.Header{"Authorization": {"Bearer " + token}}
	if who, err = g.People.Authenticate(ask); err != nil {
		return who, true, err
	}
	return who, true, fit(who)
}

// fit refuses credentials that are made for something else.
func fit(who delivery.Identity) error {
	switch {
	case who.User == nil || who.Kind == delivery.JobToken || who.Kind == delivery.DeployToken:
		return delivery.Errorf(delivery.Forbidden, "Only personal and project access tokens are accepted here.")
	case who.Scopes != nil && !who.HasScope("api", "read_api"):
		return delivery.Errorf(delivery.Forbidden, "The token needs the scope api, or read_api to look only.")
	}
	return nil
}

// issuer reads a token's issuer without trusting it.
func issuer(token string) string {
	parts := strings.Split(token, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(body, &c) != nil {
		return ""
	}
	return c.Issuer
}

// token returns the caller's token, made anew when what is remembered is old.
func (g *Gate) token(ctx context.Context, who delivery.Identity) (string, error) {
	now := time.Now
	if g.Now != nil {
		now = g.Now
	}
	key := fmt.Sprint(who.User.ID, who.Kind, who.TokenID)
	g.mu.Lock()
	m, ok := g.minted[key]
	g.mu.Unlock()
	if ok && now().Sub(m.at) < gateMemory {
		return m.token, nil
	}
	token, err := g.People.Mint(ctx, who)
	if err != nil {
		return "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.minted == nil {
		g.minted = map[string]minted{}
	}
	for k, m := range g.minted {
		if now().Sub(m.at) >= gateMemory {
			delete(g.minted, k)
		}
	}
	g.minted[key] = minted{token, now()}
	return token, nil
}

// refuseCall answers in the words of the caller's protocol: gRPC reads headers
// (grpc/doc/PROTOCOL-WEB.md), everything else JSON.
func refuseCall(w http.ResponseWriter, r *http.Request, err error) {
	status, code := http.StatusServiceUnavailable, 14 // UNAVAILABLE
	switch delivery.KindOf(err) {
	case delivery.Unauthenticated:
		status, code = http.StatusUnauthorized, 16
	case delivery.Forbidden:
		status, code = http.StatusForbidden, 7
	case delivery.Invalid:
		status, code = http.StatusBadRequest, 3
	case delivery.TooMany:
		status, code = http.StatusTooManyRequests, 8 // RESOURCE_EXHAUSTED
	}
	text := delivery.UserMessage(err)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("Grpc-Status", fmt.Sprint(code))
		w.Header().Set("Grpc-Message", text)
		w.WriteHeader(http.StatusOK)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error here means that the caller has gone.
	_ = json.NewEncoder(w).Encode(map[string]any{"error": text, "message": text, "code": code})
}
