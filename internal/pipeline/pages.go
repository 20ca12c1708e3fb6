package pipeline

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// pagesSite is a published site: a folder of a stored archive.
type pagesSite struct {
	SHA256 string `json:"sha256"`
	JobID  int64  `json:"job_id"`
	Folder string `json:"folder"`
}

func pagesSetting(projectID int64, prefix string) string {
	return "pages " + strconv.FormatInt(projectID, 10) + " " + prefix
}

// publish makes the archive of a pages job the project's site. The archive gets
// a row of its own, so that it outlives the job's artifacts.
func (u *unit) publish(lp *live, j *Job, options *gitlabci.Job) error {
	list, err := u.tx.Artifacts(j.ID)
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.Type != "archive" {
			continue
		}
		scope := gitlabci.Merge(factVariables(lp.rec.Facts), options.Variables).Lookup()
		prefix := cleanPath(gitlabci.Expand(options.Pages.PathPrefix, scope))
		kept := Artifact{JobID: a.JobID, PipelineID: a.PipelineID, ProjectID: a.ProjectID, Type: "pages", Format: a.Format, Filename: a.Filename, Size: a.Size, SHA256: a.SHA256}
		if err := u.tx.InsertArtifact(&kept); err != nil {
			return err
		}
		folder := gitlabci.Expand(options.Pages.Publish, scope)
		setDefault(&folder, "public")
		site, err := json.Marshal(pagesSite{SHA256: a.SHA256, JobID: j.ID, Folder: cleanPath(folder)})
		if err != nil {
			return fmt.Errorf("pipeline: pages: %w", err)
		}
		return u.tx.SetSetting(pagesSetting(j.ProjectID, prefix), string(site))
	}
	return nil
}

// ServePages serves the sites of projects below /pages/<group>/<project>/.
// visible decides whether the caller may see a project, by its full path; its
// error is written as it is. Sites cannot act for the signed-in user: they are
// sandboxed into an origin of their own.
func (e *Engine) ServePages(visible func(r *http.Request, fullPath string) (delivery.Project, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.servePage(w, r, visible); err != nil {
			status := http.StatusInternalServerError
			switch delivery.KindOf(err) {
			case delivery.NotFound, delivery.Forbidden, delivery.Unauthenticated:
				status = http.StatusNotFound
			default:
				e.log.Error("page not served", "path", r.URL.Path, "err", err)
			}
			http.Error(w, http.StatusText(status), status)
		}
	})
}

func (e *Engine) servePage(w http.ResponseWriter, r *http.Request, visible func(*http.Request, string) (delivery.Project, error)) error {
	parts := strings.Split(strings.TrimPrefix(path.Clean(r.URL.Path), "/pages/"), "/")
	for n := 2; n <= len(parts); n++ {
		project, err := visible(r, strings.Join(parts[:n], "/"))
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		site, rest, err := e.pagesOf(r.Context(), project.ID, parts[n:])
		if err != nil {
			return err
		}
		if len(parts) == n && !strings.HasSuffix(r.URL.Path, "/") {
			http.Redirect(w, r, r.URL.Path+"/", http.StatusFound)
			return nil
		}
		return e.sendPage(w, site, rest)
	}
	return &delivery.Error{Kind: delivery.NotFound, Message: "Page Not Found"}
}

// pagesOf finds the site for a path: one with a path prefix before the main one.
func (e *Engine) pagesOf(ctx context.Context, projectID int64, rest []string) (pagesSite, []string, error) {
	var site pagesSite
	at := -1
	err := e.store.View(ctx, func(tx Tx) error {
		for n := min(len(rest), 3); n >= 0; n-- {
			text, err := tx.Setting(pagesSetting(projectID, strings.Join(rest[:n], "/")))
			if err != nil {
				return err
			}
			if text != "" {
				at = n
				return json.Unmarshal([]byte(text), &site)
			}
		}
		return nil
	})
	if err == nil && at < 0 {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "Page Not Found"}
	}
	if err != nil {
		return site, nil, err
	}
	return site, rest[at:], nil
}

// sendPage sends a file of the site, index.html for a folder, and 404.html
// where there is no such file.
func (e *Engine) sendPage(w http.ResponseWriter, site pagesSite, rest []string) error {
	z, err := zip.OpenReader(e.artifactPath(site.SHA256))
	if err != nil {
		return &delivery.Error{Kind: delivery.NotFound, Message: "Page Not Found", Err: err}
	}
	defer z.Close()
	want := path.Join(site.Folder, cleanPath(strings.Join(rest, "/"))) // never above the folder
	status := http.StatusOK
	file := find(z.File, want, path.Join(want, "index.html"), want+".html")
	if file == nil {
		status = http.StatusNotFound
		if file = find(z.File, path.Join(site.Folder, "404.html")); file == nil {
			return &delivery.Error{Kind: delivery.NotFound, Message: "Page Not Found"}
		}
	}
	body, err := file.Open()
	if err != nil {
		return fmt.Errorf("pipeline: pages: %w", err)
	}
	defer body.Close()
	media := mime.TypeByExtension(path.Ext(file.Name))
	setDefault(&media, "application/octet-stream")
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.FormatUint(file.UncompressedSize64, 10))
	h.Set("Content-Security-Policy", "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "max-age=60")
	w.WriteHeader(status)
	if _, err := io.Copy(w, body); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		e.log.Debug("page not sent to the end", "err", err)
	}
	return nil
}

// find returns the first file that has one of the names, in their order.
func find(files []*zip.File, names ...string) *zip.File {
	for _, name := range names {
		for _, f := range files {
			if cleanPath(f.Name) == cleanPath(name) && !f.FileInfo().IsDir() {
				return f
			}
		}
	}
	return nil
}
