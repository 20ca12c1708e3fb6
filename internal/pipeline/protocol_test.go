package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
)

// TestRunnerRegistration walks through a runner's life by the protocol:
// verification of a token from the pages, a new token, its processes, its end.
func TestRunnerRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	made, token, err := w.engine.CreateRunner(w.ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	r := &pipelinetest.Runner{URL: w.server.URL, Token: token, System: "s_2"}
	if code, got, err := r.Verify(w.ctx); code != 200 || got.ID != made.ID || got.Token != token || err != nil {
		t.Errorf("verify: %d %+v %v", code, got, err)
	}
	wrong := &pipelinetest.Runner{URL: w.server.URL, Token: "glrt-wrong", System: "s_2"}
	if code, _, err := wrong.Verify(w.ctx); code != 403 || err != nil {
		t.Errorf("verify of a wrong token: %d %v", code, err)
	}
	if _, err := wrong.Request(w.ctx); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("request with a wrong token: %v", err)
	}
	managers := func() (n int) {
		t.Helper()
		if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
			list, err := tx.Managers(made.ID)
			n = len(list)
			if n > 0 && (list[0].Info.Version != "19.4.0" || list[0].SystemID != "s_2") {
				t.Errorf("manager %+v", list[0])
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := managers(); n != 1 {
		t.Errorf("%d processes", n)
	}
	if code, err := r.UnregisterManager(w.ctx); code != 204 || err != nil || managers() != 0 {
		t.Errorf("end of a process: %d %v", code, err)
	}
	code, fresh, err := r.ResetToken(w.ctx)
	if code != 201 || !strings.HasPrefix(fresh.Token, "glrt-") || err != nil {
		t.Fatalf("reset: %d %+v %v", code, fresh, err)
	}
	if code, _, _ := r.Verify(w.ctx); code != 403 {
		t.Errorf("the old token is still good: %d", code)
	}
	r.Token = fresh.Token
	if code, err := r.Unregister(w.ctx); code != 204 || err != nil {
		t.Errorf("unregister: %d %v", code, err)
	}
	if code, _, _ := r.Verify(w.ctx); code != 403 {
		t.Errorf("the token of a deleted runner: %d", code)
	}
	if code, _, err := wrong.Register(w.ctx, map[string]any{"description": "x"}); code != 403 || err != nil {
		t.Errorf("registration without a registration token: %d %v", code, err)
	}
}

// TestLongPolling: a request waits for a job, and is answered 204 when none
// came in time.
func TestLongPolling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	type answer struct {
		spec *delivery.JobSpec
		err  error
	}
	ask := func() chan answer {
		c := make(chan answer, 1)
		go func() {
			spec, err := w.runner.Request(w.ctx)
			c <- answer{spec, err}
		}()
		return c
	}
	waiting := ask()
	w.create("job: {script: x}")
	got := <-waiting
	if got.spec == nil || got.err != nil {
		t.Fatalf("a waiting runner gets %+v", got)
	}
	if code, status, err := w.runner.Update(w.ctx, got.spec, "running", "", 0, nil); code != 200 || status != "running" || err != nil {
		t.Errorf("accept: %d %s %v", code, status, err)
	}
	w.end(got.spec, "success")
	waiting = ask()
	w.eventually("the empty answer", func() bool {
		w.clock.Advance(51 * time.Second)
		select {
		case got = <-waiting:
			return true
		default:
			return false
		}
	})
	if got.spec != nil || got.err != nil {
		t.Errorf("nothing to do: %+v", got)
	}
}

// TestTwoPhaseAccept: a job that was handed out and not accepted goes to
// somebody else, and the first runner is told to drop it.
func TestTwoPhaseAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create("job: {script: x}")
	lost, err := w.runner.Request(w.ctx)
	if err != nil || lost == nil {
		t.Fatal(lost, err)
	}
	w.wantJobs(p.ID, map[string]string{"job": "pending"})
	w.clock.Advance(2 * time.Minute)
	spec := w.take()
	if spec.ID != lost.ID || spec.Token == lost.Token {
		t.Errorf("offered again as %d with the token %v", spec.ID, spec.Token == lost.Token)
	}
	if code, _, _ := w.runner.Update(w.ctx, lost, "running", "", 0, nil); code != 403 {
		t.Errorf("accept of a job that is somebody else's: %d", code)
	}
	if code, _, _ := w.runner.Trace(w.ctx, lost, 0, []byte("x")); code != 403 {
		t.Errorf("trace of a job that is somebody else's: %d", code)
	}
	w.end(spec, "success")
}

// TestCanceledJobIsDropped: what a runner hears of a job that was canceled, at
// every call that it may make.
func TestCanceledJobIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create("job: {script: x}")
	spec := w.take()
	if code, at, err := w.runner.Trace(w.ctx, spec, 0, []byte("one\n")); code != 202 || at != "0-4" || err != nil {
		t.Errorf("trace: %d %s %v", code, at, err)
	}
	if code, at, err := w.runner.Trace(w.ctx, spec, 2, []byte("e\ntwo\n")); code != 202 || at != "0-8" || err != nil {
		t.Errorf("trace that overlaps: %d %s %v", code, at, err)
	}
	if _, err := w.engine.CancelPipeline(w.ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	if code, status, _ := w.runner.Update(w.ctx, spec, "running", "", 0, nil); status != "canceled" || code != 200 && code != 403 {
		t.Errorf("sign of life: %d %s", code, status)
	}
	if code, _, _ := w.runner.Trace(w.ctx, spec, 8, []byte("three\n")); code != 403 && code != 404 {
		t.Errorf("trace: %d", code)
	}
	if code, _ := w.runner.Upload(w.ctx, spec, "archive", "zip", "a.zip", archive(t, map[string]string{"a": "b"})); code != 403 {
		t.Errorf("upload: %d", code)
	}
	if code, status, _ := w.runner.Update(w.ctx, spec, "failed", "script_failure", 1, nil); status != "canceled" && code != 403 {
		t.Errorf("last report: %d %s", code, status)
	}
	w.wantJobs(p.ID, map[string]string{"job": "canceled"})
}

// TestUploadsThatAreRefused are final for the runner: it does not try again.
func TestUploadsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *pipeline.Config) { c.ArtifactLimit = 100 })
	w.create("job: {script: x, artifacts: {paths: [a]}}")
	spec := w.take()
	if code, err := w.runner.Upload(w.ctx, spec, "archive", "zip", "a.zip", bytes.Repeat([]byte("x"), 101)); code != 413 || err != nil {
		t.Errorf("too large: %d %v", code, err)
	}
	stranger := *spec
	stranger.Token = "glcbt-wrong"
	if code, err := w.runner.Upload(w.ctx, &stranger, "archive", "zip", "a.zip", []byte("x")); code != 403 || err != nil {
		t.Errorf("a stranger: %d %v", code, err)
	}
	stranger = *spec
	stranger.ID += 1000
	if code, err := w.runner.Upload(w.ctx, &stranger, "archive", "zip", "a.zip", []byte("x")); code != 403 && code != 404 || err != nil {
		t.Errorf("a job that is not there: %d %v", code, err)
	}
	w.end(spec, "success")
}

// TestTraceReplies look at the headers that steer the official runner.
func TestTraceReplies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create("job: {script: x}")
	spec := w.take()
	send := func(header map[string]string, body string) *http.Response {
		t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPatch, fmt.Sprintf("%s/api/v4/jobs/%d/trace", w.server.URL, spec.ID), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	resp := send(map[string]string{"JOB-TOKEN": spec.Token, "Content-Range": "0-4", "Content-Type": "text/plain"}, "hello")
	if resp.StatusCode != 202 || resp.Header.Get("X-GitLab-Trace-Update-Interval") == "" || resp.Header.Get("Job-Status") != "running" || resp.Header.Get("Range") != "0-5" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	for name, header := range map[string]map[string]string{
		"no range":    {"JOB-TOKEN": spec.Token},
		"wrong range": {"JOB-TOKEN": spec.Token, "Content-Range": "5-100"},
	} {
		if resp := send(header, "hello"); resp.StatusCode != 400 {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if resp := send(map[string]string{"JOB-TOKEN": spec.Token, "Content-Range": fmt.Sprintf("5-%d", 5+1<<20)}, strings.Repeat("x", 1<<20+1)); resp.StatusCode != 413 {
		t.Errorf("a piece that is too large: %s", resp.Status)
	}
	w.end(spec, "success")
}
