package ci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// snapshot is a repository that holds the working copy as one commit. Objects go into the snapshot,
// so the user's repository is only read.
type snapshot struct {
	root   string // of the working copy
	gitDir string
	sha    string
	ref    string // short name
	tag    bool
}

// GitDir implements runner.Repositories.
func (s *snapshot) GitDir(context.Context, int64) (string, error) { return s.gitDir, nil }

// takeSnapshot commits the files that git does not ignore, whether committed or not, on top of HEAD.
func takeSnapshot(ctx context.Context, folder, dir string, facts gitlabci.Context) (*snapshot, error) {
	root, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	copy := readWorkingCopy(root)
	if copy.root != "" {
		root = copy.root
	}
	s := &snapshot{root: root, gitDir: filepath.Join(dir, "snapshot.git"), ref: facts.Ref, tag: facts.Tag}
	if _, err := s.git(ctx, "", "init", "--quiet", "--bare", "--template=", s.gitDir); err != nil {
		return nil, err
	}
	var parent []string
	if copy.root != "" {
		objects, err := s.git(ctx, root, "rev-parse", "--path-format=absolute", "--git-path", "objects")
		if err != nil {
			return nil, err
		}
		alternates := filepath.Join(s.gitDir, "objects", "info", "alternates")
		if err := os.MkdirAll(filepath.Dir(alternates), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(alternates, []byte(objects+"\n"), 0o644); err != nil {
			return nil, err
		}
		if copy.sha != "" {
			parent = []string{"-p", copy.sha}
			// Unchanged files are then known by their times, not read again.
			if index, err := s.git(ctx, root, "rev-parse", "--path-format=absolute", "--git-path", "index"); err == nil {
				if text, err := os.ReadFile(index); err == nil {
					if err := os.WriteFile(filepath.Join(s.gitDir, "index"), text, 0o600); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	if _, err := s.git(ctx, root, "--git-dir="+s.gitDir, "--work-tree="+root, "add", "--all"); err != nil {
		return nil, err
	}
	tree, err := s.git(ctx, root, "--git-dir="+s.gitDir, "write-tree")
	if err != nil {
		return nil, err
	}
	commit := append([]string{"--git-dir=" + s.gitDir, "-c", "user.name=slipway", "-c", "user.email=slipway@localhost",
		"commit-tree", tree, "-m", "Working copy"}, parent...)
	if s.sha, err = s.git(ctx, root, commit...); err != nil {
		return nil, err
	}
	_, err = s.git(ctx, root, "--git-dir="+s.gitDir, "update-ref", s.fullRef(), s.sha)
	return s, err
}

func (s *snapshot) fullRef() string {
	if s.tag {
		return "refs/tags/" + s.ref
	}
	return "refs/heads/" + s.ref
}

// git runs git in a folder and returns its trimmed output.
func (s *snapshot) git(ctx context.Context, folder string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = folder
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return "", delivery.Errorf(delivery.InternalError, "the working copy cannot be read by git: %w", fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String())))
	}
	return strings.TrimSpace(string(out)), nil
}

// gitInfo is what the runner checks out.
func (s *snapshot) gitInfo() delivery.GitInfo {
	info := delivery.GitInfo{
		RepoURL: "file://" + s.gitDir, ObjectFormat: "sha1", Ref: s.ref, SHA: s.sha, RefType: "branch",
		BeforeSHA: strings.Repeat("0", 40), Refspecs: []string{"+" + s.fullRef() + ":refs/remotes/origin/" + s.ref},
	}
	if len(s.sha) == 64 {
		info.ObjectFormat = "sha256"
	}
	if s.tag {
		info.RefType, info.Refspecs = "tag", []string{"+" + s.fullRef() + ":" + s.fullRef()}
	}
	return info
}
