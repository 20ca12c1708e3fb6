package scan

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/scan/report"
)

// Type says what a scan looks at.
type Type string

// Types of scans.
const (
	TypeImage  Type = "image"
	TypeFS     Type = "fs"     // a file tree: packages' lock files, secrets, configuration
	TypeConfig Type = "config" // misconfigurations of a file tree only
	TypeSecret Type = "secret" // secrets in a file tree only
)

// Status is where a scan is.
type Status string

// Statuses of a scan.
const (
	Pending Status = "pending"
	Running Status = "running"
	Success Status = "success" // the scan ran; it may have found anything
	Failed  Status = "failed"  // nothing is known: Error says why
)

// Scan is one scan with its result.
type Scan struct {
	ID         int64
	ProjectID  int64
	JobID      int64 // the job that asked for it; 0 for a push or a person
	Type       Type
	Repository string // of an image
	Digest     string // of an image
	Name       string // what to show: the reference, or the folder's name
	Status     Status
	Error      string // one sentence, for Failed
	Counts     map[string]int
	Report     *report.Report // nil unless Success, and in listings
	QueuedAt   time.Time
	StartedAt  time.Time
	EndedAt    time.Time
}

// Store keeps scans. Its writes are durable when they return; it is safe for
// concurrent use. What is not there gives an error of kind delivery.NotFound.
type Store interface {
	// Add stores a new scan and returns its id.
	Add(ctx context.Context, s Scan) (int64, error)
	// Update stores a scan's status and result. A scan of an image that has
	// ended is announced by the event delivery.ImageScanned in the same
	// transaction.
	Update(ctx context.Context, s Scan) error
	// Scan returns a scan with its report.
	Scan(ctx context.Context, id int64) (Scan, error)
	// Next returns the oldest pending scan.
	Next(ctx context.Context) (Scan, error)
	// Interrupted returns the scans that are marked as running.
	Interrupted(ctx context.Context) ([]Scan, error)
	// ByDigest returns the latest scan of an image, with its report, a
	// successful one before any other; repository may be empty.
	ByDigest(ctx context.Context, repository, digest string) (Scan, error)
	// Outdated lists the latest scan of every image, without its report, where
	// that has ended and began before the time given; the newest first.
	Outdated(ctx context.Context, before time.Time) ([]Scan, error)
	// Prune deletes the scans of an image that have ended and that no job asked
	// for, but for the newest of them.
	Prune(ctx context.Context, repository, digest string, keep int) error
	// OfProject lists a project's latest scans without reports, newest first.
	OfProject(ctx context.Context, projectID int64, limit, offset int) ([]Scan, int, error)
	// OfJob lists the scans that a job asked for, without reports.
	OfJob(ctx context.Context, jobID int64) ([]Scan, error)
}

// Images gives access to stored images.
type Images interface {
	// Export writes an image, or the platform's image of an index, as an OCI
	// layout into the folder dir, which exists and is empty. It may share file
	// contents with the store by hard links, so dir is only read.
	Export(ctx context.Context, repository, digest, dir string) error
	// Needed returns the stored images that a tag or a workload needs, each as
	// repository@digest.
	Needed(ctx context.Context) (map[string]bool, error)
}
