package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// first is the commit that everything began with.
func (s *site) first(p delivery.Project) string {
	s.t.Helper()
	list, err := s.forge.Commits(s.ctx, p.ID, forge.LogOptions{Rev: "main"})
	s.must(err)
	return list[len(list)-1].SHA
}

// TestReviewHeldBack starts a review, changes it, and submits it with an
// approval; nobody else sees it before.
func TestReviewHeldBack(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	m, err := s.forge.MergeRequest(s.ctx, p.ID, 1)
	s.must(err)
	line := []string{"tab", "diffs", "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "old_path", "a.txt", "new_path", "a.txt", "old_line", "0", "new_line", "31"}
	s.post("dev", link+"/notes", "note", "Is this right?", "thread", "on")
	page := s.page("maya", link)
	discussion := strings.TrimPrefix(page.Find(".thread[data-resolvable]").AttrOr("id", ""), "discussion_")
	s.has(page, "#new-note", "Start a review")
	s.count(page, "#review", 0)
	to := s.post("maya", link+"/notes", append(line, "note", "Why _more_?", "from_line", "0,30", "review", "1")...)
	if !strings.HasPrefix(to, link+"/diffs#held_") {
		t.Fatalf("a comment that is held back leads to %s", to)
	}
	held := to[strings.Index(to, "#held_")+6:]
	s.post("maya", link+"/notes", "discussion", discussion, "note", "Yes.", "resolve", "yes", "review", "1")
	s.post("maya", link+"/notes", "note", "Throw this away", "review", "1")
	for _, tab := range []string{"", "/diffs"} {
		page = s.page("maya", link+tab)
		s.has(page, "#review", "3 pending comments")
		s.has(page, "#held_"+held, "Only you see this")
		other := s.page("dev", link+tab)
		s.count(other, ".held, #review", 0)
		if strings.Contains(other.Text(), "Why more?") {
			t.Error("another person sees what is held back")
		}
	}
	s.has(page, ".d-notes .thread .place", "Lines +30 to +31")
	s.has(page, ".d-notes #held_"+held+" em", "more")
	s.has(s.page("maya", link), "#discussion_"+discussion+" .held", "It resolves the thread")
	s.has(s.page("maya", link), ".place", "a.txt:30-31")
	s.post("maya", link+"/drafts/"+held, "note", "Why _even_ more?")
	if got := s.status("dev", http.MethodPost, link+"/drafts/"+held+"/delete", nil); got != http.StatusNotFound {
		t.Errorf("another person deletes it: %d", got)
	}
	throw := s.page("maya", link).Find(".held").Last().AttrOr("id", "")
	s.post("maya", link+"/drafts/"+strings.TrimPrefix(throw, "held_")+"/delete")
	// An approval of a version that is not there any more changes nothing.
	s.refused("maya", link+"/review", http.StatusConflict, "summary", "Fine.", "verdict", "approve", "sha", strings.Repeat("0", 40))
	s.has(s.page("maya", link), "#review", "2 pending comments")
	s.post("maya", link+"/review", "summary", "Fine.", "verdict", "approve", "sha", m.HeadSHA)
	over := s.page("dev", link)
	s.has(over, "#approvals", "Approved by Maya")
	s.has(over, "#threads ~ .thread", "Yes.")
	s.has(over, ".thread[data-resolved] summary", "Resolved by Maya")
	s.has(over, "#unresolved", "1 open thread")
	s.has(over, ".thread .place", "a.txt:30-31")
	if got := over.Find(".thread .excerpt tr").Length(); got != 2 {
		t.Errorf("the excerpt of two lines has %d", got)
	}
	s.count(s.page("maya", link), "#review", 0)
	s.has(s.page("dev", link+"/diffs"), ".d-notes .thread em", "even")
	// Discarding, and a single comment at once.
	s.post("maya", link+"/notes", "note", "One", "review", "1")
	s.post("maya", link+"/notes", "note", "Two", "review", "1")
	one := strings.TrimPrefix(s.page("maya", link).Find(".held").First().AttrOr("id", ""), "held_")
	if to := s.post("maya", link+"/drafts/"+one+"/publish"); !strings.HasPrefix(to, link+"#note_") {
		t.Errorf("a comment that is published leads to %s", to)
	}
	s.post("maya", link+"/review/discard")
	over = s.page("maya", link)
	s.count(over, ".held", 0)
	s.has(over, "#threads ~ .thread", "One")
	if strings.Contains(over.Text(), "Two") {
		t.Error("what was discarded is there")
	}
	s.refused("maya", link+"/review", http.StatusUnprocessableEntity, "summary", " ")
}

// TestCommitComments comments on a commit and on its lines, and shows that in
// its merge request.
func TestCommitComments(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	sha := s.head(p, "feature")
	base := s.head(p, "main")
	commit := "/acme/plain/-/commit/" + sha
	page := s.page("maya", commit)
	s.has(page, "#requests", "Thirty !1")
	s.count(page, "template.note-form", 1)
	on := []string{"base_sha", base, "start_sha", base, "head_sha", sha, "old_path", "a.txt", "new_path", "a.txt"}
	to := s.post("maya", commit+"/notes", append(on, "new_line", "30", "old_line", "0", "note", "Why _thirty_, @dev?")...)
	if !strings.HasPrefix(to, commit+"#note_") {
		t.Fatalf("a comment leads to %s", to)
	}
	note := to[strings.Index(to, "#note_")+6:]
	s.until("dev", "/dashboard/todos", ".todos", "acme/plain@"+sha[:8])
	if to := s.page("dev", "/dashboard/todos").Find(".todos a").First().AttrOr("href", ""); to != commit+"#note_"+note {
		t.Errorf("the to-do list leads to %s", to)
	}
	s.post("maya", commit+"/notes", "note", "On the whole")
	s.refused("maya", commit+"/notes", http.StatusUnprocessableEntity, append(on, "new_line", "999", "old_line", "0", "note", "x")...)
	page = s.page("dev", commit)
	s.has(page, ".d-notes .thread em", "thirty")
	s.has(page, "#comments .thread", "On the whole")
	thread := strings.TrimPrefix(page.Find(".d-notes .thread").AttrOr("id", ""), "discussion_")
	s.post("dev", commit+"/notes", "discussion", thread, "note", "Because.")
	s.count(s.page("dev", commit), ".d-notes .thread .note", 2)
	over := s.page("dev", link)
	s.has(over, ".thread .place", "commit "+sha[:8]+": a.txt:30")
	if got := over.Find(".thread .place a").AttrOr("href", ""); got != commit+"#note_"+note {
		t.Errorf("the merge request links to %s", got)
	}
	s.count(over, "#unresolved", 0)
	if got := s.status("dev", http.MethodPost, commit+"/notes/"+note+"/delete", nil); got != http.StatusForbidden {
		t.Errorf("another person deletes it: %d", got)
	}
	s.post("maya", commit+"/notes/"+note, "note", "Changed my mind.")
	s.has(s.page("dev", commit), "#note_"+note, "Changed my mind.")
	s.post("maya", commit+"/notes/"+note+"/delete")
	s.count(s.page("dev", commit), "#note_"+note, 0)
	s.page("maya", "/acme/plain/-/commit/"+s.first(p))
}

// TestSuggestionOverLines proposes other lines above and below the one that a
// note is on.
func TestSuggestionOverLines(t *testing.T) {
	t.Parallel()
	s, p, link := review(t)
	m, err := s.forge.MergeRequest(s.ctx, p.ID, 1)
	s.must(err)
	to := s.post("maya", link+"/notes", "tab", "diffs", "base_sha", m.BaseSHA, "start_sha", m.StartSHA, "head_sha", m.HeadSHA, "old_path", "a.txt", "new_path", "a.txt", "old_line", "0", "new_line", "31", "note", "```suggestion:-1+2\nthirty\n```")
	page := s.page("dev", link)
	var gone []string
	page.Find(".suggestion .d-del td.s").Each(func(_ int, e *goquery.Selection) { gone = append(gone, e.Text()) })
	if got := strings.Join(gone, "|"); got != "-line thirty of <b>|-more|-line 31|-line 32" {
		t.Errorf("it replaces %q", got)
	}
	s.post("dev", link+"/notes/"+to[strings.Index(to, "#note_")+6:]+"/apply", "index", "0")
	if got := s.file(p, "feature", "a.txt"); !strings.Contains(got, "line 29\nthirty\nline 33\n") {
		t.Errorf("the file has %.500q", got)
	}
}
