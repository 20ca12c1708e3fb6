package web

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// place is the project or the group that a page is about, for the pages that
// both have: members, tokens, webhooks.
type place struct {
	project *delivery.Project
	group   *delivery.Group
}

func placeOf(r *Request) place { return place{r.Project, r.Group} }

// Noun is "project" or "group".
func (p place) Noun() string {
	if p.group != nil {
		return "group"
	}
	return "project"
}

func (p place) fullPath() string {
	if p.group != nil {
		return p.group.FullPath
	}
	return p.project.FullPath
}

// link is the address of a page of the place.
func (p place) link(parts ...string) string {
	if p.group != nil {
		return groupPath(p.group.FullPath, parts...)
	}
	return projectPath(p.project.FullPath, parts...)
}

// ids are the numbers of the group and the project; one of them is 0.
func (p place) ids() (groupID, projectID int64) {
	if p.group != nil {
		return p.group.ID, 0
	}
	return 0, p.project.ID
}

// manager is the role that may change members, tokens and webhooks.
func (p place) manager() delivery.Role {
	if p.group != nil {
		return delivery.Owner
	}
	return delivery.Maintainer
}

func (p place) members() string { return p.link(p.Noun() + "_members") }

func (p place) hookOwner() forge.HookOwner {
	g, id := p.ids()
	return forge.HookOwner{GroupID: g, ProjectID: id}
}

func (p place) tokens(kind delivery.IdentityKind) access.TokenFilter {
	g, id := p.ids()
	return access.TokenFilter{Kind: kind, GroupID: g, ProjectID: id}
}

// accessKind is the kind of the place's access tokens.
func (p place) accessKind() delivery.IdentityKind {
	if p.group != nil {
		return delivery.GroupToken
	}
	return delivery.ProjectToken
}

// groupPath builds the path of a page of a group; with no parts, of its front
// page.
func groupPath(full string, parts ...string) string {
	p := "/groups/" + full
	if len(parts) > 0 {
		p += "/-/" + strings.Join(parts, "/")
	}
	return p
}

// handleGroup registers a page of a group, as handleProject does for projects.
func (s *Server) handleGroup(pattern string, least delivery.Role, h Handler) {
	if path, ok := strings.CutPrefix(pattern, "GET /"); ok {
		s.pages["groups:"+path] = true
	}
	s.patterns = append(s.patterns, Pattern{Area: "group", Pattern: pattern})
	s.group.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		s.serve(w, requestOf(req), func(w http.ResponseWriter, r *Request) error {
			if r.Role < least {
				if !r.Who.Signed() {
					return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
				}
				return &delivery.Error{Kind: delivery.Forbidden, Message: fmt.Sprintf("This needs the role %s in the group.", least)}
			}
			return h(w, r)
		})
	})
}

// handleBoth registers a page of projects and of groups; who may manage the
// place may see it.
func (s *Server) handleBoth(method, path string, h Handler) {
	s.handleProject(method+" "+path, place{}.manager(), h)
	s.handleGroup(method+" "+path, delivery.Owner, h)
}

// routeGroup sends a request below /groups/ to the page of its group. Who may
// not know of the group gets the answer for one that does not exist.
func (s *Server) routeGroup(w http.ResponseWriter, r *Request) {
	full, rest, isPage := strings.Cut(strings.Trim(strings.TrimPrefix(r.URL.Path, "/groups/"), "/"), "/-/")
	if !isPage {
		full, rest = strings.TrimSuffix(full, "/-"), ""
	}
	g, role, err := s.Access.VisibleGroupByPath(r.Context(), r.Who, full)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	own := *r
	own.Group, own.Role = &g, role
	s.group.ServeHTTP(w, below(r, rest, isPage, &own))
}
