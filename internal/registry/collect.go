package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Collected says what a collection removed.
type Collected struct {
	Tags     int // by clean-up policies
	Images   int
	Blobs    int
	Bytes    int64 // freed on the disk
	Duration time.Duration

	// What nothing needs and is too young to go yet.
	WaitingImages int
	WaitingBlobs  int
	WaitingBytes  int64
}

func (c *Collected) add(o Collected) {
	c.Tags += o.Tags
	c.Images += o.Images
	c.Blobs += o.Blobs
	c.Bytes += o.Bytes
	c.WaitingBlobs += o.WaitingBlobs
	c.WaitingBytes += o.WaitingBytes
}

// Run reconciles the catalogue, then applies due clean-up policies and collects
// garbage at Config.CollectEvery, until ctx ends. Errors are logged and tried
// again at the next turn.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.cfg.CollectEvery)
	defer ticker.Stop()
	if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
		r.log.Error("registry: reconcile", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		done, err := r.Collect(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Error("registry: collect", "err", err)
		}
		if done.Images+done.Blobs+done.Tags > 0 {
			r.log.Info("registry: collected", "tags", done.Tags, "images", done.Images, "blobs", done.Blobs, "bytes", done.Bytes, "seconds", done.Duration.Seconds())
		}
	}
}

// Collect applies the clean-up policies that are due, removes images without a
// tag and then every blob that nothing references, in the projects' images and
// in the cache. It runs beside pushes and pulls: what a client asked for within
// Config.BlobAfter stays, and so does all that Use names. What was removed
// before an error is reported with it.
func (r *Registry) Collect(ctx context.Context) (Collected, error) {
	return r.collectAfter(ctx, r.cfg.UntaggedAfter)
}

// CollectUntagged is Collect for who needs room now: images without a tag go
// after Config.BlobAfter already, which no push takes.
func (r *Registry) CollectUntagged(ctx context.Context) (Collected, error) {
	return r.collectAfter(ctx, min(r.cfg.BlobAfter, r.cfg.UntaggedAfter))
}

func (r *Registry) collectAfter(ctx context.Context, untagged time.Duration) (Collected, error) {
	r.collecting.Lock()
	defer r.collecting.Unlock()
	begin := time.Now()
	var total Collected
	err := r.collect(ctx, untagged, &total)
	total.Duration = time.Since(begin)
	return total, err
}

func (r *Registry) collect(ctx context.Context, untagged time.Duration, total *Collected) error {
	if err := r.reconcile(ctx); err != nil {
		return err
	}
	used, err := r.inUse(ctx)
	if err != nil {
		return err
	}
	policies, err := r.index.DuePolicies(ctx, r.now())
	if err != nil {
		return err
	}
	for _, p := range policies {
		removed, err := r.applyPolicy(ctx, p, used)
		total.Tags += removed
		if err != nil {
			return err
		}
	}
	if err := r.removeUntagged(ctx, used, untagged, total); err != nil {
		return err
	}
	swept, err := r.sweepImages(ctx)
	total.add(swept)
	if err != nil {
		return err
	}
	swept, err = r.cache.collect(ctx, used)
	total.add(swept)
	if err != nil {
		return err
	}
	r.root.seen.forget(r.now().Add(-r.cfg.BlobAfter))
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// inUse is what workloads need: digests, and tags as path:tag.
type inUse map[string]bool

func (r *Registry) inUse(ctx context.Context) (inUse, error) {
	set := inUse{}
	if r.use == nil {
		return set, nil
	}
	refs, err := r.use.InUse(ctx)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Op: "registry: collect",
			Message: "What the cluster uses is not known now, so nothing was removed.", Next: "The clean-up is tried again by itself.", Err: err}
	}
	for _, s := range refs {
		if validDigest(s) {
			set[s] = true
			continue
		}
		ref, ok := ParseReference(s)
		if !ok {
			r.log.Warn("registry: an image in use has a name that cannot be read", "image", s)
			continue
		}
		if ref.Digest != "" {
			set[ref.Digest] = true
		}
		if ref.Tag != "" {
			set[ref.Repository+":"+ref.Tag] = true
		}
		if ref.Tag == "" && ref.Digest == "" {
			set[ref.Repository+":latest"] = true
		}
	}
	return set, nil
}

func (u inUse) tag(path, tag, digest string) bool { return u[digest] || u[path+":"+tag] }

// removeUntagged removes images that have no tag, are not part of an index, are
// not about a stored image, are not in use and were pushed longer ago than
// after.
func (r *Registry) removeUntagged(ctx context.Context, used inUse, after time.Duration, total *Collected) error {
	repos, err := r.index.Repositories(ctx, 0)
	if err != nil {
		return err
	}
	for _, repo := range repos {
		for {
			removed, waiting, err := r.removeUntaggedOnce(ctx, repo, used, after)
			total.Images += removed
			if err != nil {
				return err
			}
			if removed == 0 {
				total.WaitingImages += waiting
				break // the images of a removed index may have become free
			}
		}
	}
	return nil
}

// removeUntaggedOnce returns how many images went and how many will later.
func (r *Registry) removeUntaggedOnce(ctx context.Context, repo Repository, used inUse, after time.Duration) (removed, waiting int, err error) {
	images, err := r.index.Images(ctx, repo.ID)
	if err != nil {
		return 0, 0, err
	}
	have := map[string]bool{}
	for _, image := range images {
		have[image.Digest] = true
	}
	stored, err := r.root.repository(ctx, repo.Path)
	if err != nil {
		return 0, 0, err
	}
	for _, image := range images {
		if len(image.Tags) > 0 || used[image.Digest] || image.Subject != "" && have[image.Subject] {
			continue
		}
		if image.PushedAt.After(r.now().Add(-after)) {
			listed, err := r.index.Listed(ctx, repo.ID, image.Digest)
			if err != nil {
				return removed, waiting, err
			}
			if !listed {
				waiting++
			}
			continue
		}
		gone := false
		old, err := r.root.seen.unlessSince(image.Digest, r.now().Add(-r.cfg.BlobAfter), func() error {
			// Asked again now that no push can interfere: it may have got a tag,
			// or an index that lists it.
			now, err := r.index.Image(ctx, repo.ID, image.Digest)
			if err != nil || len(now.Tags) > 0 {
				return err
			}
			listed, err := r.index.Listed(ctx, repo.ID, image.Digest)
			if err != nil || listed {
				return err
			}
			if err := r.root.removeManifest(ctx, stored, image.Digest); err != nil {
				return err
			}
			gone = true
			return r.index.DeleteImage(ctx, repo.ID, image.Digest)
		})
		if err != nil && !delivery.IsNotFound(err) {
			return removed, waiting, err
		}
		if gone {
			removed++
		}
		if !old {
			waiting++ // a client has just asked for it
		}
	}
	return removed, waiting, nil
}

// sweepImages removes the blobs that no recorded image references.
func (r *Registry) sweepImages(ctx context.Context) (Collected, error) {
	referenced, err := r.index.ReferencedDigests(ctx)
	if err != nil {
		return Collected{}, err
	}
	return r.sweep(ctx, r.root, referenced, func(d string) (bool, error) {
		return r.index.Referenced(ctx, 0, d)
	})
}

// sweep removes the blobs of a root that are not marked. still is asked once
// more while no request can begin to rely on the blob.
func (r *Registry) sweep(ctx context.Context, rt *root, marked map[string]struct{}, still func(d string) (bool, error)) (Collected, error) {
	var done Collected
	after := r.now().Add(-r.cfg.BlobAfter)
	var unmarked []string
	err := rt.store.Blobs().Enumerate(ctx, func(d digest.Digest) error {
		if _, ok := marked[string(d)]; !ok {
			unmarked = append(unmarked, string(d))
		}
		return nil
	})
	if err != nil && !isMissing(err) {
		return done, fmt.Errorf("registry: list blobs: %w", err)
	}
	if len(unmarked) == 0 {
		return done, nil
	}
	if r.started.After(after) { // what clients relied on before the start is not known
		for _, d := range unmarked {
			done.wait(rt.file(blobPath(d)))
		}
		return done, nil
	}
	var names []string
	if err := rt.eachRepository(ctx, func(name string) error { names = append(names, name); return nil }); err != nil {
		return done, err
	}
	for _, d := range unmarked {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		var freed int64
		gone := false
		old, err := rt.seen.unlessSince(d, after, func() error {
			info, err := os.Stat(rt.file(blobPath(d)))
			if err != nil {
				return ignoreNotExist(err)
			}
			if info.ModTime().After(after) {
				done.WaitingBlobs++
				done.WaitingBytes += info.Size()
				return nil
			}
			if used, err := still(d); err != nil || used {
				return err
			}
			freed, gone = info.Size(), true
			return rt.removeBlob(d, names)
		})
		if err != nil {
			return done, err
		}
		if gone {
			done.Blobs++
			done.Bytes += freed
		}
		if !old {
			done.wait(rt.file(blobPath(d)))
		}
	}
	return done, nil
}

// wait counts a blob that is too young to go.
func (c *Collected) wait(file string) {
	if info, err := os.Stat(file); err == nil {
		c.WaitingBlobs++
		c.WaitingBytes += info.Size()
	}
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeBlob removes a blob and what the repositories say of having it: first
// the links, so that no repository promises a blob that is gone.
func (rt *root) removeBlob(d string, names []string) error {
	for _, name := range names {
		if _, err := os.Lstat(rt.file(layerLinkPath(name, d))); err != nil {
			continue
		}
		if err := rt.vacuum.RemoveLayer(name, digest.Digest(d)); err != nil && !isMissing(err) {
			return fmt.Errorf("registry: remove link to blob %s: %w", d, err)
		}
	}
	if err := rt.vacuum.RemoveBlob(d); err != nil && !isMissing(err) {
		return fmt.Errorf("registry: remove blob %s: %w", d, err)
	}
	return nil
}
