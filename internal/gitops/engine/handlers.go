package engine

import (
	"net/http"
	"sync"
)

// handlers is a set of named HTTP handlers that fills up as components start.
type handlers struct{ set *handlerSet }

type handlerSet struct {
	mu sync.Mutex
	m  map[string]http.Handler
}

func newHandlers() handlers { return handlers{&handlerSet{m: map[string]http.Handler{}}} }

func (h handlers) put(name string, handler http.Handler) {
	h.set.mu.Lock()
	defer h.set.mu.Unlock()
	h.set.m[name] = handler
}

// get returns nil for a component that has not started.
func (h handlers) get(name string) http.Handler {
	h.set.mu.Lock()
	defer h.set.mu.Unlock()
	return h.set.m[name]
}
