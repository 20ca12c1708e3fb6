package scan

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// Resolver finds a stored image: the digest that a tag or digest of a
// repository of the project stands for. What is not there, or is another
// project's, gives an error of kind NotFound.
type Resolver func(ctx context.Context, projectID int64, repository, tagOrDigest string) (digest string, err error)

// Routes registers the scanner's part of the REST API. A job calls them with
// its token: it asks for a scan, waits for it and fetches the report.
func (s *Service) Routes(rt *api.Router, resolve Resolver) {
	h := &routes{s, resolve}
	read := api.Need{Role: delivery.Reporter, Scopes: []string{"read_api", delivery.ScopeJob}}
	write := api.Need{Role: delivery.Developer, Scopes: []string{delivery.ScopeJob}}
	rt.Handle("POST /projects/{project}/scans", write, h.create)
	rt.Handle("GET /projects/{project}/scans", read, h.list)
	rt.Handle("GET /projects/{project}/scans/{scan}", read, h.get)
	rt.Handle("GET /projects/{project}/scans/{scan}/report", read, h.report)
	rt.Handle("GET /scan/database", api.Need{Scopes: []string{"read_api", delivery.ScopeJob}}, h.database)
	rt.Handle("POST /scan/database", api.Need{Admin: true}, h.importDatabase)
	rt.Handle("POST /scan/database/update", api.Need{Admin: true}, h.updateDatabase)
	rt.Handle("POST /scan/database/demonstration", api.Need{Admin: true}, h.importDemonstration)
}

type routes struct {
	s       *Service
	resolve Resolver
}

type scanJSON struct {
	ID         int64          `json:"id"`
	ProjectID  int64          `json:"project_id"`
	JobID      int64          `json:"job_id,omitempty"`
	Type       Type           `json:"type"`
	Repository string         `json:"repository,omitempty"`
	Digest     string         `json:"digest,omitempty"`
	Name       string         `json:"name"`
	Status     Status         `json:"status"`
	Error      string         `json:"error,omitempty"`
	Counts     map[string]int `json:"counts,omitempty"`
	QueuedAt   time.Time      `json:"queued_at"`
	StartedAt  *time.Time     `json:"started_at,omitempty"`
	EndedAt    *time.Time     `json:"ended_at,omitempty"`
}

func describe(s Scan) scanJSON {
	out := scanJSON{ID: s.ID, ProjectID: s.ProjectID, JobID: s.JobID, Type: s.Type, Repository: s.Repository, Digest: s.Digest, Name: s.Name,
		Status: s.Status, Error: s.Error, Counts: s.Counts, QueuedAt: s.QueuedAt}
	if !s.StartedAt.IsZero() {
		out.StartedAt = &s.StartedAt
	}
	if !s.EndedAt.IsZero() {
		out.EndedAt = &s.EndedAt
	}
	return out
}

// create asks for the scan of an image ({"image": "group/project:tag"}), or
// scans the tar stream in the body (?type=fs&name=...). A file tree is scanned
// before the answer comes; an image's scan is waited for at the other route.
func (h *routes) create(w http.ResponseWriter, r *api.Request) error {
	if r.Who.Kind == delivery.JobToken && r.Who.ProjectID != r.Project.ID {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden - a job scans in its own project only")
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-tar") {
		q := r.URL.Query()
		scan, err := h.s.ScanTree(r.Context(), Scan{ProjectID: r.Project.ID, JobID: r.Who.JobID, Type: Type(q.Get("type")), Name: q.Get("name")}, r.Body)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusCreated, describe(scan))
	}
	var in struct {
		Image string `json:"image"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	repository, ref, err := splitImage(in.Image)
	if err != nil {
		return err
	}
	dgst, err := h.resolve(r.Context(), r.Project.ID, repository, ref)
	if err != nil {
		return err
	}
	scan, err := h.s.Enqueue(r.Context(), Scan{ProjectID: r.Project.ID, JobID: r.Who.JobID, Type: TypeImage, Repository: repository, Digest: dgst, Name: in.Image})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, describe(scan))
}

// splitImage reads [host/]group/project[/name][:tag][@digest]; a digest wins.
func splitImage(s string) (repository, ref string, err error) {
	rest, dgst, _ := strings.Cut(s, "@")
	tag := ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, tag = rest[:i], rest[i+1:]
	}
	if host, path, ok := strings.Cut(rest, "/"); ok && strings.ContainsAny(host, ".:") || host == "localhost" {
		rest = path
	}
	if rest == "" {
		return "", "", delivery.Errorf(delivery.Invalid, "image is missing: name it as group/project:tag")
	}
	switch {
	case dgst != "":
		return rest, dgst, nil
	case tag != "":
		return rest, tag, nil
	}
	return rest, "latest", nil
}

func (h *routes) list(w http.ResponseWriter, r *api.Request) error {
	page := api.PageOf(r.Request)
	scans, total, err := h.s.OfProject(r.Context(), r.Project.ID, page.PerPage, page.Offset())
	if err != nil {
		return err
	}
	items := []scanJSON{}
	for _, s := range scans {
		items = append(items, describe(s))
	}
	return api.List(w, r, page, total, items)
}

// maxWait bounds how long a request for a scan's end is held open.
const maxWait = 50 * time.Second

func (h *routes) find(r *api.Request) (Scan, error) {
	id, err := strconv.ParseInt(r.PathValue("scan"), 10, 64)
	if err != nil {
		return Scan{}, delivery.Errorf(delivery.Invalid, "scan_id is invalid")
	}
	ctx := r.Context()
	if seconds, err := strconv.Atoi(r.URL.Query().Get("wait")); err == nil && seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, min(time.Duration(seconds)*time.Second, maxWait))
		defer cancel()
	}
	scan, err := h.s.ScanByID(r.Context(), id)
	if err == nil && scan.ProjectID != r.Project.ID {
		err = delivery.Errorf(delivery.NotFound, "Scan Not Found")
	}
	if err != nil || !r.URL.Query().Has("wait") {
		return scan, err
	}
	return h.s.Wait(ctx, id)
}

func (h *routes) get(w http.ResponseWriter, r *api.Request) error {
	scan, err := h.find(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, describe(scan))
}

// report serves a scan's report as json (this package's own), sarif, or gitlab
// (container scanning).
func (h *routes) report(w http.ResponseWriter, r *api.Request) error {
	scan, err := h.find(r)
	if err != nil {
		return err
	}
	if scan.Report == nil {
		if scan.Status == Failed {
			return delivery.Errorf(delivery.Stalled, "The scan failed: %s", scan.Error)
		}
		return delivery.Errorf(delivery.Conflict, "The scan has not ended yet.")
	}
	var body []byte
	switch format := r.URL.Query().Get("format"); format {
	case "", "json":
		return api.WriteJSON(w, http.StatusOK, scan.Report)
	case "sarif":
		body, err = scan.Report.SARIF()
	case "gitlab":
		body, err = scan.Report.GitLab()
	default:
		return delivery.Errorf(delivery.Invalid, "format %q is not known: use json, sarif or gitlab", format)
	}
	if err != nil {
		return fmt.Errorf("scan: encode report: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(body); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

type databaseJSON struct {
	report.Database
	AgeSeconds int64 `json:"age_seconds"`
}

func (h *routes) writeDatabase(w http.ResponseWriter, db report.Database, err error) error {
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, databaseJSON{db, int64(h.s.cfg.Now().Sub(db.UpdatedAt).Seconds())})
}

func (h *routes) database(w http.ResponseWriter, r *api.Request) error {
	db, err := h.s.Database()
	return h.writeDatabase(w, db, err)
}

func (h *routes) importDatabase(w http.ResponseWriter, r *api.Request) error {
	name := r.URL.Query().Get("name")
	if name == "" {
		name = "imported file"
	}
	db, err := h.s.ImportDatabase(r.Context(), r.Body, name)
	return h.writeDatabase(w, db, err)
}

func (h *routes) updateDatabase(w http.ResponseWriter, r *api.Request) error {
	db, err := h.s.UpdateDatabase(r.Context())
	return h.writeDatabase(w, db, err)
}

func (h *routes) importDemonstration(w http.ResponseWriter, r *api.Request) error {
	db, err := h.s.ImportDemonstration(r.Context())
	return h.writeDatabase(w, db, err)
}
