package registry

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	container "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Seed stores an image in the cache under its public name, such as
// docker.io/library/debian:bookworm-slim, so that it serves while the upstream
// is away. It stays until it is deleted; when the upstream answers, a tag means
// what it means there. It returns the image's digest.
func (r *Registry) Seed(ctx context.Context, ref string, image container.Image) (string, error) {
	parsed, ok := ParseReference(ref)
	if !ok || parsed.Host == "" || parsed.Tag == "" {
		return "", delivery.Errorf(delivery.Invalid, "%q is not a full image name such as docker.io/library/debian:bookworm-slim.", ref)
	}
	host, name, ok := r.cache.split(parsed.Host + "/" + parsed.Repository)
	if !ok {
		return "", delivery.Errorf(delivery.Invalid, "The cache does not stand before %s.", parsed.Host)
	}
	u := r.cache.upstreams[host]
	if err := u.start(r.cache.ctx, r.now); err != nil {
		return "", err
	}
	if err := r.checkSpace(0); err != nil {
		return "", err
	}
	dgst, err := u.root.storeImage(ctx, name, parsed.Tag, image)
	if err != nil {
		return "", fmt.Errorf("registry: seed %s: %w", ref, err)
	}
	return dgst, u.root.pin(name, dgst)
}

// storeImage writes an image and tags it.
func (rt *root) storeImage(ctx context.Context, name, tag string, image container.Image) (string, error) {
	repo, err := rt.repository(ctx, name)
	if err != nil {
		return "", err
	}
	layers, err := image.Layers()
	if err != nil {
		return "", fmt.Errorf("read layers: %w", err)
	}
	for _, layer := range layers {
		if err := rt.putLayer(ctx, repo, layer); err != nil {
			return "", err
		}
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	rt.seen.note(string(digest.FromBytes(config)))
	if _, err := repo.Blobs(ctx).Put(ctx, v1.MediaTypeImageConfig, config); err != nil {
		return "", fmt.Errorf("store configuration: %w", err)
	}
	raw, err := image.RawManifest()
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	manifest, desc, err := distribution.UnmarshalManifest(string(mediaType), raw)
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	rt.seen.note(string(desc.Digest))
	manifests, err := repo.Manifests(ctx, storage.SkipLayerVerification())
	if err != nil {
		return "", fmt.Errorf("store manifest: %w", err)
	}
	if _, err := manifests.Put(ctx, manifest); err != nil {
		return "", fmt.Errorf("store manifest: %w", err)
	}
	if err := repo.Tags(ctx).Tag(ctx, tag, desc); err != nil {
		return "", fmt.Errorf("tag: %w", err)
	}
	return string(desc.Digest), nil
}

func (rt *root) putLayer(ctx context.Context, repo distribution.Repository, layer container.Layer) error {
	hash, err := layer.Digest()
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	size, err := layer.Size()
	if err != nil {
		return fmt.Errorf("read layer %s: %w", hash, err)
	}
	rt.seen.note(hash.String())
	body, err := layer.Compressed()
	if err != nil {
		return fmt.Errorf("read layer %s: %w", hash, err)
	}
	defer body.Close()
	w, err := repo.Blobs(ctx).Create(ctx)
	if err != nil {
		return fmt.Errorf("store layer %s: %w", hash, err)
	}
	defer w.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("store layer %s: %w", hash, err)
	}
	if _, err := w.Commit(ctx, v1.Descriptor{Digest: digest.Digest(hash.String()), Size: size}); err != nil {
		return fmt.Errorf("store layer %s: %w", hash, err)
	}
	return nil
}
