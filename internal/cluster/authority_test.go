package cluster

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/node"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func testCredentials(t *testing.T) *credentials {
	t.Helper()
	c := node.Config{DataDir: t.TempDir(), BinDir: "/bin", Node: node.NodeConfig{IP: "192.0.2.2", Name: "a"}}
	if err := c.SetDefaults(); err != nil {
		t.Fatal(err)
	}
	creds := newCredentials(c)
	creds.now = func() time.Time { return epoch }
	return creds
}

func ensure(t *testing.T, c *credentials) []string {
	t.Helper()
	renewed, err := c.ensure()
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

func load(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	certificate, err := readCertificate(path)
	if err != nil || certificate == nil {
		t.Fatalf("certificate %s: %v, %v", path, certificate, err)
	}
	return certificate
}

func TestCredentialsVerify(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	roots := x509.NewCertPool()
	roots.AddCert(load(t, c.cert("ca")))
	for _, host := range []string{"192.0.2.2", "127.0.0.1", "10.43.0.1", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"} {
		_, err := load(t, c.cert("apiserver")).Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: epoch})
		if err != nil {
			t.Errorf("API server as %s: %v", host, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: epoch}
	kubelet := load(t, c.cert("kubelet"))
	if _, err := kubelet.Verify(client); err != nil {
		t.Errorf("kubelet as a client: %v", err)
	}
	if kubelet.Subject.CommonName != "system:node:a" || !slices.Equal(kubelet.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("kubelet is %s", kubelet.Subject)
	}
	if _, err := load(t, c.cert("front-proxy-client")).Verify(client); err == nil {
		t.Error("the aggregation layer's client is trusted as a user")
	}
	if _, err := load(t, c.cert("apiserver")).Verify(client); err == nil {
		t.Error("a serving certificate is trusted as a user")
	}
}

func TestCredentialsAreNotMadeTwice(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	if renewed := ensure(t, c); len(renewed) == 0 {
		t.Error("nothing was written the first time")
	}
	kubeconfig, err := os.ReadFile(c.config.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if renewed := ensure(t, c); len(renewed) > 0 {
		t.Errorf("renewed %v the second time", renewed)
	}
	if again, err := os.ReadFile(c.config.Kubeconfig); err != nil || !bytes.Equal(kubeconfig, again) {
		t.Errorf("the kubeconfig changed (%v)", err)
	}
}

func TestCredentialsRenewEarly(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	c.now = func() time.Time { return epoch.Add(leafLifetime / 2) }
	if renewed := ensure(t, c); len(renewed) > 0 {
		t.Errorf("renewed %v at half their life", renewed)
	}
	now := epoch.Add(leafLifetime * 3 / 4)
	c.now = func() time.Time { return now }
	renewed := ensure(t, c)
	for _, name := range []string{"admin", "apiserver", "kubelet", "kubelet-serving", "front-proxy-client"} {
		if !slices.Contains(renewed, name) {
			t.Errorf("%s was not renewed in the last third of its life: %v", name, renewed)
		}
	}
	config, err := clientcmd.LoadFromFile(c.config.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := os.ReadFile(c.cert("admin"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(config.AuthInfos["slipway-admin"].ClientCertificateData, admin) {
		t.Error("the administrator's kubeconfig still has the old certificate")
	}
}

// A renewed authority keeps its key, so that those who still trust the old
// certificate accept what the new one signs.
func TestAuthorityRenewsWithItsKey(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	old := load(t, c.cert("ca"))
	now := epoch.Add(authorityLifetime * 3 / 4)
	c.now = func() time.Time { return now }
	ensure(t, c)
	renewed := load(t, c.cert("ca"))
	if renewed.Equal(old) {
		t.Fatal("the authority was not renewed")
	}
	for _, root := range []*x509.Certificate{old, renewed} {
		roots := x509.NewCertPool()
		roots.AddCert(root)
		_, err := load(t, c.cert("apiserver")).Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost", CurrentTime: now})
		if err != nil {
			t.Errorf("API server by the authority of %s: %v", root.NotBefore, err)
		}
	}
}

func TestNewAddressGetsNewCertificates(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	c.config.Node.IP = "192.0.2.3"
	renewed := ensure(t, c)
	slices.Sort(renewed)
	if want := []string{"apiserver", "kubelet-serving", "metrics-server-serving"}; !slices.Equal(renewed, want) {
		t.Errorf("renewed %v, want %v", renewed, want)
	}
	config, err := clientcmd.LoadFromFile(c.config.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if server := config.Clusters["slipway"].Server; server != "https://192.0.2.3:6443" {
		t.Errorf("kubeconfig names %s", server)
	}
}

func TestCredentialsAreClosed(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	err := filepath.WalkDir(c.config.DataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == c.config.DataDir {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A new encryption key beside old data would make every Secret unreadable.
func TestLostEncryptionKeyIsReported(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	if err := os.MkdirAll(filepath.Join(etcdDir(c.config), "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	ensure(t, c)
	if err := os.Remove(c.encryptionConfigFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ensure(); err == nil {
		t.Error("a new key was made for data that the old one encrypted")
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	c := testCredentials(t)
	ensure(t, c)
	if err := os.WriteFile(c.cert("apiserver"), []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	if renewed := ensure(t, c); !slices.Equal(renewed, []string{"apiserver"}) {
		t.Errorf("renewed %v, want the damaged certificate", renewed)
	}
	if err := os.WriteFile(c.key("ca"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ensure(); err == nil {
		t.Error("a lost authority key was replaced silently")
	}
}
