package containerd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTrustAddsAndReplacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trust := Trust{Dir: dir, URLs: []string{"https://slipway.test"}}
	if env, mounts := trust.apply([]string{"A=1"}, nil, nil); len(env) != 1 || mounts != nil {
		t.Errorf("without an authority: %v %v", env, mounts)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	env, mounts := trust.apply([]string{"A=1"}, nil, nil)
	want := []string{"A=1", "SSL_CERT_DIR=/etc/ssl/certs:/etc/pki/tls/certs:/etc/slipway/certs", "NODE_EXTRA_CA_CERTS=/etc/slipway/certs/ca.crt",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.https://slipway.test/.sslCAInfo", "GIT_CONFIG_VALUE_0=/etc/slipway/certs/ca.crt"}
	if !slices.Equal(env, want) || len(mounts) != 1 || mounts[0].Destination != TrustDir || !slices.Contains(mounts[0].Options, "ro") {
		t.Errorf("%v\n%v", env, mounts)
	}
	env, _ = trust.apply([]string{"SSL_CERT_DIR=/mine", "GIT_CONFIG_COUNT=0"}, []string{"NODE_EXTRA_CA_CERTS=/image"}, nil)
	if !slices.Equal(env, []string{"SSL_CERT_DIR=/mine", "GIT_CONFIG_COUNT=0"}) {
		t.Errorf("overrides %v", env)
	}
}
