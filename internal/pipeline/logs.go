package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Log is a job's log as far as it may be read.
type Log struct {
	Size int64 // bytes that may be read now
	Done bool  // nothing will be added
	file *os.File
}

// OpenLog opens the log of a job. It is empty for a job that wrote nothing.
// The caller closes it.
func (e *Engine) OpenLog(ctx context.Context, j *Job) (*Log, error) {
	l := &Log{Done: finalStatus(j.Status)}
	f, err := os.Open(e.tracePath(j))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, nil
	case err != nil:
		return nil, fmt.Errorf("pipeline: log of job %d: %w", j.ID, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("pipeline: log of job %d: %w", j.ID, err)
	}
	l.file, l.Size = f, info.Size()
	if visible, ok := e.visible(j.ID); ok && !l.Done {
		l.Size = min(l.Size, visible)
	}
	return l, nil
}

// visible returns how much of a running job's log may be shown: the end that
// may be the beginning of a secret is held back.
func (e *Engine) visible(jobID int64) (int64, bool) {
	return e.ofTrace(jobID, (*trace).visible)
}

// ReadAt reads within Size; it implements io.ReaderAt.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	if l.file == nil || off >= l.Size {
		return 0, io.EOF
	}
	if int64(len(p)) > l.Size-off {
		p = p[:l.Size-off]
		n, err := l.file.ReadAt(p, off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return l.file.ReadAt(p, off)
}

// Close closes the log.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// FollowLog calls fn with pieces of the log from offset on, as they are
// written, until the job has ended, ctx ends or fn fails. The job's runner is
// asked to send its log more often meanwhile. A log that was started over
// begins again at offset 0.
func (e *Engine) FollowLog(ctx context.Context, jobID, offset int64, fn func(offset int64, piece []byte) error) error {
	defer e.watch.follow(jobID)()
	buf := make([]byte, 64<<10)
	for {
		changed := e.watch.next(jobID)
		var j Job
		if err := e.store.View(ctx, func(tx Tx) error {
			var err error
			j, err = tx.Job(jobID)
			return err
		}); err != nil {
			return err
		}
		l, err := e.OpenLog(ctx, &j)
		if err != nil {
			return err
		}
		if l.Size < offset {
			offset = 0
		}
		for offset < l.Size {
			n, err := l.ReadAt(buf, offset)
			if n > 0 {
				if ferr := fn(offset, buf[:n]); ferr != nil {
					return errors.Join(ferr, l.Close())
				}
				offset += int64(n)
			}
			if err != nil {
				break
			}
		}
		if err := l.Close(); err != nil || l.Done {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
