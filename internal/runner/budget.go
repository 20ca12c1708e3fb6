package runner

import (
	"context"
	"fmt"
	"sync"
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
// the whole budget. waiting is called once, with the reason, when it has to
// wait. The function returned gives the bytes back.
func (b *budget) acquire(ctx context.Context, size int64, waiting func(reason string)) (release func(), err error) {
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
	reason := fmt.Sprintf("waiting for %s, %s free", gigabytes(size), gigabytes(b.total-b.used))
	mine := &waiter{size: size, ready: make(chan struct{})}
	b.queue = append(b.queue, mine)
	b.mu.Unlock()
	waiting(reason)
	select {
	case <-mine.ready:
		return func() { b.release(size) }, nil
	case <-ctx.Done():
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
