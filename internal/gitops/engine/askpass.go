package engine

import (
	"crypto/rand"
	"os"
	"path/filepath"

	log "github.com/sirupsen/logrus"
)

// askpassScript answers git's two questions from the file that
// SLIPWAY_GIT_ASKPASS names. Argo CD's own helper would start its 200 MB
// command-line program twice for each fetch.
const askpassScript = `#!/bin/sh
case "$1" in
Username*) sed -n 1p "$SLIPWAY_GIT_ASKPASS" ;;
Password*) sed -n 2p "$SLIPWAY_GIT_ASKPASS" ;;
*) echo "unexpected question: $1" >&2; exit 1 ;;
esac
`

const askpassName = "slipway-git-askpass"

func installAskpass(helpers string) error {
	return os.WriteFile(filepath.Join(helpers, askpassName), []byte(askpassScript), 0o700)
}

// credentials implements git.CredsStore: each git command gets the name of a
// 0600 file that lives as long as the command, so that no credential is in an
// environment or an argument. Safe for concurrent use.
type credentials struct {
	dir     string
	helpers string
}

func newCredentials(dir, helpers string) (*credentials, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &credentials{dir: dir, helpers: helpers}, nil
}

// Add stores a credential and returns its id. A credential that cannot be
// stored makes git ask in vain and fail with an authentication error, which
// Argo CD shows; the cause is in the log.
func (c *credentials) Add(username, password string) string {
	id := rand.Text()
	if err := os.WriteFile(filepath.Join(c.dir, id), []byte(username+"\n"+password+"\n"), 0o600); err != nil {
		log.WithError(err).Error("store a git credential")
	}
	return id
}

// Remove forgets a credential.
func (c *credentials) Remove(id string) {
	if err := os.Remove(filepath.Join(c.dir, id)); err != nil && !os.IsNotExist(err) {
		log.WithError(err).Error("remove a git credential")
	}
}

// Environ returns the variables with which git finds the credential.
func (c *credentials) Environ(id string) []string {
	return []string{
		"GIT_ASKPASS=" + filepath.Join(c.helpers, askpassName),
		"SLIPWAY_GIT_ASKPASS=" + filepath.Join(c.dir, id),
		"GIT_TERMINAL_PROMPT=0",
	}
}
