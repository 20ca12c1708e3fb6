package forge_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/mail"
	"github.com/slipwayhq/slipway/internal/mail/mailtest"
	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// follow runs the background work until a merge request has its branch's tip.
func (w *world) follow(p delivery.Project, iid int64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.forge.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	for ctx.Err() == nil {
		m, err := w.forge.MergeRequest(ctx, p.ID, iid)
		if err != nil {
			w.t.Fatal(err)
		}
		notes, _, err := w.forge.Notes(ctx, p.ID, &m, "", false, 1, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		tip, _, err := w.forge.RefExists(ctx, p.ID, "refs/heads/"+m.SourceBranch)
		if err != nil {
			w.t.Fatal(err)
		}
		if m.HeadSHA == tip && len(notes) > 0 && notes[0].System {
			return
		}
	}
	w.t.Fatal("the merge request did not follow its branch")
}

func someLines(from, to int, change map[int]string) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		if text, ok := change[i]; ok {
			b.WriteString(text)
			continue
		}
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// TestClientPositions puts notes on lines by GitLab's client and follows them
// through versions.
func TestClientPositions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	ann := w.client("ann")
	var m *gitlab.MergeRequest
	commit := func(branch, action, content string) {
		t.Helper()
		n := delivery.NewCommit{Branch: branch, Message: "Change a.txt", Actions: []delivery.CommitAction{{Action: action, Path: "a.txt", Content: []byte(content)}}}
		if m == nil && branch != "main" {
			n.StartBranch = "main"
		}
		if _, err := w.forge.CommitFiles(t.Context(), w.people["ann"], p, n); err != nil {
			t.Fatal(err)
		}
	}
	commit("main", "create", someLines(1, 40, nil))
	commit("work", "update", someLines(1, 40, map[int]string{20: "line twenty\n", 30: ""}))
	m = must[*gitlab.MergeRequest](t)(ann.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Work"), SourceBranch: gitlab.Ptr("work"), TargetBranch: gitlab.Ptr("main")}))
	at := func(oldLine, newLine int64) *gitlab.PositionOptions {
		o := &gitlab.PositionOptions{BaseSHA: gitlab.Ptr(m.DiffRefs.BaseSha), StartSHA: gitlab.Ptr(m.DiffRefs.StartSha), HeadSHA: gitlab.Ptr(m.DiffRefs.HeadSha), PositionType: gitlab.Ptr("text"), OldPath: gitlab.Ptr("a.txt"), NewPath: gitlab.Ptr("a.txt")}
		if oldLine > 0 {
			o.OldLine = gitlab.Ptr(oldLine)
		}
		if newLine > 0 {
			o.NewLine = gitlab.Ptr(newLine)
		}
		return o
	}
	put := func(body string, o *gitlab.PositionOptions) *gitlab.Discussion {
		t.Helper()
		d := must[*gitlab.Discussion](t)(ann.Discussions.CreateMergeRequestDiscussion(p.ID, m.IID, &gitlab.CreateMergeRequestDiscussionOptions{Body: &body, Position: o}))
		if n := d.Notes[0]; d.IndividualNote || n.Type != "DiffNote" || !n.Resolvable || n.Position == nil {
			t.Errorf("%s: %+v", body, n)
		}
		return d
	}
	added, removed, same, far := put("added", at(0, 20)), put("removed", at(30, 0)), put("unchanged", at(22, 22)), put("outside of the hunks", at(5, 5))
	for _, bad := range []*gitlab.PositionOptions{at(0, 400), at(0, 0), {BaseSHA: gitlab.Ptr("x"), NewPath: gitlab.Ptr("a.txt"), NewLine: gitlab.Ptr(int64(1))}} {
		if _, res, err := ann.Discussions.CreateMergeRequestDiscussion(p.ID, m.IID, &gitlab.CreateMergeRequestDiscussionOptions{Body: gitlab.Ptr("x"), Position: bad}); err == nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("a bad position: %v", err)
		}
	}
	// Two lines more at the beginning; line 22 is changed.
	commit("work", "update", "first\nsecond\n"+someLines(1, 40, map[int]string{20: "line twenty\n", 22: "changed\n", 30: ""}))
	w.follow(p, m.IID)
	where := func(d *gitlab.Discussion) (int64, int64, bool) {
		t.Helper()
		got := must[*gitlab.Discussion](t)(ann.Discussions.GetMergeRequestDiscussion(p.ID, m.IID, d.ID))
		now := must[*gitlab.MergeRequest](t)(ann.MergeRequests.GetMergeRequest(p.ID, m.IID, nil))
		n := got.Notes[0]
		return n.Position.OldLine, n.Position.NewLine, n.Position.HeadSHA == now.SHA
	}
	for _, c := range []struct {
		d        *gitlab.Discussion
		old, new int64
		current  bool
	}{{added, 0, 22, true}, {removed, 30, 0, true}, {same, 22, 22, false}, {far, 5, 7, true}} {
		if o, n, current := where(c.d); o != c.old || n != c.new || current != c.current {
			t.Errorf("%s is at %d,%d current %v; want %d,%d %v", c.d.Notes[0].Body, o, n, current, c.old, c.new, c.current)
		}
	}
	versions := must[[]*gitlab.MergeRequestDiffVersion](t)(ann.MergeRequests.GetMergeRequestDiffVersions(p.ID, m.IID, nil))
	if len(versions) != 2 {
		t.Fatalf("%d versions", len(versions))
	}
	one := must[*gitlab.MergeRequestDiffVersion](t)(ann.MergeRequests.GetSingleMergeRequestDiffVersion(p.ID, m.IID, versions[1].ID, nil))
	if len(one.Commits) != 1 || len(one.Diffs) != 1 || one.HeadCommitSHA != m.SHA {
		t.Errorf("%+v", one)
	}
	live := must[*gitlab.MergeRequest](t)(ann.MergeRequests.GetMergeRequest(p.ID, m.IID, nil))
	if live.UserNotesCount != 4 || live.BlockingDiscussionsResolved {
		t.Errorf("%d notes, resolved %v", live.UserNotesCount, live.BlockingDiscussionsResolved)
	}
	notes := must[[]*gitlab.Note](t)(ann.Notes.ListMergeRequestNotes(p.ID, m.IID, nil))
	pushes := 0
	for _, n := range notes {
		if n.System && strings.HasPrefix(n.Body, "added 1 commit") {
			pushes++
		}
	}
	if pushes != 1 {
		t.Errorf("%d notes of a push among %d", pushes, len(notes))
	}
}

// newMailWorld is a world that sends e-mail to a server of the test.
func newMailWorld(t *testing.T) (*world, *mailtest.Server) {
	t.Helper()
	server := mailtest.New(t)
	sender, err := mail.New(mail.Options{Host: server.Host, Port: server.Port, Encryption: mail.None, From: "Slipway <slip@example.com>"})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, func(o *forge.Options) { o.Mailer = sender }), server
}

// TestTodosAndMail tells people of what waits for them, in their list and by
// e-mail, and nobody who may not know.
func TestTodosAndMail(t *testing.T) {
	t.Parallel()
	w, server := newMailWorld(t)
	for _, name := range []string{"ann", "bob", "eve"} {
		w.person(name)
	}
	w.background()
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	w.member(p, "bob", delivery.Developer)
	ann, bob, eve := w.client("ann"), w.client("bob"), w.client("eve")
	_, err := w.forge.CommitFiles(t.Context(), w.people["bob"], p, delivery.NewCommit{Branch: "work", StartBranch: "main", Message: "Work", Actions: []delivery.CommitAction{{Action: "create", Path: "a.txt", Content: []byte("a\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	m := must[*gitlab.MergeRequest](t)(bob.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Work"), SourceBranch: gitlab.Ptr("work"), TargetBranch: gitlab.Ptr("main"),
		ReviewerIDs: &[]int64{w.people["ann"].User.ID}, Description: gitlab.Ptr("Look, @ann, not `@bob`, nor @eve")}))
	todos := func(c *gitlab.Client, want ...string) []*gitlab.Todo {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			list := must[[]*gitlab.Todo](t)(c.Todos.ListTodos(nil))
			var got []string
			for _, one := range list {
				got = append(got, string(one.ActionName))
			}
			if strings.Join(got, " ") == strings.Join(want, " ") {
				return list
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q; want %q", got, want)
			}
		}
	}
	list := todos(ann, "mentioned", "review_requested")
	if one := list[0]; one.Target == nil || one.Target.IID != m.IID || one.Author.Username != "bob" || one.State != "pending" || !strings.HasSuffix(one.TargetURL, "/-/merge_requests/1") {
		t.Errorf("%+v", one)
	}
	first := server.Wait(t, 1)[0]
	if strings.Join(first.To, "") != "ann@example.com" || !strings.Contains(first.Data, "Subject: app | Work (!1)") || !strings.Contains(first.Data, "requested your review") {
		t.Errorf("%+v", first)
	}
	note := must[*gitlab.Note](t)(ann.Notes.CreateMergeRequestNote(p.ID, m.IID, &gitlab.CreateMergeRequestNoteOptions{Body: gitlab.Ptr("@bob: why?")}))
	list = todos(bob, "directly_addressed")
	if !strings.HasSuffix(list[0].TargetURL, fmt.Sprintf("#note_%d", note.ID)) || list[0].Body != "@bob: why?" {
		t.Errorf("%+v", list[0])
	}
	todos(ann) // she answered
	second := server.Wait(t, 2)[1]
	if strings.Join(second.To, "") != "bob@example.com" || !strings.Contains(second.Data, "@bob: why?") || !strings.Contains(second.Data, "In-Reply-To: <merge_request_1@") {
		t.Errorf("%+v", second)
	}
	if _, err := eve.Todos.MarkTodoAsDone(list[0].ID); err == nil {
		t.Error("a stranger marks an entry")
	}
	if _, err := bob.Todos.MarkTodoAsDone(list[0].ID); err != nil {
		t.Fatal(err)
	}
	todos(bob)
	must[*gitlab.MergeRequest](t)(bob.MergeRequests.UpdateMergeRequest(p.ID, m.IID, &gitlab.UpdateMergeRequestOptions{AssigneeIDs: &[]int64{w.people["ann"].User.ID}}))
	todos(ann, "assigned")
	if _, err := ann.Todos.MarkAllTodosAsDone(); err != nil {
		t.Fatal(err)
	}
	todos(ann)
	server.Wait(t, 3)
	// Ann wants no e-mail but what her list gets.
	settings := must[*gitlab.NotificationSettings](t)(ann.NotificationSettings.UpdateGlobalSettings(&gitlab.NotificationSettingsOptions{Level: gitlab.Ptr(gitlab.MentionNotificationLevel)}))
	if settings.Level != gitlab.MentionNotificationLevel || settings.NotificationEmail != "ann@example.com" {
		t.Errorf("%+v", settings)
	}
	if _, res, err := ann.NotificationSettings.UpdateGlobalSettings(&gitlab.NotificationSettingsOptions{Level: gitlab.Ptr(gitlab.WatchNotificationLevel)}); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("a level that is not offered: %v", err)
	}
	must[*gitlab.Note](t)(bob.Notes.CreateMergeRequestNote(p.ID, m.IID, &gitlab.CreateMergeRequestNoteOptions{Body: gitlab.Ptr("Done.")}))
	must[*gitlab.MergeRequest](t)(ann.MergeRequests.AcceptMergeRequest(p.ID, m.IID, nil))
	mails := server.Wait(t, 4)
	if last := mails[3]; strings.Join(last.To, "") != "bob@example.com" || !strings.Contains(last.Data, "merged it") {
		t.Errorf("%+v", last)
	}
	todos(eve)
	for _, m := range mails {
		if strings.Contains(strings.Join(m.To, ""), "eve") {
			t.Errorf("mail to who may not know: %+v", m)
		}
	}
}

func TestMentions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, want string
		addressed  bool
	}{
		{"@ann, @bob. @Ann", "ann bob", true}, {"mail a@b.c and /@x", "", false}, {"`@a` ``` @b", "b", false}, {"```\n@a\n```\n@b", "b", false},
		{"(@a.b-c)", "a.b-c", false}, {"@ a", "", true}, {"~~~\n@a", "", false},
	} {
		names, addressed := forge.Mentions(c.text)
		if got := strings.Join(names, " "); got != c.want || addressed != c.addressed {
			t.Errorf("%q: %q %v; want %q %v", c.text, got, addressed, c.want, c.addressed)
		}
	}
}

func TestDraftTitles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		title string
		draft bool
		want  string
	}{{"Fix", true, "Draft: Fix"}, {"draft: Fix", true, "Draft: Fix"}, {"[Draft] (draft) Fix", false, "Fix"}, {"Drafty", false, "Drafty"}} {
		if got := forge.TitleOfDraft(c.title, c.draft); got != c.want {
			t.Errorf("%q %v: %q; want %q", c.title, c.draft, got, c.want)
		}
	}
}

// TestPushOptions opens and changes merge requests by what a push says.
func TestPushOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("bob")
	p := w.project("ann", "", "app")
	w.member(p, "bob", delivery.Developer)
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main")
	w.git(dir, "switch", "-q", "-c", "work")
	w.commit(dir, "a.txt", "a\n", "Add a file")
	out := w.git(dir, "push", "-o", "merge_request.create", "-o", "merge_request.target=main", "-o", "merge_request.label=bug", "-o", "merge_request.label=ui", "-o", "merge_request.assign=bob", "-o", "merge_request.draft", "origin", "work")
	if !strings.Contains(out, "View merge request for work:") || !strings.Contains(out, w.server.URL+"/ann/app/-/merge_requests/1") {
		t.Errorf("git printed %s", out)
	}
	m, err := w.forge.MergeRequest(t.Context(), p.ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m.Title != "Draft: Add a file" || strings.Join(m.Labels, " ") != "bug ui" || len(m.AssigneeIDs) != 1 || m.AssigneeIDs[0] != w.people["bob"].User.ID {
		t.Errorf("%+v", m)
	}
	w.commit(dir, "b.txt", "b\n", "Another")
	out = w.git(dir, "push", "-o", "merge_request.title=Two files", "-o", "merge_request.unlabel=ui", "origin", "work")
	if m, err = w.forge.MergeRequest(t.Context(), p.ID, 1); err != nil || m.Title != "Two files" || strings.Join(m.Labels, " ") != "bug" || !strings.Contains(out, "merge_requests/1") {
		t.Errorf("%+v %v\n%s", m, err, out)
	}
	w.git(dir, "switch", "-q", "-c", "other")
	w.commit(dir, "c.txt", "c\n", "Third")
	out = w.git(dir, "push", "-o", "merge_request.create", "-o", "merge_request.target=nowhere", "origin", "other")
	if !strings.Contains(out, "WARNING") || !strings.Contains(out, "target_branch") {
		t.Errorf("git printed %s", out)
	}
	if out = w.git(dir, "push", "origin", "HEAD:third"); !strings.Contains(out, "To create a merge request for third") {
		t.Errorf("git printed %s", out)
	}
}

// TestQuickActions acts by lines of a note.
func TestQuickActions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("bob")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	w.member(p, "bob", delivery.Developer)
	ann, bob := w.client("ann"), w.client("bob")
	_, err := w.forge.CommitFiles(t.Context(), w.people["bob"], p, delivery.NewCommit{Branch: "work", StartBranch: "main", Message: "Work", Actions: []delivery.CommitAction{{Action: "create", Path: "a.txt", Content: []byte("a\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	m := must[*gitlab.MergeRequest](t)(bob.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("Work"), SourceBranch: gitlab.Ptr("work"), TargetBranch: gitlab.Ptr("main")}))
	say := func(c *gitlab.Client, body string) (*gitlab.Note, *gitlab.Response, error) {
		return c.Notes.CreateMergeRequestNote(p.ID, m.IID, &gitlab.CreateMergeRequestNoteOptions{Body: &body})
	}
	note := must[*gitlab.Note](t)(say(bob, "Ready:\n/label ~bug ~\"two words\"\n/assign me\n/assign_reviewer @ann\n/draft\n```\n/close\n```"))
	if note.Body != "Ready:\n```\n/close\n```" {
		t.Errorf("the note is %q", note.Body)
	}
	got := must[*gitlab.MergeRequest](t)(bob.MergeRequests.GetMergeRequest(p.ID, m.IID, nil))
	if got.Title != "Draft: Work" || strings.Join(got.Labels, ",") != "bug,two words" || len(got.Assignees) != 1 || len(got.Reviewers) != 1 || got.State != "opened" {
		t.Errorf("%+v", got)
	}
	if _, res, err := say(bob, "/approve"); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("an author approves: %v", err)
	}
	if _, res, err := say(bob, "/assign @nobody"); err == nil || res.StatusCode != http.StatusBadRequest || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("nobody is assigned: %v", err)
	}
	if _, res, err := say(bob, "/merge"); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("a developer merges: %v", err)
	}
	if _, res, err := say(ann, "/approve\n/ready\n/unlabel ~bug\n/merge"); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("%v", err)
	}
	got = must[*gitlab.MergeRequest](t)(bob.MergeRequests.GetMergeRequest(p.ID, m.IID, nil))
	if got.State != "merged" || got.Title != "Work" || strings.Join(got.Labels, ",") != "two words" {
		t.Errorf("%+v", got)
	}
}

func TestSuggestions(t *testing.T) {
	t.Parallel()
	rest, list := forge.Suggestions("Better:\r\n```suggestion:-1+2\r\none\r\ntwo\r\n```\r\nor\n~~~~suggestion\n```\n~~~~\n```suggestion\nopen")
	if rest != "Better:\nor\n```suggestion\nopen" || len(list) != 2 || list[0] != (forge.Suggestion{Above: 1, Below: 2, Text: "one\ntwo\n"}) || list[1] != (forge.Suggestion{Text: "```\n"}) {
		t.Errorf("%q %+v", rest, list)
	}
	if _, list := forge.Suggestions("```suggestion\n```"); len(list) != 1 || list[0].Text != "" {
		t.Errorf("%+v", list)
	}
}
