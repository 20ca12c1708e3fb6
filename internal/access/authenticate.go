package access

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"golang.org/x/crypto/ssh"
)

// SessionCookie is the name of the cookie of a signed-in browser.
const SessionCookie = "slipway_session"

// JobTokenUser is the user name that comes with a job token in Basic
// authentication, as in GitLab.
const JobTokenUser = "gitlab-ci-token"

// ErrWrongCredentials says that a name, password or token is not right; it is
// answered as GitLab does.
var ErrWrongCredentials = &delivery.Error{Kind: delivery.Unauthenticated, Op: "access: authenticate", Message: "401 Unauthorized"}

// Authenticate implements api.Authenticator.
func (s *Service) Authenticate(r *http.Request) (delivery.Identity, error) {
	ctx := r.Context()
	q := r.URL.Query()
	if t := first(r.Header.Get("JOB-TOKEN"), q.Get("job_token")); t != "" {
		return s.byJobToken(ctx, t)
	}
	token := first(r.Header.Get("PRIVATE-TOKEN"), q.Get("private_token"))
	if token == "" {
		if kind, rest, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(kind, "Bearer") {
			token = strings.TrimSpace(rest)
		} else {
			token = r.Header.Get("DEPLOY-TOKEN")
		}
	}
	if token != "" {
		return s.byToken(ctx, "", token)
	}
	if user, password, ok := r.BasicAuth(); ok {
		return s.AuthenticateBasic(ctx, user, password, RemoteAddress(r))
	}
	if c, err := r.Cookie(SessionCookie); err == nil && c.Value != "" {
		who, _, err := s.SessionIdentity(ctx, c.Value)
		if err != nil {
			return delivery.Identity{}, err
		}
		if who.Signed() {
			if err := crossOrigin.Check(r); err != nil {
				return delivery.Identity{}, &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden - the request comes from another site", Err: err}
			}
		}
		return who, nil
	}
	return delivery.Identity{}, nil
}

var crossOrigin = http.NewCrossOriginProtection()

// AuthenticateBasic tells who sends a user name and a password: a password, or
// a personal, project, deploy or job token in its place, as git, docker and
// the LFS client do. Wrong credentials give an error of kind Unauthenticated.
//
// Only passwords are throttled: tokens cannot be guessed, and a program with an
// old one must not lock out the others at its address.
func (s *Service) AuthenticateBasic(ctx context.Context, username, password, address string) (delivery.Identity, error) {
	if password == "" {
		return delivery.Identity{}, ErrWrongCredentials
	}
	if username == JobTokenUser {
		return s.byJobToken(ctx, password)
	}
	who, err := s.byToken(ctx, username, password)
	if delivery.KindOf(err) != delivery.Unauthenticated || isToken(password) {
		return who, err
	}
	return s.throttled(ctx, username, address, func() (delivery.Identity, error) { return s.byPassword(ctx, username, password) })
}

// isToken reports whether a secret looks like a token, which is not worth
// hashing as a password.
func isToken(secret string) bool {
	for _, prefix := range []string{"glpat-", "gldt-", "glcbt-", "slfs-", "glrt-"} {
		if strings.HasPrefix(secret, prefix) {
			return true
		}
	}
	return false
}

// throttled refuses callers with too many failures and counts failures.
func (s *Service) throttled(_ context.Context, login, address string, try func() (delivery.Identity, error)) (delivery.Identity, error) {
	if err := s.throttle.check(login, address); err != nil {
		return delivery.Identity{}, err
	}
	who, err := try()
	if delivery.KindOf(err) == delivery.Unauthenticated {
		s.throttle.failed(login, address)
	} else if err == nil {
		s.throttle.succeeded(login, address)
	}
	return who, err
}

func (s *Service) byPassword(ctx context.Context, login, password string) (delivery.Identity, error) {
	a, err := s.checkLogin(ctx, login, password, s.passwords.verify)
	if err != nil {
		return delivery.Identity{}, err
	}
	if a.TOTPSecret != "" {
		return delivery.Identity{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "This account has two-factor authentication, so a password is not enough here.",
			Next: "Use a personal access token in its place."}
	}
	return identity(a, delivery.SessionUser), nil
}

type verifier func(ctx context.Context, hash, password string) (bool, error)

func (s *Service) checkLogin(ctx context.Context, login, password string, verify verifier) (Account, error) {
	a, err := s.store.UserByLogin(ctx, login)
	if delivery.IsNotFound(err) || err == nil && a.PasswordHash == "" {
		if _, err := verifyPassword(ctx, absent, password); err != nil {
			return Account{}, err
		}
		return Account{}, ErrWrongCredentials
	}
	if err != nil {
		return Account{}, err
	}
	ok, err := verify(ctx, a.PasswordHash, password)
	if err != nil {
		return Account{}, err
	}
	if !ok {
		return Account{}, ErrWrongCredentials
	}
	if a.Blocked {
		return Account{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "This account is blocked.", Next: "Ask an administrator."}
	}
	return a, nil
}

func identity(a Account, kind delivery.IdentityKind) delivery.Identity {
	u := a.User
	return delivery.Identity{Kind: kind, User: &u, Name: u.Username}
}

// actAs makes who the user that a credential belongs to. A blocked user's
// credentials are as good as none.
func (s *Service) actAs(ctx context.Context, who *delivery.Identity, userID int64) error {
	a, err := s.store.UserByID(ctx, userID)
	if err != nil {
		return err
	}
	if a.Blocked {
		return ErrWrongCredentials
	}
	u := a.User
	who.User, who.Name = &u, u.Username
	return nil
}

func (s *Service) byToken(ctx context.Context, username, secret string) (delivery.Identity, error) {
	t, err := s.store.TokenByHash(ctx, digest(secret))
	if delivery.IsNotFound(err) {
		return delivery.Identity{}, ErrWrongCredentials
	}
	if err != nil {
		return delivery.Identity{}, err
	}
	now := s.now()
	if !t.Active(now) || t.Kind == delivery.DeployToken && username != "" && username != t.Username {
		return delivery.Identity{}, ErrWrongCredentials
	}
	who := delivery.Identity{Kind: t.Kind, Name: t.Name, Scopes: t.Scopes, ProjectID: t.ProjectID, GroupID: t.GroupID, Role: t.Role, TokenID: t.ID}
	if t.UserID != 0 {
		if err := s.actAs(ctx, &who, t.UserID); err != nil {
			return delivery.Identity{}, err
		}
	}
	if s.used.due("token", t.ID, now) {
		if err := s.store.TouchToken(context.WithoutCancel(ctx), t.ID, now); err != nil {
			s.log.Warn("last use of a token not stored", "token", t.ID, "err", err)
		}
	}
	return who, nil
}

// jobScopes are what a job token can do: git and the registry as far as roles
// and allowlists permit, and the REST routes that name ScopeJob.
var jobScopes = []string{delivery.ScopeJob, "read_repository", "write_repository", "read_registry", "write_registry"}

func (s *Service) byJobToken(ctx context.Context, token string) (delivery.Identity, error) {
	s.jobMu.RLock()
	jobs := s.jobTokens
	s.jobMu.RUnlock()
	if jobs == nil {
		return delivery.Identity{}, ErrWrongCredentials
	}
	claim, err := jobs.JobByToken(ctx, token)
	if delivery.IsNotFound(err) {
		return delivery.Identity{}, ErrWrongCredentials
	}
	if err != nil {
		return delivery.Identity{}, err
	}
	a, err := s.store.UserByID(ctx, claim.UserID)
	if delivery.IsNotFound(err) || err == nil && a.Blocked {
		return delivery.Identity{}, ErrWrongCredentials
	}
	if err != nil {
		return delivery.Identity{}, err
	}
	u := a.User
	return delivery.Identity{Kind: delivery.JobToken, User: &u, Name: u.Username, Scopes: jobScopes, ProjectID: claim.ProjectID, JobID: claim.JobID}, nil
}

// AuthenticateKey tells whose SSH key it is: a user's, or a deploy key, which
// carries its project and a role of Reporter or Developer. An unknown key
// gives an error of kind Unauthenticated.
func (s *Service) AuthenticateKey(ctx context.Context, key ssh.PublicKey) (delivery.Identity, error) {
	k, err := s.store.KeyByFingerprint(ctx, ssh.FingerprintSHA256(key))
	if delivery.IsNotFound(err) {
		return delivery.Identity{}, ErrWrongCredentials
	}
	if err != nil {
		return delivery.Identity{}, err
	}
	now := s.now()
	if !k.ExpiresAt.IsZero() && now.After(k.ExpiresAt) || k.Usage == KeyForSigning {
		return delivery.Identity{}, ErrWrongCredentials
	}
	who := delivery.Identity{Kind: delivery.SSHKey, Name: k.Title, TokenID: k.ID}
	if k.UserID != 0 {
		if err := s.actAs(ctx, &who, k.UserID); err != nil {
			return delivery.Identity{}, err
		}
	} else {
		who.ProjectID, who.Role, who.Scopes = k.ProjectID, delivery.Reporter, []string{"read_repository"}
		if k.CanPush {
			who.Role, who.Scopes = delivery.Developer, []string{"read_repository", "write_repository"}
		}
	}
	if s.used.due("key", k.ID, now) {
		if err := s.store.TouchKey(context.WithoutCancel(ctx), k.ID, now); err != nil {
			s.log.Warn("last use of a key not stored", "key", k.ID, "err", err)
		}
	}
	return who, nil
}

// RemoteAddress is the caller's network address without the port. Only a
// proxy on the same host may name another one by X-Forwarded-For.
func RemoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		if fwd := r.Header.Get("X-Forwarded-For"); fwd != "" {
			last := strings.TrimSpace(fwd[strings.LastIndexByte(fwd, ',')+1:])
			if net.ParseIP(last) != nil {
				return last
			}
		}
	}
	return host
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// expiresIn converts a date of the API, which counts until its start in UTC.
func expiresIn(date string) (time.Time, error) {
	if date == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, date)
	if err != nil {
		if t, err = time.Parse(time.RFC3339, date); err != nil {
			return time.Time{}, invalid("expires_at", "is not a date such as 2030-12-31")
		}
	}
	return t.UTC(), nil
}
