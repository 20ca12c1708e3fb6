package node

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestPodSpecAddsTheCertificates(t *testing.T) {
	t.Parallel()
	raw, err := podSpec([]byte(`{
		"ociVersion": "1.3.0",
		"process": {"cwd": "/", "noNewPrivileges": true, "apparmorProfile": "x", "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]},
		"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
		"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}, "maskedPaths": ["/proc/kcore"]}
	}`), "/data/trust")
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	if len(spec.Mounts) != 2 || spec.Mounts[1].Source != "/data/trust" || spec.Mounts[1].Destination != PodTrustDir || !slices.Contains(spec.Mounts[1].Options, "ro") {
		t.Errorf("mounts %v", spec.Mounts)
	}
	if !spec.Process.NoNewPrivileges || spec.Linux.MaskedPaths[0] != "/proc/kcore" {
		t.Error("what containerd wrote is lost")
	}
	// Pods would get 1024 open files otherwise.
	if spec.Process.Rlimits != nil || spec.Process.ApparmorProfile != "" || spec.Linux.Seccomp != nil {
		t.Errorf("not what CRI starts from: %s", raw)
	}
	for _, bad := range []string{"", "{}", "[]"} {
		if _, err := podSpec([]byte(bad), "/data/trust"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
