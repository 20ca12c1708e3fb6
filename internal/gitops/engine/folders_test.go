package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMirror(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	step := func(data map[string]string, want bool) {
		t.Helper()
		changed, err := mirror(dir, data)
		if err != nil || changed != want {
			t.Fatalf("changed %v, want %v; %v", changed, want, err)
		}
	}
	step(nil, false)
	step(map[string]string{"git.example.org": "cert", "../escape": "x", ".hidden": "x"}, true)
	step(map[string]string{"git.example.org": "cert"}, false)
	if b, err := os.ReadFile(filepath.Join(dir, "git.example.org")); err != nil || string(b) != "cert" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "..", "escape")); !os.IsNotExist(err) {
		t.Error("a name left the folder")
	}
	step(map[string]string{"git.example.org": "renewed"}, true)
	step(map[string]string{}, true)
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}
