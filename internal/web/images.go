package web

import (
	"cmp"
	"context"
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

// imageRoutes registers the pages of the container registry. Reading is as in
// the registry itself: a private project's images are for Reporters.
func (s *Server) imageRoutes() {
	s.handleProject("GET /container_registry", delivery.Guest, s.imagesPage)
	s.handleProject("POST /container_registry/policy", delivery.Maintainer, s.setImagePolicy)
	s.handleProject("POST /container_registry/policy/preview", delivery.Maintainer, s.previewImagePolicy)
	s.handleProject("GET /container_registry/{repository}", delivery.Guest, s.imageTagsPage)
	s.handleProject("POST /container_registry/{repository}/delete", delivery.Developer, s.deleteImageRepository)
	s.handleProject("POST /container_registry/{repository}/tags/{tag}/delete", delivery.Developer, s.deleteImageTag)
	s.handleProject("GET /container_registry/{repository}/images/{digest}", delivery.Guest, s.imagePage)
	s.handleProject("POST /container_registry/{repository}/images/{digest}/scan", delivery.Developer, s.scanImage)
}

type imagesView struct {
	Host         string
	Prefix       string // host/path to push to
	Repositories []registry.Repository
	Size         int64
	Policy       registry.Policy
	OlderDays    int
	CadenceDays  int
	Previewed    bool // Going are the tags that Policy, which is not set, would remove now
	Going        []registry.Expiring
}

// Name is the part of a repository's path below the project's.
func (v imagesView) Name(r registry.Repository) string {
	name := strings.TrimPrefix(v.Host+"/"+r.Path, v.Prefix)
	if name = strings.TrimPrefix(name, "/"); name == "" {
		return r.Path[strings.LastIndexByte(r.Path, '/')+1:]
	}
	return name
}

func mayReadImages(r *Request) error {
	if r.Project.Visibility == delivery.Private && r.Role < delivery.Reporter {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "The images of a private project need the role reporter."}
	}
	return nil
}

// registryHost is the registry's name in image references.
func (s *Server) registryHost() string {
	_, host, _ := strings.Cut(s.ExternalURL, "://")
	return host
}

func (s *Server) imagesPage(w http.ResponseWriter, r *Request) error {
	v, err := s.imagesOf(r)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "images", Page{Title: "Container registry", Active: "registry", Data: v})
}

// imagesOf gathers what the page of a project's images shows.
func (s *Server) imagesOf(r *Request) (imagesView, error) {
	v := imagesView{Host: s.registryHost()}
	if err := mayReadImages(r); err != nil {
		return v, err
	}
	ctx := r.Context()
	v.Prefix = v.Host + "/" + strings.ToLower(r.Project.FullPath)
	var err error
	if v.Repositories, err = s.Registry.Repositories(ctx, r.Project.ID); err != nil {
		return v, err
	}
	if v.Size, err = s.Registry.ProjectSize(ctx, r.Project.ID); err != nil {
		return v, err
	}
	policy, err := s.Registry.Policy(ctx, r.Project.ID)
	v.setPolicy(policy)
	return v, err
}

// previewImagePolicy shows what the policy in the form would remove now; it
// sets and removes nothing.
func (s *Server) previewImagePolicy(w http.ResponseWriter, r *Request) error {
	v, err := s.imagesOf(r)
	if err != nil {
		return err
	}
	v.setPolicy(policyOf(r))
	v.Previewed = true
	if v.Going, err = s.Registry.Preview(r.Context(), v.Policy); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "images", Page{Title: "Container registry", Active: "registry", Data: v})
}

func (v *imagesView) setPolicy(p registry.Policy) {
	const day = 24 * time.Hour
	v.Policy, v.OlderDays, v.CadenceDays = p, int(p.OlderThan/day), max(1, int(p.Cadence/day))
}

// policyOf reads the form of the clean-up policy.
func policyOf(r *Request) registry.Policy {
	number := func(name string) int {
		n, err := strconv.Atoi(r.FormValue(name))
		if err != nil {
			return 0 // an empty field is no limit
		}
		return n
	}
	return registry.Policy{
		ProjectID: r.Project.ID, Enabled: r.FormValue("enabled") != "", KeepN: number("keep_n"), OlderThan: time.Duration(number("older_than")) * 24 * time.Hour,
		Cadence: time.Duration(number("cadence")) * 24 * time.Hour, NameRegex: r.FormValue("name_regex"), KeepRegex: r.FormValue("name_regex_keep"),
	}
}

func (s *Server) setImagePolicy(w http.ResponseWriter, r *Request) error {
	if err := s.Registry.SetPolicy(r.Context(), policyOf(r)); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "container_registry"), "The clean-up policy is set.")
}

// imageRepository finds the repository that the address names, of the
// project that it names.
func (s *Server) imageRepository(r *Request) (registry.Repository, error) {
	if err := mayReadImages(r); err != nil {
		return registry.Repository{}, err
	}
	id, err := strconv.ParseInt(r.PathValue("repository"), 10, 64)
	if err != nil {
		return registry.Repository{}, notFound()
	}
	repo, err := s.Registry.Repository(r.Context(), id)
	if err == nil && repo.ProjectID != r.Project.ID {
		err = notFound()
	}
	return repo, err
}

type imageTag struct {
	registry.Tag
	By        string
	Scan      *scan.Scan
	Protected string // "protected" or "immutable", or empty
}

type imageTagsView struct {
	Host       string
	Repository registry.Repository
	Tags       []imageTag
	Untagged   []registry.Image // on the first page
	MayDelete  bool
	Search     string
	Total      int // tags that the search finds
	Prev, Next string
}

// tagsPerPage bounds a page of tags: each has its scan looked up.
const tagsPerPage = 50

func (s *Server) imageTagsPage(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	tags, err := s.Registry.Tags(ctx, repo.ID)
	if err != nil {
		return err
	}
	v := imageTagsView{Host: s.registryHost(), Repository: repo, MayDelete: r.Role >= delivery.Developer, Search: r.URL.Query().Get("search")}
	tags = slices.DeleteFunc(tags, func(t registry.Tag) bool { return !strings.Contains(t.Name, v.Search) })
	slices.SortStableFunc(tags, func(a, b registry.Tag) int { // the newest first
		return cmp.Or(b.PushedAt.Compare(a.PushedAt), cmp.Compare(b.Name, a.Name))
	})
	page := pageNumber(r)
	v.Total = len(tags)
	v.Prev, v.Next = pagerLinks(r, page, page*tagsPerPage < len(tags))
	from := min((page-1)*tagsPerPage, len(tags))
	rules, err := s.Registry.Protections(ctx, r.Project.ID)
	if err != nil {
		return err
	}
	scans := map[string]*scan.Scan{} // many tags may stand for one image
	for _, tag := range tags[from:min(from+tagsPerPage, len(tags))] {
		if _, ok := scans[tag.Digest]; !ok {
			if scans[tag.Digest], err = s.scanOf(ctx, tag.Digest); err != nil {
				return err
			}
		}
		v.Tags = append(v.Tags, imageTag{Tag: tag, By: s.userName(ctx, tag.UserID), Scan: scans[tag.Digest], Protected: registry.ProtectionOf(rules, tag.Name)})
	}
	if page > 1 || v.Search != "" {
		return s.render(w, r, http.StatusOK, "imagetags", Page{Title: repo.Path, Active: "registry", Data: v})
	}
	images, err := s.Registry.Images(ctx, repo.ID)
	if err != nil {
		return err
	}
	for _, image := range images {
		if len(image.Tags) == 0 {
			v.Untagged = append(v.Untagged, image)
		}
	}
	return s.render(w, r, http.StatusOK, "imagetags", Page{Title: repo.Path, Active: "registry", Data: v})
}

// userName returns a user's name for a page, or "" for one that is gone.
func (s *Server) userName(ctx context.Context, id int64) string {
	if id == 0 {
		return ""
	}
	u, err := s.Access.User(ctx, id)
	if err != nil {
		return "" // deleted since
	}
	return u.Username
}

// scanOf returns the latest scan of an image, or nil.
func (s *Server) scanOf(ctx context.Context, digest string) (*scan.Scan, error) {
	if s.Scan == nil {
		return nil, nil
	}
	found, err := s.Scan.Result(ctx, digest)
	if delivery.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &found, nil
}

type imageView struct {
	Host       string
	Repository registry.Repository
	Image      registry.Image
	By         string
	Pipeline   int64  // that built it; 0 when a person pushed it
	PipeRef    string // the branch or tag of that pipeline
	Commit     string // from the image's labels (OCI annotations "revision"), else the pipeline's
	Running    []string
	RunsKnown  bool
	HasCluster bool
	Scan       *scan.Scan
	Findings   []findingGroup
	Stale      bool   // the scan used another database than there is now
	Warning    string // the scan's database is too old to rely on
	MayScan    bool
}

func (s *Server) imagePage(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	v := imageView{Host: s.registryHost(), Repository: repo, HasCluster: s.RunsWhere != nil}
	if v.Image, err = s.Registry.Image(ctx, repo.Path, r.PathValue("digest")); err != nil {
		return err
	}
	v.By = s.userName(ctx, v.Image.UserID)
	v.Commit = v.Image.Labels["org.opencontainers.image.revision"]
	if err := s.imageOrigin(ctx, &v); err != nil {
		return err
	}
	if s.RunsWhere != nil {
		// The cluster may be away; the page says so rather than failing.
		v.Running, err = s.RunsWhere(ctx, v.Image)
		v.RunsKnown = err == nil
		if err != nil {
			s.Log.Warn("where an image runs is not known", "err", err)
		}
	}
	if v.Scan, err = s.scanOf(ctx, v.Image.Digest); err != nil {
		return err
	}
	if v.Scan != nil && v.Scan.Report != nil {
		v.Findings = groupFindings(v.Scan.Report.Findings)
		db, err := s.Scan.Database()
		v.Warning = v.Scan.Report.Database.Warning(time.Now())
		v.Stale = err == nil && !db.UpdatedAt.Equal(v.Scan.Report.Database.UpdatedAt)
	}
	v.MayScan = s.Scan != nil && r.Role >= delivery.Developer
	return s.render(w, r, http.StatusOK, "image", Page{Title: repo.Path + "@" + shortDigest(v.Image.Digest), Active: "registry", Data: v})
}

// imageOrigin finds the pipeline whose job pushed the image. A pipeline that
// has been deleted since leaves the job's number.
func (s *Server) imageOrigin(ctx context.Context, v *imageView) error {
	if v.Image.JobID == 0 || s.Pipelines == nil {
		return nil
	}
	err := s.Pipelines.View(ctx, func(tx pipeline.Tx) error {
		job, err := tx.Job(v.Image.JobID)
		if err != nil {
			return err
		}
		made, err := tx.Pipeline(job.PipelineID)
		if err != nil || made.ProjectID != v.Image.ProjectID {
			return err
		}
		v.Pipeline, v.PipeRef = made.ID, ciRefWord(made)
		if v.Commit == "" {
			v.Commit = made.SHA
		}
		return nil
	})
	if delivery.IsNotFound(err) {
		return nil
	}
	return err
}

// findingGroup is one problem with every place that has it.
type findingGroup struct {
	report.Finding
	Places []report.Finding
}

// groupFindings joins neighbours that are the same problem in several packages;
// findings come sorted by severity and id.
func groupFindings(findings []report.Finding) []findingGroup {
	var out []findingGroup
	for _, f := range findings {
		if n := len(out); n > 0 && f.Kind == report.Vulnerability && out[n-1].ID == f.ID && out[n-1].Severity == f.Severity {
			out[n-1].Places = append(out[n-1].Places, f)
			continue
		}
		out = append(out, findingGroup{f, []report.Finding{f}})
	}
	return out
}

// shortDigest is the beginning of a digest's value, as docker shows it.
func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(12, len(hex))]
}

func (s *Server) scanImage(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	if s.Scan == nil {
		return notFound()
	}
	image, err := s.Registry.Image(r.Context(), repo.Path, r.PathValue("digest"))
	if err != nil {
		return err
	}
	name := repo.Path + "@" + image.Digest
	if len(image.Tags) > 0 {
		name = repo.Path + ":" + image.Tags[0]
	}
	queued, err := s.Scan.Enqueue(r.Context(), scan.Scan{ProjectID: r.Project.ID, Type: scan.TypeImage, Repository: repo.Path, Digest: image.Digest, Name: name})
	if err != nil {
		return err
	}
	notice := "The scan is queued."
	if queued.Status == scan.Success {
		notice = "The image has been scanned with the present database already."
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "container_registry", strconv.FormatInt(repo.ID, 10), "images", image.Digest), notice)
}

func (s *Server) deleteImageTag(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	tag := r.PathValue("tag")
	if err := s.Registry.RemoveTag(r.Context(), imageCaller(r), repo, tag); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "container_registry", strconv.FormatInt(repo.ID, 10)), "The tag "+tag+" is gone. Its image goes with the next clean-up if nothing needs it.")
}

func (s *Server) deleteImageRepository(w http.ResponseWriter, r *Request) error {
	repo, err := s.imageRepository(r)
	if err != nil {
		return err
	}
	if r.FormValue("confirm") != repo.Path {
		return &delivery.Error{Kind: delivery.Invalid, Message: "The repository was not removed: its path was not typed in full."}
	}
	if err := s.Registry.RemoveRepository(r.Context(), imageCaller(r), repo); err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "container_registry"), "The repository "+repo.Path+" is gone.")
}
