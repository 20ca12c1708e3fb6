package runner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/go-git/go-git/v5/plumbing/format/index"
)

// collection is a set of files of a project folder that match the patterns of
// an artifact or a cache. Everything goes through os.Root: a link that a job
// left is stored as a link and never followed out of the folder.
type collection struct {
	root    *os.Root // the project folder
	dir     string   // its path as the job sees it
	log     *helperLog
	exclude []string
	files   map[string]fs.FileInfo
	dropped map[string]int
}

func newCollection(root *os.Root, dir string, log *helperLog, exclude []string) *collection {
	return &collection{root: root, dir: dir, log: log, exclude: exclude, files: map[string]fs.FileInfo{}, dropped: map[string]int{}}
}

// collect gathers paths and, if asked, untracked files, with the official
// runner's messages.
func (c *collection) collect(paths []string, untracked bool) []string {
	for _, pattern := range paths {
		c.pattern(pattern)
	}
	if untracked {
		c.untracked()
	}
	rules := make([]string, 0, len(c.dropped))
	for rule := range c.dropped {
		rules = append(rules, rule)
	}
	sort.Strings(rules)
	for _, rule := range rules {
		c.log.info("%s: excluded %d files", rule, c.dropped[rule])
	}
	names := make([]string, 0, len(c.files))
	for name := range c.files {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (c *collection) pattern(pattern string) {
	if pattern == "" {
		c.log.warn("No matching files. Path is empty.")
		return
	}
	relative, err := c.relative(pattern)
	if err != nil {
		c.log.warn("processPath: %v", err)
		return
	}
	matches, err := doublestar.Glob(c.root.FS(), relative, doublestar.WithNoFollow())
	if err != nil {
		c.log.warn("%s: %v", pattern, err)
		return
	}
	found := 0
	for _, match := range matches {
		found += c.walk(match)
	}
	if found == 0 {
		c.log.warn("%s: no matching files. Ensure that the artifact path is relative to the working directory (%s)", pattern, c.dir)
		return
	}
	c.log.info("%s: found %d matching artifact files and directories", pattern, found)
}

// walk adds name and, for a folder, what is below it.
func (c *collection) walk(name string) int {
	info, err := c.root.Lstat(name)
	if err != nil {
		return 0
	}
	found := 0
	if c.add(name, info) {
		found++
	}
	if !info.IsDir() {
		return found
	}
	entries, err := fs.ReadDir(c.root.FS(), name)
	if err != nil {
		c.log.warn("Walking %s %v", name, err)
	}
	for _, entry := range entries {
		found += c.walk(path.Join(name, entry.Name()))
	}
	return found
}

func (c *collection) add(name string, info fs.FileInfo) bool {
	for _, rule := range c.exclude {
		relative, err := c.relative(rule)
		if err != nil {
			c.log.warn("isExcluded: %v", err)
			break
		}
		if matched, err := doublestar.Match(relative, name); err == nil && matched {
			c.dropped[rule]++
			return false
		}
	}
	c.files[name] = info
	return true
}

// relative turns a path or pattern into one below the project folder.
func (c *collection) relative(pattern string) (string, error) {
	if path.IsAbs(pattern) {
		rest, inside := strings.CutPrefix(path.Clean(pattern)+"/", path.Clean(c.dir)+"/")
		if !inside {
			return "", fmt.Errorf("artifact path is not a subpath of project directory: %s", pattern)
		}
		pattern = rest
	}
	pattern = path.Clean(pattern)
	if pattern == ".." || strings.HasPrefix(pattern, "../") {
		return "", fmt.Errorf("artifact path is not a subpath of project directory: %s", pattern)
	}
	return pattern, nil
}

// untracked adds every file that git does not track. The index is read here
// and not by git: the repository's configuration is the job's.
func (c *collection) untracked() {
	tracked, err := c.tracked()
	if err != nil {
		c.log.warn("untracked: %v", err)
		return
	}
	found := 0
	err = fs.WalkDir(c.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir() || tracked[name]:
			return nil
		}
		if info, err := entry.Info(); err == nil && c.add(name, info) {
			found++
		}
		return nil
	})
	switch {
	case err != nil:
		c.log.warn("untracked: %v", err)
	case found == 0:
		c.log.warn("untracked: no files")
	default:
		c.log.info("untracked: found %d files", found)
	}
}

func (c *collection) tracked() (map[string]bool, error) {
	file, err := openRegular(c.root, ".git/index")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no git repository in the project folder")
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var parsed index.Index
	if err := index.NewDecoder(io.LimitReader(file, 1<<30)).Decode(&parsed); err != nil {
		return nil, fmt.Errorf("read git index: %w", err)
	}
	tracked := make(map[string]bool, len(parsed.Entries))
	for _, entry := range parsed.Entries {
		tracked[entry.Name] = true
	}
	return tracked, nil
}
