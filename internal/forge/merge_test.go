package forge_test

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// TestMergeWithOldAndNewGit shows that both ways to merge agree.
func TestMergeWithOldAndNewGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	w.commit(dir, "a.txt", "1\n2\n3\n4\n5\n6\n7\n8\n", "Lines")
	w.git(dir, "checkout", "-q", "-b", "clean")
	w.commit(dir, "a.txt", "1\n2\n3\n4\n5\n6\n7\neight\n", "Eight")
	w.commit(dir, "new/file", "x", "New")
	w.git(dir, "checkout", "-q", "-b", "clash", "main")
	w.commit(dir, "a.txt", "ONE\n2\n3\n4\n5\n6\n7\n8\n", "Clash")
	w.git(dir, "checkout", "-q", "main")
	w.commit(dir, "a.txt", "one\n2\n3\n4\n5\n6\n7\n8\n", "One")
	w.git(dir, "push", "-q", "origin", "main", "clean", "clash")
	sha := func(branch string) string { return strings.TrimSpace(w.git(dir, "rev-parse", branch)) }
	var trees []string
	for _, old := range []bool{false, true} {
		if old {
			w.forge.UseOldMerge()
		}
		tree, conflicts, err := forge.MergeTree(w.forge, t.Context(), p.ID, sha("main"), sha("clean"))
		if err != nil || len(conflicts) > 0 {
			t.Fatalf("old %t: %v %v", old, conflicts, err)
		}
		trees = append(trees, tree)
		_, conflicts, err = forge.MergeTree(w.forge, t.Context(), p.ID, sha("main"), sha("clash"))
		if err != nil || len(conflicts) != 1 || conflicts[0] != "a.txt" {
			t.Errorf("old %t: %v %v", old, conflicts, err)
		}
	}
	if trees[0] != trees[1] {
		t.Errorf("the results differ: %v", trees)
	}
	if _, err := w.forge.Pick(t.Context(), w.people["ann"], p, forge.PickOptions{Commit: "clean", Branch: "main"}); err != nil {
		t.Error(err)
	}
	if _, err := w.forge.Pick(t.Context(), w.people["ann"], p, forge.PickOptions{Commit: "clash", Branch: "main"}); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("picked a conflict: %v", err)
	}
}
