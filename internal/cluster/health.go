package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/slipwayhq/slipway/internal/footprint"
	"github.com/slipwayhq/slipway/internal/socket"
)

// Component is the state of one part of the cluster.
type Component struct {
	Name string `json:"name"`
	// Ready tells whether the last check succeeded.
	Ready bool `json:"ready"`
	// Message is the root cause while not ready, else empty.
	Message string `json:"message"`
	// Seconds is how long after the start of the process the component first
	// was ready; 0 until then.
	Seconds float64 `json:"seconds"`
}

// Health is the answer of GET /readyz.
type Health struct {
	Ready      bool        `json:"ready"`
	Components []Component `json:"components"`
}

// check tells why a component is not ready, or nil.
type check func(context.Context) error

const (
	checkTimeout = 3 * time.Second
	// firstInterval and laterInterval are the pauses between checks before
	// and after a component has first been ready.
	firstInterval = 50 * time.Millisecond
	laterInterval = 2 * time.Second
	failInterval  = 500 * time.Millisecond
)

// board holds the state of all components. A component that waits for another
// one names it instead of its own symptom.
type board struct {
	started time.Time
	mutex   sync.Mutex
	states  []*state
}

type state struct {
	Component
	after []string      // components without which this one cannot be ready
	ready chan struct{} // closed when first ready
}

func newBoard(started time.Time) *board { return &board{started: started} }

// add declares a component, in the order in which they are shown.
func (b *board) add(name string, after ...string) {
	b.states = append(b.states, &state{
		Component: Component{Name: name, Message: "not started yet"},
		after:     after, ready: make(chan struct{}),
	})
}

func (b *board) find(name string) *state {
	index := slices.IndexFunc(b.states, func(s *state) bool { return s.Name == name })
	return b.states[index]
}

// set records the outcome of a check.
func (b *board) set(name string, err error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	s := b.find(name)
	if err != nil {
		if s.Ready {
			klog.ErrorS(err, "Component is no longer ready", "component", name)
		}
		s.Ready, s.Message = false, err.Error()
		return
	}
	if s.Seconds == 0 {
		s.Seconds = time.Since(b.started).Seconds()
		close(s.ready)
		klog.InfoS("Component is ready", "component", name, "seconds", s.Seconds)
	} else if !s.Ready {
		klog.InfoS("Component is ready again", "component", name)
	}
	s.Ready, s.Message = true, ""
}

// wait returns when all the components have been ready once.
func (b *board) wait(ctx context.Context, names ...string) error {
	for _, name := range names {
		select {
		case <-b.find(name).ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// watch checks a component until ctx ends.
func (b *board) watch(ctx context.Context, name string, c check) {
	for {
		limited, cancel := context.WithTimeout(ctx, checkTimeout)
		err := c(limited)
		cancel()
		if ctx.Err() != nil {
			return
		}
		b.set(name, err)
		pause := laterInterval
		select {
		case <-b.find(name).ready:
			if err != nil {
				pause = failInterval
			}
		default:
			pause = firstInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// health is the state of all components now.
func (b *board) health() Health {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	health := Health{Ready: true}
	for _, s := range b.states {
		shown := s.Component
		for _, name := range s.after {
			if other := b.find(name); !shown.Ready && !other.Ready {
				shown.Message = "waits for " + name
			}
		}
		health.Ready = health.Ready && shown.Ready
		health.Components = append(health.Components, shown)
	}
	return health
}

// ServeHTTP answers GET /readyz with 200 when everything is ready, else 503.
func (b *board) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	health := b.health()
	w.Header().Set("Content-Type", "application/json")
	if !health.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(w).Encode(health); err != nil {
		klog.V(1).ErrorS(err, "Health was not sent")
	}
}

// serve serves the board on a unix socket until ctx ends.
func (b *board) serve(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("serve health: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", b)
	footprint.Profiles(mux)
	if err := socket.Serve(ctx, path, mux); err != nil {
		return fmt.Errorf("serve health: %w", err)
	}
	return nil
}
