package pipeline

import (
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Sources of pipelines, the values of CI_PIPELINE_SOURCE.
const (
	SourcePush           = "push"
	SourceWeb            = "web"
	SourceAPI            = "api"
	SourceSchedule       = "schedule"
	SourceTrigger        = "trigger"
	SourceMergeRequest   = "merge_request_event"
	SourceParentPipeline = "parent_pipeline"
	SourcePipeline       = "pipeline"
)

// Failure reasons, as GitLab names them.
const (
	ReasonScript           = "script_failure"
	ReasonUnknown          = "unknown_failure"
	ReasonStuck            = "stuck_or_timeout_failure"
	ReasonTimeout          = "job_execution_timeout"
	ReasonRunnerSystem     = "runner_system_failure"
	ReasonData             = "data_integrity_failure"
	ReasonDownstream       = "downstream_pipeline_creation_failed"
	ReasonUpstreamDepth    = "reached_max_descendant_pipelines_depth"
	ReasonMissingDep       = "missing_dependency_failure"
	ReasonUnmet            = "unmet_prerequisites"
	ReasonConfig           = "config_error"
	ReasonStaleDeployment  = "failed_outdated_deployment_job"
	ReasonBridgeDownstream = "downstream_bridge_project_not_found"
)

// StageStatus is a stage of a pipeline and its status.
type StageStatus struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

// SealedVariable is a variable whose value is encrypted at rest.
type SealedVariable struct {
	Key    string `json:"key"`
	Sealed string `json:"sealed"`
	File   bool   `json:"file,omitempty"`
	Raw    bool   `json:"raw,omitempty"`
	Masked bool   `json:"masked,omitempty"`
}

// Pipeline is a pipeline as it is stored.
type Pipeline struct {
	ID, ProjectID, IID    int64
	Ref                   string // short name
	Tag                   bool
	SHA, BeforeSHA        string
	Source, Status, Name  string
	UserID                int64
	CreatedAt, UpdatedAt  time.Time
	StartedAt, FinishedAt time.Time
	YAMLErrors            string
	FailureReason         string
	Protected             bool
	MergeRequestIID       int64
	ScheduleID            int64
	ParentID, ParentJobID int64 // the pipeline and bridge job that started this one
	Child                 bool  // the parent is in the same project and this one is part of it
	OnNewCommit           string
	OnJobFailure          string
	AutoCanceledBy        int64
	Stages                []StageStatus
	Variables             []SealedVariable  // of a manual run, schedule, trigger or upstream
	Facts                 map[string]string // the predefined variables persisted at creation
	Key                   string            // what created it; unique, so that an event creates one pipeline only
	Uninterruptible       bool              // a job that is not interruptible has started
}

// Coverage and durations are computed from jobs.

// Finished reports whether the pipeline reached a final status.
func (p *Pipeline) Finished() bool {
	switch p.Status {
	case "success", "failed", "canceled", "skipped":
		return true
	}
	return false
}

// FullRef returns the ref's full name.
func (p *Pipeline) FullRef() string {
	switch {
	case p.Tag:
		return "refs/tags/" + p.Ref
	case p.MergeRequestIID != 0 && p.Source == SourceMergeRequest:
		return p.Ref
	}
	return "refs/heads/" + p.Ref
}

// Job is one attempt of a job as it is stored, without its configuration.
type Job struct {
	ID, PipelineID, ProjectID int64
	Name, Stage               string
	StageIndex, Position      int
	Bridge                    bool
	Status, When              string
	AllowFailure              bool
	DAG                       bool
	Needs                     []string
	Tags                      []string
	ResourceGroup             string
	Interruptible             bool
	Retried                   bool
	Attempt                   int
	UserID                    int64
	CreatedAt, QueuedAt       time.Time
	StartedAt, FinishedAt     time.Time
	ScheduledAt, ErasedAt     time.Time
	RunnerID                  int64
	SystemID                  string
	FailureReason             string
	ExitCode                  int
	Coverage                  *float64 // percent
	Environment               string   // expanded; empty: none
	EnvironmentAction         string
	Timeout                   int // seconds
	TokenHash                 string
	TraceSize                 int64
	DownstreamID              int64
	Variables                 []SealedVariable  // given when it was played
	Inputs                    map[string]string // the same for its inputs
	RetryMax                  int
	RetryWhen                 []string
	RetryCodes                []int
	AllowCodes                []int // exit codes that count as allowed failures
	StartIn                   time.Duration
	Strategy                  string // of a bridge: "", depend or mirror
}

// Duration returns how long the job ran, or has run by now.
func (j *Job) Duration(now time.Time) time.Duration {
	switch {
	case j.StartedAt.IsZero():
		return 0
	case j.FinishedAt.IsZero():
		return now.Sub(j.StartedAt)
	}
	return j.FinishedAt.Sub(j.StartedAt)
}

// Runner kinds, as GitLab names them.
const (
	InstanceRunner = "instance_type"
	GroupRunner    = "group_type"
	ProjectRunner  = "project_type"
)

// Runner is a registered runner; its processes are RunnerManagers.
type Runner struct {
	ID              int64
	Kind            string
	OwnerID         int64 // group of a group runner, first project of a project runner
	Description     string
	TokenHash       string
	TokenHint       string
	Tags            []string
	RunUntagged     bool
	Locked, Paused  bool
	RefProtected    bool
	MaximumTimeout  int // seconds; 0: none
	MaintenanceNote string
	Builtin         bool
	CreatorID       int64
	CreatedAt       time.Time
	ContactedAt     time.Time
	Projects        []int64 // of a project runner
}

// Status is how recently the runner was heard of: online, offline, stale or
// never_contacted. The limits are GitLab's: two hours and seven days.
func (r *Runner) Status(now time.Time) string { return contactStatus(r.ContactedAt, r.CreatedAt, now) }

func contactStatus(contacted, created, now time.Time) string {
	switch {
	case contacted.IsZero() && now.Sub(created) > 7*24*time.Hour:
		return "stale"
	case contacted.IsZero():
		return "never_contacted"
	case now.Sub(contacted) > 7*24*time.Hour:
		return "stale"
	case now.Sub(contacted) > 2*time.Hour:
		return "offline"
	}
	return "online"
}

// RunnerManager is one process of a runner.
type RunnerManager struct {
	ID, RunnerID int64
	SystemID     string
	Info         delivery.RunnerInfo
	IP           string
	CreatedAt    time.Time
	ContactedAt  time.Time
}

// Owners of variables.
const (
	OwnerInstance = "instance"
	OwnerGroup    = "group"
	OwnerProject  = "project"
)

// Variable is a CI/CD variable of the instance, a group or a project.
type Variable struct {
	ID                int64
	Owner             string
	OwnerID           int64
	Key               string
	Sealed            string // the encrypted value
	File              bool
	Protected, Masked bool
	Hidden, Raw       bool
	Environment       string // scope: a name, "*" or a pattern with *
	Description       string
	Value             string // the decrypted value; not stored
}

// Artifact is a stored file of a job.
type Artifact struct {
	ID, JobID    int64
	PipelineID   int64
	ProjectID    int64
	Type, Format string
	Filename     string
	Size         int64
	SHA256       string
	CreatedAt    time.Time
	ExpireAt     time.Time // zero: never
}

// Environment is a place that jobs deploy to.
type Environment struct {
	ID, ProjectID        int64
	Name, Slug           string
	State                string // available, stopping, stopped
	Tier                 string
	ExternalURL          string
	Description          string
	AutoStopAt           time.Time
	CreatedAt, UpdatedAt time.Time
}

// Deployment is one deployment to an environment.
type Deployment struct {
	ID, IID, ProjectID   int64
	EnvironmentID        int64
	JobID                int64
	Ref                  string
	Tag                  bool
	SHA, Status          string
	UserID               int64
	OnStop               string // name of the job that stops the environment
	CreatedAt, UpdatedAt time.Time
	FinishedAt           time.Time
}

// Schedule starts pipelines at times given by a cron expression.
type Schedule struct {
	ID, ProjectID        int64
	Description, Ref     string
	Cron, Timezone       string
	Active               bool
	OwnerID              int64
	NextRun              time.Time
	Variables            []SealedVariable
	LastPipelineID       int64
	CreatedAt, UpdatedAt time.Time
}

// Trigger is a token that starts pipelines.
type Trigger struct {
	ID, ProjectID        int64
	Description          string
	TokenHash, TokenHint string
	OwnerID              int64
	CreatedAt, LastUsed  time.Time
}

// Secret is an entry of the built-in secret store.
type Secret struct {
	ID        int64
	Owner     string // as of a Variable
	OwnerID   int64
	Path      string
	Field     string
	Sealed    string
	UpdatedAt time.Time
}

// Page is a part of a listing.
type Page struct{ Limit, Offset int }

// PipelineFilter selects pipelines of a project, newest first. Zero fields do
// not restrict.
type PipelineFilter struct {
	ProjectID   int64
	Statuses    []string
	Ref, SHA    string
	Source      string
	Scope       string // branches, tags, running, pending, finished
	UserID      int64
	Name        string
	YAMLErrors  *bool
	MergeIID    int64
	ParentID    int64
	ScheduleID  int64
	Child       *bool
	BeforeID    int64
	After       time.Time // updated after
	Until       time.Time // updated before
	OrderBy     string    // id, status, ref, updated_at, user_id
	Ascending   bool
	WithoutMany bool // skip the count: the total is -1
}

// JobFilter selects jobs, newest first unless of one pipeline.
type JobFilter struct {
	ProjectID, PipelineID int64
	RunnerID              int64
	Statuses              []string
	Retried               bool // include earlier attempts
	Bridge                *bool
	Name                  string
}
