package rest

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *server) jobs(rt *api.Router) {
	rt.Handle("GET /projects/{project}/jobs", guest, s.projectJobs)
	rt.Handle("GET /projects/{project}/pipelines/{id}/jobs", guestOrJob, s.pipelineJobs)
	rt.Handle("GET /projects/{project}/pipelines/{id}/bridges", guest, s.pipelineBridges)
	rt.Handle("GET /projects/{project}/jobs/{job}", guestOrJob, s.getJob)
	rt.Handle("GET /projects/{project}/jobs/{job}/{rest...}", guestOrJob, s.jobFiles)
	rt.Handle("POST /projects/{project}/jobs/{job}/play", developer, s.playJob)
	rt.Handle("POST /projects/{project}/jobs/{job}/retry", developer, s.retryJob)
	rt.Handle("POST /projects/{project}/jobs/{job}/cancel", developer, s.cancelJob)
	rt.Handle("POST /projects/{project}/jobs/{job}/unschedule", developer, s.unscheduleJob)
	rt.Handle("POST /projects/{project}/jobs/{job}/erase", maintainer, s.eraseJob)
	rt.Handle("POST /projects/{project}/jobs/{job}/artifacts/keep", developer, s.keepArtifacts)
	rt.Handle("DELETE /projects/{project}/jobs/{job}/artifacts", maintainer, s.deleteArtifacts)
	rt.Handle("GET /job", api.Need{Scopes: []string{delivery.ScopeJob}}, s.currentJob)
}

func (s *server) jobOf(r *api.Request) (pipeline.Job, error) {
	id, err := number(r, "job")
	if err != nil {
		return pipeline.Job{}, err
	}
	var j pipeline.Job
	err = s.View(r.Context(), func(tx pipeline.Tx) error {
		j, err = tx.Job(id)
		return err
	})
	if err == nil && j.ProjectID != r.Project.ID {
		return j, missing("Job")
	}
	return j, err
}

// shapes turns jobs into their JSON form, reading what they share once.
func (s *server) shapes(r *api.Request, jobs []pipeline.Job) ([]object, error) {
	pipelines := map[int64]pipeline.Pipeline{}
	runners := map[int64]pipeline.Runner{}
	artifacts := map[int64][]pipeline.Artifact{}
	downstream := map[int64]pipeline.Pipeline{}
	err := s.View(r.Context(), func(tx pipeline.Tx) error {
		for i := range jobs {
			j := &jobs[i]
			var err error
			if _, ok := pipelines[j.PipelineID]; !ok {
				if pipelines[j.PipelineID], err = tx.Pipeline(j.PipelineID); err != nil {
					return err
				}
			}
			if _, ok := runners[j.RunnerID]; !ok && j.RunnerID != 0 {
				if runners[j.RunnerID], err = tx.Runner(j.RunnerID); err != nil && !delivery.IsNotFound(err) {
					return err
				}
			}
			if j.DownstreamID != 0 {
				if downstream[j.ID], err = tx.Pipeline(j.DownstreamID); err != nil && !delivery.IsNotFound(err) {
					return err
				}
			}
			if artifacts[j.ID], err = tx.Artifacts(j.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	waits, err := s.Waits(r.Context())
	if err != nil {
		return nil, err
	}
	users := map[int64]any{}
	out := make([]object, 0, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		p := pipelines[j.PipelineID]
		if _, ok := users[j.UserID]; !ok {
			if users[j.UserID], err = s.user(r.Context(), j.UserID); err != nil {
				return nil, err
			}
		}
		o := s.jobShape(r, j, &p, artifacts[j.ID])
		o["user"] = users[j.UserID]
		if why := waits(&p, j); why != "" {
			o["waiting_reason"] = why // not GitLab's
		}
		if rn, ok := runners[j.RunnerID]; ok && rn.ID != 0 {
			o["runner"] = s.runnerShape(&rn)
		}
		if j.Bridge {
			o["downstream_pipeline"] = nil
			if d := downstream[j.ID]; d.ID != 0 {
				project, err := s.ProjectsPort().Project(r.Context(), d.ProjectID)
				if err != nil {
					return nil, err
				}
				o["downstream_pipeline"] = s.pipelineInfo(project, &d)
			}
		}
		out = append(out, o)
	}
	return out, nil
}

func (s *server) jobShape(r *api.Request, j *pipeline.Job, p *pipeline.Pipeline, artifacts []pipeline.Artifact) object {
	o := object{"id": j.ID, "name": j.Name, "stage": j.Stage, "status": j.Status, "ref": p.Ref, "tag": p.Tag, "allow_failure": j.AllowFailure,
		"created_at": when(j.CreatedAt), "started_at": when(j.StartedAt), "finished_at": when(j.FinishedAt), "erased_at": when(j.ErasedAt),
		"coverage": j.Coverage, "duration": nil, "queued_duration": nil, "tag_list": append([]string{}, j.Tags...), "web_url": s.webURL(r.Project, "jobs/%d", j.ID),
		"pipeline": s.pipelineInfo(r.Project, p), "project": object{"ci_job_token_scope_enabled": true}, "runner": nil, "runner_manager": nil,
		"archived": false, "source": p.Source, "commit": object{"id": p.SHA, "short_id": p.SHA[:min(8, len(p.SHA))], "title": p.Facts["CI_COMMIT_TITLE"], "message": p.Facts["CI_COMMIT_MESSAGE"]}}
	if j.FailureReason != "" {
		o["failure_reason"] = j.FailureReason
	}
	if d := j.Duration(s.Now()); d > 0 {
		o["duration"] = d.Seconds()
	}
	if !j.QueuedAt.IsZero() && !j.StartedAt.IsZero() {
		o["queued_duration"] = j.StartedAt.Sub(j.QueuedAt).Seconds()
	}
	files := []object{}
	if j.TraceSize > 0 {
		files = append(files, object{"file_type": "trace", "size": j.TraceSize, "filename": "job.log", "file_format": nil})
	}
	o["artifacts_expire_at"] = nil
	for _, a := range artifacts {
		files = append(files, object{"file_type": a.Type, "size": a.Size, "filename": a.Filename, "file_format": a.Format})
		if a.Type == "archive" {
			o["artifacts_file"] = object{"filename": a.Filename, "size": a.Size}
			o["artifacts_expire_at"] = when(a.ExpireAt)
		}
	}
	o["artifacts"] = files
	return o
}

type jobQuery struct {
	Scope          []string `json:"scope"`
	IncludeRetried bool     `json:"include_retried"`
}

func (s *server) listJobs(w http.ResponseWriter, r *api.Request, f pipeline.JobFilter) error {
	var q jobQuery
	if err := api.Decode(r, &q); err != nil {
		return err
	}
	f.Statuses, f.Retried = q.Scope, q.IncludeRetried
	pg := api.PageOf(r.Request)
	var list []pipeline.Job
	var total int
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		list, total, err = tx.Jobs(f, page(pg))
		return err
	}); err != nil {
		return err
	}
	out, err := s.shapes(r, list)
	if err != nil {
		return err
	}
	return api.List(w, r, pg, total, out)
}

func (s *server) projectJobs(w http.ResponseWriter, r *api.Request) error {
	bridge := false
	return s.listJobs(w, r, pipeline.JobFilter{ProjectID: r.Project.ID, Bridge: &bridge})
}

func (s *server) pipelineJobs(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	bridge := false
	return s.listJobs(w, r, pipeline.JobFilter{PipelineID: p.ID, Bridge: &bridge})
}

func (s *server) pipelineBridges(w http.ResponseWriter, r *api.Request) error {
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	bridge := true
	return s.listJobs(w, r, pipeline.JobFilter{PipelineID: p.ID, Bridge: &bridge})
}

func (s *server) writeJob(w http.ResponseWriter, r *api.Request, status int, j *pipeline.Job) error {
	out, err := s.shapes(r, []pipeline.Job{*j})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out[0])
}

func (s *server) getJob(w http.ResponseWriter, r *api.Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	return s.writeJob(w, r, http.StatusOK, &j)
}

func (s *server) currentJob(w http.ResponseWriter, r *api.Request) error {
	if r.Who.JobID == 0 {
		return delivery.Errorf(delivery.Unauthenticated, "401 Unauthorized")
	}
	var j pipeline.Job
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		j, err = tx.Job(r.Who.JobID)
		return err
	}); err != nil {
		return err
	}
	var err error
	if r.Project, err = s.ProjectsPort().Project(r.Context(), j.ProjectID); err != nil {
		return err
	}
	return s.writeJob(w, r, http.StatusOK, &j)
}

// jobFiles serves what is below a job: its log and artifacts; and below the
// word artifacts, those of the latest successful pipeline of a ref.
func (s *server) jobFiles(w http.ResponseWriter, r *api.Request) error {
	rest := r.PathValue("rest")
	if r.PathValue("job") == "artifacts" {
		return s.artifactsByRef(w, r, rest)
	}
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	switch {
	case rest == "trace":
		return s.trace(w, r, &j)
	case rest == "artifacts" || strings.HasPrefix(rest, "artifacts/"):
		if err := s.mayRead(r, j.ID); err != nil {
			return err
		}
		if rest == "artifacts" {
			return s.sendArtifact(w, r, j.ID, "archive")
		}
		return s.sendEntry(w, r, j.ID, strings.TrimPrefix(rest, "artifacts/"))
	}
	return missing("")
}

// mayRead applies artifacts:access, which narrows who may download.
func (s *server) mayRead(r *api.Request, jobID int64) error {
	need, err := s.ArtifactAccess(r.Context(), jobID)
	if err == nil && r.Role < need {
		err = delivery.Errorf(delivery.Forbidden, "403 Forbidden - the artifacts of this job are not for everybody")
	}
	return err
}

func (s *server) artifactsByRef(w http.ResponseWriter, r *api.Request, rest string) error {
	ref, file, raw := strings.Cut(rest, "/raw/")
	if !raw {
		var ok bool
		if ref, ok = strings.CutSuffix(rest, "/download"); !ok {
			return missing("")
		}
	}
	name := r.URL.Query().Get("job")
	if name == "" {
		return delivery.Errorf(delivery.Invalid, "job is missing")
	}
	var j pipeline.Job
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		j, err = tx.LatestArtifactJob(r.Project.ID, ref, name)
		return err
	}); err != nil {
		return err
	}
	if err := s.mayRead(r, j.ID); err != nil {
		return err
	}
	if raw {
		return s.sendEntry(w, r, j.ID, file)
	}
	return s.sendArtifact(w, r, j.ID, "archive")
}

func (s *server) trace(w http.ResponseWriter, r *api.Request, j *pipeline.Job) error {
	l, err := s.OpenLog(r.Context(), j)
	if err != nil {
		return err
	}
	defer l.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.FormatInt(l.Size, 10))
	return send(w, io.NewSectionReader(l, 0, l.Size))
}

// send copies a body whose headers are written; the receiver going away is not
// an error of the server.
func send(w http.ResponseWriter, body io.Reader) error {
	if _, err := io.Copy(w, body); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

func (s *server) sendArtifact(w http.ResponseWriter, r *api.Request, jobID int64, kind string) error {
	f, err := s.OpenArtifact(r.Context(), jobID, kind)
	if err != nil {
		return err
	}
	return sendFile(w, f, true)
}

func (s *server) sendEntry(w http.ResponseWriter, r *api.Request, jobID int64, name string) error {
	f, err := s.OpenArtifactEntry(r.Context(), jobID, name)
	if err != nil {
		return err
	}
	return sendFile(w, f, false)
}

func sendFile(w http.ResponseWriter, f delivery.ArtifactFile, attachment bool) error {
	defer f.Body.Close()
	media := mime.TypeByExtension(path.Ext(f.Filename))
	if media == "" || attachment {
		media = "application/octet-stream"
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Filename}))
	return send(w, f.Body)
}

// act runs an action on the job of the path and answers with the job.
func (s *server) act(w http.ResponseWriter, r *api.Request, status int, fn func(j *pipeline.Job) (pipeline.Job, error)) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	var p pipeline.Pipeline
	if err := s.View(r.Context(), func(tx pipeline.Tx) error {
		p, err = tx.Pipeline(j.PipelineID)
		return err
	}); err != nil {
		return err
	}
	if p.MergeRequestIID == 0 {
		if err := s.mayRun(r, p.Ref, p.Tag); err != nil {
			return err
		}
	}
	after, err := fn(&j)
	if err != nil {
		return err
	}
	return s.writeJob(w, r, status, &after)
}

func (s *server) playJob(w http.ResponseWriter, r *api.Request) error {
	var in struct {
		Variables []givenVariable `json:"job_variables_attributes"`
		Inputs    map[string]any  `json:"job_inputs"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	vars, err := given(in.Variables)
	if err != nil {
		return err
	}
	inputs := make(map[string]string, len(in.Inputs))
	for name, value := range in.Inputs {
		text, ok := value.(string)
		if !ok {
			raw, err := json.Marshal(value)
			if err != nil {
				return delivery.Errorf(delivery.Invalid, "job_inputs: %s cannot be read", name)
			}
			text = string(raw)
		}
		inputs[name] = text
	}
	return s.act(w, r, http.StatusOK, func(j *pipeline.Job) (pipeline.Job, error) {
		return s.PlayJob(r.Context(), userID(r), j.ID, vars, inputs)
	})
}

func (s *server) retryJob(w http.ResponseWriter, r *api.Request) error {
	return s.act(w, r, http.StatusCreated, func(j *pipeline.Job) (pipeline.Job, error) { return s.RetryJob(r.Context(), userID(r), j.ID) })
}

func (s *server) cancelJob(w http.ResponseWriter, r *api.Request) error {
	force := r.URL.Query().Get("force") == "true"
	return s.act(w, r, http.StatusCreated, func(j *pipeline.Job) (pipeline.Job, error) { return s.CancelJob(r.Context(), j.ID, force) })
}

func (s *server) unscheduleJob(w http.ResponseWriter, r *api.Request) error {
	return s.act(w, r, http.StatusOK, func(j *pipeline.Job) (pipeline.Job, error) { return s.UnscheduleJob(r.Context(), j.ID) })
}

func (s *server) eraseJob(w http.ResponseWriter, r *api.Request) error {
	return s.act(w, r, http.StatusCreated, func(j *pipeline.Job) (pipeline.Job, error) { return s.EraseJob(r.Context(), j.ID) })
}

func (s *server) keepArtifacts(w http.ResponseWriter, r *api.Request) error {
	return s.act(w, r, http.StatusOK, func(j *pipeline.Job) (pipeline.Job, error) { return *j, s.KeepArtifacts(r.Context(), j.ID) })
}

func (s *server) deleteArtifacts(w http.ResponseWriter, r *api.Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	if err := s.DeleteArtifacts(r.Context(), j.ID); err != nil {
		return err
	}
	return noContent(w)
}
