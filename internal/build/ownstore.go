package build

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ownStore is the part of containerd's content that the job's images consist
// of. A build may name content by any digest (oci-layout://job@sha256:…), and
// all jobs share one store: without this the digest of another project's image
// would be enough to read it.
type ownStore struct {
	content.Store
	own map[digest.Digest]bool
}

// newOwnStore collects what belongs to the images. Content that is not there,
// such as that of other platforms, is left out.
func newOwnStore(ctx context.Context, store content.Store, targets []ocispec.Descriptor) (*ownStore, error) {
	s := &ownStore{Store: store, own: map[digest.Digest]bool{}}
	collect := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		s.own[d.Digest] = true
		return children, err
	})
	if err := images.Walk(ctx, collect, targets...); err != nil {
		return nil, fmt.Errorf("read the job's images: %w", err)
	}
	return s, nil
}

func (s *ownStore) check(d digest.Digest) error {
	if !s.own[d] {
		return fmt.Errorf("content %s is of no image of this job: %w", d, errdefs.ErrNotFound)
	}
	return nil
}

// Info implements content.Store.
func (s *ownStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if err := s.check(d); err != nil {
		return content.Info{}, err
	}
	return s.Store.Info(ctx, d)
}

// ReaderAt implements content.Store.
func (s *ownStore) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if err := s.check(d.Digest); err != nil {
		return nil, err
	}
	return s.Store.ReaderAt(ctx, d)
}

// Walk implements content.Store.
func (s *ownStore) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	return s.Store.Walk(ctx, func(i content.Info) error {
		if !s.own[i.Digest] {
			return nil
		}
		return fn(i)
	}, filters...)
}
