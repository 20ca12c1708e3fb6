package forge

import (
	"context"
	"encoding/json"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Store keeps what the forge knows beside the repositories. Methods that look
// one thing up return an error of kind NotFound where it does not exist;
// methods that create return Conflict where a name is taken. Lists are paged
// by limit (0: everything) and offset and come with the total.
type Store interface {
	projectStore
	pushStore
	protectionStore
	mergeRequestStore
	noteStore
	draftStore
	todoStore
	mailStore
	releaseStore
	hookStore
	lfsStore
	mirrorStore
}

// ProjectFilter narrows a list of projects to those the viewer may see.
type ProjectFilter struct {
	Viewer     int64 // user id; 0: anonymous
	All        bool  // the viewer is an administrator
	Only       int64 // a single project (project tokens)
	Search     string
	Member     bool          // membership=true
	Owned      bool          // in the viewer's own namespace or as Owner
	MinRole    delivery.Role // at least this role
	GroupID    int64
	Subgroups  bool // with GroupID: everything below
	OwnerID    int64
	ForkedFrom int64
	Archived   *bool
	Visibility delivery.Visibility
	OrderBy    string // id, name, path, created_at, updated_at, last_activity_at, similarity
	Ascending  bool
	IDAfter    int64
	External   bool // what is internal is not shown: the viewer is the bot of a token
	Readable   bool // only where the viewer may read the code (CanRead)
}

type projectStore interface {
	CreateProject(ctx context.Context, p delivery.Project, s ProjectSettings) (delivery.Project, error)
	// UpdateProject stores everything but the flags that pushes change.
	UpdateProject(ctx context.Context, p delivery.Project, s ProjectSettings) (delivery.Project, error)
	// DeleteProject deletes the project's rows and emits EventProjectDeleted.
	DeleteProject(ctx context.Context, id int64) error
	ProjectByID(ctx context.Context, id int64) (delivery.Project, error)
	ProjectByPath(ctx context.Context, fullPath string) (delivery.Project, error)
	ProjectSettings(ctx context.Context, id int64) (ProjectSettings, error)
	Projects(ctx context.Context, f ProjectFilter, limit, offset int) ([]delivery.Project, int, error)
	ProjectIDs(ctx context.Context) ([]int64, error)
	SetDefaultBranch(ctx context.Context, id int64, branch string) error
}

// RefUpdate is one ref that a push moves.
type RefUpdate struct {
	Ref string `json:"ref"`
	Old string `json:"old"`
	New string `json:"new"`
}

// Push is a push on its way: stored before git moves the refs, and turned into
// events after, so that no crash in between loses the events.
type Push struct {
	ID        int64
	ProjectID int64
	UserID    int64
	JobID     int64
	At        time.Time
	Updates   []RefUpdate
	Options   map[string]string
}

type pushStore interface {
	BeginPush(ctx context.Context, p Push) (int64, error)
	// FinishPush emits an event per update that took place, notes the
	// project's activity and forgets the push, all at once.
	FinishPush(ctx context.Context, p Push, done []RefUpdate) error
	PendingPushes(ctx context.Context) ([]Push, error)
}

// Protection is a rule for branches or tags whose names match a pattern.
type Protection struct {
	ID         int64
	ProjectID  int64
	Tags       bool   // a rule for tags; otherwise for branches
	Pattern    string // a name, or a glob in which * matches anything
	PushRole   delivery.Role
	MergeRole  delivery.Role
	AllowForce bool
	CreatedAt  time.Time
}

// Nobody is the role of a rule that lets no one do a thing.
const Nobody = delivery.NoAccess

type protectionStore interface {
	Protections(ctx context.Context, projectID int64) ([]Protection, error)
	SetProtection(ctx context.Context, p Protection) (Protection, error)
	DeleteProtection(ctx context.Context, projectID int64, tags bool, pattern string) error
}

// MergeRequestFilter narrows a list of merge requests.
type MergeRequestFilter struct {
	ProjectIDs   []int64 // nil: not narrowed
	IIDs         []int64
	State        string // opened, closed, merged; empty: all
	AuthorID     int64
	AssigneeID   int64
	ReviewerID   int64
	SourceBranch string
	TargetBranch string
	SourceID     int64 // source project
	Search       string
	Labels       []string
	Draft        *bool
	OrderBy      string // created_at, updated_at, title
	Ascending    bool
	MadeCommit   string         // whose merge or squash made this commit
	Visible      *ProjectFilter // only in projects that this filter lets through
}

type mergeRequestStore interface {
	// CreateMergeRequest gives the number and emits the event "open".
	CreateMergeRequest(ctx context.Context, m delivery.MergeRequest) (delivery.MergeRequest, error)
	// UpdateMergeRequest stores everything; a non-empty action emits an event.
	UpdateMergeRequest(ctx context.Context, m delivery.MergeRequest, action string, userID int64, oldSHA string) error
	// SetMergeStatus stores only the result of a mergeability check.
	SetMergeStatus(ctx context.Context, id int64, status, mergeError string) error
	MergeRequestByIID(ctx context.Context, projectID, iid int64) (delivery.MergeRequest, error)
	MergeRequestByID(ctx context.Context, id int64) (delivery.MergeRequest, error)
	MergeRequests(ctx context.Context, f MergeRequestFilter, limit, offset int) ([]delivery.MergeRequest, int, error)
	DeleteMergeRequest(ctx context.Context, id int64) error
	Approvals(ctx context.Context, mergeRequestID int64) ([]Approval, error)
	// SetApproval approves or takes an approval back; an event follows.
	SetApproval(ctx context.Context, m delivery.MergeRequest, userID int64, approve bool) error
	ClearApprovals(ctx context.Context, mergeRequestID int64) error
	AddVersion(ctx context.Context, v MergeRequestVersion) error
	Versions(ctx context.Context, mergeRequestID int64) ([]MergeRequestVersion, error)
}

// Approval is a user's approval of a merge request.
type Approval struct {
	UserID int64
	At     time.Time
}

// MergeRequestVersion is what a merge request looked like after a push.
type MergeRequestVersion struct {
	ID             int64
	MergeRequestID int64
	HeadSHA        string
	BaseSHA        string
	StartSHA       string
	CreatedAt      time.Time
}

// Note is a comment on a merge request or a commit.
type Note struct {
	ID           int64
	ProjectID    int64
	NoteableType string // MergeRequest or Commit
	NoteableID   int64  // the merge request's id; 0 for commits
	NoteableIID  int64
	CommitSHA    string
	DiscussionID string
	Individual   bool // a note of its own that nobody answered in a thread
	System       bool // written by the platform
	AuthorID     int64
	Body         string
	Position     *NotePosition // in the version that the note was last found in
	Original     *NotePosition // in the version that it was written on
	Excerpt      string        // the lines of the diff that it is about, as hunks
	Resolvable   bool
	ResolvedByID int64
	ResolvedAt   time.Time
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// NotePosition places a note on a line of a diff (doc/api/discussions.md).
type NotePosition struct {
	BaseSHA      string          `json:"base_sha"`
	StartSHA     string          `json:"start_sha"`
	HeadSHA      string          `json:"head_sha"`
	PositionType string          `json:"position_type"`
	OldPath      string          `json:"old_path,omitempty"`
	NewPath      string          `json:"new_path,omitempty"`
	OldLine      int             `json:"old_line,omitempty"`
	NewLine      int             `json:"new_line,omitempty"`
	LineRange    json.RawMessage `json:"line_range,omitempty"`
}

type noteStore interface {
	// CreateNote stores a note and, unless it is a system note, emits the
	// event.
	CreateNote(ctx context.Context, n Note) (Note, error)
	UpdateNote(ctx context.Context, n Note) error
	// MoveNote stores a note's position in a newer version.
	MoveNote(ctx context.Context, id int64, p NotePosition) error
	DeleteNote(ctx context.Context, id int64) error
	NoteByID(ctx context.Context, id int64) (Note, error)
	// Notes lists the notes of a merge request (by its id) or of a commit.
	Notes(ctx context.Context, projectID, mergeRequestID int64, commitSHA string, ascending bool, limit, offset int) ([]Note, int, error)
	// Discussion lists the notes of one thread, oldest first.
	Discussion(ctx context.Context, projectID int64, discussionID string) ([]Note, error)
	Unresolved(ctx context.Context, mergeRequestID int64) (int, error)
	// NotedCommits lists the commits of a project that somebody wrote notes on.
	NotedCommits(ctx context.Context, projectID int64) ([]string, error)
}

// Release is a tag that was made public with a text and links.
type Release struct {
	ID          int64
	ProjectID   int64
	Tag         string
	Name        string
	Description string
	AuthorID    int64
	SHA         string
	ReleasedAt  time.Time
	CreatedAt   time.Time
	Links       []ReleaseLink
}

// ReleaseLink is a file or page that belongs to a release.
type ReleaseLink struct {
	ID       int64
	Name     string
	URL      string
	Path     string // direct_asset_path
	LinkType string // other, runbook, image, package
}

type releaseStore interface {
	CreateRelease(ctx context.Context, r Release) (Release, error)
	UpdateRelease(ctx context.Context, r Release) error
	DeleteRelease(ctx context.Context, projectID int64, tag string) error
	ReleaseByTag(ctx context.Context, projectID int64, tag string) (Release, error)
	Releases(ctx context.Context, projectID int64, limit, offset int) ([]Release, int, error)
	SetReleaseLink(ctx context.Context, projectID int64, tag string, l ReleaseLink) (ReleaseLink, error)
	DeleteReleaseLink(ctx context.Context, projectID int64, tag string, id int64) error
}

// HookOwner is the project or the group that a webhook belongs to; the zero
// value is the platform.
type HookOwner struct {
	ProjectID int64
	GroupID   int64
}

// Hook is a webhook of a project, of all projects in a group, or of everything.
type Hook struct {
	ID int64
	HookOwner
	Name         string
	Description  string
	URL          string
	Token        string // sent as X-Gitlab-Token; never shown again
	Push         bool
	PushFilter   string // branch pattern; empty: all
	TagPush      bool
	MergeRequest bool
	Note         bool
	Job          bool
	Pipeline     bool
	Deployment   bool
	Release      bool
	SkipVerify   bool // do not verify the server's certificate
	CreatedAt    time.Time
	FailingSince time.Time // zero: the last delivery went well
	System       bool      // made by the platform: hidden from the API, may reach local addresses
}

// Delivery is one request of a webhook, done or still to be done.
type Delivery struct {
	ID              int64
	HookID          int64
	Event           string // X-Gitlab-Event
	UUID            string // X-Gitlab-Event-UUID, the same for all attempts
	URL             string
	Request         json.RawMessage
	Status          int // of the answer; 0: none
	RequestHeaders  map[string]string
	ResponseHeaders map[string]string
	Response        string // the beginning of the answer
	Error           string
	Attempts        int
	Seconds         float64
	CreatedAt       time.Time
	NextAt          time.Time // when to try (again); zero: done
}

type hookStore interface {
	CreateHook(ctx context.Context, h Hook) (Hook, error)
	UpdateHook(ctx context.Context, h Hook) error
	DeleteHook(ctx context.Context, o HookOwner, id int64) error
	HookByID(ctx context.Context, o HookOwner, id int64) (Hook, error)
	HookOfDelivery(ctx context.Context, hookID int64) (Hook, error)
	// Hooks lists an owner's hooks by id; system adds those that the platform
	// made.
	Hooks(ctx context.Context, o HookOwner, system bool) ([]Hook, error)
	// HooksFor lists every hook that hears of a project: its own, those of its
	// groups and the platform's. Without a project it is the platform's.
	HooksFor(ctx context.Context, projectID int64) ([]Hook, error)
	// Enqueue stores deliveries to be done now.
	Enqueue(ctx context.Context, list []Delivery) error
	DueDeliveries(ctx context.Context, now time.Time, limit int) ([]Delivery, error)
	// NextDelivery is when the next delivery is due; zero: none.
	NextDelivery(ctx context.Context) (time.Time, error)
	RecordDelivery(ctx context.Context, d Delivery) error
	Deliveries(ctx context.Context, hookID int64, limit, offset int) ([]Delivery, int, error)
	DeliveryByID(ctx context.Context, hookID, id int64) (Delivery, error)
	TrimDeliveries(ctx context.Context, before time.Time) error
	// ConsumeEvents runs fn for the events of every stage, in order, until ctx
	// ends; errors of fn are retried.
	ConsumeEvents(ctx context.Context, consumer string, report func(error), fn func(context.Context, delivery.Event) error) error
}

type lfsStore interface {
	AddLFSObject(ctx context.Context, projectID int64, oid string, size int64) error
	LFSObjectSize(ctx context.Context, projectID int64, oid string) (int64, error)
	LFSObjects(ctx context.Context, projectID int64) (map[string]int64, error)
	CopyLFSObjects(ctx context.Context, fromProject, toProject int64) error
	// LFSInUse reports which of the objects some project still has.
	LFSInUse(ctx context.Context, oids []string) (map[string]bool, error)
	LFSLocks(ctx context.Context, projectID int64) ([]LFSLock, error)
	CreateLFSLock(ctx context.Context, l LFSLock) (LFSLock, error)
	DeleteLFSLock(ctx context.Context, projectID, id int64) error
}

// LFSLock is a lock that a user has on a path.
type LFSLock struct {
	ID        int64
	ProjectID int64
	UserID    int64
	Path      string
	CreatedAt time.Time
}

// Mirror copies a repository from or to another server on a schedule.
type Mirror struct {
	ID            int64
	ProjectID     int64
	Push          bool   // to the address; otherwise from it
	URL           string // without credentials
	Username      string
	Password      string
	Enabled       bool
	OnlyProtected bool
	Interval      time.Duration
	NextAt        time.Time
	LastAt        time.Time
	LastSuccess   time.Time
	LastError     string
	Status        string // none, scheduled, started, finished, failed
}

type mirrorStore interface {
	// SetMirror adds a mirror or changes its settings; RecordMirror stores how
	// it is doing.
	SetMirror(ctx context.Context, m Mirror) (Mirror, error)
	RecordMirror(ctx context.Context, m Mirror) error
	DeleteMirror(ctx context.Context, projectID, id int64) error
	Mirrors(ctx context.Context, projectID int64) ([]Mirror, error)
	DueMirrors(ctx context.Context, now time.Time) ([]Mirror, error)
}
