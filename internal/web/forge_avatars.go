package web

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

const maxAvatarForm = 1 << 20 // bytes of a form with a picture

func (s *Server) avatarRoutes() {
	s.handle("GET /uploads/-/system/{kind}/avatar/{id}/{file}", s.avatar)
	s.handleOwn("POST /profile/avatar", s.setOwnAvatar)
	s.handleProject("POST /settings/avatar", delivery.Maintainer, s.setProjectAvatar)
	s.handleGroup("POST /edit/avatar", delivery.Owner, s.setGroupAvatar)
}

// avatar sends a picture. Those of projects and groups are there for who may
// know of them; others get the answer for one that does not exist.
func (s *Server) avatar(w http.ResponseWriter, r *Request) error {
	id, err := number(r, "id")
	if err != nil {
		return err
	}
	kind, ctx := access.AvatarKind(r.PathValue("kind")), r.Context()
	switch kind {
	case access.UserAvatar:
	case access.ProjectAvatar:
		_, _, err = s.Access.VisibleProject(ctx, r.Who, strconv.FormatInt(id, 10))
	case access.GroupAvatar:
		_, _, err = s.Access.VisibleGroup(ctx, r.Who, strconv.FormatInt(id, 10))
	default:
		err = notFound()
	}
	if err == nil {
		err = s.Access.ServeAvatar(w, r.Request, kind, id)
	}
	if delivery.IsNotFound(err) {
		return notFound()
	}
	return err
}

// storeAvatar reads the form and stores or removes a picture, and leads back.
func (s *Server) storeAvatar(w http.ResponseWriter, r *Request, kind access.AvatarKind, id int64, back string) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxAvatarForm)
	if err := parsed(r.ParseMultipartForm(maxAvatarForm)); err != nil {
		return err
	}
	defer func() { _ = r.MultipartForm.RemoveAll() }()
	if r.FormValue("remove") != "" {
		if err := s.Access.SetAvatar(r.Context(), r.Who, kind, id, nil); err != nil {
			return err
		}
		return redirect(w, r, back, "The picture is removed.")
	}
	if len(r.MultipartForm.File["avatar"]) == 0 {
		return redirect(w, r, back, "Choose a picture first.")
	}
	message, _, err := correctable(s.Access.FormAvatar(r.Context(), r.Who, kind, id, r.Request))
	if err != nil {
		return err
	}
	if message == "" {
		message = "The picture is stored."
	}
	return redirect(w, r, back, message)
}

func (s *Server) setOwnAvatar(w http.ResponseWriter, r *Request) error {
	return s.storeAvatar(w, r, access.UserAvatar, r.Who.User.ID, "/profile")
}

func (s *Server) setProjectAvatar(w http.ResponseWriter, r *Request) error {
	return s.storeAvatar(w, r, access.ProjectAvatar, r.Project.ID, projectPath(r.Project.FullPath, "settings"))
}

func (s *Server) setGroupAvatar(w http.ResponseWriter, r *Request) error {
	return s.storeAvatar(w, r, access.GroupAvatar, r.Group.ID, groupPath(r.Group.FullPath, "edit"))
}

// avatarPath is the address of a picture, for templates.
func (s *Server) avatarPath(kind string, id int64) string {
	if s.Access == nil {
		return ""
	}
	return s.Access.AvatarPath(access.AvatarKind(kind), id)
}
