package node

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// KubernetesNamespace is the containerd namespace of images and pods of the
// kubelet.
const KubernetesNamespace = "k8s.io"

// ImportImage loads an image archive (docker save or OCI layout, as a tar
// file) into a containerd namespace through the instance's ctr program, so
// that pods can use it without a registry. containerd must be running.
func ImportImage(ctx context.Context, c Config, namespace, archive string) error {
	command := exec.CommandContext(ctx, filepath.Join(c.BinDir, "ctr"), "--address", c.ContainerdSocket, "--namespace", namespace,
		"images", "import", "--local", archive)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("import image %s: %w: %s", archive, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// WriteProgramImage writes an OCI image archive named name (with its tag) that
// holds one static program, as /program, and nothing else. It is how the pause
// image and test images are made where no registry can be reached. The same
// input gives the same bytes.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
func WriteProgramImage(w io.Writer, name string, program []byte, arguments ...string) error {
	layer, err := tarball([]file{{"program", program, 0o755}})
	if err != nil {
		return err
	}
	archive := []file{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}}
	add := func(mediaType string, content []byte) descriptor {
		digest := sum(content)
		archive = append(archive, file{"blobs/sha256/" + digest, content, 0o644})
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{"Entrypoint": append([]string{"/program"}, arguments...), "User": "65535:65535"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	if err != nil {
		return fmt.Errorf("encode image configuration: %w", err)
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": add("application/vnd.oci.image.config.v1+json", config),
		"layers": []descriptor{add("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return fmt.Errorf("encode image manifest: %w", err)
	}
	entry := add("application/vnd.oci.image.manifest.v1+json", manifest)
	entry.Annotations = map[string]string{"io.containerd.image.name": name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{entry}})
	if err != nil {
		return fmt.Errorf("encode image index: %w", err)
	}
	raw, err := tarball(append(archive, file{"index.json", index, 0o644}))
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}

// descriptor points to a blob of an OCI image.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type file struct {
	name    string
	content []byte
	mode    int64
}

func tarball(files []file) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write tar header of %s: %w", f.name, err)
		}
		if _, err := writer.Write(f.content); err != nil {
			return nil, fmt.Errorf("write %s to tar: %w", f.name, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("finish tar: %w", err)
	}
	return buffer.Bytes(), nil
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

// ImportPause makes the pod sandbox image from bin/slipway-pause and imports
// it, if containerd does not have it yet. containerd must be running; it pins
// the image itself, because its configuration names it.
func ImportPause(ctx context.Context, c Config) error {
	program, err := os.ReadFile(filepath.Join(c.BinDir, "slipway-pause"))
	if err != nil {
		return fmt.Errorf("make the pod sandbox image: %w", err)
	}
	var archive bytes.Buffer
	if err := WriteProgramImage(&archive, c.PauseImage, program); err != nil {
		return err
	}
	path := filepath.Join(c.containerdDir(), "pause.tar")
	// The archive is also the mark of what has been imported.
	if present, err := os.ReadFile(path); err == nil && bytes.Equal(present, archive.Bytes()) {
		if known, err := hasImage(ctx, c, KubernetesNamespace, c.PauseImage); err != nil || known {
			return err
		}
	}
	if err := wholefile.Write(path, archive.Bytes(), 0o600); err != nil {
		return err
	}
	return ImportImage(ctx, c, KubernetesNamespace, path)
}

func hasImage(ctx context.Context, c Config, namespace, name string) (bool, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(c.BinDir, "ctr"), "--address", c.ContainerdSocket, "--namespace", namespace,
		"images", "list", "--quiet", "name=="+name).Output()
	if err != nil {
		return false, fmt.Errorf("look for image %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)) == name, nil
}
