// Package supervise starts the platform's components in order, measures their
// readiness, restarts them with backoff, keeps them within their memory budgets
// and says, for whatever is not ready, what the root cause is.
//
// It receives components from the wiring and emits Status. It knows nothing of
// what a component does and must import no stage.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"time"
)

// Unit is what a component runs. Run blocks until ctx ends, then stops in an
// orderly way and returns nil; any earlier return is a failure, after which Run
// is called again. Ready returns nil while the unit serves, or an error whose
// text is the root cause; it is called often, must return quickly and may be
// called at any time, also before Run.
type Unit interface {
	Run(ctx context.Context) error
	Ready(ctx context.Context) error
}

// Component is a unit with its place in the order.
type Component struct {
	Name string
	// After names components that must have been ready once before this one is
	// started, and whose absence explains that this one is not ready.
	After []string
	Unit  Unit
	// Budget is the memory budget in bytes; 0 for a component that lives in
	// another one's process.
	Budget int64
	// StopWithin is how long an orderly stop may take; 0 means 20 s.
	StopWithin time.Duration
}

// State is where a component is in its life.
type State string

// The states of a component.
const (
	Waiting  State = "waiting"  // for a component it comes after
	Starting State = "starting" // running, never ready so far
	Ready    State = "ready"
	Degraded State = "degraded" // running, was ready, is not now
	Failed   State = "failed"   // ended; will be started again
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// Part is one part of a component that has several, such as etcd within the
// cluster.
type Part struct {
	Name    string  `json:"name"`
	Ready   bool    `json:"ready"`
	Message string  `json:"message,omitempty"`
	Seconds float64 `json:"seconds,omitempty"` // from program start to ready
}

// Status is what is known of one component.
type Status struct {
	Name      string    `json:"name"`
	State     State     `json:"state"`
	Message   string    `json:"message,omitempty"`    // why it is not ready
	RootCause string    `json:"root_cause,omitempty"` // the component that explains it, when that is another one
	Since     time.Time `json:"since"`                // of the state
	Seconds   float64   `json:"seconds,omitempty"`    // from its start to ready
	Restarts  int       `json:"restarts"`
	PID       int       `json:"pid,omitempty"`
	Budget    int64     `json:"budget_bytes,omitempty"`
	PSS       int64     `json:"pss_bytes,omitempty"`  // proportional set size of all its processes
	Peak      int64     `json:"peak_bytes,omitempty"` // highest resident size of its main process
	Parts     []Part    `json:"parts,omitempty"`
}

// Detailed is implemented by units that can say more of themselves.
type Detailed interface {
	PID() int
	Parts() []Part
}

// Manager runs components.
type Manager struct {
	log      *slog.Logger
	progress func(Status)
	poll     time.Duration

	mu     sync.Mutex
	comps  []*running
	byName map[string]*running
}

type running struct {
	Component
	status   Status
	ready    chan struct{} // closed once, when first ready
	everOnce sync.Once
	cancel   context.CancelFunc
	done     chan struct{}
}

// Option configures a Manager.
type Option func(*Manager)

// WithProgress calls fn whenever a component's state changes.
func WithProgress(fn func(Status)) Option { return func(m *Manager) { m.progress = fn } }

// WithPoll sets how often readiness is measured while something is not ready;
// the default is 100 ms. Ready components are measured ten times less often.
func WithPoll(d time.Duration) Option { return func(m *Manager) { m.poll = d } }

// New returns a manager of the components. It fails on an unknown name in
// After, on a name used twice and on a cycle.
func New(log *slog.Logger, comps []Component, opts ...Option) (*Manager, error) {
	m := &Manager{log: log, progress: func(Status) {}, poll: 100 * time.Millisecond, byName: map[string]*running{}}
	for _, o := range opts {
		o(m)
	}
	for _, c := range comps {
		if m.byName[c.Name] != nil {
			return nil, fmt.Errorf("supervise: component %s is declared twice", c.Name)
		}
		if c.StopWithin == 0 {
			c.StopWithin = 20 * time.Second
		}
		r := &running{Component: c, ready: make(chan struct{}), done: make(chan struct{})}
		r.status = Status{Name: c.Name, State: Waiting, Since: time.Now(), Budget: c.Budget}
		m.byName[c.Name] = r
	}
	// Order by dependency; among equals the declared order stays.
	state := map[string]int{}
	var visit func(c Component) error
	visit = func(c Component) error {
		switch state[c.Name] {
		case 1:
			return fmt.Errorf("supervise: component %s comes after itself", c.Name)
		case 2:
			return nil
		}
		state[c.Name] = 1
		for _, name := range c.After {
			dep := m.byName[name]
			if dep == nil {
				return fmt.Errorf("supervise: component %s comes after %s, which does not exist", c.Name, name)
			}
			if err := visit(dep.Component); err != nil {
				return err
			}
		}
		state[c.Name] = 2
		m.comps = append(m.comps, m.byName[c.Name])
		return nil
	}
	for _, c := range comps {
		if err := visit(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Run starts everything and blocks until ctx ends; then it stops the
// components in reverse order, each within its deadline. The error joins those
// of components that did not stop in time.
func (m *Manager) Run(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	for _, r := range m.comps {
		var own context.Context
		own, r.cancel = context.WithCancel(base)
		go m.supervise(own, r)
	}
	<-ctx.Done()
	return m.stop()
}

func (m *Manager) stop() error {
	var errs []error
	for i := len(m.comps) - 1; i >= 0; i-- {
		r := m.comps[i]
		if m.get(r).State != Waiting {
			m.set(r, Stopping, "", "")
		}
		r.cancel()
		timer := time.NewTimer(r.StopWithin)
		select {
		case <-r.done:
			m.set(r, Stopped, "", "")
		case <-timer.C:
			errs = append(errs, fmt.Errorf("%s did not stop within %s", r.Name, r.StopWithin))
		}
		timer.Stop()
	}
	return errors.Join(errs...)
}

// WaitReady blocks until every component has been ready once, or ctx ends.
func (m *Manager) WaitReady(ctx context.Context) error {
	for _, r := range m.comps {
		select {
		case <-r.ready:
		case <-ctx.Done():
			s := m.get(r)
			return fmt.Errorf("%s is not ready: %s", s.Name, s.Message)
		}
	}
	return nil
}

const (
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 30 * time.Second
	steadyAfter  = 60 * time.Second // a run of this length resets the backoff
)

func (m *Manager) supervise(ctx context.Context, r *running) {
	defer close(r.done)
	if !m.await(ctx, r) {
		return
	}
	backoff := firstBackoff
	for {
		began := time.Now()
		m.set(r, Starting, "starting", "")
		runCtx, stop := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() { defer close(watched); m.watch(runCtx, r, began) }()
		err := runUnit(runCtx, r.Unit)
		stop()
		<-watched
		if ctx.Err() != nil {
			if err != nil {
				m.log.Warn("component stopped with an error", "component", r.Name, "err", err)
			}
			return
		}
		if time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		if err == nil {
			err = errors.New("ended without being asked to")
		}
		m.log.Error("component failed", "component", r.Name, "err", err, "restart_in", backoff)
		m.mu.Lock()
		r.status.Restarts++
		m.mu.Unlock()
		m.set(r, Failed, fmt.Sprintf("%v; starting again in %s", err, backoff), "")
		timer := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// runUnit contains a panic of an in-process unit: one component's defect must
// not take git and the web down.
func runUnit(ctx context.Context, u Unit) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return u.Run(ctx)
}

// await waits until everything that r comes after has been ready once.
func (m *Manager) await(ctx context.Context, r *running) bool {
	for _, name := range r.After {
		dep := m.byName[name]
		select {
		case <-dep.ready:
			continue
		default:
		}
		m.set(r, Waiting, "waiting for "+name, name)
		select {
		case <-dep.ready:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// watch measures readiness until ctx ends.
func (m *Manager) watch(ctx context.Context, r *running, began time.Time) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		probe, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := r.Unit.Ready(probe)
		cancel()
		if ctx.Err() != nil {
			return
		}
		next := m.poll
		switch {
		case err == nil:
			misses = 0
			next = 10 * m.poll
			m.mu.Lock()
			if r.status.Seconds == 0 || r.status.State == Starting {
				r.status.Seconds = time.Since(began).Seconds()
			}
			m.mu.Unlock()
			m.set(r, Ready, "", "")
			r.everOnce.Do(func() { close(r.ready) })
		case m.get(r).State == Ready || m.get(r).State == Degraded:
			// One slow answer is not an outage.
			if misses++; misses >= 3 {
				m.set(r, Degraded, err.Error(), "")
			}
		default:
			m.set(r, Starting, err.Error(), "")
		}
		timer.Reset(next)
	}
}

func (m *Manager) get(r *running) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.status
}

func (m *Manager) set(r *running, s State, message, cause string) {
	m.mu.Lock()
	changed := r.status.State != s
	if changed {
		r.status.State, r.status.Since = s, time.Now()
	}
	r.status.Message, r.status.RootCause = message, cause
	status := r.status
	m.mu.Unlock()
	if changed {
		m.progress(status)
	}
}

// Status returns every component in start order, with memory use where it is
// known. A component that is not ready while one that it comes after is not
// ready either names that one as its root cause.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	out := make([]Status, len(m.comps))
	for i, r := range m.comps {
		out[i] = r.status
	}
	m.mu.Unlock()
	index := map[string]int{}
	for i, s := range out {
		index[s.Name] = i
	}
	for i, r := range m.comps {
		if cause, ok := rootCause(m, index, out, r); ok && out[i].State != Ready {
			out[i].RootCause = cause
			if root := out[index[cause]]; root.Message != "" {
				out[i].Message = fmt.Sprintf("needs %s: %s", cause, root.Message)
			}
		}
		if d, ok := r.Unit.(Detailed); ok {
			out[i].PID, out[i].Parts = d.PID(), d.Parts()
		}
	}
	return out
}

// rootCause follows After to the first component that is not ready for a
// reason of its own.
func rootCause(m *Manager, index map[string]int, all []Status, r *running) (string, bool) {
	names := append([]string(nil), r.After...)
	sort.Strings(names)
	for _, name := range names {
		if all[index[name]].State == Ready {
			continue
		}
		if deeper, ok := rootCause(m, index, all, m.byName[name]); ok {
			return deeper, true
		}
		return name, true
	}
	return "", false
}
