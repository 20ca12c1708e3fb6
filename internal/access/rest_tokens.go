package access

import (
	"net/http"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

func (h *rest) tokens(rt *api.Router) {
	maintainer := api.Need{Role: delivery.Maintainer}
	rt.Handle("GET /personal_access_tokens", api.Need{}, h.listPersonal)
	rt.Handle("GET /personal_access_tokens/self", api.Need{Scopes: []string{"read_user", "read_api", "read_repository", "write_repository", "read_registry", "write_registry"}}, h.selfToken)
	rt.Handle("GET /personal_access_tokens/{id}", api.Need{}, h.getPersonal)
	rt.Handle("DELETE /personal_access_tokens/{id}", api.Need{}, h.revokePersonal)
	rt.Handle("DELETE /personal_access_tokens/self", api.Need{}, h.revokeSelf)
	rt.Handle("POST /personal_access_tokens/{id}/rotate", api.Need{}, h.rotatePersonal)
	rt.Handle("POST /users/{id}/personal_access_tokens", api.Need{Admin: true}, h.createForUser)
	rt.Handle("POST /user/personal_access_tokens", api.Need{}, h.createOwn)

	project := func(fn tokenHandler) api.Handler {
		return func(w http.ResponseWriter, r *api.Request) error {
			return fn(w, r, tokenOwner{project: &r.Project, projectID: r.Project.ID, role: r.Role, kind: delivery.ProjectToken})
		}
	}
	group := func(fn tokenHandler) api.Handler {
		return h.withGroup(delivery.Owner, func(w http.ResponseWriter, r *api.Request, g delivery.Group, role delivery.Role) error {
			return fn(w, r, tokenOwner{group: &g, groupID: g.ID, role: role, kind: delivery.GroupToken})
		})
	}
	for base, of := range map[string]struct {
		need api.Need
		with func(tokenHandler) api.Handler
	}{"/projects/{project}": {maintainer, project}, "/groups/{group}": {api.Need{}, group}} {
		rt.Handle("GET "+base+"/access_tokens", of.need, of.with(h.listOwned(false)))
		rt.Handle("GET "+base+"/access_tokens/{id}", of.need, of.with(h.getOwned(false)))
		rt.Handle("POST "+base+"/access_tokens", of.need, of.with(h.createAccessToken))
		rt.Handle("POST "+base+"/access_tokens/{id}/rotate", of.need, of.with(h.rotateOwned))
		rt.Handle("DELETE "+base+"/access_tokens/{id}", of.need, of.with(h.revokeOwned(false)))
		rt.Handle("GET "+base+"/deploy_tokens", of.need, of.with(h.listOwned(true)))
		rt.Handle("GET "+base+"/deploy_tokens/{id}", of.need, of.with(h.getOwned(true)))
		rt.Handle("POST "+base+"/deploy_tokens", of.need, of.with(h.createDeployToken))
		rt.Handle("DELETE "+base+"/deploy_tokens/{id}", of.need, of.with(h.revokeOwned(true)))
	}
	rt.Handle("GET /deploy_tokens", api.Need{Admin: true}, h.allDeployTokens)

	rt.Handle("GET /projects/{project}/deploy_keys", maintainer, h.listDeployKeys)
	rt.Handle("GET /projects/{project}/deploy_keys/{key}", maintainer, h.getDeployKey)
	rt.Handle("POST /projects/{project}/deploy_keys", maintainer, h.addDeployKey)
	rt.Handle("PUT /projects/{project}/deploy_keys/{key}", maintainer, h.updateDeployKey)
	rt.Handle("DELETE /projects/{project}/deploy_keys/{key}", maintainer, h.deleteDeployKey)

	rt.Handle("GET /projects/{project}/job_token_scope", maintainer, h.jobTokenScope)
	rt.Handle("PATCH /projects/{project}/job_token_scope", maintainer, h.setJobTokenScope)
	rt.Handle("GET /projects/{project}/job_token_scope/allowlist", maintainer, h.jobTokenAllowlist)
	rt.Handle("POST /projects/{project}/job_token_scope/allowlist", maintainer, h.allowJobToken)
	rt.Handle("DELETE /projects/{project}/job_token_scope/allowlist/{target}", maintainer, h.disallowJobToken)
}

// tokenOwner is the project or the group that a route's tokens belong to, with
// the caller's role in it.
type tokenOwner struct {
	project            *delivery.Project
	group              *delivery.Group
	projectID, groupID int64
	role               delivery.Role
	kind               delivery.IdentityKind // of its access tokens
}

type tokenHandler func(w http.ResponseWriter, r *api.Request, o tokenOwner) error

// kindOf is the kind of the owner's access or deploy tokens.
func (o tokenOwner) kindOf(deploy bool) delivery.IdentityKind {
	if deploy {
		return delivery.DeployToken
	}
	return o.kind
}

type tokenJSON struct {
	ID          int64      `json:"id"`
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Username    string     `json:"username,omitempty"`
	Revoked     bool       `json:"revoked"`
	Active      bool       `json:"active"`
	Expired     bool       `json:"expired"`
	CreatedAt   *time.Time `json:"created_at"`
	Scopes      []string   `json:"scopes"`
	UserID      int64      `json:"user_id,omitempty"`
	LastUsedAt  *time.Time `json:"last_used_at"`
	ExpiresAt   any        `json:"expires_at"`
	AccessLevel int        `json:"access_level,omitempty"`
	Token       string     `json:"token,omitempty"`
}

func (h *rest) token(t Token, secret string) tokenJSON {
	now := h.s.now()
	j := tokenJSON{ID: t.ID, Name: t.Name, Username: t.Username, Revoked: !t.RevokedAt.IsZero(), Active: t.Active(now), CreatedAt: optional(t.CreatedAt), Scopes: t.Scopes,
		UserID: t.UserID, LastUsedAt: optional(t.LastUsed), Token: secret}
	j.Expired = !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
	if t.Kind == delivery.ProjectToken || t.Kind == delivery.GroupToken {
		j.AccessLevel = int(t.Role)
	}
	if !t.ExpiresAt.IsZero() {
		if t.Kind == delivery.DeployToken {
			j.ExpiresAt = t.ExpiresAt
		} else {
			j.ExpiresAt = t.ExpiresAt.Format(time.DateOnly)
		}
	}
	return j
}

type tokenParams struct {
	Name        string   `json:"name"`
	Username    string   `json:"username"`
	Scopes      []string `json:"scopes"`
	ExpiresAt   string   `json:"expires_at"`
	AccessLevel int      `json:"access_level"`
}

func readToken(r *api.Request) (NewToken, error) {
	var p tokenParams
	if err := api.Decode(r, &p); err != nil {
		return NewToken{}, err
	}
	expires, err := expiresIn(p.ExpiresAt)
	return NewToken{Name: p.Name, Username: p.Username, Scopes: p.Scopes, Role: delivery.Role(p.AccessLevel), ExpiresAt: expires}, err
}

func isAdmin(r *api.Request) bool { return r.Who.User != nil && r.Who.User.Admin }

func (h *rest) listTokens(w http.ResponseWriter, r *api.Request, f TokenFilter) error {
	p := api.PageOf(r.Request)
	list, total, err := h.s.Tokens(r.Context(), f, p.PerPage, p.Offset())
	if err != nil {
		return err
	}
	out := []tokenJSON{}
	for _, t := range list {
		out = append(out, h.token(t, ""))
	}
	return api.List(w, r, p, total, out)
}

func (h *rest) listPersonal(w http.ResponseWriter, r *api.Request) error {
	id, err := needUser(r)
	if err != nil {
		return err
	}
	if isAdmin(r) {
		id = 0
		if q := r.URL.Query().Get("user_id"); q != "" {
			var p struct {
				UserID int64 `json:"user_id"`
			}
			if err := api.Decode(r, &p); err != nil {
				return err
			}
			id = p.UserID
		}
	}
	return h.listTokens(w, r, TokenFilter{Kind: delivery.PersonalToken, UserID: id})
}

func (h *rest) selfToken(w http.ResponseWriter, r *api.Request) error {
	if r.Who.Kind != delivery.PersonalToken && r.Who.Kind != delivery.ProjectToken && r.Who.Kind != delivery.GroupToken {
		return &delivery.Error{Kind: delivery.NotFound, Message: "404 Token Not Found"}
	}
	t, err := h.s.Token(r.Context(), r.Who.TokenID)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.token(t, ""))
}

// personal finds a personal token that the caller may handle.
func (h *rest) personal(r *api.Request) (Token, error) {
	user, err := needUser(r)
	if err != nil {
		return Token{}, err
	}
	id, err := pathID(r, "id")
	if err != nil {
		return Token{}, err
	}
	t, err := h.s.Token(r.Context(), id)
	if err == nil && (t.Kind != delivery.PersonalToken || t.UserID != user && !isAdmin(r)) {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Token Not Found"}
	}
	return t, err
}

func (h *rest) getPersonal(w http.ResponseWriter, r *api.Request) error {
	t, err := h.personal(r)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.token(t, ""))
}

func (h *rest) revokePersonal(w http.ResponseWriter, r *api.Request) error {
	t, err := h.personal(r)
	if err != nil {
		return err
	}
	if err := h.s.RevokeToken(r.Context(), r.Who, t); err != nil {
		return err
	}
	return noContent(w)
}

func (h *rest) revokeSelf(w http.ResponseWriter, r *api.Request) error {
	if r.Who.Kind != delivery.PersonalToken {
		return &delivery.Error{Kind: delivery.NotFound, Message: "404 Token Not Found"}
	}
	t, err := h.s.Token(r.Context(), r.Who.TokenID)
	if err != nil {
		return err
	}
	if err := h.s.RevokeToken(r.Context(), r.Who, t); err != nil {
		return err
	}
	return noContent(w)
}

func (h *rest) rotate(w http.ResponseWriter, r *api.Request, t Token) error {
	var p tokenParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	expires, err := expiresIn(p.ExpiresAt)
	if err != nil {
		return err
	}
	t, secret, err := h.s.RotateToken(r.Context(), r.Who, t, expires)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.token(t, secret))
}

func (h *rest) rotatePersonal(w http.ResponseWriter, r *api.Request) error {
	t, err := h.personal(r)
	if err != nil {
		return err
	}
	return h.rotate(w, r, t)
}

func (h *rest) createForUser(w http.ResponseWriter, r *api.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	if _, err := h.s.User(r.Context(), id); err != nil {
		return err
	}
	return h.createPersonal(w, r, id)
}

// createOwn makes a token of the caller. A token with fewer rights than
// everything cannot make one with more.
func (h *rest) createOwn(w http.ResponseWriter, r *api.Request) error {
	id, err := needUser(r)
	if err != nil {
		return err
	}
	if r.Who.Kind == delivery.JobToken || r.Who.User.Bot {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	return h.createPersonal(w, r, id)
}

func (h *rest) createPersonal(w http.ResponseWriter, r *api.Request, userID int64) error {
	n, err := readToken(r)
	if err != nil {
		return err
	}
	t, secret, err := h.s.CreatePersonalToken(r.Context(), r.Who, userID, n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.token(t, secret))
}

func (h *rest) allDeployTokens(w http.ResponseWriter, r *api.Request) error {
	return h.listTokens(w, r, TokenFilter{Kind: delivery.DeployToken})
}

func (h *rest) listOwned(deploy bool) tokenHandler {
	return func(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
		return h.listTokens(w, r, TokenFilter{Kind: o.kindOf(deploy), ProjectID: o.projectID, GroupID: o.groupID})
	}
}

// ownedToken finds the token that the address names among the owner's.
func (h *rest) ownedToken(r *api.Request, o tokenOwner, deploy bool) (Token, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return Token{}, err
	}
	t, err := h.s.Token(r.Context(), id)
	if err == nil && (t.Kind != o.kindOf(deploy) || t.ProjectID != o.projectID || t.GroupID != o.groupID) {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Token Not Found"}
	}
	return t, err
}

func (h *rest) getOwned(deploy bool) tokenHandler {
	return func(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
		t, err := h.ownedToken(r, o, deploy)
		if err != nil {
			return err
		}
		return api.WriteJSON(w, http.StatusOK, h.token(t, ""))
	}
}

// mayHandle refuses tokens whose role is above the caller's own.
func (o tokenOwner) mayHandle(t Token) error {
	if t.Kind != delivery.DeployToken && t.Role > o.role {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden - the token's role is above your own"}
	}
	return nil
}

func (h *rest) revokeOwned(deploy bool) tokenHandler {
	return func(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
		t, err := h.ownedToken(r, o, deploy)
		if err != nil {
			return err
		}
		if err := o.mayHandle(t); err != nil {
			return err
		}
		if err := h.s.RevokeToken(r.Context(), r.Who, t); err != nil {
			return err
		}
		return noContent(w)
	}
}

func (h *rest) rotateOwned(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
	t, err := h.ownedToken(r, o, false)
	if err != nil {
		return err
	}
	if err := o.mayHandle(t); err != nil {
		return err
	}
	return h.rotate(w, r, t)
}

func (h *rest) createAccessToken(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
	n, err := readToken(r)
	if err != nil {
		return err
	}
	var t Token
	var secret string
	if o.group != nil {
		t, secret, err = h.s.CreateGroupToken(r.Context(), r.Who, *o.group, o.role, n)
	} else {
		t, secret, err = h.s.CreateProjectToken(r.Context(), r.Who, *o.project, o.role, n)
	}
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.token(t, secret))
}

func (h *rest) createDeployToken(w http.ResponseWriter, r *api.Request, o tokenOwner) error {
	n, err := readToken(r)
	if err != nil {
		return err
	}
	t, secret, err := h.s.CreateDeployToken(r.Context(), r.Who, o.projectID, o.groupID, n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.token(t, secret))
}
