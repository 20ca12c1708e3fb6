package gitops

import (
	"slices"
	"testing"
)

func TestBehind(t *testing.T) {
	t.Parallel()
	const forge = "http://192.0.2.1:8080"
	app := func(name, repo, target, revision string) *Application {
		return &Application{Name: name, Sources: []Source{{RepoURL: repo, TargetRevision: target}}, Sync: Sync{Revision: revision}}
	}
	repo := forge + "/acme/config.git"
	chooses := app("chooses", repo, "main", "old")
	chooses.ChoosesPaths = true
	several := app("several", repo, "main", "elsewhere")
	several.Sync.Revisions = []string{"elsewhere", "new"}
	apps := []*Application{
		app("head", repo, "HEAD", "old"), app("empty", repo, "", "old"), app("branch", repo, "main", "old"), app("full", repo, "refs/heads/main", ""),
		app("compared", repo, "main", "new"), app("other branch", repo, "next", "old"), app("other project", forge+"/acme/other.git", "main", "old"),
		app("elsewhere", "https://example.org/acme/config.git", "main", "old"), chooses, several,
	}
	push := Push{ForgeURL: forge, Project: "acme/config", Branch: "main", Default: true, Commit: "new"}
	if got, want := push.Behind(apps), []string{"head", "empty", "branch", "full"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	push.Default = false
	if got, want := push.Behind(apps), []string{"branch", "full"}; !slices.Equal(got, want) {
		t.Errorf("not the default branch: %q; want %q", got, want)
	}
}
