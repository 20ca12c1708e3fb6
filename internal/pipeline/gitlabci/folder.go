package gitlabci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Folder is a Sources over a working copy. Local includes are read from Files; includes that need a
// server are answered by the optional fields, and refused with a clear message without them.
type Folder struct {
	Files     fs.FS // the working copy's root
	Templates fs.FS // the templates of include:template; may be nil

	// Projects opens the tree of another project, for example a sibling checkout; may be nil.
	Projects func(at Location) (fs.FS, error)
	// Fetch reads an http(s) address; may be nil.
	Fetch func(ctx context.Context, url string) ([]byte, error)
}

func (f *Folder) open(at Location) (fs.FS, error) {
	if at == (Location{}) {
		return f.Files, nil
	}
	if f.Projects == nil {
		return nil, fmt.Errorf("files of the project %s are not at hand here", at.Project)
	}
	return f.Projects(at)
}

// ReadFile implements Sources.
func (f *Folder) ReadFile(_ context.Context, at Location, name string) ([]byte, error) {
	tree, err := f.open(at)
	if err != nil {
		return nil, err
	}
	return readFile(tree, name)
}

func readFile(tree fs.FS, name string) ([]byte, error) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("the path leads out of the repository: %w", ErrNotFound)
	}
	text, err := fs.ReadFile(tree, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	return text, err
}

// Paths implements Sources. The .git folder is left out.
func (f *Folder) Paths(ctx context.Context, at Location) ([]string, error) {
	tree, err := f.open(at)
	if err != nil {
		return nil, err
	}
	var out []string
	err = fs.WalkDir(tree, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == ".git" {
				return fs.SkipDir
			}
			return ctx.Err()
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

// Remote implements Sources.
func (f *Folder) Remote(ctx context.Context, url string) ([]byte, error) {
	if f.Fetch == nil {
		return nil, errors.New("addresses are not fetched here")
	}
	return f.Fetch(ctx, url)
}

// Template implements Sources.
func (f *Folder) Template(_ context.Context, name string) ([]byte, error) {
	if f.Templates == nil {
		return nil, ErrNotFound
	}
	return readFile(f.Templates, name)
}

// Component implements Sources: a component of a project that Projects can open.
func (f *Folder) Component(_ context.Context, c Component) (ComponentFile, error) {
	at := Location{Project: c.Project, Ref: c.Version}
	tree, err := f.open(at)
	if err != nil {
		return ComponentFile{}, err
	}
	return ReadComponent(tree, at, c.Name)
}

// ReadComponent finds a component in the tree of its project: templates/<name>.yml, or
// templates/<name>/template.yml.
func ReadComponent(tree fs.FS, at Location, name string) (ComponentFile, error) {
	for _, p := range []string{"templates/" + name + ".yml", "templates/" + name + "/template.yml"} {
		text, err := readFile(tree, p)
		if err == nil {
			return ComponentFile{Content: text, Location: at, Path: p, SHA: at.Ref, Version: at.Ref}, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return ComponentFile{}, err
		}
	}
	return ComponentFile{}, ErrNotFound
}
