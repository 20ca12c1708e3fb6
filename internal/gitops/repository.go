package gitops

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// maxManifest is the largest file, in bytes, that a reversal carries.
const maxManifest = 10 << 20

// Repositories is what a reversal needs of the platform's forge.
type Repositories interface {
	ProjectByPath(ctx context.Context, fullPath string) (delivery.Project, error)
	ResolveRef(ctx context.Context, projectID int64, rev string) (string, error)
	ChangedFiles(ctx context.Context, projectID int64, from, to string) ([]delivery.FileChange, error)
	ReadEntry(ctx context.Context, projectID int64, rev, path string, max int64) (sha string, body []byte, err error)
	CommitFiles(ctx context.Context, who delivery.Identity, p delivery.Project, n delivery.NewCommit) (delivery.Commit, error)
}

// Repository makes reversals in the forge's repositories; it is the Reverter
// of the platform. The forge checks that the caller may push.
type Repository struct {
	Forge Repositories
	URL   string // the forge's external URL
}

// ProjectPath returns the full path of the forge's project whose clone address
// is repoURL, and false for an address elsewhere.
func ProjectPath(forgeURL, repoURL string) (string, bool) {
	f, err1 := url.Parse(forgeURL)
	r, err2 := url.Parse(repoURL)
	if err1 != nil || err2 != nil || !strings.EqualFold(f.Host, r.Host) {
		return "", false
	}
	path, ok := strings.CutPrefix(r.Path, strings.TrimRight(f.Path, "/")+"/")
	path = strings.Trim(strings.TrimSuffix(strings.TrimRight(path, "/"), ".git"), "/")
	return path, ok && path != ""
}

// Revert implements Reverter.
func (g Repository) Revert(ctx context.Context, r Reversal, by delivery.Identity) (string, error) {
	path, ok := ProjectPath(g.URL, r.RepoURL)
	if !ok {
		return "", delivery.Errorf(delivery.Invalid, "The repository %s is not on this platform; revert the commit where it is.", r.RepoURL)
	}
	project, err := g.Forge.ProjectByPath(ctx, path)
	if err != nil {
		return "", err
	}
	branch := r.Branch
	if branch == "" {
		branch = project.DefaultBranch
	}
	head, err := g.Forge.ResolveRef(ctx, project.ID, "refs/heads/"+branch)
	if err != nil {
		return "", err
	}
	changes, err := g.Forge.ChangedFiles(ctx, project.ID, r.Good, r.Bad)
	if err != nil {
		return "", err
	}
	var actions []delivery.CommitAction
	for _, c := range changes {
		for _, a := range undo(c, r.Paths) {
			needed, err := g.prepare(ctx, project.ID, head, r, &a)
			if err != nil {
				return "", err
			}
			if needed {
				actions = append(actions, a.CommitAction)
			}
		}
	}
	if len(actions) == 0 {
		return "", delivery.Errorf(delivery.Invalid, "There is nothing to take back: %s already has the files of %s.", branch, short(r.Good))
	}
	commit, err := g.Forge.CommitFiles(ctx, by, project, delivery.NewCommit{Branch: branch, Message: r.Message, Actions: actions})
	if err != nil {
		return "", err
	}
	return commit.SHA, nil
}

// inverse is an action with the blob that must be there for it.
type inverse struct {
	delivery.CommitAction
	bad  string // blob in Bad; "" where Bad does not have the file
	good string // blob in Good; "" likewise
}

// undo returns what takes a change back, as far as it is below paths.
func undo(c delivery.FileChange, paths []string) []inverse {
	if c.Status == "renamed" {
		return append(undo(delivery.FileChange{OldPath: c.NewPath, NewPath: c.NewPath, NewMode: c.NewMode, NewSHA: c.NewSHA, Status: "added"}, paths),
			undo(delivery.FileChange{OldPath: c.OldPath, NewPath: c.OldPath, OldMode: c.OldMode, OldSHA: c.OldSHA, Status: "deleted"}, paths)...)
	}
	path := c.NewPath
	if c.Status == "deleted" {
		path = c.OldPath
	}
	if !below(path, paths) {
		return nil
	}
	executable := c.OldMode == "100755"
	a := inverse{CommitAction: delivery.CommitAction{Path: path, Action: "update", Executable: &executable}, bad: c.NewSHA, good: c.OldSHA}
	switch c.Status {
	case "added", "copied":
		a.Action, a.good, a.Executable = "delete", "", nil
	case "deleted":
		a.Action, a.bad = "create", ""
	}
	return []inverse{a}
}

func below(path string, folders []string) bool {
	for _, f := range folders {
		if path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return len(folders) == 0
}

// prepare fills in the content and reports whether the action is needed; a
// file that changed after Bad is a Conflict.
func (g Repository) prepare(ctx context.Context, project int64, head string, r Reversal, a *inverse) (bool, error) {
	now, _, err := g.Forge.ReadEntry(ctx, project, head, a.Path, maxManifest)
	if err != nil && !delivery.IsNotFound(err) {
		return false, err
	}
	switch {
	case now == a.good:
		return false, nil
	case now != a.bad:
		return false, delivery.Errorf(delivery.Conflict, "%s was changed again after %s; take it back by hand.", a.Path, short(r.Bad))
	case now != "":
		a.LastCommit = head
	}
	if a.Action == "delete" {
		return true, nil
	}
	_, body, err := g.Forge.ReadEntry(ctx, project, r.Good, a.Path, maxManifest)
	if err != nil {
		return false, fmt.Errorf("gitops: read %s of %s: %w", a.Path, short(r.Good), err)
	}
	a.Content = body
	return true, nil
}
