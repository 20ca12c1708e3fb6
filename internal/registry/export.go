package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Export writes an image as an OCI layout (image-spec, image-layout) into dir,
// which exists and is empty. Of an index it takes the image for this machine's
// platform, or the first. Blobs are hard links to the stored ones where the
// file system allows it, so that they outlive a collection and cost nothing;
// they must not be written to.
func (r *Registry) Export(ctx context.Context, path, dgst, dir string) error {
	image, err := r.Image(ctx, path, dgst)
	if err != nil {
		return err
	}
	if child := platformImage(image); child != "" {
		if image, err = r.Image(ctx, path, child); err != nil {
			return err
		}
	}
	r.root.seen.note(image.Digest)
	for _, d := range image.References {
		if d.Kind == ManifestReference {
			return delivery.Errorf(delivery.Invalid, "%s@%s lists no image that can be used here.", path, dgst)
		}
		if err := r.exportBlob(d.Digest, dir); err != nil {
			return fmt.Errorf("registry: export %s@%s: %w", path, image.Digest, err)
		}
	}
	if err := r.exportBlob(image.Digest, dir); err != nil {
		return fmt.Errorf("registry: export %s@%s: %w", path, image.Digest, err)
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{
		{MediaType: image.MediaType, Digest: digest.Digest(image.Digest), Size: image.ManifestSize},
	}}
	for name, content := range map[string]any{v1.ImageIndexFile: index, v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion}} {
		raw, err := json.Marshal(content)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			return fmt.Errorf("registry: export %s@%s: %w", path, image.Digest, err)
		}
	}
	return nil
}

// platformImage returns the digest of the image in an index that suits this
// machine, the first image where none says so, or "" for what is no index.
func platformImage(index Image) string {
	first := ""
	for _, d := range index.References {
		if d.Kind != ManifestReference {
			continue
		}
		if d.Platform == "linux/"+runtime.GOARCH || d.Platform == "linux/"+runtime.GOARCH+"/v8" {
			return d.Digest
		}
		if first == "" && d.Platform != "unknown/unknown" { // attestations have that platform
			first = d.Digest
		}
	}
	return first
}

func (r *Registry) exportBlob(d, dir string) error {
	r.root.seen.note(d)
	algorithm, hex := splitDigest(d)
	folder := filepath.Join(dir, v1.ImageBlobsDir, algorithm)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	source, target := r.root.file(blobPath(d)), filepath.Join(folder, hex)
	err := os.Link(source, target)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
