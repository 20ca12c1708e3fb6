package forge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// CommitFiles makes one commit of several changes on a branch, on behalf of
// the caller, and returns it. The branch is made where it does not exist.
// Invalid names what does not fit; Conflict says that the branch or a file
// changed in the meantime.
func (s *Service) CommitFiles(ctx context.Context, who delivery.Identity, p delivery.Project, n delivery.NewCommit) (delivery.Commit, error) {
	if err := CheckRefName(n.Branch); err != nil {
		return delivery.Commit{}, err
	}
	if strings.TrimSpace(n.Message) == "" {
		return delivery.Commit{}, delivery.Errorf(delivery.Invalid, "commit_message is missing")
	}
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return delivery.Commit{}, err
	}
	defer unlock()
	ref := "refs/heads/" + n.Branch
	old, exists, err := s.RefExists(ctx, p.ID, ref)
	if err != nil {
		return delivery.Commit{}, err
	}
	if !exists {
		old = delivery.ZeroSHA
	}
	parent, err := s.startOf(ctx, p, n, old, exists)
	if err != nil {
		return delivery.Commit{}, err
	}
	u := RefUpdate{Ref: ref, Old: old, New: old}
	if !exists {
		u.New = strings.Repeat("1", 40)
	}
	if err := s.authorizeUpdates(ctx, who, p, []RefUpdate{u}, nil, true); err != nil {
		return delivery.Commit{}, err
	}
	sha, err := s.makeCommit(ctx, who, p, parent, n)
	if err != nil {
		return delivery.Commit{}, err
	}
	u.New = sha
	if n.Force && exists {
		if err := s.authorizeUpdates(ctx, who, p, []RefUpdate{u}, nil, true); err != nil {
			return delivery.Commit{}, err
		}
	}
	if err := s.updateRefs(ctx, p.ID, who, []RefUpdate{u}, nil); err != nil {
		return delivery.Commit{}, err
	}
	if p.Empty {
		if err := s.chooseFirst(ctx, p.ID, n.Branch); err != nil {
			return delivery.Commit{}, err
		}
	}
	return s.Commit(ctx, p.ID, sha)
}

// chooseFirst makes the first branch of a project its default one where the
// planned one does not exist.
func (s *Service) chooseFirst(ctx context.Context, id int64, branch string) error {
	p, err := s.store.ProjectByID(ctx, id)
	if err != nil {
		return err
	}
	return s.chooseDefault(ctx, p, []RefUpdate{{Ref: "refs/heads/" + branch, New: strings.Repeat("1", 40)}})
}

// startOf finds the commit that the new one follows; "" for the first.
func (s *Service) startOf(ctx context.Context, p delivery.Project, n delivery.NewCommit, old string, exists bool) (string, error) {
	start := n.StartSHA
	if start == "" && n.StartBranch != "" && n.StartBranch != n.Branch {
		start = "refs/heads/" + n.StartBranch
	}
	if exists {
		if start != "" && !n.Force {
			return "", delivery.Errorf(delivery.Invalid, "A branch called '%s' already exists. Switch to that branch in order to make changes", n.Branch)
		}
		if start == "" {
			return old, nil
		}
	}
	if start == "" {
		if p.Empty {
			return "", nil
		}
		if n.StartBranch == "" {
			return "", delivery.Errorf(delivery.Invalid, "You can only create or edit files when you are on a branch")
		}
		start = "refs/heads/" + n.StartBranch
	}
	sha, ok, err := s.revision(ctx, p.ID, start)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", delivery.Errorf(delivery.Invalid, "Cannot find the start branch or commit '%s'", clip(strings.TrimPrefix(start, "refs/heads/"), 80))
	}
	return sha, nil
}

const maxFiles = 10000 // actions in one commit

// makeCommit writes the objects by git fast-import, which needs neither an
// index nor a working tree, and returns the commit's id. The ref it uses is
// removed again.
func (s *Service) makeCommit(ctx context.Context, who delivery.Identity, p delivery.Project, parent string, n delivery.NewCommit) (string, error) {
	if len(n.Actions) > maxFiles {
		return "", delivery.Errorf(delivery.TooLarge, "A commit can change at most %d files here; push it with git instead.", maxFiles)
	}
	committer := s.signatureOf(who)
	author := n.Author
	if author.Name == "" {
		author.Name = committer.Name
	}
	if author.Email == "" {
		author.Email = committer.Email
	}
	author.When = committer.When
	temp := "refs/slipway/" + randomName()
	var in bytes.Buffer
	message := strings.TrimRight(n.Message, "\n") + "\n"
	fmt.Fprintf(&in, "feature done\ncommit %s\nmark :1\nauthor %s\ncommitter %s\ndata %d\n%s\n", temp, formatSignature(author), formatSignature(committer), len(message), message)
	if parent != "" {
		fmt.Fprintf(&in, "from %s\n", parent)
	}
	for _, a := range n.Actions {
		if err := s.writeAction(ctx, &in, p, parent, a); err != nil {
			return "", err
		}
	}
	in.WriteString("\nget-mark :1\ndone\n")
	out, err := s.git.run(ctx, s.RepositoryPath(p.ID), &in, "fast-import", "--quiet", "--done", "--date-format=raw", "--cat-blob-fd=1")
	if err != nil {
		return "", fmt.Errorf("forge: commit: %w", err)
	}
	sha := strings.TrimSpace(string(out))
	if !fullSHA.MatchString(sha) {
		return "", fmt.Errorf("forge: commit: git fast-import answered %q", clip(sha, 100))
	}
	if _, err := s.git.run(context.WithoutCancel(ctx), s.RepositoryPath(p.ID), nil, "update-ref", "-d", temp); err != nil {
		s.log.Warn("temporary ref not removed", "project", p.ID, "err", err)
	}
	return sha, nil
}

// writeAction checks an action against the parent and writes it for
// fast-import.
func (s *Service) writeAction(ctx context.Context, in io.Writer, p delivery.Project, parent string, a delivery.CommitAction) error {
	file, err := cleanFile(a.Path)
	if err != nil {
		return err
	}
	find := func(name string) (delivery.TreeEntry, bool, error) {
		if parent == "" {
			return delivery.TreeEntry{}, false, nil
		}
		e, err := s.Entry(ctx, p.ID, parent, name)
		if delivery.IsNotFound(err) {
			return e, false, nil
		}
		return e, err == nil, err
	}
	entry, exists, err := find(file)
	if err != nil {
		return err
	}
	mode := "100644"
	if exists && entry.Type == "blob" {
		mode = entry.Mode
	}
	if a.Executable != nil && mode != "120000" {
		mode = "100644"
		if *a.Executable {
			mode = "100755"
		}
	}
	if a.LastCommit != "" && exists {
		if err := s.unchangedSince(ctx, p, parent, file, a.LastCommit); err != nil {
			return err
		}
	}
	missing := delivery.Errorf(delivery.Invalid, "A file with this name doesn't exist")
	switch a.Action {
	case "create":
		if exists {
			return delivery.Errorf(delivery.Invalid, "A file with this name already exists")
		}
		return writeFile(in, mode, file, a.Content)
	case "update":
		if !exists || entry.Type != "blob" {
			return missing
		}
		return writeFile(in, mode, file, a.Content)
	case "delete":
		if !exists {
			return missing
		}
		_, err := fmt.Fprintf(in, "D %s\n", quotePath(file))
		return err
	case "chmod":
		if !exists || entry.Type != "blob" {
			return missing
		}
		_, err := fmt.Fprintf(in, "M %s %s %s\n", mode, entry.SHA, quotePath(file))
		return err
	case "move":
		from, err := cleanFile(a.PreviousPath)
		if err != nil {
			return err
		}
		old, ok, err := find(from)
		if err != nil {
			return err
		}
		if !ok || old.Type != "blob" {
			return missing
		}
		if exists {
			return delivery.Errorf(delivery.Invalid, "A file with this name already exists")
		}
		if a.LastCommit != "" {
			if err := s.unchangedSince(ctx, p, parent, from, a.LastCommit); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(in, "D %s\n", quotePath(from)); err != nil {
			return err
		}
		if a.Content != nil {
			return writeFile(in, old.Mode, file, a.Content)
		}
		_, err = fmt.Fprintf(in, "M %s %s %s\n", old.Mode, old.SHA, quotePath(file))
		return err
	}
	return delivery.Errorf(delivery.Invalid, "Unknown action '%s'", clip(a.Action, 40))
}

func (s *Service) unchangedSince(ctx context.Context, p delivery.Project, parent, file, since string) error {
	last, err := s.Commits(ctx, p.ID, LogOptions{Rev: parent, Path: file, Limit: 1})
	if err != nil {
		return err
	}
	sha, err := s.ResolveRef(ctx, p.ID, since)
	if err != nil {
		return err
	}
	if len(last) == 0 || last[0].SHA == sha {
		return nil
	}
	ok, err := s.IsAncestor(ctx, p.ID, last[0].SHA, sha)
	if err != nil {
		return err
	}
	if !ok {
		return delivery.Errorf(delivery.Conflict, "You are attempting to update a file that has changed since you started editing it.")
	}
	return nil
}

// cleanFile checks the path of a file to be written: what CleanPath wants, and
// no .git in any spelling that some file system takes for it.
func cleanFile(name string) (string, error) {
	p, err := CleanPath(name)
	if err != nil {
		return "", err
	}
	if p == "" {
		return "", delivery.Errorf(delivery.Invalid, "file_path is missing")
	}
	for part := range strings.SplitSeq(strings.ToLower(p), "/") {
		trimmed := strings.TrimRight(part, " .")
		if trimmed == ".git" || trimmed == "git~1" || strings.HasPrefix(trimmed, ".git:") {
			return "", delivery.Errorf(delivery.Invalid, "The path %q is not allowed.", clip(p, 200))
		}
	}
	return p, nil
}

func writeFile(in io.Writer, mode, file string, content []byte) error {
	if _, err := fmt.Fprintf(in, "M %s inline %s\ndata %d\n", mode, quotePath(file), len(content)); err != nil {
		return err
	}
	if _, err := in.Write(content); err != nil {
		return err
	}
	_, err := io.WriteString(in, "\n")
	return err
}

// quotePath writes a path in C style for fast-import.
func quotePath(p string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// LastCommits tells for the entries of a folder which commit last changed
// each, looking at no more than a bounded part of the history.
func (s *Service) LastCommits(ctx context.Context, projectID int64, rev, folder string) (map[string]delivery.Commit, error) {
	entries, err := s.Tree(ctx, projectID, rev, folder)
	if err != nil {
		return nil, err
	}
	sha, err := s.ResolveRef(ctx, projectID, rev)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, e := range entries {
		wanted[e.Name] = true
	}
	folder, err = CleanPath(folder)
	if err != nil {
		return nil, err
	}
	prefix := ""
	args := []string{"--literal-pathspecs", "log", "-z", "--max-count=2000", "--no-renames", "--name-only", "--format=format:%x1e" + logFormat + "%x1d", sha, "--"}
	if folder != "" {
		prefix = folder + "/"
		args = append(args, folder)
	}
	scan := &lastScan{prefix: prefix, wanted: wanted, found: map[string]delivery.Commit{}}
	err = s.git.stream(ctx, s.RepositoryPath(projectID), nil, nil, scan, args...)
	if err != nil && !scan.complete {
		return nil, fmt.Errorf("forge: last commits: %w", err)
	}
	scan.record(scan.rest)
	return scan.found, nil
}

// lastScan reads the log until every entry is found.
type lastScan struct {
	prefix   string
	wanted   map[string]bool
	found    map[string]delivery.Commit
	rest     []byte
	complete bool
}

func (l *lastScan) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest[min(1, len(l.rest)):], 0x1e)
		if i < 0 {
			return len(b), nil
		}
		l.record(l.rest[:i+1])
		l.rest = l.rest[i+1:]
		if len(l.wanted) == 0 {
			l.complete = true
			return 0, errTooMuch
		}
	}
}

func (l *lastScan) record(rec []byte) {
	head, names, ok := strings.Cut(strings.TrimPrefix(string(rec), "\x1e"), "\x1d")
	if !ok {
		return
	}
	commits, err := parseLog([]byte(head))
	if err != nil || len(commits) != 1 {
		return
	}
	for name := range strings.SplitSeq(strings.Trim(names, "\n\x00"), "\x00") {
		rest, ok := strings.CutPrefix(strings.TrimLeft(name, "\n"), l.prefix)
		if !ok {
			continue
		}
		first, _, _ := strings.Cut(rest, "/")
		if l.wanted[first] {
			delete(l.wanted, first)
			l.found[first] = commits[0]
		}
	}
}
