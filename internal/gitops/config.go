package gitops

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Config is what slipway-gitops reads from the file named by its --config
// flag. The platform writes it with mode 0600; unknown keys are refused.
type Config struct {
	// DataDir holds the engine's own files (git work trees, its home, tokens).
	DataDir string `json:"data_dir"`
	// RunDir holds its sockets; 0700.
	RunDir string `json:"run_dir"`
	// HealthSocket is the unix socket of /readyz, /metrics and /api/webhook.
	HealthSocket string `json:"health_socket"`
	// Kubeconfig names an administrator's kubeconfig.
	Kubeconfig string `json:"kubeconfig"`
	// BinDir holds git helpers: kustomize and helm must be found in it or in PATH.
	BinDir string `json:"bin_dir"`
	// CABundle is a PEM file of the authorities to trust, the platform's own
	// among them; "" means the host's. It may appear later than the program starts.
	CABundle string `json:"ca_bundle,omitempty"`
	// LogLevel is debug, info, warn or error; "" means info.
	LogLevel string `json:"log_level,omitempty"`

	// Forge is where the platform's own repositories are.
	Forge Forge `json:"forge"`
	// API is the served Argo CD API.
	API API `json:"api"`
	// PrometheusURL is the default address of analysis queries, such as
	// http://127.0.0.1:8080/prometheus.
	PrometheusURL string `json:"prometheus_url,omitempty"`
	// ClusterDNS, host:port, answers for the names of the cluster's Services
	// below ClusterDomain ("" means cluster.local), which measurements and
	// notifications may use as in a pod; "" leaves them unknown.
	ClusterDNS    string `json:"cluster_dns,omitempty"`
	ClusterDomain string `json:"cluster_domain,omitempty"`
	// MetricsAddress, host:port on loopback, serves each engine's metrics under
	// /metrics/<component>; "" leaves them on the health socket only.
	MetricsAddress string `json:"metrics_address,omitempty"`
	// IngressClasses are the classes whose canary Ingresses the Rollouts
	// controller manages by NGINX annotations; empty means ["slipway"].
	IngressClasses []string `json:"ingress_classes,omitempty"`

	// GOGC is the garbage collector's percentage; 0 means 50.
	GOGC int `json:"gogc,omitempty"`
	// MemoryLimit is the Go runtime's soft limit in bytes; 0 means none.
	MemoryLimit int64 `json:"memory_limit,omitempty"`
}

// Forge says how Argo CD reaches the platform's repositories.
type Forge struct {
	// URL is the forge's external URL: the prefix of every repository's clone
	// address. A push event's project.web_url must begin with it, because Argo
	// CD matches Applications to events by that address.
	URL string `json:"url"`
	// Username and PasswordFile are a read-only credential for all
	// repositories. Without a file, repositories are read anonymously.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
	// WebhookSecretFile holds the token that push events carry in
	// X-Gitlab-Token.
	WebhookSecretFile string `json:"webhook_secret_file,omitempty"`
}

// API says where the Argo CD API listens and how users reach it.
type API struct {
	// Address is host:port; loopback, as it speaks plain HTTP and gRPC.
	Address string `json:"address"`
	// RootPath is the path under which the platform's listener forwards to it,
	// such as /argocd; "" means none.
	RootPath string `json:"root_path,omitempty"`
	// ExternalURL is the address that users see, root path included.
	ExternalURL string `json:"external_url,omitempty"`
	// AdminPasswordFile holds the password of Argo CD's account "admin".
	// Without one, Argo CD generates it into the Secret
	// argocd-initial-admin-secret.
	AdminPasswordFile string `json:"admin_password_file,omitempty"`
	// TokenFile is where the engine writes a token of the account "slipway",
	// with which the platform calls the API; "" means <data_dir>/api-token.
	TokenFile string `json:"token_file,omitempty"`
	// OIDC, where set, lets the platform's accounts sign in to the API.
	OIDC *OIDC `json:"oidc,omitempty"`
}

// OIDC names the platform's OpenID Connect provider. The client is public: it
// has no secret and uses PKCE.
type OIDC struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
}

// LoadConfig reads and validates the file at path and fills in defaults.
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	c, err := ParseConfig(f)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// ParseConfig reads one JSON document, refuses unknown keys, and returns every
// fault it finds in one error.
func ParseConfig(r io.Reader) (*Config, error) {
	var c Config
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, err
	}
	c.setDefaults()
	return &c, c.validate()
}

func (c *Config) setDefaults() {
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	if c.GOGC == 0 {
		c.GOGC = 50
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if len(c.IngressClasses) == 0 {
		c.IngressClasses = []string{"slipway"}
	}
	if c.API.TokenFile == "" {
		c.API.TokenFile = filepath.Join(c.DataDir, "api-token")
	}
	c.Forge.URL = strings.TrimRight(c.Forge.URL, "/")
	c.API.RootPath = strings.TrimRight(c.API.RootPath, "/")
}

func (c *Config) validate() error {
	var errs []error
	for _, p := range []struct{ key, value string }{
		{"data_dir", c.DataDir}, {"run_dir", c.RunDir}, {"health_socket", c.HealthSocket},
		{"kubeconfig", c.Kubeconfig}, {"bin_dir", c.BinDir},
	} {
		if !filepath.IsAbs(p.value) {
			errs = append(errs, fmt.Errorf("%s: %q must be an absolute path", p.key, p.value))
		}
	}
	if err := checkURL(c.Forge.URL); err != nil {
		errs = append(errs, fmt.Errorf("forge.url: %w", err))
	}
	if c.PrometheusURL != "" {
		if err := checkURL(c.PrometheusURL); err != nil {
			errs = append(errs, fmt.Errorf("prometheus_url: %w", err))
		}
	}
	if _, _, err := net.SplitHostPort(c.API.Address); err != nil {
		errs = append(errs, fmt.Errorf("api.address: %w", err))
	}
	if c.API.RootPath != "" && !strings.HasPrefix(c.API.RootPath, "/") {
		errs = append(errs, fmt.Errorf("api.root_path: %q must begin with /", c.API.RootPath))
	}
	if c.MetricsAddress != "" {
		if _, _, err := net.SplitHostPort(c.MetricsAddress); err != nil {
			errs = append(errs, fmt.Errorf("metrics_address: %w", err))
		}
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("log_level: %q is none of debug, info, warn, error", c.LogLevel))
	}
	return errors.Join(errs...)
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q must be an http or https URL with a host", s)
	}
	return nil
}
