package node

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestWriteProgramImage follows an archive from its index to the program as a
// container runtime does, checking every digest.
func TestWriteProgramImage(t *testing.T) {
	t.Parallel()
	var archive bytes.Buffer
	if err := WriteProgramImage(&archive, "localhost/x:1", []byte("ELF"), "--flag"); err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive.Bytes())
	blob := func(d descriptor) []byte {
		content, found := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !found || "sha256:"+sum(content) != d.Digest || len(content) != d.Size {
			t.Fatalf("blob %+v: found %v, %d bytes", d, found, len(content))
		}
		return content
	}
	var index struct{ Manifests []descriptor }
	decode(t, files["index.json"], &index)
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "localhost/x:1" {
		t.Errorf("image name is %q", name)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, blob(index.Manifests[0]), &manifest)
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, blob(manifest.Config), &config)
	if got := strings.Join(config.Config.Entrypoint, " "); got != "/program --flag" {
		t.Errorf("entrypoint is %q", got)
	}
	if config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("layer %s is not the root file system %s", manifest.Layers[0].Digest, config.RootFS.DiffIDs[0])
	}
	if program := untar(t, blob(manifest.Layers[0]))["program"]; string(program) != "ELF" {
		t.Errorf("program is %q", program)
	}
	var again bytes.Buffer
	if err := WriteProgramImage(&again, "localhost/x:1", []byte("ELF"), "--flag"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("the same input gave other bytes")
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("decode %q: %v", raw, err)
	}
}

func untar(t *testing.T, raw []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for reader := tar.NewReader(bytes.NewReader(raw)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}
