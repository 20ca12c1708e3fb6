package gitops

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

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

func (p *gatePeople) Login(_ *http.Request, username, password string) (string, bool, error) {
	switch {
	case username != "alice":
		return "", false, nil
	case password != "right":
		return "", true, delivery.Errorf(delivery.Unauthenticated, "Wrong.")
	}
	return "signed-alice", true, nil
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

// A sign-in by password is answered in the caller's protocol; accounts that the
// platform does not know are Argo CD's.
func TestGateLogin(t *testing.T) {
	t.Parallel()
	g := &Gate{People: &gatePeople{}, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Passed", string(body))
	})}
	message := func(username, password string) string {
		b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), username)
		return string(frame(0, protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), password)))
	}
	token := string(frame(0, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "signed-alice")))
	const call, web = "application/grpc", "application/grpc-web+proto"
	for _, c := range []struct {
		name, path, kind, body   string
		status                   int
		answer, passed, wantCode string
	}{
		{"gRPC", loginCall, call, message("alice", "right"), 200, token, "", ""},
		{"gRPC-Web", "/argocd" + loginCall, web, message("alice", "right"), 200, token + string(frame(0x80, []byte("grpc-status: 0\r\n"))), "", ""},
		{"JSON", "/argocd" + loginPath, "application/json", `{"username":"alice","password":"right"}`, 200, `{"token":"signed-alice"}` + "\n", "", ""},
		{"wrong password", loginCall, call, message("alice", "wrong"), 200, "", "", "16"},
		{"wrong password as JSON", "/argocd" + loginPath, "application/json", `{"username":"alice","password":"wrong"}`, 401, `{"code":16,"error":"Wrong.","message":"Wrong."}` + "\n", "", ""},
		{"an account of Argo CD's", loginCall, call, message("admin", "x"), 200, "", message("admin", "x"), ""},
		{"no message", loginCall, call, "junk", 200, "", "junk", ""},
		{"a field cut off", loginCall, call, string(frame(0, []byte{0x0a, 0x7f, 'a'})), 200, "", string(frame(0, []byte{0x0a, 0x7f, 'a'})), ""},
	} {
		r := httptest.NewRequest("POST", c.path, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.kind)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != c.status || w.Body.String() != c.answer || w.Header().Get("Passed") != c.passed || w.Header().Get("Grpc-Status") != c.wantCode {
			t.Errorf("%s: %d %q %v", c.name, w.Code, w.Body, w.Header())
		}
	}
}

// The program asks at the root, over gRPC-Web too.
func TestWebCalls(t *testing.T) {
	t.Parallel()
	note := func(who string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("At", who+r.URL.Path) })
	}
	for kind, want := range map[string]string{"application/grpc-web+proto": "web/argocd/a.B/List", "application/grpc": "calls/a.B/List"} {
		r := httptest.NewRequest("POST", "/a.B/List", nil)
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		WebCalls("/argocd", note("web"), note("calls")).ServeHTTP(w, r)
		if got := w.Header().Get("At"); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	for token, want := range map[string]int{jwtOf("argocd"): 200, jwtOf("http://here"): 501, "glpat-x": 501} {
		r := httptest.NewRequest("POST", "/auth/logout", nil)
		r.AddCookie(&http.Cookie{Name: "argocd.token", Value: token})
		w := httptest.NewRecorder()
		Logout("/argocd", note("web")).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("logout with %s: %d, want %d", token, w.Code, want)
		}
	}
}
