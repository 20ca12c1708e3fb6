package pipeline

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Projects answers questions about projects and their members.
type Projects interface {
	// Project returns a project by number, or an error of kind NotFound.
	Project(ctx context.Context, id int64) (delivery.Project, error)
	// ProjectByPath returns a project by full path, or an error of kind NotFound.
	ProjectByPath(ctx context.Context, path string) (delivery.Project, error)
	// Ancestors returns the groups above a project, the nearest first; none for
	// a project in a user's own namespace.
	Ancestors(ctx context.Context, projectID int64) ([]delivery.Group, error)
	// RoleIn returns the user's role in the project, Owner for administrators.
	RoleIn(ctx context.Context, userID, projectID int64) (delivery.Role, error)
	// JobRoleIn returns the role that a job of jobProjectID has in the project
	// on behalf of its user: the user's, but NoAccess in another project whose
	// job token allowlist does not name the job's.
	JobRoleIn(ctx context.Context, userID, jobProjectID, projectID int64) (delivery.Role, error)
}

// Users finds accounts.
type Users interface {
	User(ctx context.Context, id int64) (delivery.User, error)
}

// Repositories reads and pins commits of projects. Revisions are commit IDs,
// branch or tag names, or full ref names.
type Repositories interface {
	// ReadFile returns a file of a commit, or an error of kind NotFound.
	ReadFile(ctx context.Context, projectID int64, revision, path string) ([]byte, error)
	// Paths lists all files of a commit, slash-separated.
	Paths(ctx context.Context, projectID int64, revision string) ([]string, error)
	// ChangedPaths lists the files that differ between two commits, both names
	// of a rename included.
	ChangedPaths(ctx context.Context, projectID int64, from, to string) ([]string, error)
	// Commit returns a commit, or an error of kind NotFound.
	Commit(ctx context.Context, projectID int64, revision string) (delivery.Commit, error)
	// Ref returns a branch or tag by short or full name, or an error of kind
	// NotFound. Where a short name is both, the branch wins.
	Ref(ctx context.Context, projectID int64, name string) (delivery.Ref, error)
	// Tags lists the tags of a project.
	Tags(ctx context.Context, projectID int64) ([]delivery.Ref, error)
	// MergeBase returns the best common ancestor of two commits; empty: none.
	MergeBase(ctx context.Context, projectID int64, a, b string) (string, error)
	// SetRef makes a full ref name point to a commit without telling anybody;
	// an empty commit deletes it. Pipelines keep theirs alive with it.
	SetRef(ctx context.Context, projectID int64, fullName, sha string) error
	// Protected reports whether a branch or tag is protected.
	Protected(ctx context.Context, projectID int64, name string, tag bool) (bool, error)
	// MayUpdate reports whether the user may push to a branch or create a tag,
	// protection considered: running a pipeline on a ref asks for the same.
	MayUpdate(ctx context.Context, userID, projectID int64, name string, tag bool) (bool, error)
}

// MergeRequests finds merge requests.
type MergeRequests interface {
	// MergeRequest returns one by its number in the target project.
	MergeRequest(ctx context.Context, projectID, iid int64) (delivery.MergeRequest, error)
	// OpenMergeRequests lists the open ones that have the branch of the project
	// as their source.
	OpenMergeRequests(ctx context.Context, projectID int64, branch string) ([]delivery.MergeRequest, error)
}

// Releases makes the releases that jobs with the release keyword ask for.
type Releases interface {
	CreateRelease(ctx context.Context, projectID, userID int64, r ReleaseRequest) error
}

// ReleaseRequest is what a job says about its release.
type ReleaseRequest struct {
	Tag, TagMessage, Name, Description, Ref string
	Milestones                              []string
	ReleasedAt                              string
	Links                                   []ReleaseAsset
}

// ReleaseAsset is a link of a release.
type ReleaseAsset struct{ Name, URL, FilePath, Type string }

// Clusters gives jobs access to Kubernetes.
type Clusters interface {
	// JobAccess makes a credential for one job. A namespace that the job may not
	// have is an error of kind Invalid; Unavailable means to try again later.
	JobAccess(ctx context.Context, r ClusterRequest) (ClusterAccess, error)
}

// ClusterRequest describes a job with an environment.
type ClusterRequest struct {
	ProjectID   int64
	ProjectPath string // its last part
	Environment string
	Slug        string        // of the environment
	Granted     []string      // namespaces that the environment's jobs may change beside its own
	Wanted      string        // environment:kubernetes:namespace; empty: none
	Lifetime    time.Duration // of the credential
}

// ClusterAccess is a job's credential.
type ClusterAccess struct {
	Kubeconfig string // limited to the granted namespaces
	Namespace  string // the one to work in
	Token      string // the secret part of Kubeconfig
}
