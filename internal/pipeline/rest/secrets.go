package rest

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// secrets serves the built-in secret store, which is not part of GitLab's API:
// values go in and never come out.
func (s *server) secrets(rt *api.Router) {
	s.secretRoutes(rt, "/projects/{project}/ci/secrets", maintainer, func(r *api.Request) (owner, error) {
		return owner{pipeline.OwnerProject, r.Project.ID}, nil
	})
	s.secretRoutes(rt, "/admin/ci/secrets", admin, func(*api.Request) (owner, error) { return owner{pipeline.OwnerInstance, 0}, nil })
	if s.groups != nil {
		s.secretRoutes(rt, "/groups/{group}/ci/secrets", api.Need{}, func(r *api.Request) (owner, error) {
			g, err := s.group(r, delivery.Owner) // as for GitLab's group variables
			return owner{pipeline.OwnerGroup, g.ID}, err
		})
	}
}

func (s *server) secretRoutes(rt *api.Router, path string, need api.Need, of func(*api.Request) (owner, error)) {
	rt.Handle("GET "+path, need, func(w http.ResponseWriter, r *api.Request) error {
		o, err := of(r)
		if err != nil {
			return err
		}
		list, err := s.Secrets(r.Context(), o.kind, o.id)
		if err != nil {
			return err
		}
		out := []object{}
		for _, x := range list {
			out = append(out, object{"id": x.ID, "path": x.Path, "field": x.Field, "updated_at": when(x.UpdatedAt)})
		}
		return api.WriteJSON(w, http.StatusOK, out)
	})
	rt.Handle("PUT "+path, need, func(w http.ResponseWriter, r *api.Request) error {
		o, err := of(r)
		if err != nil {
			return err
		}
		var in struct {
			Path  string `json:"path"`
			Field string `json:"field"`
			Value string `json:"value"`
		}
		if err := api.Decode(r, &in); err != nil {
			return err
		}
		if in.Field == "" {
			in.Field = "value"
		}
		if err := s.PutSecret(r.Context(), o.kind, o.id, in.Path, in.Field, in.Value); err != nil {
			return err
		}
		return noContent(w)
	})
	rt.Handle("DELETE "+path+"/{id}", need, func(w http.ResponseWriter, r *api.Request) error {
		o, err := of(r)
		if err != nil {
			return err
		}
		id, err := number(r, "id")
		if err != nil {
			return err
		}
		if err := s.DeleteSecret(r.Context(), o.kind, o.id, id); err != nil {
			return err
		}
		return noContent(w)
	})
}
