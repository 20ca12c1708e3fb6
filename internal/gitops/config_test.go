package gitops

import (
	"strings"
	"testing"
)

const good = `{"data_dir":"/d","run_dir":"/r","health_socket":"/r/s","kubeconfig":"/k","bin_dir":"/b",
"forge":{"url":"http://192.0.2.1:8080/"},"api":{"address":"127.0.0.1:8443","root_path":"/argocd/"}}`

func TestParseConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := ParseConfig(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Forge.URL != "http://192.0.2.1:8080" || c.API.RootPath != "/argocd" {
		t.Errorf("trailing slashes kept: %q %q", c.Forge.URL, c.API.RootPath)
	}
	if c.GOGC != 50 || c.LogLevel != "info" || c.API.TokenFile != "/d/api-token" || c.IngressClasses[0] != "slipway" {
		t.Errorf("defaults: %+v", c)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"unknown key", `{"dir":"/d"}`, `unknown field "dir"`},
		{"relative path", strings.Replace(good, `"/d"`, `"d"`, 1), `data_dir: "d" must be an absolute path`},
		{"forge url", strings.Replace(good, "http://192.0.2.1:8080/", "ssh://x", 1), `forge.url: "ssh://x" must be an http or https URL`},
		{"address", strings.Replace(good, "127.0.0.1:8443", "8443", 1), "api.address: address 8443: missing port"},
		{"level", strings.Replace(good, `"bin_dir"`, `"log_level":"loud","bin_dir"`, 1), `log_level: "loud" is none of`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseConfig(strings.NewReader(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
