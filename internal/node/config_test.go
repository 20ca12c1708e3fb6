package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

const minimal = `{"data_dir":"/var/lib/slipway","bin_dir":"/opt/slipway/bin","node":{"ip":"192.0.2.2","name":"a"}`

func TestParseFillsDefaults(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(minimal + "}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []struct{ name, got, want string }{
		{"instance", c.Instance, "slipway"},
		{"cgroup_root", c.CgroupRoot, "/slipway"},
		{"kubeconfig", c.Kubeconfig, "/var/lib/slipway/kubeconfig"},
		{"containerd_socket", c.ContainerdSocket, "/var/lib/slipway/run/containerd.sock"},
		{"network.bridge", c.Network.Bridge, "slipway0"},
		{"network.node_pod_cidr", c.Network.NodePodCIDR, "10.42.0.0/24"},
		{"network.cluster_dns", c.Network.ClusterDNS, "10.43.0.10"},
		{"gateway", c.Gateway().String(), "10.42.0.1"},
	} {
		if field.got != field.want {
			t.Errorf("%s is %q, want %q", field.name, field.got, field.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":          {minimal + ",\n\"colour\":1}", `line 2: json: unknown field "colour"`},
		"text after":           {minimal + "} {}", "text follows the JSON object"},
		"instance too long":    {minimal + `,"instance":"twelve-chars"}`, `instance: "twelve-chars" must be 1 to 11 lower-case letters, digits or '-', starting with a letter`},
		"relative path":        {minimal + `,"kubeconfig":"k"}`, `kubeconfig: "k" must be an absolute path`},
		"root cgroup":          {minimal + `,"cgroup_root":"/"}`, "cgroup_root: must be below the root cgroup"},
		"overlapping networks": {minimal + `,"network":{"service_cidr":"10.42.8.0/24"}}`, "network.service_cidr: 10.42.8.0/24 overlaps network.pod_cidr 10.42.0.0/16"},
		"host bits":            {minimal + `,"network":{"pod_cidr":"10.42.0.1/16"}}`, "network.pod_cidr: 10.42.0.1/16 has host bits set: write 10.42.0.0/16"},
		"dns elsewhere":        {minimal + `,"network":{"cluster_dns":"10.42.0.10"}}`, `network.cluster_dns: "10.42.0.10" must lie in network.service_cidr 10.43.0.0/16`},
		"one port twice":       {minimal + `,"ports":{"kubelet":6443}}`, "ports.kubelet: 6443 is also ports.api_server"},
		"no port":              {minimal + `,"ports":{"kubelet":70000}}`, "ports.kubelet: 70000 is not a TCP port"},
		"loopback node":        {strings.Replace(minimal, "192.0.2.2", "127.0.0.1", 1) + "}", `node.ip: "127.0.0.1" must be an IPv4 address that pods can reach`},
		"long path":            {strings.Replace(minimal, "/var/lib/slipway", "/"+strings.Repeat("d", 100), 1) + "}", "choose a shorter data directory"},
		"no level":             {minimal + `,"logging":{"level":"loud"}}`, `logging.level: "loud" is none of debug, info, warn, error`},
		"mirror without URL":   {minimal + `,"registry":{"mirrors":[{"registry":"docker.io","endpoint":"cache"}]}}`, `registry.mirrors[0].endpoint: "cache" must be an http or https URL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name %s", err, path)
	}
}

func TestNodeKeepsItsName(t *testing.T) {
	t.Parallel()
	c := Config{DataDir: t.TempDir()}
	if err := wholefile.Write(c.nodeNameFile(), []byte("first-name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "first-name" {
		t.Errorf("the node is called %q", c.Node.Name)
	}
}

// testConfig is a valid Config in a directory of the test.
func testConfig(t *testing.T) Config {
	t.Helper()
	c := Config{DataDir: t.TempDir(), BinDir: "/opt/slipway/bin", Node: NodeConfig{IP: "192.0.2.2", Name: "a"}}
	if err := c.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	return c
}
