// Package delivery holds the nouns, events and error kinds of the delivery
// flow: what a push, a pipeline, an image, a sync and a release are to every
// stage. It is the only package that stages share.
//
// It receives nothing and emits nothing. It must import only the standard
// library, and must not grow behaviour that belongs to one stage.
package delivery

import "time"

// Role is a member's access level in a group or project. The numbers are
// GitLab's (doc/api/members.md), so that API clients can compare them.
type Role int

// Roles in rising order of rights.
const (
	NoAccess      Role = 0
	MinimalAccess Role = 5
	Guest         Role = 10
	Reporter      Role = 20
	Developer     Role = 30
	Maintainer    Role = 40
	Owner         Role = 50
)

// String returns GitLab's lower-case name of the role.
func (r Role) String() string {
	switch {
	case r >= Owner:
		return "owner"
	case r >= Maintainer:
		return "maintainer"
	case r >= Developer:
		return "developer"
	case r >= Reporter:
		return "reporter"
	case r >= Guest:
		return "guest"
	case r >= MinimalAccess:
		return "minimal"
	}
	return "none"
}

// Visibility says who may read a group or project without being a member.
type Visibility string

// Visibilities, as in GitLab: private is for members, internal for every
// signed-in user, public for everybody.
const (
	Private  Visibility = "private"
	Internal Visibility = "internal"
	Public   Visibility = "public"
)

// User is an account of the platform.
type User struct {
	ID        int64
	Username  string
	Name      string
	Email     string
	Admin     bool
	Blocked   bool
	Bot       bool
	CreatedAt time.Time
}

// SigningKey is a key that signs commits, with the account that it belongs to.
type SigningKey struct {
	ID        int64
	User      User
	Title     string
	Text      string   // the public key
	Emails    []string // the addresses that the key speaks for
	Usage     string   // of an SSH key: signing or auth_and_signing
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
}

// Group is a namespace that holds projects and further groups.
type Group struct {
	ID          int64
	ParentID    int64 // 0 for a top-level group
	Path        string
	FullPath    string
	Name        string
	Description string
	Visibility  Visibility
	CreatedAt   time.Time
}

// Namespace is where a project lives: a group, or a user's own namespace.
type Namespace struct {
	ID       int64
	Kind     string // "group" or "user"
	Path     string
	FullPath string
	Name     string
}

// Project is a repository with all that the platform keeps about it.
type Project struct {
	ID            int64
	Namespace     Namespace
	Path          string
	FullPath      string // namespace full path + "/" + path
	Name          string
	Description   string
	Visibility    Visibility
	DefaultBranch string
	Empty         bool
	Archived      bool
	CreatorID     int64
	ForkedFromID  int64  // 0 when not a fork
	CIConfigPath  string // empty means .gitlab-ci.yml
	CreatedAt     time.Time
	LastActivity  time.Time
}

// Signature is who did something to a commit, and when.
type Signature struct {
	Name  string
	Email string
	When  time.Time
}

// Commit is one commit of a repository.
type Commit struct {
	SHA       string
	Parents   []string
	Tree      string
	Author    Signature
	Committer Signature
	Message   string // the whole message, title and body
}

// Title returns the first line of the commit's message.
func (c Commit) Title() string {
	for i := 0; i < len(c.Message); i++ {
		if c.Message[i] == '\n' {
			return c.Message[:i]
		}
	}
	return c.Message
}

// ZeroSHA is what git reports for a ref that does not exist: the old value of
// a created ref and the new value of a deleted one.
const ZeroSHA = "0000000000000000000000000000000000000000"

// IdentityKind tells how a caller proved who it is.
type IdentityKind string

// Kinds of identity. A job token acts for the user who started the job, but
// only within its scope.
const (
	Anonymous     IdentityKind = "anonymous"
	SessionUser   IdentityKind = "session"
	PersonalToken IdentityKind = "personal_access_token"
	ProjectToken  IdentityKind = "project_access_token"
	GroupToken    IdentityKind = "group_access_token"
	DeployToken   IdentityKind = "deploy_token"
	JobToken      IdentityKind = "job_token"
	SSHKey        IdentityKind = "ssh_key"
	SystemActor   IdentityKind = "system"
)

// Identity is the authenticated caller of an operation. The zero value is the
// anonymous caller.
type Identity struct {
	Kind      IdentityKind
	User      *User    // nil for anonymous callers and deploy tokens
	Name      string   // what to show and log: a username or a token's name
	Scopes    []string // GitLab's scopes: api, read_api, read_repository, write_repository, read_registry, write_registry; nil for a session or password: everything
	ProjectID int64    // where a project, deploy or job token is valid; 0 otherwise
	GroupID   int64    // where a group's access or deploy token is valid; 0 otherwise
	Role      Role     // the role a project, group or deploy token carries; NoAccess otherwise
	JobID     int64    // the job of a job token
	TokenID   int64    // the row of the token, for the audit log
}

// Signed reports whether the caller is known at all.
func (i Identity) Signed() bool { return i.Kind != "" && i.Kind != Anonymous }

// HasScope reports whether the identity may act within one of the scopes
// named. "api" includes every other scope, as in GitLab.
func (i Identity) HasScope(scopes ...string) bool {
	if i.Scopes == nil {
		return i.Signed()
	}
	for _, have := range i.Scopes {
		if have == "api" {
			return true
		}
		for _, want := range scopes {
			if have == want {
				return true
			}
		}
	}
	return false
}
