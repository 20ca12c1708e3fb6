package gitops

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Mirror is what is known of all Applications, kept up to date by one watch, so
// that a list costs no request. The zero value is empty and not fresh. Safe for
// concurrent use.
type Mirror struct {
	mu      sync.Mutex
	apps    map[string]*Application
	fresh   bool
	changed chan struct{}
}

// Run follows the Applications until ctx ends and passes every change on, as
// Client.Watch does; tell may be nil. One Run at a time.
func (m *Mirror) Run(ctx context.Context, c *Client, tell func(Change)) {
	defer m.set(false)
	f := kubewatch.Follower[Application]{
		Resource: c.applications(), Decode: decode,
		Listed: func() { m.set(true) }, Lost: func(error) { m.set(false) },
		Tell: func(before, after *Application) {
			m.put(before, after)
			if tell != nil {
				tell(Change{before, after})
			}
		},
	}
	m.mu.Lock()
	m.apps = map[string]*Application{}
	m.mu.Unlock()
	f.Run(ctx)
}

func (m *Mirror) set(fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fresh = fresh
	m.wake()
}

func (m *Mirror) put(before, after *Application) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if after != nil {
		m.apps[after.Name] = after
	} else {
		delete(m.apps, before.Name)
	}
	if m.fresh {
		m.wake()
	}
}

func (m *Mirror) wake() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// List returns the Applications by name, which must not be changed, and whether
// they are up to date: not before the first list, and not while the cluster is
// away.
func (m *Mirror) List() (apps []*Application, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	apps = make([]*Application, 0, len(m.apps))
	for _, a := range m.apps {
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(a, b *Application) int { return strings.Compare(a.Name, b.Name) })
	return apps, m.fresh
}

// Changed returns a channel that is closed at the next change of anything.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}
