package build

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzFields reads docker's lists and cache entries.
func FuzzFields(f *testing.F) {
	f.Add("type=registry,ref=a/b:c,mode=max")
	f.Add(`"a=b,c",d`)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := fields(text)
		for name := range found {
			if err != nil || name != strings.ToLower(strings.TrimSpace(name)) {
				t.Errorf("%q: %q, %v", text, found, err)
			}
		}
		if entry, note, err := cacheEntry(text); err == nil && note == "" && entry.Type != "registry" && entry.Type != "inline" {
			t.Errorf("%q is a cache of type %q", text, entry.Type)
		}
	})
}

// FuzzUntar: a context that a job sends lands in its folder or nowhere.
func FuzzUntar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "a/x", Mode: 0o600, Size: 1}, {Name: "../y", Mode: 0o600, Size: 1}} {
		if w.WriteHeader(&h) == nil && h.Size > 0 {
			_, _ = w.Write([]byte("x"))
		}
	}
	w.Flush()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		outer := t.TempDir()
		inner := filepath.Join(outer, "in")
		if err := os.Mkdir(inner, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(inner)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = untar(root, bytes.NewReader(raw)) // what is refused is refused
		left, err := os.ReadDir(outer)
		if err != nil || len(left) != 1 {
			t.Errorf("outside: %v, %v", left, err)
		}
	})
}
