package pipeline

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// ArtifactFileInfo is a file or folder in a job's archive.
type ArtifactFileInfo struct {
	Path string // slash-separated; a folder ends with a slash
	Size int64  // bytes, unpacked
	Mode os.FileMode
}

// ArtifactEntries lists a folder of a job's archive, "" for its root.
func (e *Engine) ArtifactEntries(ctx context.Context, jobID int64, folder string) ([]ArtifactFileInfo, error) {
	z, err := e.openArchive(ctx, jobID)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	prefix := cleanPath(folder)
	if prefix != "" {
		prefix += "/"
	}
	seen := map[string]*ArtifactFileInfo{}
	for _, f := range z.File {
		name := cleanPath(f.Name)
		if !strings.HasPrefix(name+"/", prefix) || name+"/" == prefix {
			continue
		}
		rest := strings.TrimPrefix(name, prefix)
		if first, _, nested := strings.Cut(rest, "/"); nested || f.FileInfo().IsDir() {
			dir := prefix + first + "/"
			if seen[dir] == nil {
				seen[dir] = &ArtifactFileInfo{Path: dir, Mode: os.ModeDir}
			}
			seen[dir].Size += int64(f.UncompressedSize64)
			continue
		}
		seen[name] = &ArtifactFileInfo{Path: name, Size: int64(f.UncompressedSize64), Mode: f.Mode()}
	}
	out := make([]ArtifactFileInfo, 0, len(seen))
	for _, i := range seen {
		out = append(out, *i)
	}
	sort.Slice(out, func(a, b int) bool {
		if da, db := out[a].Mode.IsDir(), out[b].Mode.IsDir(); da != db {
			return da
		}
		return out[a].Path < out[b].Path
	})
	return out, nil
}

func (e *Engine) openArchive(ctx context.Context, jobID int64) (*zip.ReadCloser, error) {
	a, err := e.artifact(ctx, jobID, "archive")
	if err != nil {
		return nil, err
	}
	z, err := zip.OpenReader(e.artifactPath(a.SHA256))
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The artifacts are not a zip archive.", Err: err}
	}
	return z, nil
}

// OpenArtifactEntry opens one file of a job's archive for reading.
func (e *Engine) OpenArtifactEntry(ctx context.Context, jobID int64, name string) (delivery.ArtifactFile, error) {
	z, err := e.openArchive(ctx, jobID)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	for _, f := range z.File {
		if cleanPath(f.Name) == cleanPath(name) && !f.FileInfo().IsDir() {
			r, err := f.Open()
			if err != nil {
				z.Close()
				return delivery.ArtifactFile{}, delivery.Errorf(delivery.Invalid, "%s cannot be unpacked: %v", name, err)
			}
			return delivery.ArtifactFile{Filename: path.Base(f.Name), Size: int64(f.UncompressedSize64), Body: &entryBody{r, z}}, nil
		}
	}
	z.Close()
	return delivery.ArtifactFile{}, &delivery.Error{Kind: delivery.NotFound, Message: "File Not Found"}
}

type entryBody struct {
	io.ReadCloser
	archive io.Closer
}

func (b *entryBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.archive.Close()) }

// ArtifactEntry reads one file of a job's archive, of at most limit bytes.
func (e *Engine) ArtifactEntry(ctx context.Context, jobID int64, name string, limit int64) ([]byte, error) {
	f, err := e.OpenArtifactEntry(ctx, jobID, name)
	if delivery.IsNotFound(err) {
		return nil, delivery.Errorf(delivery.Invalid, "The artifacts of job %d have no file %s.", jobID, name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Body.Close()
	text, err := io.ReadAll(io.LimitReader(f.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("pipeline: artifact %s: %w", name, err)
	}
	if int64(len(text)) > limit {
		return nil, delivery.Errorf(delivery.TooLarge, "%s is larger than %d bytes.", name, limit)
	}
	return text, nil
}
