package web_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// change commits new texts of files to a branch.
func (s *site) change(p delivery.Project, branch string, files map[string]string) {
	s.t.Helper()
	n := delivery.NewCommit{Branch: branch, Message: "Change " + branch}
	for file, body := range files {
		n.Actions = append(n.Actions, delivery.CommitAction{Action: "update", Path: file, Content: []byte(body)})
	}
	_, err := s.forge.CommitFiles(s.ctx, s.root, p, n)
	s.must(err)
}

// head is the newest commit of a branch.
func (s *site) head(p delivery.Project, branch string) string {
	s.t.Helper()
	sha, err := s.forge.ResolveRef(s.ctx, p.ID, "refs/heads/"+branch)
	s.must(err)
	return sha
}

func (s *site) read(body io.Reader) *goquery.Document {
	s.t.Helper()
	doc, err := goquery.NewDocumentFromReader(body)
	s.must(err)
	return doc
}

// until reads a page again until it has what is waited for.
func (s *site) until(who, path, selector, want string) {
	s.t.Helper()
	for {
		doc := s.page(who, path)
		if got := text(doc, selector); strings.Contains(got, want) {
			return
		} else if s.ctx.Err() != nil {
			s.t.Fatalf("%s of %s is %q; want %q in it", selector, path, got, want)
		}
	}
}

// numbered is a file of lines that name themselves.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// review is a merge request that changes, adds and removes lines of a.txt.
func review(t *testing.T) (s *site, p delivery.Project, link string) {
	s, p = plain(t)
	s.commit(p, "Begin", map[string]string{"a.txt": numbered(1, 60)})
	_, err := s.forge.CommitFiles(s.ctx, s.root, p, delivery.NewCommit{Branch: "feature", StartBranch: "main", Message: "Work", Actions: []delivery.CommitAction{
		{Action: "update", Path: "a.txt", Content: []byte(strings.Replace(strings.Replace(numbered(1, 60), "line 30\n", "line thirty of <b>\nmore\n", 1), "line 50\n", "", 1))}}})
	s.must(err)
	link = s.post("dev", "/acme/plain/-/merge_requests", "source_branch", "feature", "target_branch", "main", "title", "Thirty")
	return s, p, link
}

func TestReviewOnLines(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	page := s.page("maya", link+"/diffs")
	s.has(page, ".d-add mark", "thirty of <b>")
	form := page.Find("template.note-form").Text()
	if !strings.Contains(form, "base_sha") && page.Find("template.note-form").Length() != 1 {
		t.Error("there is no form for a line")
	}
	m, err := s.forge.MergeRequest(s.ctx, p.ID, 1)
	s.must(err)
	comment := func(who, note, oldLine, newLine string) string {
		t.Helper()
		return s.post(who, link+"/notes", "tab", "diffs", "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "old_path", "a.txt", "new_path", "a.txt", "old_line", oldLine, "new_line", newLine, "note", note)
	}
	if to := comment("maya", "Why _thirty_?", "0", "30"); !strings.HasPrefix(to, link+"/diffs#note_") {
		t.Errorf("a note on a line leads to %s", to)
	}
	comment("maya", "Why is it gone?", "50", "0")
	comment("maya", "Keep this.", "28", "28")
	s.refused("maya", link+"/notes", http.StatusUnprocessableEntity, "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "new_path", "a.txt", "new_line", "999", "note", "x")
	s.refused("maya", link+"/notes", http.StatusUnprocessableEntity, "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "new_path", "other.txt", "new_line", "1", "note", "x")
	for _, view := range []string{"inline", "parallel"} {
		page = s.page("maya", link+"/diffs?view="+view)
		s.count(page, ".d-notes .thread", 3)
		s.has(page, ".d-notes .thread em", "thirty")
		before := page.Find(".d-notes").First().Prev()
		if got := strings.Join(strings.Fields(before.Text()), " "); !strings.Contains(got, "line 28") {
			t.Errorf("%s: the first thread is below %q", view, got)
		}
	}
	over := s.page("dev", link)
	s.has(over, "#unresolved", "3 open threads")
	s.has(over, ".thread .excerpt", "+line thirty of <b>")
	s.has(over, ".thread .place", "a.txt:30")

	// The line is changed: the thread on it is outdated, the others move along.
	s.change(p, "feature", map[string]string{"a.txt": "new first line\n" + strings.Replace(strings.Replace(numbered(1, 60), "line 30\n", "line 30!\nmore\n", 1), "line 50\n", "", 1)})
	s.until("dev", link, ".event", "added 1 commit")
	over = s.page("dev", link)
	s.has(over, ".thread .place", "a.txt:30 outdated")
	s.has(over, ".thread .place", "a.txt:29")
	page = s.page("dev", link+"/diffs")
	s.count(page, ".d-notes .thread", 2)
	s.has(page, ".d-notes", "Why is it gone?")
	s.has(page, "#versions", "version 1")
	first := page.Find("#versions select[name=diff_id] option").Last().AttrOr("value", "")
	old := s.page("dev", link+"/diffs?diff_id="+first)
	s.has(old, "#outdated", "version 1")
	s.count(old, ".d-notes .thread", 3)
	since := s.page("dev", link+"/diffs?start_sha="+m.HeadSHA)
	s.has(since, "#outdated", "since version 1")
	s.has(since, ".d-add", "+new first line")
	s.count(since, ".d-del", 1)

	// Answers, resolving, editing, deleting.
	thread := over.Find(".thread").First()
	discussion := strings.TrimPrefix(thread.AttrOr("id", ""), "discussion_")
	s.post("dev", link+"/notes", "discussion", discussion, "note", "Because.", "resolve", "yes")
	s.has(s.page("dev", link), "#unresolved", "2 open threads")
	s.has(s.page("dev", link), ".thread[data-resolved] summary", "Resolved by Dev")
	note := strings.TrimPrefix(thread.Find(".note").AttrOr("id", ""), "note_")
	if got := s.status("dev", http.MethodPost, link+"/notes/"+note+"/delete", nil); got != http.StatusForbidden {
		t.Errorf("a developer deletes another's note: %d", got)
	}
	s.post("maya", link+"/notes/"+note, "note", "Changed my mind.")
	s.has(s.page("dev", link), "#note_"+note, "Changed my mind.")
	s.post("maya", link+"/notes/"+note+"/delete")
	s.count(s.page("dev", link), "#note_"+note, 0)
}

func TestDiffViews(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	resp := s.do("dev", http.MethodGet, link+"/diffs?view=parallel", nil)
	kept := ""
	for _, c := range resp.Cookies() {
		if c.Name == "diff_view" {
			kept = c.Value
		}
	}
	if kept != "parallel" {
		t.Errorf("the choice is kept as %q", kept)
	}
	page := s.page("dev", link+"/diffs?view=parallel")
	pair := page.Find("tr.d-pair").FilterFunction(func(_ int, row *goquery.Selection) bool { return strings.Contains(row.Text(), "line 30") })
	if pair.Length() != 1 || pair.Find("td.s.d-del").Text() != "line 30" || pair.Find("td.s.d-add").Text() != "line thirty of <b>" {
		t.Errorf("the changed line is %q", pair.Text())
	}
	whole := page.Find("a.whole").AttrOr("href", "")
	s.count(s.page("dev", link+"/diffs"+strings.Split(whole, "#")[0]), "tr.d-pair", 61)
	s.branch(p, "long", map[string]string{"big.txt": numbered(1, 4000), "go.sum": numbered(1, 100), "small.txt": "x\n"})
	for _, where := range []string{"/acme/plain/-/compare/main...long", "/acme/plain/-/commit/" + s.head(p, "long"), "/acme/plain/-/merge_requests/new?source_branch=long"} {
		page = s.page("dev", where)
		s.count(page, ".diff", 3)
		s.count(page, "a[data-expand]", 2)
		s.has(page, "#"+page.Find("details[data-new='big.txt']").AttrOr("id", "none")+" p", "A large difference")
		path, _, _ := strings.Cut(where, "?")
		href := page.Find("details[data-new='big.txt'] a[data-expand]").AttrOr("href", "")
		s.count(s.page("dev", path+href), "details[data-new='big.txt'] tr.d-add", 4000)
		resp := s.do("dev", http.MethodGet, path+strings.Split(href, "#")[0], nil, "X-Fragment", "1")
		if body := s.read(resp.Body); body.Find("header.top").Length() != 0 || body.Find("tr.d-add").Length() != 4000 {
			t.Errorf("the fragment of %s has %d lines", where, body.Find("tr.d-add").Length())
		}
	}
	for kind, want := range map[string]string{"diff": "+line thirty", "patch": "Subject: [PATCH]"} {
		resp := s.do("dev", http.MethodGet, link+"."+kind, nil)
		if body := s.read(resp.Body).Text(); resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf(".%s: %s %.100q", kind, resp.Status, body)
		}
	}
}

func TestRequestFields(t *testing.T) {
	t.Parallel()
	s, _, link := review(t)
	dev, maya := number(s.people["dev"].User.ID), number(s.people["maya"].User.ID)
	s.count(s.page("dev", link+"/edit"), ".pick input[name=reviewer]", 3)
	s.post("dev", link, "title", "Draft: Thirty", "has", "assignee", "has", "reviewer", "assignee", dev, "reviewer", maya, "labels", "bug, ui , bug")
	page := s.page("dev", link)
	s.has(page, "#reviewers", "Maya")
	s.has(page, ".request-side", "bug ui")
	s.has(page, ".event", "marked this merge request as draft")
	s.has(page, ".event", "requested review from @maya")
	s.has(page, "#mergeability", "draft")
	s.post("dev", link+"/ready")
	s.has(s.page("dev", link), "h1", "Thirty !1")
	s.refused("dev", link, http.StatusUnprocessableEntity, "title", "Thirty", "target_branch", "nowhere")
	for query, want := range map[string]int{"reviewer_username=maya": 1, "reviewer_username=dev": 0, "assignee_username=dev": 1, "author_username=nobody": 0, "label_name=ui": 1, "label_name=u": 0, "draft=yes": 0, "target_branch=main": 1, "search=thirty": 1, "search=%211": 1, "search=%212": 0} {
		s.count(s.page("dev", "/acme/plain/-/merge_requests?"+query), ".requests a strong", want)
	}
	s.post("maya", link+"/merge")
	page = s.page("maya", link)
	s.has(page, ".event", "merged")
	to := s.post("maya", link+"/revert")
	if !strings.Contains(to, "/merge_requests/new?source_branch=revert-") {
		t.Fatalf("a revert leads to %s", to)
	}
	s.has(s.page("maya", to), ".diff .d-add", "+line 30")
}

func TestForkAndAsk(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.person("eve")
	s.person("out")
	open := delivery.Internal
	g, _, err := s.access.VisibleGroup(s.ctx, s.root, "acme")
	s.must(err)
	_, err = s.access.UpdateGroup(s.ctx, s.root, g, access.GroupChange{Visibility: &open})
	s.must(err)
	_, err = s.forge.UpdateProject(s.ctx, s.root, p, forge.ProjectChange{Visibility: &open})
	s.must(err)
	const base = "/acme/plain"
	if got := s.status("eve", http.MethodGet, base+"/-/merge_requests/new", nil); got != http.StatusForbidden {
		t.Errorf("without a fork: %d", got)
	}
	s.has(s.page("eve", base), "a[href$='/forks/new']", "Fork")
	fork := s.post("eve", base+"/-/forks", "namespace", "eve", "path", "plain", "name", "Plain", "visibility", "private")
	if fork != "/eve/plain" {
		t.Fatalf("the fork is at %s", fork)
	}
	s.refused("eve", base+"/-/forks", http.StatusConflict, "namespace", "eve", "path", "plain", "name", "Plain", "visibility", "private")
	s.has(s.page("eve", fork), ".forked", "acme/plain")
	s.has(s.page("eve", base+"/-/forks"), "main", "eve /")
	if got := text(s.page("out", base+"/-/forks"), "main"); strings.Contains(got, "eve /") {
		t.Errorf("a private fork is shown: %q", got)
	}
	mine, err := s.forge.ProjectByPath(s.ctx, "eve/plain")
	s.must(err)
	n := delivery.NewCommit{Branch: "idea", StartBranch: "main", Message: "An idea", Actions: []delivery.CommitAction{{Action: "create", Path: "idea.txt", Content: []byte("one\n")}}}
	_, err = s.forge.CommitFiles(s.ctx, s.people["eve"], mine, n)
	s.must(err)
	// From the fork's page the parent is the target; from the parent's, the fork is the source.
	for _, from := range []string{fork, base} {
		page := s.page("eve", from+"/-/merge_requests/new?merge_request%5Bsource_branch%5D=idea")
		if got := value(page.Find("#new input[name=target_project_id]")); got != number(p.ID) {
			t.Errorf("from %s into %s", from, got)
		}
		s.has(page, ".diff .d-add", "+one")
	}
	link := s.post("eve", fork+"/-/merge_requests", "source_project_id", number(mine.ID), "target_project_id", number(p.ID), "source_branch", "idea", "target_branch", "main", "title", "An idea")
	if !strings.HasPrefix(link, base+"/-/merge_requests/") {
		t.Fatalf("it is at %s", link)
	}
	s.has(s.page("maya", link+"/diffs"), ".d-add", "+one")
	if got := text(s.page("maya", link), "h1 + p, .row code"); strings.Contains(got, "eve/plain") {
		t.Errorf("who may not see the fork reads its name: %q", got)
	}
	s.has(s.page("eve", link), "p code", "eve/plain:idea")
	// The page of a private fork stays hidden.
	if got := s.status("out", http.MethodGet, fork+"/-/forks/new", nil); got != http.StatusNotFound {
		t.Errorf("a stranger forks a private project: %d", got)
	}
	s.post("maya", link+"/merge")
	if got := s.file(p, "main", "idea.txt"); got != "one\n" {
		t.Errorf("main has %q", got)
	}
}

func TestTodoPages(t *testing.T) {
	t.Parallel()
	s, _, link := review(t)
	s.person("out")
	s.post("dev", link+"/notes", "note", "Please look, @maya; see !1 and @nobody. <b>@out</b>")
	s.until("maya", "/dashboard/todos", ".todos", "Dev mentioned you in")
	page := s.page("maya", "/dashboard/todos")
	s.has(page, "a.todo b", "1")
	if to := page.Find(".todos a").AttrOr("href", ""); !strings.HasPrefix(to, link+"#note_") {
		t.Errorf("it leads to %s", to)
	}
	note := s.page("maya", link)
	s.count(note, ".note .prose a[href='/maya']", 1)
	s.count(note, ".note .prose a[href='"+link+"']", 1)
	s.count(note, ".note .prose a[href='/nobody']", 0)
	form := page.Find(".todos form").AttrOr("action", "")
	if got := s.status("dev", http.MethodPost, form, url.Values{}); got != http.StatusNotFound {
		t.Errorf("another person's entry: %d", got)
	}
	s.post("maya", form)
	s.has(s.page("maya", "/dashboard/todos"), ".empty", "Nothing waits")
	s.has(s.page("maya", "/dashboard/todos?state=done"), ".todos", "mentioned you")
	s.has(s.page("out", "/dashboard/todos"), ".empty", "Nothing waits")
	s.post("dev", link, "has", "reviewer", "reviewer", number(s.people["maya"].User.ID))
	s.has(s.page("maya", "/dashboard/merge_requests"), ".requests", "Thirty")
	s.has(s.page("maya", "/dashboard/merge_requests?scope=author"), ".empty", "No merge requests")
	s.has(s.page("dev", "/dashboard/merge_requests?scope=author"), ".requests", "acme/plain!1")
	s.until("maya", "/dashboard/todos", ".todos", "asked for your review")
	s.post("maya", "/dashboard/todos/done")
	s.has(s.page("maya", "/dashboard/todos"), ".empty", "Nothing waits")
}

func TestSuggestionApplied(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	m, err := s.forge.MergeRequest(s.ctx, p.ID, 1)
	s.must(err)
	to := s.post("maya", link+"/notes", "tab", "diffs", "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "old_path", "a.txt", "new_path", "a.txt", "new_line", "31", "note", "Shorter:\n```suggestion:-1+0\nthirty\n```")
	note := to[strings.Index(to, "#note_")+6:]
	page := s.page("dev", link)
	s.has(page, ".suggestion .d-del", "-line thirty of <b>")
	s.has(page, ".suggestion .d-add", "+thirty")
	s.post("dev", link+"/notes/"+note+"/apply", "index", "0")
	if got := s.file(p, "feature", "a.txt"); !strings.Contains(got, "line 29\nthirty\nline 31\n") {
		t.Errorf("the file has %.400q", got)
	}
	s.has(s.page("dev", link), ".thread[data-resolved]", "Resolved by Dev")
	s.refused("dev", link+"/notes/"+note+"/apply", http.StatusConflict, "index", "0")
}

func TestCompareForm(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.branch(p, "feature", map[string]string{"new.txt": "one\n"})
	s.commit(p, "On main", map[string]string{"main.txt": "x\n"})
	form := s.page("dev", "/acme/plain/-/compare")
	if got := value(form.Find("#compare input[name=from]")); got != "main" {
		t.Errorf("it begins from %q", got)
	}
	s.count(form, "datalist option", 2)
	if to := s.do("dev", http.MethodGet, "/acme/plain/-/compare?from=main&to=feature", nil); to.StatusCode != http.StatusSeeOther || to.Header.Get("Location") != "/acme/plain/-/compare/main...feature" {
		t.Errorf("the form leads to %s %s", to.Status, to.Header.Get("Location"))
	}
	page := s.page("dev", "/acme/plain/-/compare/main...feature")
	s.count(page, ".diff", 1)
	s.count(page, "a[href$='/merge_requests/new?source_branch=feature&target_branch=main']", 1)
	if to := page.Find("#swap").AttrOr("href", ""); to != "/acme/plain/-/compare/feature...main" {
		t.Errorf("swapped it is %s", to)
	}
	// Straight, main's own file counts too.
	s.count(s.page("dev", "/acme/plain/-/compare/main..feature"), ".diff", 2)
	if got := s.status("dev", http.MethodGet, "/acme/plain/-/compare/main...nowhere", nil); got != http.StatusNotFound {
		t.Errorf("a branch that is not there: %d", got)
	}
}
