package pipeline_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"crypto/rsa"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

type releases struct{ made []pipeline.ReleaseRequest }

func (r *releases) CreateRelease(_ context.Context, _, _ int64, req pipeline.ReleaseRequest) error {
	r.made = append(r.made, req)
	return nil
}

func TestJobTokensIDTokensAndSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.engine.PutSecret(w.ctx, pipeline.OwnerGroup, 100, "production/db", "password", "correct-horse"); err != nil {
		t.Fatal(err)
	}
	p := w.create(`
build:
  script: x
  id_tokens: {TOKEN: {aud: "https://vault.example.com"}}
  secrets: {DB: {vault: production/db/password@kv, file: false}}
missing:
  stage: deploy
  script: x
  secrets: {DB: {vault: production/other/password@kv}}
`)
	spec := w.take()
	if v, _ := variable(spec, "DB"); v.Value != "correct-horse" || !v.Masked || v.File {
		t.Errorf("secret %+v", v)
	}
	claim, err := w.engine.JobByToken(w.ctx, spec.Token)
	if err != nil || claim.JobID != spec.ID || claim.ProjectID != 7 || claim.UserID != 1 {
		t.Errorf("claim %+v %v", claim, err)
	}
	token, _ := variable(spec, "TOKEN")
	resp, err := http.Get(w.server.URL + "/oauth/discovery/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []struct{ N, E, Kid string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	_, err = jwt.ParseWithClaims(token.Value, claims, func(tok *jwt.Token) (any, error) {
		n, err := base64.RawURLEncoding.DecodeString(set.Keys[0].N)
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, err
	}, jwt.WithAudience("https://vault.example.com"), jwt.WithTimeFunc(w.clock.Now), jwt.WithValidMethods([]string{"RS256"}))
	if err != nil || claims["sub"] != "project_path:group/app:ref_type:branch:ref:main" || claims["iss"] != "http://slipway.test:8080" {
		t.Errorf("ID token %v %v", claims, err)
	}
	w.end(spec, "success")
	if _, err := w.engine.JobByToken(w.ctx, spec.Token); !delivery.IsNotFound(err) {
		t.Errorf("the token of an ended job: %v", err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	go w.runner.Request(ctx) // takes the job whose secret is missing
	w.eventually("the job without its secret fails", func() bool { return w.jobs(p.ID)["missing"].Status == "failed" })
	cancel()
	j := w.jobs(p.ID)["missing"]
	l, err := w.engine.OpenLog(w.ctx, &j)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text, _ := io.ReadAll(io.NewSectionReader(l, 0, l.Size))
	if !strings.Contains(string(text), "production/other") {
		t.Errorf("log %q", text)
	}
}

func TestReleasesAndPages(t *testing.T) {
	t.Parallel()
	made := &releases{}
	w := newWorld(t, func(c *pipeline.Config) { c.Releases = made })
	w.create(`
release:
  stage: build
  script: x
  artifacts: {reports: {dotenv: v.env}}
  release: {tag_name: "v$VERSION", description: "Version $VERSION", assets: {links: [{name: a, url: "https://example.com/$VERSION"}]}}
pages:
  stage: deploy
  script: x
  pages: true
  artifacts: {paths: [public]}
`)
	spec := w.take()
	if code, err := w.runner.Upload(w.ctx, spec, "dotenv", "gzip", "v", zipped("VERSION=1.2")); code != 201 || err != nil {
		t.Fatal(code, err)
	}
	w.end(spec, "success")
	if len(made.made) != 1 || made.made[0].Tag != "v1.2" || made.made[0].Links[0].URL != "https://example.com/1.2" || made.made[0].Ref == "" {
		t.Errorf("releases %+v", made.made)
	}
	spec = w.take()
	body := archive(t, map[string]string{"public/index.html": "<h1>site</h1>", "public/404.html": "lost", "secret.txt": "no"})
	if code, err := w.runner.Upload(w.ctx, spec, "archive", "zip", "artifacts.zip", body); code != 201 || err != nil {
		t.Fatal(code, err)
	}
	w.end(spec, "success")
	if err := w.engine.DeleteArtifacts(w.ctx, 999); err != nil {
		t.Fatal(err)
	}
	h := w.engine.ServePages(func(r *http.Request, path string) (delivery.Project, error) {
		return w.forge.ProjectByPath(r.Context(), path)
	})
	for _, c := range []struct {
		path string
		code int
		text string
	}{{"/pages/group/app/", 200, "<h1>site</h1>"}, {"/pages/group/app", 302, ""}, {"/pages/group/app/none", 404, "lost"}, {"/pages/group/app/../secret.txt", 404, ""}, {"/pages/group/other/", 404, ""}} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", c.path, nil))
		if rec.Code != c.code || !strings.Contains(rec.Body.String(), c.text) || strings.Contains(rec.Body.String(), "no\n") {
			t.Errorf("%s: %d %q", c.path, rec.Code, rec.Body)
		}
		if rec.Code == 200 && !strings.Contains(rec.Header().Get("Content-Security-Policy"), "sandbox") {
			t.Error("a site runs in the platform's origin")
		}
	}
}

func TestMergeRequestPipeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.forge.Commit(7, "main", "base", map[string]string{"a": "1"})
	base, _ := w.forge.Commit(7, "topic", "base", map[string]string{"a": "1"})
	sha, _ := w.forge.Commit(7, "topic", "change", map[string]string{"b": "2", ".gitlab-ci.yml": `
test: {script: x, rules: [{if: $CI_PIPELINE_SOURCE == "merge_request_event"}]}
branch: {script: x}
`})
	w.forge.Merges = append(w.forge.Merges, delivery.MergeRequest{ID: 31, IID: 3, ProjectID: 7, SourceProjectID: 7, SourceBranch: "topic", TargetBranch: "main",
		Title: "A change", State: "opened", HeadSHA: sha, BaseSHA: base})
	if err := w.emit(delivery.EventMergeRequest, delivery.MergeRequestChanged{ID: 31, IID: 3, Action: "open", UserID: 1}); err != nil {
		t.Fatal(err)
	}
	spec := w.take()
	v, _ := variable(spec, "CI_MERGE_REQUEST_IID")
	if spec.JobInfo.Name != "test" || v.Value != "3" || spec.GitInfo.SHA != sha || spec.GitInfo.Ref != "refs/merge-requests/3/head" || len(spec.GitInfo.Refspecs) != 1 {
		t.Errorf("job %s, iid %q, git %+v", spec.JobInfo.Name, v.Value, spec.GitInfo)
	}
	w.end(spec, "success")
	id, status, err := w.engine.HeadPipeline(w.ctx, 7, sha)
	if err != nil || id != spec.JobInfo.PipelineID || status != "success" {
		t.Errorf("head pipeline %d %s %v", id, status, err)
	}
	if w.count() != 1 {
		t.Errorf("%d pipelines", w.count())
	}
}
