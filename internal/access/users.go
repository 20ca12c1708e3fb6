package access

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// NewUser describes an account to be made.
type NewUser struct {
	Username string
	Name     string // empty: the user name
	Email    string
	Password string // empty: none, until an administrator sets one
	Admin    bool
	Bot      bool
}

// CreateUser makes an account with its own namespace.
func (s *Service) CreateUser(ctx context.Context, who delivery.Identity, n NewUser) (delivery.User, error) {
	if n.Name == "" {
		n.Name = n.Username
	}
	if err := CheckPath(n.Username, true); err != nil {
		return delivery.User{}, err
	}
	if err := checkName(n.Name); err != nil {
		return delivery.User{}, err
	}
	if err := checkEmail(n.Email); err != nil {
		return delivery.User{}, err
	}
	a := Account{User: delivery.User{Username: n.Username, Name: n.Name, Email: n.Email, Admin: n.Admin, Bot: n.Bot, CreatedAt: s.now()}}
	if n.Password != "" {
		if err := checkPassword(n.Password); err != nil {
			return delivery.User{}, err
		}
		hash, err := hashPassword(ctx, n.Password)
		if err != nil {
			return delivery.User{}, err
		}
		a.PasswordHash = hash
	}
	a, err := s.store.CreateUser(ctx, a)
	if err != nil {
		return delivery.User{}, err
	}
	s.audit(ctx, who, "user.created", "user", a.ID, a.Username, "")
	return a.User, nil
}

// UserChange changes an account; nil fields stay as they are.
type UserChange struct {
	Name     *string
	Email    *string
	Username *string
	Password *string
	Admin    *bool
	Blocked  *bool
}

// UpdateUser changes an account. A new password or a block ends the account's
// sessions.
func (s *Service) UpdateUser(ctx context.Context, who delivery.Identity, id int64, c UserChange) (delivery.User, error) {
	a, err := s.store.UserByID(ctx, id)
	if err != nil {
		return delivery.User{}, err
	}
	var what []string
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return delivery.User{}, err
		}
		a.Name = *c.Name
		what = append(what, "name")
	}
	if c.Email != nil {
		if err := checkEmail(*c.Email); err != nil {
			return delivery.User{}, err
		}
		a.Email = *c.Email
		what = append(what, "email")
	}
	if c.Username != nil && *c.Username != a.Username {
		if err := CheckPath(*c.Username, true); err != nil {
			return delivery.User{}, err
		}
		ns, _, err := s.store.NamespaceByPath(ctx, a.Username)
		if err != nil {
			return delivery.User{}, err
		}
		if err := s.checkMove(ctx, ns.ID); err != nil {
			return delivery.User{}, err
		}
		a.Username = *c.Username
		what = append(what, "username")
	}
	if c.Admin != nil && *c.Admin != a.Admin {
		if !*c.Admin && who.User != nil && who.User.ID == id {
			return delivery.User{}, delivery.Errorf(delivery.Forbidden, "Administrators cannot take their own rights away.")
		}
		a.Admin = *c.Admin
		what = append(what, "admin")
	}
	end := false
	if c.Blocked != nil && *c.Blocked != a.Blocked {
		if *c.Blocked && who.User != nil && who.User.ID == id {
			return delivery.User{}, delivery.Errorf(delivery.Forbidden, "Nobody can block their own account.")
		}
		a.Blocked = *c.Blocked
		what = append(what, "blocked")
		end = a.Blocked
	}
	if c.Password != nil {
		if err := checkPassword(*c.Password); err != nil {
			return delivery.User{}, err
		}
		if a.PasswordHash, err = hashPassword(ctx, *c.Password); err != nil {
			return delivery.User{}, err
		}
		what = append(what, "password")
		end = true
	}
	if len(what) == 0 {
		return a.User, nil
	}
	if err := s.store.UpdateUser(ctx, a); err != nil {
		return delivery.User{}, err
	}
	if end {
		if err := s.store.DeleteSessions(ctx, id, 0, 0); err != nil {
			return delivery.User{}, err
		}
	}
	s.audit(ctx, who, "user.updated", "user", id, a.Username, strings.Join(what, ","))
	return a.User, nil
}

// ChangePassword changes the caller's own password after checking the present
// one, and ends all sessions but keep.
func (s *Service) ChangePassword(ctx context.Context, who delivery.Identity, current, next string, keep int64) error {
	if who.User == nil {
		return ErrWrongCredentials
	}
	a, err := s.store.UserByID(ctx, who.User.ID)
	if err != nil {
		return err
	}
	ok, err := verifyPassword(ctx, a.PasswordHash, current)
	if err != nil {
		return err
	}
	if !ok {
		return invalid("current_password", "is wrong")
	}
	if err := checkPassword(next); err != nil {
		return err
	}
	if a.PasswordHash, err = hashPassword(ctx, next); err != nil {
		return err
	}
	if err := s.store.UpdateUser(ctx, a); err != nil {
		return err
	}
	s.audit(ctx, who, "user.updated", "user", a.ID, a.Username, "password")
	return s.store.DeleteSessions(ctx, a.ID, 0, keep)
}

// DeleteUser deletes an account that owns no projects.
func (s *Service) DeleteUser(ctx context.Context, who delivery.Identity, id int64) error {
	a, err := s.store.UserByID(ctx, id)
	if err != nil {
		return err
	}
	if who.User != nil && who.User.ID == id {
		return delivery.Errorf(delivery.Forbidden, "Nobody can delete their own account here.")
	}
	if err := s.store.DeleteUser(ctx, id); err != nil {
		return err
	}
	s.audit(ctx, who, "user.deleted", "user", id, a.Username, "")
	return nil
}

// User returns a user by id.
func (s *Service) User(ctx context.Context, id int64) (delivery.User, error) {
	a, err := s.store.UserByID(ctx, id)
	return a.User, err
}

// Account returns an account by id, for its owner and administrators.
func (s *Service) Account(ctx context.Context, id int64) (Account, error) {
	return s.store.UserByID(ctx, id)
}

// UserByName returns a user by user name or e-mail address.
func (s *Service) UserByName(ctx context.Context, login string) (delivery.User, error) {
	a, err := s.store.UserByLogin(ctx, login)
	return a.User, err
}

// Users lists accounts by id.
func (s *Service) Users(ctx context.Context, f UserFilter, limit, offset int) ([]Account, int, error) {
	return s.store.Users(ctx, f, limit, offset)
}

// AuditEvents lists newest first.
func (s *Service) AuditEvents(ctx context.Context, f AuditFilter, limit, offset int) ([]AuditEvent, int, error) {
	return s.store.AuditEvents(ctx, f, limit, offset)
}

// EnsureAdministrator creates the account root with a generated password when
// there is no account yet, and returns that password; otherwise it returns "".
func (s *Service) EnsureAdministrator(ctx context.Context) (string, error) {
	_, total, err := s.store.Users(ctx, UserFilter{Bots: true}, 1, 0)
	if err != nil || total > 0 {
		return "", err
	}
	password := rand.Text()[:20]
	_, err = s.CreateUser(ctx, delivery.Identity{Kind: delivery.SystemActor, Name: "system"}, NewUser{
		Username: "root", Name: "Administrator", Email: "root@localhost.localdomain", Password: password, Admin: true})
	if err != nil {
		return "", err
	}
	return password, nil
}

// RenewAdminToken makes a fresh token of the administrator for the commands on
// this host, and revokes the earlier one of that name. The caller writes it to
// a file that only its owner can read.
func (s *Service) RenewAdminToken(ctx context.Context, name string) (string, error) {
	yes := false
	admins, _, err := s.store.Users(ctx, UserFilter{Blocked: &yes}, 0, 0)
	if err != nil {
		return "", err
	}
	var admin *Account
	for i := range admins {
		if admins[i].Admin && !admins[i].Bot {
			admin = &admins[i]
			break
		}
	}
	if admin == nil {
		return "", delivery.Errorf(delivery.Stalled, "There is no administrator that is not blocked.")
	}
	old, _, err := s.store.Tokens(ctx, TokenFilter{Kind: delivery.PersonalToken, UserID: admin.ID}, 0, 0)
	if err != nil {
		return "", err
	}
	now := s.now()
	for _, t := range old {
		if t.Name == name && t.RevokedAt.IsZero() {
			if err := s.store.RevokeToken(ctx, t.ID, now); err != nil {
				return "", err
			}
		}
	}
	secret := newSecret("glpat-")
	_, err = s.store.CreateToken(ctx, digest(secret), Token{Kind: delivery.PersonalToken, UserID: admin.ID, Name: name, Scopes: []string{"api"}, CreatedAt: now, CreatedBy: admin.ID})
	return secret, err
}

// RenewReadToken makes a fresh token that can read every repository and image,
// for the platform's own GitOps engine, and revokes the earlier one of that
// name. It returns the user name and the secret for Basic authentication.
func (s *Service) RenewReadToken(ctx context.Context, name string) (username, secret string, err error) {
	old, _, err := s.store.Tokens(ctx, TokenFilter{Kind: delivery.DeployToken}, 0, 0)
	if err != nil {
		return "", "", err
	}
	now := s.now()
	for _, t := range old {
		if t.ProjectID == 0 && t.GroupID == 0 && t.Name == name && t.RevokedAt.IsZero() {
			if err := s.store.RevokeToken(ctx, t.ID, now); err != nil {
				return "", "", err
			}
		}
	}
	username, secret = "slipway-"+slugOf(name), newSecret("gldt-")
	_, err = s.store.CreateToken(ctx, digest(secret), Token{Kind: delivery.DeployToken, Name: name, Username: username, Scopes: []string{"read_repository", "read_registry"}, Role: delivery.Reporter, CreatedAt: now})
	return username, secret, err
}

// slugOf keeps the letters and digits of a name.
func slugOf(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}
