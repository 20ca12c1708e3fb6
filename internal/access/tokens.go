package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"golang.org/x/crypto/ssh"
)

// NewToken describes a token to be made.
type NewToken struct {
	Name      string
	Username  string // deploy tokens; empty: generated
	Scopes    []string
	Role      delivery.Role // project tokens; 0: Maintainer
	ExpiresAt time.Time     // zero: never
}

var (
	personalScopes = []string{"api", "read_api", "read_user", "read_repository", "write_repository", "read_registry", "write_registry", "create_runner", "k8s_proxy", "admin_mode", "sudo"}
	deployScopes   = []string{"read_repository", "read_registry", "write_registry", "read_package_registry", "write_package_registry"}
)

func (n NewToken) check(allowed []string, now time.Time) error {
	if err := checkName(n.Name); err != nil {
		return err
	}
	if len(n.Scopes) == 0 {
		return invalid("scopes", "can't be blank")
	}
	for _, sc := range n.Scopes {
		if !slices.Contains(allowed, sc) {
			return invalid("scopes", fmt.Sprintf("can only contain available scopes: %s", strings.Join(allowed, ", ")))
		}
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now) {
		return invalid("expires_at", "must be in the future")
	}
	return nil
}

// CreatePersonalToken makes a token of a user and returns its secret, which is
// shown once.
func (s *Service) CreatePersonalToken(ctx context.Context, who delivery.Identity, userID int64, n NewToken) (Token, string, error) {
	if err := n.check(personalScopes, s.now()); err != nil {
		return Token{}, "", err
	}
	return s.createToken(ctx, who, "glpat-", Token{Kind: delivery.PersonalToken, UserID: userID, Name: n.Name, Scopes: n.Scopes, ExpiresAt: n.ExpiresAt})
}

// CreateProjectToken makes a token of a project, with a bot account that is a
// member of the project. The role cannot exceed granter's.
func (s *Service) CreateProjectToken(ctx context.Context, who delivery.Identity, p delivery.Project, granter delivery.Role, n NewToken) (Token, string, error) {
	if err := n.check(personalScopes[:7], s.now()); err != nil {
		return Token{}, "", err
	}
	return s.createBotToken(ctx, who, granter, n, Token{Kind: delivery.ProjectToken, ProjectID: p.ID})
}

// CreateGroupToken makes a token of a group, with a bot account that is a
// member of the group. The role cannot exceed granter's.
func (s *Service) CreateGroupToken(ctx context.Context, who delivery.Identity, g delivery.Group, granter delivery.Role, n NewToken) (Token, string, error) {
	if err := n.check(personalScopes[:7], s.now()); err != nil {
		return Token{}, "", err
	}
	return s.createBotToken(ctx, who, granter, n, Token{Kind: delivery.GroupToken, GroupID: g.ID})
}

// createBotToken makes the account that a project's or group's token acts as,
// and the token.
func (s *Service) createBotToken(ctx context.Context, who delivery.Identity, granter delivery.Role, n NewToken, t Token) (Token, string, error) {
	if n.Role == 0 {
		n.Role = min(delivery.Maintainer, granter)
	}
	if !validRole(n.Role) || n.Role > granter {
		return Token{}, "", invalid("access_level", "is not a role that you can grant")
	}
	name := fmt.Sprintf("project_%d_bot_%s", t.ProjectID, strings.ToLower(newSecret("")[:12]))
	if t.GroupID != 0 {
		name = fmt.Sprintf("group_%d_bot_%s", t.GroupID, strings.ToLower(newSecret("")[:12]))
	}
	bot, err := s.CreateUser(ctx, who, NewUser{Username: name, Name: n.Name, Email: name + "@noreply.localhost.localdomain", Bot: true})
	if err != nil {
		return Token{}, "", err
	}
	if err := s.store.SetMember(ctx, Member{User: bot, Role: n.Role, GroupID: t.GroupID, ProjectID: t.ProjectID, CreatedAt: s.now()}, actorID(who)); err != nil {
		return Token{}, "", err
	}
	t.UserID, t.Name, t.Scopes, t.Role, t.ExpiresAt = bot.ID, n.Name, n.Scopes, n.Role, n.ExpiresAt
	return s.createToken(ctx, who, "glpat-", t)
}

// CreateDeployToken makes a token for reading a project's repository and
// registry, and writing its registry; with a group's id, those of every project
// in the group. The other id is 0.
func (s *Service) CreateDeployToken(ctx context.Context, who delivery.Identity, projectID, groupID int64, n NewToken) (Token, string, error) {
	if projectID == 0 && groupID == 0 {
		return Token{}, "", errNoProject
	}
	if err := n.check(deployScopes, s.now()); err != nil {
		return Token{}, "", err
	}
	role := delivery.Reporter
	if slices.Contains(n.Scopes, "write_registry") {
		role = delivery.Developer
	}
	username := n.Username
	if username == "" {
		username = "gitlab+deploy-token-" + strings.ToLower(newSecret("")[:10])
	}
	if username == JobTokenUser {
		return Token{}, "", invalid("username", "is reserved")
	}
	return s.createToken(ctx, who, "gldt-", Token{Kind: delivery.DeployToken, ProjectID: projectID, GroupID: groupID, Name: n.Name, Username: username, Scopes: n.Scopes, Role: role, ExpiresAt: n.ExpiresAt})
}

func (s *Service) createToken(ctx context.Context, who delivery.Identity, prefix string, t Token) (Token, string, error) {
	secret := newSecret(prefix)
	t.CreatedAt, t.CreatedBy = s.now(), actorID(who)
	t, err := s.store.CreateToken(ctx, digest(secret), t)
	if err != nil {
		return Token{}, "", err
	}
	s.audit(ctx, who, "token.created", "token", t.ID, t.Name, string(t.Kind)+" "+strings.Join(t.Scopes, ","))
	return t, secret, nil
}

func actorID(who delivery.Identity) int64 {
	if who.User != nil {
		return who.User.ID
	}
	return 0
}

// Token returns a token by id.
func (s *Service) Token(ctx context.Context, id int64) (Token, error) {
	return s.store.TokenByID(ctx, id)
}

// Tokens lists tokens by id.
func (s *Service) Tokens(ctx context.Context, f TokenFilter, limit, offset int) ([]Token, int, error) {
	return s.store.Tokens(ctx, f, limit, offset)
}

// RevokeToken ends a token at once; the bot of a project's or group's token is
// blocked.
func (s *Service) RevokeToken(ctx context.Context, who delivery.Identity, t Token) error {
	if err := s.store.RevokeToken(ctx, t.ID, s.now()); err != nil {
		return err
	}
	s.audit(ctx, who, "token.revoked", "token", t.ID, t.Name, string(t.Kind))
	if t.Kind == delivery.ProjectToken || t.Kind == delivery.GroupToken {
		yes := true
		_, err := s.UpdateUser(ctx, who, t.UserID, UserChange{Blocked: &yes})
		return err
	}
	return nil
}

// RotateToken revokes a token and makes its successor.
func (s *Service) RotateToken(ctx context.Context, who delivery.Identity, t Token, expires time.Time) (Token, string, error) {
	now := s.now()
	if !t.Active(now) {
		return Token{}, "", delivery.Errorf(delivery.Invalid, "400 Bad request - Token already revoked")
	}
	if expires.IsZero() && !t.ExpiresAt.IsZero() {
		expires = now.AddDate(0, 0, 7)
	}
	prefix := "glpat-"
	if t.Kind == delivery.DeployToken {
		prefix = "gldt-"
	}
	next := t
	next.ID, next.ExpiresAt, next.LastUsed = 0, expires, time.Time{}
	next, secret, err := s.createToken(ctx, who, prefix, next)
	if err != nil {
		return Token{}, "", err
	}
	if err := s.store.RevokeToken(ctx, t.ID, now); err != nil {
		return Token{}, "", err
	}
	s.audit(ctx, who, "token.rotated", "token", t.ID, t.Name, "")
	return next, secret, nil
}

// AddKey adds an SSH key to a user, or as a deploy key to a project.
func (s *Service) AddKey(ctx context.Context, who delivery.Identity, k Key) (Key, error) {
	if len(k.PublicKey) > 16<<10 {
		return Key{}, invalid("key", "is too long")
	}
	pub, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(k.PublicKey)))
	if err != nil {
		return Key{}, invalid("key", "is not an SSH public key such as \"ssh-ed25519 AAAA... name\"")
	}
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
	case ssh.KeyAlgoRSA:
		if c, ok := pub.(ssh.CryptoPublicKey); ok {
			if r, ok := c.CryptoPublicKey().(interface{ Size() int }); ok && r.Size() < 256 {
				return Key{}, invalid("key", "is an RSA key of less than 2048 bits")
			}
		}
	default:
		return Key{}, invalid("key", "has the type "+pub.Type()+", which is not accepted")
	}
	switch k.Usage {
	case "":
		k.Usage = KeyForBoth
	case KeyForAuth, KeyForSigning, KeyForBoth:
	default:
		return Key{}, invalid("usage_type", "is not one of auth, signing, auth_and_signing")
	}
	if k.UserID == 0 {
		k.Usage = KeyForAuth // deploy keys sign nothing
	}
	if k.Title == "" {
		k.Title = comment
	}
	if k.Title == "" {
		return Key{}, invalid("title", "can't be blank")
	}
	if err := checkName(k.Title); err != nil {
		return Key{}, err
	}
	k.PublicKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	k.Fingerprint, k.CreatedAt = ssh.FingerprintSHA256(pub), s.now()
	k, err = s.store.CreateKey(ctx, k)
	if err != nil {
		return Key{}, err
	}
	s.audit(ctx, who, "key.created", "key", k.ID, k.Title, k.Fingerprint)
	return k, nil
}

// Keys lists the keys of a user or the deploy keys of a project.
func (s *Service) Keys(ctx context.Context, userID, projectID int64, limit, offset int) ([]Key, int, error) {
	return s.store.Keys(ctx, userID, projectID, limit, offset)
}

// Key returns a key by id.
func (s *Service) Key(ctx context.Context, id int64) (Key, error) { return s.store.KeyByID(ctx, id) }

// UpdateKey changes the title and the right to push of a deploy key.
func (s *Service) UpdateKey(ctx context.Context, who delivery.Identity, k Key) error {
	if err := checkName(k.Title); err != nil {
		return err
	}
	if err := s.store.UpdateKey(ctx, k); err != nil {
		return err
	}
	s.audit(ctx, who, "key.updated", "key", k.ID, k.Title, k.Fingerprint)
	return nil
}

// DeleteKey removes a key.
func (s *Service) DeleteKey(ctx context.Context, who delivery.Identity, k Key) error {
	if err := s.store.DeleteKey(ctx, k.ID); err != nil {
		return err
	}
	s.audit(ctx, who, "key.deleted", "key", k.ID, k.Title, k.Fingerprint)
	return nil
}
