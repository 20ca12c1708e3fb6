package image

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// TestArchiveOfALayout: what bootstrap and skopeo write as one file is pushed as
// the folder would be.
func TestArchiveOfALayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = folder.AppendImage(image)
	}
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	file, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(file)
	if err := w.AddFS(os.DirFS(filepath.Join(dir, "layout"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	for _, path := range []string{archive, filepath.Join(dir, "layout")} {
		found, done, err := unpacked(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source(found); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		done()
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, _, err := unpacked(other); err != nil || found != other {
		t.Errorf("what is no archive: %q, %v", found, err)
	}
}
