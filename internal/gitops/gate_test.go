package gitops

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// gatePeople knows alice by a token, by a token that only reads packages, and by
// a token of this issuer.
type gatePeople struct{ mints int }

func (p *gatePeople) Authenticate(r *http.Request) (delivery.Identity, error) {
	alice := delivery.Identity{Kind: delivery.PersonalToken, User: &delivery.User{ID: 1}, TokenID: 5}
	switch r.Header.Get("Authorization") {
	case "":
		if _, err := r.Cookie("slipway_session"); err == nil {
			return delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 1}}, nil
		}
		return delivery.Identity{}, nil
	case "Bearer glpat-alice":
		alice.Scopes = []string{"api"}
		return alice, nil
	case "Bearer glpat-narrow":
		alice.Scopes = []string{"read_registry"}
		return alice, nil
	case "Bearer gldt-deploy":
		return delivery.Identity{Kind: delivery.DeployToken, Scopes: []string{"api"}}, nil
	}
	return delivery.Identity{}, delivery.Errorf(delivery.Unauthenticated, "Who?")
}

func (p *gatePeople) Signed(_ context.Context, token string) (delivery.Identity, error) {
	return delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 2}}, nil
}

func (p *gatePeople) Mint(_ context.Context, who delivery.Identity) (string, error) {
	p.mints++
	return map[int64]string{1: "minted-alice", 2: "minted-bob"}[who.User.ID], nil
}

func jwtOf(issuer string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+issuer+`"}`)) + ".c2ln"
}

func TestGate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	people := &gatePeople{}
	g := &Gate{People: people, Issuer: "http://here", Now: func() time.Time { return now },
		Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Got", r.Header.Get("Token")+"|"+r.Header.Get("Authorization")+"|"+r.Header.Get("Cookie"))
		})}
	ask := func(header, value string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/argocd/api/v1/applications", nil)
		r.Header.Set(header, value)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		name, header, value string
		status              int
		got                 string
	}{
		{"personal token", "Authorization", "Bearer glpat-alice", 200, "|Bearer minted-alice|"},
		{"personal token of the argocd program", "Token", "glpat-alice", 200, "minted-alice|Bearer minted-alice|"},
		{"session", "Cookie", "slipway_session=x", 200, "|Bearer minted-alice|"},
		{"signed in by the program", "Token", jwtOf("http://here"), 200, "minted-bob|Bearer minted-bob|"},
		{"Argo CD's own token", "Token", jwtOf("argocd"), 200, jwtOf("argocd") + "||"},
		{"Argo CD's own session", "Cookie", "argocd.token=x", 200, "||argocd.token=x"},
		{"nobody", "Accept", "*/*", 200, "||"},
		{"wrong token", "Token", "glpat-wrong", 401, ""},
		{"narrow token", "Token", "glpat-narrow", 403, ""},
		{"deploy token", "Token", "gldt-deploy", 403, ""},
	} {
		if w := ask(c.header, c.value); w.Code != c.status || w.Header().Get("Got") != c.got {
			t.Errorf("%s: %d %q, want %d %q", c.name, w.Code, w.Header().Get("Got"), c.status, c.got)
		}
	}
	before := people.mints
	ask("Token", "glpat-alice")
	if people.mints != before {
		t.Error("rights were looked up again at once")
	}
	now = now.Add(gateMemory)
	ask("Token", "glpat-alice")
	if people.mints != before+1 {
		t.Error("old rights were used")
	}
}

func TestGateRefusesGRPC(t *testing.T) {
	t.Parallel()
	g := &Gate{People: &gatePeople{}}
	r := httptest.NewRequest("POST", "/argocd/application.ApplicationService/List", nil)
	r.Header.Set("Content-Type", "application/grpc-web+proto")
	r.Header.Set("Token", "glpat-wrong")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Grpc-Status") != "16" || w.Header().Get("Grpc-Message") != "Who?" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
