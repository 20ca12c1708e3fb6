package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// repositoryRoutes registers the deploy keys and the mirrors of projects.
func (s *Server) repositoryRoutes() {
	maintainer := delivery.Maintainer
	s.handleProject("GET /settings/deploy_keys", maintainer, s.deployKeysPage)
	s.handleProject("POST /settings/deploy_keys", maintainer, s.addDeployKey)
	s.handleProject("POST /settings/deploy_keys/{id}", maintainer, s.changeDeployKey)
	s.handleProject("POST /settings/deploy_keys/{id}/delete", maintainer, s.deleteDeployKey)
	s.handleProject("GET /settings/mirrors", maintainer, s.mirrorsPage)
	s.handleProject("POST /settings/mirrors", maintainer, s.addMirror)
	s.handleProject("POST /settings/mirrors/{id}", maintainer, s.changeMirror)
	s.handleProject("POST /settings/mirrors/{id}/sync", maintainer, s.syncMirror)
	s.handleProject("POST /settings/mirrors/{id}/delete", maintainer, s.deleteMirror)
}

// deployKeysView lists the keys of machines that read, or also write, the
// repository, and adds one.
type deployKeysView struct {
	Tab            string
	Keys           []access.Key
	Title, Key     string
	CanPush        bool
	Expires, Error string
	Base, Tomorrow string
}

func (s *Server) deployKeysPage(w http.ResponseWriter, r *Request) error {
	return s.showDeployKeys(w, r, http.StatusOK, deployKeysView{})
}

func deployKeysPath(r *Request) string {
	return projectPath(r.Project.FullPath, "settings", "deploy_keys")
}

func (s *Server) showDeployKeys(w http.ResponseWriter, r *Request, status int, v deployKeysView) error {
	var err error
	if v.Keys, _, err = s.Access.Keys(r.Context(), 0, r.Project.ID, listed, 0); err != nil {
		return err
	}
	v.Tab, v.Base, v.Tomorrow = "keys", deployKeysPath(r), tomorrow()
	return s.render(w, r, status, "forge_deploykeys", Page{Title: "Deploy keys", Active: "settings-repository", Data: v})
}

func (s *Server) addDeployKey(w http.ResponseWriter, r *Request) error {
	v := deployKeysView{Title: strings.TrimSpace(r.FormValue("title")), Key: r.FormValue("key"), CanPush: r.FormValue("can_push") != "", Expires: r.FormValue("expires_at")}
	expires, err := dayOf(v.Expires)
	if err == nil {
		_, err = s.Access.AddKey(r.Context(), r.Who, access.Key{ProjectID: r.Project.ID, Title: v.Title, PublicKey: v.Key, CanPush: v.CanPush, ExpiresAt: expires})
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showDeployKeys(w, r, status, v)
	}
	return redirect(w, r, deployKeysPath(r), "The deploy key is added.")
}

func (s *Server) deployKeyOf(r *Request) (access.Key, error) {
	id, err := number(r, "id")
	if err != nil {
		return access.Key{}, err
	}
	k, err := s.Access.Key(r.Context(), id)
	if err == nil && k.ProjectID != r.Project.ID {
		err = notFound()
	}
	return k, err
}

func (s *Server) changeDeployKey(w http.ResponseWriter, r *Request) error {
	k, err := s.deployKeyOf(r)
	if err != nil {
		return err
	}
	k.Title, k.CanPush = strings.TrimSpace(r.FormValue("title")), r.FormValue("can_push") != ""
	message, status, err := correctable(s.Access.UpdateKey(r.Context(), r.Who, k))
	if err != nil {
		return err
	}
	if message != "" {
		return s.showDeployKeys(w, r, status, deployKeysView{Error: message})
	}
	return redirect(w, r, deployKeysPath(r), "The deploy key "+k.Title+" is changed.")
}

func (s *Server) deleteDeployKey(w http.ResponseWriter, r *Request) error {
	k, err := s.deployKeyOf(r)
	if err != nil {
		return err
	}
	if err := s.Access.DeleteKey(r.Context(), r.Who, k); err != nil {
		return err
	}
	return redirect(w, r, deployKeysPath(r), "The deploy key is deleted.")
}

// mirrorsView lists where the repository is copied from and to, and adds a
// mirror.
type mirrorsView struct {
	Tab     string
	Mirrors []forge.Mirror
	New     forge.Mirror
	Minutes int
	HasPull bool
	Busy    bool // one is being updated: the page stays fresh
	Error   string
	Base    string
	Live    string
}

func mirrorsPath(r *Request) string { return projectPath(r.Project.FullPath, "settings", "mirrors") }

func (s *Server) mirrorsPage(w http.ResponseWriter, r *Request) error {
	if r.Header.Get("X-Fragment") != "" {
		v, err := s.fillMirrors(r, mirrorsView{})
		if err != nil {
			return err
		}
		return s.fragment(w, "forge_mirrors", "mirror-table", v)
	}
	return s.showMirrors(w, r, http.StatusOK, mirrorsView{New: forge.Mirror{Enabled: true}, Minutes: 30})
}

func (s *Server) fillMirrors(r *Request, v mirrorsView) (mirrorsView, error) {
	var err error
	if v.Mirrors, err = s.Forge.Mirrors(r.Context(), r.Project.ID); err != nil {
		return v, err
	}
	for _, m := range v.Mirrors {
		v.HasPull = v.HasPull || !m.Push
		v.Busy = v.Busy || m.Status == "started" || m.Status == "scheduled"
	}
	v.Tab, v.Base = "mirrors", mirrorsPath(r)
	return v, nil
}

func (s *Server) showMirrors(w http.ResponseWriter, r *Request, status int, v mirrorsView) error {
	v, err := s.fillMirrors(r, v)
	if err != nil {
		return err
	}
	return s.render(w, r, status, "forge_mirrors", Page{Title: "Mirrors", Active: "settings-repository", Data: v})
}

// typedMirror reads the form over a mirror; an empty password keeps the present
// one.
func typedMirror(r *Request, m forge.Mirror) (forge.Mirror, error) {
	m.URL, m.Username = strings.TrimSpace(r.FormValue("url")), strings.TrimSpace(r.FormValue("username"))
	if password := r.FormValue("password"); password != "" {
		m.Password = password
	}
	if r.FormValue("no_password") != "" {
		m.Password = ""
	}
	m.Enabled, m.OnlyProtected = r.FormValue("enabled") != "", r.FormValue("only_protected") != ""
	minutes, err := strconv.Atoi(strings.TrimSpace(r.FormValue("minutes")))
	if err != nil || minutes < 1 || minutes > 60*24*31 {
		return m, &delivery.Error{Kind: delivery.Invalid, Message: "A mirror is updated every 1 to 44640 minutes."}
	}
	m.Interval = time.Duration(minutes) * time.Minute
	return m, nil
}

func (s *Server) addMirror(w http.ResponseWriter, r *Request) error {
	m, err := typedMirror(r, forge.Mirror{ProjectID: r.Project.ID, Push: r.FormValue("direction") == "push"})
	m.Enabled = true
	if err == nil && !m.Push {
		var list []forge.Mirror
		list, err = s.Forge.Mirrors(r.Context(), r.Project.ID)
		for _, other := range list {
			if !other.Push {
				err = &delivery.Error{Kind: delivery.Conflict, Message: "The project has a pull mirror already. Change or delete that one."}
			}
		}
	}
	if err == nil {
		_, err = s.Forge.SetMirror(r.Context(), r.Who, m)
	}
	return s.mirrorDone(w, r, err, mirrorsView{New: m, Minutes: int(m.Interval / time.Minute)}, "The mirror is added and is being updated.")
}

// mirrorDone leads back to the mirrors, or shows what was wrong with a form.
func (s *Server) mirrorDone(w http.ResponseWriter, r *Request, err error, v mirrorsView, notice string) error {
	if delivery.KindOf(err) == delivery.Forbidden {
		err = &delivery.Error{Kind: delivery.Invalid, Message: delivery.UserMessage(err), Err: err}
	}
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showMirrors(w, r, status, v)
	}
	return redirect(w, r, mirrorsPath(r), notice)
}

func (s *Server) mirrorOf(r *Request) (forge.Mirror, error) {
	id, err := number(r, "id")
	if err != nil {
		return forge.Mirror{}, err
	}
	list, err := s.Forge.Mirrors(r.Context(), r.Project.ID)
	if err != nil {
		return forge.Mirror{}, err
	}
	for _, m := range list {
		if m.ID == id {
			return m, nil
		}
	}
	return forge.Mirror{}, notFound()
}

func (s *Server) changeMirror(w http.ResponseWriter, r *Request) error {
	old, err := s.mirrorOf(r)
	if err != nil {
		return err
	}
	m, err := typedMirror(r, old)
	if err == nil {
		_, err = s.Forge.SetMirror(r.Context(), r.Who, m)
	}
	return s.mirrorDone(w, r, err, mirrorsView{New: forge.Mirror{Enabled: true}, Minutes: 30}, "The mirror is stored.")
}

func (s *Server) syncMirror(w http.ResponseWriter, r *Request) error {
	m, err := s.mirrorOf(r)
	if err == nil {
		err = s.Forge.SyncMirror(r.Context(), m)
	}
	return s.mirrorDone(w, r, err, mirrorsView{New: forge.Mirror{Enabled: true}, Minutes: 30}, "The mirror is being updated.")
}

func (s *Server) deleteMirror(w http.ResponseWriter, r *Request) error {
	m, err := s.mirrorOf(r)
	if err != nil {
		return err
	}
	if err := s.Forge.DeleteMirror(r.Context(), r.Who, r.Project.ID, m.ID); err != nil {
		return err
	}
	return redirect(w, r, mirrorsPath(r), "The mirror is deleted. Nothing on the other server has changed.")
}
