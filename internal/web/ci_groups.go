package web

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// groupCIRoutes registers the CI/CD settings of groups, for their owners as in
// GitLab.
func (s *Server) groupCIRoutes() {
	s.handleGroup("GET /settings/ci_cd", delivery.Owner, func(w http.ResponseWriter, r *Request) error {
		return s.groupOwner(*r.Group).show(w, r, http.StatusOK, ciSettingsView{})
	})
	for pattern, h := range s.ownerHandlers(func(r *Request) (ciOwner, error) { return s.groupOwner(*r.Group), nil }) {
		s.handleGroup("POST /settings/ci_cd/"+pattern, delivery.Owner, h)
	}
}

func (s *Server) groupOwner(g delivery.Group) ciOwner {
	o := ciOwner{Kind: pipeline.OwnerGroup, ID: g.ID, Base: groupPath(g.FullPath, "settings", "ci_cd")}
	o.show = func(w http.ResponseWriter, r *Request, status int, v ciSettingsView) error {
		v.Owner, v.URL = o, s.ExternalURL
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
		return s.render(w, r, status, "ci_group", Page{Title: "CI/CD settings", Active: "settings-ci", Data: v})
	}
	return o
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
