package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const (
	maxCommit = 1 << 20  // bytes of a commit object that are read
	maxTree   = 16 << 20 // bytes of one folder's tree object
)

var (
	shaPattern = regexp.MustCompile(`^[0-9a-f]{7,40}$`)
	fullSHA    = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

func errNoRevision(rev string) error {
	return &delivery.Error{Kind: delivery.NotFound, Op: "forge: resolve revision", Message: "404 Commit Not Found", Next: "", Err: fmt.Errorf("revision %q", rev)}
}

// ResolveRef returns the commit that a branch, a tag, a full ref name, a
// (possibly short) commit id, or such a name with ~N or ^N, stands for. An
// empty revision is the default branch. The error is of kind NotFound where
// there is none.
func (s *Service) ResolveRef(ctx context.Context, projectID int64, rev string) (string, error) {
	if rev == "" || rev == "HEAD" {
		rev = "HEAD"
	}
	if len(rev) > 1024 || strings.HasPrefix(rev, "-") || strings.ContainsAny(rev, " \t:?*[\\") || strings.Contains(rev, "..") || strings.Contains(rev, "@{") {
		return "", errNoRevision(rev)
	}
	dir := s.RepositoryPath(projectID)
	var candidates []string
	switch {
	case rev == "HEAD":
		candidates = []string{"HEAD"}
	case fullSHA.MatchString(rev):
		candidates = []string{rev}
	case strings.HasPrefix(rev, "refs/"):
		candidates = []string{rev}
	default:
		candidates = []string{"refs/heads/" + rev, "refs/tags/" + rev}
		if shaPattern.MatchString(rev) {
			candidates = append(candidates, rev)
		}
	}
	for _, c := range candidates {
		o, err := s.readers.stat(ctx, dir, c+"^{commit}")
		if err == nil && o.kind == "commit" {
			return o.sha, nil
		}
		if err != nil && !delivery.IsNotFound(err) {
			return "", err
		}
	}
	return "", errNoRevision(rev)
}

// revision is ResolveRef for names that may not exist.
func (s *Service) revision(ctx context.Context, projectID int64, rev string) (sha string, ok bool, err error) {
	sha, err = s.ResolveRef(ctx, projectID, rev)
	if delivery.IsNotFound(err) {
		return "", false, nil
	}
	return sha, err == nil, err
}

// Commit returns the commit that a revision stands for.
func (s *Service) Commit(ctx context.Context, projectID int64, rev string) (delivery.Commit, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return delivery.Commit{}, err
	}
	_, body, err := s.readers.read(ctx, s.RepositoryPath(projectID), sha, maxCommit)
	if err != nil {
		return delivery.Commit{}, err
	}
	c, _, err := parseCommit(sha, body)
	return c, err
}

// parseCommit reads a raw commit object (git's Documentation/gitformat-commit).
func parseCommit(sha string, raw []byte) (c delivery.Commit, signature string, err error) {
	c.SHA = sha
	head, message, _ := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	var sig strings.Builder
	inSig := false
	for _, line := range lines {
		if strings.HasPrefix(line, " ") {
			if inSig {
				sig.WriteString(line[1:] + "\n")
			}
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		inSig = key == "gpgsig" || key == "gpgsig-sha256"
		switch key {
		case "tree":
			c.Tree = value
		case "parent":
			c.Parents = append(c.Parents, value)
		case "author": // the first counts, as for git
			if c.Author == (delivery.Signature{}) {
				c.Author = parseSignature(value)
			}
		case "committer":
			if c.Committer == (delivery.Signature{}) {
				c.Committer = parseSignature(value)
			}
		case "gpgsig":
			sig.WriteString(value + "\n")
		}
	}
	if c.Tree == "" {
		return c, "", fmt.Errorf("forge: commit %s has no tree", sha)
	}
	c.Message = strings.TrimRight(strings.ToValidUTF8(string(message), "\uFFFD"), "\n")
	return c, sig.String(), nil
}

// parseSignature reads "Name <email> seconds zone".
func parseSignature(s string) delivery.Signature {
	var sig delivery.Signature
	open, end := strings.IndexByte(s, '<'), strings.LastIndexByte(s, '>')
	if open < 0 || end < open {
		sig.Name = strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
		return sig
	}
	sig.Name = strings.ToValidUTF8(strings.TrimSpace(s[:open]), "\uFFFD")
	sig.Email = strings.ToValidUTF8(s[open+1:end], "\uFFFD")
	fields := strings.Fields(s[end+1:])
	if len(fields) > 0 {
		if secs, err := strconv.ParseInt(fields[0], 10, 64); err == nil && secs > -1<<40 && secs < 1<<38 {
			zone := time.UTC
			if len(fields) > 1 && len(fields[1]) == 5 {
				if h, err := strconv.Atoi(fields[1][1:3]); err == nil {
					m, _ := strconv.Atoi(fields[1][3:])
					off := h*3600 + m*60
					if fields[1][0] == '-' {
						off = -off
					}
					if off != 0 && off > -24*3600 && off < 24*3600 {
						zone = time.FixedZone("", off)
					}
				}
			}
			sig.When = time.Unix(secs, 0).In(zone)
		}
	}
	return sig
}

// CleanPath checks a path inside a repository and returns it without slashes
// at the ends. Paths that leave the repository are of kind Invalid.
func CleanPath(p string) (string, error) {
	p = strings.Trim(p, "/")
	if p == "" || p == "." {
		return "", nil
	}
	if len(p) > 4096 || strings.ContainsAny(p, "\x00\n\r") {
		return "", delivery.Errorf(delivery.Invalid, "The path is not valid.")
	}
	for _, part := range strings.Split(p, "/") {
		if part == "" || part == "." || part == ".." {
			return "", delivery.Errorf(delivery.Invalid, "The path %q is not valid.", p)
		}
	}
	return p, nil
}

// Entry returns the file or folder at a path of a revision. The empty path is
// the root.
func (s *Service) Entry(ctx context.Context, projectID int64, rev, p string) (delivery.TreeEntry, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return delivery.TreeEntry{}, err
	}
	if p, err = CleanPath(p); err != nil {
		return delivery.TreeEntry{}, err
	}
	dir := s.RepositoryPath(projectID)
	if p == "" {
		o, err := s.readers.stat(ctx, dir, sha+"^{tree}")
		return delivery.TreeEntry{Mode: "040000", Type: "tree", SHA: o.sha, Size: -1}, err
	}
	parent, name := path.Split(p)
	entries, err := s.rawTree(ctx, dir, sha, strings.TrimSuffix(parent, "/"))
	if err != nil {
		return delivery.TreeEntry{}, err
	}
	for _, e := range entries {
		if e.Name == name {
			e.Path = p
			if e.Type == "blob" {
				o, err := s.readers.stat(ctx, dir, e.SHA)
				if err != nil {
					return e, err
				}
				e.Size = o.size
			}
			return e, nil
		}
	}
	return delivery.TreeEntry{}, &delivery.Error{Kind: delivery.NotFound, Message: "404 File Not Found"}
}

// Tree lists one folder of a revision: folders first, then by name, as GitLab.
func (s *Service) Tree(ctx context.Context, projectID int64, rev, folder string) ([]delivery.TreeEntry, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	if folder, err = CleanPath(folder); err != nil {
		return nil, err
	}
	entries, err := s.rawTree(ctx, s.RepositoryPath(projectID), sha, folder)
	if err != nil {
		return nil, err
	}
	rank := func(e delivery.TreeEntry) int {
		switch e.Type {
		case "tree":
			return 0
		case "blob":
			return 1
		}
		return 2
	}
	sort.SliceStable(entries, func(i, j int) bool { return rank(entries[i]) < rank(entries[j]) })
	return entries, nil
}

func (s *Service) rawTree(ctx context.Context, dir, commit, folder string) ([]delivery.TreeEntry, error) {
	name := commit + "^{tree}"
	if folder != "" {
		name = commit + ":" + folder
	}
	o, body, err := s.readers.read(ctx, dir, name, maxTree)
	if err != nil || o.kind != "tree" {
		if err == nil || delivery.IsNotFound(err) {
			err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Tree Not Found"}
		}
		return nil, err
	}
	return parseTree(body, folder)
}

// parseTree reads a raw tree object: "mode name\0" and 20 bytes, repeated.
func parseTree(body []byte, folder string) ([]delivery.TreeEntry, error) {
	var out []delivery.TreeEntry
	for len(body) > 0 {
		sp := bytes.IndexByte(body, ' ')
		nul := bytes.IndexByte(body, 0)
		if sp <= 0 || nul < sp || len(body) < nul+21 {
			return nil, errors.New("forge: malformed tree object")
		}
		e := delivery.TreeEntry{Mode: string(body[:sp]), Name: string(body[sp+1 : nul]), Size: -1}
		e.SHA = fmt.Sprintf("%x", body[nul+1:nul+21])
		body = body[nul+21:]
		switch {
		case e.Mode == "40000" || e.Mode == "040000":
			e.Mode, e.Type = "040000", "tree"
		case e.Mode == "160000":
			e.Type = "commit"
		default:
			e.Type = "blob"
		}
		e.Path = e.Name
		if folder != "" {
			e.Path = folder + "/" + e.Name
		}
		out = append(out, e)
	}
	return out, nil
}

// ListTree lists everything below a folder, folders included, with the sizes
// of files. At most max entries are read; more gives TooLarge.
func (s *Service) ListTree(ctx context.Context, projectID int64, rev, folder string, max int) ([]delivery.TreeEntry, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	if folder, err = CleanPath(folder); err != nil {
		return nil, err
	}
	args := []string{"ls-tree", "-r", "-t", "-l", "-z", sha}
	if folder != "" {
		args = []string{"--literal-pathspecs", "ls-tree", "-r", "-t", "-l", "-z", sha, "--", folder + "/"}
	}
	var buf bytes.Buffer
	if err := s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, &limitWriter{&buf, int64(max) * 256}, args...); err != nil {
		if buf.Len() > max*200 {
			return nil, errTooMuch
		}
		return nil, fmt.Errorf("forge: list tree: %w", err)
	}
	var out []delivery.TreeEntry
	for rec := range strings.SplitSeq(strings.TrimSuffix(buf.String(), "\x00"), "\x00") {
		meta, name, ok := strings.Cut(rec, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 4 {
			continue
		}
		e := delivery.TreeEntry{Mode: f[0], Type: f[1], SHA: f[2], Path: name, Name: path.Base(name), Size: -1}
		if n, err := strconv.ParseInt(f[3], 10, 64); err == nil {
			e.Size = n
		}
		if folder != "" && (e.Path == folder || !strings.HasPrefix(e.Path, folder+"/")) {
			continue
		}
		if len(out) == max {
			return nil, errTooMuch
		}
		out = append(out, e)
	}
	return out, nil
}

// ListFiles lists the paths of all files of a revision, in git's order, for
// rules:exists and the file finder.
func (s *Service) ListFiles(ctx context.Context, projectID int64, rev string) ([]string, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, &limitWriter{&buf, 64 << 20}, "ls-tree", "-r", "-z", "--name-only", sha); err != nil {
		return nil, fmt.Errorf("forge: list files: %w", err)
	}
	if buf.Len() == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(buf.String(), "\x00"), "\x00"), nil
}

// ReadFile returns the content of a file of at most max bytes. A missing file
// is of kind NotFound, a larger one TooLarge.
func (s *Service) ReadFile(ctx context.Context, projectID int64, rev, p string, max int64) ([]byte, error) {
	_, body, err := s.ReadEntry(ctx, projectID, rev, p, max)
	return body, err
}

// ReadEntry is ReadFile that also tells the blob's id.
func (s *Service) ReadEntry(ctx context.Context, projectID int64, rev, p string, max int64) (sha string, body []byte, err error) {
	commit, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return "", nil, err
	}
	if p, err = CleanPath(p); err != nil {
		return "", nil, err
	}
	o, body, err := s.readers.read(ctx, s.RepositoryPath(projectID), commit+":"+p, max)
	if err == nil && o.kind != "blob" || delivery.IsNotFound(err) {
		return "", nil, &delivery.Error{Kind: delivery.NotFound, Message: "404 File Not Found"}
	}
	return o.sha, body, err
}

// StatBlob returns the size in bytes of a blob.
func (s *Service) StatBlob(ctx context.Context, projectID int64, sha string) (int64, error) {
	if !fullSHA.MatchString(sha) {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "404 Blob Not Found"}
	}
	o, err := s.readers.stat(ctx, s.RepositoryPath(projectID), sha)
	if err == nil && o.kind != "blob" || delivery.IsNotFound(err) {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "404 Blob Not Found"}
	}
	return o.size, err
}

// WriteBlob streams a blob's content.
func (s *Service) WriteBlob(ctx context.Context, projectID int64, sha string, w io.Writer) error {
	if !fullSHA.MatchString(sha) {
		return errNoObject
	}
	return s.readers.copyTo(ctx, s.RepositoryPath(projectID), sha, w)
}

// LogOptions select commits.
type LogOptions struct {
	Rev      string // empty: the default branch
	Not      string // commits reachable from here are left out
	Path     string
	Author   string
	Search   string // in messages, without regard to case
	Since    time.Time
	Until    time.Time
	All      bool // from every branch and tag
	First    bool // first parents only
	Limit    int
	Offset   int
	TopoSort bool
}

// Commits lists commits, newest first.
func (s *Service) Commits(ctx context.Context, projectID int64, o LogOptions) ([]delivery.Commit, error) {
	args := []string{"--literal-pathspecs", "log", "-z", "--no-show-signature", "--format=tformat:" + logFormat}
	if o.Limit > 0 {
		args = append(args, "--max-count="+strconv.Itoa(o.Limit))
	}
	if o.Offset > 0 {
		args = append(args, "--skip="+strconv.Itoa(o.Offset))
	}
	if o.Author != "" {
		args = append(args, "--fixed-strings", "--author="+o.Author)
	}
	if o.Search != "" {
		args = append(args, "--fixed-strings", "--regexp-ignore-case", "--grep="+o.Search)
	}
	if !o.Since.IsZero() {
		args = append(args, "--since="+o.Since.UTC().Format(time.RFC3339))
	}
	if !o.Until.IsZero() {
		args = append(args, "--until="+o.Until.UTC().Format(time.RFC3339))
	}
	if o.First {
		args = append(args, "--first-parent")
	}
	if o.TopoSort {
		args = append(args, "--topo-order")
	}
	if o.All {
		args = append(args, "--branches", "--tags")
	} else {
		sha, err := s.ResolveRef(ctx, projectID, o.Rev)
		if err != nil {
			return nil, err
		}
		args = append(args, sha)
	}
	if o.Not != "" {
		sha, err := s.ResolveRef(ctx, projectID, o.Not)
		if err != nil {
			return nil, err
		}
		args = append(args, "^"+sha)
	}
	p, err := CleanPath(o.Path)
	if err != nil {
		return nil, err
	}
	args = append(args, "--")
	if p != "" {
		args = append(args, p)
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, args...)
	if err != nil {
		return nil, fmt.Errorf("forge: list commits: %w", err)
	}
	return parseLog(out)
}

// logFormat separates fields by the unit separator; records end with NUL.
const logFormat = "%H%x1f%P%x1f%T%x1f%an%x1f%ae%x1f%ad%x1f%cn%x1f%ce%x1f%cd%x1f%B"

func parseLog(out []byte) ([]delivery.Commit, error) {
	var list []delivery.Commit
	for rec := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if rec == "" {
			continue
		}
		f := strings.SplitN(rec, "\x1f", 10)
		if len(f) != 10 {
			return nil, fmt.Errorf("forge: git log printed an unexpected record of %d fields", len(f))
		}
		for i := range f {
			f[i] = strings.ToValidUTF8(f[i], "\uFFFD")
		}
		c := delivery.Commit{SHA: f[0], Parents: strings.Fields(f[1]), Tree: f[2], Message: strings.TrimRight(f[9], "\n")}
		c.Author = delivery.Signature{Name: f[3], Email: f[4], When: parseDate(f[5])}
		c.Committer = delivery.Signature{Name: f[6], Email: f[7], When: parseDate(f[8])}
		list = append(list, c)
	}
	return list, nil
}

// parseDate reads git's default date format as set by --date=iso-strict or the
// default one.
func parseDate(s string) time.Time {
	for _, layout := range []string{time.RFC3339, "Mon Jan 2 15:04:05 2006 -0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// CommitsBetween lists what to has and from has not, newest first, at most
// limit.
func (s *Service) CommitsBetween(ctx context.Context, projectID int64, from, to string, limit int) ([]delivery.Commit, error) {
	return s.Commits(ctx, projectID, LogOptions{Rev: to, Not: from, Limit: limit})
}

// CountCommits returns how many commits a revision has, and remembers it.
func (s *Service) CountCommits(ctx context.Context, projectID int64, rev, p string) (int, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return 0, err
	}
	if p, err = CleanPath(p); err != nil {
		return 0, err
	}
	key := sha + ":" + p
	if n, ok := s.counts.get(key); ok {
		return n, nil
	}
	args := []string{"--literal-pathspecs", "rev-list", "--count", sha, "--"}
	if p != "" {
		args = append(args, p)
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, args...)
	if err != nil {
		return 0, fmt.Errorf("forge: count commits: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, fmt.Errorf("forge: count commits: %w", err)
	}
	s.counts.put(key, n)
	return n, nil
}

// Divergence tells how many commits each of two revisions has that the other
// has not.
func (s *Service) Divergence(ctx context.Context, projectID int64, base, head string) (behind, ahead int, err error) {
	a, err := s.ResolveRef(ctx, projectID, base)
	if err != nil {
		return 0, 0, err
	}
	b, err := s.ResolveRef(ctx, projectID, head)
	if err != nil {
		return 0, 0, err
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "rev-list", "--left-right", "--count", a+"..."+b, "--")
	if err != nil {
		return 0, 0, fmt.Errorf("forge: compare: %w", err)
	}
	if _, err := fmt.Sscan(string(out), &behind, &ahead); err != nil {
		return 0, 0, fmt.Errorf("forge: compare: %w", err)
	}
	return behind, ahead, nil
}

// MergeBase returns the best common ancestor, or "" where there is none.
func (s *Service) MergeBase(ctx context.Context, projectID int64, a, b string) (string, error) {
	for _, rev := range []*string{&a, &b} {
		if fullSHA.MatchString(*rev) {
			continue
		}
		sha, err := s.ResolveRef(ctx, projectID, *rev)
		if err != nil {
			return "", err
		}
		*rev = sha
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "merge-base", a, b)
	switch exitCode(err) {
	case 1:
		return "", nil
	case 128: // a commit that is not there
		return "", errNoRevision(a + "..." + b)
	}
	if err != nil {
		return "", fmt.Errorf("forge: merge base: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// IsAncestor reports whether b contains a.
func (s *Service) IsAncestor(ctx context.Context, projectID int64, a, b string) (bool, error) {
	_, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "merge-base", "--is-ancestor", a, b)
	if exitCode(err) == 1 {
		return false, nil
	}
	return err == nil, err
}
