package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// status answers /readyz: 200 when every component is ready, else 503, with
// the same document either way. Safe for concurrent use.
type status struct {
	start time.Time

	mu         sync.Mutex
	components []component
}

// component is one line of the document. Seconds is the time from program
// start to ready.
type component struct {
	Name    string  `json:"name"`
	Ready   bool    `json:"ready"`
	Message string  `json:"message"`
	Seconds float64 `json:"seconds"`
}

func newStatus(names []string, start time.Time) *status {
	s := &status{start: start}
	for _, n := range names {
		s.components = append(s.components, component{Name: n, Message: "starting"})
	}
	return s
}

// Waiting implements the engines' Reporter.
func (s *status) Waiting(name, cause string) {
	s.set(name, func(c *component) { c.Ready, c.Message = false, cause })
}

// Ready implements the engines' Reporter.
func (s *status) Ready(name string) {
	s.set(name, func(c *component) {
		c.Ready, c.Message = true, ""
		if c.Seconds == 0 {
			c.Seconds = time.Since(s.start).Seconds()
		}
	})
}

func (s *status) set(name string, change func(*component)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.components {
		if s.components[i].Name == name {
			change(&s.components[i])
		}
	}
}

func (s *status) allReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.components {
		if !c.Ready {
			return false
		}
	}
	return true
}

func (s *status) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	doc := struct {
		Ready      bool        `json:"ready"`
		Components []component `json:"components"`
	}{Ready: true, Components: append([]component(nil), s.components...)}
	s.mu.Unlock()
	for _, c := range doc.Components {
		doc.Ready = doc.Ready && c.Ready
	}
	w.Header().Set("Content-Type", "application/json")
	if !doc.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// An error here means that the reader has gone.
	_ = json.NewEncoder(w).Encode(doc)
}
