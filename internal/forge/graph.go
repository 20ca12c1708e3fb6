package forge

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// graphDelay is how long after a push a repository's commit graph is written:
// pushes in a row cost one.
const graphDelay = 2 * time.Second

// graphs are the commit graphs that are due. They hold which paths each commit
// changed: the history of a file among 50,000 commits takes 30 ms with one and
// a second without (git-commit-graph(1)).
type graphs struct {
	mu      sync.Mutex
	due     map[int64]bool
	wake    chan struct{}
	delay   time.Duration
	writing sync.Mutex // one at a time: it is work in the background
}

func newGraphs() *graphs {
	return &graphs{due: map[int64]bool{}, wake: make(chan struct{}, 1), delay: graphDelay}
}

// want asks for a repository's commit graph. What is asked for before a crash
// is found by maintain at the next start.
func (g *graphs) want(projectID int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.due[projectID] = true
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *graphs) take() map[int64]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.due
	g.due = map[int64]bool{}
	return due
}

// writeGraphs writes the graphs that are asked for until ctx ends.
func (s *Service) writeGraphs(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.graphs.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.graphs.delay):
		}
		for id := range s.graphs.take() {
			if err := s.writeGraph(ctx, id, false); err != nil && ctx.Err() == nil {
				s.log.Warn("commit graph not written; maintenance does it", "project", id, "err", err)
			}
		}
	}
}

// writeGraph adds what is new to a repository's commit graph, or makes it anew.
func (s *Service) writeGraph(ctx context.Context, projectID int64, anew bool) error {
	dir := s.RepositoryPath(projectID)
	s.graphs.writing.Lock()
	defer s.graphs.writing.Unlock()
	if _, err := os.Stat(dir); err != nil {
		return ignoreAbsent(err) // the project is gone
	}
	split := "--split"
	if _, err := os.Stat(filepath.Join(dir, "objects", "info", "commit-graphs")); err != nil || anew {
		split = "--split=replace"
	}
	if _, err := s.git.run(ctx, dir, nil, "commit-graph", "write", "--reachable", split, "--changed-paths", "--no-progress"); err != nil {
		return fmt.Errorf("forge: write commit graph: %w", err)
	}
	return nil
}
