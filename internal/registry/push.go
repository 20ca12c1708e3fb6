package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// recordTimeout bounds the catalogue's part of a push, which goes on when the
// client has gone away: the engine has stored the manifest by then.
const recordTimeout = 30 * time.Second

// putManifest stores a manifest by way of the engine and records it. The client
// is told only when both have happened; a push that failed in between is
// recorded by the next collection, or by the client's own retry.
func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, c *claims, rt route) error {
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxManifest+1))
	if err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Op: "registry: read manifest", Err: err}
	}
	if len(raw) > maxManifest {
		return delivery.Errorf(delivery.TooLarge, "A manifest may have at most %d bytes.", maxManifest)
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return delivery.Errorf(delivery.Invalid, "The manifest is not valid JSON: %v", err)
	}
	entry, _ := c.entry(rt.name)
	if entry.Meta == nil {
		return fmt.Errorf("registry: token for %s names no project", rt.name)
	}
	if err := r.checkSpace(int64(len(raw))); err != nil {
		return err
	}
	if err := r.checkQuota(req.Context(), c, rt.name, doc.references()); err != nil {
		return err
	}
	dgst := string(digest.FromBytes(raw))
	release, err := r.admitTag(req.Context(), c, rt, dgst)
	if err != nil {
		return err
	}
	defer release()
	r.root.seen.note(append(doc.digests(), dgst)...)
	req.Body = io.NopCloser(bytes.NewReader(raw))
	req.ContentLength = int64(len(raw))
	answer := newBuffered()
	r.engine.ServeHTTP(answer, req)
	if answer.status == http.StatusCreated {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), recordTimeout)
		defer cancel()
		mediaType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
		if err := r.record(ctx, c, entry.Meta.ProjectID, rt, raw, mediaType); err != nil {
			return err
		}
		if doc.Subject != nil {
			answer.header.Set("OCI-Subject", string(doc.Subject.Digest))
		}
	}
	answer.flush(w)
	return nil
}

func (r *Registry) record(ctx context.Context, c *claims, projectID int64, rt route, raw []byte, mediaType string) error {
	blobs, err := r.root.blobs(rt.name)
	if err != nil {
		return err
	}
	image, err := describe(ctx, blobs, raw, mediaType)
	if err != nil {
		return err
	}
	image.ProjectID, image.Repository = projectID, rt.name
	image.UserID, image.JobID = c.UserID, c.JobID
	tag := rt.reference
	if validDigest(tag) {
		tag = ""
	}
	return r.index.RecordPush(ctx, image, tag, r.now())
}

func (r *Registry) deleteManifest(w http.ResponseWriter, req *http.Request, c *claims, rt route) error {
	if err := r.admitDelete(req.Context(), c, rt); err != nil {
		return err
	}
	answer := newBuffered()
	r.engine.ServeHTTP(answer, req)
	if answer.status == http.StatusAccepted || answer.status == http.StatusNotFound {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), recordTimeout)
		defer cancel()
		repo, err := r.index.RepositoryByPath(ctx, rt.name)
		if err == nil {
			if validDigest(rt.reference) {
				err = r.index.DeleteImage(ctx, repo.ID, rt.reference)
			} else {
				err = r.index.DeleteTag(ctx, repo.ID, rt.reference)
			}
		}
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
	}
	answer.flush(w)
	return nil
}

// deleteBlob removes a blob from a repository unless an image there needs it.
func (r *Registry) deleteBlob(w http.ResponseWriter, req *http.Request, rt route) error {
	repo, err := r.index.RepositoryByPath(req.Context(), rt.name)
	if err != nil && !delivery.IsNotFound(err) {
		return err
	}
	if err == nil {
		used, err := r.index.Referenced(req.Context(), repo.ID, rt.reference)
		if err != nil {
			return err
		}
		if used {
			return delivery.Errorf(delivery.Conflict, "An image of this repository needs the blob; delete the image first.")
		}
	}
	r.engine.ServeHTTP(w, req)
	return nil
}

// serveReferrers lists the artifacts about an image (distribution-spec,
// "Listing Referrers").
func (r *Registry) serveReferrers(w http.ResponseWriter, req *http.Request, rt route) error {
	var list []v1.Descriptor
	repo, err := r.index.RepositoryByPath(req.Context(), rt.name)
	if err != nil && !delivery.IsNotFound(err) {
		return err
	}
	if err == nil {
		images, err := r.index.Referrers(req.Context(), repo.ID, rt.reference)
		if err != nil {
			return err
		}
		for _, image := range images {
			list = append(list, v1.Descriptor{
				MediaType: image.MediaType, Digest: digest.Digest(image.Digest), Size: image.ManifestSize,
				ArtifactType: image.ArtifactType, Annotations: image.Annotations,
			})
		}
	}
	return writeReferrers(w, req, list)
}

// writeReferrers answers with those of the artifacts that the request asks for.
// Without any the list is empty: a subject need not be there.
func writeReferrers(w http.ResponseWriter, req *http.Request, list []v1.Descriptor) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return &delivery.Error{Kind: delivery.Unimplemented, Message: "Referrers can only be listed."}
	}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	wanted := req.URL.Query().Get("artifactType")
	for _, d := range list {
		if wanted == "" || d.ArtifactType == wanted {
			index.Manifests = append(index.Manifests, d)
		}
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	body, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("registry: encode referrers: %w", err)
	}
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if req.Method == http.MethodGet {
		w.Write(body)
	}
	return nil
}

// checkQuota refuses what would take a project over its quota: the blobs named
// by references count as far as the project does not have them yet.
func (r *Registry) checkQuota(ctx context.Context, c *claims, name string, references []Descriptor) error {
	entry, _ := c.entry(name)
	if r.cfg.ProjectQuota <= 0 || entry.Meta == nil {
		return nil
	}
	size, err := r.index.ProjectSize(ctx, entry.Meta.ProjectID)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	var digests []string
	for _, d := range references {
		if _, known := sizes[d.Digest]; !known && d.Kind != ManifestReference {
			sizes[d.Digest] = d.Size
			digests = append(digests, d.Digest)
		}
	}
	if len(digests) > 0 {
		missing, err := r.index.Missing(ctx, entry.Meta.ProjectID, digests)
		if err != nil {
			return err
		}
		for _, d := range missing {
			size += sizes[d]
		}
	}
	if size > r.cfg.ProjectQuota || references == nil && size == r.cfg.ProjectQuota {
		return &delivery.Error{Kind: delivery.Forbidden,
			Message: fmt.Sprintf("The project %s may keep %s of images, and this push would make it %s.", entry.Meta.ProjectPath, delivery.BytesText(r.cfg.ProjectQuota), delivery.BytesText(size)),
			Next:    "Delete tags that are no longer needed or set a clean-up policy."}
	}
	return nil
}

// checkSpace refuses uploads while the disk is nearly full, so that a push
// never harms the rest of the platform.
func (r *Registry) checkSpace(incoming int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(r.dir, &fs); err != nil {
		return fmt.Errorf("registry: free space of %s: %w", r.dir, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if free-max(incoming, 0) < r.cfg.MinFree {
		return &delivery.Error{Kind: delivery.Forbidden,
			Message: fmt.Sprintf("The server's disk is nearly full: %s free, and %s are kept free.", delivery.BytesText(free), delivery.BytesText(r.cfg.MinFree)),
			Next:    "Ask an administrator to free some space, then push again."}
	}
	return nil
}

// buffered holds a small response until it is known to be the right one.
type buffered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newBuffered() *buffered { return &buffered{header: http.Header{}} }

func (b *buffered) Header() http.Header { return b.header }

func (b *buffered) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

func (b *buffered) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	return b.body.Write(p)
}

func (b *buffered) flush(w http.ResponseWriter) {
	for k, v := range b.header {
		w.Header()[k] = v
	}
	w.WriteHeader(max(b.status, http.StatusOK))
	w.Write(b.body.Bytes())
}
