// Package ci is the command `slipway ci`: checking, planning and expanding a .gitlab-ci.yml of a
// working copy. It owns the command line and what it knows about the working copy; it receives
// files and flags and emits text or JSON. It imports the language (gitlabci) and the shipped
// templates, and must not import a running platform's stages.
package ci
