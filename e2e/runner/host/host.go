// Package host gives end-to-end tests and benchmarks of the runner a real
// containerd, a base image and a registry.
//
// It owns processes and folders of its own and removes them. It needs root and
// the programs of bin/; without them tests are skipped.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the registry's storage
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sirupsen/logrus"

	"github.com/slipwayhq/slipway/e2e/leftover"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/imagebase"
	"github.com/slipwayhq/slipway/internal/jobs"
	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// Deadline bounds one job.
const Deadline = 3 * time.Minute

const BaseImage = "docker.io/library/debian:bookworm-slim"

// Host is one containerd with its own data folder, shared by the tests of the
// package.
type Host struct {
	Dir    string
	Config node.Config

	process *os.Process // containerd, where this process started it
	stop    func()
}

// Signal sends a signal to containerd.
func (h *Host) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if h.process == nil {
		t.Fatal("another process started containerd")
	}
	if err := h.process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

var shared = sync.OnceValues(start)

// Main runs a package's tests and stops the shared host.
func Main(m *testing.M) int {
	code := m.Run()
	if started != nil {
		started.stop()
	}
	return code
}

var started *Host // for Main only

func Need(t testing.TB) *Host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(filepath.Join(BinDir(), "containerd")); err != nil {
		t.Skipf("needs the programs in %s", BinDir())
	}
	h, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func BinDir() string {
	if dir := os.Getenv("SLIPWAY_BIN"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		return "" // no working directory: there are no programs either
	}
	return dir
}

// AttachVariable names the data folder of a host that another process started.
const AttachVariable = "SLIPWAY_TEST_HOST"

func start() (*Host, error) {
	if dir := os.Getenv(AttachVariable); dir != "" {
		c, err := config(dir)
		return &Host{Dir: dir, Config: c}, err
	}
	// Names and addresses of the node and its jobs are the same in every run.
	waiting, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	alone, err := leftover.Alone(waiting, "runner")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sw-runner-")
	if err != nil {
		return nil, errors.Join(err, alone())
	}
	release, err := Claim(dir)
	if err != nil {
		return nil, err
	}
	h, err := startIn(dir)
	if h != nil && h.stop != nil {
		stop := h.stop
		h.stop = func() { stop(); _ = errors.Join(release(), alone()) } // what is left is taken away by the next run
	}
	started = h
	return h, err
}

// Claim records dir and the node in it, so that the next run takes away what
// this one leaves if it is killed, and takes away what earlier ones left.
func Claim(dir string) (release func() error, err error) {
	c, err := config(dir)
	if err != nil {
		return nil, err
	}
	return leftover.Claim(context.Background(), leftover.Run{Dir: dir, Bin: c.BinDir, Node: &c})
}

func config(dir string) (node.Config, error) {
	c := node.Config{Instance: "swr", DataDir: dir, BinDir: BinDir(), Node: node.NodeConfig{IP: "127.0.0.1"}}
	return c, c.SetDefaults()
}

// Start starts another containerd whose data folder is dir, until the test ends.
func Start(t testing.TB, dir string) *Host {
	t.Helper()
	Need(t) // root and the programs are there
	h, err := startIn(dir)
	if h != nil && h.stop != nil {
		t.Cleanup(h.stop)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// startIn starts containerd. It returns the host even with an error, when there
// is something to stop.
func startIn(dir string) (*Host, error) {
	c, err := config(dir)
	if err != nil {
		return nil, err
	}
	h := &Host{Dir: dir, Config: c}
	if _, err := node.WriteContainerd(context.Background(), h.Config); err != nil {
		return nil, err
	}
	command := node.ContainerdCommand(h.Config)
	process := exec.Command(command.Path, command.Args...)
	process.Env = command.Env
	log, err := os.Create(filepath.Join(dir, "containerd.log"))
	if err != nil {
		return nil, err
	}
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return nil, err
	}
	h.process = process.Process
	h.stop = func() {
		_ = process.Process.Signal(os.Interrupt)
		_ = process.Wait()
		if err := errors.Join(node.Unmount(dir), os.RemoveAll(dir)); err != nil {
			fmt.Fprintf(os.Stderr, "the test's containerd in %s is not all gone: %v\n", dir, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	connection, err := client.New(h.Config.ContainerdSocket, client.WithDefaultNamespace("slipway-jobs"), client.WithTimeout(30*time.Second))
	if err != nil {
		return h, fmt.Errorf("%w; log: %s", err, logOf(dir))
	}
	defer connection.Close()
	return h, importBase(ctx, connection)
}

// ImportBase puts the base image into the jobs' namespace again.
func (h *Host) ImportBase(t testing.TB) {
	t.Helper()
	c, err := client.New(h.Config.ContainerdSocket, client.WithDefaultNamespace("slipway-jobs"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := importBase(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}

func importBase(ctx context.Context, c *client.Client) error {
	archive, err := baseArchive(ctx)
	if err != nil {
		return err
	}
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	images, err := c.Import(ctx, file)
	if err != nil {
		return err
	}
	for _, one := range images {
		if err := client.NewImage(c, one).Unpack(ctx, "overlayfs"); err != nil {
			return err
		}
	}
	return nil
}

func logOf(dir string) []byte {
	raw, _ := os.ReadFile(filepath.Join(dir, "containerd.log"))
	return raw[max(0, len(raw)-4000):]
}

// baseArchive makes the base image once for all test runs of a machine.
func baseArchive(ctx context.Context) (string, error) {
	dir := filepath.Join(os.TempDir(), "slipway-test-images")
	archive := filepath.Join(dir, "debian-bookworm-slim.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	var log bytes.Buffer
	if _, err := imagebase.Make(ctx, imagebase.Options{Name: "debian:bookworm-slim", Output: archive, Log: &log}); err != nil {
		return "", fmt.Errorf("%w\n%s", err, log.Bytes())
	}
	return archive, nil
}

// Executor makes an executor on the host's containerd.
func (h *Host) Executor(t testing.TB, change func(*containerd.Config)) *containerd.Executor {
	t.Helper()
	config := containerd.Config{
		Socket: h.Config.ContainerdSocket, Dir: filepath.Join(h.Dir, "jobs"), DefaultImage: BaseImage,
		PullPolicy: []string{"if-not-present"},
		Network: containerd.NetworkConfig{Instance: "swr", Subnet: netip.MustParsePrefix("10.94.0.0/24"),
			Blocked: []netip.Prefix{netip.MustParsePrefix("10.92.0.0/16"), netip.MustParsePrefix("10.93.0.0/16")}},
	}
	if change != nil {
		change(&config)
	}
	e, err := containerd.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Registry is a plain distribution registry with the base image as the
// platform's cache would have it. It returns its host:port.
func Registry(t testing.TB) string {
	t.Helper()
	return registry(t, Address(t), "", "")
}

// PrivateRegistry is one on this host's loopback that shows its images,
// team/app:1 among them, to one user only.
func PrivateRegistry(t testing.TB, user, password string) string {
	t.Helper()
	return registry(t, "127.0.0.1", user, password)
}

func registry(t testing.TB, ip, user, password string) string {
	t.Helper()
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": t.TempDir()}, "delete": configuration.Parameters{"enabled": true}}}
	config.Catalog.MaxEntries = 100
	config.Log.Level, config.Log.AccessLog.Disabled = "error", true
	logrus.SetLevel(logrus.FatalLevel) // the registry logs through the global logger
	app := handlers.NewApp(context.Background(), config)
	listener, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		app.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	address := listener.Addr().String()
	image := Image(t)
	path, with := "/docker.io/library/debian:bookworm-slim", []remote.Option{}
	if user != "" {
		path, with = "/team/app:1", append(with, remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	ref, err := name.ParseReference(address+path, name.Insecure)
	if err == nil {
		err = remote.Write(ref, image, with...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Image is the base image.
func Image(t testing.TB) v1.Image {
	t.Helper()
	archive, err := baseArchive(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Address is an address of this host that jobs can reach.
func Address(t testing.TB) string {
	t.Helper()
	connection, err := net.Dial("udp", "203.0.113.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP.String()
}

// Service wires the whole built-in runner as the platform does.
func Service(t testing.TB, registry string, before func(*runnertest.Bench)) *runnertest.Bench {
	t.Helper()
	return ServiceWithPorts(t, registry, before)
}

// ServiceWithPorts is Service with further host:port of this host that jobs may
// reach.
func ServiceWithPorts(t testing.TB, registry string, before func(*runnertest.Bench), open ...string) *runnertest.Bench {
	t.Helper()
	return ServiceWith(t, registry, before, func(*jobs.Config) {}, open...)
}

// ServiceWith is ServiceWithPorts with changes of the configuration.
func ServiceWith(t testing.TB, registry string, before func(*runnertest.Bench), change func(*jobs.Config), open ...string) *runnertest.Bench {
	t.Helper()
	h := Need(t)
	if _, err := os.Stat(filepath.Join(BinDir(), "buildkitd")); err != nil {
		t.Skip("needs buildkitd")
	}
	b := runnertest.NewBench(t, runnertest.Setup{Image: "debian:bookworm-slim", Deadline: Deadline})
	var ports []uint16
	for _, address := range append(open, registry) {
		_, port, _ := net.SplitHostPort(address)
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, uint16(number))
	}
	config := jobs.Config{
		Instance: "swr", DataDir: h.Dir, BinDir: BinDir(), Socket: h.Config.ContainerdSocket,
		JobSubnet: netip.MustParsePrefix("10.94.0.0/24"), BuildSubnet: netip.MustParsePrefix("10.95.0.0/24"),
		Blocked: []netip.Prefix{netip.MustParsePrefix("10.92.0.0/15")}, HostPorts: ports,
		Registry: registry, RegistryHTTP: true, Mirrors: map[string]string{"docker.io": registry + "/docker.io"}, PullPolicy: []string{"if-not-present"},
		RegistryLocal: registry, Concurrent: 4, Limits: runner.Limits{Memory: 2 << 30, PIDs: 1024},
		Session: delivery.RunnerSession{SystemID: "s_test"}, Coordinator: b.Coordinator, Repositories: b,
	}
	if before != nil {
		before(b)
	}
	change(&config)
	s, err := jobs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	return b
}

// Script is a job's script from a text block.
func Script(text string) []string {
	return []string{strings.TrimSpace(text)}
}
