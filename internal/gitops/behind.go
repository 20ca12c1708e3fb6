package gitops

import (
	"context"
	"slices"
)

// pushedAnnotation names the commit for which a comparison was asked again.
const pushedAnnotation = "slipway.dev/pushed"

// Push is a commit that became the head of a branch of a project of the forge.
type Push struct {
	ForgeURL string // the forge's external address
	Project  string // its full path
	Branch   string // without refs/heads/
	Default  bool   // whether it is the project's default branch
	Commit   string
}

// Behind lists those of the Applications that follow the branch of a push and
// have not been compared with its commit, by name. Those that choose the paths
// that matter to them are left out: they may rightly stay where they are.
func (p Push) Behind(apps []*Application) []string {
	var names []string
	for _, a := range apps {
		if a.Deleting || a.ChoosesPaths || a.Sync.Revision == p.Commit || slices.Contains(a.Sync.Revisions, p.Commit) {
			continue
		}
		if slices.ContainsFunc(a.Sources, p.follows) {
			names = append(names, a.Name)
		}
	}
	return names
}

func (p Push) follows(s Source) bool {
	project, ok := ProjectPath(p.ForgeURL, s.RepoURL)
	branch := branchOf(s.TargetRevision)
	return ok && project == p.Project && (branch == p.Branch || branch == "" && p.Default)
}

// RefreshPushed makes Argo CD compare an Application with what was pushed,
// even where its own push hook asked for that already: the controller works on
// a copy of the Application into which it writes its own changes back, and one
// that was asked for in the same instant can be lost by that. The object
// changes each time, so that the controller sees it anew.
func (c *Client) RefreshPushed(ctx context.Context, name, commit string) error {
	return c.patch(ctx, "refresh", name, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{refreshAnnotation: "normal", pushedAnnotation: commit}},
	})
}
