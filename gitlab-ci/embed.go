// Package gitlabci holds the reusable parts of a .gitlab-ci.yml that ship with Slipway: build, test,
// scan, publish and deploy. It owns the text only; include:template reads it through Templates. It
// receives and emits nothing and imports only the embed package.
package gitlabci

import (
	"embed"
	"io/fs"
)

//go:embed templates
var files embed.FS

// Templates returns the tree of templates, by names such as "Build.gitlab-ci.yml" or
// "Workflows/Branch-Pipelines.gitlab-ci.yml".
func Templates() fs.FS {
	tree, err := fs.Sub(files, "templates")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	return tree
}
