package web

import (
	"net/http"

	"github.com/slipwayhq/slipway/internal/access"
)

// gpgKeysView lists a person's OpenPGP keys and adds one.
type gpgKeysView struct {
	Tab        string
	Keys       []access.GPGKey
	Key, Error string
}

func (s *Server) gpgKeysPage(w http.ResponseWriter, r *Request) error {
	return s.showGPGKeys(w, r, http.StatusOK, gpgKeysView{})
}

func (s *Server) showGPGKeys(w http.ResponseWriter, r *Request, status int, v gpgKeysView) error {
	var err error
	if v.Keys, _, err = s.Access.GPGKeys(r.Context(), r.Who.User.ID, listed, 0); err != nil {
		return err
	}
	v.Tab = "gpg"
	return s.render(w, r, status, "forge_gpgkeys", Page{Title: "GPG keys", Data: v})
}

func (s *Server) addGPGKey(w http.ResponseWriter, r *Request) error {
	v := gpgKeysView{Key: r.FormValue("key")}
	_, err := s.Access.AddGPGKey(r.Context(), r.Who, r.Who.User.ID, v.Key)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showGPGKeys(w, r, status, v)
	}
	return redirect(w, r, "/profile/gpg_keys", "The key is added.")
}

func (s *Server) deleteGPGKey(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	k, err := s.Access.GPGKey(r.Context(), id)
	if err != nil {
		return err
	}
	if k.UserID != r.Who.User.ID {
		return notFound()
	}
	if err := s.Access.DeleteGPGKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return redirect(w, r, "/profile/gpg_keys", "The key is deleted.")
}
