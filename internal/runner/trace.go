package runner

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// maxTracePiece is the most bytes of one AppendTrace (runner protocol).
const maxTracePiece = 1 << 20

// trace keeps a job's log in a file and forwards it to the coordinator in
// pieces. Write is safe for concurrent use; run and finish are called once.
type trace struct {
	coordinator Coordinator
	jobID       int64
	token       string
	limit       int64
	every       time.Duration

	mu        sync.Mutex
	file      *os.File
	size      int64 // bytes in file
	sum       uint32
	truncated bool
	failed    error // the file cannot be written

	wake chan struct{}
	sent int64
}

// openTrace starts a trace in the file. Beyond limit bytes further output is
// dropped with a notice, as in the official runner.
func openTrace(path string, c Coordinator, jobID int64, token string, limit int64, every time.Duration) (*trace, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open trace: %w", err), file.Close())
	}
	t := &trace{coordinator: c, jobID: jobID, token: token, limit: limit, every: every, file: file, wake: make(chan struct{}, 1)}
	if info.Size() > 0 { // the trace of a job that a crash interrupted
		sum := crc32.NewIEEE()
		if t.size, err = io.Copy(sum, io.NewSectionReader(file, 0, info.Size())); err != nil {
			return nil, errors.Join(fmt.Errorf("read trace: %w", err), file.Close())
		}
		t.sum = sum.Sum32()
	}
	return t, nil
}

// Write appends to the trace. It fails only when the disk does; output beyond
// the limit is dropped.
func (t *trace) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return 0, t.failed
	}
	if t.truncated {
		return len(p), nil
	}
	piece := p
	if t.limit > 0 && t.size+int64(len(p)) > t.limit {
		t.truncated = true
		piece = fmt.Appendf(append([]byte(nil), p[:max(0, t.limit-t.size)]...),
			"\n%sJob's log exceeded limit of %d bytes.\nJob execution will continue but no more output will be collected.\n%s",
			ansiYellow, t.limit, ansiReset)
	}
	if err := t.append(piece); err != nil {
		t.failed = err
		return 0, err
	}
	return len(p), nil
}

func (t *trace) append(p []byte) error {
	n, err := t.file.Write(p)
	t.sum = crc32.Update(t.sum, crc32.IEEETable, p[:n])
	t.size += int64(n)
	select {
	case t.wake <- struct{}{}:
	default:
	}
	if err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// force appends past the limit: the last words of a job are always wanted.
func (t *trace) force() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.truncated, t.limit = false, 0
}

// revive lets a trace be written again whose disk was full.
func (t *trace) revive() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = nil
}

// failure returns the disk's error, if any.
func (t *trace) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// state returns size and checksum in the protocol's form.
func (t *trace) state() (size int64, checksum string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size, fmt.Sprintf("crc32:%08x", t.sum)
}

// A trace that was quiet is forwarded at once: so many pieces may follow each
// other at quickPause, and one more for each interval that passes.
const (
	quickPieces = 10
	quickPause  = 10 * time.Millisecond
)

// pace decides how long to wait after a piece.
type pace struct {
	every  time.Duration
	quick  int
	filled time.Time
}

func (p *pace) next(now time.Time) time.Duration {
	if p.filled.IsZero() {
		p.quick, p.filled = quickPieces, now
	}
	if p.every > 0 {
		if passed := int(now.Sub(p.filled) / p.every); passed > 0 {
			p.quick = min(quickPieces, p.quick+passed)
			p.filled = now
		}
	}
	if p.quick == 0 {
		return p.every
	}
	p.quick--
	return min(p.every, quickPause)
}

// run forwards pieces until ctx ends. status is told what the coordinator says
// about the job.
func (t *trace) run(ctx context.Context, status func(delivery.JobAck, error)) {
	pace := pace{every: t.every}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		ack, err := t.flush(ctx)
		if ctx.Err() == nil {
			status(ack, err)
		}
		pause := pace.next(time.Now())
		if ack.Interval > 0 && ack.Interval < pause {
			pause = ack.Interval
		}
		if err != nil {
			pause = max(pause, time.Second) // then the rest is tried again
			select {
			case t.wake <- struct{}{}:
			default:
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// flush sends everything that is not sent yet and returns the last answer.
func (t *trace) flush(ctx context.Context) (ack delivery.JobAck, err error) {
	buffer := make([]byte, maxTracePiece)
	for {
		size, _ := t.state()
		if t.sent >= size {
			return ack, nil
		}
		n, readErr := t.file.ReadAt(buffer[:min(maxTracePiece, size-t.sent)], t.sent)
		if n == 0 && readErr != nil {
			return ack, fmt.Errorf("read trace: %w", readErr)
		}
		ack, err = t.coordinator.AppendTrace(ctx, t.jobID, t.token, t.sent, buffer[:n])
		switch {
		case err == nil:
			t.sent += int64(n)
		case delivery.KindOf(err) == delivery.Conflict && ack.TraceSize != t.sent && ack.TraceSize <= size:
			t.sent = ack.TraceSize
		default:
			return ack, err
		}
	}
}

func (t *trace) close() error {
	return t.file.Close()
}
