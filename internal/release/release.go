// Package release is the release timeline: for each commit of a project it
// joins pipeline, image, scan, manifest commit, sync, rollout steps with their
// measurements, and who is served by which version now, and keeps what the
// cluster forgets.
//
// It receives events of the outbox and the changes of Applications and
// Rollouts, reads the other stages through the small interfaces of ports.go,
// and emits nothing but the documents of this file and the actions that people
// ask for. It must import no stage, no store and no web; cmd wires it.
package release

import "time"

// States of a release.
const (
	Building   = "building"    // its pipeline runs
	Built      = "built"       // the pipeline passed and nothing was deployed
	Failed     = "failed"      // pipeline, sync or rollout failed
	Deploying  = "deploying"   // on its way into an environment
	Serving    = "serving"     // serves an environment now
	RolledBack = "rolled_back" // the platform or a person took it back
	Superseded = "superseded"  // served once; a later version does now
	Unbuilt    = "unbuilt"     // no pipeline
)

// Release is the whole line of one commit.
type Release struct {
	Project      string       `json:"project"`
	SHA          string       `json:"sha"`
	Commit       Commit       `json:"commit"`
	Status       string       `json:"status"`
	Sentence     string       `json:"sentence"` // what became of it
	Live         bool         `json:"live"`     // something still moves
	Pipelines    []Pipeline   `json:"pipelines"`
	Images       []Image      `json:"images"`
	Environments []Deployment `json:"environments"`
	Stages       []Stage      `json:"stages"` // how long each part took
	Line         []Entry      `json:"timeline"`
}

// Commit is the commit of a release.
type Commit struct {
	SHA    string    `json:"sha"`
	Title  string    `json:"title"`
	Author string    `json:"author_name"`
	At     time.Time `json:"committed_at"`
}

// Pipeline is one pipeline of the commit.
type Pipeline struct {
	ID       int64      `json:"id"`
	Ref      string     `json:"ref"`
	Source   string     `json:"source"`
	Status   string     `json:"status"`
	Error    string     `json:"error,omitempty"` // of its configuration
	By       string     `json:"user,omitempty"`
	Created  time.Time  `json:"created_at"`
	Started  *time.Time `json:"started_at"`
	Finished *time.Time `json:"finished_at"`
	Jobs     []Job      `json:"jobs"`
}

// Job is one current job of a pipeline.
type Job struct {
	ID           int64      `json:"id"`
	Name         string     `json:"name"`
	Stage        string     `json:"stage"`
	Status       string     `json:"status"`
	AllowFailure bool       `json:"allow_failure"`
	Reason       string     `json:"failure_reason,omitempty"`
	Environment  string     `json:"environment,omitempty"`
	Started      *time.Time `json:"started_at"`
	Finished     *time.Time `json:"finished_at"`
}

// Image is what the commit's jobs pushed to the registry.
type Image struct {
	Repository string    `json:"repository"`
	Digest     string    `json:"digest"`
	Tags       []string  `json:"tags"`
	Size       int64     `json:"size"` // bytes
	Pushed     time.Time `json:"pushed_at"`
	JobID      int64     `json:"job_id,omitempty"`
	Scan       *Scan     `json:"scan"`
}

// Scan is the newest scan of an image.
type Scan struct {
	Status string         `json:"status"`
	Error  string         `json:"error,omitempty"`
	Counts map[string]int `json:"counts"` // by severity, in capitals
	Ended  *time.Time     `json:"ended_at"`
}

// Deployment is the way of the commit into one environment.
type Deployment struct {
	Environment string     `json:"environment"`
	Namespace   string     `json:"namespace,omitempty"`
	Rollout     string     `json:"rollout,omitempty"`
	Application string     `json:"application,omitempty"`
	Manifests   []Manifest `json:"manifests"` // oldest first; those that take it back have Reverts
	Syncs       []Sync     `json:"syncs"`
	Attempts    []Attempt  `json:"attempts"` // oldest first
	Weight      int32      `json:"weight"`   // per cent of the users that it serves now
	Role        string     `json:"role,omitempty"`
	Since       *time.Time `json:"serving_since"`
	Now         string     `json:"serving_sha,omitempty"` // who serves most users now
	Actions     []string   `json:"actions"`
}

// Manifest is a commit of a GitOps repository that deploys, or takes back.
type Manifest struct {
	ConfigProjectID int64     `json:"project_id"`
	ConfigProject   string    `json:"project"`
	SHA             string    `json:"sha"`
	Title           string    `json:"title"`
	By              string    `json:"author_name"`
	At              time.Time `json:"pushed_at"`
	Environment     string    `json:"environment"`
	Image           string    `json:"image,omitempty"`
	Digest          string    `json:"digest,omitempty"`
	JobID           int64     `json:"job_id,omitempty"`
	Reverts         string    `json:"reverts,omitempty"` // the manifest commit that this one takes back
	ProjectID       int64     `json:"source_project_id"`
	SourceSHA       string    `json:"source_sha"`
}

// Sync is what Argo CD did with one revision of the GitOps repository.
type Sync struct {
	Application     string     `json:"application"`
	Namespace       string     `json:"namespace"`
	Environment     string     `json:"environment"`
	ConfigProjectID int64      `json:"project_id"`
	Revision        string     `json:"revision"`
	Phase           string     `json:"phase"` // Running, Succeeded, Failed, Error
	Message         string     `json:"message,omitempty"`
	Health          string     `json:"health,omitempty"`
	By              string     `json:"by,omitempty"` // empty when automated
	Started         time.Time  `json:"started_at"`
	Finished        *time.Time `json:"finished_at"`
}

// Results of an attempt; empty while it is on its way.
const (
	Promoted  = "promoted"
	Aborted   = "aborted"
	Replaced  = "replaced" // a newer version came before it was through
	Withdrawn = "withdrawn"
)

// Attempt is one rollout of a version into an environment.
type Attempt struct {
	ID          int64      `json:"id"`
	Environment string     `json:"environment"`
	Namespace   string     `json:"namespace"`
	Rollout     string     `json:"rollout"`
	Application string     `json:"application,omitempty"`
	Strategy    string     `json:"strategy"` // canary or blueGreen
	Hash        string     `json:"pod_template_hash"`
	Image       string     `json:"image"`
	ProjectID   int64      `json:"project_id"`
	SHA         string     `json:"sha"`
	FromHash    string     `json:"from_pod_template_hash,omitempty"`
	FromSHA     string     `json:"from_sha,omitempty"`
	Result      string     `json:"result"`
	Phase       string     `json:"phase"`
	Message     string     `json:"message,omitempty"`
	Started     time.Time  `json:"started_at"`
	Ended       *time.Time `json:"ended_at"`
	Steps       []Step     `json:"steps"`
	Step        int        `json:"current_step"`
	Weight      int32      `json:"weight"`
	TopWeight   int32      `json:"highest_weight"`
	Paused      bool       `json:"paused"`
	Progress    []Progress `json:"progress"`
	Analyses    []Analysis `json:"analyses"`
	Before      *Measures  `json:"metrics_before"` // of the version before, until the rollout began
	During      *Measures  `json:"metrics_canary"` // of this version while it rolled out
	After       *Measures  `json:"metrics_after"`  // of the environment after the end
	Recovered   bool       `json:"recovered"`      // read from the cluster afterwards: steps were not seen
	Takeback    *Takeback  `json:"revert,omitempty"`
}

// Step is one step of the strategy.
type Step struct {
	Kind   string `json:"kind"`
	Text   string `json:"text"`
	Weight int32  `json:"weight"` // -1 where the step sets none
}

// Progress is one change of an attempt.
type Progress struct {
	At      time.Time `json:"at"`
	Phase   string    `json:"phase"`
	Step    int       `json:"step"`
	Weight  int32     `json:"weight"`
	Paused  bool      `json:"paused"`
	Message string    `json:"message,omitempty"`
}

// Analysis is one run of measurements.
type Analysis struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	Phase    string     `json:"phase"`
	Message  string     `json:"message,omitempty"`
	Started  time.Time  `json:"started_at"`
	Finished *time.Time `json:"finished_at"`
	Metrics  []Metric   `json:"metrics"`
}

// Metric is one measured quantity.
type Metric struct {
	Name         string        `json:"name"`
	Phase        string        `json:"phase"`
	Message      string        `json:"message,omitempty"`
	Condition    string        `json:"success_condition,omitempty"`
	Measurements []Measurement `json:"measurements"`
}

// Measurement is one value; Value is null where the provider gave no number.
type Measurement struct {
	At    time.Time `json:"at"`
	Value *float64  `json:"value"`
	Text  string    `json:"text,omitempty"`
	Phase string    `json:"phase"`
}

// Measures are the traffic of a version or an environment over some seconds.
type Measures struct {
	At         time.Time `json:"at"`
	Seconds    float64   `json:"seconds"`
	Requests   *float64  `json:"requests_per_second"`
	ErrorShare *float64  `json:"error_share"` // from 0 to 1; null without requests
	P95        *float64  `json:"p95_seconds"`
}

// Entry is one line of the timeline.
type Entry struct {
	At          time.Time `json:"at"`
	Stage       string    `json:"stage"` // commit, pipeline, job, image, scan, manifest, sync, rollout, analysis, revert
	Environment string    `json:"environment,omitempty"`
	Status      string    `json:"status"`
	Text        string    `json:"text"`
	Detail      string    `json:"detail,omitempty"`
}

// Environment is a place where versions run.
type Environment struct {
	Name            string    `json:"name"`
	Namespace       string    `json:"namespace"`
	Rollout         string    `json:"rollout"`
	Application     string    `json:"application,omitempty"`
	ConfigProjectID int64     `json:"config_project_id,omitempty"`
	ProjectID       int64     `json:"project_id"`
	Phase           string    `json:"phase"`
	Message         string    `json:"message,omitempty"`
	Paused          bool      `json:"paused"`
	PauseReason     string    `json:"pause_reason,omitempty"`
	Aborted         bool      `json:"aborted"`
	Gone            bool      `json:"gone,omitempty"`
	Serving         []Served  `json:"serving"` // most users first
	Changes         []Commit  `json:"changes"` // what the serving version brought, newest first
	Why             string    `json:"why"`     // in a sentence
	Reason          *Manifest `json:"manifest"`
	Updated         time.Time `json:"updated_at"`
}

// Served is a version with its share of an environment's users.
type Served struct {
	SHA    string     `json:"sha"`
	Title  string     `json:"title,omitempty"`
	Hash   string     `json:"pod_template_hash"`
	Image  string     `json:"image"`
	Role   string     `json:"role"` // stable, canary, active or preview
	Weight int32      `json:"weight"`
	Since  *time.Time `json:"since"`
}

// Overview is the first screen of a project.
type Overview struct {
	Project      string        `json:"project"`
	Environments []Environment `json:"environments"`
	Releases     []Summary     `json:"releases"` // newest first
}

// Summary is a release in a list.
type Summary struct {
	SHA          string    `json:"sha"`
	Title        string    `json:"title"`
	Author       string    `json:"author_name"`
	At           time.Time `json:"at"`
	Status       string    `json:"status"`
	Sentence     string    `json:"sentence"`
	Environments []string  `json:"environments"` // those that it serves now
	Live         bool      `json:"live"`
}
