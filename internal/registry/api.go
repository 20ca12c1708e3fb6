package registry

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Routes registers the container registry's part of the REST API v4
// (doc/api/container_registry.md) and, beside it, what GitLab keeps in the
// project's settings or in the administration: the clean-up policy, an image's
// details, the cache and the collector. host is the registry's host:port as it
// appears in image names.
func (r *Registry) Routes(rt *api.Router, host string) {
	h := &routes{r, host}
	read := api.Need{Anyone: true, Role: delivery.Guest, Scopes: []string{"read_api", "read_registry"}}
	write := api.Need{Role: delivery.Developer}
	admin := api.Need{Admin: true}
	const repo = "/projects/{project}/registry/repositories"
	rt.Handle("GET "+repo, read, h.list)
	rt.Handle("DELETE "+repo+"/{repository}", write, h.deleteRepository)
	rt.Handle("GET "+repo+"/{repository}/tags", read, h.tags)
	rt.Handle("DELETE "+repo+"/{repository}/tags", write, h.deleteTags)
	rt.Handle("GET "+repo+"/{repository}/tags/{tag}", read, h.tag)
	rt.Handle("DELETE "+repo+"/{repository}/tags/{tag}", write, h.deleteTag)
	rt.Handle("GET "+repo+"/{repository}/images/{image}", read, h.image)
	rt.Handle("DELETE "+repo+"/{repository}/images/{image}", write, h.deleteImage)
	rt.Handle("GET /projects/{project}/registry/cleanup_policy", write, h.policy)
	rt.Handle("PUT /projects/{project}/registry/cleanup_policy", api.Need{Role: delivery.Maintainer}, h.setPolicy)
	rt.Handle("POST /projects/{project}/registry/cleanup_policy/preview", write, h.previewPolicy)
	h.protectionRoutes(rt)
	rt.Handle("GET /registry/repositories/{repository}", api.Need{Anyone: true, Scopes: []string{"read_api", "read_registry"}}, h.repository)
	rt.Handle("POST /registry/collect", admin, h.collect)
	rt.Handle("GET /registry/cache", admin, h.cache)
}

type routes struct {
	r    *Registry
	host string
}

type repositoryJSON struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"` // the part below the project's path
	Path      string    `json:"path"`
	ProjectID int64     `json:"project_id"`
	Location  string    `json:"location"`
	CreatedAt time.Time `json:"created_at"`
	TagsCount int       `json:"tags_count"`
	Images    int       `json:"images_count"`
	Size      int64     `json:"size"`
	Tags      []tagJSON `json:"tags,omitempty"`
}

type tagJSON struct {
	Name      string     `json:"name"`
	Path      string     `json:"path"`
	Location  string     `json:"location"`
	Digest    string     `json:"digest,omitempty"`
	Revision  string     `json:"revision,omitempty"`
	Short     string     `json:"short_revision,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	TotalSize int64      `json:"total_size,omitempty"`
	JobID     int64      `json:"job_id,omitempty"`
	UserID    int64      `json:"user_id,omitempty"`
}

func (h *routes) describe(repo Repository, project string) repositoryJSON {
	name := strings.TrimPrefix(strings.TrimPrefix(repo.Path, strings.ToLower(project)), "/")
	return repositoryJSON{ID: repo.ID, Name: name, Path: repo.Path, ProjectID: repo.ProjectID, Location: h.host + "/" + repo.Path,
		CreatedAt: repo.CreatedAt, TagsCount: repo.Tags, Images: repo.Images, Size: repo.Size}
}

func (h *routes) describeTag(repo Repository, t Tag) tagJSON {
	out := tagJSON{Name: t.Name, Path: repo.Path + ":" + t.Name, Location: h.host + "/" + repo.Path + ":" + t.Name,
		Digest: t.Digest, TotalSize: t.Size, JobID: t.JobID, UserID: t.UserID}
	if _, hex := splitDigest(t.Digest); len(hex) >= 9 {
		out.Revision, out.Short = hex, hex[:9]
	}
	if !t.PushedAt.IsZero() {
		out.CreatedAt = &t.PushedAt
	}
	return out
}

// admit applies the registry's own rule for reading: in a private project it
// asks for Reporter.
func (h *routes) admit(r *api.Request) error {
	if r.Project.Visibility == delivery.Private && r.Role < delivery.Reporter {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	return nil
}

// repositoryOf returns the repository that the request names, of the project
// that it names.
func (h *routes) repositoryOf(r *api.Request) (Repository, error) {
	if err := h.admit(r); err != nil {
		return Repository{}, err
	}
	id, err := strconv.ParseInt(r.PathValue("repository"), 10, 64)
	if err != nil {
		return Repository{}, delivery.Errorf(delivery.Invalid, "repository_id is invalid")
	}
	repo, err := h.r.Repository(r.Context(), id)
	if err == nil && repo.ProjectID != r.Project.ID {
		err = delivery.Errorf(delivery.NotFound, "Repository Not Found")
	}
	return repo, err
}

func (h *routes) list(w http.ResponseWriter, r *api.Request) error {
	if err := h.admit(r); err != nil {
		return err
	}
	repos, err := h.r.Repositories(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	page := api.PageOf(r.Request)
	items := []repositoryJSON{}
	for _, repo := range slicePage(repos, page) {
		item := h.describe(repo, r.Project.FullPath)
		if wanted(r, "tags") {
			if item.Tags, err = h.tagsOf(r, repo); err != nil {
				return err
			}
		}
		items = append(items, item)
	}
	return api.List(w, r, page, len(repos), items)
}

func wanted(r *api.Request, name string) bool {
	v, err := strconv.ParseBool(r.URL.Query().Get(name))
	return err == nil && v
}

func slicePage[T any](all []T, p api.Page) []T {
	from := min(p.Offset(), len(all))
	return all[from:min(from+p.PerPage, len(all))]
}

// repository serves a repository by its id alone, to who may read it.
func (h *routes) repository(w http.ResponseWriter, r *api.Request) error {
	id, err := strconv.ParseInt(r.PathValue("repository"), 10, 64)
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "id is invalid")
	}
	repo, err := h.r.Repository(r.Context(), id)
	if err != nil {
		return err
	}
	project, role, err := h.r.projects.VisibleProject(r.Context(), r.Who, strconv.FormatInt(repo.ProjectID, 10))
	if err != nil {
		return err
	}
	if project.Visibility == delivery.Private && role < delivery.Reporter {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	item := h.describe(repo, project.FullPath)
	if wanted(r, "tags") {
		if item.Tags, err = h.tagsOf(r, repo); err != nil {
			return err
		}
	}
	return api.WriteJSON(w, http.StatusOK, item)
}

func (h *routes) tagsOf(r *api.Request, repo Repository) ([]tagJSON, error) {
	tags, err := h.r.Tags(r.Context(), repo.ID)
	if err != nil {
		return nil, err
	}
	out := []tagJSON{}
	for _, t := range tags {
		out = append(out, h.describeTag(repo, t))
	}
	return out, nil
}

func (h *routes) deleteRepository(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	if err := h.r.RemoveRepository(r.Context(), callerOf(r), repo); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h *routes) tags(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	tags, err := h.r.Tags(r.Context(), repo.ID)
	if err != nil {
		return err
	}
	page := api.PageOf(r.Request)
	items := []tagJSON{}
	for _, t := range slicePage(tags, page) {
		items = append(items, h.describeTag(repo, t))
	}
	return api.List(w, r, page, len(tags), items)
}

func (h *routes) tag(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	t, err := h.r.index.Tag(r.Context(), repo.ID, r.PathValue("tag"))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.describeTag(repo, t))
}

func (h *routes) deleteTag(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	if err := h.r.RemoveTag(r.Context(), callerOf(r), repo, r.PathValue("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// deleteTags removes tags in bulk by the rules of a clean-up policy. GitLab
// answers 202 and works later; here they are gone when the answer comes.
func (h *routes) deleteTags(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	var in struct {
		NameRegex       string `json:"name_regex"`
		NameRegexDelete string `json:"name_regex_delete"`
		NameRegexKeep   string `json:"name_regex_keep"`
		KeepN           int    `json:"keep_n"`
		OlderThan       string `json:"older_than"`
	}
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if in.NameRegexDelete == "" {
		in.NameRegexDelete = in.NameRegex
	}
	older, err := parseAge(in.OlderThan)
	if err != nil || in.NameRegexDelete == "" {
		return delivery.Errorf(delivery.Invalid, "name_regex_delete is missing or older_than is invalid (use 1h, 7d, 1month)")
	}
	policy := Policy{ProjectID: r.Project.ID, NameRegex: in.NameRegexDelete, KeepRegex: in.NameRegexKeep, KeepN: in.KeepN, OlderThan: older}
	tags, err := h.r.Tags(r.Context(), repo.ID)
	if err != nil {
		return err
	}
	used, err := h.r.inUse(r.Context())
	if err != nil {
		return err
	}
	expired, err := policy.expired(repo.Path, tags, used, h.r.now())
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "name_regex_delete or name_regex_keep is not a valid regular expression")
	}
	g, err := h.r.guard(r.Context(), callerOf(r))
	if err == nil {
		err = g.delete(repo.Path)
	}
	if err != nil {
		return err
	}
	for _, t := range g.unprotected(expired) {
		if err := h.r.DeleteTag(r.Context(), repo.ID, t.Name); err != nil && !delivery.IsNotFound(err) {
			return err
		}
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type imageJSON struct {
	Digest       string            `json:"digest"`
	MediaType    string            `json:"media_type"`
	ArtifactType string            `json:"artifact_type,omitempty"`
	Subject      string            `json:"subject,omitempty"`
	Size         int64             `json:"size"`
	OS           string            `json:"os,omitempty"`
	Architecture string            `json:"architecture,omitempty"`
	Created      *time.Time        `json:"created,omitempty"`
	PushedAt     time.Time         `json:"pushed_at"`
	Tags         []string          `json:"tags"`
	Labels       map[string]string `json:"labels,omitempty"`
	Layers       []layerJSON       `json:"layers"`
	Manifests    []layerJSON       `json:"manifests,omitempty"`
	JobID        int64             `json:"job_id,omitempty"`
	UserID       int64             `json:"user_id,omitempty"`
}

type layerJSON struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Size      int64  `json:"size"`
	Platform  string `json:"platform,omitempty"`
	CreatedBy string `json:"created_by,omitempty"`
}

func (h *routes) image(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	image, err := h.r.Image(r.Context(), repo.Path, r.PathValue("image"))
	if err != nil {
		return err
	}
	out := imageJSON{Digest: image.Digest, MediaType: image.MediaType, ArtifactType: image.ArtifactType, Subject: image.Subject, Size: image.Size,
		OS: image.OS, Architecture: image.Architecture, PushedAt: image.PushedAt, Tags: append([]string{}, image.Tags...), Labels: image.Labels,
		Layers: []layerJSON{}, JobID: image.JobID, UserID: image.UserID}
	if !image.Created.IsZero() {
		out.Created = &image.Created
	}
	for _, d := range image.References {
		item := layerJSON{d.Digest, d.MediaType, d.Size, d.Platform, d.CreatedBy}
		switch d.Kind {
		case LayerReference:
			out.Layers = append(out.Layers, item)
		case ManifestReference:
			out.Manifests = append(out.Manifests, item)
		}
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func (h *routes) deleteImage(w http.ResponseWriter, r *api.Request) error {
	repo, err := h.repositoryOf(r)
	if err != nil {
		return err
	}
	if err := h.r.RemoveImage(r.Context(), callerOf(r), repo, r.PathValue("image")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *routes) collect(w http.ResponseWriter, r *api.Request) error {
	collect := h.r.Collect
	if wanted(r, "untagged") {
		collect = h.r.CollectUntagged
	}
	done, err := collect(r.Context())
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{
		"tags": done.Tags, "images": done.Images, "blobs": done.Blobs, "bytes": done.Bytes, "seconds": done.Duration.Seconds(),
		"waiting_images": done.WaitingImages, "waiting_blobs": done.WaitingBlobs, "waiting_bytes": done.WaitingBytes,
	})
}

func (h *routes) cache(w http.ResponseWriter, r *api.Request) error {
	images, err := h.r.CachedImages(r.Context())
	if err != nil {
		return err
	}
	items := []map[string]any{}
	for _, image := range images {
		item := map[string]any{"reference": image.Reference, "digest": image.Digest, "size": image.Size, "seeded": image.Seeded}
		if !image.LastUsed.IsZero() {
			item["last_used_at"] = image.LastUsed.UTC()
		}
		items = append(items, item)
	}
	return api.WriteJSON(w, http.StatusOK, items)
}
