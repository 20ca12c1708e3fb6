package runner

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/local"
	"github.com/slipwayhq/slipway/internal/runner/remote"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// Registration is a runner of some platform that this machine serves.
type Registration struct {
	Name       string `json:"name"`
	URL        string `json:"url"`
	Token      string `json:"token"`
	ID         int64  `json:"id"`
	SystemID   string `json:"system_id"`
	Executor   string `json:"executor"`              // shell, or one that New was given
	Concurrent int    `json:"concurrent"`            // jobs at a time
	Containerd string `json:"containerd,omitempty"`  // socket, for the executor containerd
	Dir        string `json:"dir"`                   // jobs in hand and caches
	CAFile     string `json:"tls_ca_file,omitempty"` // authority of the platform's certificate, beside the system's
	// For the executor containerd: the network of its jobs, an IPv4 subnet of at
	// least a /20, and the limits of one job, 0 for none.
	JobCIDR   string  `json:"job_cidr,omitempty"`
	JobMemory int64   `json:"job_memory,omitempty"` // bytes
	JobCPUs   float64 `json:"job_cpus,omitempty"`   // cores
}

// registrations is the file of this machine. It holds tokens: only its owner
// may read it.
type registrations struct {
	path string
	list []Registration
}

// Coordinator is the platform as this machine reaches it.
func (r Registration) Coordinator() (*remote.Coordinator, error) {
	c := &remote.Coordinator{URL: r.URL}
	if r.CAFile == "" {
		return c, nil
	}
	raw, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "%s: --tls-ca-file: %v", r.Name, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a machine without any
	}
	if !roots.AppendCertsFromPEM(raw) {
		return nil, delivery.Errorf(delivery.Invalid, "%s: --tls-ca-file: %s holds no certificate in PEM form", r.Name, r.CAFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c.HTTP = &http.Client{Transport: transport}
	return c, nil
}

func fileFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "file", "", "where registrations are kept (default /etc/slipway/runners.json, or for others than root slipway/runners.json in the configuration folder)")
}

func load(path string) (*registrations, error) {
	if path == "" {
		path = "/etc/slipway/runners.json"
		if os.Getuid() != 0 {
			dir, err := os.UserConfigDir()
			if err != nil {
				return nil, fmt.Errorf("find the configuration folder: %w", err)
			}
			path = filepath.Join(dir, "slipway", "runners.json")
		}
	}
	r := &registrations{path: path}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read registrations: %w", err)
	}
	if err := json.Unmarshal(raw, &r.list); err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "%s is not a file of registrations: %v", path, err)
	}
	return r, nil
}

func (r *registrations) save() error {
	raw, err := json.MarshalIndent(r.list, "", "  ")
	if err != nil {
		return fmt.Errorf("encode registrations: %w", err)
	}
	if err := wholefile.Write(r.path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("store registrations: %w", err)
	}
	return nil
}

func (r Registration) session(version string) delivery.RunnerSession {
	return delivery.RunnerSession{Token: r.Token, SystemID: r.SystemID, Info: delivery.RunnerInfo{
		Name: "slipway", Version: version, Platform: runtime.GOOS, Architecture: runtime.GOARCH, Executor: r.Executor, Shell: "bash"}}
}

func listLocal(c *cobra.Command, file string, asJSON bool) error {
	have, err := load(file)
	if err != nil {
		return err
	}
	shown := slices.Clone(have.list)
	for i := range shown {
		shown[i].Token = ""
	}
	return output.List(c.OutOrStdout(), asJSON, shown, []string{"NAME", "URL", "ID", "EXECUTOR", "JOBS"}, func(r Registration) []string {
		return []string{r.Name, r.URL, fmt.Sprint(r.ID), r.Executor, fmt.Sprint(r.Concurrent)}
	})
}

func register(executors map[string]Start) *cobra.Command {
	var file, tokenFile, memory string
	var r Registration
	names := make([]string, 0, len(executors))
	for name := range executors {
		names = append(names, name)
	}
	sort.Strings(names)
	c := &cobra.Command{
		Use: "register", Short: "Register a runner's token on this machine", Args: cobra.NoArgs,
		Long: "Check a runner's token with the platform and keep it, so that \"slipway runner run\" serves it. The token\n" +
			"comes from \"slipway runner create\" or the pages of a project, group or the administration; so that it is in\n" +
			"no process list, give it by --token-file or the variable CI_SERVER_TOKEN.",
		Example: "  CI_SERVER_TOKEN=glrt-... slipway runner register --url http://192.0.2.2:8080\n  slipway runner register --url https://slipway.example.com --token-file token --executor containerd --concurrent 4",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := complete(&r, tokenFile, executors, names); err != nil {
				return err
			}
			have, err := load(file)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(have.list, func(o Registration) bool { return o.Name == r.Name }) {
				return delivery.Errorf(delivery.Conflict, "%q is registered on this machine already: choose another --name, or unregister it", r.Name)
			}
			if r.Executor == "containerd" {
				if err := r.place(have.list, memory); err != nil {
					return err
				}
			}
			platform, err := r.Coordinator()
			if err != nil {
				return err
			}
			if r.ID, err = platform.Verify(c.Context(), r.session("")); err != nil {
				return refused(err, r.URL)
			}
			have.list = append(have.list, r)
			if err := have.save(); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Runner %d of %s is registered as %q in %s. Start it with: slipway runner run\n", r.ID, r.URL, r.Name, have.path)
			return nil
		},
	}
	f := c.Flags()
	fileFlag(c, &file)
	f.StringVar(&r.URL, "url", os.Getenv("CI_SERVER_URL"), "the platform's address")
	f.StringVar(&r.Token, "token", "", "the runner's token")
	f.StringVar(&tokenFile, "token-file", "", "file with the runner's token")
	f.StringVar(&r.Name, "name", "", "what to call it (default: this machine's name)")
	f.StringVar(&r.Executor, "executor", "shell", "how jobs run: "+strings.Join(names, ", "))
	f.IntVar(&r.Concurrent, "concurrent", 1, "jobs at a time")
	f.StringVar(&r.Containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket, for the executor containerd")
	f.StringVar(&r.CAFile, "tls-ca-file", os.Getenv("CI_SERVER_TLS_CA_FILE"), "PEM file with the authority of the platform's certificate, beside the system's")
	f.StringVar(&r.JobCIDR, "job-cidr", "", "network of the jobs' containers, at least a /20, for the executor containerd (default: the first /19 of 10.46.0.0/16 that no other runner of this machine has)")
	f.StringVar(&memory, "job-memory", "", "memory of one job, such as 2Gi, for the executor containerd (default: no limit)")
	f.Float64Var(&r.JobCPUs, "job-cpus", 0, "cores of one job, for the executor containerd (default: no limit)")
	f.StringVar(&r.Dir, "dir", "", "folder of jobs and caches (default /var/lib/slipway-runner/NAME, or for others than root in the cache folder)")
	return c
}

// defaultNetworks holds the networks of runners that were given none.
var defaultNetworks = netip.MustParsePrefix("10.46.0.0/16")

// place gives a runner of containers a network of its own beside the others of
// this machine, and its limits.
func (r *Registration) place(others []Registration, memory string) error {
	if memory != "" {
		bytes, err := runner.ParseQuantity(memory)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "--job-memory: %v", err)
		}
		r.JobMemory = bytes
	}
	if r.JobCPUs < 0 {
		return delivery.Errorf(delivery.Invalid, "--job-cpus must not be negative")
	}
	taken := func(network netip.Prefix) string {
		for _, other := range others {
			if used, err := netip.ParsePrefix(other.JobCIDR); err == nil && used.Overlaps(network) {
				return other.Name
			}
		}
		return ""
	}
	if r.JobCIDR != "" {
		network, err := netip.ParsePrefix(r.JobCIDR)
		if err != nil || !network.Addr().Is4() || network.Bits() > 20 {
			return delivery.Errorf(delivery.Invalid, "--job-cidr %q is not an IPv4 network of at least a /20, such as 10.46.0.0/19", r.JobCIDR)
		}
		if name := taken(network); name != "" {
			return delivery.Errorf(delivery.Conflict, "--job-cidr %s overlaps the network of %q", network, name)
		}
		r.JobCIDR = network.Masked().String()
		return nil
	}
	first := defaultNetworks.Addr().As4()
	for third := 0; third < 256; third += 32 {
		network := netip.PrefixFrom(netip.AddrFrom4([4]byte{first[0], first[1], byte(third), 0}), 19)
		if taken(network) == "" {
			r.JobCIDR = network.String()
			return nil
		}
	}
	return delivery.Errorf(delivery.Conflict, "All networks of %s are taken by other runners of this machine: choose one with --job-cidr", defaultNetworks)
}

// complete fills what was left out and checks the rest.
func complete(r *Registration, tokenFile string, executors map[string]Start, names []string) error {
	if tokenFile != "" {
		raw, err := os.ReadFile(tokenFile)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "--token-file: %v", err)
		}
		r.Token = strings.TrimSpace(string(raw))
	}
	if r.Token == "" {
		r.Token = os.Getenv("CI_SERVER_TOKEN")
	}
	parsed, err := url.Parse(r.URL)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return delivery.Errorf(delivery.Invalid, "--url %q is not an address such as https://slipway.example.com", r.URL)
	}
	r.URL = strings.TrimSuffix(r.URL, "/")
	if r.Token == "" {
		return delivery.Errorf(delivery.Invalid, "The token is missing: --token-file FILE or CI_SERVER_TOKEN. Make one with: slipway runner create")
	}
	if executors[r.Executor] == nil {
		return delivery.Errorf(delivery.Invalid, "--executor %q is not known: use %s", r.Executor, strings.Join(names, " or "))
	}
	if r.Concurrent < 1 {
		return delivery.Errorf(delivery.Invalid, "--concurrent must be at least 1")
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this machine's name: %w", err)
	}
	if r.Name == "" {
		r.Name = host
	}
	if strings.ContainsAny(r.Name, "/\x00") || r.Name == "." || r.Name == ".." {
		return delivery.Errorf(delivery.Invalid, "--name %q must not have a slash", r.Name)
	}
	r.SystemID = "s_" + host
	if r.CAFile != "" {
		if r.CAFile, err = filepath.Abs(r.CAFile); err != nil {
			return fmt.Errorf("--tls-ca-file: %w", err)
		}
	}
	if r.Dir != "" {
		r.Dir, err = filepath.Abs(r.Dir)
		return err
	}
	r.Dir = filepath.Join("/var/lib/slipway-runner", r.Name)
	if os.Getuid() != 0 {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the cache folder: %w", err)
		}
		r.Dir = filepath.Join(cache, "slipway-runner", r.Name)
	}
	return nil
}

func refused(err error, address string) error {
	if kind := delivery.KindOf(err); kind == delivery.Forbidden || kind == delivery.NotFound {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "The platform at " + address + " does not know this token.", Next: "Make a runner with: slipway runner create", Err: err}
	}
	return err
}

func verify() *cobra.Command {
	var file string
	var forget bool
	c := &cobra.Command{
		Use: "verify", Short: "Ask the platforms whether this machine's runners still exist", Args: cobra.NoArgs,
		Example: "  slipway runner verify\n  slipway runner verify --delete",
		RunE: func(c *cobra.Command, _ []string) error {
			have, err := load(file)
			if err != nil {
				return err
			}
			gone := 0
			kept := have.list[:0:0]
			for _, r := range have.list {
				platform, err := r.Coordinator()
				if err == nil {
					_, err = platform.Verify(c.Context(), r.session(""))
				}
				switch kind := delivery.KindOf(err); {
				case err == nil:
					fmt.Fprintf(c.OutOrStdout(), "%s is alive\n", r.Name)
				case kind == delivery.Forbidden || kind == delivery.NotFound:
					gone++
					fmt.Fprintf(c.OutOrStdout(), "%s is removed\n", r.Name)
					if forget {
						continue
					}
				default:
					gone++
					fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", r.Name, delivery.UserMessage(err))
				}
				kept = append(kept, r)
			}
			if forget && len(kept) < len(have.list) {
				have.list = kept
				return have.save()
			}
			if gone > 0 {
				return delivery.Errorf(delivery.Stalled, "%d of %d runners cannot take jobs.", gone, len(have.list))
			}
			return nil
		},
	}
	fileFlag(c, &file)
	c.Flags().BoolVar(&forget, "delete", false, "forget those that were removed")
	return c
}

func unregister() *cobra.Command {
	var file string
	var all bool
	c := &cobra.Command{
		Use: "unregister [NAME...]", Short: "Forget runners on this machine; the platform keeps them", Example: "  slipway runner unregister builder\n  slipway runner unregister --all",
		RunE: func(c *cobra.Command, names []string) error {
			have, err := load(file)
			if err != nil {
				return err
			}
			if len(names) == 0 && !all {
				return delivery.Errorf(delivery.Invalid, "Name the runners to forget, or give --all; they are: %s", strings.Join(namesOf(have.list), ", "))
			}
			for _, name := range names {
				if !slices.Contains(namesOf(have.list), name) {
					return delivery.Errorf(delivery.NotFound, "%q is not registered on this machine; there are: %s", name, strings.Join(namesOf(have.list), ", "))
				}
			}
			kept := have.list[:0:0]
			for _, r := range have.list {
				if !all && !slices.Contains(names, r.Name) {
					kept = append(kept, r)
					continue
				}
				// A platform that is away, or knows the token no more, needs not be told.
				platform, err := r.Coordinator()
				if err == nil {
					err = platform.Forget(c.Context(), r.session(""))
				}
				if err != nil {
					fmt.Fprintf(c.ErrOrStderr(), "%s: the platform was not told: %s\n", r.Name, delivery.UserMessage(err))
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is forgotten.\n", r.Name)
			}
			have.list = kept
			return have.save()
		},
	}
	fileFlag(c, &file)
	c.Flags().BoolVar(&all, "all", false, "forget all")
	return c
}

func namesOf(list []Registration) []string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = r.Name
	}
	return names
}

func run(executors map[string]Start) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "run [NAME...]", Short: "Take and execute jobs of the runners registered on this machine, until it is stopped",
		Long:    "Take and execute jobs until the program is told to stop (SIGINT, SIGTERM); jobs in hand are then reported\nas failed. It does not go to the background: let systemd or a supervisor keep it.",
		Example: "  slipway runner run\n  slipway runner run builder",
		RunE: func(c *cobra.Command, names []string) error {
			have, err := load(file)
			if err != nil {
				return err
			}
			var wanted []Registration
			for _, r := range have.list {
				if len(names) == 0 || slices.Contains(names, r.Name) {
					wanted = append(wanted, r)
				}
			}
			if len(wanted) == 0 {
				return delivery.Errorf(delivery.NotFound, "There is no such runner on this machine. Register one with: slipway runner register")
			}
			ctx, stop := context.WithCancel(c.Context())
			defer stop()
			var group sync.WaitGroup
			errs := make([]error, len(wanted))
			for i, r := range wanted {
				start := executors[r.Executor]
				if start == nil {
					return delivery.Errorf(delivery.Invalid, "%s: the executor %q is not known here", r.Name, r.Executor)
				}
				platform, err := r.Coordinator()
				if err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s takes jobs of %s (%s, %d at a time)\n", r.Name, r.URL, r.Executor, r.Concurrent)
				group.Go(func() {
					defer stop() // one that cannot run ends the program, which says why
					errs[i] = start(ctx, r, r.session(""), platform)
				})
			}
			group.Wait()
			return errors.Join(errs...)
		},
	}
	fileFlag(c, &file)
	return c
}

// shell executes jobs as processes of this machine.
func shell(ctx context.Context, r Registration, session delivery.RunnerSession, c delivery.Coordinator) error {
	worker, err := runner.New(runner.Config{Dir: r.Dir, Session: session, Name: r.Name, Concurrent: r.Concurrent,
		CAFile: r.CAFile, SecureURLs: []string{r.URL}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}, c, local.New())
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}
