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
)

// cached is an image of the cache.
type cached struct {
	upstream     *upstream
	name, digest string
	used         time.Time // pinned for a seeded image
	blobs        []string
}

// collect keeps the cache within Config.CacheSize, the images that were used
// least recently going first, and removes what no cached image references.
func (c *cache) collect(ctx context.Context, used inUse) (Collected, error) {
	var done Collected
	images, err := c.images(ctx)
	if err != nil {
		return done, err
	}
	sort.SliceStable(images, func(i, j int) bool { return images[i].used.After(images[j].used) })
	needed := needed(images, used)
	marked := map[*upstream]map[string]struct{}{}
	var size int64
	for _, image := range images {
		u := image.upstream
		if marked[u] == nil {
			marked[u] = map[string]struct{}{}
		}
		add := u.root.newBytes(marked[u], image)
		if image.used.Equal(pinned) || needed[image.digest] || size+add <= c.r.cfg.CacheSize {
			size += add
			marked[u][image.digest] = struct{}{}
			for _, b := range image.blobs {
				marked[u][b] = struct{}{}
			}
			continue
		}
		evicted, err := u.root.seen.unlessSince(image.digest, c.r.now().Add(-c.r.cfg.BlobAfter), func() error {
			return c.evict(ctx, u.root, image)
		})
		if err != nil {
			return done, err
		}
		if evicted {
			done.Images++
		}
	}
	for _, u := range c.present() {
		swept, err := c.r.sweep(ctx, u.root, marked[u], func(string) (bool, error) { return false, nil })
		done.add(swept)
		if err != nil {
			return done, err
		}
		u.root.seen.forget(c.r.now().Add(-c.r.cfg.BlobAfter))
	}
	return done, nil
}

// needed are the digests of what the cluster uses: by the digest that a node
// reports, which is another registry's name for an image that is there twice, or
// by the tag that a specification names; and of the parts of indexes among it.
func needed(images []cached, used inUse) map[string]bool {
	set := map[string]bool{}
	for _, image := range images {
		names := []string{image.name}
		if short, ok := strings.CutPrefix(image.name, "library/"); ok && image.upstream.Host == "docker.io" {
			names = append(names, short)
		}
		keep := used[image.digest]
		for _, tag := range image.upstream.root.tagsOf(image) {
			for _, name := range names {
				keep = keep || used.tag(name, tag, image.digest)
			}
		}
		if keep {
			set[image.digest] = true
			for _, part := range image.blobs {
				set[part] = true
			}
		}
	}
	return set
}

// present lists the upstreams of which the cache holds something, by host.
func (c *cache) present() []*upstream {
	var out []*upstream
	for _, host := range sortedKeys(c.upstreams) {
		if u := c.upstreams[host]; u.opened() {
			out = append(out, u)
		}
	}
	return out
}

// images lists the cached images of every upstream.
func (c *cache) images(ctx context.Context) ([]cached, error) {
	var all []cached
	for _, host := range sortedKeys(c.upstreams) {
		u := c.upstreams[host]
		if _, err := os.Stat(u.dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := u.start(c.ctx, c.r.now); err != nil {
			return nil, err
		}
		images, err := u.root.cachedImages(ctx)
		if err != nil {
			return nil, err
		}
		for i := range images {
			images[i].upstream = u
		}
		all = append(all, images...)
	}
	return all, nil
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
	images, err := r.cache.images(ctx)
	if err != nil {
		return nil, err
	}
	var out []CachedImage
	for _, image := range images {
		name := image.upstream.Host + "/" + image.name
		item := CachedImage{Reference: name + "@" + image.digest, Digest: image.digest, LastUsed: image.used}
		if image.used.Equal(pinned) {
			item.LastUsed, item.Seeded = time.Time{}, true
		}
		item.Size = image.upstream.root.newBytes(map[string]struct{}{}, image)
		tags := image.upstream.root.tagsOf(image)
		for _, tag := range tags {
			item.Reference = name + ":" + tag
			out = append(out, item)
		}
		if len(tags) == 0 {
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
