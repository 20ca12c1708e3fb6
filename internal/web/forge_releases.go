package web

import (
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (s *Server) releaseRoutes() {
	s.handleProject("GET /releases", delivery.Guest, s.releasesPage)
	s.handleProject("POST /releases", delivery.Developer, s.createRelease)
	s.handleProject("GET /releases/{tag}/edit", delivery.Developer, s.releasePage)
	s.handleProject("POST /releases/{tag}/edit", delivery.Developer, s.updateRelease)
	s.handleProject("POST /releases/{tag}/delete", delivery.Developer, s.deleteRelease)
	s.handleProject("GET /search", delivery.Guest, s.searchProject)
	s.handle("GET /search", s.searchPage)
}

// releasesView lists releases and makes one.
type releasesView struct {
	Rows                        []releaseRow
	Prev, Next                  string
	MayNew                      bool
	Tag, Ref, Name, Description string
	Tags                        []delivery.Ref
	Links                       []forge.ReleaseLink
	Error                       string
}

type releaseRow struct {
	forge.Release
	Author *delivery.User
	Body   template.HTML
}

func (s *Server) releasesPage(w http.ResponseWriter, r *Request) error {
	return s.showReleases(w, r, http.StatusOK, releasesView{Ref: r.Project.DefaultBranch})
}

func (s *Server) showReleases(w http.ResponseWriter, r *Request, status int, v releasesView) error {
	if err := readable(r); err != nil {
		return err
	}
	const onPage = 20
	page := pageNumber(r)
	list, total, err := s.Forge.Releases(r.Context(), r.Project.ID, onPage, (page-1)*onPage)
	if err != nil {
		return err
	}
	users := s.people(r.Context())
	for _, release := range list {
		row := releaseRow{Release: release, Body: markdown(release.Description, linkBase{r.Project.FullPath, release.Tag, ""})}
		if row.Author, err = users.find(release.AuthorID); err != nil {
			return err
		}
		v.Rows = append(v.Rows, row)
	}
	if v.MayNew = r.Role >= delivery.Developer && r.Who.User != nil && !r.Project.Empty; v.MayNew {
		if v.Tags, err = s.Forge.Tags(r.Context(), *r.Project, forge.RefOptions{}); err != nil {
			return err
		}
	}
	v.Links = blankLinks(v.Links)
	v.Prev, v.Next = pagerLinks(r, page, page*onPage < total)
	return s.render(w, r, status, "forge_releases", Page{Title: "Releases", Active: "releases", Data: v})
}

func (s *Server) createRelease(w http.ResponseWriter, r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Sign in as a person to make a release."}
	}
	v := releasesView{Tag: strings.TrimSpace(r.FormValue("tag")), Ref: strings.TrimSpace(r.FormValue("ref")), Name: r.FormValue("name"), Description: strings.ReplaceAll(r.FormValue("description"), "\r\n", "\n")}
	v.Links = typedLinks(r)
	_, err := s.Forge.CreateRelease(r.Context(), r.Who, *r.Project, forge.Release{Tag: v.Tag, Name: v.Name, Description: v.Description, Links: v.Links}, v.Ref, "")
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showReleases(w, r, status, v)
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "releases"), "The release "+v.Tag+" is made.")
}

// blankLinks adds the empty rows of the form to a release's links.
func blankLinks(links []forge.ReleaseLink) []forge.ReleaseLink {
	return append(links, make([]forge.ReleaseLink, 2)...)
}

// typedLinks reads the links of a release's form; rows without name and address
// are not there.
func typedLinks(r *Request) []forge.ReleaseLink {
	var out []forge.ReleaseLink
	at := func(name string, i int) string {
		if list := r.Form[name]; i < len(list) {
			return strings.TrimSpace(list[i])
		}
		return ""
	}
	for i := range min(len(r.Form["link_url"]), 100) {
		l := forge.ReleaseLink{Name: at("link_name", i), URL: at("link_url", i), LinkType: at("link_type", i)}
		if l.Name == "" {
			l.Name = l.URL[strings.LastIndexByte(l.URL, '/')+1:]
		}
		l.ID, _ = strconv.ParseInt(at("link_id", i), 10, 64) // 0: a new one
		if l.URL != "" || at("link_name", i) != "" {
			out = append(out, l)
		}
	}
	return out
}

// editedRelease is the form for a release that exists.
type editedRelease struct {
	Release forge.Release
	Links   []forge.ReleaseLink
	Error   string
}

func (s *Server) releasePage(w http.ResponseWriter, r *Request) error {
	release, err := s.Forge.Release(r.Context(), r.Project.ID, r.PathValue("tag"))
	if err != nil {
		return err
	}
	return s.showRelease(w, r, http.StatusOK, editedRelease{Release: release, Links: release.Links})
}

func (s *Server) showRelease(w http.ResponseWriter, r *Request, status int, v editedRelease) error {
	v.Links = blankLinks(v.Links)
	return s.render(w, r, status, "forge_release", Page{Title: "Edit release " + v.Release.Tag, Active: "releases", Data: v})
}

func (s *Server) updateRelease(w http.ResponseWriter, r *Request) error {
	release, err := s.Forge.Release(r.Context(), r.Project.ID, r.PathValue("tag"))
	if err != nil {
		return err
	}
	release.Name, release.Description = strings.TrimSpace(r.FormValue("name")), strings.ReplaceAll(r.FormValue("description"), "\r\n", "\n")
	links := typedLinks(r)
	if release.Name == "" {
		release.Name = release.Tag
	}
	message, status, err := correctable(s.storeRelease(r, release, links))
	if err != nil {
		return err
	}
	if message != "" {
		return s.showRelease(w, r, status, editedRelease{Release: release, Links: links, Error: message})
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "releases"), "The release "+release.Tag+" is stored.")
}

// storeRelease stores a release and makes its links those that are given.
func (s *Server) storeRelease(r *Request, release forge.Release, links []forge.ReleaseLink) error {
	ctx, id := r.Context(), r.Project.ID
	kept := map[int64]bool{}
	for _, l := range links {
		kept[l.ID] = true
	}
	for _, old := range release.Links {
		if !kept[old.ID] {
			if err := s.Forge.DeleteReleaseLink(ctx, id, release.Tag, old.ID); err != nil {
				return err
			}
		}
	}
	for _, l := range links {
		for _, old := range release.Links {
			if old.ID == l.ID {
				l.Path = old.Path
			}
		}
		if _, err := s.Forge.SetReleaseLink(ctx, id, release.Tag, l); err != nil {
			return err
		}
	}
	if err := s.Forge.UpdateRelease(ctx, release); err != nil {
		return err
	}
	s.Access.Audit(ctx, r.Who, "release.updated", "project", id, r.Project.FullPath, release.Tag)
	return nil
}

func (s *Server) deleteRelease(w http.ResponseWriter, r *Request) error {
	tag := r.PathValue("tag")
	if _, err := s.Forge.Release(r.Context(), r.Project.ID, tag); err != nil {
		return err
	}
	if err := s.Forge.DeleteRelease(r.Context(), r.Project.ID, tag); err != nil {
		return err
	}
	s.Access.Audit(r.Context(), r.Who, "release.deleted", "project", r.Project.ID, r.Project.FullPath, tag)
	return redirect(w, r, projectPath(r.Project.FullPath, "releases"), "The release "+tag+" is deleted. Its tag is still there.")
}

// searchView is what was found: projects and merge requests everywhere, or
// files and lines in one project.
type searchView struct {
	Text     string
	Projects []delivery.Project
	Requests []requestRow
	Files    []foundLine
	Lines    []foundLine
	Short    bool // the text is too short for a search in the content
}

type foundLine struct {
	Path, Link, Text string
	Line             int
}

const foundMost = 100

func (s *Server) searchPage(w http.ResponseWriter, r *Request) error {
	v := searchView{Text: strings.TrimSpace(r.FormValue("search"))}
	if v.Text != "" {
		ctx, f := r.Context(), forge.FilterFor(r.Who)
		f.Search = v.Text
		var err error
		if v.Projects, _, err = s.Forge.Projects(ctx, f, 50, 0); err != nil {
			return err
		}
		visible := forge.FilterFor(r.Who)
		visible.Readable = true
		requests, _, err := s.Forge.MergeRequests(ctx, forge.MergeRequestFilter{Search: v.Text, Visible: &visible}, 50, 0)
		if err != nil {
			return err
		}
		for _, m := range requests {
			p, err := s.Forge.Project(ctx, m.ProjectID)
			if delivery.IsNotFound(err) {
				continue // deleted in the meantime
			}
			if err != nil {
				return err
			}
			v.Requests = append(v.Requests, requestRow{MergeRequest: m, Link: requestLink(&p, m.IID)})
		}
	}
	return s.render(w, r, http.StatusOK, "forge_search", Page{Title: "Search", Data: v})
}

// searchProject finds files by name and lines by content on the default branch.
func (s *Server) searchProject(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	ctx, p := r.Context(), r.Project
	v := searchView{Text: strings.TrimSpace(r.FormValue("search")), Short: true}
	if v.Text != "" && !p.Empty {
		files, err := s.Forge.SearchFiles(ctx, p.ID, p.DefaultBranch, v.Text, foundMost)
		if err != nil {
			return err
		}
		link := func(file string) string {
			return projectPath(p.FullPath, "blob", escapePath(p.DefaultBranch+"/"+file))
		}
		for _, file := range files {
			v.Files = append(v.Files, foundLine{Path: file, Link: link(file)})
		}
		if v.Short = len(v.Text) < 2; !v.Short {
			lines, err := s.Forge.SearchCode(ctx, p.ID, p.DefaultBranch, v.Text, "", foundMost)
			if err != nil {
				return err
			}
			for _, m := range lines {
				v.Lines = append(v.Lines, foundLine{Path: m.Path, Link: link(m.Path) + "?plain=1#L" + strconv.Itoa(m.Line), Text: m.Text, Line: m.Line})
			}
		}
	}
	return s.render(w, r, http.StatusOK, "forge_search", Page{Title: "Search", Active: "tree", Data: v})
}
