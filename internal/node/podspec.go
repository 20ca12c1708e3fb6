package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// PodTrustDir is where containers of pods see Config.TrustDir.
const PodTrustDir = "/etc/slipway/certs"

// podSpecFile is what containerd starts from for every container of a pod, when
// that is not its own default.
func (c *Config) podSpecFile() string {
	if c.TrustDir == "" {
		return ""
	}
	return filepath.Join(c.containerdDir(), "pod-spec.json")
}

// writePodSpec writes podSpecFile: the default of this containerd, of which the
// instance's ctr is a part, with the folder of certificates. The folder is made
// here because no container starts without it.
func writePodSpec(ctx context.Context, c Config) error {
	if c.TrustDir == "" {
		return nil
	}
	if err := os.MkdirAll(c.TrustDir, 0o755); err != nil {
		return fmt.Errorf("folder of certificates for pods: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	raw, err := exec.CommandContext(ctx, filepath.Join(c.BinDir, "ctr"), "oci", "spec").Output()
	if err != nil {
		return fmt.Errorf("ask ctr for containerd's default of a container: %w", err)
	}
	if raw, err = podSpec(raw, c.TrustDir); err != nil {
		return err
	}
	return wholefile.Write(c.podSpecFile(), raw, 0o600)
}

// podSpec adds the folder to containerd's default. A volume that a pod mounts
// at the same place takes its place. Limits and profiles are not part of what
// CRI starts from unless they are in the file (WithoutDefaultSecuritySettings
// in containerd's internal/cri/opts), so they leave it.
func podSpec(raw []byte, trust string) ([]byte, error) {
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("containerd's default of a container cannot be read: %w", err)
	}
	if spec.Process == nil || spec.Linux == nil {
		return nil, errors.New("containerd's default of a container names no process or is not for Linux")
	}
	spec.Process.Rlimits, spec.Process.ApparmorProfile, spec.Linux.Seccomp = nil, "", nil
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: PodTrustDir, Type: "bind", Source: trust,
		Options: []string{"rbind", "rprivate", "nosuid", "nodev", "noexec", "ro"},
	})
	return json.MarshalIndent(spec, "", "  ")
}
