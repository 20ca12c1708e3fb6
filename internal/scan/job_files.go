package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// inJob makes a path of the job absolute, as the job sees it.
func (r *jobRun) inJob(p string) (string, error) {
	if !path.IsAbs(p) {
		p = path.Join(r.call.Dir, p)
	}
	return path.Clean(p), nil
}

// inBuilds returns a path of the job relative to its builds.
func (r *jobRun) inBuilds(p string) (string, error) {
	abs, err := r.inJob(p)
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(abs, strings.TrimSuffix(r.call.BuildsPath, "/")+"/")
	if !ok {
		return "", refuse("%s is not in the job's build folder %s; only what lies there can be scanned", p, r.call.BuildsPath)
	}
	return rel, nil
}

// localName is where a path of the job goes in the private tree: in the same
// place below the job's current folder, so that reports name what people know.
func (r *jobRun) localName(p string) (string, error) {
	abs, err := r.inJob(p)
	if err != nil {
		return "", err
	}
	if abs == path.Clean(r.call.Dir) {
		return ".", nil
	}
	if rel, ok := strings.CutPrefix(abs, path.Clean(r.call.Dir)+"/"); ok {
		return rel, nil
	}
	return path.Join("outside", path.Base(abs)), nil
}

// places are where a path of the job lies in its build folder, and where it goes
// in the private tree.
func (r *jobRun) places(p string) (rel, local string, err error) {
	if rel, err = r.inBuilds(p); err != nil {
		return "", "", err
	}
	local, err = r.localName(p)
	return rel, local, err
}

// fetch copies one file of the job and returns its name in the private tree.
func (r *jobRun) fetch(p string) (string, error) {
	rel, local, err := r.places(p)
	if err != nil {
		return "", err
	}
	if err := r.copyFile(rel, local); err != nil {
		return "", refuse("%s cannot be read: %v", p, reason(err))
	}
	return local, nil
}

func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// copyTree copies a file or folder of the job. Links are not followed and not
// copied: os.Root keeps a job that changes its files meanwhile from reaching
// anything outside.
func (r *jobRun) copyTree(ctx context.Context, p string) (string, error) {
	rel, local, err := r.places(p)
	if err != nil {
		return "", err
	}
	err = fs.WalkDir(r.root.FS(), rel, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir // Trivy skips it as well
		}
		if !d.Type().IsRegular() {
			return nil
		}
		sub := strings.TrimPrefix(strings.TrimPrefix(name, rel), "/")
		err = r.copyFile(name, path.Join(local, sub))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the job removed it meanwhile
		}
		return err
	})
	var no refusal
	if err != nil && !errors.As(err, &no) {
		return "", refuse("%s cannot be read: %v", p, reason(err))
	}
	return local, err
}

func (r *jobRun) copyFile(rel, local string) error {
	in, err := r.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", rel)
	}
	target := filepath.Join(r.tree, filepath.FromSlash(local))
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, r.s.cfg.MaxTree-r.copied+1))
	if r.copied += n; err == nil && r.copied > r.s.cfg.MaxTree {
		err = refuse("the files are larger than %d MB in all; name the folder that matters", r.s.cfg.MaxTree>>20)
	}
	return errors.Join(err, out.Close())
}
