package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

const (
	logPiece = 1 << 20          // bytes that one answer of /log carries at most
	logWait  = 20 * time.Second // that /log waits for more of a running job
)

// jobRaw sends the whole log, or ranges of it.
func (s *Server) jobRaw(w http.ResponseWriter, r *Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	l, err := s.Pipelines.OpenLog(r.Context(), &j.Job)
	if err != nil {
		return err
	}
	defer l.Close()
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if r.FormValue("download") != "" {
		h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="job-%d.log"`, j.Job.ID))
	}
	http.ServeContent(w, r.Request, "", time.Time{}, io.NewSectionReader(l, 0, l.Size))
	return nil
}

// jobLog sends the next piece of a log from ?offset= on. Where a running job
// has no more yet, it waits for it. The headers say where the piece begins
// (X-Log-Offset: 0 again after the log was started over), how much there is
// (X-Log-Size) and whether that is all (X-Log-Done).
func (s *Server) jobLog(w http.ResponseWriter, r *Request) error {
	j, err := s.jobOf(r)
	if err != nil {
		return err
	}
	offset, err := strconv.ParseInt(r.FormValue("offset"), 10, 64)
	if err != nil || offset < 0 {
		return &delivery.Error{Kind: delivery.Invalid, Message: "offset must be a number of bytes."}
	}
	l, err := s.Pipelines.OpenLog(r.Context(), &j.Job)
	if err != nil {
		return err
	}
	if offset == l.Size && !l.Done && r.FormValue("wait") != "" {
		if err := l.Close(); err != nil {
			return err
		}
		if j.Job, l, err = s.awaitLog(r, j.Job, offset); err != nil {
			return err
		}
	}
	defer l.Close()
	if offset > l.Size {
		offset = 0
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Log-Offset", strconv.FormatInt(offset, 10))
	h.Set("X-Log-Size", strconv.FormatInt(l.Size, 10))
	h.Set("X-Log-Done", strconv.FormatBool(l.Done))
	if _, err := io.Copy(w, io.NewSectionReader(l, offset, min(logPiece, l.Size-offset))); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

var errMoreLog = errors.New("web: the log has grown")

// awaitLog follows a running job, which also asks its runner to send the log
// more often, until there is more of it, the job ends or logWait is over.
func (s *Server) awaitLog(r *Request, j pipeline.Job, offset int64) (pipeline.Job, *pipeline.Log, error) {
	ctx, cancel := context.WithTimeout(r.Context(), logWait)
	defer cancel()
	err := s.Pipelines.FollowLog(ctx, j.ID, offset, func(int64, []byte) error { return errMoreLog })
	if err != nil && !errors.Is(err, errMoreLog) && !errors.Is(err, context.DeadlineExceeded) {
		if r.Context().Err() != nil {
			return j, nil, &delivery.Error{Kind: delivery.Canceled, Err: err}
		}
		return j, nil, err
	}
	if err := s.Pipelines.View(r.Context(), func(tx pipeline.Tx) error {
		var err error
		j, err = tx.Job(j.ID)
		return err
	}); err != nil {
		return j, nil, err
	}
	l, err := s.Pipelines.OpenLog(r.Context(), &j)
	return j, l, err
}

// logTail renders the last bytes of a log. It reports whether that is less
// than all; lines are then numbered from 1 within what is shown.
func (s *Server) logTail(ctx context.Context, j *pipeline.Job, limit int64) ([]logLine, bool, error) {
	l, err := s.Pipelines.OpenLog(ctx, j)
	if err != nil {
		return nil, false, err
	}
	defer l.Close()
	from := max(0, l.Size-limit)
	text, err := io.ReadAll(io.NewSectionReader(l, from, l.Size-from))
	if err != nil {
		return nil, false, fmt.Errorf("web: log of job %d: %w", j.ID, err)
	}
	if from > 0 { // begin with a whole line
		for i, c := range text {
			if c == '\n' {
				text = text[i+1:]
				break
			}
		}
	}
	return renderLog(text), from > 0, nil
}
