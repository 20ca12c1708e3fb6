package containerd

import (
	"context"
	"slices"
	"sync"
	"time"
)

// leftovers are environments of jobs that have ended but could not be removed,
// because containerd did not answer. It tries again until they are.
type leftovers struct {
	every   time.Duration // between two tries, and of one try
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	list []*environment
}

func newLeftovers(every time.Duration) *leftovers {
	return &leftovers{every: every, cancel: func() {}}
}

func (l *leftovers) add(env *environment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.list, env) {
		l.list = append(l.list, env)
	}
}

func (l *leftovers) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.running.Go(func() {
		ticker := time.NewTicker(l.every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				l.retry(ctx)
			}
		}
	})
}

// stop ends the tries. What is left then is removed by the next Recover.
func (l *leftovers) stop() {
	l.cancel()
	l.running.Wait()
}

// retry tries once to remove everything that is left.
func (l *leftovers) retry(ctx context.Context) {
	l.mu.Lock()
	list := slices.Clone(l.list)
	l.mu.Unlock()
	for _, env := range list {
		trying, cancel := context.WithTimeout(ctx, l.every)
		err := env.remove(trying) // the first failure was reported; it stays in the list
		cancel()
		if err != nil {
			continue
		}
		l.mu.Lock()
		l.list = slices.DeleteFunc(l.list, func(one *environment) bool { return one == env })
		l.mu.Unlock()
	}
}
