package web

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// groupCIRoutes registers the CI/CD settings of groups. A group is named by
// its number or, where it has no parent, by its path.
func (s *Server) groupCIRoutes() {
	group := func(r *Request) (ciOwner, error) {
		g, err := s.ownedGroup(r)
		return s.groupOwner(g), err
	}
	s.handle("GET /groups/{group}/-/settings/ci_cd", func(w http.ResponseWriter, r *Request) error {
		o, err := group(r)
		if err != nil {
			return err
		}
		return o.show(w, r, http.StatusOK, ciSettingsView{})
	})
	for pattern, h := range s.ownerHandlers(group) {
		s.handle("POST /groups/{group}/-/settings/ci_cd/"+pattern, h)
	}
	s.handleOwn("GET /groups/ci_cd", s.groupsWithCI)
}

// ownedGroup finds the group of the path for somebody who may manage it: its
// owners, as for GitLab's group variables.
func (s *Server) ownedGroup(r *Request) (delivery.Group, error) {
	if !r.Who.Signed() {
		return delivery.Group{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	g, role, err := s.Access.VisibleGroup(r.Context(), r.Who, r.PathValue("group"))
	if err == nil && role < delivery.Owner {
		err = &delivery.Error{Kind: delivery.Forbidden, Message: "This needs the role owner in the group."}
	}
	return g, err
}

func (s *Server) groupOwner(g delivery.Group) ciOwner {
	o := ciOwner{Kind: pipeline.OwnerGroup, ID: g.ID, Base: groupCILink(g)}
	o.show = func(w http.ResponseWriter, r *Request, status int, v ciSettingsView) error {
		v.Owner, v.URL, v.Group = o, s.ExternalURL, &g
		if v.Open == "" {
			v.Open = r.FormValue("section")
		}
		above, err := s.groupsAbove(r, g)
		if err != nil {
			return err
		}
		keep := func(x *pipeline.Runner) bool {
			return x.Kind == pipeline.InstanceRunner || x.Kind == pipeline.GroupRunner && above[x.OwnerID]
		}
		if err := s.fillOwner(r, &v, keep); err != nil {
			return err
		}
		return s.render(w, r, status, "ci_group", Page{Title: g.FullPath + ": CI/CD settings", Data: v})
	}
	return o
}

func groupCILink(g delivery.Group) string {
	return "/groups/" + strconv.FormatInt(g.ID, 10) + "/-/settings/ci_cd"
}

// groupsAbove are the group and its ancestors, whose runners serve it.
func (s *Server) groupsAbove(r *Request, g delivery.Group) (map[int64]bool, error) {
	found := map[int64]bool{g.ID: true}
	for g.ParentID != 0 {
		found[g.ParentID] = true
		var err error
		if g, _, err = s.Access.VisibleGroup(r.Context(), r.Who, strconv.FormatInt(g.ParentID, 10)); err != nil {
			return found, err
		}
	}
	return found, nil
}

// groupsWithCI lists the groups whose CI/CD settings the caller manages.
func (s *Server) groupsWithCI(w http.ResponseWriter, r *Request) error {
	groups, _, err := s.Access.Groups(r.Context(), access.GroupFilter{Viewer: r.Who.User.ID, All: r.Who.User.Admin, MinRole: delivery.Owner}, 1000, 0)
	if err != nil {
		return err
	}
	type row struct {
		delivery.Group
		Link string
	}
	var rows []row
	for _, g := range groups {
		rows = append(rows, row{g, groupCILink(g)})
	}
	return s.render(w, r, http.StatusOK, "ci_groups", Page{Title: "Groups: CI/CD settings", Data: rows})
}
