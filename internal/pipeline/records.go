package pipeline

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Store keeps what the package owns. Both functions run fn in a transaction;
// Update's is durable once it has returned nil, and updates run one at a time.
// Reads of a missing row return errors of kind NotFound.
type Store interface {
	View(ctx context.Context, fn func(Tx) error) error
	Update(ctx context.Context, fn func(Tx) error) error
	// Consume delivers events in order and at least once until ctx ends.
	Consume(ctx context.Context, consumer string, report func(error), fn func(context.Context, delivery.Event) error) error
}

// Tx is a transaction. It must not be kept.
type Tx interface {
	Now() time.Time
	// Emit appends an event to the outbox within the transaction.
	Emit(kind delivery.EventKind, projectID int64, payload any) error
	// After registers fn to run with the outcome, before any later update.
	After(fn func(error))

	PipelineRecords
	JobRecords
	RunnerRecords
	SettingRecords
	ArtifactRecords
	EnvironmentRecords
}

// PipelineRecords are the rows of pipelines.
type PipelineRecords interface {
	// InsertPipeline sets ID and IID. A Key that exists already is an error of
	// kind Conflict.
	InsertPipeline(p *Pipeline) error
	UpdatePipeline(p *Pipeline) error
	Pipeline(id int64) (Pipeline, error)
	PipelineByKey(key string) (Pipeline, error)
	Pipelines(f PipelineFilter, page Page) ([]Pipeline, int, error)
	// LatestPipeline returns the newest pipeline of a ref, of a commit when sha
	// is not empty; child pipelines are left out.
	LatestPipeline(projectID int64, ref, sha string) (Pipeline, error)
	// UnstartedPipelines lists those that were stored and not processed yet.
	UnstartedPipelines() ([]Pipeline, error)
	DeletePipeline(id int64) error
	// DeleteProject forgets everything of a project.
	DeleteProject(projectID int64) error
}

// JobRecords are the rows of jobs.
type JobRecords interface {
	// InsertJob sets ID. options is the job's configuration.
	InsertJob(j *Job, options []byte) error
	// CopyJob inserts j with the configuration of another job.
	CopyJob(j *Job, from int64) error
	UpdateJob(j *Job) error
	Job(id int64) (Job, error)
	JobOptions(id int64) ([]byte, error)
	JobWithOptions(id int64) (Job, []byte, error)
	JobByToken(hash string) (Job, error)
	// PipelineJobs lists a pipeline's current jobs in their order.
	PipelineJobs(pipelineID int64) ([]Job, error)
	Jobs(f JobFilter, page Page) ([]Job, int, error)
	// JobsWithStatus lists current jobs of all projects by status, oldest first.
	JobsWithStatus(statuses ...string) ([]Job, error)
	// ResourceJobs lists current jobs of a resource group that hold it, wait for
	// it or will do so unless they are skipped, oldest first.
	ResourceJobs(projectID int64, group string) ([]Job, error)
	ResourceMode(projectID int64, group string) (string, error)
	SetResourceMode(projectID int64, group, mode string) error
	ResourceGroups(projectID int64) (map[string]string, error)
	// Dotenv returns the variables that a job's dotenv report set.
	Dotenv(jobID int64) ([]SealedVariable, error)
	SetDotenv(jobID int64, vars []SealedVariable) error
	// Report returns the summary of a job's report; SetReport stores one.
	Report(jobID int64, kind string) ([]byte, error)
	SetReport(jobID int64, kind string, body []byte) error
	Reports(pipelineID int64, kind string) (map[int64][]byte, error)
}

// RunnerRecords are the rows of runners.
type RunnerRecords interface {
	InsertRunner(r *Runner) error
	UpdateRunner(r *Runner) error
	DeleteRunner(id int64) error
	Runner(id int64) (Runner, error)
	RunnerByToken(hash string) (Runner, error)
	Runners() ([]Runner, error)
	SetRunnerProjects(id int64, projects []int64) error
	// TouchManager notes that a process of the runner was heard of.
	TouchManager(m *RunnerManager) error
	Managers(runnerID int64) ([]RunnerManager, error)
	DeleteManager(runnerID int64, systemID string) error
}

// SettingRecords are variables, schedules, triggers, secrets and single values.
type SettingRecords interface {
	InsertVariable(v *Variable) error
	UpdateVariable(v *Variable) error
	DeleteVariable(id int64) error
	Variables(owner string, ownerID int64) ([]Variable, error)
	// ScopedVariables lists those of the instance, of groups and of a project.
	ScopedVariables(projectID int64, groups []int64) ([]Variable, error)

	InsertSchedule(s *Schedule) error
	UpdateSchedule(s *Schedule) error
	DeleteSchedule(id int64) error
	Schedule(id int64) (Schedule, error)
	Schedules(projectID int64) ([]Schedule, error)
	// DueSchedules lists active schedules whose next run is not after now; the
	// time is that of the earliest later one, zero when there is none.
	DueSchedules(now time.Time) ([]Schedule, time.Time, error)

	InsertTrigger(t *Trigger) error
	UpdateTrigger(t *Trigger) error
	DeleteTrigger(id int64) error
	Triggers(projectID int64) ([]Trigger, error)
	TriggerByToken(hash string) (Trigger, error)

	PutSecret(s *Secret) error
	DeleteSecret(id int64) error
	Secrets(owner string, ownerID int64) ([]Secret, error)

	// ProjectSettings returns what PutProjectSettings stored, nil for nothing.
	ProjectSettings(projectID int64) ([]byte, error)
	PutProjectSettings(projectID int64, body []byte) error

	Setting(name string) (string, error) // empty when not set
	SetSetting(name, value string) error
}

// ArtifactRecords are the rows of artifacts.
type ArtifactRecords interface {
	// InsertArtifact replaces an earlier file of the same job and type.
	InsertArtifact(a *Artifact) error
	Artifacts(jobID int64) ([]Artifact, error)
	PipelineArtifacts(pipelineID int64) (map[int64][]Artifact, error)
	ProjectArtifacts(projectID int64, page Page) ([]Artifact, int, error)
	DeleteArtifact(id int64) error
	UpdateArtifact(a *Artifact) error
	// ExpiredArtifacts lists those whose time is over, except those of the
	// newest successful pipeline of each ref, which are kept as GitLab does.
	ExpiredArtifacts(now time.Time, limit int) ([]Artifact, error)
	// ArtifactUses counts the rows that share a stored file.
	ArtifactUses(sha256 string) (int, error)
	// LatestArtifactJob returns the newest successful job of that name with an
	// archive, of a successful pipeline of the ref; an empty name takes any.
	LatestArtifactJob(projectID int64, ref, jobName string) (Job, error)
}

// EnvironmentRecords are the rows of environments and deployments.
type EnvironmentRecords interface {
	InsertEnvironment(e *Environment) error
	UpdateEnvironment(e *Environment) error
	DeleteEnvironment(id int64) error
	Environment(id int64) (Environment, error)
	EnvironmentByName(projectID int64, name string) (Environment, error)
	Environments(projectID int64, search, state string, page Page) ([]Environment, int, error)
	EnvironmentsToStop(now time.Time) ([]Environment, error)

	InsertDeployment(d *Deployment) error
	UpdateDeployment(d *Deployment) error
	Deployment(id int64) (Deployment, error)
	DeploymentByJob(jobID int64) (Deployment, error)
	LastDeployment(environmentID int64, status string) (Deployment, error)
	Deployments(projectID, environmentID int64, status string, ascending bool, page Page) ([]Deployment, int, error)
}
