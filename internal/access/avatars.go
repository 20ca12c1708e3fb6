package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	_ "image/gif"  // what avatars may be
	_ "image/jpeg" // what avatars may be
	_ "image/png"  // what avatars may be
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// AvatarKind tells whose picture it is.
type AvatarKind string

// The kinds of owners, with the words of GitLab's addresses.
const (
	UserAvatar    AvatarKind = "user"
	GroupAvatar   AvatarKind = "group"
	ProjectAvatar AvatarKind = "project"
)

// Avatar is a picture of a user, a group or a project.
type Avatar struct {
	MediaType string
	Digest    string
	Body      []byte
}

type avatarKey struct {
	kind AvatarKind
	id   int64
}

type avatarStore interface {
	// SetAvatar stores a picture; one without a body removes it.
	SetAvatar(ctx context.Context, kind AvatarKind, id int64, a Avatar) error
	Avatar(ctx context.Context, kind AvatarKind, id int64) (Avatar, error)
	// AvatarDigests lists what has a picture.
	AvatarDigests(ctx context.Context, fn func(kind AvatarKind, id int64, digest string)) error
}

// avatars remembers what has a picture, so that pages need not ask for each row.
type avatars struct {
	once   sync.Once
	mu     sync.RWMutex
	digest map[avatarKey]string
}

const (
	maxAvatar     = 200 << 10 // bytes, as GitLab
	maxAvatarSide = 4096      // pixels
)

// AvatarPath is the address of a picture below the platform's; empty where
// there is none.
func (s *Service) AvatarPath(kind AvatarKind, id int64) string {
	a := &s.avatars
	a.once.Do(func() {
		found := map[avatarKey]string{}
		err := s.store.AvatarDigests(context.Background(), func(kind AvatarKind, id int64, digest string) { found[avatarKey{kind, id}] = digest })
		if err != nil {
			s.log.Error("avatars not read", "err", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for k, v := range found {
			if _, ok := a.digest[k]; !ok {
				a.digest[k] = v
			}
		}
	})
	a.mu.RLock()
	defer a.mu.RUnlock()
	digest := a.digest[avatarKey{kind, id}]
	if digest == "" {
		return ""
	}
	return fmt.Sprintf("/uploads/-/system/%s/avatar/%d/avatar?v=%s", kind, id, digest[:12])
}

// Avatar returns a picture. The caller has checked that its owner may be seen.
func (s *Service) Avatar(ctx context.Context, kind AvatarKind, id int64) (Avatar, error) {
	return s.store.Avatar(ctx, kind, id)
}

// SetAvatar stores a picture: PNG, JPEG or GIF of at most 200 KiB and 4096
// pixels to a side. A nil reader removes it. The caller has checked the right
// to.
func (s *Service) SetAvatar(ctx context.Context, who delivery.Identity, kind AvatarKind, id int64, r io.Reader) error {
	var a Avatar
	if r != nil {
		body, err := io.ReadAll(io.LimitReader(r, maxAvatar+1))
		if err != nil {
			return invalid("avatar", "could not be read")
		}
		if len(body) > maxAvatar {
			return invalid("avatar", "is too big (should be at most 200 KiB)")
		}
		c, format, err := image.DecodeConfig(bytes.NewReader(body))
		if err != nil {
			return invalid("avatar", "is not a PNG, JPEG or GIF picture")
		}
		if c.Width > maxAvatarSide || c.Height > maxAvatarSide || c.Width < 1 || c.Height < 1 {
			return invalid("avatar", "is too large (at most 4096 pixels to a side)")
		}
		sum := sha256.Sum256(body)
		a = Avatar{MediaType: "image/" + format, Digest: hex.EncodeToString(sum[:]), Body: body}
	}
	if err := s.store.SetAvatar(ctx, kind, id, a); err != nil {
		return err
	}
	s.avatars.mu.Lock()
	s.avatars.digest[avatarKey{kind, id}] = a.Digest
	s.avatars.mu.Unlock()
	s.audit(ctx, who, "avatar.set", string(kind), id, "", a.MediaType)
	return nil
}

// FormAvatar stores the picture of a form's field "avatar", if there is one; an
// empty text removes it, as in GitLab's API.
func (s *Service) FormAvatar(ctx context.Context, who delivery.Identity, kind AvatarKind, id int64, r *http.Request) error {
	if r.MultipartForm == nil {
		return nil
	}
	if files := r.MultipartForm.File["avatar"]; len(files) > 0 {
		f, err := files[0].Open()
		if err != nil {
			return invalid("avatar", "could not be read")
		}
		defer f.Close()
		return s.SetAvatar(ctx, who, kind, id, f)
	}
	if texts, ok := r.MultipartForm.Value["avatar"]; ok && len(texts) > 0 && texts[0] == "" {
		return s.SetAvatar(ctx, who, kind, id, nil)
	}
	return nil
}

// ServeAvatar sends a picture. The caller has checked that its owner may be
// seen.
func (s *Service) ServeAvatar(w http.ResponseWriter, r *http.Request, kind AvatarKind, id int64) error {
	a, err := s.Avatar(r.Context(), kind, id)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", a.MediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cache-Control", "private, max-age=3600")
	h.Set("ETag", `"`+a.Digest[:32]+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.Body))
	return nil
}

func (h *rest) setOwnAvatar(w http.ResponseWriter, r *api.Request) error {
	id, err := needUser(r)
	if err != nil {
		return err
	}
	var none struct{}
	if err := api.Decode(r, &none); err != nil {
		return err
	}
	if r.MultipartForm == nil || len(r.MultipartForm.File["avatar"]) == 0 {
		return delivery.Errorf(delivery.Invalid, "avatar is missing")
	}
	if err := h.s.FormAvatar(r.Context(), r.Who, UserAvatar, id, r.Request); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"avatar_url": h.avatar(UserAvatar, id)})
}

func (h *rest) groupAvatar(w http.ResponseWriter, r *api.Request, g delivery.Group, _ delivery.Role) error {
	return h.s.ServeAvatar(w, r.Request, GroupAvatar, g.ID)
}

// AvatarPathOf is AvatarPath for a kind given as a word.
func (s *Service) AvatarPathOf(kind string, id int64) string {
	return s.AvatarPath(AvatarKind(kind), id)
}

// StoreProjectAvatar is FormAvatar for a project.
func (s *Service) StoreProjectAvatar(ctx context.Context, who delivery.Identity, projectID int64, r *http.Request) error {
	return s.FormAvatar(ctx, who, ProjectAvatar, projectID, r)
}

// ServeProjectAvatar is ServeAvatar for a project.
func (s *Service) ServeProjectAvatar(w http.ResponseWriter, r *http.Request, projectID int64) error {
	return s.ServeAvatar(w, r, ProjectAvatar, projectID)
}
