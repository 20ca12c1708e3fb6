// Package ci is the command `slipway ci`: checking, planning, expanding and running the
// .gitlab-ci.yml of a working copy. It owns the command line, what it knows about the working copy and
// the local hand-out of jobs; it receives files and flags and emits text or JSON. It imports the
// language (gitlabci), its state machine, the shipped templates and the runner, and must not need a
// running platform.
package ci
