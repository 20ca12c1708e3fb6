package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"net/netip"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// credentials are the cluster's keys, certificates and kubeconfigs on disk.
// Components read the files again when they change, so that renewing needs no
// restart; only the authority's own certificate, which lasts ten years, is
// handed to pods at the next start.
type credentials struct {
	config node.Config
	dir    string // certificates and keys
	// now tells the time; tests move it.
	now func() time.Time
}

func newCredentials(c node.Config) *credentials {
	return &credentials{config: c, dir: filepath.Join(c.ClusterDir(), "pki"), now: time.Now}
}

func (c *credentials) cert(name string) string { return filepath.Join(c.dir, name+".crt") }
func (c *credentials) key(name string) string  { return filepath.Join(c.dir, name+".key") }

// kubeconfig is the path of a component's kubeconfig.
func (c *credentials) kubeconfig(component string) string {
	return filepath.Join(c.config.ClusterDir(), "kubeconfigs", component+".conf")
}

// clients are the components that talk to the API server, with the users that
// Kubernetes' own RBAC policy (or ours, in manifests/) knows.
func (c *credentials) clients() []certificate {
	return []certificate{
		{Name: "admin", User: "slipway-admin", Groups: []string{"system:masters"}},
		{Name: "controller-manager", User: "system:kube-controller-manager"},
		{Name: "scheduler", User: "system:kube-scheduler"},
		{Name: "kubelet", User: "system:node:" + c.config.Node.Name, Groups: []string{"system:nodes"}},
		{Name: "kube-proxy", User: "system:kube-proxy"},
		{Name: "coredns", User: "slipway:coredns"},
		{Name: "metrics-server", User: "slipway:metrics-server"},
		{Name: "volumes", User: "slipway:volumes"},
	}
}

// servers are the listeners with TLS, and the API server's client certificate
// for the kubelet.
func (c *credentials) servers() []certificate {
	ip, name, domain := c.config.Node.IP, c.config.Node.Name, c.config.Network.ClusterDomain
	service := netip.MustParsePrefix(c.config.Network.ServiceCIDR).Addr().Next().String()
	return []certificate{
		{Name: "apiserver", User: "kube-apiserver", Hosts: []string{
			ip, "127.0.0.1", service, "localhost", name,
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		}},
		{Name: "apiserver-kubelet-client", User: "slipway:apiserver", Groups: []string{"system:masters"}},
		{Name: "controller-manager-serving", User: "kube-controller-manager", Hosts: []string{"127.0.0.1", "localhost"}},
		{Name: "scheduler-serving", User: "kube-scheduler", Hosts: []string{"127.0.0.1", "localhost"}},
		{Name: "kubelet-serving", User: "system:node:" + name, Groups: []string{"system:nodes"}, Hosts: []string{ip, "127.0.0.1", name}},
		{Name: "metrics-server-serving", User: "metrics-server", Hosts: []string{ip, "metrics-server.kube-system.svc"}},
	}
}

// ensure makes and renews everything that is missing or nears its end, and
// returns the names of the certificates it wrote.
func (c *credentials) ensure() (renewed []string, err error) {
	now := c.now()
	ca, err := openAuthority(c.dir, "ca", "slipway-ca", now)
	if err != nil {
		return nil, err
	}
	// The aggregation layer's authority must be another one: whoever holds a
	// certificate of it may name any user.
	front, err := openAuthority(c.dir, "front-proxy-ca", "slipway-front-proxy-ca", now)
	if err != nil {
		return nil, err
	}
	issue := func(a *authority, want certificate) error {
		written, err := a.issue(c.dir, want, now)
		if written {
			renewed = append(renewed, want.Name)
		}
		return err
	}
	for _, want := range append(c.clients(), c.servers()...) {
		if err := issue(ca, want); err != nil {
			return renewed, err
		}
	}
	if err := issue(front, certificate{Name: "front-proxy-client", User: "front-proxy-client"}); err != nil {
		return renewed, err
	}
	if _, err := openKey(c.key("service-account")); err != nil {
		return renewed, err
	}
	if err := c.writeEncryptionConfig(); err != nil {
		return renewed, err
	}
	return renewed, c.writeKubeconfigs()
}

// writeKubeconfigs writes the components' kubeconfigs, which name files, and
// the administrator's, which holds everything.
func (c *credentials) writeKubeconfigs() error {
	port := c.config.Ports.APIServer
	for _, client := range c.clients() {
		path, server := c.kubeconfig(client.Name), fmt.Sprintf("https://127.0.0.1:%d", port)
		cluster := &clientcmdapi.Cluster{Server: server, CertificateAuthority: c.cert("ca")}
		user := &clientcmdapi.AuthInfo{ClientCertificate: c.cert(client.Name), ClientKey: c.key(client.Name)}
		if err := writeKubeconfig(path, c.config.Instance, client.User, cluster, user); err != nil {
			return err
		}
	}
	var contents [3][]byte
	for i, path := range []string{c.cert("ca"), c.cert("admin"), c.key("admin")} {
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
		contents[i] = raw
	}
	cluster := &clientcmdapi.Cluster{
		Server: fmt.Sprintf("https://%s:%d", c.config.Node.IP, port), CertificateAuthorityData: contents[0],
	}
	user := &clientcmdapi.AuthInfo{ClientCertificateData: contents[1], ClientKeyData: contents[2]}
	return writeKubeconfig(c.config.Kubeconfig, c.config.Instance, "slipway-admin", cluster, user)
}

func writeKubeconfig(path, name, userName string, cluster *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = cluster
	config.AuthInfos[userName] = user
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: userName}
	config.CurrentContext = name
	raw, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig %s: %w", path, err)
	}
	return wholefile.Write(path, raw, 0o600)
}

// encryptionConfigFile is the API server's EncryptionConfiguration.
func (c *credentials) encryptionConfigFile() string { return filepath.Join(c.dir, "encryption.yaml") }

// writeEncryptionConfig makes the key with which Secrets are encrypted in
// etcd, once: without it the data cannot be read again.
// https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
func (c *credentials) writeEncryptionConfig() error {
	_, err := os.Stat(c.encryptionConfigFile())
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(etcdDir(c.config), "member")); err == nil {
		return fmt.Errorf("%s is missing but etcd holds data encrypted with its key: restore it from a backup, or reset the instance", c.encryptionConfigFile())
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make encryption key: %w", err)
	}
	return wholefile.Write(c.encryptionConfigFile(), fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: "1"
        secret: %s
  - identity: {}
`, base64.StdEncoding.EncodeToString(key)), 0o600)
}
