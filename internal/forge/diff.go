package forge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// emptyTree is git's id of the tree without entries.
const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// ChangedFiles lists the files that differ between two revisions. A from of
// ZeroSHA or "" compares with nothing.
func (s *Service) ChangedFiles(ctx context.Context, projectID int64, from, to string) ([]delivery.FileChange, error) {
	a, b, err := s.diffEnds(ctx, projectID, from, to)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	err = s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, &limitWriter{&buf, 64 << 20}, "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "-M", a, b)
	if err != nil {
		return nil, fmt.Errorf("forge: changed files: %w", err)
	}
	return parseRaw(buf.Bytes())
}

// ChangedPaths lists the paths that differ, the old ones of renames included,
// for rules:changes.
func (s *Service) ChangedPaths(ctx context.Context, projectID int64, from, to string) ([]string, error) {
	changes, err := s.ChangedFiles(ctx, projectID, from, to)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, c := range changes {
		paths = append(paths, c.NewPath)
		if c.OldPath != c.NewPath {
			paths = append(paths, c.OldPath)
		}
	}
	return paths, nil
}

func (s *Service) diffEnds(ctx context.Context, projectID int64, from, to string) (a, b string, err error) {
	a = emptyTree
	if from != "" && from != delivery.ZeroSHA && from != emptyTree {
		if a, err = s.ResolveRef(ctx, projectID, from); err != nil {
			return "", "", err
		}
	}
	b, err = s.ResolveRef(ctx, projectID, to)
	return a, b, err
}

var statusNames = map[byte]string{'A': "added", 'M': "modified", 'D': "deleted", 'R': "renamed", 'C': "copied", 'T': "type_changed"}

// parseRaw reads diff-tree --raw -z.
func parseRaw(out []byte) ([]delivery.FileChange, error) {
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	var list []delivery.FileChange
	for i := 0; i < len(fields); {
		if fields[i] == "" {
			i++
			continue
		}
		f := strings.Fields(strings.TrimPrefix(fields[i], ":"))
		if len(f) != 5 || i+1 >= len(fields) {
			return nil, fmt.Errorf("forge: git diff printed %q", fields[i])
		}
		c := delivery.FileChange{OldMode: f[0], NewMode: f[1], OldSHA: f[2], NewSHA: f[3], Status: statusNames[f[4][0]], OldPath: fields[i+1], NewPath: fields[i+1]}
		i += 2
		if f[4][0] == 'R' || f[4][0] == 'C' {
			if i >= len(fields) {
				return nil, fmt.Errorf("forge: git diff ended early")
			}
			c.NewPath = fields[i]
			i++
		}
		list = append(list, c)
	}
	return list, nil
}

// FileDiff is one file of a diff, with its hunks as text.
type FileDiff struct {
	delivery.FileChange
	Patch     string // hunks from "@@" on; empty for binary files and pure renames
	Binary    bool
	Collapsed bool // over the limit of one file: Patch is empty
	TooLarge  bool // over the limit of the whole diff: Patch is empty
	Additions int
	Deletions int
}

// DiffLimits bound what a diff shows.
type DiffLimits struct {
	Files     int // 0: 1000
	FileBytes int // 0: 200 KB
	Bytes     int // 0: 5 MB
	Context   int // lines; 0: 3
	Space     bool
}

func (l DiffLimits) orDefault() DiffLimits {
	if l.Files == 0 {
		l.Files = 1000
	}
	if l.FileBytes == 0 {
		l.FileBytes = 200 << 10
	}
	if l.Bytes == 0 {
		l.Bytes = 5 << 20
	}
	if l.Context == 0 {
		l.Context = 3
	}
	return l
}

// Diff returns the changes between two revisions file by file. A from of
// ZeroSHA or "" compares with nothing. Memory is bounded by the limits: beyond
// them files are listed without their patch.
func (s *Service) Diff(ctx context.Context, projectID int64, from, to string, paths []string, l DiffLimits) ([]FileDiff, error) {
	a, b, err := s.diffEnds(ctx, projectID, from, to)
	if err != nil {
		return nil, err
	}
	return s.diffTrees(ctx, s.RepositoryPath(projectID), a, b, paths, l)
}

func (s *Service) diffTrees(ctx context.Context, dir, a, b string, paths []string, l DiffLimits) ([]FileDiff, error) {
	l = l.orDefault()
	args := []string{"--literal-pathspecs", "diff-tree", "-r", "-z", "--raw", "--no-abbrev", "-M", a, b, "--"}
	args = append(args, paths...)
	var raw bytes.Buffer
	if err := s.git.stream(ctx, dir, nil, nil, &limitWriter{&raw, 64 << 20}, args...); err != nil {
		return nil, fmt.Errorf("forge: diff: %w", err)
	}
	changes, err := parseRaw(raw.Bytes())
	if err != nil {
		return nil, err
	}
	files := make([]FileDiff, len(changes))
	index := make(map[string]int, len(changes))
	for i, c := range changes {
		files[i] = FileDiff{FileChange: c, TooLarge: i >= l.Files}
		index[c.NewPath] = i
	}
	args = []string{"--literal-pathspecs", "diff-tree", "-r", "-p", "-M", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
		"-U" + strconv.Itoa(l.Context)}
	if l.Space {
		args = append(args, "--ignore-all-space")
	}
	args = append(args, a, b, "--")
	args = append(args, paths...)
	patches := &patchSplitter{files: files, limits: l}
	err = s.git.stream(ctx, dir, nil, nil, patches, args...)
	if err != nil && !patches.full {
		return nil, fmt.Errorf("forge: diff: %w", err)
	}
	patches.flush()
	for i := patches.next; i < len(files); i++ {
		files[i].TooLarge = true
	}
	return files, nil
}

// patchSplitter takes the text of diff-tree -p, whose files come in the order
// of --raw, and hands each file its hunks.
type patchSplitter struct {
	files  []FileDiff
	limits DiffLimits
	next   int // files begun
	line   []byte
	total  int
	inHunk bool
	full   bool
	patch  strings.Builder // of the file begun last
}

func (p *patchSplitter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(p.line) < 1<<20 {
				p.line = append(p.line, b...)
			}
			break
		}
		p.line = append(p.line, b[:i+1]...)
		b = b[i+1:]
		if err := p.take(p.line); err != nil {
			return 0, err
		}
		p.line = p.line[:0]
	}
	return n, nil
}

func (p *patchSplitter) flush() {
	if len(p.line) > 0 && !p.full {
		_ = p.take(append(p.line, '\n')) // the limits only matter to the writer
	}
	p.finish()
}

// finish hands the file begun last its patch.
func (p *patchSplitter) finish() {
	if p.next > 0 && !p.files[p.next-1].Collapsed {
		p.files[p.next-1].Patch = strings.ToValidUTF8(p.patch.String(), "\uFFFD")
	}
	p.patch.Reset()
}

func (p *patchSplitter) take(line []byte) error {
	if bytes.HasPrefix(line, []byte("diff --git ")) {
		p.inHunk = false
		if p.next >= len(p.files) || p.next >= p.limits.Files || p.total > p.limits.Bytes {
			p.full = true
			return errTooMuch
		}
		p.finish()
		p.next++
		return nil
	}
	if p.next == 0 {
		return nil
	}
	f := &p.files[p.next-1]
	if !p.inHunk {
		if bytes.HasPrefix(line, []byte("@@ ")) {
			p.inHunk = true
		} else {
			if bytes.HasPrefix(line, []byte("Binary files ")) {
				f.Binary = true
			}
			return nil
		}
	}
	switch line[0] {
	case '+':
		f.Additions++
	case '-':
		f.Deletions++
	}
	if f.Collapsed {
		return nil
	}
	if p.patch.Len()+len(line) > p.limits.FileBytes {
		f.Collapsed = true
		return nil
	}
	p.patch.Write(line)
	p.total += len(line)
	return nil
}

// RawDiff streams a diff or a patch series (format "diff" or "patch").
func (s *Service) RawDiff(ctx context.Context, projectID int64, from, to, format string, w io.Writer) error {
	a, b, err := s.diffEnds(ctx, projectID, from, to)
	if err != nil {
		return err
	}
	if format == "patch" {
		return s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, w, "format-patch", "--stdout", "--no-signature", a+".."+b)
	}
	return s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, w, "diff-tree", "-r", "-p", "-M", "--full-index", a, b)
}

// BlameLine is one line with the commit that last changed it.
type BlameLine struct {
	SHA  string
	Text string
}

// Blame tells for each line of a file which commit last changed it, and
// returns those commits by id.
func (s *Service) Blame(ctx context.Context, projectID int64, rev, p string) ([]BlameLine, map[string]delivery.Commit, error) {
	e, err := s.Entry(ctx, projectID, rev, p)
	if err != nil {
		return nil, nil, err
	}
	if e.Type != "blob" {
		return nil, nil, &delivery.Error{Kind: delivery.NotFound, Message: "404 File Not Found"}
	}
	if e.Size > 5<<20 {
		return nil, nil, errTooMuch
	}
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "blame", "--porcelain", sha, "--", e.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("forge: blame: %w", err)
	}
	return parseBlame(out)
}

func parseBlame(out []byte) ([]BlameLine, map[string]delivery.Commit, error) {
	var lines []BlameLine
	commits := map[string]delivery.Commit{}
	sha := ""
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\n"), "\n") {
		if text, ok := strings.CutPrefix(line, "\t"); ok {
			lines = append(lines, BlameLine{SHA: sha, Text: strings.ToValidUTF8(text, "\uFFFD")})
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		if fullSHA.MatchString(key) {
			sha = key
			if c, ok := commits[sha]; !ok {
				c.SHA = sha
				commits[sha] = c
			}
			continue
		}
		c := commits[sha]
		value = strings.ToValidUTF8(value, "\uFFFD")
		secs := func() time.Time {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return time.Time{}
			}
			return time.Unix(n, 0).UTC()
		}
		switch key {
		case "author":
			c.Author.Name = value
		case "author-mail":
			c.Author.Email = strings.Trim(value, "<>")
		case "author-time":
			c.Author.When = secs()
		case "committer":
			c.Committer.Name = value
		case "committer-mail":
			c.Committer.Email = strings.Trim(value, "<>")
		case "committer-time":
			c.Committer.When = secs()
		case "summary":
			c.Message = value
		}
		commits[sha] = c
	}
	return lines, commits, nil
}

// countCache remembers some numbers that cost a walk through the history.
type countCache struct {
	mu sync.Mutex
	m  map[string]int
}

func newCountCache() *countCache { return &countCache{m: map[string]int{}} }

func (c *countCache) get(key string) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.m[key]
	return n, ok
}

func (c *countCache) put(key string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= 2000 {
		clear(c.m)
	}
	c.m[key] = n
}
