package access

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Store keeps what access knows. Methods that look one thing up return an
// error of kind NotFound where it does not exist; methods that create return
// Conflict where a name is taken. Lists are ordered as documented and paged by
// limit and offset, together with the total; a limit of 0 means everything.
type Store interface {
	userStore
	groupStore
	memberStore
	tokenStore
	keyStore
	gpgStore
	avatarStore
	projectStore
	AddAudit(ctx context.Context, e AuditEvent) error
	// AuditEvents lists newest first.
	AuditEvents(ctx context.Context, f AuditFilter, limit, offset int) ([]AuditEvent, int, error)
}

// AuditFilter narrows the audit log; zero values do not narrow.
type AuditFilter struct {
	TargetType string
	TargetID   int64  // with TargetType
	Search     string // part of the actor, the action, the target or the address
}

// UserFilter narrows a list of users.
type UserFilter struct {
	Search   string // part of username, name or email
	Username string // exact, without regard to case
	Blocked  *bool
	Bots     bool // include bots
}

type userStore interface {
	// CreateUser stores the account and its namespace.
	CreateUser(ctx context.Context, a Account) (Account, error)
	UpdateUser(ctx context.Context, a Account) error
	DeleteUser(ctx context.Context, id int64) error
	UserByID(ctx context.Context, id int64) (Account, error)
	// UserByLogin finds by username or email, without regard to case.
	UserByLogin(ctx context.Context, login string) (Account, error)
	// Users lists by id.
	Users(ctx context.Context, f UserFilter, limit, offset int) ([]Account, int, error)
	// AcceptTOTP stores the time step if it is newer than the last one.
	AcceptTOTP(ctx context.Context, id, step int64) (bool, error)
	SetRecoveryCodes(ctx context.Context, id int64, hashes []string) error
	UseRecoveryCode(ctx context.Context, id int64, hash string) (bool, error)

	CreateSession(ctx context.Context, hash string, s Session) (Session, error)
	SessionByHash(ctx context.Context, hash string) (Session, error)
	TouchSession(ctx context.Context, id int64, seen, expires time.Time) error
	Sessions(ctx context.Context, userID int64) ([]Session, error)
	// DeleteSessions ends one session of the user, or all but one: id 0 ends
	// every session except keep.
	DeleteSessions(ctx context.Context, userID, id, keep int64) error
	DeleteExpiredSessions(ctx context.Context, now time.Time) error
}

// GroupFilter narrows a list of groups to those the viewer may see.
type GroupFilter struct {
	Viewer   int64 // user id; 0 for anonymous
	All      bool  // the viewer is an administrator
	Search   string
	ParentID int64 // direct children
	TopLevel bool
	Owned    bool
	MinRole  delivery.Role
	External bool // what is internal is not shown: the viewer is the bot of a token
}

type groupStore interface {
	CreateGroup(ctx context.Context, g delivery.Group, ownerID int64) (delivery.Group, error)
	// UpdateGroup stores name, description, visibility and path; the full
	// paths of everything below follow.
	UpdateGroup(ctx context.Context, g delivery.Group) (delivery.Group, error)
	// DeleteGroup deletes an empty group; Conflict while it holds projects.
	DeleteGroup(ctx context.Context, id int64) error
	GroupByID(ctx context.Context, id int64) (delivery.Group, error)
	GroupByPath(ctx context.Context, fullPath string) (delivery.Group, error)
	// Groups lists by full path.
	Groups(ctx context.Context, f GroupFilter, limit, offset int) ([]delivery.Group, int, error)
	// GroupRole is the highest role of the user in the group or its ancestors,
	// NoAccess where there is none.
	GroupRole(ctx context.Context, groupID, userID int64, now time.Time) (delivery.Role, error)
	// GroupHasMemberBelow reports whether the user is a member of something
	// inside the group, which makes the group itself visible.
	GroupHasMemberBelow(ctx context.Context, groupID, userID int64, now time.Time) (bool, error)
	NamespaceByID(ctx context.Context, id int64) (delivery.Namespace, int64, error)
	NamespaceByPath(ctx context.Context, fullPath string) (delivery.Namespace, int64, error)
	// Namespaces lists those where the user may create projects.
	Namespaces(ctx context.Context, userID int64, all bool, search string, limit, offset int) ([]delivery.Namespace, int, error)
}

type memberStore interface {
	SetMember(ctx context.Context, m Member, createdBy int64) error
	DeleteMember(ctx context.Context, groupID, projectID, userID int64) error
	// Members lists by user id; inherited adds the members of the ancestors,
	// with the highest role of each.
	Members(ctx context.Context, groupID, projectID int64, inherited bool, search string, limit, offset int) ([]Member, int, error)
	MemberOf(ctx context.Context, groupID, projectID, userID int64, inherited bool) (Member, error)
	CountOwners(ctx context.Context, groupID int64) (int, error)
}

// TokenFilter narrows a list of tokens to a kind; zero numbers do not narrow.
type TokenFilter struct {
	Kind                       delivery.IdentityKind
	UserID, ProjectID, GroupID int64
}

type tokenStore interface {
	CreateToken(ctx context.Context, hash string, t Token) (Token, error)
	TokenByHash(ctx context.Context, hash string) (Token, error)
	TokenByID(ctx context.Context, id int64) (Token, error)
	RevokeToken(ctx context.Context, id int64, at time.Time) error
	TouchToken(ctx context.Context, id int64, at time.Time) error
	// Tokens lists by id.
	Tokens(ctx context.Context, f TokenFilter, limit, offset int) ([]Token, int, error)
}

type keyStore interface {
	CreateKey(ctx context.Context, k Key) (Key, error)
	KeyByID(ctx context.Context, id int64) (Key, error)
	KeyByFingerprint(ctx context.Context, fingerprint string) (Key, error)
	DeleteKey(ctx context.Context, id int64) error
	TouchKey(ctx context.Context, id int64, at time.Time) error
	UpdateKey(ctx context.Context, k Key) error
	Keys(ctx context.Context, userID, projectID int64, limit, offset int) ([]Key, int, error)
}

type projectStore interface {
	ProjectByID(ctx context.Context, id int64) (delivery.Project, error)
	ProjectByPath(ctx context.Context, fullPath string) (delivery.Project, error)
	// ProjectRole is the highest role of the user in the project, its group
	// and the group's ancestors; the owner of a user namespace is Owner.
	ProjectRole(ctx context.Context, projectID, userID int64, now time.Time) (delivery.Role, error)
	// ProjectInGroup reports whether the project lies in the group or below.
	ProjectInGroup(ctx context.Context, projectID, groupID int64) (bool, error)
	Allowances(ctx context.Context, projectID int64) ([]Allowance, error)
	// Allowance reports whether jobs of the source may act in the project and
	// whether they may push.
	Allowance(ctx context.Context, projectID, sourceID int64) (allowed, push bool, err error)
	SetAllowance(ctx context.Context, projectID, sourceID int64, push bool) error
	DeleteAllowance(ctx context.Context, projectID, sourceID int64) error
}
