package containerd

import (
	"errors"
	"sync"

	cnins "github.com/containernetworking/plugins/pkg/ns"
)

// Reserved is a network as a job has it, for a program of the platform that
// works for jobs. It is safe for concurrent use.
type Reserved struct {
	executor *Executor

	mu       sync.Mutex
	segment  *segment
	endpoint *endpoint
	closed   bool
}

// Reserve returns a network that is made at its first use, which must come
// after Recover, and lasts until Close.
func (e *Executor) Reserve() *Reserved { return &Reserved{executor: e} }

// InNetwork calls fn in the network's namespace; fn may start processes there.
func (r *Reserved) InNetwork(fn func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("the network is closed")
	}
	if r.segment == nil {
		segment, err := r.executor.network.open()
		if err != nil {
			return err
		}
		endpoint, err := segment.attach()
		if err != nil {
			return errors.Join(err, segment.close())
		}
		r.segment, r.endpoint = segment, endpoint
	}
	return r.endpoint.ns.Do(func(cnins.NetNS) error { return fn() })
}

// Close removes the network. What still runs in it is cut off.
func (r *Reserved) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.segment == nil {
		return nil
	}
	err := r.segment.close()
	if err == nil {
		r.segment = nil
	}
	return err
}
