package access

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

type deployKeyJSON struct {
	keyJSON
	CanPush bool `json:"can_push"`
}

func (h *rest) listDeployKeys(w http.ResponseWriter, r *api.Request) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Keys(r.Context(), 0, r.Project.ID, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := []deployKeyJSON{}
	for _, k := range list {
		out = append(out, deployKeyJSON{keyShape(k), k.CanPush})
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) deployKey(r *api.Request) (Key, error) {
	id, err := pathID(r, "key")
	if err != nil {
		return Key{}, err
	}
	k, err := h.s.Key(r.Context(), id)
	if err == nil && k.ProjectID != r.Project.ID {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Deploy Key Not Found"}
	}
	return k, err
}

func (h *rest) getDeployKey(w http.ResponseWriter, r *api.Request) error {
	k, err := h.deployKey(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, deployKeyJSON{keyShape(k), k.CanPush})
}

type deployKeyParams struct {
	Title   *string `json:"title"`
	Key     string  `json:"key"`
	CanPush *bool   `json:"can_push"`
	Expires string  `json:"expires_at"`
}

func (h *rest) addDeployKey(w http.ResponseWriter, r *api.Request) error {
	var p deployKeyParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	expires, err := expiresIn(p.Expires)
	if err != nil {
		return err
	}
	k, err := h.s.AddKey(r.Context(), r.Who, Key{ProjectID: r.Project.ID, Title: deref(p.Title), PublicKey: p.Key, CanPush: deref(p.CanPush), ExpiresAt: expires})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, deployKeyJSON{keyShape(k), k.CanPush})
}

func (h *rest) updateDeployKey(w http.ResponseWriter, r *api.Request) error {
	k, err := h.deployKey(r)
	if err != nil {
		return err
	}
	var p deployKeyParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Title != nil {
		k.Title = *p.Title
	}
	if p.CanPush != nil {
		k.CanPush = *p.CanPush
	}
	if err := h.s.UpdateKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, deployKeyJSON{keyShape(k), k.CanPush})
}

func (h *rest) deleteDeployKey(w http.ResponseWriter, r *api.Request) error {
	k, err := h.deployKey(r)
	if err != nil {
		return err
	}
	if err := h.s.DeleteKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return noContent(w)
}
