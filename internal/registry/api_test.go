package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

type basic struct{ *people }

func (b basic) Authenticate(r *http.Request) (delivery.Identity, error) {
	if user, secret, ok := r.BasicAuth(); ok {
		return b.SignIn(r.Context(), user, secret)
	}
	return delivery.Identity{}, nil
}

func (f *fixture) call(router http.Handler, user, method, path, body string) (int, string) {
	f.t.Helper()
	req := httptest.NewRequestWithContext(f.t.Context(), method, "/api/v4"+path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		req.SetBasicAuth(user, user)
	}
	rec := httptest.NewRecorder()
	router.ServeHTTP(rec, req)
	out, err := io.ReadAll(rec.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return rec.Code, string(out)
}

func TestREST(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.people.add("g/app", delivery.Private)
	other := f.people.add("g/other", delivery.Private)
	img := image(t, 2)
	for _, tag := range []string{"a1", "a2", "v1"} {
		f.push("g/app/worker:"+tag, img, as("dev"))
	}
	rt := api.NewRouter(basic{f.people}, f.people, slog.New(slog.DiscardHandler))
	f.Routes(rt, "registry.example:8080")

	status, body := f.call(rt, "rep", "GET", "/projects/g%2Fapp/registry/repositories?tags=true", "")
	var repos []struct {
		ID             int64
		Name, Location string
		TagsCount      int `json:"tags_count"`
		Tags           []struct{ Name, Digest string }
	}
	if err := json.Unmarshal([]byte(body), &repos); err != nil || status != 200 || len(repos) != 1 {
		t.Fatal(status, body, err)
	}
	if r := repos[0]; r.Name != "worker" || r.Location != "registry.example:8080/g/app/worker" || r.TagsCount != 3 || len(r.Tags) != 3 || r.Tags[0].Digest != digestOf(t, img) {
		t.Errorf("%s", body)
	}
	repo := fmt.Sprintf("/projects/g%%2Fapp/registry/repositories/%d", repos[0].ID)
	for _, c := range []struct {
		user, method, path, body string
		status                   int
		contains                 string
	}{
		{"", "GET", "/projects/g%2Fapp/registry/repositories", "", 404, ""},
		{"nobody", "GET", "/projects/g%2Fapp/registry/repositories", "", 404, ""},
		{"rep", "GET", repo + "/tags", "", 200, `"path":"g/app/worker:v1"`},
		{"rep", "GET", repo + "/tags/v1", "", 200, `"short_revision":"`},
		{"rep", "GET", repo + "/tags/none", "", 404, ""},
		{"rep", "GET", repo + "/images/v1", "", 200, `"layers":[{"digest":"sha256:`},
		{"rep", "GET", strings.Replace(repo, "g%2Fapp", fmt.Sprint(other.ID), 1) + "/tags", "", 404, ""},
		{"rep", "DELETE", repo + "/tags/v1", "", 403, ""},
		{"dev", "DELETE", repo + "/tags", `{"name_regex_delete":"a.*","keep_n":1}`, 202, ""},
		{"dev", "DELETE", repo + "/tags", `{"name_regex_delete":"("}`, 400, "regular expression"},
		{"dev", "DELETE", repo + "/tags", `{}`, 400, "name_regex_delete"},
		{"dev", "DELETE", repo + "/tags/v1", "", 200, ""},
		{"dev", "GET", repo + "/tags/v1", "", 404, ""},
		{"dev", "PUT", "/projects/g%2Fapp/registry/cleanup_policy", `{}`, 403, ""},
		{"admin", "PUT", "/projects/g%2Fapp/registry/cleanup_policy", `{"enabled":true,"cadence":"7d","keep_n":5,"older_than":"14d","name_regex":".*"}`, 200, `"older_than":"14d"`},
		{"admin", "PUT", "/projects/g%2Fapp/registry/cleanup_policy", `{"enabled":true,"name_regex":"("}`, 400, "regular expression"},
		{"admin", "PUT", "/projects/g%2Fapp/registry/cleanup_policy", `{"enabled":false}`, 200, `"older_than":"14d"`},
		{"dev", "GET", "/projects/g%2Fapp/registry/cleanup_policy", "", 200, `"keep_n":5`},
		{"rep", "POST", "/projects/g%2Fapp/registry/cleanup_policy/preview", "", 403, ""},
		{"dev", "POST", "/projects/g%2Fapp/registry/cleanup_policy/preview", "", 200, "[]"},
		{"dev", "POST", "/projects/g%2Fapp/registry/cleanup_policy/preview", `{"keep_n":0,"older_than":""}`, 200, `"tag":"a`},
		{"rep", "GET", fmt.Sprintf("/registry/repositories/%d?tags=true&tags_count=true", repos[0].ID), "", 200, `"tags":[{"name":"a`},
		{"nobody", "GET", fmt.Sprintf("/registry/repositories/%d", repos[0].ID), "", 404, ""},
		{"rep", "GET", "/registry/repositories/x", "", 400, ""},
		{"dev", "POST", "/registry/collect", "", 403, ""},
		{"admin", "POST", "/registry/collect", "", 200, `"images":0`},
		{"admin", "GET", "/registry/cache", "", 200, "[]"},
		{"dev", "DELETE", repo, "", 202, ""},
		{"dev", "GET", repo + "/tags", "", 404, ""},
	} {
		status, body := f.call(rt, c.user, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s %s %s: %d %s", c.user, c.method, c.path, status, body)
		}
	}
}

// TestProjectFields: the policy as GitLab's project API has it.
func TestProjectFields(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	project := f.people.add("g/app", delivery.Private)
	change := func(body string) error {
		return f.ChangeProjectFields(t.Context(), project.ID, func(v any) error { return json.Unmarshal([]byte(body), v) })
	}
	if err := change(`{"container_expiration_policy_attributes":{"enabled":true,"cadence":"1month","keep_n":5,"older_than":"14d","name_regex":".*","name_regex_keep":"v.+"}}`); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"description":"x"}`: "",
		`{"container_expiration_policy_attributes":{"cadence":"often"}}`:  "cadence is invalid",
		`{"container_expiration_policy_attributes":{"keep_n":"many"}}`:    "container_expiration_policy_attributes is invalid",
		`{"container_expiration_policy_attributes":{"name_regex":"("}}`:   "not valid",
		`{"container_expiration_policy_attributes":{"older_than":"30d"}}`: "",
	} {
		if err := change(body); err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", body, err)
		}
	}
	fields, err := f.ProjectFields(t.Context(), project.ID)
	raw, _ := json.Marshal(fields)
	if err != nil || !strings.Contains(string(raw), `"enabled":true,"cadence":"1month","keep_n":5,"older_than":"30d","name_regex":".*","name_regex_keep":"v.+"`) {
		t.Errorf("%s, %v", raw, err)
	}
}

// TestSkopeo uses a client of another family than the other tests'.
func TestSkopeo(t *testing.T) {
	t.Parallel()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	f := start(t, nil)
	f.people.add("g/app", delivery.Private)
	dir := t.TempDir()
	p, err := layout.Write(dir+"/in", empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(image(t, 3)); err != nil {
		t.Fatal(err)
	}
	auth := dir + "/auth.json"
	for _, args := range [][]string{
		{"login", "--tls-verify=false", "--authfile", auth, "-u", "dev", "-p", "dev", f.host},
		{"copy", "--authfile", auth, "--dest-tls-verify=false", "oci:" + dir + "/in", "docker://" + f.host + "/g/app:v1"},
		{"copy", "--authfile", auth, "--src-tls-verify=false", "--dest-tls-verify=false", "docker://" + f.host + "/g/app:v1", "docker://" + f.host + "/g/app/copy:v1"},
		{"copy", "--authfile", auth, "--src-tls-verify=false", "docker://" + f.host + "/g/app/copy:v1", "oci:" + dir + "/out:v1"},
		{"delete", "--authfile", auth, "--tls-verify=false", "docker://" + f.host + "/g/app:v1"},
	} {
		cmd := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skopeo %s: %v\n%s", args[0], err, out)
		}
	}
	if _, err := f.Image(t.Context(), "g/app", "v1"); !delivery.IsNotFound(err) {
		t.Errorf("after delete: %v", err)
	}
}
