// Package imagebase makes base images from the host's own package mirror, for
// places where no image registry can be reached.
//
// It owns the list of distributions it can make and the way from a package
// mirror to an OCI image archive: mmdebstrap, one layer, one configuration. It
// receives a public image name and emits an archive file that containerd,
// skopeo and registries read. It must not import containerd or another stage.
package imagebase

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// release is a distribution release that can be made.
type release struct {
	vendor, suite, mirror, components string
	extra                             []string // further suites, "suite mirror"
	keyring                           string
}

// The public mirrors, for hosts whose own package sources name none.
const (
	debianMirror = "http://deb.debian.org/debian"
	ubuntuMirror = "http://archive.ubuntu.com/ubuntu"
)

func debian(suite string) release {
	return release{vendor: "debian", suite: suite, mirror: debianMirror, components: "main",
		extra: []string{suite + "-updates " + debianMirror, suite + "-security http://deb.debian.org/debian-security"}}
}

func ubuntu(suite string) release {
	return release{vendor: "ubuntu", suite: suite, mirror: ubuntuMirror, components: "main restricted universe multiverse",
		extra:   []string{suite + "-updates " + ubuntuMirror, suite + "-security http://security.ubuntu.com/ubuntu"},
		keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg"}
}

// releases are the images by their public names below docker.io/library.
var releases = map[string]release{
	"debian:bookworm-slim": debian("bookworm"), "debian:bookworm": debian("bookworm"), "debian:12": debian("bookworm"), "debian:12-slim": debian("bookworm"),
	"debian:trixie-slim": debian("trixie"), "debian:trixie": debian("trixie"), "debian:13": debian("trixie"), "debian:13-slim": debian("trixie"),
	"ubuntu:jammy": ubuntu("jammy"), "ubuntu:22.04": ubuntu("jammy"), "ubuntu:noble": ubuntu("noble"), "ubuntu:24.04": ubuntu("noble"),
}

// Names lists the images that can be made, sorted.
func Names() []string {
	names := make([]string, 0, len(releases))
	for name := range releases {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Options say what to make and where.
type Options struct {
	Name    string    // a public name such as debian:bookworm-slim
	Mirror  string    // package mirror; empty: what the host's own package sources name, else the public one
	Include []string  // packages to add to the minimal set
	Output  string    // path of the archive to write
	Log     io.Writer // progress; may be nil
}

// Canonical returns the full public name (docker.io/library/debian:bookworm-slim)
// of an image that can be made. The error names those that can.
func Canonical(name string) (string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("%q is no image name: %w", name, err)
	}
	familiar := reference.FamiliarString(named)
	if _, known := releases[familiar]; !known {
		return "", fmt.Errorf("no recipe for %s: can make %s", familiar, strings.Join(Names(), ", "))
	}
	return named.String(), nil
}

// Make builds the image and returns its full public name. It needs root and
// mmdebstrap; the error says what is missing. On failure no output is left.
func Make(ctx context.Context, o Options) (name string, err error) {
	name, err = Canonical(o.Name)
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("mmdebstrap is not installed: apt-get install mmdebstrap")
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image name: %w", err)
	}
	recipe := releases[reference.FamiliarString(named)]
	if o.Mirror == "" {
		sources, err := hostSources(os.DirFS("/"))
		if err != nil {
			return "", err
		}
		recipe = recipe.fromHost(sources)
	}
	if recipe.keyring != "" {
		if _, err := os.Stat(recipe.keyring); err != nil {
			return "", fmt.Errorf("the keyring of %s is missing: apt-get install %s-keyring", recipe.vendor, recipe.vendor)
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(o.Output), ".image-*")
	if err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rootfs := filepath.Join(dir, "rootfs.tar")
	if err := bootstrap(ctx, o, recipe, rootfs); err != nil {
		return "", err
	}
	if err := writeArchive(name, rootfs, o.Output, dir); err != nil {
		return "", err
	}
	return name, nil
}

// bootstrap runs mmdebstrap.
func bootstrap(ctx context.Context, o Options, recipe release, rootfs string) error {
	mirror := recipe.mirror
	if o.Mirror != "" {
		mirror = o.Mirror
	}
	args := []string{
		"--variant=minbase", "--mode=root", "--format=tar",
		"--include=" + strings.Join(append([]string{"ca-certificates"}, o.Include...), ","),
		// What the public slim images leave out too.
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		// As in the public images: an image is made anew, never repaired, so
		// dpkg need not wait for the disk after every file.
		"--dpkgopt=force-unsafe-io",
		"--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"true\"",
	}
	if recipe.keyring != "" {
		args = append(args, "--keyring="+recipe.keyring)
	}
	args = append(args, recipe.suite, rootfs, fmt.Sprintf("deb %s %s %s", mirror, recipe.suite, recipe.components))
	for _, extra := range recipe.extra {
		suite, address, _ := strings.Cut(extra, " ")
		if o.Mirror != "" && address == recipe.mirror {
			address = o.Mirror
		}
		args = append(args, fmt.Sprintf("deb %s %s %s", address, suite, recipe.components))
	}
	command := exec.CommandContext(ctx, "mmdebstrap", args...)
	command.WaitDelay = 10 * time.Second
	var last bytes.Buffer
	command.Stderr = &last
	if o.Log != nil {
		command.Stderr = io.MultiWriter(&last, o.Log)
	}
	if err := command.Run(); err != nil {
		text := strings.TrimSpace(last.String())
		if at := strings.LastIndex(text, "\nE: "); at >= 0 {
			text = text[at+1:]
		}
		return fmt.Errorf("mmdebstrap: %w: %s", err, text)
	}
	return nil
}

// writeArchive wraps a root file system into an OCI image archive of one layer.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
func writeArchive(name, rootfs, output, dir string) (err error) {
	layer := filepath.Join(dir, "layer.tar.gz")
	blob, diff, err := compress(rootfs, layer)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	config, err := json.Marshal(ocispec.Image{
		Created: &now, Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:  ocispec.ImageConfig{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"bash"}},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
		History: []ocispec.History{{Created: &now, CreatedBy: "slipway image bootstrap", Comment: name}},
	})
	if err != nil {
		return fmt.Errorf("encode image configuration: %w", err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: describe(ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{blob},
	})
	if err != nil {
		return fmt.Errorf("encode image manifest: %w", err)
	}
	entry := describe(ocispec.MediaTypeImageManifest, manifest)
	entry.Platform = &ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	entry.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name[strings.LastIndex(name, ":")+1:]}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry}})
	if err != nil {
		return fmt.Errorf("encode image index: %w", err)
	}
	temporary := output + ".part"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary))
		}
	}()
	archive := tar.NewWriter(file)
	for _, one := range []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", index},
		{blobPath(describe("", config).Digest), config}, {blobPath(entry.Digest), manifest},
	} {
		if err == nil {
			err = addFile(archive, one.name, int64(len(one.content)), bytes.NewReader(one.content))
		}
	}
	if err == nil {
		err = addPath(archive, blobPath(blob.Digest), layer)
	}
	if err == nil {
		err = archive.Close()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return os.Rename(temporary, output)
}

// compress writes the layer's blob and returns its descriptor and the digest
// of the uncompressed layer.
func compress(rootfs, layer string) (blob ocispec.Descriptor, diff digest.Digest, err error) {
	in, err := os.Open(rootfs)
	if err != nil {
		return blob, "", fmt.Errorf("read root file system: %w", err)
	}
	defer in.Close()
	out, err := os.Create(layer)
	if err != nil {
		return blob, "", fmt.Errorf("write layer: %w", err)
	}
	compressed, plain := sha256.New(), sha256.New()
	packer, err := gzip.NewWriterLevel(io.MultiWriter(out, compressed), gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(packer, plain), in)
	}
	if err == nil {
		err = packer.Close()
	}
	info, statErr := out.Stat()
	if err := errors.Join(err, statErr, out.Close()); err != nil {
		return blob, "", fmt.Errorf("write layer: %w", err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: sum(compressed), Size: info.Size()}, sum(plain), nil
}

func sum(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

func describe(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func addPath(archive *tar.Writer, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return addFile(archive, name, info.Size(), file)
}

func addFile(archive *tar.Writer, name string, size int64, content io.Reader) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}
