package imagebase

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCanonicalNamesWhatCanBeMade(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"debian:bookworm-slim", "docker.io/library/debian:bookworm-slim", "library/debian:bookworm-slim"} {
		if got, err := Canonical(given); err != nil || got != "docker.io/library/debian:bookworm-slim" {
			t.Errorf("%s: %q, %v", given, got, err)
		}
	}
	if _, err := Canonical("alpine:3"); err == nil || !strings.Contains(err.Error(), "ubuntu:22.04") {
		t.Errorf("the error does not say what can be made: %v", err)
	}
	if _, err := Canonical("Not An Image"); err == nil {
		t.Error("a malformed name was accepted")
	}
}

func TestArchiveIsAnOCILayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rootfs, output := filepath.Join(dir, "rootfs.tar"), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(rootfs, make([]byte, 10240), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeArchive("docker.io/library/debian:test", rootfs, output, dir); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(output)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	contents := map[string][]byte{}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if contents[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	decode := func(name string, to any) {
		t.Helper()
		if err := json.Unmarshal(contents[name], to); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	decode("index.json", &index)
	decode(blobPath(index.Manifests[0].Digest), &manifest)
	decode(blobPath(manifest.Config.Digest), &config)
	layer := contents[blobPath(manifest.Layers[0].Digest)]
	if digest.FromBytes(layer) != manifest.Layers[0].Digest || int64(len(layer)) != manifest.Layers[0].Size {
		t.Error("the layer is not what the manifest says")
	}
	if len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != digest.FromBytes(make([]byte, 10240)) {
		t.Errorf("the configuration names layers %v", config.RootFS.DiffIDs)
	}
}
