package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/distribution/distribution/v3"
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
}

func (c *Collected) add(o Collected) {
	c.Tags += o.Tags
	c.Images += o.Images
	c.Blobs += o.Blobs
	c.Bytes += o.Bytes
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
	r.collecting.Lock()
	defer r.collecting.Unlock()
	begin := time.Now()
	var total Collected
	err := r.collect(ctx, &total)
	total.Duration = time.Since(begin)
	return total, err
}

func (r *Registry) collect(ctx context.Context, total *Collected) error {
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
	images, err := r.removeUntagged(ctx, used)
	total.Images += images
	if err != nil {
		return err
	}
	swept, err := r.sweepImages(ctx)
	total.add(swept)
	if err != nil {
		return err
	}
	for _, host := range sortedKeys(r.cache.upstreams) {
		swept, err := r.cache.collect(ctx, r.cache.upstreams[host], used)
		total.add(swept)
		if err != nil {
			return err
		}
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
// not about a stored image, are not in use and are old enough.
func (r *Registry) removeUntagged(ctx context.Context, used inUse) (int, error) {
	repos, err := r.index.Repositories(ctx, 0)
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, repo := range repos {
		for {
			n, err := r.removeUntaggedOnce(ctx, repo, used)
			removed += n
			if err != nil {
				return removed, err
			}
			if n == 0 {
				break // the images of a removed index may have become free
			}
		}
	}
	return removed, nil
}

func (r *Registry) removeUntaggedOnce(ctx context.Context, repo Repository, used inUse) (int, error) {
	images, err := r.index.Images(ctx, repo.ID)
	if err != nil {
		return 0, err
	}
	have := map[string]bool{}
	for _, image := range images {
		have[image.Digest] = true
	}
	stored, err := r.root.repository(ctx, repo.Path)
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, image := range images {
		if len(image.Tags) > 0 || used[image.Digest] || image.Subject != "" && have[image.Subject] ||
			image.PushedAt.After(r.now().Add(-r.cfg.UntaggedAfter)) {
			continue
		}
		gone := false
		_, err := r.root.seen.unlessSince(image.Digest, r.now().Add(-r.cfg.BlobAfter), func() error {
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
			return removed, err
		}
		if gone {
			removed++
		}
	}
	return removed, nil
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
	if r.started.After(after) {
		return done, nil // what clients relied on before the start is not known
	}
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
		_, err := rt.seen.unlessSince(d, after, func() error {
			info, err := os.Stat(rt.file(blobPath(d)))
			if err != nil || info.ModTime().After(after) {
				return ignoreNotExist(err)
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
	}
	return done, nil
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

// cached is an image of the cache.
type cached struct {
	name, digest string
	used         time.Time // pinned for a seeded image
	blobs        []string
}

// collect keeps one upstream's part of the cache within its share of
// Config.CacheSize, then removes what no cached image references.
func (c *cache) collect(ctx context.Context, u *upstream, used inUse) (Collected, error) {
	if _, err := os.Stat(u.dir); err != nil {
		return Collected{}, ignoreNotExist(err)
	}
	if err := u.start(c.ctx, c.r.now); err != nil {
		return Collected{}, err
	}
	images, err := u.root.cachedImages(ctx)
	if err != nil {
		return Collected{}, err
	}
	sort.Slice(images, func(i, j int) bool { return images[i].used.After(images[j].used) })
	var done Collected
	marked := map[string]struct{}{}
	var size int64
	for _, image := range images {
		add := u.root.newBytes(marked, image)
		keep := image.used.Equal(pinned) || used[image.digest] || size+add <= c.r.cfg.CacheSize
		if !keep {
			_, err := u.root.seen.unlessSince(image.digest, c.r.now().Add(-c.r.cfg.BlobAfter), func() error {
				done.Images++
				return c.evict(ctx, u.root, image)
			})
			if err != nil {
				return done, err
			}
			continue
		}
		size += add
		marked[image.digest] = struct{}{}
		for _, b := range image.blobs {
			marked[b] = struct{}{}
		}
	}
	swept, err := c.r.sweep(ctx, u.root, marked, func(string) (bool, error) { return false, nil })
	done.add(swept)
	u.root.seen.forget(c.r.now().Add(-c.r.cfg.BlobAfter))
	return done, err
}

func (c *cache) evict(ctx context.Context, rt *root, image cached) error {
	repo, err := rt.repository(ctx, image.name)
	if err != nil {
		return err
	}
	tags, err := repo.Tags(ctx).All(ctx)
	if err != nil && !isMissing(err) {
		return fmt.Errorf("registry: tags of %s: %w", image.name, err)
	}
	for _, tag := range tags {
		if rt.tagged(image.name, tag) == image.digest {
			if err := repo.Tags(ctx).Untag(ctx, tag); err != nil && !isMissing(err) {
				return fmt.Errorf("registry: evict tag %s:%s: %w", image.name, tag, err)
			}
		}
	}
	return rt.removeManifest(ctx, repo, image.digest)
}

// newBytes is what keeping an image costs beyond what is kept already.
func (rt *root) newBytes(marked map[string]struct{}, image cached) int64 {
	var n int64
	for _, d := range append([]string{image.digest}, image.blobs...) {
		if _, ok := marked[d]; ok {
			continue
		}
		if info, err := os.Stat(rt.file(blobPath(d))); err == nil {
			n += info.Size()
		}
	}
	return n
}

// cachedImages lists the images of a root with what they reference.
func (rt *root) cachedImages(ctx context.Context) ([]cached, error) {
	var images []cached
	err := rt.eachRepository(ctx, func(name string) error {
		repo, err := rt.repository(ctx, name)
		if err != nil {
			return err
		}
		manifests, err := repo.Manifests(ctx)
		if err != nil {
			return fmt.Errorf("registry: manifests of %s: %w", name, err)
		}
		return rt.eachManifest(ctx, repo, func(d string) error {
			info, err := os.Stat(rt.file(manifestLinkPath(name, d)))
			if err != nil {
				return ignoreNotExist(err)
			}
			image := cached{name: name, digest: d, used: info.ModTime()}
			image.blobs, err = referencesOf(ctx, manifests, d)
			images = append(images, image)
			return err
		})
	})
	return images, err
}

// referencesOf reads what a stored manifest refers to. A manifest that is
// linked but not there refers to nothing.
func referencesOf(ctx context.Context, manifests distribution.ManifestService, d string) ([]string, error) {
	m, err := manifests.Get(ctx, digest.Digest(d))
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry: read manifest %s: %w", d, err)
	}
	var out []string
	for _, r := range m.References() {
		out = append(out, string(r.Digest))
	}
	return out, nil
}

// CachedImage is an image that the pull-through cache keeps.
type CachedImage struct {
	Reference string    // host/name:tag, or host/name@digest without a tag
	Digest    string    //
	Size      int64     // bytes of its manifest and blobs that are stored
	LastUsed  time.Time // zero for a seeded image, which is kept until it is deleted
	Seeded    bool
}

// CachedImages lists what the pull-through cache keeps.
func (r *Registry) CachedImages(ctx context.Context) ([]CachedImage, error) {
	var out []CachedImage
	for _, host := range sortedKeys(r.cache.upstreams) {
		u := r.cache.upstreams[host]
		if _, err := os.Stat(u.dir); err != nil {
			continue
		}
		if err := u.start(r.cache.ctx, r.now); err != nil {
			return nil, err
		}
		images, err := u.root.cachedImages(ctx)
		if err != nil {
			return nil, err
		}
		for _, image := range images {
			item := CachedImage{Reference: host + "/" + image.name + "@" + image.digest, Digest: image.digest, LastUsed: image.used}
			if image.used.Equal(pinned) {
				item.LastUsed, item.Seeded = time.Time{}, true
			}
			item.Size = u.root.newBytes(map[string]struct{}{}, image)
			if tags := u.root.tagsOf(image); len(tags) > 0 {
				for _, tag := range tags {
					item.Reference = host + "/" + image.name + ":" + tag
					out = append(out, item)
				}
				continue
			}
			out = append(out, item)
		}
	}
	return out, nil
}

// tagsOf lists the tags that point to a cached image.
func (rt *root) tagsOf(image cached) []string {
	entries, err := os.ReadDir(rt.file(strings.TrimSuffix(tagLinkPath(image.name, "x"), "/x/current/link")))
	if err != nil {
		return nil // a repository without tags
	}
	var out []string
	for _, e := range entries {
		if rt.tagged(image.name, e.Name()) == image.digest {
			out = append(out, e.Name())
		}
	}
	return out
}
