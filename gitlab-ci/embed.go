// Package gitlabci holds the reusable parts of a .gitlab-ci.yml that ship with Slipway: build, test,
// scan, publish and deploy, and those that GitLab's users know by name. It owns the text only;
// include:template reads it through Templates. It receives and emits nothing and imports only the
// standard library.
package gitlabci

import (
	"embed"
	"errors"
	"io/fs"
	"strings"
)

//go:embed templates
var files embed.FS

// Templates returns the tree of templates, by names such as "Build.gitlab-ci.yml" or
// "Workflows/Branch-Pipelines.gitlab-ci.yml". A name with .latest, GitLab's mark of its newest
// version, is that of the only version there is.
func Templates() fs.FS {
	tree, err := fs.Sub(files, "templates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return latest{tree}
}

type latest struct{ fs.FS }

// Open implements fs.FS.
func (l latest) Open(name string) (fs.File, error) {
	f, err := l.FS.Open(name)
	if plain := strings.Replace(name, ".latest.gitlab-ci.yml", ".gitlab-ci.yml", 1); errors.Is(err, fs.ErrNotExist) && plain != name {
		return l.FS.Open(plain)
	}
	return f, err
}
