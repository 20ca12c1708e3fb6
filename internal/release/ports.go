package release

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Store keeps what the timeline has seen. Writes are durable when they return;
// it is safe for concurrent use. What is not there is a NotFound.
type Store interface {
	// PutManifest stores a manifest commit; one that is known stays as it is.
	PutManifest(ctx context.Context, m Manifest) error
	Manifest(ctx context.Context, configProjectID int64, sha string) (Manifest, error)
	// Manifests lists those of a source commit, oldest first; sha "" lists the
	// newest of the whole project, newest first, at most 200.
	Manifests(ctx context.Context, projectID int64, sha string) ([]Manifest, error)
	PutSync(ctx context.Context, s Sync) error
	Sync(ctx context.Context, application, revision string) (Sync, error)
	// Syncs lists the syncs of a GitOps project from a time on, oldest first.
	Syncs(ctx context.Context, configProjectID int64, from time.Time) ([]Sync, error)
	// PutAttempt stores an attempt and sets the ID of a new one.
	PutAttempt(ctx context.Context, a *Attempt, settled bool) error
	// Attempts lists those of a source commit, oldest first; sha "" lists those
	// of the whole project, newest first, at most 200.
	Attempts(ctx context.Context, projectID int64, sha string) ([]Attempt, error)
	// RolloutAttempts lists the newest attempts of a rollout, newest first.
	RolloutAttempts(ctx context.Context, namespace, rollout string, limit int) ([]Attempt, error)
	// Unsettled lists attempts that may still change, oldest first.
	Unsettled(ctx context.Context) ([]Attempt, error)
	PutEnvironment(ctx context.Context, e Environment) error
	Environments(ctx context.Context, projectID int64) ([]Environment, error)
	// Settings returns what a project wants; NotFound where it has said nothing.
	Settings(ctx context.Context, projectID int64) (Settings, error)
	PutSettings(ctx context.Context, projectID int64, v Settings) error
	// DeleteProject forgets a project.
	DeleteProject(ctx context.Context, projectID int64) error
}

// Code reads repositories and projects.
type Code interface {
	Project(ctx context.Context, id int64) (delivery.Project, error)
	// Commit returns a commit; NotFound where the repository has none.
	Commit(ctx context.Context, projectID int64, sha string) (delivery.Commit, error)
	// CommitsBetween lists commits of to that from has not, newest first.
	CommitsBetween(ctx context.Context, projectID int64, from, to string, limit int) ([]delivery.Commit, error)
	// Recent lists the newest commits of the default branch.
	Recent(ctx context.Context, p delivery.Project, limit int) ([]delivery.Commit, error)
	// ProjectOfURL returns the project that a clone address names, and a
	// NotFound for an address elsewhere.
	ProjectOfURL(ctx context.Context, repoURL string) (delivery.Project, error)
}

// Pipelines reads the CI engine.
type Pipelines interface {
	// OfCommit lists a commit's pipelines with their jobs, newest first.
	OfCommit(ctx context.Context, projectID int64, sha string) ([]Pipeline, error)
	// SourceOfJob returns the project and commit that a job ran for.
	SourceOfJob(ctx context.Context, jobID int64) (projectID int64, sha string, err error)
}

// Images reads registry and scanner. Nil where the platform has no registry.
type Images interface {
	// OfJobs lists the images that jobs pushed.
	OfJobs(ctx context.Context, projectID int64, jobIDs []int64) ([]Image, error)
	// Source returns the project that owns an image reference and the commit
	// that it was built from; NotFound for a foreign image, and sha "" where no
	// job pushed it.
	Source(ctx context.Context, reference string) (projectID int64, sha string, err error)
}

// Rollouts reads the cluster and acts on it. Nil where there is none.
type Rollouts interface {
	// Versions returns the versions that a rollout knows, oldest first.
	Versions(ctx context.Context, namespace, name string) ([]Version, error)
	Promote(ctx context.Context, namespace, name string) error
	PromoteFull(ctx context.Context, namespace, name string) error
	Abort(ctx context.Context, namespace, name string) error
	Retry(ctx context.Context, namespace, name string) error
	// Revert commits the state before the newest sync and returns the commit. It
	// is a Conflict where that sync began after the order's time.
	Revert(ctx context.Context, application string, by delivery.Identity, o Order) (string, error)
	// Announce writes a Kubernetes event of a Rollout.
	Announce(ctx context.Context, namespace, rollout, reason, message string, warning bool) error
}

// Members says what a person may do.
type Members interface {
	RoleIn(ctx context.Context, who delivery.Identity, projectID int64) (delivery.Role, error)
	UserRole(ctx context.Context, userID, projectID int64) (delivery.Role, error)
	// Person returns an active user as the caller; NotFound or Forbidden where
	// the account is gone or blocked.
	Person(ctx context.Context, userID int64) (delivery.Identity, error)
	// Audit records what was done with a project.
	Audit(ctx context.Context, who delivery.Identity, action string, p delivery.Project, details string)
}

// Metrics evaluates a query to one number; ok is false where it gives none.
type Metrics interface {
	Number(ctx context.Context, query string, at time.Time) (value float64, ok bool, err error)
}

// Version is one version that a rollout knows.
type Version struct {
	Number   int64
	Hash     string
	Images   []string
	Created  time.Time
	Analyses []Analysis
}

// ApplicationState is an Argo CD Application at some time.
type ApplicationState struct {
	Name, Namespace, RepoURL, Path string
	Health                         string
	Error                          string // of a condition, such as manifests that cannot be rendered
	Revision                       string // compared with
	Operation                      *Sync  // only revision, phase, message, by and times
	History                        []Sync // likewise
}

// RolloutState is an Argo Rollout at some time.
type RolloutState struct {
	Namespace, Name, Application string
	Strategy, Phase, Message     string
	Aborted                      bool
	AbortedAt                    time.Time
	Paused                       bool
	PauseReason                  string
	Steps                        []Step
	Step                         int
	Weight                       int32
	StableHash, CurrentHash      string
	Images                       []string
	Gone                         bool
}
