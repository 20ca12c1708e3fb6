package release

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Register adds the routes of the timeline to the API:
//
//	GET  /projects/:id/release_timeline
//	GET  /projects/:id/release_timeline/:sha
//	POST /projects/:id/release_timeline/:sha/:environment/:action
//	GET  /projects/:id/release_settings
//	PUT  /projects/:id/release_settings: auto_revert
//
// Who may read the repository may read the timeline; canRead says so.
func (s *Service) Register(rt *api.Router, canRead func(delivery.Project, delivery.Role) bool) {
	reader := api.Need{Role: delivery.Guest}
	rt.Handle("GET /projects/{project}/release_timeline", reader, func(w http.ResponseWriter, r *api.Request) error {
		if !canRead(r.Project, r.Role) {
			return delivery.Errorf(delivery.Forbidden, "403 Forbidden")
		}
		o, err := s.Overview(r.Context(), r.Project, Shown)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, o)
	})
	rt.Handle("GET /projects/{project}/release_timeline/{sha}", reader, func(w http.ResponseWriter, r *api.Request) error {
		if !canRead(r.Project, r.Role) {
			return delivery.Errorf(delivery.Forbidden, "403 Forbidden")
		}
		one, err := s.Release(r.Context(), r.Project, r.PathValue("sha"))
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, one)
	})
	rt.Handle("POST /projects/{project}/release_timeline/{sha}/{environment}/{action}", api.Need{Role: delivery.Developer}, func(w http.ResponseWriter, r *api.Request) error {
		message, err := s.Act(r.Context(), r.Who, r.Project, r.PathValue("sha"), r.PathValue("environment"), r.PathValue("action"))
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, map[string]string{"message": message})
	})
	rt.Handle("GET /projects/{project}/release_settings", api.Need{Role: delivery.Maintainer}, func(w http.ResponseWriter, r *api.Request) error {
		return s.writeSettings(w, r)
	})
	rt.Handle("PUT /projects/{project}/release_settings", api.Need{Role: delivery.Maintainer}, func(w http.ResponseWriter, r *api.Request) error {
		var p struct {
			AutoRevert *bool `json:"auto_revert"`
		}
		if err := api.Decode(r, &p); err != nil {
			return err
		}
		if p.AutoRevert != nil {
			if err := s.SetAutoRevert(r.Context(), r.Who, r.Project, *p.AutoRevert); err != nil {
				return err
			}
		}
		return s.writeSettings(w, r)
	})
}

func (s *Service) writeSettings(w http.ResponseWriter, r *api.Request) error {
	v, err := s.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, v)
}
