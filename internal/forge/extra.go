package forge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Archive is a snapshot of a revision, ready to be written.
type Archive struct {
	Name      string
	MediaType string
	s         *Service
	projectID int64
	args      []string
}

// OpenArchive prepares an archive (tar.gz, tgz, tar, zip) of a revision or a
// folder of it.
func (s *Service) OpenArchive(ctx context.Context, p delivery.Project, rev, folder, format string) (*Archive, error) {
	media := map[string]string{"tar.gz": "application/gzip", "tgz": "application/gzip", "tar": "application/x-tar", "zip": "application/zip"}[format]
	if media == "" {
		return nil, &delivery.Error{Kind: delivery.NotFound, Message: "404 Not Found"}
	}
	sha, err := s.ResolveRef(ctx, p.ID, rev)
	if err != nil {
		return nil, err
	}
	if folder, err = CleanPath(folder); err != nil {
		return nil, err
	}
	label := rev
	if label == "" {
		label = p.DefaultBranch
	}
	base := p.Path + "-" + strings.ReplaceAll(label, "/", "-")
	if label != sha {
		base += "-" + sha
	}
	gitFormat := map[string]string{"tgz": "tar.gz"}[format]
	if gitFormat == "" {
		gitFormat = format
	}
	args := []string{"--literal-pathspecs", "archive", "--format=" + gitFormat, "--prefix=" + base + "/", sha}
	if folder != "" {
		if _, err := s.Entry(ctx, p.ID, sha, folder); err != nil {
			return nil, err
		}
		args = append(args, "--", folder)
	}
	return &Archive{Name: base + "." + format, MediaType: media, s: s, projectID: p.ID, args: args}, nil
}

// WriteTo streams the archive.
func (a *Archive) WriteTo(ctx context.Context, w io.Writer) error {
	return a.s.git.stream(ctx, a.s.RepositoryPath(a.projectID), nil, nil, w, a.args...)
}

// Contributor is an author with a number of commits.
type Contributor struct {
	Name    string
	Email   string
	Commits int
}

// Contributors counts commits per author of a revision.
func (s *Service) Contributors(ctx context.Context, projectID int64, rev string) ([]Contributor, error) {
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "shortlog", "-sne", "--no-merges", sha)
	if err != nil {
		return nil, fmt.Errorf("forge: contributors: %w", err)
	}
	var list []Contributor
	for line := range strings.Lines(string(out)) {
		count, rest, ok := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.Atoi(count)
		if !ok || err != nil {
			continue
		}
		sig := parseSignature(rest)
		list = append(list, Contributor{Name: sig.Name, Email: sig.Email, Commits: n})
	}
	return list, nil
}

// RefsContaining lists branches and tags that contain a commit.
func (s *Service) RefsContaining(ctx context.Context, projectID int64, sha string) ([]delivery.Ref, error) {
	if !fullSHA.MatchString(sha) {
		return nil, errNoRevision(sha)
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "for-each-ref", "--format=%(refname)", "--contains="+sha, "refs/heads/", "refs/tags/")
	if err != nil {
		return nil, fmt.Errorf("forge: refs containing: %w", err)
	}
	var list []delivery.Ref
	for name := range strings.FieldsSeq(string(out)) {
		list = append(list, delivery.Ref{FullName: name, Name: shortRef(name)})
	}
	return list, nil
}

// CommitStats counts the added and removed lines of a commit.
func (s *Service) CommitStats(ctx context.Context, projectID int64, c delivery.Commit) (added, removed int, err error) {
	from := emptyTree
	if len(c.Parents) > 0 {
		from = c.Parents[0]
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "diff-tree", "-r", "--shortstat", from, c.SHA)
	if err != nil {
		return 0, 0, fmt.Errorf("forge: count lines: %w", err)
	}
	for part := range strings.SplitSeq(string(out), ",") {
		f := strings.Fields(part)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(f[1], "insertion"):
			added = n
		case strings.HasPrefix(f[1], "deletion"):
			removed = n
		}
	}
	return added, removed, nil
}

var languageOf = map[string]string{
	".go": "Go", ".py": "Python", ".rb": "Ruby", ".js": "JavaScript", ".mjs": "JavaScript", ".jsx": "JavaScript", ".ts": "TypeScript", ".tsx": "TypeScript", ".java": "Java", ".kt": "Kotlin", ".rs": "Rust", ".c": "C", ".h": "C",
	".cc": "C++", ".cpp": "C++", ".hpp": "C++", ".cs": "C#", ".php": "PHP", ".swift": "Swift", ".sh": "Shell", ".bash": "Shell", ".html": "HTML", ".css": "CSS", ".scss": "SCSS", ".vue": "Vue", ".scala": "Scala", ".lua": "Lua",
	".pl": "Perl", ".r": "R", ".ex": "Elixir", ".exs": "Elixir", ".erl": "Erlang", ".hs": "Haskell", ".clj": "Clojure", ".dart": "Dart", ".sql": "SQL", ".tf": "HCL", ".proto": "Protocol Buffer", ".zig": "Zig", ".svelte": "Svelte",
}

// Languages returns the share of each programming language in the default
// branch, in percent of bytes, judged by file names.
func (s *Service) Languages(ctx context.Context, projectID int64) (map[string]float64, error) {
	out := map[string]float64{}
	if _, ok, err := s.revision(ctx, projectID, "HEAD"); err != nil || !ok {
		return out, err
	}
	files, err := s.ListTree(ctx, projectID, "HEAD", "", 200000)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	bytesOf := map[string]int64{}
	for _, f := range files {
		lang := languageOf[strings.ToLower(path.Ext(f.Name))]
		if f.Name == "Dockerfile" {
			lang = "Dockerfile"
		}
		if lang == "" || f.Type != "blob" || strings.Contains("/"+f.Path, "/vendor/") || strings.Contains("/"+f.Path, "/node_modules/") {
			continue
		}
		bytesOf[lang] += f.Size
		total += f.Size
	}
	for lang, n := range bytesOf {
		if total > 0 {
			out[lang] = float64(n*10000/total) / 100
		}
	}
	return out, nil
}

// Match is a line that a search found.
type Match struct {
	Path string
	Line int // of the first line of Text
	Text string
}

// SearchCode finds lines that contain a text, without regard to case, in a
// revision: at most limit of them.
func (s *Service) SearchCode(ctx context.Context, projectID int64, rev, text, folder string, limit int) ([]Match, error) {
	if len(text) < 2 || len(text) > 500 || strings.ContainsAny(text, "\n\x00") {
		return nil, delivery.Errorf(delivery.Invalid, "The search needs 2 to 500 characters on one line.")
	}
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	if folder, err = CleanPath(folder); err != nil {
		return nil, err
	}
	args := []string{"--literal-pathspecs", "grep", "-I", "-i", "-n", "-z", "--fixed-strings", "--full-name", "--max-depth=-1", "--threads=2", "-e", text, sha, "--"}
	if folder != "" {
		args = append(args, folder)
	}
	var buf bytes.Buffer
	err = s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, &limitWriter{&buf, 4 << 20}, args...)
	if err != nil && exitCode(err) != 1 && buf.Len() < 4<<20 {
		return nil, fmt.Errorf("forge: search: %w", err)
	}
	var list []Match
	for line := range strings.Lines(buf.String()) {
		f := strings.SplitN(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), sha+":"), "\x00", 3)
		if len(f) != 3 {
			continue
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		if len(list) == limit {
			break
		}
		list = append(list, Match{Path: f[0], Line: n, Text: clip(strings.ToValidUTF8(f[2], "\uFFFD"), 1000)})
	}
	return list, nil
}

// SearchFiles finds files whose path contains a text, without regard to case.
func (s *Service) SearchFiles(ctx context.Context, projectID int64, rev, text string, limit int) ([]string, error) {
	files, err := s.ListFiles(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	low := strings.ToLower(text)
	var out []string
	for _, f := range files {
		if strings.Contains(strings.ToLower(f), low) {
			if out = append(out, f); len(out) == limit {
				break
			}
		}
	}
	return out, nil
}
