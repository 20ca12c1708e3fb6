package runner

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// budget shares the memory that jobs may use, strictly in the order of asking:
// a small job does not overtake a large one that waits.
type budget struct {
	mu    sync.Mutex
	total int64 // bytes; 0: unlimited
	used  int64
	queue []*waiter
}

type waiter struct {
	size  int64
	ready chan struct{}
}

// acquire waits until size bytes are free, or everything is when size exceeds
// the whole budget. waiting is called with the reason when it has to wait, and
// then with the reason of that moment at every interval. The function returned
// gives the bytes back.
func (b *budget) acquire(ctx context.Context, size int64, every time.Duration, waiting func(reason string)) (release func(), err error) {
	b.mu.Lock()
	if b.total <= 0 {
		b.mu.Unlock()
		return func() {}, nil
	}
	size = min(size, b.total)
	if len(b.queue) == 0 && b.used+size <= b.total {
		b.used += size
		b.mu.Unlock()
		return func() { b.release(size) }, nil
	}
	mine := &waiter{size: size, ready: make(chan struct{})}
	b.queue = append(b.queue, mine)
	reason := b.reason(size)
	b.mu.Unlock()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		waiting(reason)
		select {
		case <-mine.ready:
			return func() { b.release(size) }, nil
		case <-ctx.Done():
		case <-ticker.C:
			b.mu.Lock()
			reason = b.reason(size)
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, one := range b.queue {
		if one == mine {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.admit()
			return nil, context.Cause(ctx)
		}
	}
	b.used -= size // admitted while ctx ended
	b.admit()
	return nil, context.Cause(ctx)
}

// reason words what a job of that size waits for. b.mu is held.
func (b *budget) reason(size int64) string {
	return fmt.Sprintf("waiting for %s, %s free", gigabytes(size), gigabytes(b.total-b.used))
}

func (b *budget) release(size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= size
	b.admit()
}

// admit lets in whoever fits, in order. b.mu is held.
func (b *budget) admit() {
	for len(b.queue) > 0 && b.used+b.queue[0].size <= b.total {
		b.used += b.queue[0].size
		close(b.queue[0].ready)
		b.queue = b.queue[1:]
	}
}

func gigabytes(bytes int64) string { return fmt.Sprintf("%.1f GB", float64(bytes)/1e9) }
