package gitops

import (
	"context"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// fakeForge has three commits: good, bad and head; a blob's id is its text.
type fakeForge struct {
	files   map[string]map[string]string // commit -> path -> text
	changes []delivery.FileChange
	got     delivery.NewCommit
}

func (f *fakeForge) ProjectByPath(_ context.Context, path string) (delivery.Project, error) {
	if path != "acme/ops" {
		return delivery.Project{}, delivery.Errorf(delivery.NotFound, "no project %s", path)
	}
	return delivery.Project{ID: 7, DefaultBranch: "main"}, nil
}

func (f *fakeForge) ResolveRef(context.Context, int64, string) (string, error) { return "head", nil }

func (f *fakeForge) ChangedFiles(context.Context, int64, string, string) ([]delivery.FileChange, error) {
	return f.changes, nil
}

func (f *fakeForge) ReadEntry(_ context.Context, _ int64, rev, path string, _ int64) (string, []byte, error) {
	text, ok := f.files[rev][path]
	if !ok {
		return "", nil, delivery.Errorf(delivery.NotFound, "no file %s", path)
	}
	return text, []byte(text), nil
}

func (f *fakeForge) CommitFiles(_ context.Context, _ delivery.Identity, _ delivery.Project, n delivery.NewCommit) (delivery.Commit, error) {
	f.got = n
	return delivery.Commit{SHA: "reverted"}, nil
}

func newFakeForge() *fakeForge {
	return &fakeForge{
		files: map[string]map[string]string{
			"good": {"envs/a.yaml": "a1", "envs/gone.yaml": "g1", "other.yaml": "o1"},
			"head": {"envs/a.yaml": "a2", "envs/new.yaml": "n2", "other.yaml": "o2", "envs/later.yaml": "l3"},
		},
		changes: []delivery.FileChange{
			{OldPath: "envs/a.yaml", NewPath: "envs/a.yaml", OldSHA: "a1", NewSHA: "a2", OldMode: "100644", Status: "modified"},
			{OldPath: "envs/new.yaml", NewPath: "envs/new.yaml", NewSHA: "n2", Status: "added"},
			{OldPath: "envs/gone.yaml", NewPath: "envs/gone.yaml", OldSHA: "g1", OldMode: "100644", Status: "deleted"},
			{OldPath: "other.yaml", NewPath: "other.yaml", OldSHA: "o1", NewSHA: "o2", Status: "modified"},
		},
	}
}

func TestRepositoryRevert(t *testing.T) {
	t.Parallel()
	reversal := Reversal{RepoURL: "http://forge:8080/acme/ops.git", Paths: []string{"envs"}, Good: "good", Bad: "bad", Message: "back"}
	f := newFakeForge()
	g := Repository{Forge: f, URL: "http://forge:8080"}
	commit, err := g.Revert(t.Context(), reversal, delivery.Identity{})
	if err != nil || commit != "reverted" {
		t.Fatal(commit, err)
	}
	got := ""
	for _, a := range f.got.Actions {
		got += a.Action + " " + a.Path + "=" + string(a.Content) + "; "
	}
	if want := "update envs/a.yaml=a1; delete envs/new.yaml=; create envs/gone.yaml=g1; "; got != want || f.got.Branch != "main" {
		t.Errorf("actions on %s: %s, want %s", f.got.Branch, got, want)
	}

	f = newFakeForge()
	f.files["head"]["envs/a.yaml"] = "a3"
	if _, err := (Repository{Forge: f, URL: g.URL}).Revert(t.Context(), reversal, delivery.Identity{}); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("changed again: %v", err)
	}
	f = newFakeForge()
	f.files["head"] = f.files["good"]
	if _, err := (Repository{Forge: f, URL: g.URL}).Revert(t.Context(), reversal, delivery.Identity{}); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("already back: %v", err)
	}
	reversal.RepoURL = "https://elsewhere/acme/ops.git"
	if _, err := g.Revert(t.Context(), reversal, delivery.Identity{}); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("another forge: %v", err)
	}
}

func TestProjectPath(t *testing.T) {
	t.Parallel()
	for repo, want := range map[string]string{
		"http://F:8080/acme/ops.git": "acme/ops", "http://f:8080/acme/sub/ops": "acme/sub/ops",
		"http://g:8080/acme/ops": "", "http://f:8080/": "",
	} {
		if got, ok := ProjectPath("http://f:8080", repo); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q %v", repo, got, ok)
		}
	}
}
