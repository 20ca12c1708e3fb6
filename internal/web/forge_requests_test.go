package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// branch commits files to a new branch from main.
func (s *site) branch(p delivery.Project, name string, files map[string]string) {
	s.t.Helper()
	n := delivery.NewCommit{Branch: name, StartBranch: "main", Message: "Work on " + name}
	for file, body := range files {
		n.Actions = append(n.Actions, delivery.CommitAction{Action: "create", Path: file, Content: []byte(body)})
	}
	_, err := s.forge.CommitFiles(s.ctx, s.root, p, n)
	s.must(err)
}

func TestMergeRequestPages(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.person("out")
	s.branch(p, "feature", map[string]string{"new.txt": "one\n"})
	const base = "/acme/plain/-/merge_requests"
	if got := s.status("out", http.MethodGet, base, nil); got != http.StatusNotFound {
		t.Errorf("a stranger lists: %d", got)
	}
	s.has(s.page("dev", base), ".empty", "No merge requests")
	form := s.page("dev", base+"/new?source_branch=feature")
	if got := value(form.Find("#new input[name=title]")); got != "Work on feature" {
		t.Errorf("the title is %q", got)
	}
	s.count(form, ".diff", 1)
	s.refused("dev", base, http.StatusUnprocessableEntity, "source_branch", "feature", "target_branch", "main", "title", " ")
	link := s.post("dev", base, "source_branch", "feature", "target_branch", "main", "title", "Add a file", "description", "It is **needed**.", "remove_source_branch", "on")
	s.refused("dev", base, http.StatusConflict, "source_branch", "feature", "target_branch", "main", "title", "Again")
	page := s.page("dev", link)
	s.has(page, "#description strong", "needed")
	s.has(page, "#mergeability", "ready to merge")
	s.count(page, "#merge-form", 0) // main is protected
	s.refused("dev", link+"/approve", http.StatusUnprocessableEntity)
	if got := s.status("dev", http.MethodPost, link+"/merge", url.Values{}); got != http.StatusForbidden {
		t.Errorf("a developer merges into main: %d", got)
	}
	s.count(s.page("dev", link+"/commits"), ".commits tr", 1)
	s.has(s.page("dev", link+"/diffs"), ".d-add", "one")
	s.post("maya", link+"/notes", "note", "Is `one` <script>right</script>?", "thread", "on")
	page = s.page("maya", link)
	s.has(page, ".thread code", "one")
	s.count(page, ".thread script", 0)
	resolve := page.Find(".thread form[action$='/resolve']").AttrOr("action", "")
	s.post("dev", resolve)
	s.count(s.page("dev", link), ".thread[data-resolved]", 1)
	s.refused("maya", link+"/notes", http.StatusUnprocessableEntity, "note", " ")
	s.post("maya", link+"/approve")
	s.has(s.page("maya", link), "#approvals", "Approved by Maya")
	s.post("dev", link, "title", "Draft: Add a file", "description", "")
	s.has(s.page("maya", link), "#mergeability", "draft")
	s.refused("maya", link+"/merge", http.StatusUnprocessableEntity)
	s.post("dev", link, "title", "Add a file", "description", "")
	s.post("dev", link+"/close")
	s.has(s.page("dev", base+"?state=closed"), ".requests", "Add a file")
	s.post("dev", link+"/reopen")
	s.refused("maya", link+"/merge", http.StatusConflict, "sha", "0000000000000000000000000000000000000000")
	s.post("maya", link+"/merge", "sha", value(s.page("maya", link).Find("#merge-form input[name=sha]")), "squash", "on", "remove_source_branch", "on")
	s.has(s.page("dev", link), "#state", "merged")
	if got := s.file(p, "main", "new.txt"); got != "one\n" {
		t.Errorf("main has %q", got)
	}
	if _, there, err := s.forge.RefExists(s.ctx, p.ID, "refs/heads/feature"); err != nil || there {
		t.Errorf("the source branch is there: %v %v", there, err)
	}
}

func TestMergeRequestConflict(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.branch(p, "feature", map[string]string{"same.txt": "one\n"})
	s.commit(p, "Other", map[string]string{"same.txt": "two\n"})
	link := s.post("maya", "/acme/plain/-/merge_requests", "source_branch", "feature", "target_branch", "main", "title", "Clash")
	page := s.page("maya", link)
	s.has(page, "#mergeability", "conflicts")
	s.has(page, "#merge li", "same.txt")
	s.count(page, "#merge-form", 0)
}
