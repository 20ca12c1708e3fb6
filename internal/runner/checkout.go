package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// makeProjectFolder makes the project folder, open to every user of the job's
// image, and refuses anything on the way that is not a folder.
func (j *job) makeProjectFolder() error {
	at := ""
	for part := range strings.SplitSeq(j.relativeDir(), "/") {
		at = path.Join(at, part)
		if err := j.builds.Mkdir(at, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make build folder: %w", err)
		}
		info, err := j.builds.Lstat(at)
		if err != nil {
			return fmt.Errorf("make build folder: %w", err)
		}
		if !info.IsDir() {
			return &JobError{Reason: ReasonScript, Message: fmt.Sprintf("the build folder's part %q is not a folder", at)}
		}
		if err := j.builds.Chmod(at, 0o777); err != nil {
			return fmt.Errorf("make build folder: %w", err)
		}
	}
	return nil
}

// publishSources moves the checkout to its place in the builds folder. What a
// hook or a service left there goes, as `git clean -ffdx` has it in the official
// runner.
func (j *job) publishSources() error {
	if err := j.makeProjectFolder(); err != nil {
		return err
	}
	place := j.relativeDir()
	if err := j.builds.RemoveAll(place); err != nil {
		return fmt.Errorf("empty the build folder: %w", err)
	}
	// Containers can exchange folders for links meanwhile: the parent is opened
	// without following any, and a last component is not followed by a rename.
	parent, err := openBeneath(j.builds, path.Dir(place))
	if err != nil {
		return &JobError{Reason: ReasonScript, Message: "the build folder was replaced while the sources were fetched", Err: err}
	}
	defer unix.Close(parent)
	home, err := j.home.Open(".")
	if err != nil {
		return fmt.Errorf("move the sources: %w", err)
	}
	defer home.Close()
	if err := unix.Renameat(int(home.Fd()), checkoutDir, parent, path.Base(place)); err != nil {
		return fmt.Errorf("move the sources: %w", err)
	}
	return nil
}

// openBeneath opens a folder below root for use as the place of a rename. No
// part of its path may be a link.
func openBeneath(root *os.Root, name string) (int, error) {
	from, err := root.Open(".")
	if err != nil {
		return -1, err
	}
	defer from.Close()
	fd, err := unix.Openat2(int(from.Fd()), name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	return fd, nil
}

// pathWriter replaces a path of the host by the one that the job sees. It holds
// an unfinished line back until its end or flush.
type pathWriter struct {
	w        io.Writer
	from, to []byte
	held     []byte
}

// Write forwards whole lines.
func (p *pathWriter) Write(b []byte) (int, error) {
	p.held = append(p.held, b...)
	end := bytes.LastIndexAny(p.held, "\r\n") + 1
	if end == 0 {
		return len(b), nil
	}
	_, err := p.w.Write(bytes.ReplaceAll(p.held[:end], p.from, p.to))
	p.held = append(p.held[:0], p.held[end:]...)
	return len(b), err
}

func (p *pathWriter) flush() error {
	if len(p.held) == 0 {
		return nil
	}
	_, err := p.w.Write(bytes.ReplaceAll(p.held, p.from, p.to))
	p.held = nil
	return err
}
