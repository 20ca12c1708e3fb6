// Package remote lets a runner on another machine take jobs from a platform by
// the GitLab Runner protocol.
//
// It owns the HTTP client of that protocol and implements delivery.Coordinator
// with it. It receives the platform's address and emits requests as the
// official runner does. It must not import another stage.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Coordinator is a platform behind the runner protocol. It is safe for
// concurrent use.
type Coordinator struct {
	URL  string       // the platform's address, without a path
	HTTP *http.Client // default http.DefaultClient; it must not have a timeout below a minute

	mu   sync.Mutex
	last string // X-GitLab-Last-Update
}

var _ delivery.Coordinator = (*Coordinator)(nil)

// pollPause is between two requests for a job when the platform answered at
// once that there is none (the official runner's check_interval).
const pollPause = 3 * time.Second

// kinds of the protocol's status codes.
var kinds = map[int]delivery.Kind{400: delivery.Invalid, 401: delivery.Forbidden, 403: delivery.Forbidden, 404: delivery.NotFound, 409: delivery.Conflict,
	413: delivery.TooLarge, 422: delivery.Invalid, 408: delivery.Unavailable, 429: delivery.Unavailable, 500: delivery.Unavailable, 502: delivery.Unavailable,
	503: delivery.Unavailable, 504: delivery.Unavailable}

// do sends a request; the caller closes the answer's body. Only the codes
// wanted are no error.
func (c *Coordinator) do(req *http.Request, wanted ...int) (*http.Response, error) {
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		return nil, &delivery.Error{Kind: delivery.Unavailable, Op: "runner protocol", Message: "The platform does not answer at " + c.URL + ".", Err: err}
	}
	for _, code := range wanted {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // the code says enough without it
	resp.Body.Close()
	kind := kinds[resp.StatusCode]
	if kind == "" {
		kind = delivery.InternalError
	}
	var said struct {
		Message any `json:"message"`
	}
	message := resp.Status
	if json.Unmarshal(raw, &said) == nil && said.Message != nil {
		message = fmt.Sprint(said.Message)
	}
	return nil, &delivery.Error{Kind: kind, Op: "runner protocol", Message: message}
}

func (c *Coordinator) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("runner protocol: encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+"/api/v4/"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("runner protocol: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// info is what a runner says of itself and of what it can do.
type info struct {
	delivery.RunnerInfo
	Features map[string]bool `json:"features"`
}

func describe(i delivery.RunnerInfo) info {
	return info{i, map[string]bool{"variables": true, "image": i.Executor != "shell", "services": i.Executor != "shell", "artifacts": true, "cache": true, "shared": true,
		"upload_multiple_artifacts": true, "upload_raw_artifacts": true, "refspecs": true, "masking": true, "raw_variables": true, "trace_reset": true,
		"trace_checksum": true, "trace_size": true, "cancelable": true, "cancel_gracefully": true, "return_exit_code": true, "multi_build_steps": true,
		"artifacts_exclude": true, "fallback_cache_keys": true}}
}

type credentials struct {
	Token    string `json:"token"`
	SystemID string `json:"system_id,omitempty"`
	Info     info   `json:"info"`
}

// Verify checks the session's token and returns the runner's id. An error of
// kind Forbidden means that the token is not, or no longer, a runner's.
func (c *Coordinator) Verify(ctx context.Context, s delivery.RunnerSession) (id int64, err error) {
	req, err := c.request(ctx, http.MethodPost, "runners/verify", credentials{s.Token, s.SystemID, describe(s.Info)})
	if err != nil {
		return 0, err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var out struct{ ID int64 }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return 0, fmt.Errorf("runner protocol: answer to verify: %w", err)
	}
	return out.ID, nil
}

// Forget tells the platform that this machine no longer serves the runner.
func (c *Coordinator) Forget(ctx context.Context, s delivery.RunnerSession) error {
	req, err := c.request(ctx, http.MethodDelete, "runners/managers", credentials{s.Token, s.SystemID, describe(s.Info)})
	if err != nil {
		return err
	}
	resp, err := c.do(req, http.StatusNoContent, http.StatusOK)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// RequestJob implements delivery.Coordinator.
func (c *Coordinator) RequestJob(ctx context.Context, s delivery.RunnerSession) (*delivery.JobSpec, error) {
	for {
		began := time.Now()
		spec, err := c.ask(ctx, s)
		if spec != nil || err != nil {
			return spec, err
		}
		if time.Since(began) < pollPause { // it does not hold requests open
			timer := time.NewTimer(pollPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			}
		}
	}
}

func (c *Coordinator) ask(ctx context.Context, s delivery.RunnerSession) (*delivery.JobSpec, error) {
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	req, err := c.request(ctx, http.MethodPost, "jobs/request", struct {
		credentials
		LastUpdate string `json:"last_update,omitempty"`
	}{credentials{s.Token, s.SystemID, describe(s.Info)}, last})
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	c.mu.Lock()
	c.last = resp.Header.Get("X-GitLab-Last-Update")
	c.mu.Unlock()
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	var spec delivery.JobSpec
	if err := json.NewDecoder(resp.Body).Decode(&spec); err != nil {
		return nil, fmt.Errorf("runner protocol: read job: %w", err)
	}
	return &spec, nil
}

// UpdateJob implements delivery.Coordinator. The protocol has no word for a job
// that waits on its runner: it is accepted then.
func (c *Coordinator) UpdateJob(ctx context.Context, jobID int64, token string, u delivery.JobUpdate) (delivery.JobAck, error) {
	type output struct {
		Checksum string `json:"checksum,omitempty"`
		Bytesize int64  `json:"bytesize"`
	}
	state := u.State
	if state == delivery.JobPending {
		state = delivery.JobRunning
	}
	req, err := c.request(ctx, http.MethodPut, "jobs/"+strconv.FormatInt(jobID, 10), struct {
		Token         string            `json:"token"`
		State         delivery.JobState `json:"state"`
		FailureReason string            `json:"failure_reason,omitempty"`
		ExitCode      int               `json:"exit_code,omitempty"`
		Output        output            `json:"output"`
	}{token, state, u.FailureReason, u.ExitCode, output{u.TraceChecksum, u.TraceSize}})
	if err != nil {
		return delivery.JobAck{}, err
	}
	req.Header.Set("JOB-TOKEN", token)
	resp, err := c.do(req, http.StatusOK, http.StatusAccepted, http.StatusPreconditionFailed)
	if err != nil {
		return delivery.JobAck{}, err
	}
	defer resp.Body.Close()
	ack := acknowledged(resp)
	ack.TraceInvalid = resp.StatusCode == http.StatusPreconditionFailed
	if resp.StatusCode == http.StatusAccepted && state != delivery.JobRunning {
		return ack, &delivery.Error{Kind: delivery.Unavailable, Message: "The platform has not finished with the trace yet."}
	}
	if u.State == delivery.JobPending && ack.Status == "running" {
		ack.Status = "pending"
	}
	return ack, nil
}

func acknowledged(resp *http.Response) delivery.JobAck {
	ack := delivery.JobAck{Status: resp.Header.Get("Job-Status")}
	if seconds, err := strconv.Atoi(resp.Header.Get("X-GitLab-Trace-Update-Interval")); err == nil && seconds > 0 {
		ack.Interval = time.Duration(seconds) * time.Second
	}
	if _, size, ok := strings.Cut(resp.Header.Get("Range"), "-"); ok {
		if n, err := strconv.ParseInt(size, 10, 64); err == nil {
			ack.TraceSize = n
		}
	}
	return ack
}

// AppendTrace implements delivery.Coordinator.
func (c *Coordinator) AppendTrace(ctx context.Context, jobID int64, token string, offset int64, data []byte) (delivery.JobAck, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, fmt.Sprintf("%s/api/v4/jobs/%d/trace", strings.TrimSuffix(c.URL, "/"), jobID), bytes.NewReader(data))
	if err != nil {
		return delivery.JobAck{}, fmt.Errorf("runner protocol: %w", err)
	}
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, offset+int64(len(data))-1))
	req.Header.Set("JOB-TOKEN", token)
	resp, err := c.do(req, http.StatusAccepted, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return delivery.JobAck{}, err
	}
	defer resp.Body.Close()
	ack := acknowledged(resp)
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return ack, &delivery.Error{Kind: delivery.Conflict, Message: "The piece does not continue the trace."}
	}
	return ack, nil
}

// UploadArtifact implements delivery.Coordinator. The file is streamed.
func (c *Coordinator) UploadArtifact(ctx context.Context, jobID int64, token string, a delivery.ArtifactUpload, body io.Reader) error {
	reader, writer := io.Pipe()
	form := multipart.NewWriter(writer)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		part, err := form.CreateFormFile("file", a.Filename)
		if err == nil {
			_, err = io.Copy(part, body)
		}
		if err == nil {
			err = form.Close()
		}
		writer.CloseWithError(err)
	}()
	defer func() {
		reader.Close()
		<-sent
	}()
	query := url.Values{"artifact_format": {a.Format}, "artifact_type": {a.Type}}
	if a.ExpireIn != "" {
		query.Set("expire_in", a.ExpireIn)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/api/v4/jobs/%d/artifacts?%s", strings.TrimSuffix(c.URL, "/"), jobID, query.Encode()), reader)
	if err != nil {
		return fmt.Errorf("runner protocol: %w", err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("JOB-TOKEN", token)
	resp, err := c.do(req, http.StatusCreated, http.StatusOK)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// DownloadArtifact implements delivery.Coordinator.
func (c *Coordinator) DownloadArtifact(ctx context.Context, jobID int64, token string) (delivery.ArtifactFile, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/api/v4/jobs/%d/artifacts?direct_download=true", strings.TrimSuffix(c.URL, "/"), jobID), nil)
	if err != nil {
		return delivery.ArtifactFile{}, fmt.Errorf("runner protocol: %w", err)
	}
	req.Header.Set("JOB-TOKEN", token)
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	name := "artifacts.zip"
	if _, fields, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil && fields["filename"] != "" {
		name = fields["filename"]
	}
	return delivery.ArtifactFile{Filename: name, Size: max(0, resp.ContentLength), Body: resp.Body}, nil
}
