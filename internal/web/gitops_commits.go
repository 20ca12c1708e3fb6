package web

import (
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// What commitMemory remembers: how many commits, and how long. A commit never
// changes, but its repository may be taken from who could see it; and one that
// could not be told now may be told soon, when Argo CD has fetched it or is
// back.
const (
	commitsKept  = 500
	commitKept   = time.Hour
	noCommitKept = time.Minute
)

// commitMemory remembers commits, so that a page that refreshes itself every
// two seconds does not ask git or Argo CD each time. Safe for concurrent use.
type commitMemory struct {
	mu    sync.Mutex
	known map[string]knownCommit
}

type knownCommit struct {
	commit delivery.Commit // without an SHA: not known
	until  time.Time
}

// get returns the commit of a key, asking where it is not remembered. An error
// is not remembered.
func (m *commitMemory) get(now time.Time, key string, ask func() (delivery.Commit, error)) (delivery.Commit, error) {
	m.mu.Lock()
	k, ok := m.known[key]
	m.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.commit, nil
	}
	c, err := ask()
	if err != nil {
		return c, err
	}
	kept := commitKept
	if c.SHA == "" {
		kept = noCommitKept
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]knownCommit{}
	}
	if _, again := m.known[key]; !again && len(m.known) >= commitsKept {
		m.forget(now)
	}
	m.known[key] = knownCommit{c, now.Add(kept)}
	return c, nil
}

// forget makes room: what has expired goes, or else what expires first.
func (m *commitMemory) forget(now time.Time) {
	var first string
	for key, k := range m.known {
		if !now.Before(k.until) {
			delete(m.known, key)
		} else if first == "" || k.until.Before(m.known[first].until) {
			first = key
		}
	}
	if len(m.known) >= commitsKept {
		delete(m.known, first)
	}
}
