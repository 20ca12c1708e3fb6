package rest

import (
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (h *handlers) releases(rt *api.Router) {
	read := api.Need{Role: delivery.Guest, Scopes: []string{"read_api", delivery.ScopeJob}}
	dev := api.Need{Role: delivery.Developer, Scopes: []string{delivery.ScopeJob}}
	base := "/projects/{project}/releases"
	rt.Handle("GET "+base, read, h.listReleases)
	rt.Handle("POST "+base, dev, h.createRelease)
	rt.Handle("GET "+base+"/{tag}", read, h.getRelease)
	rt.Handle("PUT "+base+"/{tag}", dev, h.updateRelease)
	rt.Handle("DELETE "+base+"/{tag}", dev, h.deleteRelease)
	rt.Handle("GET "+base+"/{tag}/assets/links", read, h.listLinks)
	rt.Handle("POST "+base+"/{tag}/assets/links", dev, h.addLink)
	rt.Handle("GET "+base+"/{tag}/assets/links/{link}", read, h.getLink)
	rt.Handle("PUT "+base+"/{tag}/assets/links/{link}", dev, h.updateLink)
	rt.Handle("DELETE "+base+"/{tag}/assets/links/{link}", dev, h.deleteLink)
}

func (h *handlers) linkShape(p delivery.Project, tag string, l forge.ReleaseLink) map[string]any {
	direct := l.URL
	if l.Path != "" {
		direct = h.f.WebURL(p) + "/-/releases/" + tag + "/downloads/" + strings.TrimPrefix(l.Path, "/")
	}
	return map[string]any{"id": l.ID, "name": l.Name, "url": l.URL, "direct_asset_url": direct, "external": true, "link_type": l.LinkType}
}

// releaseShape leaves out what shows code where the caller may not read it.
func (h *handlers) releaseShape(r *api.Request, v forge.Release) (map[string]any, error) {
	author, err := h.user(r.Context(), v.AuthorID)
	if err != nil {
		return nil, err
	}
	links := []map[string]any{}
	for _, l := range v.Links {
		links = append(links, h.linkShape(r.Project, v.Tag, l))
	}
	self := h.f.WebURL(r.Project) + "/-/releases/" + v.Tag
	out := map[string]any{"name": v.Name, "description": v.Description, "created_at": v.CreatedAt, "released_at": v.ReleasedAt, "upcoming_release": false, "author": author, "milestones": []any{}, "evidences": []any{},
		"_links": map[string]string{"self": self}, "assets": map[string]any{"count": len(links), "links": links, "sources": []any{}}}
	if !forge.CanRead(r.Project, r.Role) {
		return out, nil
	}
	out["tag_name"], out["commit_path"], out["tag_path"] = v.Tag, "/"+r.Project.FullPath+"/-/commit/"+v.SHA, "/"+r.Project.FullPath+"/-/tags/"+v.Tag
	c, err := h.f.Commit(r.Context(), r.Project.ID, v.SHA)
	if err == nil {
		out["commit"] = h.commitShape(r.Project, c)
	} else if !delivery.IsNotFound(err) {
		return nil, err
	}
	sources := []map[string]string{}
	for _, f := range []string{"zip", "tar.gz", "tar"} {
		sources = append(sources, map[string]string{"format": f, "url": h.url + "/api/v4/projects/" + itoa(r.Project.ID) + "/repository/archive." + f + "?sha=" + v.Tag})
	}
	out["assets"] = map[string]any{"count": len(links) + len(sources), "links": links, "sources": sources}
	return out, nil
}

func (h *handlers) listReleases(w http.ResponseWriter, r *api.Request) error {
	p := api.PageOf(r.Request)
	list, total, err := h.f.Releases(r.Context(), r.Project.ID, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out, err := shapes(r, list, h.releaseShape)
	if err != nil {
		return err
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) release(r *api.Request) (forge.Release, error) {
	v, err := h.f.Release(r.Context(), r.Project.ID, r.PathValue("tag"))
	if delivery.IsNotFound(err) {
		return v, notFound("Release")
	}
	return v, err
}

func (h *handlers) writeRelease(w http.ResponseWriter, r *api.Request, v forge.Release, status int) error {
	out, err := h.releaseShape(r, v)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, out)
}

func (h *handlers) getRelease(w http.ResponseWriter, r *api.Request) error {
	v, err := h.release(r)
	if err != nil {
		return err
	}
	return h.writeRelease(w, r, v, http.StatusOK)
}

type releaseParams struct {
	Name        *string `json:"name"`
	Tag         string  `json:"tag_name"`
	TagMessage  string  `json:"tag_message"`
	Description *string `json:"description"`
	Ref         string  `json:"ref"`
	ReleasedAt  string  `json:"released_at"`
	Assets      struct {
		Links []linkParams `json:"links"`
	} `json:"assets"`
}

type linkParams struct {
	Name     *string `json:"name"`
	URL      *string `json:"url"`
	LinkType *string `json:"link_type"`
	Path     *string `json:"direct_asset_path"`
	FilePath *string `json:"filepath"`
}

func (p linkParams) apply(l forge.ReleaseLink) forge.ReleaseLink {
	for _, f := range []struct {
		from *string
		to   *string
	}{{p.Name, &l.Name}, {p.URL, &l.URL}, {p.LinkType, &l.LinkType}, {p.FilePath, &l.Path}, {p.Path, &l.Path}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	return l
}

func (h *handlers) createRelease(w http.ResponseWriter, r *api.Request) error {
	var p releaseParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Tag == "" {
		return delivery.Errorf(delivery.Invalid, "tag_name is missing")
	}
	v := forge.Release{Tag: p.Tag, Name: deref(p.Name), Description: deref(p.Description), ReleasedAt: parseTime(p.ReleasedAt)}
	for _, l := range p.Assets.Links {
		v.Links = append(v.Links, l.apply(forge.ReleaseLink{}))
	}
	v, err := h.f.CreateRelease(r.Context(), r.Who, r.Project, v, p.Ref, p.TagMessage)
	if err != nil {
		return err
	}
	return h.writeRelease(w, r, v, http.StatusCreated)
}

func (h *handlers) updateRelease(w http.ResponseWriter, r *api.Request) error {
	v, err := h.release(r)
	if err != nil {
		return err
	}
	var p releaseParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Name != nil {
		v.Name = *p.Name
	}
	if p.Description != nil {
		v.Description = *p.Description
	}
	if t := parseTime(p.ReleasedAt); !t.IsZero() {
		v.ReleasedAt = t
	}
	if err := h.f.UpdateRelease(r.Context(), v); err != nil {
		return err
	}
	return h.writeRelease(w, r, v, http.StatusOK)
}

func (h *handlers) deleteRelease(w http.ResponseWriter, r *api.Request) error {
	v, err := h.release(r)
	if err != nil {
		return err
	}
	if err := h.f.DeleteRelease(r.Context(), r.Project.ID, v.Tag); err != nil {
		return err
	}
	return h.writeRelease(w, r, v, http.StatusOK)
}

func (h *handlers) listLinks(w http.ResponseWriter, r *api.Request) error {
	v, err := h.release(r)
	if err != nil {
		return err
	}
	out := []map[string]any{}
	for _, l := range v.Links {
		out = append(out, h.linkShape(r.Project, v.Tag, l))
	}
	return paged(w, r, out)
}

func (h *handlers) link(r *api.Request) (forge.Release, forge.ReleaseLink, error) {
	v, err := h.release(r)
	if err != nil {
		return v, forge.ReleaseLink{}, err
	}
	id, err := pathID(r, "link")
	if err != nil {
		return v, forge.ReleaseLink{}, err
	}
	for _, l := range v.Links {
		if l.ID == id {
			return v, l, nil
		}
	}
	return v, forge.ReleaseLink{}, notFound("Link")
}

func (h *handlers) getLink(w http.ResponseWriter, r *api.Request) error {
	v, l, err := h.link(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.linkShape(r.Project, v.Tag, l))
}

func (h *handlers) addLink(w http.ResponseWriter, r *api.Request) error {
	v, err := h.release(r)
	if err != nil {
		return err
	}
	return h.storeLink(w, r, v, forge.ReleaseLink{}, http.StatusCreated)
}

func (h *handlers) updateLink(w http.ResponseWriter, r *api.Request) error {
	v, l, err := h.link(r)
	if err != nil {
		return err
	}
	return h.storeLink(w, r, v, l, http.StatusOK)
}

func (h *handlers) storeLink(w http.ResponseWriter, r *api.Request, v forge.Release, l forge.ReleaseLink, status int) error {
	var p linkParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	l, err := h.f.SetReleaseLink(r.Context(), r.Project.ID, v.Tag, p.apply(l))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, status, h.linkShape(r.Project, v.Tag, l))
}

func (h *handlers) deleteLink(w http.ResponseWriter, r *api.Request) error {
	v, l, err := h.link(r)
	if err != nil {
		return err
	}
	if err := h.f.DeleteReleaseLink(r.Context(), r.Project.ID, v.Tag, l.ID); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.linkShape(r.Project, v.Tag, l))
}
