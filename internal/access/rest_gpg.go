package access

import (
	"net/http"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// gpgKeys registers the OpenPGP keys of accounts (doc/api/user_keys.md).
func (h *rest) gpgKeys(rt *api.Router) {
	read := api.Need{Scopes: []string{"read_user", "read_api"}}
	admin := api.Need{Admin: true}
	rt.Handle("GET /user/gpg_keys", read, h.listGPG(needUser))
	rt.Handle("POST /user/gpg_keys", api.Need{}, h.addGPG(needUser))
	rt.Handle("GET /user/gpg_keys/{key}", read, h.getGPG(needUser))
	rt.Handle("DELETE /user/gpg_keys/{key}", api.Need{}, h.deleteGPG(needUser))
	rt.Handle("GET /users/{id}/gpg_keys", read, h.listGPG(h.namedUser))
	rt.Handle("GET /users/{id}/gpg_keys/{key}", read, h.getGPG(h.namedUser))
	rt.Handle("POST /users/{id}/gpg_keys", admin, h.addGPG(h.namedUser))
	rt.Handle("DELETE /users/{id}/gpg_keys/{key}", admin, h.deleteGPG(h.namedUser))
}

// namedUser is the user of the address.
func (h *rest) namedUser(r *api.Request) (int64, error) {
	id, err := pathID(r, "id")
	if err == nil {
		_, err = h.s.User(r.Context(), id)
	}
	return id, err
}

type gpgJSON struct {
	ID        int64      `json:"id"`
	Key       string     `json:"key"`
	CreatedAt *time.Time `json:"created_at"`
}

func gpgShape(k GPGKey) gpgJSON { return gpgJSON{k.ID, k.Armored, optional(k.CreatedAt)} }

type userOf func(*api.Request) (int64, error)

func (h *rest) listGPG(of userOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		user, err := of(r)
		if err != nil {
			return err
		}
		p := api.PageOf(r.Request)
		list, total, err := h.s.GPGKeys(r.Context(), user, p.PerPage, p.Offset())
		if err != nil {
			return err
		}
		out := make([]gpgJSON, len(list))
		for i, k := range list {
			out[i] = gpgShape(k)
		}
		return api.List(w, r, p, total, out)
	}
}

func (h *rest) gpgOf(r *api.Request, of userOf) (GPGKey, error) {
	user, err := of(r)
	if err != nil {
		return GPGKey{}, err
	}
	id, err := pathID(r, "key")
	if err != nil {
		return GPGKey{}, err
	}
	k, err := h.s.GPGKey(r.Context(), id)
	if err == nil && k.UserID != user {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 GPG Key Not Found"}
	}
	return k, err
}

func (h *rest) getGPG(of userOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		k, err := h.gpgOf(r, of)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, gpgShape(k))
	}
}

func (h *rest) addGPG(of userOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		user, err := of(r)
		if err != nil {
			return err
		}
		var p struct {
			Key string `json:"key"`
		}
		if err := api.Decode(r, &p); err != nil {
			return err
		}
		k, err := h.s.AddGPGKey(r.Context(), r.Who, user, p.Key)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusCreated, gpgShape(k))
	}
}

func (h *rest) deleteGPG(of userOf) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		k, err := h.gpgOf(r, of)
		if err != nil {
			return err
		}
		if err := h.s.DeleteGPGKey(r.Context(), r.Who, k); err != nil {
			return err
		}
		return noContent(w)
	}
}
