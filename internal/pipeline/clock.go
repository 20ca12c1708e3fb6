package pipeline

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Clock tells the time and wakes sleepers. The system's is SystemClock; tests
// inject one that they move by hand.
type Clock interface {
	Now() time.Time
	// After returns a channel that receives once d has passed.
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the Clock of the operating system.
type SystemClock struct{}

// Now returns the current time.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// wheel runs functions at their time. Entries are named, so that they can be
// moved or dropped; they are hints only, since everything due is also found in
// the store at the start.
type wheel struct {
	clock Clock
	mu    sync.Mutex
	heap  entryHeap
	named map[string]*entry
	wake  chan struct{}
}

type entry struct {
	at    time.Time
	name  string
	fn    func(context.Context)
	index int
}

func newWheel(clock Clock) *wheel {
	return &wheel{clock: clock, named: map[string]*entry{}, wake: make(chan struct{}, 1)}
}

// set runs fn at the time, in place of an earlier entry of that name.
func (w *wheel) set(name string, at time.Time, fn func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.named[name]; old != nil {
		heap.Remove(&w.heap, old.index)
	}
	e := &entry{at: at, name: name, fn: fn}
	w.named[name] = e
	heap.Push(&w.heap, e)
	if w.heap[0] == e {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *wheel) drop(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.named[name]; old != nil {
		heap.Remove(&w.heap, old.index)
		delete(w.named, name)
	}
}

// due removes the entries whose time has come and returns them with the time
// until the next one; negative when there is none.
func (w *wheel) due() ([]*entry, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Now()
	var list []*entry
	for len(w.heap) > 0 && !w.heap[0].at.After(now) {
		e := heap.Pop(&w.heap).(*entry)
		delete(w.named, e.name)
		list = append(list, e)
	}
	if len(w.heap) == 0 {
		return list, -1
	}
	return list, w.heap[0].at.Sub(now)
}

// run runs entries until ctx ends. They run one after the other.
func (w *wheel) run(ctx context.Context) {
	for {
		list, wait := w.due()
		for _, e := range list {
			e.fn(ctx)
		}
		if len(list) > 0 {
			continue
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = w.clock.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer:
		}
	}
}

type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}
