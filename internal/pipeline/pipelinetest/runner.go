package pipelinetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net/http"
	"sync"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Runner speaks the GitLab Runner protocol over HTTP and executes nothing.
type Runner struct {
	URL    string // of the server, without /api/v4
	Token  string
	System string
	Client *http.Client
	// Graceful tells the server that the runner finishes up when canceled.
	Graceful bool

	// lastUpdate is the server's X-GitLab-Last-Update, sent with the next request.
	mu         sync.Mutex
	lastUpdate string
}

// call sends a JSON body as the official runner does: the token is in it and in
// a header. The answer is decoded into out unless it is nil.
func (r *Runner) call(ctx context.Context, method, path string, body map[string]any, out any) (int, error) {
	body["token"] = r.Token
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	resp, answer, err := r.do(ctx, method, path, map[string]string{"RUNNER-TOKEN": r.Token}, raw)
	if err != nil {
		return 0, err
	}
	if len(answer) > 0 && resp.Header.Get("Content-Type") != "application/json" {
		return resp.StatusCode, fmt.Errorf("%s %s: Content-Type %q; the runner wants exactly application/json", method, path, resp.Header.Get("Content-Type"))
	}
	if out != nil && resp.StatusCode < 300 {
		err = json.Unmarshal(answer, out)
	}
	return resp.StatusCode, err
}

// Registration is the answer to a registration or verification.
type Registration struct {
	ID      int64   `json:"id"`
	Token   string  `json:"token"`
	Expires *string `json:"token_expires_at"`
}

// Verify checks the runner's token, as `gitlab-runner register --token` does.
func (r *Runner) Verify(ctx context.Context) (int, Registration, error) {
	var out Registration
	code, err := r.call(ctx, http.MethodPost, "runners/verify", map[string]any{"system_id": r.System, "info": r.info()}, &out)
	return code, out, err
}

// Register makes a runner with a registration token in Token; fields are those
// of the protocol.
func (r *Runner) Register(ctx context.Context, fields map[string]any) (int, Registration, error) {
	var out Registration
	code, err := r.call(ctx, http.MethodPost, "runners", fields, &out)
	return code, out, err
}

// Unregister deletes the runner.
func (r *Runner) Unregister(ctx context.Context) (int, error) {
	return r.call(ctx, http.MethodDelete, "runners", map[string]any{}, nil)
}

// UnregisterManager deletes this process of the runner.
func (r *Runner) UnregisterManager(ctx context.Context) (int, error) {
	return r.call(ctx, http.MethodDelete, "runners/managers", map[string]any{"system_id": r.System}, nil)
}

// ResetToken asks for a new token; the runner goes on with the old one.
func (r *Runner) ResetToken(ctx context.Context) (int, Registration, error) {
	var out Registration
	code, err := r.call(ctx, http.MethodPost, "runners/reset_authentication_token", map[string]any{}, &out)
	return code, out, err
}

// info describes the runner, with the features that the official one has.
func (r *Runner) info() map[string]any {
	return map[string]any{"name": "gitlab-runner", "version": "19.4.0", "revision": "abcdef12", "platform": "linux", "architecture": "amd64",
		"executor": "shell", "shell": "bash", "config": map[string]any{"gpus": ""},
		"features": map[string]any{"cancel_gracefully": r.Graceful, "cancelable": true, "trace_reset": true, "trace_checksum": true, "trace_size": true,
			"two_phase_job_commit": true, "upload_multiple_artifacts": true, "upload_raw_artifacts": true, "variables": true, "refspecs": true,
			"artifacts": true, "cache": true, "masking": true, "raw_variables": true, "return_exit_code": true}}
}

func (r *Runner) do(ctx context.Context, method, path string, header map[string]string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.URL+"/api/v4/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	client := r.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp, answer, err
}

// Request asks for a job; nil: there is none.
func (r *Runner) Request(ctx context.Context) (*delivery.JobSpec, error) {
	r.mu.Lock()
	last := r.lastUpdate
	r.mu.Unlock()
	body, err := json.Marshal(map[string]any{"token": r.Token, "system_id": r.System, "last_update": last, "info": r.info(),
		"session": map[string]any{"url": "", "certificate": "", "authorization": ""}})
	if err != nil {
		return nil, err
	}
	resp, answer, err := r.do(ctx, "POST", "jobs/request", map[string]string{"RUNNER-TOKEN": r.Token}, body)
	if err != nil {
		return nil, err
	}
	if v := resp.Header.Get("X-GitLab-Last-Update"); v != "" {
		r.mu.Lock()
		r.lastUpdate = v
		r.mu.Unlock()
	}
	switch resp.StatusCode {
	case http.StatusNoContent:
		return nil, nil
	case http.StatusCreated:
		var spec delivery.JobSpec
		return &spec, json.Unmarshal(answer, &spec)
	}
	return nil, fmt.Errorf("jobs/request: %s %s", resp.Status, answer)
}

// Update reports a state; log is the whole trace for the final report. It
// returns the reply's status code and Job-Status.
func (r *Runner) Update(ctx context.Context, spec *delivery.JobSpec, state, reason string, exit int, log []byte) (int, string, error) {
	m := map[string]any{"token": spec.Token, "state": state}
	if reason != "" {
		m["failure_reason"] = reason
	}
	if exit != 0 {
		m["exit_code"] = exit
	}
	if log != nil {
		m["output"] = map[string]any{"checksum": fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(log)), "bytesize": len(log)}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return 0, "", err
	}
	resp, _, err := r.do(ctx, "PUT", fmt.Sprintf("jobs/%d", spec.ID), map[string]string{"JOB-TOKEN": spec.Token}, body)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("Job-Status"), nil
}

// Trace sends a piece of the log. It returns the status code and the Range of
// the reply.
func (r *Runner) Trace(ctx context.Context, spec *delivery.JobSpec, offset int64, piece []byte) (int, string, error) {
	resp, _, err := r.do(ctx, "PATCH", fmt.Sprintf("jobs/%d/trace", spec.ID), map[string]string{"JOB-TOKEN": spec.Token,
		"Content-Type": "text/plain", "Content-Range": fmt.Sprintf("%d-%d", offset, offset+int64(len(piece))-1)}, piece)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("Range"), nil
}

// Upload sends an artifact.
func (r *Runner) Upload(ctx context.Context, spec *delivery.JobSpec, kind, format, name string, body []byte) (int, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		return 0, err
	}
	if _, err := part.Write(body); err != nil {
		return 0, err
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	resp, _, err := r.do(ctx, "POST", fmt.Sprintf("jobs/%d/artifacts?artifact_type=%s&artifact_format=%s", spec.ID, kind, format),
		map[string]string{"JOB-TOKEN": spec.Token, "Content-Type": w.FormDataContentType()}, b.Bytes())
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// Download fetches the artifacts of a dependency.
func (r *Runner) Download(ctx context.Context, d delivery.JobDependency) (int, []byte, error) {
	resp, body, err := r.do(ctx, "GET", fmt.Sprintf("jobs/%d/artifacts?direct_download=true", d.ID), map[string]string{"JOB-TOKEN": d.Token}, nil)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, body, nil
}
