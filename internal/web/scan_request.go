package web

import (
	"context"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// scanRoutes registers what merge requests, pipelines and images offer of
// scans beside their own pages.
func (s *Server) scanRoutes() {
	if s.Pipelines != nil && s.Forge != nil {
		s.handleProject("GET /pipelines/{id}/scans", delivery.Guest, s.pipelineScans)
	}
	if s.Registry != nil {
		s.handleProject("GET /container_registry/{repository}/images/{digest}/report", delivery.Guest, s.imageReport)
	}
}

// scanFuncs are what the templates of merge requests and pipelines may call.
func (s *Server) scanFuncs() template.FuncMap {
	return template.FuncMap{"scanRequest": s.scanRequest, "scanPipeline": s.scanPipeline, "scanCounts": func(list []report.Finding) string { return report.CountsText(report.Counts(list)) }}
}

// basesTried is how many pipelines of the target are looked at for one that has
// scans: the newest may still run, or have none of the jobs that scan.
const basesTried = 20

// scanReadTime bounds what a page waits for scans.
const scanReadTime = 10 * time.Second

// scanDiff is what a pipeline brings in, against another one.
type scanDiff struct {
	Pipeline, Base         int64 // ids; Base is 0 where there is nothing to compare with
	Link, BaseLink, Target string
	New, Gone              []report.Finding
	Kept                   int
	Waiting                int      // scans that have not ended
	Failed                 []string // why others failed
	Demonstration          bool
	Images                 []scannedImage
}

type scannedImage struct {
	Name, Link string
	Scan       *scan.Scan
}

// pipelineScan is everything that scans found in one pipeline: those of the
// images that its jobs pushed, and those that its jobs reported.
type pipelineScan struct {
	known    bool // something was looked at
	findings []report.Finding
	waiting  int
	failed   []string
	images   []scannedImage
	demo     bool
	os       string
	scanner  string
	database report.Database
	at       time.Time
}

// scanRequest compares the scans of a merge request's pipeline with those of
// its target. It is nil where nothing was scanned or the caller may not know.
func (s *Server) scanRequest(page Page, m delivery.MergeRequest) (*scanDiff, error) {
	if s.Pipelines == nil || page.Project == nil || !mayReadScans(page) || m.HeadSHA == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), scanReadTime)
	defer cancel()
	id, _, err := s.Pipelines.HeadPipeline(ctx, page.Project.ID, m.HeadSHA)
	if err != nil || id == 0 {
		return nil, err
	}
	before := int64(0)
	if m.State == "merged" {
		before = id // the target has it by now
	}
	return s.scanDiff(ctx, page.Project, id, m.TargetBranch, before)
}

// scanPipeline compares a pipeline's scans with the former ones of the branch
// that it goes into: the merge request's target, else the default branch.
func (s *Server) scanPipeline(page Page, p pipeline.Pipeline) (*scanDiff, error) {
	if page.Project == nil || !mayReadScans(page) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), scanReadTime)
	defer cancel()
	target := page.Project.DefaultBranch
	if p.MergeRequestIID != 0 && s.Forge != nil {
		m, err := s.Forge.MergeRequest(ctx, page.Project.ID, p.MergeRequestIID)
		if err != nil && !delivery.IsNotFound(err) {
			return nil, err
		}
		if err == nil {
			target = m.TargetBranch
		}
	}
	return s.scanDiff(ctx, page.Project, p.ID, target, p.ID)
}

// mayReadScans: what is wrong with an image is for those who may read it.
func mayReadScans(page Page) bool {
	return page.Project.Visibility != delivery.Private || page.Role >= delivery.Reporter
}

// scanDiff compares a pipeline with the newest one of the target branch that
// has scans; before is the id that one must be below, or 0.
func (s *Server) scanDiff(ctx context.Context, p *delivery.Project, id int64, target string, before int64) (*scanDiff, error) {
	head, err := s.scansOf(ctx, p, id)
	if err != nil || !head.known {
		return nil, err
	}
	d := &scanDiff{Pipeline: id, Link: pipelineLink(p, id), Target: target, Waiting: head.waiting, Failed: head.failed, Images: head.images, Demonstration: head.demo, New: head.findings}
	base, baseID, err := s.scansOfTarget(ctx, p, target, id, before)
	if err != nil || baseID == 0 {
		return d, err
	}
	d.Base, d.BaseLink = baseID, pipelineLink(p, baseID)
	d.New, d.Kept = report.New(head.findings, base.findings), 0
	d.Kept = len(head.findings) - len(d.New)
	if head.waiting == 0 && len(head.failed) == 0 { // else it is not known to be gone
		d.Gone = report.New(base.findings, head.findings)
	}
	return d, nil
}

func (s *Server) scansOfTarget(ctx context.Context, p *delivery.Project, target string, not, before int64) (pipelineScan, int64, error) {
	var list []pipeline.Pipeline
	err := s.Pipelines.View(ctx, func(tx pipeline.Tx) error {
		var err error
		list, _, err = tx.Pipelines(pipeline.PipelineFilter{ProjectID: p.ID, Ref: target, BeforeID: before, OrderBy: "id", WithoutMany: true}, pipeline.Page{Limit: basesTried})
		return err
	})
	if err != nil {
		return pipelineScan{}, 0, err
	}
	for i := range list {
		if list[i].ID == not || list[i].Tag || list[i].MergeRequestIID != 0 {
			continue
		}
		base, err := s.scansOf(ctx, p, list[i].ID)
		if err != nil {
			return base, 0, err
		}
		if base.known && base.waiting == 0 && len(base.failed) == 0 {
			return base, list[i].ID, nil
		}
	}
	return pipelineScan{}, 0, nil
}

// scansOf gathers what scans found in a pipeline.
func (s *Server) scansOf(ctx context.Context, p *delivery.Project, id int64) (pipelineScan, error) {
	var out pipelineScan
	var jobs []int64
	if err := s.Pipelines.View(ctx, func(tx pipeline.Tx) error {
		list, err := tx.PipelineJobs(id)
		for i := range list {
			jobs = append(jobs, list[i].ID)
		}
		return err
	}); err != nil {
		return out, err
	}
	if s.Scan != nil {
		if err := s.scansOfJobs(ctx, p, jobs, &out); err != nil {
			return out, err
		}
	}
	if err := s.scansReported(ctx, id, &out); err != nil {
		return out, err
	}
	out.findings = report.Normalize(out.findings)
	return out, nil
}

// scansOfJobs adds the scans of the images that the jobs pushed and those that
// the jobs asked for.
func (s *Server) scansOfJobs(ctx context.Context, p *delivery.Project, jobs []int64, out *pipelineScan) error {
	if s.Registry != nil && len(jobs) > 0 {
		images, err := s.Registry.ImagesByJobs(ctx, jobs)
		if err != nil {
			return err
		}
		for _, image := range images {
			found, err := s.scanOf(ctx, image.Digest)
			if err != nil {
				return err
			}
			if found == nil {
				continue // artifacts and the parts of an index are not scanned
			}
			out.add(*found)
			name := image.Repository
			if len(image.Tags) > 0 {
				name += ":" + image.Tags[0]
			}
			out.images = append(out.images, scannedImage{name, imageLink(p, image), found})
		}
	}
	for _, job := range jobs {
		asked, err := s.Scan.OfJob(ctx, job)
		if err != nil {
			return err
		}
		for _, one := range asked {
			if one.Type == scan.TypeImage && slices.ContainsFunc(out.images, func(i scannedImage) bool { return i.Scan.Digest == one.Digest }) {
				continue
			}
			full, err := s.Scan.ScanByID(ctx, one.ID)
			if err != nil {
				return err
			}
			out.add(full)
		}
	}
	return nil
}

func imageLink(p *delivery.Project, image registry.Image) string {
	if image.ProjectID != p.ID {
		return ""
	}
	return projectPath(p.FullPath, "container_registry", strconv.FormatInt(image.RepositoryID, 10), "images", image.Digest)
}

// add takes one scan into the pipeline's.
func (o *pipelineScan) add(one scan.Scan) {
	o.known = true
	switch {
	case one.Status == scan.Failed:
		o.failed = append(o.failed, one.Name+": "+one.Error)
	case one.Status != scan.Success || one.Report == nil:
		o.waiting++
	default:
		r := one.Report
		o.findings = append(o.findings, r.Findings...)
		o.demo = o.demo || r.Database.Demonstration
		if r.EndedAt.After(o.at) {
			o.at, o.os, o.scanner, o.database = r.EndedAt, r.OS, r.Scanner, r.Database
		}
	}
}

// scannedKinds are the report types of jobs that count as scans.
var scannedKinds = []string{"sarif", "container_scanning", "dependency_scanning", "sast", "secret_detection", "dast"}

// scansReported adds what jobs reported in their artifacts. A problem that a
// stored scan names with its package is not counted again.
func (s *Server) scansReported(ctx context.Context, id int64, out *pipelineScan) error {
	have := map[string]bool{}
	for _, f := range out.findings {
		have[f.ID] = true
	}
	for _, kind := range scannedKinds {
		list, problems, err := s.Pipelines.Findings(ctx, id, kind)
		if err != nil {
			return err
		}
		for job, problem := range problems {
			out.known = true
			out.failed = append(out.failed, job+": "+problem)
		}
		for _, f := range list {
			out.known = true
			one := reported(kind, f)
			if have[one.ID] && one.Kind == report.Vulnerability {
				continue
			}
			out.findings = append(out.findings, one)
		}
	}
	return nil
}

// reported is a finding of a job's report in the scanner's form.
func reported(kind string, f pipeline.Finding) report.Finding {
	out := report.Finding{Kind: report.Misconfiguration, ID: f.Identifier, Severity: severityOf(f.Severity), Title: f.Name, Description: f.Description, Package: f.Package,
		Installed: f.Version, Target: f.File, URL: f.Link, Resolution: f.Solution, Source: f.Job}
	if out.ID == "" {
		out.ID = f.Name
	}
	switch {
	case f.Package != "" || kind == "container_scanning" || kind == "dependency_scanning" || strings.HasPrefix(out.ID, "CVE-"):
		out.Kind = report.Vulnerability
		if f.Package == "" {
			out.Package = f.File
		}
	case kind == "secret_detection":
		out.Kind = report.Secret
	}
	// A line moves when the file changes above it; it is not part of what makes
	// the problem the same.
	return out
}

func severityOf(word string) report.Severity {
	switch word {
	case "critical", "blocker":
		return report.Critical
	case "high", "error", "major":
		return report.High
	case "medium", "warning":
		return report.Medium
	case "low", "minor", "note", "info":
		return report.Low
	}
	return report.Unknown
}

// pipelineScans serves everything that scans found in a pipeline, or with
// new=1 what it brings in, as SARIF, GitLab's container-scanning report or json.
func (s *Server) pipelineScans(w http.ResponseWriter, r *Request) error {
	if err := mayReadImages(r); err != nil {
		return err
	}
	p, err := s.pipelineOf(r)
	if err != nil {
		return err
	}
	found, err := s.scansOf(r.Context(), r.Project, p.ID)
	if err == nil && !found.known {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "Nothing was scanned in this pipeline."}
	}
	if err != nil {
		return err
	}
	if r.FormValue("new") != "" {
		d, err := s.scanPipeline(Page{Project: r.Project, Role: r.Role}, p)
		if err != nil {
			return err
		}
		found.findings = d.New
	}
	name := "pipeline-" + strconv.FormatInt(p.ID, 10)
	rep := report.Report{Artifact: r.Project.FullPath + "@" + p.SHA, OS: found.os, Scanner: found.scanner, Database: found.database, StartedAt: p.CreatedAt, EndedAt: found.at, Findings: found.findings}
	if len(found.images) == 1 {
		rep.Artifact = s.registryHost() + "/" + found.images[0].Name
	}
	return writeReport(w, r, rep, name)
}

// imageReport serves the scan of an image in the formats of pipelineScans.
func (s *Server) imageReport(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	image, err := s.Registry.Image(r.Context(), repo.Path, r.PathValue("digest"))
	if err != nil {
		return err
	}
	found, err := s.scanOf(r.Context(), image.Digest)
	if err != nil {
		return err
	}
	if found == nil || found.Report == nil {
		return &delivery.Error{Kind: delivery.NotFound, Message: "This image has no scan that succeeded."}
	}
	return writeReport(w, r, *found.Report, "image-"+shortDigest(image.Digest))
}

func writeReport(w http.ResponseWriter, r *Request, rep report.Report, name string) error {
	var body []byte
	var err error
	format := r.FormValue("format")
	switch format {
	case "sarif":
		body, err = rep.SARIF()
		name += ".sarif"
	case "gitlab":
		body, err = rep.GitLab()
		name += "-container-scanning.json"
	case "", "json":
		body, err = json.MarshalIndent(rep, "", "  ")
		name += ".json"
	default:
		return &delivery.Error{Kind: delivery.Invalid, Message: "The format must be sarif, gitlab or json."}
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	if _, err := w.Write(body); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}
