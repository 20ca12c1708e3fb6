package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/slipwayhq/slipway/internal/registryhosts"
)

func TestContainerdConfigFollowsTheHost(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	for _, mayLower := range []bool{true, false} {
		raw, err := toml.Marshal(containerdConfig(c, mayLower))
		if err != nil {
			t.Fatal(err)
		}
		var decoded struct {
			Version int
			GRPC    struct{ Address string }
			Plugins map[string]map[string]any
		}
		if err := toml.Unmarshal(raw, &decoded); err != nil {
			t.Fatal(err)
		}
		runtime := decoded.Plugins["io.containerd.cri.v1.runtime"]
		if restricted := runtime["restrict_oom_score_adj"]; restricted != !mayLower {
			t.Errorf("restrict_oom_score_adj is %v when the score may be lowered: %v", restricted, mayLower)
		}
		if decoded.GRPC.Address != c.ContainerdSocket || decoded.Version != 3 {
			t.Errorf("grpc address %q, version %d", decoded.GRPC.Address, decoded.Version)
		}
		images := decoded.Plugins["io.containerd.cri.v1.images"]
		if pinned := images["pinned_images"].(map[string]any)["sandbox"]; pinned != c.PauseImage {
			t.Errorf("sandbox image is %v, want %s", pinned, c.PauseImage)
		}
	}
}

func TestRegistryHosts(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Registry = RegistryConfig{
		Host: "192.0.2.2:8080", Endpoint: "http://192.0.2.2:8080",
		Mirrors: []Mirror{
			{Registry: "docker.io", Endpoint: "http://192.0.2.2:8080/cache"},
			{Registry: "quay.io", Endpoint: "http://192.0.2.2:8080/quay", Only: true, CAFile: "/ca.crt"},
		},
	}
	if _, err := WriteContainerd(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for registry, want := range map[string]registryhosts.File{
		"192.0.2.2:8080": {Server: "http://192.0.2.2:8080", Hosts: map[string]registryhosts.Host{"http://192.0.2.2:8080": {Capabilities: []string{"pull", "resolve", "push"}}}},
		"docker.io":      {Server: "https://registry-1.docker.io", Hosts: map[string]registryhosts.Host{"http://192.0.2.2:8080/cache": {Capabilities: []string{"pull", "resolve"}, OverridePath: true}}},
		"quay.io":        {Server: "http://192.0.2.2:8080/quay", Hosts: map[string]registryhosts.Host{"http://192.0.2.2:8080/quay": {Capabilities: []string{"pull", "resolve"}, CA: "/ca.crt", OverridePath: true}}},
	} {
		raw, err := os.ReadFile(filepath.Join(c.registryHostsDir(), registry, "hosts.toml"))
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := toml.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if string(raw) != string(wanted) {
			t.Errorf("hosts of %s:\n%s\nwant:\n%s", registry, raw, wanted)
		}
	}
	c.Registry.Mirrors = nil
	if _, err := WriteContainerd(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.registryHostsDir(), "docker.io")); !os.IsNotExist(err) {
		t.Errorf("hosts of a registry that is no longer configured remain: %v", err)
	}
}

func TestNetworkList(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(networkList(testConfig(t), 1400))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Name    string
		Plugins []struct {
			Type, Bridge string
			IPMasq       bool
			MTU          int
			IPAM         struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	bridge := list.Plugins[0]
	if list.Name != "slipway" || bridge.Type != "bridge" || bridge.Bridge != "slipway0" || bridge.IPMasq || bridge.MTU != 1400 || bridge.IPAM.Ranges[0][0].Subnet != "10.42.0.0/24" {
		t.Errorf("network list %s", raw)
	}
	if list.Plugins[1].Type != "portmap" {
		t.Errorf("second plugin is %s, want portmap", list.Plugins[1].Type)
	}
}
