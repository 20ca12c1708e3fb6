package build

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestOwnStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := storeImage(t, store, "mine"), storeImage(t, store, "theirs")
	own, err := newOwnStore(ctx, store, []ocispec.Descriptor{mine[0]})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range mine {
		if _, err := own.Info(ctx, d.Digest); err != nil {
			t.Errorf("%s of the job's image: %v", d.MediaType, err)
		}
		if _, err := content.ReadBlob(ctx, own, d); err != nil {
			t.Errorf("%s of the job's image: %v", d.MediaType, err)
		}
	}
	for _, d := range theirs {
		if _, err := own.Info(ctx, d.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("%s of another image: %v", d.MediaType, err)
		}
		if _, err := content.ReadBlob(ctx, own, d); !errdefs.IsNotFound(err) {
			t.Errorf("%s of another image: %v", d.MediaType, err)
		}
	}
	seen := 0
	if err := own.Walk(ctx, func(content.Info) error { seen++; return nil }); err != nil || seen != len(mine) {
		t.Errorf("a walk shows %d blobs, want %d (%v)", seen, len(mine), err)
	}
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
	if _, err := newOwnStore(ctx, store, []ocispec.Descriptor{absent}); err != nil {
		t.Errorf("content that is not there: %v", err)
	}
}

// storeImage stores an image and returns its manifest, configuration and layer.
func storeImage(t *testing.T, store content.Store, text string) []ocispec.Descriptor {
	t.Helper()
	config := storeBlob(t, store, ocispec.MediaTypeImageConfig, map[string]string{"author": text})
	layer := storeBlob(t, store, ocispec.MediaTypeImageLayer, "layer of "+text)
	manifest := storeBlob(t, store, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	return []ocispec.Descriptor{manifest, config, layer}
}

func storeBlob(t *testing.T, store content.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := content.WriteBlob(context.WithoutCancel(t.Context()), store, d.Digest.String(), bytes.NewReader(raw), d); err != nil {
		t.Fatal(err)
	}
	return d
}
