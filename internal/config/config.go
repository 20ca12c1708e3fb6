// Package config reads the one configuration file: strictly, with documented
// defaults, validated once.
//
// It owns the file format (default.yaml is its documentation and its defaults
// at once) and gives the wiring a Config. Stages do not import it: they get
// plain values through their constructors.
package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DefaultPath is where the configuration is read from unless --config says
// otherwise. That file may be missing.
const DefaultPath = "/etc/slipway/config.yaml"

//go:embed default.yaml
var defaults []byte

// Defaults returns the documented default configuration as YAML.
func Defaults() []byte { return bytes.Clone(defaults) }

// Config is the whole configuration; the meaning of every key is documented in
// default.yaml.
type Config struct {
	Name        string   `yaml:"name"`
	DataDir     string   `yaml:"data_dir"`
	Address     string   `yaml:"address"`
	ExternalURL string   `yaml:"external_url"`
	Domain      string   `yaml:"domain"`
	LogLevel    string   `yaml:"log_level"`
	Web         Web      `yaml:"web"`
	SSH         SSH      `yaml:"ssh"`
	Forge       Forge    `yaml:"forge"`
	Mail        Mail     `yaml:"mail"`
	Ingress     Ingress  `yaml:"ingress"`
	Cluster     Cluster  `yaml:"cluster"`
	GitOps      GitOps   `yaml:"gitops"`
	Runner      Runner   `yaml:"runner"`
	Registry    Registry `yaml:"registry"`
	Build       Build    `yaml:"build"`
	Scan        Scan     `yaml:"scan"`
	Metrics     Metrics  `yaml:"metrics"`
	Network     Network  `yaml:"network"`
	Budgets     Budgets  `yaml:"budgets"`
}

// Web is the listener of UI, API, git and registry.
type Web struct {
	Port int `yaml:"port"`
}

// SSH is git's SSH server.
type SSH struct {
	Port int `yaml:"port"`
}

// Forge limits git hosting.
type Forge struct {
	MaxPushSize  Size     `yaml:"max_push_size"`
	WebhookAllow []string `yaml:"webhook_allow"`
}

// Mail is the SMTP server that e-mail goes out by; an empty Host: none does.
type Mail struct {
	Host         string `yaml:"host"`
	Port         int    `yaml:"port"`
	Encryption   string `yaml:"encryption"`
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	From         string `yaml:"from"`
}

func (m Mail) validate(add func(format string, args ...any)) {
	if m.Host == "" {
		return
	}
	if m.Port < 1 || m.Port > 65535 {
		add("mail.port: %d is not a port", m.Port)
	}
	switch m.Encryption {
	case "starttls", "tls", "none":
	default:
		add("mail.encryption: %q is none of starttls, tls, none", m.Encryption)
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		add("mail.from: %q is not an address such as Slipway <slipway@example.com>", m.From)
	}
	if m.PasswordFile != "" && !filepath.IsAbs(m.PasswordFile) {
		add("mail.password_file: %q must be an absolute path", m.PasswordFile)
	}
	if (m.Username == "") != (m.PasswordFile == "") {
		add("mail: username and password_file belong together")
	}
}

// Ingress is the applications' entrance.
type Ingress struct {
	Enabled   bool   `yaml:"enabled"`
	HTTPPort  int    `yaml:"http_port"`
	HTTPSPort int    `yaml:"https_port"`
	ACMEEmail string `yaml:"acme_email"`
	// TrustedProxies are CIDR ranges of proxies in front whose X-Forwarded-For
	// is believed; ProxyProtocol those of load balancers that speak the PROXY
	// protocol.
	TrustedProxies []string `yaml:"trusted_proxies"`
	ProxyProtocol  []string `yaml:"proxy_protocol"`
	AccessLog      bool     `yaml:"access_log"`
}

// Cluster is the embedded Kubernetes.
type Cluster struct {
	Enabled     bool   `yaml:"enabled"`
	APIPort     int    `yaml:"api_port"`
	PodCIDR     string `yaml:"pod_cidr"`
	ServiceCIDR string `yaml:"service_cidr"`
	DNSAddress  string `yaml:"dns_address"`
	MaxPods     int    `yaml:"max_pods"`
}

// GitOps is Argo CD and Argo Rollouts.
type GitOps struct {
	Enabled bool `yaml:"enabled"`
}

// Runner is the built-in runner.
type Runner struct {
	Enabled       bool     `yaml:"enabled"`
	Concurrency   int      `yaml:"concurrency"`
	JobMemory     Size     `yaml:"job_memory"`
	JobCPUs       float64  `yaml:"job_cpus"`
	JobCIDR       string   `yaml:"job_cidr"`
	Privileged    bool     `yaml:"privileged"`
	MaxJobTimeout Duration `yaml:"max_job_timeout"`
}

// Registry is the container registry and its pull-through cache.
type Registry struct {
	Enabled   bool     `yaml:"enabled"`
	Mirrors   []string `yaml:"mirrors"`
	CacheSize Size     `yaml:"cache_size"`

	Credentials  map[string]string `yaml:"credentials"` // host -> file with user:password
	ProjectQuota Size              `yaml:"project_quota"`
}

// Build is BuildKit.
type Build struct {
	CacheSize   Size     `yaml:"cache_size"`
	IdleTimeout Duration `yaml:"idle_timeout"`
}

// Scan is Trivy.
type Scan struct {
	Database string `yaml:"database"`
	OnPush   bool   `yaml:"on_push"`
}

// Metrics is Prometheus.
type Metrics struct {
	Enabled        bool     `yaml:"enabled"`
	Retention      Duration `yaml:"retention"`
	MaxSize        Size     `yaml:"max_size"`
	ScrapeInterval Duration `yaml:"scrape_interval"`
}

// Network isolates a further instance.
type Network struct {
	Namespace string `yaml:"namespace"`
	LinkCIDR  string `yaml:"link_cidr"`
}

// Budgets are memory sizes in bytes.
type Budgets struct {
	Slipway        Size `yaml:"slipway"`
	SlipwayCluster Size `yaml:"slipway-cluster"`
	SlipwayGitOps  Size `yaml:"slipway-gitops"`
	Containerd     Size `yaml:"containerd"`
	Buildkitd      Size `yaml:"buildkitd"`
	Trivy          Size `yaml:"trivy"`
	Workloads      Size `yaml:"workloads"`
	Jobs           Size `yaml:"jobs"`
	Headroom       Size `yaml:"headroom"`
}

// Budget is one row of the budget table.
type Budget struct {
	Component string
	Bytes     int64
}

// Table lists the budgets in the order of the file, headroom last.
func (b Budgets) Table() []Budget {
	return []Budget{
		{"slipway", int64(b.Slipway)}, {"slipway-cluster", int64(b.SlipwayCluster)},
		{"slipway-gitops", int64(b.SlipwayGitOps)}, {"containerd", int64(b.Containerd)},
		{"buildkitd", int64(b.Buildkitd)}, {"trivy", int64(b.Trivy)},
		{"workloads", int64(b.Workloads)}, {"jobs", int64(b.Jobs)}, {"headroom", int64(b.Headroom)},
	}
}

// Total is the sum of all budgets and the headroom, in bytes.
func (b Budgets) Total() int64 {
	var sum int64
	for _, row := range b.Table() {
		sum += row.Bytes
	}
	return sum
}

// Load reads the file at path over the defaults. A missing file is an error
// unless path is DefaultPath. Errors name the file and, where there is one, the
// line.
func Load(path string) (*Config, error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultPath {
		body, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return Parse(path, body)
}

// Parse reads a configuration from memory; name stands for the file in errors.
func Parse(name string, body []byte) (*Config, error) {
	c := &Config{}
	if err := decode("default.yaml", defaults, c); err != nil {
		return nil, err
	}
	if err := decode(name, body, c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func decode(name string, body []byte, c *Config) error {
	d := yaml.NewDecoder(bytes.NewReader(body))
	d.KnownFields(true)
	err := d.Decode(c)
	if err == nil {
		if again := d.Decode(&struct{}{}); !errors.Is(again, io.EOF) {
			return fmt.Errorf("%s: only one YAML document is allowed", name)
		}
		return nil
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		lines := make([]string, len(te.Errors))
		for i, s := range te.Errors {
			s = unknownField.ReplaceAllString(s, `unknown key "$1"`)
			lines[i] = fmt.Sprintf("%s: %s", name, s)
		}
		return fmt.Errorf("%s\nSee all keys with: slipway config print", strings.Join(lines, "\n"))
	}
	return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

var nameRule = regexp.MustCompile(`^[a-z][a-z0-9]{0,8}$`)

// Validate checks what the types cannot: it returns every mistake, one a line.
func (c *Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameRule.MatchString(c.Name) {
		add("name: %q must be 1 to 9 lower-case letters and digits, starting with a letter", c.Name)
	}
	if !filepath.IsAbs(c.DataDir) {
		add("data_dir: %q must be an absolute path", c.DataDir)
	}
	if len(c.DataDir) > 60 {
		add("data_dir: %q is longer than 60 characters, too long for the sockets in it", c.DataDir)
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		add("log_level: %q is none of debug, info, warn, error", c.LogLevel)
	}
	if c.ExternalURL != "" {
		u, err := url.Parse(c.ExternalURL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" {
			add("external_url: %q must look like https://host[:port]", c.ExternalURL)
		}
	}
	if c.Domain == "" || strings.ContainsAny(c.Domain, "/: ") {
		add("domain: %q is not a domain name", c.Domain)
	}
	ports := map[int]string{}
	port := func(key string, n int, zero bool) {
		switch {
		case n == 0 && zero:
		case n < 1 || n > 65535:
			add("%s: %d is not a port", key, n)
		case ports[n] != "":
			add("%s: port %d is already taken by %s", key, n, ports[n])
		default:
			ports[n] = key
		}
	}
	port("web.port", c.Web.Port, false)
	port("ssh.port", c.SSH.Port, true)
	if c.Ingress.Enabled {
		port("ingress.http_port", c.Ingress.HTTPPort, false)
		port("ingress.https_port", c.Ingress.HTTPSPort, false)
		for key, list := range map[string][]string{"trusted_proxies": c.Ingress.TrustedProxies, "proxy_protocol": c.Ingress.ProxyProtocol} {
			for _, one := range list {
				if _, err := netip.ParsePrefix(one); err != nil {
					add("ingress.%s: %q is not a CIDR range such as 10.0.0.0/8", key, one)
				}
			}
		}
	}
	if c.Cluster.Enabled {
		port("cluster.api_port", c.Cluster.APIPort, false)
	}
	c.Mail.validate(add)
	errs = append(errs, c.validateNetworks()...)
	if c.GitOps.Enabled && !c.Cluster.Enabled {
		add("gitops.enabled: Argo CD needs the cluster; enable it or turn gitops off")
	}
	for _, host := range c.Registry.Mirrors {
		if !mirrorHost.MatchString(host) {
			add("registry.mirrors: %q must be a host name alone, such as registry.example.com: without scheme, port and path", host)
		}
	}
	for host, file := range c.Registry.Credentials {
		if !slices.Contains(c.Registry.Mirrors, host) {
			add("registry.credentials: %s is not among registry.mirrors", host)
		}
		if !filepath.IsAbs(file) {
			add("registry.credentials: the file of %s must be an absolute path, not %q", host, file)
		}
	}
	for _, b := range c.Budgets.Table() {
		if b.Bytes < 16<<20 {
			add("budgets.%s: %s is less than 16Mi", b.Component, Size(b.Bytes))
		}
	}
	return errors.Join(errs...)
}

// mirrorHost is a host that can be a component of a repository's name, below
// which the cache keeps its images.
var mirrorHost = regexp.MustCompile(`^[a-z0-9]+([.-][a-z0-9]+)*$`)

func (c *Config) validateNetworks() []error {
	var errs []error
	type network struct {
		key    string
		prefix netip.Prefix
	}
	var nets []network
	for _, n := range []struct{ key, value string }{
		{"cluster.pod_cidr", c.Cluster.PodCIDR}, {"cluster.service_cidr", c.Cluster.ServiceCIDR},
		{"runner.job_cidr", c.Runner.JobCIDR}, {"network.link_cidr", c.Network.LinkCIDR},
	} {
		p, err := netip.ParsePrefix(n.value)
		if err != nil || !p.Addr().Is4() || p.Masked() != p {
			errs = append(errs, fmt.Errorf("%s: %q is not an IPv4 network such as 10.42.0.0/16", n.key, n.value))
			continue
		}
		for _, other := range nets {
			if other.prefix.Overlaps(p) {
				errs = append(errs, fmt.Errorf("%s: %s overlaps %s (%s)", n.key, p, other.key, other.prefix))
			}
		}
		nets = append(nets, network{n.key, p})
	}
	service, err := netip.ParsePrefix(c.Cluster.ServiceCIDR)
	dns, err2 := netip.ParseAddr(c.Cluster.DNSAddress)
	if err == nil && (err2 != nil || !service.Contains(dns)) {
		errs = append(errs, fmt.Errorf("cluster.dns_address: %q is not an address within cluster.service_cidr (%s)", c.Cluster.DNSAddress, service))
	}
	return errs
}
