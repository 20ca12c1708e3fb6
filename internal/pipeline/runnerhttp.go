package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// maxPiece is the most bytes of trace in one request.
const maxPiece = 1 << 20

// maxRunnerBody bounds the JSON bodies of runners.
const maxRunnerBody = 1 << 20

// RegisterRunnerRoutes adds the GitLab Runner protocol to a mux that serves
// the platform's address. Its patterns are more specific than /api/v4/.
func (e *Engine) RegisterRunnerRoutes(mux *http.ServeMux) {
	route := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				e.runnerError(w, r, err)
			}
		})
	}
	route("POST /api/v4/runners", e.serveRegister)
	route("DELETE /api/v4/runners", e.serveUnregister)
	route("POST /api/v4/runners/verify", e.serveVerify)
	route("DELETE /api/v4/runners/managers", e.serveDeleteManager)
	route("POST /api/v4/runners/reset_authentication_token", e.serveResetToken)
	route("POST /api/v4/jobs/request", e.serveRequest)
	route("PUT /api/v4/jobs/{id}", e.serveUpdate)
	route("PATCH /api/v4/jobs/{id}/trace", e.serveTrace)
	route("POST /api/v4/jobs/{id}/artifacts", e.serveUpload)
	route("POST /api/v4/jobs/{id}/artifacts/authorize", e.serveAuthorize)
	route("GET /api/v4/jobs/{id}/artifacts", e.serveDownload)
	mux.HandleFunc("GET /oauth/discovery/keys", e.ServeJWKS)
}

func (e *Engine) runnerError(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	if delivery.KindOf(err) == delivery.InternalError {
		e.log.Error("runner request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if delivery.KindOf(err) == delivery.Unavailable {
		w.Header().Set("Retry-After", "5")
	}
	api.WriteError(w, err)
}

// runnerBody is what runners send; each call uses a part of it.
type runnerBody struct {
	Token      string     `json:"token"`
	SystemID   string     `json:"system_id"`
	LastUpdate string     `json:"last_update"`
	Info       runnerInfo `json:"info"`

	Description     string `json:"description"`
	TagList         string `json:"tag_list"`
	RunUntagged     *bool  `json:"run_untagged"`
	Locked          bool   `json:"locked"`
	Paused          bool   `json:"paused"`
	AccessLevel     string `json:"access_level"`
	MaximumTimeout  int    `json:"maximum_timeout"`
	MaintenanceNote string `json:"maintenance_note"`

	State         string `json:"state"`
	FailureReason string `json:"failure_reason"`
	Checksum      string `json:"checksum"`
	ExitCode      int    `json:"exit_code"`
	Output        struct {
		Checksum string `json:"checksum"`
		Bytesize int64  `json:"bytesize"`
	} `json:"output"`
}

type runnerInfo struct {
	delivery.RunnerInfo
	Features struct {
		Cancelable       bool `json:"cancelable"`
		CancelGracefully bool `json:"cancel_gracefully"`
	} `json:"features"`
}

// readRunner parses the body of a runner's call. Tokens in headers win.
func readRunner(r *http.Request) (runnerBody, error) {
	var b runnerBody
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRunnerBody))
	if err != nil {
		return b, delivery.Errorf(delivery.TooLarge, "The body is larger than %d bytes.", maxRunnerBody)
	}
	if err := parseRunner(r.Header.Get("Content-Type"), raw, r.URL.Query(), &b); err != nil {
		return b, err
	}
	for _, h := range []string{"RUNNER-TOKEN", "JOB-TOKEN"} {
		if t := r.Header.Get(h); t != "" {
			b.Token = t
			break
		}
	}
	return b, nil
}

// parseRunner decodes a JSON or form body.
func parseRunner(contentType string, raw []byte, query url.Values, b *runnerBody) error {
	media, _, _ := mime.ParseMediaType(contentType)
	if media == "application/x-www-form-urlencoded" {
		form, err := url.ParseQuery(string(raw))
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The form cannot be read: %v", err)
		}
		query = form
		raw = nil
	}
	for key, to := range map[string]*string{"token": &b.Token, "system_id": &b.SystemID, "description": &b.Description, "tag_list": &b.TagList} {
		if v := query.Get(key); v != "" {
			*to = v
		}
	}
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, b); err != nil {
		return delivery.Errorf(delivery.Invalid, "The JSON body does not fit: %v", err)
	}
	return nil
}

func (b *runnerBody) session() delivery.RunnerSession {
	return delivery.RunnerSession{Token: b.Token, SystemID: b.SystemID, Info: b.Info.RunnerInfo}
}

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (e *Engine) serveVerify(w http.ResponseWriter, r *http.Request) error {
	b, runner, err := e.readKnown(r)
	if err != nil {
		return err
	}
	s := b.session()
	if err := e.touch(r.Context(), runner, &s, remoteIP(r)); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"id": runner.ID, "token": b.Token, "token_expires_at": nil})
}

// serveRegister is the registration with a registration token, the older way.
// The token is the instance's, set by an administrator.
func (e *Engine) serveRegister(w http.ResponseWriter, r *http.Request) error {
	b, err := readRunner(r)
	if err != nil {
		return err
	}
	var want string
	if err := e.store.View(r.Context(), func(tx Tx) error {
		var err error
		want, err = tx.Setting("registration token hash")
		return err
	}); err != nil {
		return err
	}
	if !sameHash(want, hashToken(b.Token)) {
		return gone()
	}
	n := NewRunner{Kind: InstanceRunner, Description: b.Description, RunUntagged: b.RunUntagged == nil || *b.RunUntagged, Locked: b.Locked,
		Paused: b.Paused, RefProtected: b.AccessLevel == "ref_protected", MaximumTimeout: b.MaximumTimeout, MaintenanceNote: b.MaintenanceNote}
	n.Tags = splitTags(b.TagList)
	made, token, err := e.CreateRunner(r.Context(), n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, map[string]any{"id": made.ID, "token": token, "token_expires_at": nil})
}

func splitTags(list string) []string {
	var out []string
	for _, t := range strings.Split(list, ",") {
		if t = strings.TrimSpace(t); t != "" && !containsString(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// readKnown reads a request of a runner that is registered.
func (e *Engine) readKnown(r *http.Request) (runnerBody, *Runner, error) {
	b, err := readRunner(r)
	if err != nil {
		return b, nil, err
	}
	runner, err := e.runnerOf(r.Context(), b.Token)
	return b, runner, err
}

func (e *Engine) serveUnregister(w http.ResponseWriter, r *http.Request) error {
	_, runner, err := e.readKnown(r)
	if err != nil {
		return err
	}
	if err := e.DeleteRunner(r.Context(), runner.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (e *Engine) serveDeleteManager(w http.ResponseWriter, r *http.Request) error {
	b, runner, err := e.readKnown(r)
	if err != nil {
		return err
	}
	if b.SystemID == "" {
		return delivery.Errorf(delivery.Invalid, "system_id is missing")
	}
	if err := e.store.Update(r.Context(), func(tx Tx) error { return tx.DeleteManager(runner.ID, b.SystemID) }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (e *Engine) serveResetToken(w http.ResponseWriter, r *http.Request) error {
	_, runner, err := e.readKnown(r)
	if err != nil {
		return err
	}
	token, err := e.ResetRunnerToken(r.Context(), runner.ID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, map[string]any{"token": token, "token_expires_at": nil})
}

// serveRequest answers POST jobs/request. It waits for a job as long as the
// configuration says, so that a runner learns of one at once.
func (e *Engine) serveRequest(w http.ResponseWriter, r *http.Request) error {
	b, err := readRunner(r)
	if err != nil {
		return err
	}
	w.Header().Set("X-GitLab-Last-Update", e.queue.lastUpdate())
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	expired := e.clock.After(e.cfg.LongPoll)
	go func() {
		select {
		case <-expired:
			cancel()
		case <-stop:
		}
	}()
	spec, err := e.requestJob(ctx, b.session(), remoteIP(r), b.Info.Features.CancelGracefully)
	if errors.Is(err, context.Canceled) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	if r.Context().Err() != nil {
		e.wheel.drop("offer " + strconv.FormatInt(spec.ID, 10))
		e.returnOffer(spec.ID)
		return nil
	}
	return api.WriteJSON(w, http.StatusCreated, spec)
}

func jobNumber(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || n <= 0 {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "Job Not Found"}
	}
	return n, nil
}

func ackHeaders(w http.ResponseWriter, ack delivery.JobAck) {
	if ack.Status != "" {
		w.Header().Set("Job-Status", ack.Status)
	}
	if ack.Interval > 0 {
		w.Header().Set("X-GitLab-Trace-Update-Interval", strconv.Itoa(int(ack.Interval/time.Second)))
	}
}

func (e *Engine) serveUpdate(w http.ResponseWriter, r *http.Request) error {
	number, err := jobNumber(r)
	if err != nil {
		return err
	}
	b, err := readRunner(r)
	if err != nil {
		return err
	}
	u := delivery.JobUpdate{State: delivery.JobState(b.State), FailureReason: b.FailureReason, ExitCode: b.ExitCode,
		TraceChecksum: b.Output.Checksum, TraceSize: b.Output.Bytesize}
	if u.TraceChecksum == "" {
		u.TraceChecksum = b.Checksum
	}
	ack, err := e.UpdateJob(r.Context(), number, b.Token, u)
	if err != nil {
		return err
	}
	ackHeaders(w, ack)
	if ack.TraceInvalid {
		w.WriteHeader(http.StatusPreconditionFailed)
		return nil
	}
	return api.WriteJSON(w, http.StatusOK, nil)
}

// contentRange reads the protocol's Content-Range: "start-end", both inclusive,
// for a body of size bytes.
func contentRange(header string, size int) (int64, error) {
	bad := func() (int64, error) {
		return 0, delivery.Errorf(delivery.Invalid, "Content-Range %q does not fit a body of %d bytes", header, size)
	}
	first, last, ok := strings.Cut(header, "-")
	if !ok {
		return bad()
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err1 != nil || err2 != nil || from < 0 || to < from-1 || to-from+1 != int64(size) {
		return bad()
	}
	return from, nil
}

func (e *Engine) serveTrace(w http.ResponseWriter, r *http.Request) error {
	number, err := jobNumber(r)
	if err != nil {
		return err
	}
	token := r.Header.Get("JOB-TOKEN")
	if token == "" {
		token = r.URL.Query().Get("token")
	}
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxPiece))
	if err != nil {
		return delivery.Errorf(delivery.TooLarge, "A piece of a trace has at most %d bytes.", maxPiece)
	}
	from, err := contentRange(r.Header.Get("Content-Range"), len(data))
	if err != nil {
		return err
	}
	ack, err := e.AppendTrace(r.Context(), number, token, from, data)
	if delivery.KindOf(err) == delivery.Conflict {
		ackHeaders(w, ack)
		w.Header().Set("Range", fmt.Sprintf("0-%d", ack.TraceSize))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return nil
	}
	if err != nil {
		if ack.Status != "" {
			ackHeaders(w, ack)
		}
		return err
	}
	ackHeaders(w, ack)
	w.Header().Set("Range", fmt.Sprintf("0-%d", ack.TraceSize))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func jobToken(r *http.Request) string {
	if t := r.Header.Get("JOB-TOKEN"); t != "" {
		return t
	}
	if t := r.URL.Query().Get("token"); t != "" {
		return t
	}
	return r.URL.Query().Get("job_token")
}

func (e *Engine) serveAuthorize(w http.ResponseWriter, r *http.Request) error {
	number, err := jobNumber(r)
	if err != nil {
		return err
	}
	if run, _, err := e.lookup(r.Context(), number, jobToken(r)); err != nil {
		return err
	} else if run == nil {
		return gone()
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{})
}

func (e *Engine) serveUpload(w http.ResponseWriter, r *http.Request) error {
	number, err := jobNumber(r)
	if err != nil {
		return err
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "The upload is not multipart: %v", err)
	}
	q := r.URL.Query()
	a := delivery.ArtifactUpload{Type: q.Get("artifact_type"), Format: q.Get("artifact_format"), ExpireIn: q.Get("expire_in")}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return delivery.Errorf(delivery.Invalid, "The upload has no part named file.")
		}
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The upload cannot be read: %v", err)
		}
		if part.FormName() != "file" {
			continue
		}
		a.Filename = path.Base(part.FileName())
		if err := e.UploadArtifact(r.Context(), number, jobToken(r), a, part); err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusCreated, map[string]any{"message": "201 Created"})
	}
}

func (e *Engine) serveDownload(w http.ResponseWriter, r *http.Request) error {
	number, err := jobNumber(r)
	if err != nil {
		return err
	}
	f, err := e.DownloadArtifact(r.Context(), number, jobToken(r))
	if err != nil {
		return err
	}
	defer f.Body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Filename}))
	if _, err := io.Copy(w, f.Body); err != nil {
		e.log.Debug("artifact not sent to the end", "job", number, "err", err)
	}
	return nil
}
