package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// RotateLogs keeps every *.log file of a folder below limit bytes, with one
// older generation beside it (.1). A file is copied and truncated in place,
// because its writer keeps it open for appending. It runs until ctx ends.
func RotateLogs(ctx context.Context, dir string, limit int64, every time.Duration, log *slog.Logger) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		names, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := rotate(name, limit); err != nil {
				log.Warn("cannot rotate a log", "file", name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func rotate(name string, limit int64) error {
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) || (err == nil && info.Size() < limit) {
		return nil
	}
	if err != nil {
		return err
	}
	src, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(name+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return fmt.Errorf("copy: %w", err)
	}
	if err := dst.Close(); err != nil {
		return err
	}
	return src.Truncate(0)
}
