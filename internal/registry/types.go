package registry

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Repository is a named collection of images: group/project[/name].
type Repository struct {
	ID        int64
	ProjectID int64
	Path      string // full path under /v2/, in lower case
	CreatedAt time.Time
	Tags      int   // number of tags
	Images    int   // number of manifests, the untagged ones included
	Size      int64 // bytes of all distinct configurations and layers
}

// Tag is a name for an image.
type Tag struct {
	Name     string
	Digest   string
	Size     int64     // bytes of the image's distinct configurations and layers
	PushedAt time.Time // when the tag was last moved
	UserID   int64     // who moved it; 0 when unknown
	JobID    int64     // the job that moved it; 0 for people
}

// ReferenceKind says what a manifest's descriptor points to.
type ReferenceKind string

// Kinds of references.
const (
	ConfigReference   ReferenceKind = "config"
	LayerReference    ReferenceKind = "layer"
	ManifestReference ReferenceKind = "manifest" // a platform's image in an index
)

// Descriptor is what a manifest refers to.
type Descriptor struct {
	Kind      ReferenceKind
	Digest    string
	MediaType string
	Size      int64  // bytes
	Platform  string // os/architecture[/variant], in an index
	CreatedBy string // the build step that made the layer, where the configuration says so
}

// Image is a manifest with what is known about it: one platform's image, an
// index of several, or an artifact.
type Image struct {
	RepositoryID int64
	ProjectID    int64
	Repository   string // full path
	Digest       string
	MediaType    string
	ManifestSize int64 // bytes of the manifest itself
	Size         int64 // bytes of distinct configurations and layers, of every platform
	ArtifactType string
	Subject      string // digest of the image that this one is about; empty for most
	OS           string // empty for an index
	Architecture string
	Variant      string
	Created      time.Time // when it was built, where it says so
	Labels       map[string]string
	Annotations  map[string]string
	References   []Descriptor
	Tags         []string
	PushedAt     time.Time
	UserID       int64
	JobID        int64 // the job that pushed it; it leads to the pipeline
}

// Layers returns the layers in order, the base first.
func (i Image) Layers() []Descriptor {
	var out []Descriptor
	for _, r := range i.References {
		if r.Kind == LayerReference {
			out = append(out, r)
		}
	}
	return out
}

// Policy says which tags of a project go without being asked: GitLab's
// container expiration policy. A tag is removed when it matches NameRegex, does
// not match KeepRegex, is not among the KeepN newest of its repository, is
// older than OlderThan, is not "latest", is used by nothing in the cluster, and
// matches no protection rule.
type Policy struct {
	ProjectID int64
	Enabled   bool
	Cadence   time.Duration // how often it runs
	KeepN     int           // newest matching tags to keep per repository; 0: no number
	OlderThan time.Duration // 0: of any age
	NameRegex string        // tags that may go; empty: none
	KeepRegex string        // tags that stay; empty: none
	NextRun   time.Time
}

// Index keeps the catalogue. Its writes are durable when they return. Errors
// for things that are not there are of kind delivery.NotFound. Implementations
// are safe for concurrent use.
type Index interface {
	// RecordPush stores an image and, when tag is not empty, moves the tag to
	// it, in one transaction with the event delivery.ImagePushed. The repository
	// is created when it is new. Recording the same push again changes only its
	// time.
	RecordPush(ctx context.Context, image Image, tag string, at time.Time) error
	// DeleteTag forgets a tag; the image stays.
	DeleteTag(ctx context.Context, repositoryID int64, tag string) error
	// DeleteImage forgets an image and the tags on it.
	DeleteImage(ctx context.Context, repositoryID int64, digest string) error
	// DeleteRepository forgets a repository with all that is in it.
	DeleteRepository(ctx context.Context, repositoryID int64) error

	// Repositories lists those of a project, by path; 0 lists all.
	Repositories(ctx context.Context, projectID int64) ([]Repository, error)
	Repository(ctx context.Context, id int64) (Repository, error)
	RepositoryByPath(ctx context.Context, path string) (Repository, error)
	// Tags lists the tags of a repository by name.
	Tags(ctx context.Context, repositoryID int64) ([]Tag, error)
	// Tag returns one tag.
	Tag(ctx context.Context, repositoryID int64, name string) (Tag, error)
	// Image returns an image by digest, with its references and tags.
	Image(ctx context.Context, repositoryID int64, digest string) (Image, error)
	// Images lists the images of a repository without their references.
	Images(ctx context.Context, repositoryID int64) ([]Image, error)
	// ImagesByDigest finds an image wherever it is stored.
	ImagesByDigest(ctx context.Context, digest string) ([]Image, error)
	// ImagesByJobs lists the images that jobs pushed, the first first.
	ImagesByJobs(ctx context.Context, jobIDs []int64) ([]Image, error)
	// Referrers lists the images whose subject is digest.
	Referrers(ctx context.Context, repositoryID int64, digest string) ([]Image, error)
	// Referenced reports whether a blob or manifest is an image of the
	// catalogue or is referenced by one; repositoryID 0 asks of all.
	Referenced(ctx context.Context, repositoryID int64, digest string) (bool, error)
	// Listed reports whether an index of the repository lists the image.
	Listed(ctx context.Context, repositoryID int64, digest string) (bool, error)
	// ReferencedDigests returns the digests of all images and of all they reference.
	ReferencedDigests(ctx context.Context) (map[string]struct{}, error)
	// ProjectSize returns the bytes of a project's distinct blobs.
	ProjectSize(ctx context.Context, projectID int64) (int64, error)
	// Missing returns those of the digests that no image of the project references.
	Missing(ctx context.Context, projectID int64, digests []string) ([]string, error)

	// Protections lists the rules of a project in the order they were added.
	Protections(ctx context.Context, projectID int64) ([]Protection, error)
	// AddProtection adds a rule, unless the project has as many of its kind, and
	// returns its id. That, and a pattern that is taken, is an error of kind
	// Conflict. atMost 0 sets no limit.
	AddProtection(ctx context.Context, p Protection, atMost int) (int64, error)
	// SetProtection changes pattern and levels of the rule with p's id.
	SetProtection(ctx context.Context, p Protection) error
	DeleteProtection(ctx context.Context, projectID, id int64) error

	Policy(ctx context.Context, projectID int64) (Policy, error) // the zero Policy when none is set
	SetPolicy(ctx context.Context, p Policy) error
	// DuePolicies lists the enabled policies whose NextRun is not after at.
	DuePolicies(ctx context.Context, at time.Time) ([]Policy, error)
}

// Accounts checks what people and jobs sign in with.
type Accounts interface {
	// SignIn returns the identity for a username and a password, personal,
	// project, deploy or job token (gitlab-ci-token). A wrong one gives an error
	// of kind Unauthenticated.
	SignIn(ctx context.Context, username, secret string) (delivery.Identity, error)
}

// Projects finds projects on behalf of a caller.
type Projects interface {
	// VisibleProject returns the project that ref (a full path in any case, or
	// a number) names and the caller's role in it, and an error of kind NotFound
	// where the caller may not know of it.
	VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error)
}

// Use tells what must not be removed because something runs it or will.
type Use interface {
	// InUse returns the images that workloads and release history need, as
	// digests ("sha256:...") or as references (path:tag or path@digest, with or
	// without the registry's host). An error stops the clean-up.
	InUse(ctx context.Context) ([]string, error)
}
