package runner

import (
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/flate"
)

// maxArchiveEntries bounds what one archive may hold, so that a crafted one
// cannot exhaust the disk's inodes.
const maxArchiveEntries = 2_000_000

// writeZip stores the named files of root as a zip archive, as GitLab's
// artifact archives are: folders, links and modes included.
func writeZip(ctx context.Context, w io.Writer, root *os.Root, names []string) error {
	archive := zip.NewWriter(w)
	archive.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestSpeed)
	})
	for _, name := range names {
		if err := zipOne(ctx, archive, root, name); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func zipOne(ctx context.Context, archive *zip.Writer, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone since it was listed
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	header, err := zip.FileInfoHeader(info)
	if err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	header.Name = name
	var content io.Reader
	switch mode := info.Mode(); {
	case mode.IsDir():
		header.Name += "/"
		header.Method = zip.Store
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
		content, header.Method = strings.NewReader(target), zip.Store
	case mode.IsRegular():
		file, err := openRegular(root, name)
		if err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
		defer file.Close()
		content, header.Method = file, zip.Deflate
	default:
		return nil // sockets, pipes and devices are not files to keep
	}
	entry, err := archive.CreateHeader(header)
	if err == nil && content != nil {
		_, err = io.Copy(entry, until(ctx, content))
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	return nil
}

// openRegular opens a file that is still a regular one: opening a pipe that a
// job left would wait for ever.
func openRegular(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, file.Close(), errors.New("not a regular file any more"))
	}
	return file, nil
}

// writeGzip stores the files one after the other, each as a gzip member that
// carries its name: the format of GitLab's reports.
func writeGzip(ctx context.Context, w io.Writer, root *os.Root, names []string) error {
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		file, err := openRegular(root, name)
		if err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
		member := gzip.NewWriter(w)
		member.Name, member.Comment, member.ModTime = path.Base(name), name, info.ModTime()
		_, err = io.Copy(member, until(ctx, file))
		if err := errors.Join(err, member.Close(), file.Close()); err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
	}
	return nil
}

// writeRaw stores one file as it is.
func writeRaw(ctx context.Context, w io.Writer, root *os.Root, names []string) error {
	if len(names) > 1 {
		return errors.New("only one file can be sent as raw")
	}
	for _, name := range names {
		file, err := openRegular(root, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		_, err = io.Copy(w, until(ctx, file))
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

// until reads r until ctx ends. An archive of a few megabytes may unpack to
// terabytes: the job's end, also for the space it takes, must end that.
func until(ctx context.Context, r io.Reader) io.Reader { return &untilReader{ctx, r} }

type untilReader struct {
	ctx context.Context
	r   io.Reader
}

// Read reads, or returns why the context ended.
func (u *untilReader) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

// extractZip unpacks an archive below root. Names that lead out of it are
// refused; existing files are replaced.
func extractZip(ctx context.Context, archive *zip.Reader, root *os.Root) error {
	if len(archive.File) > maxArchiveEntries {
		return fmt.Errorf("the archive has %d entries, more than %d", len(archive.File), maxArchiveEntries)
	}
	for _, entry := range archive.File {
		if err := extractOne(ctx, entry, root); err != nil {
			return fmt.Errorf("extract %q: %w", entry.Name, err)
		}
	}
	return nil
}

func extractOne(ctx context.Context, entry *zip.File, root *os.Root) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	name := path.Clean(entry.Name)
	if !fs.ValidPath(name) {
		return errors.New("the name leads out of the folder")
	}
	mode := entry.Mode()
	if mode.IsDir() {
		if err := makeAll(root, name); err != nil {
			return err
		}
		return root.Chmod(name, mode.Perm()|0o700)
	}
	if err := makeAll(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	content, err := entry.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if mode&fs.ModeSymlink != 0 {
		target, err := io.ReadAll(io.LimitReader(content, 4096))
		if err != nil {
			return err
		}
		return root.Symlink(string(target), name)
	}
	if !mode.IsRegular() {
		return nil
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, until(ctx, content))
	if err := errors.Join(err, file.Chmod(mode.Perm()), file.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, entry.Modified, entry.Modified)
}

// makeAll makes a folder and its parents, open to every user of the image.
func makeAll(root *os.Root, name string) error {
	if name == "." {
		return nil
	}
	if info, err := root.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := makeAll(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return root.Chmod(name, 0o777)
}
