package forge_test

import (
	"net/http"
	"strings"
	"testing"

	gitlab "gitlab.com/gitlab-org/api/client-go"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// reviewed is a merge request of bob's in a project of ann's, on work over
// main: line 20 of a.txt is changed.
func (w *world) reviewed(t *testing.T) (delivery.Project, *gitlab.MergeRequest) {
	w.t.Helper()
	for _, name := range []string{"ann", "bob", "eve"} {
		w.person(name)
	}
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	w.member(p, "bob", delivery.Developer)
	w.write(p, "main", "", "create", someLines(1, 40, nil))
	w.write(p, "work", "main", "update", someLines(1, 40, map[int]string{20: "line twenty\n"}))
	m := must[*gitlab.MergeRequest](t)(w.client("bob").MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Work"), SourceBranch: gitlab.Ptr("work"), TargetBranch: gitlab.Ptr("main")}))
	return p, m
}

// write commits a.txt as bob does.
func (w *world) write(p delivery.Project, branch, start, action, content string) {
	w.t.Helper()
	n := delivery.NewCommit{Branch: branch, StartBranch: start, Message: "Change a.txt", Actions: []delivery.CommitAction{{Action: action, Path: "a.txt", Content: []byte(content)}}}
	who := w.people["bob"]
	if branch == "main" {
		who = w.people["ann"]
	}
	if _, err := w.forge.CommitFiles(w.t.Context(), who, p, n); err != nil {
		w.t.Fatal(err)
	}
}

func onLine(m *gitlab.MergeRequest, oldLine, newLine int64) *gitlab.PositionOptions {
	o := &gitlab.PositionOptions{BaseSHA: &m.DiffRefs.BaseSha, StartSHA: &m.DiffRefs.StartSha, HeadSHA: &m.DiffRefs.HeadSha, PositionType: gitlab.Ptr("text"), OldPath: gitlab.Ptr("a.txt"), NewPath: gitlab.Ptr("a.txt")}
	if oldLine > 0 {
		o.OldLine = &oldLine
	}
	if newLine > 0 {
		o.NewLine = &newLine
	}
	return o
}

// TestDraftNotes holds comments back by GitLab's client, changes them, and
// publishes them one by one and all at once.
func TestDraftNotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, m := w.reviewed(t)
	ann, bob := w.client("ann"), w.client("bob")
	open := must[*gitlab.Discussion](t)(bob.Discussions.CreateMergeRequestDiscussion(p.ID, m.IID, &gitlab.CreateMergeRequestDiscussionOptions{Body: gitlab.Ptr("Is this right?")}))
	line := must[*gitlab.DraftNote](t)(ann.DraftNotes.CreateDraftNote(p.ID, m.IID, &gitlab.CreateDraftNoteOptions{Note: gitlab.Ptr("Why?"), Position: onLine(m, 0, 20)}))
	if line.Note != "Why?" || line.AuthorID != w.people["ann"].User.ID || line.MergeRequestID != m.ID || line.DiscussionID != "" || line.Position.NewLine != 20 || line.LineCode != forge.LineCode("a.txt", 21, 20) {
		t.Errorf("%+v", line)
	}
	plain := must[*gitlab.DraftNote](t)(ann.DraftNotes.CreateDraftNote(p.ID, m.IID, &gitlab.CreateDraftNoteOptions{Note: gitlab.Ptr("In general")}))
	if plain.LineCode != "" || plain.Position == nil || plain.Position.PositionType != "text" || plain.Position.NewLine != 0 {
		t.Errorf("%+v", plain)
	}
	answer := must[*gitlab.DraftNote](t)(ann.DraftNotes.CreateDraftNote(p.ID, m.IID, &gitlab.CreateDraftNoteOptions{Note: gitlab.Ptr("Yes."), InReplyToDiscussionID: &open.ID, ResolveDiscussion: gitlab.Ptr(true)}))
	if answer.DiscussionID != open.ID || !answer.ResolveDiscussion {
		t.Errorf("%+v", answer)
	}
	for what, bad := range map[string]*gitlab.CreateDraftNoteOptions{
		"blank": {Note: gitlab.Ptr(" ")}, "a line that is not there": {Note: gitlab.Ptr("x"), Position: onLine(m, 0, 400)}, "resolves nothing": {Note: gitlab.Ptr("x"), ResolveDiscussion: gitlab.Ptr(true)},
	} {
		if _, res, err := ann.DraftNotes.CreateDraftNote(p.ID, m.IID, bad); err == nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Nobody else sees them, in any list.
	if list := must[[]*gitlab.DraftNote](t)(bob.DraftNotes.ListDraftNotes(p.ID, m.IID, nil)); len(list) != 0 {
		t.Errorf("bob sees %d drafts", len(list))
	}
	if _, res, err := bob.DraftNotes.GetDraftNote(p.ID, m.IID, line.ID); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("bob reads a draft: %v", err)
	}
	if res, err := bob.DraftNotes.PublishDraftNote(p.ID, m.IID, line.ID); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("bob publishes a draft: %v", err)
	}
	if _, res, err := w.client("eve").DraftNotes.CreateDraftNote(p.ID, m.IID, &gitlab.CreateDraftNoteOptions{Note: gitlab.Ptr("x")}); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a stranger holds a comment back: %v", err)
	}
	if n := len(must[[]*gitlab.Discussion](t)(bob.Discussions.ListMergeRequestDiscussions(p.ID, m.IID, nil))); n != 1 {
		t.Errorf("%d threads before the review", n)
	}
	line = must[*gitlab.DraftNote](t)(ann.DraftNotes.UpdateDraftNote(p.ID, m.IID, line.ID, &gitlab.UpdateDraftNoteOptions{Note: gitlab.Ptr("Why twenty?"), Position: onLine(m, 21, 21)}))
	if line.Note != "Why twenty?" || line.Position.OldLine != 21 {
		t.Errorf("%+v", line)
	}
	// A push moves drafts as it does notes.
	w.write(p, "work", "", "update", "first\n"+someLines(1, 40, map[int]string{20: "line twenty\n"}))
	w.follow(p, m.IID)
	if line = must[*gitlab.DraftNote](t)(ann.DraftNotes.GetDraftNote(p.ID, m.IID, line.ID)); line.Position.NewLine != 22 || line.Position.OldLine != 21 {
		t.Errorf("after a push: %+v", line.Position)
	}
	if _, err := ann.DraftNotes.PublishDraftNote(p.ID, m.IID, plain.ID); err != nil {
		t.Fatal(err)
	}
	gone := must[*gitlab.DraftNote](t)(ann.DraftNotes.CreateDraftNote(p.ID, m.IID, &gitlab.CreateDraftNoteOptions{Note: gitlab.Ptr("Not said")}))
	if _, err := ann.DraftNotes.DeleteDraftNote(p.ID, m.IID, gone.ID); err != nil {
		t.Fatal(err)
	}
	if list := must[[]*gitlab.DraftNote](t)(ann.DraftNotes.ListDraftNotes(p.ID, m.IID, nil)); len(list) != 2 || list[0].ID != line.ID || list[1].ID != answer.ID {
		t.Fatalf("%d drafts", len(list))
	}
	for range 2 { // the second has nothing to do
		if _, err := ann.DraftNotes.PublishAllDraftNotes(p.ID, m.IID); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]*gitlab.Discussion{}
	for _, d := range must[[]*gitlab.Discussion](t)(bob.Discussions.ListMergeRequestDiscussions(p.ID, m.IID, nil)) {
		if !d.Notes[0].System {
			got[d.Notes[0].Body] = d
		}
	}
	if len(got) != 3 || len(got["Is this right?"].Notes) != 2 || !got["Is this right?"].Notes[0].Resolved || !got["Is this right?"].Notes[1].Resolved {
		t.Errorf("%+v", got)
	}
	if n := got["Why twenty?"].Notes[0]; n.Type != "DiffNote" || !n.Resolvable || n.Resolved || n.Position.NewLine != 22 {
		t.Errorf("%+v", n)
	}
	if !got["In general"].IndividualNote {
		t.Errorf("%+v", got["In general"])
	}
}

// TestReviewIsOneMessage submits a review with a summary, an approval and a
// quick action: people get one message.
func TestReviewIsOneMessage(t *testing.T) {
	t.Parallel()
	w, server := newMailWorld(t)
	p, m := w.reviewed(t)
	w.member(p, "eve", delivery.Reporter)
	w.background()
	who := w.people["ann"]
	request, err := w.forge.MergeRequest(t.Context(), p.ID, m.IID)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"First, @bob", "Second, @eve\n/label ~seen", "/label ~done"} {
		if _, err := w.forge.AddDraft(t.Context(), who, p, forge.NewNote{MergeRequest: &request, Body: body}, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.forge.SubmitReview(t.Context(), who, p, request, forge.ReviewOptions{Approve: true, SHA: strings.Repeat("0", 40)}); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("another version is approved: %v", err)
	}
	if _, err := w.forge.SubmitReview(t.Context(), w.people["bob"], p, request, forge.ReviewOptions{Approve: true}); err == nil {
		t.Error("an author approves")
	}
	notes, err := w.forge.SubmitReview(t.Context(), who, p, request, forge.ReviewOptions{Approve: true, SHA: request.HeadSHA, Summary: "Well done."})
	if err != nil || len(notes) != 3 {
		t.Fatalf("%d notes, %v", len(notes), err)
	}
	if approvals, err := w.forge.Approvals(t.Context(), request); err != nil || len(approvals) != 1 {
		t.Errorf("%v %v", approvals, err)
	}
	if request, err = w.forge.MergeRequest(t.Context(), p.ID, m.IID); err != nil || strings.Join(request.Labels, " ") != "seen done" {
		t.Errorf("labels %v, %v", request.Labels, err)
	}
	// A note after it shows that nothing else was on its way.
	if _, err := w.forge.AddNote(t.Context(), who, p, forge.NewNote{MergeRequest: &request, Body: "Afterwards."}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for i := 0; got["bob after"] == 0; i++ {
		one := server.Wait(t, i+1)[i]
		to, _, _ := strings.Cut(strings.Join(one.To, ""), "@")
		if strings.Contains(one.Data, "Afterwards.") {
			got[to+" after"]++
			continue
		}
		if to == "ann" { // of the merge request, which bob opened
			continue
		}
		got[to]++
		for _, want := range []string{"First, @bob", "Second, @eve", "Well done."} {
			if !strings.Contains(one.Data, want) {
				t.Errorf("the message to %s lacks %q:\n%s", to, want, one.Data)
			}
		}
	}
	if got["bob"] != 1 || got["eve"] != 1 {
		t.Errorf("messages: %v", got)
	}
	if list := must[[]*gitlab.Todo](t)(w.client("bob").Todos.ListTodos(nil)); len(list) != 1 || list[0].Body != "First, @bob" {
		t.Errorf("%+v", list)
	}
}
