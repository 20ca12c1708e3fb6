package registryhosts_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipwayhq/slipway/internal/registryhosts"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs.d")
	ours := map[string]registryhosts.File{
		"docker.io": {Server: registryhosts.Upstream("docker.io"), Hosts: map[string]registryhosts.Host{
			"http://192.0.2.2:8080/v2/cache": {Capabilities: []string{"pull", "resolve"}, OverridePath: true}}},
		"192.0.2.2:8080": {Server: "https://192.0.2.2:8080", Hosts: map[string]registryhosts.Host{
			"https://192.0.2.2:8080": {Capabilities: []string{"pull"}, CA: "/ca.crt", Header: map[string]string{"Authorization": "Basic eA=="}}}},
	}
	if err := registryhosts.Write(dir, ours); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"docker.io":      "server = 'https://registry-1.docker.io'\n\n[host]\n[host.'http://192.0.2.2:8080/v2/cache']\ncapabilities = ['pull', 'resolve']\noverride_path = true\n",
		"192.0.2.2:8080": "server = 'https://192.0.2.2:8080'\n\n[host]\n[host.'https://192.0.2.2:8080']\ncapabilities = ['pull']\nca = '/ca.crt'\n\n[host.'https://192.0.2.2:8080'.header]\nAuthorization = 'Basic eA=='\n",
	} {
		raw, err := os.ReadFile(filepath.Join(dir, name, "hosts.toml"))
		if err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	delete(ours, "docker.io")
	if err := registryhosts.Write(dir, ours); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "192.0.2.2:8080" {
		t.Errorf("%v, %v", left, err)
	}
}

func TestUpstream(t *testing.T) {
	t.Parallel()
	for registry, want := range map[string]string{"docker.io": "https://registry-1.docker.io", "quay.io": "https://quay.io", "_default": "", "r.example:5000": "https://r.example:5000"} {
		if got := registryhosts.Upstream(registry); got != want {
			t.Errorf("%s: %q", registry, got)
		}
	}
}
