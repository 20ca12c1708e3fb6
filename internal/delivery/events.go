package delivery

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventKind names what happened.
type EventKind string

// The events of the flow, in its order.
const (
	EventPushed             EventKind = "pushed"              // payload Pushed: a branch or tag moved
	EventMergeRequest       EventKind = "merge_request"       // payload MergeRequestChanged
	EventNote               EventKind = "note"                // payload NoteAdded
	EventPipelineChanged    EventKind = "pipeline_changed"    // payload PipelineChanged: any status change
	EventJobChanged         EventKind = "job_changed"         // payload JobChanged: any status change
	EventImagePushed        EventKind = "image_pushed"        // payload ImagePushed
	EventImageScanned       EventKind = "image_scanned"       // payload ImageScanned
	EventDeploymentChanged  EventKind = "deployment_changed"  // payload DeploymentChanged
	EventApplicationChanged EventKind = "application_changed" // payload ApplicationChanged: sync or health
	EventRolloutChanged     EventKind = "rollout_changed"     // payload RolloutChanged: step, phase or abort
	EventReleaseCreated     EventKind = "release_created"     // payload ReleaseCreated
	EventProjectDeleted     EventKind = "project_deleted"     // payload empty; ProjectID is the project's
)

// Event is a record of the outbox: written in the transaction of the change it
// describes, delivered at least once and in order to each named consumer. An
// event is a hint; consumers re-list on start and must be idempotent. Payloads
// never hold secrets.
type Event struct {
	ID        int64
	Kind      EventKind
	ProjectID int64 // 0 when the event belongs to no project
	At        time.Time
	Payload   json.RawMessage
}

// NewEvent encodes the payload. It fails only for payloads that JSON cannot
// express, which is a defect.
func NewEvent(kind EventKind, projectID int64, payload any) (Event, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return Event{}, fmt.Errorf("delivery: encode %s event: %w", kind, err)
	}
	return Event{Kind: kind, ProjectID: projectID, Payload: raw}, nil
}

// Decode reads the payload into v.
func (e Event) Decode(v any) error {
	if err := json.Unmarshal(e.Payload, v); err != nil {
		return fmt.Errorf("delivery: decode %s event %d: %w", e.Kind, e.ID, err)
	}
	return nil
}

// Pushed tells that one ref of a repository moved. Before or After is ZeroSHA
// when the ref was created or deleted.
type Pushed struct {
	Ref         string            `json:"ref"` // full name: refs/heads/main, refs/tags/v1
	Before      string            `json:"before"`
	After       string            `json:"after"`
	UserID      int64             `json:"user_id"`
	PushOptions map[string]string `json:"push_options,omitempty"` // such as ci.skip, ci.variable
	ByJob       int64             `json:"by_job,omitempty"`       // the job whose token pushed; 0 for people
}

// MergeRequestChanged tells what happened to a merge request.
type MergeRequestChanged struct {
	ID     int64  `json:"id"`
	IID    int64  `json:"iid"`
	Action string `json:"action"` // GitLab's: open, update, merge, close, reopen, approved, unapproved
	UserID int64  `json:"user_id"`
	OldSHA string `json:"oldrev,omitempty"` // source head before an update by push
	// Assignees and Reviewers were added by this change; Mentions are the user
	// names that its description names since.
	Assignees []int64  `json:"assignees,omitempty"`
	Reviewers []int64  `json:"reviewers,omitempty"`
	Mentions  []string `json:"mentions,omitempty"`
	// InReview: the notes of a review, submitted with it, tell people of it.
	InReview bool `json:"in_review,omitempty"`
}

// NoteAdded tells of a comment.
type NoteAdded struct {
	ID           int64  `json:"id"`
	NoteableType string `json:"noteable_type"` // MergeRequest or Commit
	NoteableIID  int64  `json:"noteable_iid"`
	CommitSHA    string `json:"commit_sha,omitempty"`
	UserID       int64  `json:"user_id"`
	// Review is what the note was submitted with; nil: it was written alone.
	Review *Review `json:"review,omitempty"`
}

// Review is what somebody submitted at once about a merge request: each note
// has an event of its own, and people are told of all by the first.
type Review struct {
	Notes    []int64 `json:"notes"`
	Approved bool    `json:"approved,omitempty"`
}

// PipelineChanged tells that a pipeline changed its status. Statuses are
// GitLab's: created, pending, running, success, failed, canceled, skipped,
// manual, scheduled, waiting_for_resource, preparing, canceling.
type PipelineChanged struct {
	ID     int64  `json:"id"`
	IID    int64  `json:"iid"`
	Ref    string `json:"ref"`
	SHA    string `json:"sha"`
	Source string `json:"source"`
	Status string `json:"status"`
	UserID int64  `json:"user_id"`
}

// JobChanged tells that a job changed its status.
type JobChanged struct {
	ID            int64  `json:"id"`
	PipelineID    int64  `json:"pipeline_id"`
	Name          string `json:"name"`
	Stage         string `json:"stage"`
	Status        string `json:"status"`
	FailureReason string `json:"failure_reason,omitempty"`
}

// ImagePushed tells that a manifest was stored in the registry.
type ImagePushed struct {
	Repository string `json:"repository"` // group/project[/name]
	Tag        string `json:"tag"`        // empty for a push by digest
	Digest     string `json:"digest"`
	Size       int64  `json:"size"` // bytes of configuration and layers
	UserID     int64  `json:"user_id,omitempty"`
	JobID      int64  `json:"job_id,omitempty"`
}

// ImageScanned tells that a scan of an image ended.
type ImageScanned struct {
	Repository string         `json:"repository"`
	Digest     string         `json:"digest"`
	Counts     map[string]int `json:"counts"` // by severity, in Trivy's capitals
	Err        string         `json:"error,omitempty"`
}

// DeploymentChanged tells of a deployment to an environment.
type DeploymentChanged struct {
	ID          int64  `json:"id"`
	Environment string `json:"environment"`
	Status      string `json:"status"` // created, running, success, failed, canceled
	SHA         string `json:"sha"`
	JobID       int64  `json:"job_id"`
}

// ApplicationChanged tells of an Argo CD application's sync or health.
type ApplicationChanged struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Sync      string `json:"sync"`
	Health    string `json:"health"`
	Revision  string `json:"revision"`
}

// RolloutChanged tells of a rollout's progress.
type RolloutChanged struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Phase     string `json:"phase"` // Healthy, Progressing, Paused, Degraded
	Message   string `json:"message,omitempty"`
	Step      int32  `json:"step"`
	Weight    int32  `json:"weight"`
	Image     string `json:"image,omitempty"`
	Aborted   bool   `json:"aborted"`
}

// ReleaseCreated tells of a release.
type ReleaseCreated struct {
	Tag  string `json:"tag"`
	Name string `json:"name"`
}
