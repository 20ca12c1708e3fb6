package metrics

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/storage"
)

// keeping is a database that remembers when it last could not write what was
// taken: Prometheus itself logs that and goes on.
type keeping struct {
	storage.Appendable
	lost atomic.Pointer[loss]
}

// loss is one batch of samples that was not written.
type loss struct {
	at  time.Time
	err error
}

// Appender begins a batch.
func (k *keeping) Appender(ctx context.Context) storage.Appender {
	return batch{k.Appendable.Appender(ctx), k}
}

// batch is what one scrape or one rule gave.
type batch struct {
	storage.Appender
	of *keeping
}

// Commit writes the batch.
func (b batch) Commit() error {
	err := b.Appender.Commit()
	if err != nil {
		b.of.lost.Store(&loss{time.Now(), err})
	}
	return err
}

// since returns why samples were lost within a time, and nil when none were.
func (k *keeping) since(d time.Duration, dir string) error {
	l := k.lost.Load()
	switch {
	case l == nil || time.Since(l.at) > d:
		return nil
	case errors.Is(l.err, syscall.ENOSPC) || errors.Is(l.err, syscall.EDQUOT):
		return fmt.Errorf("the disk is full, so no samples are kept: free some space for %s, and it goes on by itself", dir)
	}
	return fmt.Errorf("no samples are kept in %s: %w", dir, l.err)
}
