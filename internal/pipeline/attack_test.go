package pipeline_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// TestAJobsTokenIsForThatJob: with its own token a job, whose owner speaks the
// runner protocol by hand, reaches nothing of another project's job beside it.
func TestAJobsTokenIsForThatJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create("victim: {script: x, artifacts: {paths: [a]}}")
	victim := w.take()
	w.forge.AddProject(8, "group/evil")
	w.forge.AddUser(delivery.User{ID: 66, Username: "mallory"}, 8, delivery.Owner)
	w.forge.Commit(8, "main", "change", map[string]string{".gitlab-ci.yml": "evil: {script: x}"})
	if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 8, UserID: 66, Ref: "main", Source: pipeline.SourceWeb}); err != nil {
		t.Fatal(err)
	}
	evil := w.take()
	if code, err := w.runner.Upload(w.ctx, victim, "archive", "zip", "artifacts.zip", []byte("any bytes")); err != nil || code != 201 {
		t.Fatal(code, err)
	}
	id := w.server.URL + "/api/v4/jobs/" + strconv.FormatInt(victim.ID, 10)
	for _, c := range []struct{ method, path, body string }{
		{"PATCH", "/trace", "x"},
		{"PUT", "", `{"state":"failed","token":"` + evil.Token + `"}`},
		{"PUT", "", `{"state":"pending","token":"` + evil.Token + `"}`},
		{"POST", "/artifacts/authorize", ""},
		{"GET", "/artifacts", ""},
		{"GET", "/artifacts?token=" + evil.Token, ""},
		{"GET", "/artifacts?job_token=" + evil.Token, ""},
	} {
		req, err := http.NewRequestWithContext(w.ctx, c.method, id+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("JOB-TOKEN", evil.Token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Range", "0-0")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %s", c.method, c.path, resp.Status)
		}
	}
	forged := *victim
	forged.Token = evil.Token
	if code, err := w.runner.Upload(w.ctx, &forged, "archive", "zip", "artifacts.zip", []byte("false")); err != nil || code != http.StatusForbidden {
		t.Errorf("an artifact in another's name: %d %v", code, err)
	}
	if _, err := w.engine.AppendTrace(w.ctx, victim.ID, evil.Token, 0, []byte("x")); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("another's trace: %v", err)
	}
	if code, _, err := w.runner.Trace(w.ctx, victim, 0, []byte("its own words\n")); err != nil || code != 202 {
		t.Errorf("the victim's own trace: %d %v", code, err)
	}
}

// A job reads another project's artifacts only where that project lets its
// jobs in, whatever its user may do there.
func TestArtifactsOfAnotherProject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create("victim: {script: x, artifacts: {paths: [a]}}")
	victim := w.take()
	if code, err := w.runner.Upload(w.ctx, victim, "archive", "zip", "artifacts.zip", []byte("any bytes")); err != nil || code != 201 {
		t.Fatal(code, err)
	}
	w.end(victim, "success")

	w.forge.AddProject(8, "group/other")
	w.forge.Commit(8, "main", "change", map[string]string{".gitlab-ci.yml": "reader: {script: x}"})
	if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 8, UserID: 1, Ref: "main", Source: pipeline.SourceWeb}); err != nil {
		t.Fatal(err)
	}
	reader := w.take()
	if _, err := w.engine.DownloadArtifact(w.ctx, victim.ID, reader.Token); delivery.KindOf(err) != delivery.NotFound && delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("a project that is not on the allowlist: %v", err)
	}
	w.forge.Allow(7, 8)
	f, err := w.engine.DownloadArtifact(w.ctx, victim.ID, reader.Token)
	if err != nil {
		t.Fatal(err)
	}
	f.Body.Close()
}
