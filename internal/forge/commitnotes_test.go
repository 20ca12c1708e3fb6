package forge_test

import (
	"net/http"
	"strings"
	"testing"

	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// TestCommitDiscussions comments on commits by GitLab's client, and tells those
// who have to do with them.
func TestCommitDiscussions(t *testing.T) {
	t.Parallel()
	w, server := newMailWorld(t)
	p, m := w.reviewed(t)
	ann, bob := w.client("ann"), w.client("bob")
	at := func(sha, base string, oldLine, newLine int64) *gitlab.NotePosition {
		return &gitlab.NotePosition{BaseSHA: base, StartSHA: base, HeadSHA: sha, PositionType: "text", OldPath: "a.txt", NewPath: "a.txt", OldLine: oldLine, NewLine: newLine}
	}
	c := must[*gitlab.Commit](t)(ann.Commits.GetCommit(p.ID, m.SHA, nil))
	parent := c.ParentIDs[0]
	d := must[*gitlab.Discussion](t)(ann.Discussions.CreateCommitDiscussion(p.ID, m.SHA, &gitlab.CreateCommitDiscussionOptions{Body: gitlab.Ptr("Why, @bob?"), Position: at(m.SHA, parent, 0, 20)}))
	if n := d.Notes[0]; n.Type != "DiffNote" || n.CommitID != m.SHA || n.NoteableType != "Commit" || n.Resolvable || n.Position.NewLine != 20 {
		t.Errorf("%+v", n)
	}
	if _, res, err := ann.Discussions.CreateCommitDiscussion(p.ID, m.SHA, &gitlab.CreateCommitDiscussionOptions{Body: gitlab.Ptr("x"), Position: at(m.SHA, parent, 0, 400)}); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("a line that is not there: %v", err)
	}
	w.background()
	var list []*gitlab.Todo
	eventually(t, "a mention waits for bob", func() bool {
		list = must[[]*gitlab.Todo](t)(bob.Todos.ListTodos(nil))
		return len(list) > 0
	})
	if len(list) != 1 || list[0].TargetType != "Commit" || !strings.Contains(list[0].TargetURL, "/-/commit/"+m.SHA+"#note_") || list[0].Target.Title != "Change a.txt" {
		t.Errorf("%+v", list)
	}
	note := must[*gitlab.Note](t)(bob.Discussions.AddCommitDiscussionNote(p.ID, m.SHA, d.ID, &gitlab.AddCommitDiscussionNoteOptions{Body: gitlab.Ptr("Becuase.")}))
	note = must[*gitlab.Note](t)(bob.Discussions.UpdateCommitDiscussionNote(p.ID, m.SHA, d.ID, note.ID, &gitlab.UpdateCommitDiscussionNoteOptions{Body: gitlab.Ptr("Because.")}))
	if note.Body != "Because." {
		t.Errorf("%+v", note)
	}
	old := must[*gitlab.CommitComment](t)(bob.Commits.PostCommitComment(p.ID, m.SHA, &gitlab.PostCommitCommentOptions{Note: gitlab.Ptr("Gone."), Path: gitlab.Ptr("a.txt"), Line: gitlab.Ptr(int64(20)), LineType: gitlab.Ptr("old")}))
	if old.Line != 20 || old.LineType != "old" || old.Path != "a.txt" {
		t.Errorf("%+v", old)
	}
	if list := must[[]*gitlab.Discussion](t)(ann.Discussions.ListCommitDiscussions(p.ID, m.SHA, nil)); len(list) != 2 || len(list[0].Notes) != 2 || list[0].IndividualNote || !list[1].IndividualNote {
		t.Errorf("%+v", list)
	}
	if _, err := ann.Discussions.DeleteCommitDiscussionNote(p.ID, m.SHA, d.ID, note.ID); err != nil { // a Maintainer may
		t.Error(err)
	}
	if _, res, err := bob.Discussions.UpdateCommitDiscussionNote(p.ID, m.SHA, d.ID, d.Notes[0].ID, &gitlab.UpdateCommitDiscussionNoteOptions{Body: gitlab.Ptr("x")}); err == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("another's comment is changed: %v", err)
	}
	if _, res, err := w.client("eve").Discussions.ListCommitDiscussions(p.ID, m.SHA, nil); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a stranger reads them: %v", err)
	}
	// The first commit has no parent.
	first := must[[]*gitlab.Commit](t)(ann.Commits.ListCommits(p.ID, &gitlab.ListCommitsOptions{RefName: gitlab.Ptr("main")}))
	root := first[len(first)-1]
	if one := must[*gitlab.CommitComment](t)(ann.Commits.PostCommitComment(p.ID, root.ID, &gitlab.PostCommitCommentOptions{Note: gitlab.Ptr("The name"), Path: gitlab.Ptr("README.md"), Line: gitlab.Ptr(int64(1)), LineType: gitlab.Ptr("new")})); one.Line != 1 {
		t.Errorf("%+v", one)
	}
	seen := map[string]bool{}
	for i := 0; !seen["bob"]; i++ {
		one := server.Wait(t, i+1)[i]
		to, _, _ := strings.Cut(strings.Join(one.To, ""), "@")
		if strings.Contains(one.Data, "Why, @bob?") && strings.Contains(one.Data, "Subject: app | Change a.txt ("+m.SHA[:8]+")") && strings.Contains(one.Data, "/-/commit/"+m.SHA[:8]) {
			seen[to] = true
		}
	}
	eventually(t, "who answered has nothing waiting", func() bool { return len(must[[]*gitlab.Todo](t)(bob.Todos.ListTodos(nil))) == 0 })
	if list := must[[]*gitlab.Todo](t)(bob.Todos.ListTodos(&gitlab.ListTodosOptions{Type: gitlab.Ptr("MergeRequest")})); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// TestRequestsOfCommit finds the merge requests that a commit came with.
func TestRequestsOfCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, m := w.reviewed(t)
	bob := w.client("bob")
	first := m.SHA
	w.write(p, "work", "", "update", someLines(1, 41, map[int]string{20: "line twenty\n"}))
	w.follow(p, m.IID)
	find := func(sha string) string {
		t.Helper()
		list, err := w.forge.RequestsOfCommit(t.Context(), p.ID, sha)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range list {
			out = append(out, m.Title)
		}
		return strings.Join(out, " ")
	}
	if got := find(first); got != "Work" {
		t.Errorf("the first commit is in %q", got)
	}
	merged := must[*gitlab.MergeRequest](t)(w.client("ann").MergeRequests.AcceptMergeRequest(p.ID, m.IID, nil))
	if got := find(merged.MergeCommitSHA); got != "Work" {
		t.Errorf("the merge commit is in %q", got)
	}
	// A later one begins on top of it.
	w.write(p, "later", "main", "update", "new\n")
	must[*gitlab.MergeRequest](t)(bob.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Later"), SourceBranch: gitlab.Ptr("later"), TargetBranch: gitlab.Ptr("main")}))
	if got := find(first); got != "Work" {
		t.Errorf("the first commit is in %q", got)
	}
	if got := find(merged.DiffRefs.BaseSha); got != "" {
		t.Errorf("what was there before is in %q", got)
	}
	if list := must[[]*gitlab.BasicMergeRequest](t)(bob.Commits.ListMergeRequestsByCommit(p.ID, first, nil)); len(list) != 1 || list[0].IID != m.IID {
		t.Errorf("%+v", list)
	}
}
