package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// token signs in at the token service and returns what it gave.
func (f *fixture) token(user string, scopes ...string) string {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.server.URL+"/jwt/auth?"+url.Values{"service": {"container_registry"}, "scope": scopes}.Encode(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, user)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != 200 {
		f.t.Fatalf("token for %s: %s, %v", user, resp.Status, err)
	}
	return out.Token
}

func (f *fixture) with(token, method, path string) (int, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.server.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "*/*, application/vnd.docker.distribution.manifest.v2+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestAttacker has an account and a public project of its own, and wants the
// image of a private one.
func TestAttacker(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	secret := f.people.add("corp/secret", delivery.Private)
	f.people.add("evil/mine", delivery.Public)
	img := image(t, 1)
	f.push("corp/secret:v1", img, as("dev"))
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer := digestOf(t, layers[0])

	// "rep" reads everything here, "nobody" nothing that is private.
	all := f.token("nobody", "repository:corp/secret:pull,push,delete,*", "repository:evil/mine:pull,push", "registry:catalog:*")
	for _, c := range []struct{ method, path string }{
		{"GET", "/v2/corp/secret/manifests/v1"},
		{"GET", "/v2/corp/secret/manifests/" + digestOf(t, img)},
		{"GET", "/v2/corp/secret/blobs/" + layer},
		{"HEAD", "/v2/corp/secret/blobs/" + layer},
		{"GET", "/v2/corp/secret/tags/list"},
		{"GET", "/v2/corp/secret/referrers/" + digestOf(t, img)},
		{"DELETE", "/v2/corp/secret/manifests/v1"},
		{"POST", "/v2/corp/secret/blobs/uploads/"},
		{"POST", "/v2/evil/mine/blobs/uploads/?mount=" + layer + "&from=corp/secret"},
		{"GET", "/v2/_catalog"},
		{"GET", "/v2/evil/mine/../../corp/secret/manifests/v1"},
		{"GET", "/v2/corp%2Fsecret/manifests/v1"},
		{"GET", "/v2/evil/mine%2F..%2F..%2Fcorp%2Fsecret/manifests/v1"},
	} {
		if status, body := f.with(all, c.method, c.path); status < 400 {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	// The layer is stored, but it is no part of the attacker's repository.
	own := f.token("dev", "repository:evil/mine:pull,push")
	if status, _ := f.with(own, "GET", "/v2/evil/mine/blobs/"+layer); status != 404 {
		t.Errorf("another repository's layer: %d", status)
	}
	if status, _ := f.with(own, "GET", "/v2/corp/secret/blobs/"+layer); status != 401 {
		t.Errorf("a token for another repository: %d", status)
	}
	// Mounting with rights on both is the way to share it.
	both := f.token("dev", "repository:evil/mine:pull,push repository:corp/secret:pull")
	if status, body := f.with(both, "POST", "/v2/evil/mine/blobs/uploads/?mount="+layer+"&from=corp/secret"); status != 201 {
		t.Errorf("mount with rights: %d %s", status, body)
	}

	good := f.token("dev", fmt.Sprintf("repository:%s:pull", secret.FullPath))
	if status, _ := f.with(good, "GET", "/v2/corp/secret/tags/list"); status != 200 {
		t.Errorf("a good token: %d", status)
	}
	for name, bad := range map[string]string{
		"changed":  good[:len(good)-4] + "AAAA",
		"unsigned": "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".",
		"no token": "x",
	} {
		if status, _ := f.with(bad, "GET", "/v2/corp/secret/tags/list"); status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
	f.clock.advance(16 * time.Minute)
	if status, _ := f.with(good, "GET", "/v2/corp/secret/tags/list"); status != 401 {
		t.Errorf("an old token: %d", status)
	}
}

// TestTokenService refuses what is not a sign-in.
func TestTokenService(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	for query, want := range map[string]int{
		"service=other":                                       400,
		"scope=repository":                                    400,
		"scope=repository:a:pull&service=":                    200,
		"scope=" + strings.Repeat("x:y:z+", 65):               200, // kinds that are not known give nothing
		"scope=" + strings.Repeat("repository:a/b:pull+", 65): 400,
	} {
		resp, err := http.Get(f.server.URL + "/jwt/auth?" + query)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%.40s: %d, want %d", query, resp.StatusCode, want)
		}
	}
	resp, err := http.PostForm(f.server.URL+"/jwt/auth", url.Values{"grant_type": {"password"}, "username": {"dev"}, "password": {"dev"}, "service": {"container_registry"}, "scope": {"repository:a/b:pull"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.AccessToken == "" {
		t.Errorf("OAuth2 sign-in: %s, %v", resp.Status, err)
	}
}
