package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Repositories lists the image repositories of a project by path; project 0
// lists all.
func (r *Registry) Repositories(ctx context.Context, projectID int64) ([]Repository, error) {
	return r.index.Repositories(ctx, projectID)
}

// Repository returns a repository by its id, or an error of kind NotFound.
func (r *Registry) Repository(ctx context.Context, id int64) (Repository, error) {
	return r.index.Repository(ctx, id)
}

// Tags lists the tags of a repository by name.
func (r *Registry) Tags(ctx context.Context, repositoryID int64) ([]Tag, error) {
	return r.index.Tags(ctx, repositoryID)
}

// Images lists the images of a repository, the latest first, without their
// references.
func (r *Registry) Images(ctx context.Context, repositoryID int64) ([]Image, error) {
	return r.index.Images(ctx, repositoryID)
}

// ProjectSize returns the bytes of the distinct blobs of a project's images.
func (r *Registry) ProjectSize(ctx context.Context, projectID int64) (int64, error) {
	return r.index.ProjectSize(ctx, projectID)
}

// ImagesByDigest finds an image in every repository that has it, with its
// references: what a running workload's digest stands for.
func (r *Registry) ImagesByDigest(ctx context.Context, dgst string) ([]Image, error) {
	return r.index.ImagesByDigest(ctx, dgst)
}

// ImagesByJobs lists the images that jobs pushed, with their references: what a
// pipeline made, also where others made the same.
func (r *Registry) ImagesByJobs(ctx context.Context, jobIDs []int64) ([]Image, error) {
	return r.index.ImagesByJobs(ctx, jobIDs)
}

// Image returns the image that a tag or digest of a repository names, or an
// error of kind NotFound.
func (r *Registry) Image(ctx context.Context, path, tagOrDigest string) (Image, error) {
	repo, err := r.index.RepositoryByPath(ctx, path)
	if err != nil {
		return Image{}, err
	}
	if !validDigest(tagOrDigest) {
		tag, err := r.index.Tag(ctx, repo.ID, tagOrDigest)
		if err != nil {
			return Image{}, err
		}
		tagOrDigest = tag.Digest
	}
	return r.index.Image(ctx, repo.ID, tagOrDigest)
}

// DeleteTag removes a tag. The image stays until the collector finds that
// nothing needs it.
func (r *Registry) DeleteTag(ctx context.Context, repositoryID int64, name string) error {
	repo, err := r.index.Repository(ctx, repositoryID)
	if err != nil {
		return err
	}
	stored, err := r.root.repository(ctx, repo.Path)
	if err != nil {
		return err
	}
	if err := stored.Tags(ctx).Untag(ctx, name); err != nil && !isMissing(err) {
		return fmt.Errorf("registry: delete tag %s:%s: %w", repo.Path, name, err)
	}
	return r.index.DeleteTag(ctx, repositoryID, name)
}

// DeleteImage removes a manifest with all its tags. Its blobs go with the next
// collection.
func (r *Registry) DeleteImage(ctx context.Context, repositoryID int64, dgst string) error {
	repo, err := r.index.Repository(ctx, repositoryID)
	if err != nil {
		return err
	}
	image, err := r.index.Image(ctx, repositoryID, dgst)
	if err != nil {
		return err
	}
	stored, err := r.root.repository(ctx, repo.Path)
	if err != nil {
		return err
	}
	for _, tag := range image.Tags {
		if err := stored.Tags(ctx).Untag(ctx, tag); err != nil && !isMissing(err) {
			return fmt.Errorf("registry: delete tag %s:%s: %w", repo.Path, tag, err)
		}
	}
	if err := r.root.removeManifest(ctx, stored, dgst); err != nil {
		return err
	}
	return r.index.DeleteImage(ctx, repositoryID, dgst)
}

// DeleteRepository removes a repository with its tags and images.
func (r *Registry) DeleteRepository(ctx context.Context, repositoryID int64) error {
	repo, err := r.index.Repository(ctx, repositoryID)
	if err != nil {
		return err
	}
	if err := r.root.vacuum.RemoveRepository(repo.Path); err != nil && !isMissing(err) {
		return fmt.Errorf("registry: delete repository %s: %w", repo.Path, err)
	}
	return r.index.DeleteRepository(ctx, repositoryID)
}

// DeleteProject removes every repository of a project that is gone. It is
// idempotent.
func (r *Registry) DeleteProject(ctx context.Context, projectID int64) error {
	if projectID == 0 {
		return errors.New("registry: delete project 0")
	}
	repos, err := r.index.Repositories(ctx, projectID)
	if err != nil {
		return err
	}
	for _, repo := range repos {
		if err := r.DeleteRepository(ctx, repo.ID); err != nil && !delivery.IsNotFound(err) {
			return err
		}
	}
	rules, err := r.index.Protections(ctx, projectID)
	if err != nil {
		return err
	}
	for _, p := range rules {
		if err := r.index.DeleteProtection(ctx, projectID, p.ID); err != nil && !delivery.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (rt *root) repository(ctx context.Context, name string) (distribution.Repository, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("registry: repository %q: %w", name, err)
	}
	repo, err := rt.store.Repository(ctx, named)
	if err != nil {
		return nil, fmt.Errorf("registry: repository %q: %w", name, err)
	}
	return repo, nil
}

func (rt *root) removeManifest(ctx context.Context, repo distribution.Repository, dgst string) error {
	manifests, err := repo.Manifests(ctx)
	if err == nil {
		err = manifests.Delete(ctx, digest.Digest(dgst))
	}
	if err != nil && !isMissing(err) {
		return fmt.Errorf("registry: delete manifest %s@%s: %w", repo.Named().Name(), dgst, err)
	}
	return nil
}

// isMissing reports whether err says that something is not in the storage.
func isMissing(err error) bool {
	var path driver.PathNotFoundError
	var tag distribution.ErrTagUnknown
	var repo distribution.ErrRepositoryUnknown
	var manifest distribution.ErrManifestUnknown
	var revision distribution.ErrManifestUnknownRevision
	return errors.As(err, &path) || errors.As(err, &tag) || errors.As(err, &repo) || errors.As(err, &manifest) ||
		errors.As(err, &revision) || errors.Is(err, distribution.ErrBlobUnknown)
}

// reconcile brings the catalogue in line with the storage, after a crash
// between the two or a restored backup: what is stored is recorded (with its
// event), and what is recorded but gone is forgotten.
func (r *Registry) reconcile(ctx context.Context) error {
	err := r.root.eachRepository(ctx, func(name string) error {
		return r.reconcileRepository(ctx, name)
	})
	if err != nil {
		return err
	}
	repos, err := r.index.Repositories(ctx, 0)
	if err != nil {
		return err
	}
	for _, repo := range repos {
		images, err := r.index.Images(ctx, repo.ID)
		if err != nil {
			return err
		}
		for _, image := range images {
			if !r.root.has(routeManifest, repo.Path, image.Digest) {
				r.log.Warn("registry: a recorded image is not in the storage; it is forgotten", "repository", repo.Path, "digest", image.Digest)
				if err := r.index.DeleteImage(ctx, repo.ID, image.Digest); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *Registry) reconcileRepository(ctx context.Context, name string) error {
	known := map[string]bool{}
	tags := map[string]string{}
	repo, err := r.index.RepositoryByPath(ctx, name)
	if err == nil {
		images, err := r.index.Images(ctx, repo.ID)
		if err != nil {
			return err
		}
		for _, image := range images {
			known[image.Digest] = true
		}
		list, err := r.index.Tags(ctx, repo.ID)
		if err != nil {
			return err
		}
		for _, t := range list {
			tags[t.Name] = t.Digest
		}
	} else if !delivery.IsNotFound(err) {
		return err
	}
	stored, err := r.root.repository(ctx, name)
	if err != nil {
		return err
	}
	names, err := stored.Tags(ctx).All(ctx)
	if err != nil && !isMissing(err) {
		return fmt.Errorf("registry: tags of %s: %w", name, err)
	}
	for _, tag := range names {
		if d := r.root.tagged(name, tag); d != "" && tags[tag] != d && r.root.has(routeManifest, name, d) {
			if err := r.recordStored(ctx, repo.ProjectID, name, tag, d); err != nil {
				return err
			}
			known[d] = true
		}
	}
	return r.root.eachManifest(ctx, stored, func(d string) error {
		if known[d] {
			return nil
		}
		return r.recordStored(ctx, repo.ProjectID, name, "", d)
	})
}

// recordStored records an image that is stored but not in the catalogue.
func (r *Registry) recordStored(ctx context.Context, projectID int64, name, tag, dgst string) error {
	raw, err := r.root.driver.GetContent(ctx, blobPath(dgst))
	if isMissing(err) {
		return nil // a link without its blob serves nothing; the sweep removes it
	}
	if err != nil {
		return fmt.Errorf("registry: read manifest %s@%s: %w", name, dgst, err)
	}
	if projectID == 0 {
		project, _, err := r.projectOf(ctx, delivery.Identity{Kind: delivery.SystemActor, Name: "registry"}, name)
		if delivery.IsNotFound(err) {
			r.log.Warn("registry: stored images belong to no project", "repository", name)
			return nil
		}
		if err != nil {
			return err
		}
		projectID = project.ID
	}
	blobs, err := r.root.blobs(name)
	if err != nil {
		return err
	}
	image, err := describe(ctx, blobs, raw, "")
	if err != nil {
		return err
	}
	if image.MediaType == "" {
		image.MediaType = v1.MediaTypeImageManifest
		if len(image.References) > 0 && image.References[0].Kind == ManifestReference {
			image.MediaType = v1.MediaTypeImageIndex
		}
	}
	image.ProjectID, image.Repository = projectID, name
	r.log.Info("registry: recording an image that was stored but not recorded", "repository", name, "tag", tag, "digest", dgst)
	return r.index.RecordPush(ctx, image, tag, r.now())
}

// eachRepository calls fn for every repository of the storage.
func (rt *root) eachRepository(ctx context.Context, fn func(name string) error) error {
	enumerator, ok := rt.store.(distribution.RepositoryEnumerator)
	if !ok {
		return errors.New("registry: the storage cannot list its repositories")
	}
	if err := enumerator.Enumerate(ctx, fn); err != nil && !isMissing(err) {
		return fmt.Errorf("registry: list repositories: %w", err)
	}
	return nil
}

// eachManifest calls fn for every manifest of a repository.
func (rt *root) eachManifest(ctx context.Context, repo distribution.Repository, fn func(dgst string) error) error {
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return fmt.Errorf("registry: manifests of %s: %w", repo.Named().Name(), err)
	}
	enumerator, ok := manifests.(distribution.ManifestEnumerator)
	if !ok {
		return errors.New("registry: the storage cannot list its manifests")
	}
	err = enumerator.Enumerate(ctx, func(d digest.Digest) error { return fn(string(d)) })
	if err != nil && !isMissing(err) {
		return fmt.Errorf("registry: manifests of %s: %w", repo.Named().Name(), err)
	}
	return nil
}

// Needed returns the stored images, each as repository@digest, that have a tag,
// are listed in an index, or are used by the cluster as far as that is known.
func (r *Registry) Needed(ctx context.Context) (map[string]bool, error) {
	used, err := r.inUse(ctx)
	if err != nil {
		r.log.Warn("registry: images without a tag are not looked at", "err", err)
	}
	repos, err := r.index.Repositories(ctx, 0)
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, repo := range repos {
		images, err := r.index.Images(ctx, repo.ID)
		if err != nil {
			return nil, err
		}
		for _, image := range images {
			keep := len(image.Tags) > 0 || used[image.Digest]
			if !keep {
				if keep, err = r.index.Listed(ctx, repo.ID, image.Digest); err != nil {
					return nil, err
				}
			}
			if keep {
				needed[repo.Path+"@"+image.Digest] = true
			}
		}
	}
	return needed, nil
}
