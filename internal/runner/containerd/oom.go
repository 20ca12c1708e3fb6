package containerd

import (
	"context"
	"sync"

	eventtypes "github.com/containerd/containerd/api/events"
	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/typeurl/v2"
)

// oomWatch notes which containers had a process killed for using too much
// memory. It is safe for concurrent use.
type oomWatch struct {
	mu     sync.Mutex
	killed map[string]bool
	cancel context.CancelFunc
	done   chan struct{}
}

func newOOMWatch() *oomWatch {
	return &oomWatch{killed: map[string]bool{}, cancel: func() {}, done: make(chan struct{})}
}

// start follows containerd's events until stop, also across a restart of
// containerd.
func (w *oomWatch) start(c *client.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			envelopes, errs := c.Subscribe(ctx, `topic=="/tasks/oom"`)
			for open := true; open; {
				select {
				case envelope := <-envelopes:
					if envelope == nil {
						open = false
						continue
					}
					if event, err := typeurl.UnmarshalAny(envelope.Event); err == nil {
						if oom, ok := event.(*eventtypes.TaskOOM); ok {
							w.mu.Lock()
							w.killed[oom.ContainerID] = true
							w.mu.Unlock()
						}
					}
				case <-errs:
					open = false
				}
			}
			if ctx.Err() == nil {
				// containerd is away: wait until it serves again.
				_, _ = c.IsServing(ctx)
			}
		}
	}()
}

func (w *oomWatch) stop() { w.cancel() }

func (w *oomWatch) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.killed, id)
}

func (w *oomWatch) happened(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.killed[id]
}
