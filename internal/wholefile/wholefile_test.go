package wholefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run", "token")
	write := func(content string, mode os.FileMode) os.FileInfo {
		t.Helper()
		if err := wholefile.Write(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil || string(raw) != content {
			t.Fatalf("%q, %v", raw, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("mode %v", info.Mode())
		}
		return info
	}
	first := write("one", 0o600)
	if folder, err := os.Stat(filepath.Dir(path)); err != nil || folder.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", folder.Mode(), err)
	}
	if same := write("one", 0o644); !os.SameFile(first, same) {
		t.Error("the same content was written again")
	}
	if next := write("two", 0o600); os.SameFile(first, next) {
		t.Error("a reader of the old file sees the new content")
	}
}

func TestWriteLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "token", "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Write(filepath.Join(dir, "token"), []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}
