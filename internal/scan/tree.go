package scan

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// Bounds of what file trees take of the disk, beside Config.MaxTree: how many
// are unpacked at a time (one is scanned, the next one waits), and how many
// files and folders one may hold.
const (
	maxTrees   = 2
	maxEntries = 1_000_000
)

// ScanTree scans a file tree that comes as a tar stream, and waits for the
// result. Links and devices in it are left out; a tree larger than
// Config.MaxTree, or of more than a million files, gives an error of kind
// TooLarge.
func (s *Service) ScanTree(ctx context.Context, request Scan, tree io.Reader) (Scan, error) {
	if request.Type != TypeFS && request.Type != TypeConfig && request.Type != TypeSecret {
		return Scan{}, delivery.Errorf(delivery.Invalid, "A file tree is scanned as fs, config or secret, not as %q.", request.Type)
	}
	select {
	case s.trees <- struct{}{}:
		defer func() { <-s.trees }()
	case <-ctx.Done():
		return Scan{}, &delivery.Error{Kind: delivery.Canceled, Op: "scan: wait for other file trees", Err: ctx.Err()}
	}
	dir, err := os.MkdirTemp(s.cfg.Dir, "run-")
	if err != nil {
		return Scan{}, fmt.Errorf("scan: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := extract(ctx, tree, dir, s.cfg.MaxTree, maxEntries); err != nil {
		return Scan{}, err
	}
	queued, err := s.Enqueue(ctx, request)
	if err != nil {
		return Scan{}, err
	}
	rep, err := s.scanTree(ctx, &queued, dir)
	// The result is stored even where the client has gone away.
	if err := s.finish(context.WithoutCancel(ctx), queued, rep, err); err != nil {
		return Scan{}, err
	}
	return s.cfg.Store.Scan(ctx, queued.ID)
}

func (s *Service) scanTree(ctx context.Context, scan *Scan, dir string) (report.Report, error) {
	s.running.Lock()
	defer s.running.Unlock()
	scan.Status, scan.StartedAt = Running, s.cfg.Now().UTC()
	if err := s.cfg.Store.Update(ctx, *scan); err != nil {
		return report.Report{}, err
	}
	rep, err := s.run(ctx, target{kind: scan.Type, dir: dir, name: scan.Name})
	for i := range rep.Findings {
		rep.Findings[i].Target = strings.TrimPrefix(strings.TrimPrefix(rep.Findings[i].Target, dir), "/")
	}
	return rep, err
}

// extract unpacks the regular files of a tar stream beneath dir: at most so many
// bytes and so many entries. os.Root keeps every path inside.
func extract(ctx context.Context, tree io.Reader, dir string, most int64, files int) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("scan: unpack: %w", err)
	}
	defer root.Close()
	archive := tar.NewReader(tree)
	left := most
	for entries := 0; ; entries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if entries == files {
			return delivery.Errorf(delivery.TooLarge, "The file tree holds more than %d files.", files)
		}
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The file tree is not a valid tar stream: %v", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := filepath.Clean(header.Name)
		if !filepath.IsLocal(name) {
			return delivery.Errorf(delivery.Invalid, "The file tree holds the path %q, which leads out of it.", header.Name)
		}
		if left -= header.Size; left < 0 {
			return delivery.Errorf(delivery.TooLarge, "The file tree is larger than %d MB.", most>>20)
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return delivery.Errorf(delivery.Invalid, "The file tree cannot be unpacked at %q: %v", header.Name, err)
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The file tree cannot be unpacked at %q: %v", header.Name, err)
		}
		_, err = io.Copy(f, archive)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("scan: unpack %s: %w", header.Name, err)
		}
	}
}
