package runner

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Cache policies.
const (
	policyPull     = "pull"
	policyPush     = "push"
	policyPullPush = "pull-push"
)

// cacheStore keeps cache archives on disk, by project and key, within a budget
// of bytes: the ones that were used longest ago go first.
type cacheStore struct {
	dir    string
	budget int64
}

// file is where the archive of a key is kept. Keys are hashed: they are texts
// of the job's author.
func (c *cacheStore) file(projectID int64, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir, strconv.FormatInt(projectID, 10), hex.EncodeToString(sum[:])+".zip")
}

// trim removes the archives used longest ago until the budget holds.
func (c *cacheStore) trim() error {
	if c.budget <= 0 {
		return nil
	}
	type archive struct {
		path string
		info fs.FileInfo
	}
	var archives []archive
	var total int64
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			archives = append(archives, archive{path, info})
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list caches: %w", err)
	}
	sort.Slice(archives, func(i, j int) bool { return archives[i].info.ModTime().Before(archives[j].info.ModTime()) })
	for _, one := range archives {
		if total <= c.budget {
			break
		}
		if err := os.Remove(one.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old cache: %w", err)
		}
		total -= one.info.Size()
	}
	return nil
}

// when reports whether something declared `when` is due after the script.
func due(when string, succeeded bool) bool {
	switch when {
	case "always":
		return true
	case "on_failure":
		return !succeeded
	}
	return succeeded
}

// cacheKeys are the keys to try, in order: the key itself, its fallbacks and
// CACHE_FALLBACK_KEY, which must not name a protected cache.
func (j *job) cacheKeys(cache delivery.JobCache) []string {
	keys := []string{j.variables.Expand(cache.Key)}
	for _, key := range cache.FallbackKeys {
		keys = append(keys, j.variables.Expand(key))
	}
	if fallback := j.variables.Get("CACHE_FALLBACK_KEY"); fallback != "" {
		if strings.HasSuffix(fallback, "-protected") {
			j.log.Warn("CACHE_FALLBACK_KEY %q not allowed to end in %q", fallback, "-protected")
		} else {
			keys = append(keys, fallback)
		}
	}
	return keys
}

func (j *job) policy(cache delivery.JobCache) (string, error) {
	policy := j.variables.Expand(cache.Policy)
	switch policy {
	case "", policyPullPush:
		return policyPullPush, nil
	case policyPull, policyPush:
		return policy, nil
	}
	return "", &JobError{Reason: ReasonConfiguration, Message: fmt.Sprintf("unknown cache policy %q: use pull, push or pull-push", policy)}
}

// restoreCaches runs the restore_cache stage. A cache that cannot be restored
// does not fail the job.
func (j *job) restoreCaches(ctx context.Context) error {
	for _, cache := range j.spec.Cache {
		keys := j.cacheKeys(cache)
		if keys[0] == "" {
			j.log.Notice("Skipping cache extraction due to empty cache key")
			continue
		}
		policy, err := j.policy(cache)
		if err != nil {
			return err
		}
		if policy == policyPush {
			j.log.Notice("Not downloading cache %s due to policy", keys[0])
			continue
		}
		for _, key := range keys {
			if key != "" && j.restoreCache(ctx, key) {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (j *job) restoreCache(ctx context.Context, key string) bool {
	j.log.Notice("Checking cache for %s...", key)
	file := j.runner.caches.file(j.spec.JobInfo.ProjectID, key)
	archive, err := zip.OpenReader(file)
	if errors.Is(err, fs.ErrNotExist) {
		j.helper.warn("No cache found for %s", key)
		j.log.Warn("Failed to extract cache")
		return false
	}
	if err == nil {
		err = extractZip(ctx, &archive.Reader, j.project)
		err = errors.Join(err, archive.Close())
	}
	if err != nil {
		j.helper.warn("%v", err)
		j.log.Warn("Failed to extract cache")
		return false
	}
	now := time.Now() // the time of last use, for trim
	if err := os.Chtimes(file, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.runner.logger.Warn("mark cache as used", "error", err)
	}
	j.log.Notice("Successfully extracted cache")
	return true
}

// saveCaches runs the archive_cache stage.
func (j *job) saveCaches(ctx context.Context, succeeded bool) error {
	for _, cache := range j.spec.Cache {
		if !due(cache.When, succeeded) || len(cache.Paths) == 0 && !cache.Untracked {
			continue
		}
		key := j.variables.Expand(cache.Key)
		if key == "" {
			j.log.Notice("Skipping cache archiving due to empty cache key")
			continue
		}
		policy, err := j.policy(cache)
		if err != nil {
			return err
		}
		if policy == policyPull {
			j.log.Notice("Not uploading cache %s due to policy", key)
			continue
		}
		j.log.Notice("Creating cache %s...", key)
		if err := j.saveCache(ctx, key, cache); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			j.helper.warn("%v", err)
			j.log.Warn("Failed to create cache")
			continue
		}
		j.log.Notice("Created cache")
	}
	return nil
}

func (j *job) saveCache(ctx context.Context, key string, cache delivery.JobCache) error {
	names := newCollection(j.project, j.projectDir, j.helper, nil).collect(j.expandAll(cache.Paths), cache.Untracked)
	if len(names) == 0 {
		j.helper.warn("No files to cache.")
		return nil
	}
	target := j.runner.caches.file(j.spec.JobInfo.ProjectID, key)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(target), ".new-*")
	if err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	defer os.Remove(file.Name()) // gone already when all went well
	err = errors.Join(writeZip(ctx, file, j.project, names), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), target)
	}
	if err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	return j.runner.caches.trim()
}
