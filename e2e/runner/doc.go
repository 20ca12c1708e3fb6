// Package runner holds end-to-end tests of the built-in runner on a real
// containerd: run them with the build tag e2e.
package runner
