package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/client"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/hostnet"
)

// DaemonConfig configures buildkitd. Program, Dir, ContainerdSocket and Subnet
// are required.
type DaemonConfig struct {
	Program          string // path of buildkitd
	Dir              string // state, configuration and socket
	ContainerdSocket string
	Namespace        string // in containerd (default buildkit)
	Snapshotter      string // default overlayfs
	Instance         string // names the network and the cgroup
	CNIBinDir        string // holds the plugins ptp and host-local
	Subnet           netip.Prefix
	DNS              []string // resolvers of build steps (default: the host's)
	MTU              int
	CgroupParent     string // of build steps (default /<instance>/builds)
	RuncRoot         string
	RuntimePath      string // path of containerd-shim-runc-v2; empty: looked up by containerd

	// Registries maps a registry host to how it is reached.
	Registries  map[string]Registry
	CacheBudget int64         // bytes of the build cache (default 10 GB)
	Parallelism int           // build steps at a time; 0: no bound
	IdleTimeout time.Duration // without a build until buildkitd stops (default 5 min)
	// InNetwork calls its argument in the network namespace in which buildkitd
	// shall live: what BuildKit fetches itself (ADD of a URL, git contexts) must
	// reach no more than a job may. nil is this process's own namespace.
	InNetwork func(func() error) error
	// Place puts a started process into its cgroup; nil leaves it where it is.
	Place  func(pid int) error
	Logger *slog.Logger
}

// Registry says how BuildKit reaches a registry.
type Registry struct {
	Mirrors   []string // host[:port][/path], asked first
	PlainHTTP bool
	CAFile    string
}

// near is the address on this host, without TLS, of a registry that has one; ""
// for others. A pull-through cache is no such address: it has a path.
func (c *DaemonConfig) near(registry string) string {
	for _, mirror := range c.Registries[registry].Mirrors {
		if !strings.Contains(mirror, "/") && c.Registries[mirror].PlainHTTP {
			return mirror
		}
	}
	return ""
}

// registryBehind is the registry whose near address host is, or "".
func (c *DaemonConfig) registryBehind(host string) string {
	for registry := range c.Registries {
		if near := c.near(registry); near != "" && near == host {
			return registry
		}
	}
	return ""
}

func (c *DaemonConfig) setDefaults() {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&c.Namespace, "buildkit")
	fill(&c.Snapshotter, "overlayfs")
	fill(&c.Instance, "slipway")
	fill(&c.CNIBinDir, "/usr/lib/cni")
	fill(&c.CgroupParent, "/"+c.Instance+"/builds")
	fill(&c.RuncRoot, filepath.Join(c.Dir, "runc"))
	if c.CacheBudget == 0 {
		c.CacheBudget = 10e9
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// daemon runs buildkitd while somebody needs it. It is safe for concurrent
// use.
type daemon struct {
	config DaemonConfig
	// endSteps ends the containers of build steps that no buildkitd looks after.
	endSteps func(context.Context) error

	mu      sync.Mutex
	users   int
	running *running
	idle    *time.Timer
	closed  bool
	// serving is running once it serves, to be asked while mu is held for long.
	serving atomic.Pointer[running]
}

// running is one buildkitd process.
type running struct {
	process *exec.Cmd
	client  *client.Client
	exited  chan struct{}
	err     error // why it exited; read after exited
}

func newDaemon(config DaemonConfig) *daemon {
	config.setDefaults()
	return &daemon{config: config}
}

func (d *daemon) socket() string { return filepath.Join(d.config.Dir, "buildkitd.sock") }

// acquire returns a client of a running buildkitd, starting it if need be.
// release must be called once.
func (d *daemon) acquire(ctx context.Context) (c *client.Client, release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, errors.New("image builds are being stopped")
	}
	if d.running != nil {
		select {
		case <-d.running.exited:
			d.config.Logger.Warn("buildkitd ended", "error", d.running.err)
			d.running = nil
		default:
		}
	}
	if d.running != nil && d.users == 0 {
		// Nobody loses a build by a new one.
		if err := d.running.answers(ctx, answerTimeout); err != nil && ctx.Err() == nil {
			d.config.Logger.Warn("buildkitd does not answer: it is replaced", "error", err)
			d.stop()
		}
	}
	if d.running == nil {
		if d.running, err = d.start(ctx); err != nil {
			return nil, nil, fmt.Errorf("start buildkitd: %w", err)
		}
		d.serving.Store(d.running)
	}
	if d.idle != nil {
		d.idle.Stop()
		d.idle = nil
	}
	d.users++
	return d.running.client, sync.OnceFunc(d.release), nil
}

func (d *daemon) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users == 0 && !d.closed {
		d.idle = time.AfterFunc(d.config.IdleTimeout, d.stopIdle)
	}
}

func (d *daemon) stopIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users == 0 && d.running != nil {
		d.config.Logger.Info("buildkitd idle: stopped")
		d.stop()
	}
}

// close stops buildkitd. Builds that run fail.
func (d *daemon) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.running != nil {
		d.stop()
	}
}

// stop ends the process: orderly, or after ten seconds by force. d.mu is held.
func (d *daemon) stop() {
	r := d.running
	d.running = nil
	d.serving.Store(nil)
	defer func() {
		if err := d.clean(context.Background()); err != nil {
			d.config.Logger.Warn("clean up after buildkitd", "error", err)
		}
	}()
	if err := r.client.Close(); err != nil {
		d.config.Logger.Warn("close connection to buildkitd", "error", err)
	}
	_ = r.process.Process.Signal(syscall.SIGTERM) // a process that is gone needs no signal
	select {
	case <-r.exited:
	case <-time.After(10 * time.Second):
		_ = r.process.Process.Kill()
		<-r.exited
	}
}

// answerTimeout is how long a buildkitd without builds may take to answer.
const answerTimeout = 5 * time.Second

// answers returns nil when buildkitd answers within the time given.
func (r *running) answers(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := r.client.ListWorkers(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// check returns the process id of buildkitd, 0 where none is needed, and whether
// it answers before ctx ends; if not, the error has ctx's own in its chain.
func (d *daemon) check(ctx context.Context) (pid int, err error) {
	r := d.serving.Load()
	if r == nil {
		return 0, nil
	}
	select {
	case <-r.exited: // the next build starts another
		return 0, nil
	default:
	}
	_, err = r.client.Info(ctx)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if d.serving.Load() != r {
		return 0, nil
	}
	return r.process.Process.Pid, err
}

// start starts buildkitd and waits until it serves. d.mu is held.
func (d *daemon) start(ctx context.Context) (*running, error) {
	if err := d.clean(ctx); err != nil {
		return nil, err
	}
	config, err := d.write()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(d.config.Dir, "buildkitd.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process := exec.Command(d.config.Program, "--config", config)
	process.Env = []string{"PATH=" + filepath.Dir(d.config.Program) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + d.config.Dir, "GOGC=50", "OTEL_SDK_DISABLED=true"}
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	launch := func() error {
		if err := d.prepareNetwork(); err != nil {
			return err
		}
		return process.Start()
	}
	if d.config.InNetwork == nil {
		err = process.Start()
	} else {
		err = d.config.InNetwork(launch)
	}
	if err != nil {
		return nil, err
	}
	r := &running{process: process, exited: make(chan struct{})}
	go func() {
		r.err = process.Wait()
		close(r.exited)
	}()
	fail := func(err error) (*running, error) {
		_ = process.Process.Kill() // a process that is gone needs no signal
		<-r.exited
		return nil, fmt.Errorf("%w%s", err, d.lastWords())
	}
	pid := []byte(fmt.Sprint(process.Process.Pid))
	if err := os.WriteFile(filepath.Join(d.config.Dir, "buildkitd.pid"), pid, 0o600); err != nil {
		return fail(err)
	}
	if d.config.Place != nil {
		if err := d.config.Place(process.Process.Pid); err != nil {
			return fail(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if r.client, err = client.New(ctx, "unix://"+d.socket()); err != nil {
		return fail(err)
	}
	for {
		if _, err = r.client.ListWorkers(ctx); err == nil {
			return r, nil
		}
		select {
		case <-r.exited:
			return fail(errors.Join(errors.New("it ended at once"), r.client.Close()))
		case <-ctx.Done():
			return fail(errors.Join(err, r.client.Close()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clean takes away what a buildkitd that was killed left: its build steps,
// network namespaces and addresses, and itself if only we were killed. No
// buildkitd of ours may be running.
func (d *daemon) clean(ctx context.Context) error {
	if err := d.endLeftover(); err != nil {
		return err
	}
	if d.endSteps != nil {
		if err := d.endSteps(ctx); err != nil {
			return err
		}
	}
	if err := mount.UnmountRecursive(filepath.Join(d.config.Dir, "state", "net"), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("remove networks of builds: %w", err)
	}
	for _, dir := range []string{filepath.Join("state", "net"), "ipam"} {
		if err := os.RemoveAll(filepath.Join(d.config.Dir, dir)); err != nil {
			return fmt.Errorf("remove networks of builds: %w", err)
		}
	}
	return nil
}

// endLeftover ends a buildkitd that an earlier process of ours left: it would
// hold the lock of the state folder.
func (d *daemon) endLeftover() error {
	raw, err := os.ReadFile(filepath.Join(d.config.Dir, "buildkitd.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil || pid <= 1 {
		return nil // a torn write; the lock shows if anything is left
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Base(exe) != filepath.Base(d.config.Program) {
		return nil // gone, or the number belongs to another program now
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !containsArg(command, d.configFile()) {
		return nil
	}
	for range 500 {
		err := syscall.Kill(pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) || isZombie(pid) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("end buildkitd of an earlier run: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("buildkitd of an earlier run does not end")
}

// isZombie reports whether a process has ended and only its parent does not
// know it yet.
func isZombie(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(after, "Z")
}

func containsArg(cmdline []byte, arg string) bool {
	for part := range splitZero(cmdline) {
		if part == arg {
			return true
		}
	}
	return false
}

func splitZero(raw []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		start := 0
		for i, c := range raw {
			if c == 0 {
				if !yield(string(raw[start:i])) {
					return
				}
				start = i + 1
			}
		}
	}
}

func (d *daemon) lastWords() string {
	raw, err := os.ReadFile(filepath.Join(d.config.Dir, "buildkitd.log"))
	if err != nil || len(raw) == 0 {
		return ""
	}
	return "; its log ends: " + string(raw[max(0, len(raw)-600):])
}

func (d *daemon) configFile() string { return filepath.Join(d.config.Dir, "buildkitd.toml") }

// write writes buildkitd's configuration and its CNI network.
// https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md
func (d *daemon) write() (string, error) {
	c := d.config
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return "", err
	}
	network, err := json.MarshalIndent(d.network(), "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode network: %w", err)
	}
	networkFile := filepath.Join(c.Dir, "network.conflist")
	if err := os.WriteFile(networkFile, network, 0o600); err != nil {
		return "", err
	}
	registries := map[string]any{}
	for host, registry := range c.Registries {
		table := map[string]any{}
		if len(registry.Mirrors) > 0 {
			table["mirrors"] = registry.Mirrors
		}
		if registry.PlainHTTP {
			table["http"] = true
		}
		if registry.CAFile != "" {
			table["ca"] = []string{registry.CAFile}
		}
		registries[host] = table
	}
	runtime := map[string]any{"name": "io.containerd.runc.v2", "options": map[string]any{"BinaryName": "runc", "Root": c.RuncRoot}}
	if c.RuntimePath != "" {
		runtime["path"] = c.RuntimePath
	}
	worker := map[string]any{
		"enabled": true, "address": c.ContainerdSocket, "namespace": c.Namespace, "snapshotter": c.Snapshotter,
		"gc": true, "maxUsedSpace": c.CacheBudget, "reservedSpace": c.CacheBudget / 10,
		"networkMode": "cni", "cniConfigPath": networkFile, "cniBinaryPath": c.CNIBinDir, "cniPoolSize": 2,
		"defaultCgroupParent": c.CgroupParent, "runtime": runtime,
	}
	if c.Parallelism > 0 {
		worker["max-parallelism"] = c.Parallelism
	}
	document := map[string]any{
		"root":   filepath.Join(c.Dir, "state"),
		"log":    map[string]any{"level": "warn"},
		"grpc":   map[string]any{"address": []string{"unix://" + d.socket()}},
		"otel":   map[string]any{"socketPath": filepath.Join(c.Dir, "otel.sock")},
		"cdi":    map[string]any{"disabled": true},
		"worker": map[string]any{"oci": map[string]any{"enabled": false}, "containerd": worker},
		// Neither entitlement can be granted to a build: no host network, no
		// privileges.
		"insecure-entitlements": []string{},
		"history":               map[string]any{"maxAge": int64((24 * time.Hour).Seconds()), "maxEntries": 50},
		"registry":              registries,
	}
	if len(c.DNS) > 0 {
		document["dns"] = map[string]any{"nameservers": c.DNS}
	}
	raw, err := toml.Marshal(document)
	if err != nil {
		return "", fmt.Errorf("encode configuration: %w", err)
	}
	return d.configFile(), os.WriteFile(d.configFile(), raw, 0o600)
}

// network is the network of build steps: point-to-point, so that two steps
// meet only in the forwarding, where prepareNetwork keeps them apart.
func (d *daemon) network() map[string]any {
	c := d.config
	link := map[string]any{
		"type": "ptp", "ipMasq": false,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(c.Dir, "ipam"),
			"ranges": [][]map[string]string{{{"subnet": c.Subnet.Masked().String()}}},
			"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
		},
	}
	if c.MTU > 0 {
		link["mtu"] = c.MTU
	}
	return map[string]any{"cniVersion": "1.0.0", "name": c.Instance + "-builds", "plugins": []any{link}}
}

// prepareNetwork lets build steps reach the world through the namespace it is
// called in, and keeps them from each other.
func (d *daemon) prepareNetwork() error {
	// The caller's thread is in the namespace, and so is its view of this file.
	if err := hostnet.Forward(); err != nil {
		return fmt.Errorf("network of builds: %w", err)
	}
	subnet := d.config.Subnet.Masked().String()
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(fmt.Sprintf(`table ip builds
delete table ip builds
table ip builds {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr %[1]s ip daddr %[1]s drop
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[1]s ip daddr != %[1]s masquerade
	}
}
`, subnet))
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
