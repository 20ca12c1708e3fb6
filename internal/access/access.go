// Package access knows who people are and what they may do: users and their
// credentials, sessions, groups, membership with inheritance, tokens, SSH keys
// and the audit log. It implements api.Authenticator and api.Projects.
//
// It receives credentials and changes to accounts, and emits audit events. It
// must not import another stage, the store or the web; the store implements
// Store, and CI job tokens are validated through delivery.JobTokens.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Account is a user with what only access needs to know about it.
type Account struct {
	delivery.User
	PasswordHash string // empty: cannot sign in with a password
	TOTPSecret   string // empty: no second factor
	TOTPPending  string // a secret shown but not yet confirmed
	TOTPLast     int64  // the last time step accepted, so that a code works once
	LastSignIn   time.Time
}

// Token is a personal, project, group or deploy token. The secret itself is only
// known to the function that made it.
type Token struct {
	ID        int64
	Kind      delivery.IdentityKind // PersonalToken, ProjectToken, GroupToken or DeployToken
	UserID    int64                 // the owner, or the bot of a project's or group's token
	ProjectID int64
	GroupID   int64 // group tokens, and deploy tokens of a group
	Name      string
	Username  string // deploy tokens: the name to use with Basic authentication
	Scopes    []string
	Role      delivery.Role
	CreatedAt time.Time
	CreatedBy int64
	ExpiresAt time.Time // zero: never
	LastUsed  time.Time
	RevokedAt time.Time
}

// Active reports whether the token may be used at the time.
func (t Token) Active(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// Session is a signed-in browser.
type Session struct {
	ID        int64
	UserID    int64
	Address   string
	Agent     string
	CreatedAt time.Time
	LastSeen  time.Time
	ExpiresAt time.Time
}

// Key is a user's SSH key, or a deploy key of one project.
type Key struct {
	ID          int64
	UserID      int64 // 0 for a deploy key
	ProjectID   int64 // 0 for a user's key
	Title       string
	PublicKey   string // authorized_keys form, without options
	Fingerprint string // SHA256:...
	CanPush     bool   // deploy keys
	Usage       KeyUsage
	CreatedAt   time.Time
	ExpiresAt   time.Time
	LastUsed    time.Time
}

// KeyUsage tells what an SSH key is for.
type KeyUsage string

// What a key can be for, with GitLab's names.
const (
	KeyForAuth    KeyUsage = "auth"
	KeyForSigning KeyUsage = "signing"
	KeyForBoth    KeyUsage = "auth_and_signing"
)

// Signs reports whether signatures of the key count.
func (u KeyUsage) Signs() bool { return u == KeyForSigning || u == KeyForBoth }

// Member is a user's membership in a group or project.
type Member struct {
	User      delivery.User
	Role      delivery.Role
	ExpiresAt time.Time
	CreatedAt time.Time
	GroupID   int64 // where the membership is; one of the two is set
	ProjectID int64
}

// Allowance lets the jobs of another project act in a project.
type Allowance struct {
	Source delivery.Project
	Push   bool
}

// AuditEvent records who did what.
type AuditEvent struct {
	ID         int64
	At         time.Time
	ActorID    int64
	Actor      string
	Address    string
	Action     string // such as user.created, session.failed, token.revoked
	TargetType string // user, group, project, token, ...
	TargetID   int64
	Target     string
	Details    string
}

// Options configure a Service.
type Options struct {
	Store     Store
	JobTokens delivery.JobTokens // nil: job tokens are refused
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
	// SessionLifetime is how long a browser stays signed in without use;
	// 0: two weeks.
	SessionLifetime time.Duration
	// CookieSecure marks the session cookie for HTTPS only.
	CookieSecure bool
}

// Service answers who a caller is and what the caller may do. It is safe for
// concurrent use.
type Service struct {
	store     Store
	log       *slog.Logger
	now       func() time.Time
	lifetime  time.Duration
	secure    bool
	throttle  *throttle
	passwords *passwordCache
	used      *lastUsed
	avatars   avatars

	jobMu     sync.RWMutex
	jobTokens delivery.JobTokens
	mayMove   MoveCheck
}

// MoveCheck refuses to change the address of a namespace, such as while images
// of its projects are known by the present one.
type MoveCheck func(ctx context.Context, namespaceID int64) error

// SetMoveCheck provides what is asked before a group's or a user's address
// changes.
func (s *Service) SetMoveCheck(fn MoveCheck) {
	s.jobMu.Lock()
	defer s.jobMu.Unlock()
	s.mayMove = fn
}

func (s *Service) checkMove(ctx context.Context, namespaceID int64) error {
	s.jobMu.RLock()
	fn := s.mayMove
	s.jobMu.RUnlock()
	if fn == nil {
		return nil
	}
	return fn(ctx, namespaceID)
}

// New returns a Service.
func New(o Options) *Service {
	s := &Service{store: o.Store, log: o.Log, now: o.Now, lifetime: o.SessionLifetime, secure: o.CookieSecure, jobTokens: o.JobTokens}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.lifetime == 0 {
		s.lifetime = 14 * 24 * time.Hour
	}
	s.avatars.digest = map[avatarKey]string{}
	s.throttle = newThrottle(s.now)
	s.passwords = newPasswordCache(s.now)
	s.used = &lastUsed{at: map[lastUsedKey]time.Time{}}
	return s
}

// SetJobTokens provides the validator of CI job tokens, for a wiring in which
// the pipelines need access first.
func (s *Service) SetJobTokens(v delivery.JobTokens) {
	s.jobMu.Lock()
	defer s.jobMu.Unlock()
	s.jobTokens = v
}

// newSecret returns a token secret of 160 random bits with the prefix.
func newSecret(prefix string) string { return prefix + rand.Text()[:26] + rand.Text()[:6] }

// digest is how a secret with much entropy is stored and looked up.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func invalid(field, message string) error {
	return &delivery.Error{Kind: delivery.Invalid, Message: field + " " + message + ".", Fields: map[string][]string{field: {message}}}
}

// audit records an event; a failure to record is logged, as the deed is done.
func (s *Service) audit(ctx context.Context, who delivery.Identity, action, targetType string, targetID int64, target, details string) {
	e := AuditEvent{At: s.now(), Actor: who.Name, Address: addressFrom(ctx), Action: action, TargetType: targetType, TargetID: targetID, Target: target, Details: details}
	if who.User != nil {
		e.ActorID = who.User.ID
		if e.Actor == "" {
			e.Actor = who.User.Username
		}
	}
	if e.Actor == "" {
		e.Actor = string(who.Kind)
	}
	if err := s.store.AddAudit(context.WithoutCancel(ctx), e); err != nil {
		s.log.Error("audit event not stored", "action", action, "err", err)
	}
}

// Audit records an event of another stage in the audit log.
func (s *Service) Audit(ctx context.Context, who delivery.Identity, action, targetType string, targetID int64, target, details string) {
	s.audit(ctx, who, action, targetType, targetID, target, details)
}

type addressKey struct{}

// WithAddress notes the caller's network address for the audit log.
func WithAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

func addressFrom(ctx context.Context) string {
	s, _ := ctx.Value(addressKey{}).(string)
	return s
}
