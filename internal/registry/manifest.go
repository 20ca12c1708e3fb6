package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20 // bytes, the engine's limit and the specification's advice
	maxConfig   = 8 << 20 // bytes of an image configuration that is read for display
)

// document is what is read of a manifest or index: OCI's (image-spec) and
// Docker's schema 2 have the same members.
type document struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *v1.Descriptor    `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Manifests    []v1.Descriptor   `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// digests returns everything that the document refers to.
func (d document) digests() []string {
	var out []string
	for _, r := range d.references() {
		out = append(out, r.Digest)
	}
	if d.Subject != nil {
		out = append(out, string(d.Subject.Digest))
	}
	return out
}

func (d document) references() []Descriptor {
	var out []Descriptor
	add := func(kind ReferenceKind, desc v1.Descriptor) {
		r := Descriptor{Kind: kind, Digest: string(desc.Digest), MediaType: desc.MediaType, Size: desc.Size}
		if p := desc.Platform; p != nil {
			r.Platform = strings.Trim(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
		}
		out = append(out, r)
	}
	if d.Config != nil && d.Config.Digest != "" {
		add(ConfigReference, *d.Config)
	}
	for _, l := range d.Layers {
		add(LayerReference, l)
	}
	for _, m := range d.Manifests {
		add(ManifestReference, m)
	}
	return out
}

// imageConfig is what is read of an image's configuration.
type imageConfig struct {
	Created      *time.Time `json:"created"`
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	Variant      string     `json:"variant"`
	Config       struct {
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	History []struct {
		CreatedBy  string `json:"created_by"`
		EmptyLayer bool   `json:"empty_layer"`
	} `json:"history"`
}

func (rt *root) blobs(name string) (blobGetter, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("registry: repository %q: %w", name, err)
	}
	repo, err := rt.store.Repository(context.Background(), named)
	if err != nil {
		return nil, fmt.Errorf("registry: repository %q: %w", name, err)
	}
	return repo.Blobs(context.Background()), nil
}

type blobGetter interface {
	Get(ctx context.Context, dgst digest.Digest) ([]byte, error)
	Stat(ctx context.Context, dgst digest.Digest) (v1.Descriptor, error)
}

// maxClaim bounds, in bytes, the size of a part that is not stored here.
const maxClaim = 1 << 40

// describe works out what is known of a manifest from its bytes and, for an
// image, its configuration, which must be stored.
func describe(ctx context.Context, blobs blobGetter, raw []byte, mediaType string) (Image, error) {
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return Image{}, fmt.Errorf("registry: read manifest: %w", err)
	}
	if mediaType == "" {
		mediaType = doc.MediaType
	}
	image := Image{
		Digest: string(digest.FromBytes(raw)), MediaType: mediaType, ManifestSize: int64(len(raw)),
		ArtifactType: doc.ArtifactType, Annotations: doc.Annotations, References: doc.references(),
	}
	if doc.Subject != nil {
		image.Subject = string(doc.Subject.Digest)
		if image.ArtifactType == "" && doc.Config != nil {
			image.ArtifactType = doc.Config.MediaType // distribution-spec, "Listing Referrers"
		}
	}
	counted := map[string]bool{}
	for i := range image.References {
		r := &image.References[i]
		// A client may write any size; quotas count what is stored.
		if stored, err := blobs.Stat(ctx, digest.Digest(r.Digest)); err == nil && r.Kind != ManifestReference {
			r.Size = stored.Size
		}
		r.Size = min(max(0, r.Size), maxClaim)
		if r.Kind != ManifestReference && !counted[r.Digest] {
			counted[r.Digest] = true
			image.Size += r.Size
		}
	}
	if doc.Config == nil || doc.Config.Size > maxConfig || !isImageConfig(doc.Config.MediaType) {
		return image, nil
	}
	rawConfig, err := blobs.Get(ctx, doc.Config.Digest)
	if err != nil {
		return Image{}, fmt.Errorf("registry: read image configuration %s: %w", doc.Config.Digest, err)
	}
	var config imageConfig
	if json.Unmarshal(rawConfig, &config) != nil {
		return image, nil // the protocol does not ask for a readable configuration
	}
	config.apply(&image)
	return image, nil
}

func (c imageConfig) apply(image *Image) {
	image.OS, image.Architecture, image.Variant = c.OS, c.Architecture, c.Variant
	image.Labels = c.Config.Labels
	if c.Created != nil {
		image.Created = c.Created.UTC()
	}
	var steps []string
	for _, h := range c.History {
		if !h.EmptyLayer {
			steps = append(steps, h.CreatedBy)
		}
	}
	for i := range image.References {
		r := &image.References[i]
		if r.Kind == LayerReference && len(steps) > 0 {
			r.CreatedBy, steps = steps[0], steps[1:]
		}
	}
}

func isImageConfig(mediaType string) bool {
	return mediaType == v1.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}
