package forge_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/forge"
)

// A push has its commits in the commit graph soon, with their changed paths,
// so that the history of a file does not wait for the next maintenance.
func TestPushIsGraphed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.forge.WriteGraphsAtOnce()
	w.person("ann")
	w.background()
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	dir := t.TempDir()
	w.git(dir, "clone", "-q", w.url(p, "ann"), "app")
	for _, text := range []string{"one", "two"} {
		w.commit(dir+"/app", "file.txt", text, text)
		w.git(dir+"/app", "push", "-q", "origin", "HEAD:main")
		head := strings.TrimSpace(w.git(dir+"/app", "rev-parse", "HEAD"))
		id, err := hex.DecodeString(head)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "a commit graph that knows "+text, func() bool {
			// The chain's files hold ids in binary and Bloom filters in a chunk
			// named BIDX (gitformat-commit-graph(5)).
			files, err := filepath.Glob(filepath.Join(w.forge.RepositoryPath(p.ID), "objects", "info", "commit-graphs", "*.graph"))
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(files, func(name string) bool {
				graph, err := os.ReadFile(name) // a merged one may be gone
				return err == nil && bytes.Contains(graph, id) && bytes.Contains(graph, []byte("BIDX"))
			})
		})
	}
}
