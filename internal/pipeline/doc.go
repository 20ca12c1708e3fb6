// Package pipeline turns pushes, schedules, triggers, API calls and other
// pipelines into pipelines of jobs, hands the jobs to runners and follows them
// to their end.
//
// It owns pipelines, jobs, traces, artifacts, variables, runners, environments
// and schedules. It receives delivery.Pushed and delivery.MergeRequestChanged
// from the outbox, calls of the REST API and of the GitLab Runner protocol; it
// emits delivery.PipelineChanged, JobChanged and DeploymentChanged in the
// transaction of the change that they describe. What a configuration means is
// decided by its sub-package gitlabci, which status follows which by process.
//
// It must not import another stage, the store or the web: it declares what it
// needs of them in ports.go and records.go.
package pipeline
