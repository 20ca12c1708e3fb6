package forge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// client is GitLab's own client, signed in with the person's token.
func (w *world) client(name string) *gitlab.Client {
	w.t.Helper()
	c, err := gitlab.NewClient(w.tokens[name], gitlab.WithBaseURL(w.server.URL), gitlab.WithCustomRetryMax(0))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func must[T any](t *testing.T) func(v T, _ *gitlab.Response, err error) T {
	return func(v T, _ *gitlab.Response, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T) func(_ *gitlab.Response, err error) {
	return func(_ *gitlab.Response, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.client("root")
	v := must[*gitlab.Version](t)(root.Version.GetVersion())
	if v.Version == "" {
		t.Error("no version")
	}
	u := must[*gitlab.User](t)(root.Users.CreateUser(&gitlab.CreateUserOptions{Username: gitlab.Ptr("ann"), Name: gitlab.Ptr("Ann"), Email: gitlab.Ptr("ann@example.com"), Password: gitlab.Ptr("correct horse")}))
	if _, res, err := root.Users.CreateUser(&gitlab.CreateUserOptions{Username: gitlab.Ptr("ANN"), Email: gitlab.Ptr("x@example.com"), Password: gitlab.Ptr("correct horse")}); err == nil || res.StatusCode != http.StatusConflict {
		t.Errorf("a user name was taken twice: %v", err)
	}
	token := must[*gitlab.PersonalAccessToken](t)(root.Users.CreatePersonalAccessToken(u.ID, &gitlab.CreatePersonalAccessTokenOptions{Name: gitlab.Ptr("t"), Scopes: gitlab.Ptr([]string{"api"})}))
	w.tokens["ann"] = token.Token
	ann := w.client("ann")
	if me := must[*gitlab.User](t)(ann.Users.CurrentUser()); me.Username != "ann" || me.IsAdmin {
		t.Errorf("%+v", me)
	}
	if _, res, _ := ann.Users.CreateUser(&gitlab.CreateUserOptions{Username: gitlab.Ptr("eve")}); res.StatusCode != http.StatusForbidden {
		t.Errorf("ann made a user: %d", res.StatusCode)
	}
	g := must[*gitlab.Group](t)(ann.Groups.CreateGroup(&gitlab.CreateGroupOptions{Path: gitlab.Ptr("acme"), Name: gitlab.Ptr("Acme")}))
	sub := must[*gitlab.Group](t)(ann.Groups.CreateGroup(&gitlab.CreateGroupOptions{Path: gitlab.Ptr("web"), Name: gitlab.Ptr("Web"), ParentID: gitlab.Ptr(g.ID)}))
	if sub.FullPath != "acme/web" {
		t.Error(sub.FullPath)
	}
	if err := root.Users.BlockUser(u.ID); err != nil {
		t.Fatal(err)
	}
	if _, res, _ := ann.Users.CurrentUser(); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a blocked user came in: %d", res.StatusCode)
	}
	_ = root.Users.UnblockUser(u.ID)
	if n := len(must[[]*gitlab.Group](t)(ann.Groups.ListGroups(&gitlab.ListGroupsOptions{}))); n != 2 {
		t.Errorf("%d groups", n)
	}
	key := must[*gitlab.SSHKey](t)(ann.Users.AddSSHKey(&gitlab.AddSSHKeyOptions{Title: gitlab.Ptr("k"), Key: gitlab.Ptr("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVDkVD/9YtVrtcJIbkXMCP0FmWDuh0GCy/Ul/nJMlLm x")}))
	ok(t)(ann.Users.DeleteSSHKey(key.ID))
	must[[]*gitlab.Namespace](t)(ann.Namespaces.ListNamespaces(nil))
	p := must[*gitlab.Project](t)(ann.Projects.CreateProject(&gitlab.CreateProjectOptions{Path: gitlab.Ptr("app"), NamespaceID: gitlab.Ptr(sub.ID), InitializeWithReadme: gitlab.Ptr(true)}))
	w.person("bob")
	must[*gitlab.ProjectMember](t)(ann.ProjectMembers.AddProjectMember(p.ID, &gitlab.AddProjectMemberOptions{UserID: w.people["bob"].User.ID, AccessLevel: gitlab.Ptr(gitlab.DeveloperPermissions)}))
	if all := must[[]*gitlab.ProjectMember](t)(ann.ProjectMembers.ListAllProjectMembers(p.ID, nil)); len(all) != 2 {
		t.Errorf("%d members", len(all))
	}
	pt := must[*gitlab.ProjectAccessToken](t)(ann.ProjectAccessTokens.CreateProjectAccessToken(p.ID, &gitlab.CreateProjectAccessTokenOptions{Name: gitlab.Ptr("bot"), Scopes: gitlab.Ptr([]string{"api"}), AccessLevel: gitlab.Ptr(gitlab.DeveloperPermissions)}))
	w.tokens["bot"] = pt.Token
	bot := w.client("bot")
	must[*gitlab.Project](t)(bot.Projects.GetProject(p.ID, nil))
	must[*gitlab.File](t)(bot.RepositoryFiles.GetFile(p.ID, "README.md", &gitlab.GetFileOptions{Ref: gitlab.Ptr("main")}))
	ok(t)(ann.ProjectAccessTokens.RevokeProjectAccessToken(p.ID, pt.ID))
	if _, res, _ := bot.Projects.GetProject(p.ID, nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a revoked token works: %d", res.StatusCode)
	}
	dt := must[*gitlab.DeployToken](t)(ann.DeployTokens.CreateProjectDeployToken(p.ID, &gitlab.CreateProjectDeployTokenOptions{Name: gitlab.Ptr("d"), Scopes: gitlab.Ptr([]string{"read_repository"})}))
	dir := t.TempDir()
	at := func(user, password string) string {
		return strings.Replace(w.server.URL, "http://", "http://"+user+":"+password+"@", 1) + "/acme/web/app.git"
	}
	w.git(dir, "clone", "-q", strings.ReplaceAll(at(dt.Username, dt.Token), "gitlab+", "gitlab%2B"), "d")
	if out, err := w.tryGit(dir+"/d", "push", "origin", "HEAD:refs/heads/x"); err == nil {
		t.Errorf("a deploy token pushed: %s", out)
	}
}

func TestClientRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	c := w.client("ann")
	p := must[*gitlab.Project](t)(c.Projects.CreateProject(&gitlab.CreateProjectOptions{Name: gitlab.Ptr("My App"), InitializeWithReadme: gitlab.Ptr(true)}))
	if p.PathWithNamespace != "ann/my-app" || p.DefaultBranch != "main" || p.HTTPURLToRepo != w.server.URL+"/ann/my-app.git" {
		t.Errorf("%+v", p)
	}
	id := p.PathWithNamespace
	must[*gitlab.FileInfo](t)(c.RepositoryFiles.CreateFile(id, "src/main.go", &gitlab.CreateFileOptions{Branch: gitlab.Ptr("main"), Content: gitlab.Ptr("package main\n"), CommitMessage: gitlab.Ptr("Add main")}))
	f := must[*gitlab.File](t)(c.RepositoryFiles.GetFile(id, "src/main.go", &gitlab.GetFileOptions{Ref: gitlab.Ptr("main")}))
	if f.Size != 13 || f.FileName != "main.go" {
		t.Errorf("%+v", f)
	}
	if raw := must[[]byte](t)(c.RepositoryFiles.GetRawFile(id, "src/main.go", &gitlab.GetRawFileOptions{Ref: gitlab.Ptr("main")})); string(raw) != "package main\n" {
		t.Errorf("%q", raw)
	}
	must[*gitlab.FileInfo](t)(c.RepositoryFiles.UpdateFile(id, "src/main.go", &gitlab.UpdateFileOptions{Branch: gitlab.Ptr("change"), StartBranch: gitlab.Ptr("main"), Content: gitlab.Ptr("package main // x\n"), CommitMessage: gitlab.Ptr("Edit")}))
	tree := must[[]*gitlab.TreeNode](t)(c.Repositories.ListTree(id, &gitlab.ListTreeOptions{Recursive: gitlab.Ptr(true)}))
	if len(tree) != 3 {
		t.Errorf("%+v", tree)
	}
	br := must[*gitlab.Branch](t)(c.Branches.CreateBranch(id, &gitlab.CreateBranchOptions{Branch: gitlab.Ptr("feature/x"), Ref: gitlab.Ptr("main")}))
	if br.Name != "feature/x" || !br.CanPush {
		t.Errorf("%+v", br)
	}
	must[*gitlab.Branch](t)(c.Branches.GetBranch(id, "feature/x"))
	ok(t)(c.Branches.DeleteBranch(id, "feature/x"))
	if n := len(must[[]*gitlab.Branch](t)(c.Branches.ListBranches(id, nil))); n != 2 {
		t.Errorf("%d branches", n)
	}
	must[*gitlab.Tag](t)(c.Tags.CreateTag(id, &gitlab.CreateTagOptions{TagName: gitlab.Ptr("v1.0"), Ref: gitlab.Ptr("main"), Message: gitlab.Ptr("one")}))
	tag := must[*gitlab.Tag](t)(c.Tags.GetTag(id, "v1.0"))
	if tag.Message != "one" || tag.Commit == nil {
		t.Errorf("%+v", tag)
	}
	commits := must[[]*gitlab.Commit](t)(c.Commits.ListCommits(id, &gitlab.ListCommitsOptions{WithStats: gitlab.Ptr(true)}))
	if len(commits) != 2 || commits[0].Title != "Add main" || commits[0].Stats.Additions != 1 {
		t.Errorf("%+v", commits)
	}
	diff := must[[]*gitlab.Diff](t)(c.Commits.GetCommitDiff(id, commits[0].ID, nil))
	if len(diff) != 1 || !diff[0].NewFile || !strings.Contains(diff[0].Diff, "+package main") {
		t.Errorf("%+v", diff)
	}
	cmp := must[*gitlab.Compare](t)(c.Repositories.Compare(id, &gitlab.CompareOptions{From: gitlab.Ptr("main"), To: gitlab.Ptr("change")}))
	if len(cmp.Commits) != 1 || len(cmp.Diffs) != 1 {
		t.Errorf("%+v", cmp)
	}
	if blob := must[[]byte](t)(c.Repositories.Archive(id, &gitlab.ArchiveOptions{Format: gitlab.Ptr("tar.gz")})); len(blob) < 100 {
		t.Errorf("archive of %d bytes", len(blob))
	}
	must[[]*gitlab.FileBlameRange](t)(c.RepositoryFiles.GetFileBlame(id, "src/main.go", &gitlab.GetFileBlameOptions{Ref: gitlab.Ptr("main")}))
	blobs := must[[]*gitlab.Blob](t)(c.Search.BlobsByProject(id, "PACKAGE", &gitlab.SearchOptions{}))
	if len(blobs) != 1 || blobs[0].Startline != 1 {
		t.Errorf("%+v", blobs)
	}
	rev := must[*gitlab.Commit](t)(c.Commits.RevertCommit(id, commits[0].ID, &gitlab.RevertCommitOptions{Branch: gitlab.Ptr("main")}))
	if !strings.HasPrefix(rev.Title, `Revert "Add main"`) {
		t.Error(rev.Title)
	}
	must[*gitlab.ProtectedBranch](t)(c.ProtectedBranches.ProtectRepositoryBranches(id, &gitlab.ProtectRepositoryBranchesOptions{Name: gitlab.Ptr("release/*"), PushAccessLevel: gitlab.Ptr(gitlab.NoPermissions)}))
	if n := len(must[[]*gitlab.ProtectedBranch](t)(c.ProtectedBranches.ListProtectedBranches(id, nil))); n != 2 {
		t.Errorf("%d protections", n)
	}
	fork := must[*gitlab.Project](t)(c.Projects.ForkProject(id, &gitlab.ForkProjectOptions{Path: gitlab.Ptr("copy"), Name: gitlab.Ptr("copy")}))
	if fork.ForkedFromProject == nil || fork.ForkedFromProject.ID != p.ID || fork.EmptyRepo {
		t.Errorf("%+v", fork)
	}
	rel := must[*gitlab.Release](t)(c.Releases.CreateRelease(id, &gitlab.CreateReleaseOptions{TagName: gitlab.Ptr("v1.0"), Description: gitlab.Ptr("notes")}))
	if rel.TagName != "v1.0" || len(rel.Assets.Sources) == 0 {
		t.Errorf("%+v", rel)
	}
	must[*gitlab.Project](t)(c.Projects.EditProject(id, &gitlab.EditProjectOptions{Description: gitlab.Ptr("d"), MergeMethod: gitlab.Ptr(gitlab.FastForwardMerge)}))
	ok(t)(c.Projects.DeleteProject(id, nil))
	if _, res, _ := c.Projects.GetProject(id, nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("deleted project: %d", res.StatusCode)
	}
}

func TestClientMergeRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("bob")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	w.member(p, "bob", delivery.Developer)
	ann, bob := w.client("ann"), w.client("bob")
	edit := func(branch, path, content string) {
		t.Helper()
		_, err := w.forge.CommitFiles(t.Context(), w.people["bob"], p, delivery.NewCommit{Branch: branch, StartBranch: "main", Message: "Change " + path, Actions: []delivery.CommitAction{{Action: "create", Path: path, Content: []byte(content)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(branch string) *gitlab.MergeRequest {
		t.Helper()
		return must[*gitlab.MergeRequest](t)(bob.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Add " + branch), SourceBranch: gitlab.Ptr(branch), TargetBranch: gitlab.Ptr("main")}))
	}
	edit("one", "a.txt", "a\n")
	edit("two", "b.txt", "b\n")
	edit("clash", "a.txt", "other\n")
	one, two, clash := open("one"), open("two"), open("clash")
	if one.IID != 1 || two.IID != 2 || one.DetailedMergeStatus != "mergeable" {
		t.Errorf("%+v", one)
	}
	if _, res, _ := bob.MergeRequests.AcceptMergeRequest(p.ID, one.IID, nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("a developer merged into a protected branch: %d", res.StatusCode)
	}
	must[*gitlab.MergeRequestApprovals](t)(ann.MergeRequestApprovals.ApproveMergeRequest(p.ID, one.IID, nil))
	note := must[*gitlab.Note](t)(ann.Notes.CreateMergeRequestNote(p.ID, one.IID, &gitlab.CreateMergeRequestNoteOptions{Body: gitlab.Ptr("hi @bob")}))
	if note.Author.Username != "ann" {
		t.Errorf("%+v", note)
	}
	d := must[*gitlab.Discussion](t)(ann.Discussions.CreateMergeRequestDiscussion(p.ID, one.IID, &gitlab.CreateMergeRequestDiscussionOptions{Body: gitlab.Ptr("why?"), Position: &gitlab.PositionOptions{
		BaseSHA: gitlab.Ptr(one.DiffRefs.BaseSha), StartSHA: gitlab.Ptr(one.DiffRefs.StartSha), HeadSHA: gitlab.Ptr(one.DiffRefs.HeadSha), PositionType: gitlab.Ptr("text"), NewPath: gitlab.Ptr("a.txt"), NewLine: gitlab.Ptr(int64(1))}}))
	must[*gitlab.Note](t)(bob.Discussions.AddMergeRequestDiscussionNote(p.ID, one.IID, d.ID, &gitlab.AddMergeRequestDiscussionNoteOptions{Body: gitlab.Ptr("because")}))
	d = must[*gitlab.Discussion](t)(ann.Discussions.ResolveMergeRequestDiscussion(p.ID, one.IID, d.ID, &gitlab.ResolveMergeRequestDiscussionOptions{Resolved: gitlab.Ptr(true)}))
	if len(d.Notes) != 2 || !d.Notes[0].Resolved {
		t.Errorf("%+v", d)
	}
	merged := must[*gitlab.MergeRequest](t)(ann.MergeRequests.AcceptMergeRequest(p.ID, one.IID, nil))
	if merged.State != "merged" || merged.MergeCommitSHA == "" {
		t.Errorf("%+v", merged)
	}
	if _, exists, _ := w.forge.RefExists(t.Context(), p.ID, "refs/heads/one"); exists {
		t.Error("the source branch is still there")
	}
	squashed := must[*gitlab.MergeRequest](t)(ann.MergeRequests.AcceptMergeRequest(p.ID, two.IID, &gitlab.AcceptMergeRequestOptions{Squash: gitlab.Ptr(true)}))
	if squashed.SquashCommitSHA == "" {
		t.Errorf("%+v", squashed)
	}
	got := must[*gitlab.MergeRequest](t)(ann.MergeRequests.GetMergeRequest(p.ID, clash.IID, nil))
	if got.DetailedMergeStatus != "conflict" || !got.HasConflicts {
		t.Errorf("%s %v", got.DetailedMergeStatus, got.HasConflicts)
	}
	if _, res, _ := ann.MergeRequests.AcceptMergeRequest(p.ID, clash.IID, nil); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a conflict was merged: %d", res.StatusCode)
	}
	// Fast-forward needs a rebase first.
	must[*gitlab.Project](t)(ann.Projects.EditProject(p.ID, &gitlab.EditProjectOptions{MergeMethod: gitlab.Ptr(gitlab.FastForwardMerge)}))
	_, err := w.forge.CommitFiles(t.Context(), w.people["bob"], p, delivery.NewCommit{Branch: "three", StartSHA: one.DiffRefs.BaseSha, Message: "Three", Actions: []delivery.CommitAction{{Action: "create", Path: "c.txt", Content: []byte("c")}}})
	if err != nil {
		t.Fatal(err)
	}
	three := open("three")
	if three.DetailedMergeStatus != "need_rebase" {
		t.Error(three.DetailedMergeStatus)
	}
	ok(t)(bob.MergeRequests.RebaseMergeRequest(p.ID, three.IID, nil))
	three = must[*gitlab.MergeRequest](t)(ann.MergeRequests.AcceptMergeRequest(p.ID, three.IID, nil))
	head := must[*gitlab.Commit](t)(ann.Commits.GetCommit(p.ID, "main", nil))
	if three.State != "merged" || head.Title != "Three" || len(head.ParentIDs) != 1 {
		t.Errorf("%+v %+v", three.State, head)
	}
	list := must[[]*gitlab.BasicMergeRequest](t)(ann.MergeRequests.ListProjectMergeRequests(p.ID, &gitlab.ListProjectMergeRequestsOptions{State: gitlab.Ptr("merged")}))
	if len(list) != 3 {
		t.Errorf("%d merged", len(list))
	}
	ref, exists, err := w.forge.RefExists(t.Context(), p.ID, "refs/merge-requests/1/head")
	if err != nil || !exists || ref != one.SHA {
		t.Errorf("refs/merge-requests/1/head: %s %v", ref, err)
	}
}
