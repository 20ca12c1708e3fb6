package web

import (
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func (s *Server) artifactRoutes() {
	guest, developer := delivery.Guest, delivery.Developer
	s.handleProject("GET /jobs/{id}/artifacts/browse", guest, s.browseArtifacts)
	s.handleProject("GET /jobs/{id}/artifacts/browse/{path...}", guest, s.browseArtifacts)
	s.handleProject("GET /jobs/{id}/artifacts/file/{path...}", guest, s.artifactFile)
	s.handleProject("GET /jobs/{id}/artifacts/raw/{path...}", guest, s.artifactRaw)
	s.handleProject("GET /jobs/{id}/artifacts/download", guest, s.downloadArtifacts)
	s.handleProject("POST /jobs/{id}/artifacts/keep", developer, s.keepArtifacts)
	s.handleProject("POST /jobs/{id}/artifacts/delete", delivery.Maintainer, s.deleteArtifacts)
	s.handleProject("GET /artifacts", guest, s.projectArtifacts)
}

// artifactsView is what a job has stored.
type artifactsView struct {
	Archive *pipeline.Artifact
	Reports []pipeline.Artifact
	Base    string
	Expired bool
	MayKeep bool
	MayDrop bool
}

// artifactAccess checks artifacts:access of the job's configuration: all,
// developer, maintainer or none.
func artifactAccess(r *Request, j *pipeline.JobView) bool {
	if j.Options == nil || j.Options.Artifacts == nil {
		return true
	}
	switch j.Options.Artifacts.Access {
	case "developer":
		return r.Role >= delivery.Developer
	case "maintainer":
		return r.Role >= delivery.Maintainer
	case "none":
		return false
	}
	return true
}

// artifactsOf returns the job's artifacts, nil where it has none for the
// caller.
func (s *Server) artifactsOf(r *Request, j *pipeline.JobView) (*artifactsView, error) {
	if len(j.Artifacts) == 0 || !artifactAccess(r, j) {
		return nil, nil
	}
	v := &artifactsView{Base: jobLink(r.Project, j.Job.ID) + "/artifacts"}
	for i := range j.Artifacts {
		a := &j.Artifacts[i]
		switch a.Type {
		case "archive":
			v.Archive = a
			v.Expired = !a.ExpireAt.IsZero() && !a.ExpireAt.After(s.Pipelines.Now())
		case "metadata":
		default:
			v.Reports = append(v.Reports, *a)
		}
	}
	may, err := s.mayAct(r, &j.Pipeline)
	v.MayKeep = may && v.Archive != nil && !v.Archive.ExpireAt.IsZero() && !v.Expired
	v.MayDrop = may && r.Role >= delivery.Maintainer
	if v.Archive == nil && len(v.Reports) == 0 {
		return nil, err
	}
	return v, err
}

// artifactJob finds the job of the path and checks access to its artifacts.
func (s *Server) artifactJob(r *Request) (pipeline.JobView, error) {
	j, err := s.jobOf(r)
	if err == nil && !artifactAccess(r, &j) {
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "The job keeps its artifacts from your role."}
	}
	return j, err
}

// browseView is a folder of a job's artifacts.
type browseView struct {
	Job    pipeline.Job
	Link   string
	Base   string
	Folder string
	Crumbs []crumb
	Rows   []browseRow
	Size   int64
}

type browseRow struct {
	Name, Link, Raw string
	Folder          bool
	Size            int64
}

func (s *Server) browseArtifacts(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	folder := strings.Trim(r.PathValue("path"), "/")
	entries, err := s.Pipelines.ArtifactEntries(r.Context(), j.Job.ID, folder)
	if err != nil {
		return err
	}
	if folder != "" && len(entries) == 0 {
		return notFound()
	}
	v := browseView{Job: j.Job, Link: jobLink(r.Project, j.Job.ID), Base: jobLink(r.Project, j.Job.ID) + "/artifacts", Folder: folder}
	v.Crumbs = []crumb{{"artifacts", v.Base + "/browse"}}
	at := ""
	for _, part := range strings.Split(folder, "/") {
		if part != "" {
			at += "/" + part
			v.Crumbs = append(v.Crumbs, crumb{part, v.Base + "/browse" + escapePath(at)})
		}
	}
	for _, e := range entries {
		row := browseRow{Name: path.Base(strings.TrimSuffix(e.Path, "/")), Folder: e.Mode.IsDir(), Size: e.Size}
		escaped := escapePath(strings.TrimSuffix(e.Path, "/"))
		row.Link = v.Base + "/file/" + escaped
		row.Raw = v.Base + "/raw/" + escaped
		if row.Folder {
			row.Name += "/"
			row.Link = v.Base + "/browse/" + escaped
		}
		v.Size += e.Size
		v.Rows = append(v.Rows, row)
	}
	return s.render(w, r, http.StatusOK, "ci_browse", Page{Title: "Artifacts of " + j.Job.Name, Active: "jobs", Data: v})
}

// artifactFileView is one text of a job's artifacts.
type artifactFileView struct {
	browseView
	Name, Raw string
	Lines     []string
	Image     bool
	Binary    bool
	TooBig    bool
}

func (s *Server) artifactFile(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	name := strings.Trim(r.PathValue("path"), "/")
	f, err := s.Pipelines.OpenArtifactEntry(r.Context(), j.Job.ID, name)
	if err != nil {
		return err
	}
	defer f.Body.Close()
	v := artifactFileView{Name: path.Base(name)}
	v.Job, v.Link, v.Base = j.Job, jobLink(r.Project, j.Job.ID), jobLink(r.Project, j.Job.ID)+"/artifacts"
	v.Raw, v.Size = v.Base+"/raw/"+escapePath(name), f.Size
	v.Crumbs = []crumb{{"artifacts", v.Base + "/browse"}, {name, v.Base + "/file/" + escapePath(name)}}
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".webp":
		v.Image = true
	}
	if v.TooBig = f.Size > maxShown; !v.TooBig && !v.Image {
		body, err := io.ReadAll(io.LimitReader(f.Body, maxShown))
		if err != nil {
			return &delivery.Error{Kind: delivery.Invalid, Message: "The file cannot be unpacked.", Err: err}
		}
		if v.Binary = isBinary(body) || !utf8.Valid(body); !v.Binary {
			v.Lines = strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
		}
	}
	return s.render(w, r, http.StatusOK, "ci_artifact", Page{Title: v.Name, Active: "jobs", Data: v})
}

// artifactRaw sends one file. What jobs made must not run in the pages'
// origin: images are shown, texts are sent as such, all else is downloaded.
func (s *Server) artifactRaw(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	f, err := s.Pipelines.OpenArtifactEntry(r.Context(), j.Job.ID, r.PathValue("path"))
	if err != nil {
		return err
	}
	kind := "application/octet-stream"
	switch strings.ToLower(path.Ext(f.Filename)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".webp":
		kind = mime.TypeByExtension(strings.ToLower(path.Ext(f.Filename)))
	case ".txt", ".log", ".md", ".json", ".yml", ".yaml", ".csv", ".xml", ".env", ".html", ".css", ".js":
		kind = "text/plain; charset=utf-8"
	}
	return s.sendArtifact(w, f, kind)
}

func (s *Server) downloadArtifacts(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	kind := r.FormValue("file_type")
	if kind == "" {
		kind = "archive"
	}
	f, err := s.Pipelines.OpenArtifact(r.Context(), j.Job.ID, kind)
	if err != nil {
		return err
	}
	return s.sendArtifact(w, f, "application/octet-stream")
}

func (s *Server) sendArtifact(w http.ResponseWriter, f delivery.ArtifactFile, kind string) error {
	defer f.Body.Close()
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	if kind == "application/octet-stream" {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Filename}))
	}
	if _, err := io.Copy(w, f.Body); err != nil {
		s.Log.Warn("artifact was not sent whole", "file", f.Filename, "err", err)
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

func (s *Server) keepArtifacts(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &j.Pipeline); err != nil {
		return err
	}
	if err := s.Pipelines.KeepArtifacts(r.Context(), j.Job.ID); err != nil {
		return err
	}
	return redirect(w, r, jobLink(r.Project, j.Job.ID), "The artifacts are kept for good.")
}

func (s *Server) deleteArtifacts(w http.ResponseWriter, r *Request) error {
	j, err := s.artifactJob(r)
	if err != nil {
		return err
	}
	if err := s.requireAct(r, &j.Pipeline); err != nil {
		return err
	}
	if err := s.Pipelines.DeleteArtifacts(r.Context(), j.Job.ID); err != nil {
		return err
	}
	return redirect(w, r, jobLink(r.Project, j.Job.ID), "The artifacts are deleted.")
}

// artifactsPageView lists the artifacts of a project.
type artifactsPageView struct {
	Rows       []projectArtifact
	Prev, Next string
	Total      int
}

type projectArtifact struct {
	pipeline.Artifact
	JobName, Ref, Link, PipeLink string
	Expired                      bool
}

func (s *Server) projectArtifacts(w http.ResponseWriter, r *Request) error {
	page := pageNumber(r)
	var v artifactsPageView
	now := s.Pipelines.Now()
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		list, total, err := tx.ProjectArtifacts(r.Project.ID, pipeline.Page{Limit: jobsOnPage, Offset: (page - 1) * jobsOnPage})
		if err != nil {
			return err
		}
		v.Total = total
		for _, a := range list {
			j, err := tx.Job(a.JobID)
			if err != nil {
				return err
			}
			p, err := tx.Pipeline(a.PipelineID)
			if err != nil {
				return err
			}
			v.Rows = append(v.Rows, projectArtifact{a, j.Name, ciRefWord(p), jobLink(r.Project, j.ID), pipelineLink(r.Project, p.ID), expired(a.ExpireAt, now)})
		}
		return nil
	}); err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, page*jobsOnPage < v.Total)
	return s.render(w, r, http.StatusOK, "ci_artifacts", Page{Title: "Artifacts", Active: "jobs", Data: v})
}

func expired(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }
