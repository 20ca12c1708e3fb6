package gitlabci

import (
	"context"
	"errors"
)

// ErrNotFound is returned (wrapped or not) by a Sources method for a file, project, template or
// component that does not exist or that the user of the pipeline may not read. GitLab makes no
// difference between the two, so that a pipeline cannot probe for projects.
var ErrNotFound = errors.New("not found")

// Location names the tree an included file was read from. The zero Location is the tree of the
// commit the pipeline runs for. A file included from another project resolves its own local
// includes in that project.
type Location struct {
	Project string // full path such as "group/project"; empty: the pipeline's own project
	Ref     string // branch, tag or commit as written; empty: HEAD of the default branch, or the pipeline's own commit
}

// Component is the address of a CI/CD component: host/group/project/name@version.
type Component struct {
	Host    string // host name with port if there is one, not checked by this package
	Project string // full path of the component project
	Name    string
	Version string // commit, tag, branch, "~latest", or a partial semantic version such as "1" or "1.2"
}

// ComponentFile is a resolved component.
type ComponentFile struct {
	Content  []byte
	Location Location // project and the commit or tag the version resolved to
	Path     string   // templates/<name>.yml or templates/<name>/template.yml

	// Facts for spec:component interpolation.
	SHA     string
	Version string
}

// Sources reads what a configuration names but does not hold. Methods are called one at a time
// within one Compile or Plan call; they must honour ctx. A missing file is ErrNotFound; any other
// error is reported at the place of the include with the error's text, so it must be fit for a user.
type Sources interface {
	// ReadFile returns the content of a file by its slash-separated path from the root of a tree.
	ReadFile(ctx context.Context, at Location, path string) ([]byte, error)
	// Paths lists all files of a tree, slash-separated, from its root. It is asked at most once per
	// Location in one call, and only when a glob or rules:exists needs it.
	Paths(ctx context.Context, at Location) ([]string, error)
	// Remote fetches an http(s) address.
	Remote(ctx context.Context, url string) ([]byte, error)
	// Template returns a template that ships with the product, by name such as "Test.gitlab-ci.yml".
	Template(ctx context.Context, name string) ([]byte, error)
	// Component resolves a component address to its file.
	Component(ctx context.Context, c Component) (ComponentFile, error)
}
