package delivery

import (
	"context"
	"encoding/json"
	"time"
)

// Ref is a branch or a tag.
type Ref struct {
	Name      string // short: main, v1.0
	FullName  string // refs/heads/main, refs/tags/v1.0
	SHA       string // the commit, also for an annotated tag
	TagSHA    string // the tag object of an annotated tag
	Message   string // the message of an annotated tag, without its signature
	Tagger    Signature
	Commit    Commit
	Default   bool
	Protected bool
	Merged    bool // reachable from the default branch
}

// TreeEntry is one entry of a folder in a repository.
type TreeEntry struct {
	Mode string // git's, such as 100644, 100755, 120000, 040000, 160000
	Type string // blob, tree or commit (a submodule)
	SHA  string
	Name string
	Path string
	Size int64 // bytes of a blob; -1 where it was not asked for
}

// FileChange is one file that differs between two commits.
type FileChange struct {
	OldPath string
	NewPath string
	OldMode string
	NewMode string
	OldSHA  string
	NewSHA  string
	Status  string // added, modified, deleted, renamed, copied or type_changed
}

// CommitAction changes one file in a new commit. The actions are GitLab's
// (doc/api/commits.md): create, update, delete, move, chmod.
type CommitAction struct {
	Action       string
	Path         string
	PreviousPath string // move
	Content      []byte // create, update; nil in a move keeps the file's content
	Executable   *bool  // chmod; create and update where set
	LastCommit   string // when set, the file must not have changed since this commit
}

// NewCommit is a commit to be made on a branch.
type NewCommit struct {
	Branch      string
	StartBranch string // made from here when Branch does not exist; empty: the default branch
	StartSHA    string // alternative to StartBranch
	Message     string
	Author      Signature // empty: the caller's
	Actions     []CommitAction
	Force       bool // overwrite Branch with StartBranch or StartSHA plus the commit
}

// MergeRequest asks to merge a branch, possibly of a fork, into another.
type MergeRequest struct {
	ID                 int64
	IID                int64 // number within the target project
	ProjectID          int64 // the target project
	SourceProjectID    int64 // 0 when the fork was deleted
	SourceBranch       string
	TargetBranch       string
	Title              string
	Description        string
	State              string // opened, closed, merged or locked
	Draft              bool
	Squash             bool
	RemoveSourceBranch bool
	AutoMerge          bool // merge when the pipeline succeeds
	AuthorID           int64
	AssigneeIDs        []int64
	ReviewerIDs        []int64
	Labels             []string
	HeadSHA            string // tip of the source branch as last pushed
	BaseSHA            string // merge base with the target
	StartSHA           string // tip of the target when HeadSHA was pushed
	MergeStatus        string // unchecked, checking, mergeable, conflict, draft_status, ci_must_pass, not_approved, discussions_not_resolved, not_open, need_rebase, broken_status
	MergeError         string
	MergeCommitSHA     string
	SquashCommitSHA    string
	MergedByID         int64
	MergedAt           time.Time
	ClosedAt           time.Time
	CreatedAt          time.Time
	UpdatedAt          time.Time
}

// JobClaim says what a CI job token stands for.
type JobClaim struct {
	JobID     int64
	ProjectID int64
	UserID    int64
}

// ScopeJob is the scope of a CI job token on REST routes; routes that a job
// may call name it in their Need.
const ScopeJob = "ci_job"

// JobTokens validates CI job tokens. JobByToken returns an error of kind
// NotFound for a token that is unknown or whose job has ended.
type JobTokens interface {
	JobByToken(ctx context.Context, token string) (JobClaim, error)
}

// WebhookPayloads renders the body of a webhook for an event that belongs to
// another stage than the forge: pipeline, job, deployment. The name is the
// value of X-Gitlab-Event, such as "Pipeline Hook". A nil body means that the
// event has none.
type WebhookPayloads interface {
	WebhookPayload(ctx context.Context, e Event) (name string, body json.RawMessage, err error)
}
