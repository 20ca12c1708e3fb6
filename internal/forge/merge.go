package forge

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// mergeTree merges two commits in memory. Where they conflict it returns the
// paths that do; the tree then has conflict markers and is not to be used.
func (s *Service) mergeTree(ctx context.Context, projectID int64, ours, theirs string) (tree string, conflicts []string, err error) {
	if s.git.minor < mergeTreeGit {
		return s.mergeByIndex(ctx, projectID, ours, theirs)
	}
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", "--allow-unrelated-histories", ours, theirs)
	if err != nil && exitCode(err) != 1 {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	parts := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(parts) == 0 || !fullSHA.MatchString(parts[0]) {
		return "", nil, fmt.Errorf("forge: merge: git merge-tree answered %q", clip(string(out), 100))
	}
	if err != nil {
		return parts[0], parts[1:], nil
	}
	return parts[0], nil, nil
}

// mergeByIndex is mergeTree for a git whose merge-tree cannot write trees (it
// came with 2.38): a three-way merge in an index and a folder of its own. It
// does not follow renames.
func (s *Service) mergeByIndex(ctx context.Context, projectID int64, ours, theirs string) (tree string, conflicts []string, err error) {
	base, err := s.MergeBase(ctx, projectID, ours, theirs)
	if err != nil {
		return "", nil, err
	}
	if base == "" {
		base = emptyTree
	}
	tmp, err := os.MkdirTemp(s.git.tmp, "merge-")
	if err != nil {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // cleared at the next start
	work := filepath.Join(tmp, "tree")
	if err := os.Mkdir(work, 0o700); err != nil {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	env := []string{"GIT_INDEX_FILE=" + filepath.Join(tmp, "index"), "GIT_WORK_TREE=" + work}
	run := func(args ...string) ([]byte, error) {
		cmd := s.git.command(ctx, s.RepositoryPath(projectID), env, args...)
		cmd.Dir = work
		stderr := limited{max: maxStderr}
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = &gitError{args: args, code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), err: err}
		}
		return out, err
	}
	if _, err := run("read-tree", "-i", "-m", "--aggressive", base, ours, theirs); err != nil {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	// Its status says that something conflicts, which the index tells better.
	if _, err := run("merge-index", "-o", "-q", "git-merge-one-file", "-a"); err != nil && exitCode(err) < 0 {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	out, err := run("ls-files", "-u", "-z")
	if err != nil {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	seen := map[string]bool{}
	for rec := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if _, name, ok := strings.Cut(rec, "\t"); ok && !seen[name] {
			seen[name] = true
			conflicts = append(conflicts, name)
		}
	}
	if len(conflicts) > 0 {
		return "", conflicts, nil
	}
	out, err = run("write-tree")
	if err != nil {
		return "", nil, fmt.Errorf("forge: merge: %w", err)
	}
	return strings.TrimSpace(string(out)), nil, nil
}

// writeCommit stores a commit object and returns its id.
func (s *Service) writeCommit(ctx context.Context, projectID int64, tree string, parents []string, author, committer delivery.Signature, message string) (string, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s\n", formatSignature(author), formatSignature(committer), strings.TrimRight(message, "\n"))
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), &b, "hash-object", "-t", "commit", "-w", "--stdin")
	if err != nil {
		return "", fmt.Errorf("forge: write commit: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// applyOnto makes the change from base to commit once more on top of onto and
// returns the resulting tree. Commits made only for the calculation stand for
// the three sides, which also works with a git whose merge-tree cannot be told
// a merge base.
func (s *Service) applyOnto(ctx context.Context, projectID int64, base, commit, onto string) (tree string, conflicts []string, err error) {
	side := func(of string, parents ...string) (string, error) {
		c, err := s.Commit(ctx, projectID, of)
		if err != nil {
			return "", err
		}
		sig := delivery.Signature{Name: "Slipway", Email: "noreply@localhost", When: s.now()}
		return s.writeCommit(ctx, projectID, c.Tree, parents, sig, sig, "side of a merge")
	}
	b, err := side(base)
	if err != nil {
		return "", nil, err
	}
	ours, err := side(onto, b)
	if err != nil {
		return "", nil, err
	}
	theirs, err := side(commit, b)
	if err != nil {
		return "", nil, err
	}
	return s.mergeTree(ctx, projectID, ours, theirs)
}

// rebase replays the commits of base..head, merges left out, on top of onto.
func (s *Service) rebase(ctx context.Context, projectID int64, head, onto string, committer delivery.Signature) (string, []string, error) {
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "rev-list", "--reverse", "--topo-order", "--no-merges", onto+".."+head)
	if err != nil {
		return "", nil, fmt.Errorf("forge: rebase: %w", err)
	}
	commits := strings.Fields(string(out))
	if len(commits) > 1000 {
		return "", nil, delivery.Errorf(delivery.TooLarge, "The branch has more than 1000 commits; rebase it with git.")
	}
	tip := onto
	for _, sha := range commits {
		c, err := s.Commit(ctx, projectID, sha)
		if err != nil {
			return "", nil, err
		}
		if len(c.Parents) == 0 {
			return "", nil, delivery.Errorf(delivery.Invalid, "A branch with a history of its own cannot be rebased.")
		}
		tree, conflicts, err := s.applyOnto(ctx, projectID, c.Parents[0], sha, tip)
		if err != nil || len(conflicts) > 0 {
			return "", conflicts, err
		}
		above, err := s.Commit(ctx, projectID, tip)
		if err != nil {
			return "", nil, err
		}
		if tree == above.Tree {
			continue // already there
		}
		if tip, err = s.writeCommit(ctx, projectID, tree, []string{tip}, c.Author, committer, c.Message); err != nil {
			return "", nil, err
		}
	}
	return tip, nil, nil
}

// PickOptions say which commit to apply or revert, and where.
type PickOptions struct {
	Commit   string
	Branch   string
	Message  string // empty: as git words it
	Revert   bool
	DryRun   bool
	Mainline int // parent of a merge commit to count from, 1 by default
}

// Pick cherry-picks or reverts a commit on a branch. Conflicts and empty
// results are of kind Invalid, with the paths named.
func (s *Service) Pick(ctx context.Context, who delivery.Identity, p delivery.Project, o PickOptions) (delivery.Commit, error) {
	c, err := s.Commit(ctx, p.ID, o.Commit)
	if err != nil {
		return c, err
	}
	if err := CheckRefName(o.Branch); err != nil {
		return c, err
	}
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return c, err
	}
	defer unlock()
	ref := "refs/heads/" + o.Branch
	tip, ok, err := s.RefExists(ctx, p.ID, ref)
	if err != nil {
		return c, err
	}
	if !ok {
		return c, &delivery.Error{Kind: delivery.NotFound, Message: "404 Branch Not Found"}
	}
	if err := s.authorizeUpdates(ctx, who, p, []RefUpdate{{Ref: ref, Old: tip, New: tip}}, nil, true); err != nil {
		return c, err
	}
	if len(c.Parents) == 0 {
		return c, delivery.Errorf(delivery.Invalid, "The first commit cannot be picked or reverted.")
	}
	parent := c.Parents[0]
	if o.Mainline > 1 && o.Mainline <= len(c.Parents) {
		parent = c.Parents[o.Mainline-1]
	}
	from, to := parent, c.SHA
	if o.Revert {
		from, to = c.SHA, parent
	}
	tree, conflicts, err := s.applyOnto(ctx, p.ID, from, to, tip)
	if err != nil {
		return c, err
	}
	verb := "cherry-pick"
	if o.Revert {
		verb = "revert"
	}
	if len(conflicts) > 0 {
		return c, delivery.Errorf(delivery.Invalid, "Sorry, we cannot %s this commit automatically: it conflicts in %s.", verb, clip(strings.Join(conflicts, ", "), 300))
	}
	above, err := s.Commit(ctx, p.ID, tip)
	if err != nil {
		return c, err
	}
	if tree == above.Tree {
		return c, delivery.Errorf(delivery.Invalid, "Sorry, we cannot %s this commit automatically: it is already there, or nothing is left of it.", verb)
	}
	if o.DryRun {
		return c, nil
	}
	committer := s.signatureOf(who)
	author, message := c.Author, c.Message+"\n\n(cherry picked from commit "+c.SHA+")"
	if o.Revert {
		author, message = committer, fmt.Sprintf("Revert \"%s\"\n\nThis reverts commit %s", c.Title(), c.SHA)
	}
	if o.Message != "" {
		message = o.Message
	}
	sha, err := s.writeCommit(ctx, p.ID, tree, []string{tip}, author, committer, message)
	if err != nil {
		return c, err
	}
	if err := s.updateRefs(ctx, p.ID, who, []RefUpdate{{Ref: ref, Old: tip, New: sha}}, nil); err != nil {
		return c, err
	}
	return s.Commit(ctx, p.ID, sha)
}

// RestoreOptions say which files to take back.
type RestoreOptions struct {
	Branch  string   // where the commit goes
	Paths   []string // only files below these folders; empty: the whole repository
	Good    string   // the commit whose files are wanted
	Bad     string   // the commit that is taken back
	Message string
}

// Restore makes a commit on a branch in which each file that differs between
// two commits is again as in the good one; everything else, newer commits
// included, stays. It is a Conflict when such a file changed again after the
// bad commit, and Invalid when there is nothing to take back.
func (s *Service) Restore(ctx context.Context, who delivery.Identity, p delivery.Project, o RestoreOptions) (delivery.Commit, error) {
	changes, err := s.ChangedFiles(ctx, p.ID, o.Good, o.Bad)
	if err != nil {
		return delivery.Commit{}, err
	}
	below := func(file string) bool {
		for _, dir := range o.Paths {
			dir = strings.Trim(dir, "/")
			if dir == "" || dir == "." || file == dir || strings.HasPrefix(file, dir+"/") {
				return true
			}
		}
		return len(o.Paths) == 0
	}
	n := delivery.NewCommit{Branch: o.Branch, Message: o.Message}
	seen := map[string]bool{}
	for _, c := range changes {
		for _, file := range []string{c.OldPath, c.NewPath} {
			if seen[file] || !below(file) {
				continue
			}
			seen[file] = true
			action, err := s.restoreFile(ctx, p, o, file)
			if err != nil {
				return delivery.Commit{}, err
			}
			if action != nil {
				n.Actions = append(n.Actions, *action)
			}
		}
	}
	if len(n.Actions) == 0 {
		return delivery.Commit{}, delivery.Errorf(delivery.Invalid, "There is nothing to take back: the files are as they were in %s.", clip(o.Good, 12))
	}
	return s.CommitFiles(ctx, who, p, n)
}

// restoreFile finds out what makes a file what it was; nil when it is that
// already.
func (s *Service) restoreFile(ctx context.Context, p delivery.Project, o RestoreOptions, file string) (*delivery.CommitAction, error) {
	find := func(rev string) (delivery.TreeEntry, error) {
		e, err := s.Entry(ctx, p.ID, rev, file)
		if delivery.IsNotFound(err) {
			return delivery.TreeEntry{}, nil
		}
		return e, err
	}
	var entries [3]delivery.TreeEntry
	for i, rev := range []string{o.Good, o.Bad, "refs/heads/" + o.Branch} {
		var err error
		if entries[i], err = find(rev); err != nil {
			return nil, err
		}
	}
	good, bad, now := entries[0], entries[1], entries[2]
	same := func(a, b delivery.TreeEntry) bool { return a.SHA == b.SHA && a.Mode == b.Mode }
	switch {
	case same(good, now):
		return nil, nil
	case !same(bad, now):
		return nil, &delivery.Error{Kind: delivery.Conflict, Op: "forge: restore", Message: "The file " + clip(file, 200) + " changed again after the commit that is to be taken back.", Next: "Change it by hand."}
	case good.SHA == "":
		return &delivery.CommitAction{Action: "delete", Path: file}, nil
	}
	_, body, err := s.ReadEntry(ctx, p.ID, o.Good, file, maxBlobInCommit)
	if err != nil {
		return nil, err
	}
	executable := good.Mode == "100755"
	action := "update"
	if now.SHA == "" {
		action = "create"
	}
	return &delivery.CommitAction{Action: action, Path: file, Content: body, Executable: &executable}, nil
}

const maxBlobInCommit = 50 << 20 // bytes of a file that is written back
