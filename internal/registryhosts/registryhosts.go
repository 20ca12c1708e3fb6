// Package registryhosts writes the folders that tell containerd and its clients
// how a registry is reached: its mirrors, its authority and its credential.
// https://github.com/containerd/containerd/blob/main/docs/hosts.md
//
// It receives the hosts of each registry and emits files. It must import no
// stage.
package registryhosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// File is the hosts.toml of one registry: what answers for it, by URL, and the
// server that is asked where none of them does.
type File struct {
	Server string          `toml:"server"`
	Hosts  map[string]Host `toml:"host"`
}

// Host is one server that answers for a registry.
type Host struct {
	Capabilities []string          `toml:"capabilities"` // of pull, resolve and push
	CA           string            `toml:"ca,omitempty"` // a PEM file
	OverridePath bool              `toml:"override_path,omitempty"`
	Header       map[string]string `toml:"header,omitempty"`
}

// Upstream is the URL of a registry by its name in images. "_default" has no
// single upstream: containerd then asks the host in the image's name.
func Upstream(registry string) string {
	switch registry {
	case "_default":
		return ""
	case "docker.io":
		return "https://registry-1.docker.io"
	}
	return (&url.URL{Scheme: "https", Host: registry}).String()
}

// Write makes dir hold these registries and no others. Files may carry
// credentials: only their owner reads them. One whose content stays is not
// touched, and a reader never sees half of another.
func Write(dir string, registries map[string]File) error {
	present, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read registry hosts: %w", err)
	}
	for _, entry := range present {
		if _, keep := registries[entry.Name()]; !keep {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return fmt.Errorf("remove registry hosts: %w", err)
			}
		}
	}
	for name, file := range registries {
		raw, err := toml.Marshal(file)
		if err != nil {
			return fmt.Errorf("encode hosts of registry %s: %w", name, err)
		}
		if err := wholefile.Write(filepath.Join(dir, name, "hosts.toml"), raw, 0o600); err != nil {
			return fmt.Errorf("hosts of registry %s: %w", name, err)
		}
	}
	return nil
}
