package delivery

import (
	"context"
	"io"
	"time"
)

// What a runner and the coordinator say to each other about a job. The HTTP
// protocol and the built-in runner use the same words; both ends are tested
// against the same rules.

// RunnerSession identifies one runner process to the coordinator.
type RunnerSession struct {
	Token    string // the runner's authentication token
	SystemID string // tells apart the processes that share a token; may be empty
	Info     RunnerInfo
}

// RunnerInfo is what a runner says about itself.
type RunnerInfo struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Revision     string `json:"revision"`
	Platform     string `json:"platform"`
	Architecture string `json:"architecture"`
	Executor     string `json:"executor"`
	Shell        string `json:"shell"`
}

// JobState is a job's state as a runner reports it.
type JobState string

// States that a runner reports.
const (
	// JobPending keeps the offer of a job that was handed out and cannot start
	// yet: it stays pending, with JobUpdate.Waiting as what it waits for. A
	// runner repeats it at least every 30 seconds, until it accepts the job with
	// JobRunning. It is no part of the HTTP protocol.
	JobPending JobState = "pending"
	JobRunning JobState = "running"
	JobSuccess JobState = "success"
	JobFailed  JobState = "failed"
)

// JobUpdate is a runner's report on its job.
type JobUpdate struct {
	State         JobState
	Waiting       string // what the job waits for, such as "waiting for 1.0 GB, 0.6 GB free"; for JobPending
	FailureReason string // GitLab's, such as script_failure; for JobFailed
	ExitCode      int    // of the script; 0 when there is none
	TraceChecksum string // "crc32:%08x" of the whole trace; empty: not checked
	TraceSize     int64  // bytes of the whole trace; 0: not checked
}

// JobAck is the coordinator's answer to a JobUpdate or to a piece of trace.
type JobAck struct {
	// Status is the job's status on the server. canceling asks the runner to
	// stop and to report JobFailed; canceled and failed tell it to drop the job.
	Status string
	// TraceSize is how many bytes of the trace are stored. After a refused
	// piece the runner goes on from there.
	TraceSize int64
	// TraceInvalid is set when the final update's checksum does not match: the
	// stored trace was emptied and the runner sends it again from 0.
	TraceInvalid bool
	// Interval is how often the trace is wanted; 0 leaves it to the runner.
	Interval time.Duration
}

// ArtifactUpload describes a file that a job uploads.
type ArtifactUpload struct {
	Filename string // base name
	Type     string // archive, metadata, junit, dotenv, cobertura, ...
	Format   string // zip, gzip, raw
	ExpireIn string // as in the job; empty: the instance's default
}

// ArtifactFile is an open artifact. The caller closes Body.
type ArtifactFile struct {
	Filename string
	Size     int64
	Body     io.ReadCloser
}

// Coordinator hands jobs to runners and takes their reports. It is safe for
// concurrent use. Errors of kind Forbidden or NotFound mean that the job is no
// longer the runner's: it stops without reporting. Errors of kind Unavailable
// are worth a retry.
type Coordinator interface {
	// RequestJob waits until there is a job for the runner or ctx ends (then it
	// returns ctx's error). A job that was handed out must be accepted with a
	// first UpdateJob of state JobRunning, and be kept alive with one at least
	// every minute, or it goes back to the queue or fails.
	RequestJob(ctx context.Context, runner RunnerSession) (*JobSpec, error)
	// UpdateJob reports the job's state. The token is the job's.
	UpdateJob(ctx context.Context, jobID int64, token string, u JobUpdate) (JobAck, error)
	// AppendTrace stores data as the trace's bytes from offset on. An offset
	// that is not the stored size is answered with an error of kind Conflict
	// and the stored size in the JobAck; overlapping bytes are not stored twice.
	AppendTrace(ctx context.Context, jobID int64, token string, offset int64, data []byte) (JobAck, error)
	// UploadArtifact stores a file of the job, streamed.
	UploadArtifact(ctx context.Context, jobID int64, token string, a ArtifactUpload, body io.Reader) error
	// DownloadArtifact opens the archive of the job that the token belongs to;
	// JobDependency names both.
	DownloadArtifact(ctx context.Context, jobID int64, token string) (ArtifactFile, error)
}
