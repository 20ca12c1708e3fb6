// Package e2e holds the user's promises, shown on the real programs. They
// are built with the tag e2e and need root.
package e2e
