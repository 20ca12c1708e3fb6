package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const (
	maxShown      = 2 << 20 // bytes of a file that its page shows
	maxReadme     = 1 << 20
	commitsOnPage = 40
)

func (s *Server) codeRoutes() {
	guest := delivery.Guest
	s.handleProject("GET /{$}", guest, s.projectPage)
	s.handleProject("GET /tree/{path...}", guest, s.treePage)
	s.handleProject("GET /blob/{path...}", guest, s.blobPage)
	s.handleProject("GET /raw/{path...}", guest, s.rawFile)
	s.handleProject("GET /blame/{path...}", guest, s.blamePage)
	s.handleProject("GET /commits/{path...}", guest, s.commitsPage)
	s.commitRoutes()
	s.handleProject("GET /compare", guest, s.comparePage)
	s.handleProject("GET /compare/{range...}", guest, s.comparePage)
	s.handleProject("GET /branches", guest, s.branchesPage)
	s.handleProject("GET /tags", guest, s.tagsPage)
}

// readable refuses guests of private projects, who see the project but not its
// code.
func readable(r *Request) error {
	if !forge.CanRead(*r.Project, r.Role) {
		return notFound()
	}
	return nil
}

// splitRev splits "feature/x/docs/a.md" into a revision and a path: the longest
// prefix that names a branch, tag or commit.
func (s *Server) splitRev(ctx context.Context, p *delivery.Project, full string) (rev, rest, sha string, err error) {
	full = strings.Trim(full, "/")
	if full == "" {
		full = p.DefaultBranch
	}
	segments := strings.Split(full, "/")
	for n := min(len(segments), 12); n > 0; n-- {
		rev = strings.Join(segments[:n], "/")
		sha, err = s.Forge.ResolveRef(ctx, p.ID, rev)
		if err == nil {
			return rev, strings.Join(segments[n:], "/"), sha, nil
		}
		if !delivery.IsNotFound(err) && delivery.KindOf(err) != delivery.Invalid {
			return "", "", "", err
		}
	}
	return "", "", "", &delivery.Error{Kind: delivery.NotFound, Message: fmt.Sprintf("There is no branch, tag or commit at the beginning of %q.", full), Next: "See the branches of the project."}
}

type crumb struct{ Name, Link string }

func crumbs(p *delivery.Project, page, rev, file string) []crumb {
	out := []crumb{{p.Path, projectPath(p.FullPath, "tree", escapePath(rev))}}
	if file == "" {
		return out
	}
	parts := strings.Split(file, "/")
	for i, part := range parts {
		kind := "tree"
		if i == len(parts)-1 {
			kind = page
		}
		out = append(out, crumb{part, projectPath(p.FullPath, kind, escapePath(rev+"/"+strings.Join(parts[:i+1], "/")))})
	}
	return out
}

// treeView is a folder with its README.
type treeView struct {
	Rev, Folder, SHA string
	Crumbs           []crumb
	Entries          []treeRow
	Last             delivery.Commit
	Commits          int
	Readme           template.HTML
	ReadmeName       string
	CloneHTTP        string
	CloneSSH         string
	Empty            bool
	MayPush          bool
	Parent           *delivery.Project // that it was forked from, where the caller may see it
	Branches         int
	Tags             int
	Front            bool
	MayStart         bool
	Running          *frontView // nil while nothing is deployed
}

type treeRow struct {
	delivery.TreeEntry
	Link string
	Last delivery.Commit
}

func (s *Server) projectPage(w http.ResponseWriter, r *Request) error {
	v := treeView{CloneHTTP: s.Forge.HTTPURL(*r.Project), CloneSSH: s.Forge.SSHURL(*r.Project), Front: true, MayPush: r.Role >= delivery.Developer, MayStart: s.mayStart(r)}
	var err error
	if v.Parent, err = s.parentOf(r); err != nil {
		return err
	}
	if r.Project.Empty || !forge.CanRead(*r.Project, r.Role) {
		v.Empty = r.Project.Empty
		return s.render(w, r, http.StatusOK, "project", Page{Active: "overview", Data: v})
	}
	if err := s.fillTree(r, &v, r.Project.DefaultBranch, ""); err != nil {
		if delivery.IsNotFound(err) {
			v.Empty = true
			return s.render(w, r, http.StatusOK, "project", Page{Active: "overview", Data: v})
		}
		return err
	}
	branches, err := s.Forge.Branches(r.Context(), *r.Project, forge.RefOptions{})
	if err != nil {
		return err
	}
	tags, err := s.Forge.Tags(r.Context(), *r.Project, forge.RefOptions{})
	if err != nil {
		return err
	}
	v.Branches, v.Tags = len(branches), len(tags)
	if v.Commits, err = s.Forge.CountCommits(r.Context(), r.Project.ID, v.SHA, ""); err != nil {
		return err
	}
	if v.Running, err = s.front(r); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "project", Page{Active: "overview", Data: v})
}

func (s *Server) treePage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	rev, folder, _, err := s.splitRev(r.Context(), r.Project, r.PathValue("path"))
	if err != nil {
		return err
	}
	v := treeView{MayPush: r.Role >= delivery.Developer}
	if err := s.fillTree(r, &v, rev, folder); err != nil {
		if errors.Is(err, errIsFile) {
			return redirect(w, r, projectPath(r.Project.FullPath, "blob", escapePath(rev+"/"+folder)), "")
		}
		return err
	}
	return s.render(w, r, http.StatusOK, "tree", Page{Title: path.Join(folder, rev), Active: "tree", Data: v})
}

var errIsFile = errors.New("web: it is a file")

func (s *Server) fillTree(r *Request, v *treeView, rev, folder string) error {
	ctx, p := r.Context(), r.Project
	sha, err := s.Forge.ResolveRef(ctx, p.ID, rev)
	if err != nil {
		return err
	}
	v.Rev, v.Folder, v.SHA, v.Crumbs = rev, folder, sha, crumbs(p, "tree", rev, folder)
	if folder != "" {
		e, err := s.Forge.Entry(ctx, p.ID, sha, folder)
		if err != nil {
			return err
		}
		if e.Type == "blob" {
			return errIsFile
		}
	}
	entries, err := s.Forge.Tree(ctx, p.ID, sha, folder)
	if err != nil {
		return err
	}
	last, err := s.Forge.LastCommits(ctx, p.ID, sha, folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		kind := "blob"
		if e.Type == "tree" {
			kind = "tree"
		}
		v.Entries = append(v.Entries, treeRow{e, projectPath(p.FullPath, kind, escapePath(rev+"/"+e.Path)), last[e.Path]})
		if v.ReadmeName == "" && e.Type == "blob" && strings.HasPrefix(strings.ToLower(e.Name), "readme") {
			v.ReadmeName = e.Name
			body, err := s.Forge.ReadFile(ctx, p.ID, sha, e.Path, maxReadme)
			if err != nil && delivery.KindOf(err) != delivery.TooLarge {
				return err
			}
			v.Readme = document(e.Name, string(body), linkBase{p.FullPath, rev, folder})
		}
	}
	v.Last, err = s.Forge.Commit(ctx, p.ID, sha)
	return err
}

// document renders a text by its name: markdown as such, others as they are.
func document(name, body string, base linkBase) template.HTML {
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".markdown", ".mdown":
		return markdown(body, base)
	}
	return template.HTML("<pre>" + template.HTMLEscapeString(body) + "</pre>")
}

// blobView is one file.
type blobView struct {
	Rev, File, Name string
	Crumbs          []crumb
	Size            int64
	Lines           []template.HTML
	Rendered        template.HTML
	Binary, TooBig  bool
	Image           bool
	Plain           bool
	Blame           []blameRow
	MayPush         bool
	Executable      bool
}

type blameRow struct {
	Commit delivery.Commit
	First  bool // of a run of lines of one commit
	Number int
	HTML   template.HTML
}

func (s *Server) blobPage(w http.ResponseWriter, r *Request) error {
	v, err := s.blob(r)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "blob", Page{Title: v.File, Active: "tree", Data: v})
}

func (s *Server) blob(r *Request) (blobView, error) {
	if err := readable(r); err != nil {
		return blobView{}, err
	}
	ctx, p := r.Context(), r.Project
	rev, file, sha, err := s.splitRev(ctx, p, r.PathValue("path"))
	if err != nil {
		return blobView{}, err
	}
	e, err := s.Forge.Entry(ctx, p.ID, sha, file)
	if err != nil {
		return blobView{}, err
	}
	if e.Type != "blob" {
		return blobView{}, notFound()
	}
	v := blobView{Rev: rev, File: file, Name: path.Base(file), Crumbs: crumbs(p, "blob", rev, file), MayPush: r.Role >= delivery.Developer,
		Plain: r.FormValue("plain") != "", Executable: e.Mode == "100755"}
	switch strings.ToLower(path.Ext(file)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".ico", ".avif":
		v.Image = true
	}
	if v.Size, err = s.Forge.StatBlob(ctx, p.ID, e.SHA); err != nil {
		return v, err
	}
	if v.Size > maxShown {
		v.TooBig = true
		return v, nil
	}
	body, err := s.Forge.ReadFile(ctx, p.ID, sha, file, maxShown)
	if err != nil {
		return v, err
	}
	if v.Binary = isBinary(body); v.Binary {
		return v, nil
	}
	if ext := strings.ToLower(path.Ext(file)); !v.Plain && (ext == ".md" || ext == ".markdown") {
		v.Rendered = markdown(string(body), linkBase{p.FullPath, rev, path.Dir(file)})
		return v, nil
	}
	v.Lines = highlightLines(file, string(body))
	return v, nil
}

func isBinary(b []byte) bool {
	head := b[:min(len(b), 8000)]
	for _, c := range head {
		if c == 0 {
			return true
		}
	}
	for len(head) > 0 && len(b) > len(head) && !utf8.RuneStart(head[len(head)-1]) {
		head = head[:len(head)-1]
	}
	return len(b) == len(head) && !utf8.Valid(head)
}

func (s *Server) blamePage(w http.ResponseWriter, r *Request) error {
	v, err := s.blob(r)
	if err != nil {
		return err
	}
	if v.Binary || v.TooBig {
		return &delivery.Error{Kind: delivery.Invalid, Message: "Only texts of moderate size can be blamed."}
	}
	lines, commits, err := s.Forge.Blame(r.Context(), r.Project.ID, v.Rev, v.File)
	if err != nil {
		return err
	}
	var source strings.Builder
	for _, l := range lines {
		source.WriteString(l.Text + "\n")
	}
	html := highlightLines(v.File, source.String())
	for i, l := range lines {
		row := blameRow{Commit: commits[l.SHA], First: i == 0 || lines[i-1].SHA != l.SHA, Number: i + 1}
		if i < len(html) {
			row.HTML = html[i]
		}
		v.Blame = append(v.Blame, row)
	}
	return s.render(w, r, http.StatusOK, "blame", Page{Title: v.File, Active: "tree", Data: v})
}

// rawFile sends a file's bytes. Nothing of a repository may run in the pages'
// origin, so types that browsers execute are sent as text.
func (s *Server) rawFile(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	_, file, sha, err := s.splitRev(r.Context(), r.Project, r.PathValue("path"))
	if err != nil {
		return err
	}
	e, err := s.Forge.Entry(r.Context(), r.Project.ID, sha, file)
	if err != nil {
		return err
	}
	if e.Type != "blob" {
		return notFound()
	}
	kind := "text/plain; charset=utf-8"
	switch strings.ToLower(path.Ext(file)) {
	case ".png":
		kind = "image/png"
	case ".jpg", ".jpeg":
		kind = "image/jpeg"
	case ".gif":
		kind = "image/gif"
	case ".webp":
		kind = "image/webp"
	case ".svg":
		kind = "image/svg+xml"
	case ".zip", ".gz", ".tar", ".pdf", ".bin", ".exe":
		kind = "application/octet-stream"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	if kind == "application/octet-stream" {
		h.Set("Content-Disposition", "attachment")
	}
	if err := s.Forge.WriteBlob(r.Context(), r.Project.ID, e.SHA, w); err != nil {
		s.Log.Warn("raw file was not sent whole", "project", r.Project.ID, "err", err)
	}
	return nil
}

// commitsView is a page of the history.
type commitsView struct {
	Rev, File  string
	Crumbs     []crumb
	Commits    []delivery.Commit
	Signatures map[string]*forge.Verification
	Search     string
	Prev, Next string
}

func (s *Server) commitsPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	if r.Project.Empty {
		return redirect(w, r, projectPath(r.Project.FullPath), "")
	}
	rev, file, sha, err := s.splitRev(r.Context(), r.Project, r.PathValue("path"))
	if err != nil {
		return err
	}
	page := pageNumber(r)
	v := commitsView{Rev: rev, File: file, Crumbs: crumbs(r.Project, "commits", rev, file), Search: r.FormValue("search")}
	list, err := s.Forge.Commits(r.Context(), r.Project.ID, forge.LogOptions{Rev: sha, Path: file, Search: v.Search, Limit: commitsOnPage + 1, Offset: (page - 1) * commitsOnPage})
	if err != nil {
		return err
	}
	v.Prev, v.Next = pagerLinks(r, page, len(list) > commitsOnPage)
	v.Commits = list[:min(len(list), commitsOnPage)]
	if v.Signatures, err = s.Forge.VerifyCommits(r.Context(), r.Project.ID, v.Commits); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "commits", Page{Title: "Commits", Active: "commits", Data: v})
}

func (s *Server) branchesPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	refs, err := s.Forge.Branches(r.Context(), *r.Project, forge.RefOptions{Search: r.FormValue("search"), Sort: "updated", Merged: true})
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "refs", Page{Title: "Branches", Active: "branches", Data: refsView{Heading: "Branches", Kind: "branch", Refs: refs, Search: r.FormValue("search")}})
}

func (s *Server) tagsPage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	refs, err := s.Forge.Tags(r.Context(), *r.Project, forge.RefOptions{Search: r.FormValue("search")})
	if err != nil {
		return err
	}
	signatures, err := s.Forge.VerifyTags(r.Context(), r.Project.ID, refs)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "refs", Page{Title: "Tags", Active: "tags", Data: refsView{"Tags", "tag", refs, signatures, r.FormValue("search")}})
}

type refsView struct {
	Heading, Kind string
	Refs          []delivery.Ref
	Signatures    map[string]*forge.Verification // of signed tags, by name
	Search        string
}
