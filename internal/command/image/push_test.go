package image

import (
	"archive/tar"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/slipwayhq/slipway/internal/command/rest"
)

// TestPushTrustsThePlatform: the registry's certificate may be of an authority
// that only the client of the platform knows.
func TestPushTrustsThePlatform(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("app:1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	client := &rest.Client{URL: server.URL, Token: "t", HTTP: server.Client()}
	if got, err := Push(t.Context(), client, file, "team/app:1"); err != nil || !strings.HasPrefix(got, "team/app@sha256:") {
		t.Errorf("%q, %v", got, err)
	}
	if there, err := present(t.Context(), client, "team/app:1"); err != nil || !there {
		t.Errorf("what was pushed: %v, %v", there, err)
	}
	client.HTTP = nil
	if _, err := Push(t.Context(), client, file, "team/app:1"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that nobody knows: %v", err)
	}
}

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
