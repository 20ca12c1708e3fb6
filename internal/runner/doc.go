// Package runner executes CI jobs.
//
// It owns a job's life cycle on this host: it takes a delivery.JobSpec from the
// coordinator, gets the sources, restores caches and artifacts, generates the
// shell scripts, has an Executor run them, masks and forwards the trace, saves
// caches and artifacts and reports the result, with the words, the order and
// the failure reasons of the official GitLab Runner. It receives jobs through a
// Coordinator and emits reports to it; it keeps a journal of the jobs in hand,
// so that a job interrupted by a crash is reported after the restart.
//
// Work on the build folder is done by this process through os.Root or by git in
// a folder that no job process can touch at that time: what a job leaves there
// (symbolic links, git configuration, hooks) is data and is never followed out
// of the folder or executed.
//
// It must not import another stage, the store, the configuration or the web,
// nor containerd: executors are packages of their own.
package runner
