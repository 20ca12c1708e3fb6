package forge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func TestPushAndClone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	sha := strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))
	w.git(dir, "push", "-q", "-o", "ci.skip", "origin", "main")
	events := w.events(p)
	if len(events) != 1 || events[0].After != sha || events[0].Ref != "refs/heads/main" || events[0].Before != delivery.ZeroSHA || events[0].UserID != w.people["ann"].User.ID {
		t.Fatalf("events: %+v", events)
	}
	if _, ok := events[0].PushOptions["ci.skip"]; !ok {
		t.Errorf("push options: %v", events[0].PushOptions)
	}
	got, err := w.forge.ReadFile(t.Context(), p.ID, "main", "README.md", 1000)
	if err != nil || string(got) != "# hello\n" {
		t.Errorf("file: %q %v", got, err)
	}
	clone := t.TempDir()
	for _, args := range [][]string{
		{"clone", "-q", w.url(p, "ann"), "full"},
		{"clone", "-q", "--depth=1", w.url(p, "ann"), "shallow"},
		{"clone", "-q", "--filter=blob:none", w.url(p, "ann"), "partial"},
		{"-c", "protocol.version=0", "clone", "-q", w.url(p, "ann"), "old"},
	} {
		w.git(clone, args...)
		if head := strings.TrimSpace(w.git(clone+"/"+args[len(args)-1], "rev-parse", "HEAD")); head != sha {
			t.Errorf("%v got %s", args, head)
		}
	}
	// Tags, several refs at once, deletion.
	w.git(dir, "tag", "-a", "v1", "-m", "one")
	w.git(dir, "branch", "side")
	out := w.git(dir, "push", "--atomic", "origin", "v1", "side")
	if !strings.Contains(out, "merge_requests/new") {
		t.Errorf("no invitation to open a merge request: %s", out)
	}
	w.git(dir, "push", "-q", "origin", ":side")
	if events = w.events(p); len(events) != 4 || events[3].After != delivery.ZeroSHA {
		t.Errorf("events: %+v", events)
	}
}

func TestProtectedBranches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("dev")
	p := w.project("ann", "", "app")
	w.member(p, "dev", delivery.Developer)
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main")
	w.git(dir, "remote", "set-url", "origin", w.url(p, "dev"))
	w.commit(dir, "a.txt", "a", "Second")
	out, err := w.tryGit(dir, "push", "origin", "main")
	if err == nil || !strings.Contains(out, "remote: Slipway: You are not allowed to push code to the protected branch main") {
		t.Errorf("a developer pushed to main: %v %s", err, out)
	}
	w.git(dir, "push", "-q", "origin", "main:feature")
	w.git(dir, "remote", "set-url", "origin", w.url(p, "ann"))
	w.git(dir, "push", "-q", "origin", "main")
	w.git(dir, "reset", "-q", "--hard", "HEAD~1")
	w.commit(dir, "b.txt", "b", "Other")
	out, err = w.tryGit(dir, "push", "--force", "origin", "main")
	if err == nil || !strings.Contains(out, "not allowed to force push") {
		t.Errorf("force push to main: %v %s", err, out)
	}
	out, err = w.tryGit(dir, "push", "origin", ":main")
	if err == nil || !strings.Contains(out, "default branch of a project cannot be deleted") {
		t.Errorf("deleted main: %v %s", err, out)
	}
	out, err = w.tryGit(dir, "push", "origin", "HEAD:refs/pipelines/1")
	if err == nil {
		t.Errorf("pushed to the platform's refs: %s", out)
	}
	if n := len(w.events(p)); n != 3 {
		t.Errorf("%d events; refused pushes must leave none", n)
	}
}

func TestCommitFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	if p.Empty {
		t.Error("a project with a README is empty")
	}
	commit := func(actions ...delivery.CommitAction) (delivery.Commit, error) {
		return w.forge.CommitFiles(t.Context(), w.people["ann"], p, delivery.NewCommit{Branch: "main", Message: "Change", Actions: actions})
	}
	first, err := commit(delivery.CommitAction{Action: "create", Path: "dir/a \"b\" ü.txt", Content: []byte("x\n")}, delivery.CommitAction{Action: "update", Path: "README.md", Content: []byte("new")})
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Parents) != 1 || first.Author.Name != "ann" {
		t.Errorf("%+v", first)
	}
	if _, err := commit(delivery.CommitAction{Action: "move", PreviousPath: "dir/a \"b\" ü.txt", Path: "c"}, delivery.CommitAction{Action: "delete", Path: "README.md"}); err != nil {
		t.Fatal(err)
	}
	entries, err := w.forge.Tree(t.Context(), p.ID, "main", "")
	if err != nil || len(entries) != 1 || entries[0].Name != "c" {
		t.Errorf("%+v %v", entries, err)
	}
	for _, bad := range []delivery.CommitAction{
		{Action: "create", Path: "c"}, {Action: "update", Path: "nope"}, {Action: "create", Path: "../x"}, {Action: "create", Path: ".git/hooks/x"},
		{Action: "create", Path: "a/.GIT/x"}, {Action: "explode", Path: "c"}, {Action: "update", Path: "c", LastCommit: first.Parents[0]},
	} {
		if _, err := commit(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	last, err := w.forge.LastCommits(t.Context(), p.ID, "main", "")
	if err != nil || last["c"].Title() != "Change" {
		t.Errorf("%+v %v", last, err)
	}
	if n := len(w.events(p)); n != 3 {
		t.Errorf("%d events", n)
	}
}

func TestPublicAndInternalProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("bob")
	open := w.project("ann", "", "open", func(n *forge.NewProject) { n.Readme, n.Visibility = true, delivery.Public })
	inner := w.project("ann", "", "inner", func(n *forge.NewProject) { n.Readme, n.Visibility = true, delivery.Internal })
	anonymous := func(p delivery.Project) string { return w.server.URL + "/" + p.FullPath + ".git" }
	dir := t.TempDir()
	w.git(dir, "clone", "-q", anonymous(open), "open")
	w.git(dir, "clone", "-q", strings.TrimSuffix(anonymous(open), ".git"), "without-suffix")
	if out, err := w.tryGit(dir+"/open", "push", "origin", "HEAD:refs/heads/x"); err == nil {
		t.Errorf("anonymous pushed: %s", out)
	}
	if out, err := w.tryGit(dir, "clone", anonymous(inner), "inner"); err == nil {
		t.Errorf("anonymous cloned an internal project: %s", out)
	}
	w.git(dir, "clone", "-q", w.url(inner, "bob"), "inner")
	if out, err := w.tryGit(dir+"/inner", "push", "origin", "HEAD:refs/heads/x"); err == nil || !strings.Contains(out, "not allowed to push") {
		t.Errorf("a stranger pushed: %v %s", err, out)
	}
	for path, status := range map[string]int{
		"/projects/ann%2Fopen": 200, "/projects/ann%2Fopen/repository/tree": 200, "/projects/ann%2Fopen/repository/archive.zip": 200, "/projects/ann%2Finner": 404, "/projects/ann%2Fopen/hooks": 401, "/projects": 200, "/users": 401,
	} {
		res, err := http.Get(w.server.URL + "/api/v4" + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, status)
		}
	}
	// An archived project takes no pushes.
	yes := true
	if _, err := w.forge.UpdateProject(t.Context(), w.people["ann"], open, forge.ProjectChange{Archived: &yes}); err != nil {
		t.Fatal(err)
	}
	if out, err := w.tryGit(dir+"/open", "push", w.url(open, "ann"), "HEAD:refs/heads/x"); err == nil || !strings.Contains(out, "archived") {
		t.Errorf("pushed to an archived project: %s", out)
	}
}
