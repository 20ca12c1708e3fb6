// Package e2e holds the end-to-end tests that start the whole platform. They
// are built with the tag e2e and need root.
package e2e
