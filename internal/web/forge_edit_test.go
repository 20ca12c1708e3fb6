package web_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *site) file(p delivery.Project, rev, name string) string {
	s.t.Helper()
	b, err := s.forge.ReadFile(s.ctx, p.ID, rev, name, 1<<20)
	s.must(err)
	return string(b)
}

func value(doc interface{ AttrOr(string, string) string }) string { return doc.AttrOr("value", "") }

func TestEditFile(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	s.person("guest")
	p := s.project("acme/files", map[string]string{"docs/a.txt": "\none\n", "dos.txt": "a\r\nb\r\n", "logo.bin": "\x00\x01"}, map[string]delivery.Role{"maya": delivery.Maintainer, "dev": delivery.Developer, "guest": delivery.Reporter})
	const edit = "/acme/files/-/edit/main/docs/a.txt"
	if got := s.status("guest", http.MethodGet, edit, nil); got != http.StatusForbidden {
		t.Errorf("a reporter edits: %d", got)
	}
	doc := s.page("maya", edit)
	base := value(doc.Find("#edit input[name=base]"))
	if got := doc.Find("#edit textarea").Text(); got != "\none\n" {
		t.Errorf("the text is %q", got)
	}
	if to := s.post("maya", edit, "base", base, "branch", "main", "commit_message", "Two", "content", "\r\ntwo\r\n"); to != "/acme/files/-/blob/main/docs/a.txt" {
		t.Errorf("it leads to %s", to)
	}
	if got := s.file(p, "main", "docs/a.txt"); got != "\ntwo\n" {
		t.Errorf("the file is %q", got)
	}
	lost := s.refused("maya", edit, http.StatusConflict, "base", base, "branch", "main", "commit_message", "Three", "content", "my long text")
	s.count(lost, "#conflict", 1)
	if got := lost.Find("#edit textarea").Text(); got != "my long text" {
		t.Errorf("the text is lost: %q", got)
	}
	s.post("maya", edit, "base", base, "branch", "rescue", "commit_message", "Three", "content", "my long text")
	if got := s.file(p, "rescue", "docs/a.txt"); got != "my long text" {
		t.Errorf("the file is %q", got)
	}
	dos := s.page("maya", "/acme/files/-/edit/main/dos.txt")
	s.count(dos, "#edit input[name=crlf]", 1)
	s.post("maya", "/acme/files/-/edit/main/dos.txt", "base", value(dos.Find("#edit input[name=base]")), "crlf", "1", "branch", "main", "commit_message", "Dos", "content", "a\r\nc\r\n")
	if got := s.file(p, "main", "dos.txt"); got != "a\r\nc\r\n" {
		t.Errorf("line ends are %q", got)
	}
	s.count(s.page("maya", "/acme/files/-/edit/main/logo.bin"), "#edit", 0)
}

func TestNewUploadDelete(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	const fresh = "/acme/plain/-/new/main/docs"
	doc := s.page("dev", fresh)
	if got := value(doc.Find("#edit input[name=branch]")); got != "dev-patch-1" {
		t.Errorf("a developer is to commit to %q; main is protected", got)
	}
	if got := s.status("dev", http.MethodPost, fresh, url.Values{"file_name": {"x.md"}, "branch": {"main"}, "commit_message": {"x"}, "content": {"x"}}); got != http.StatusForbidden {
		t.Errorf("a developer commits to main: %d", got)
	}
	s.post("dev", fresh, "base", value(doc.Find("#edit input[name=base]")), "file_name", "x.md", "branch", "dev-patch-1", "commit_message", "x", "content", "# x")
	if got := s.file(p, "dev-patch-1", "docs/x.md"); got != "# x" {
		t.Errorf("the file is %q", got)
	}
	s.refused("maya", "/acme/plain/-/new/main", http.StatusUnprocessableEntity, "file_name", "README.md", "branch", "main", "commit_message", "x", "content", "mine")

	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	s.must(form.WriteField("branch", "main"))
	s.must(form.WriteField("commit_message", "Add the data"))
	part, err := form.CreateFormFile("file", "data.bin")
	s.must(err)
	_, err = part.Write([]byte("\x00\x01\x02"))
	s.must(err)
	s.must(form.Close())
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.server.URL+"/acme/plain/-/upload/main/assets", &b)
	s.must(err)
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: s.cookies["maya"]})
	resp, err := http.DefaultTransport.RoundTrip(req)
	s.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || s.file(p, "main", "assets/data.bin") != "\x00\x01\x02" {
		t.Errorf("upload: %s", resp.Status)
	}
	if to := s.post("maya", "/acme/plain/-/delete/main/assets/data.bin", "branch", "main", "commit_message", "Drop the data"); !strings.HasSuffix(to, "/-/tree/main") {
		t.Errorf("it leads to %s", to)
	}
	if _, err := s.forge.ReadFile(s.ctx, p.ID, "main", "assets/data.bin", 10); !delivery.IsNotFound(err) {
		t.Errorf("the file is there: %v", err)
	}
}

func TestFirstFile(t *testing.T) {
	t.Parallel()
	s, _ := plain(t)
	p, err := s.forge.CreateProject(s.ctx, s.root, forge.NewProject{NamespacePath: "acme", Path: "empty"})
	s.must(err)
	_, err = s.access.SetMember(s.ctx, s.root, delivery.Owner, access.Member{User: *s.people["maya"].User, Role: delivery.Maintainer, ProjectID: p.ID})
	s.must(err)
	doc := s.page("maya", "/acme/empty/-/new/main")
	if got := value(doc.Find("#edit input[name=branch]")); got != "main" {
		t.Errorf("the branch is %q", got)
	}
	s.post("maya", "/acme/empty/-/new/main", "base", "", "file_name", "README.md", "branch", "main", "commit_message", "Begin", "content", "# Empty no more")
	if got := s.file(p, "main", "README.md"); got != "# Empty no more" {
		t.Errorf("the file is %q", got)
	}
	for _, page := range []string{"merge_requests/new", "releases", "search?search=x", "settings", "settings/repository"} {
		s.page("maya", "/acme/empty/-/"+page)
	}
}
