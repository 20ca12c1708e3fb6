// Package runner_test runs the runner's containerd executor against a real
// containerd. It needs root and the programs of bin/; without them it is
// skipped.
package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"

	"github.com/slipwayhq/slipway/internal/imagebase"
	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/runner/containerd"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
)

// deadline bounds one job.
const deadline = 3 * time.Minute

const baseImage = "docker.io/library/debian:bookworm-slim"

// host is one containerd with its own data folder, shared by the tests of the
// package.
type host struct {
	dir    string
	config node.Config
	stop   func()
}

var shared = sync.OnceValues(startHost)

func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		started.stop()
	}
	os.Exit(code)
}

var started *host // for TestMain only

func needHost(t testing.TB) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(filepath.Join(binDir(), "containerd")); err != nil {
		t.Skipf("needs the programs in %s", binDir())
	}
	h, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func binDir() string {
	if dir := os.Getenv("SLIPWAY_BIN"); dir != "" {
		return dir
	}
	dir, _ := filepath.Abs("../../bin")
	return dir
}

func startHost() (*host, error) {
	dir, err := os.MkdirTemp("", "sw-runner-")
	if err != nil {
		return nil, err
	}
	h := &host{dir: dir}
	h.config = node.Config{Instance: "swr", DataDir: dir, BinDir: binDir(), Node: node.NodeConfig{IP: "127.0.0.1"}}
	if err := h.config.SetDefaults(); err != nil {
		return nil, err
	}
	if _, err := node.WriteContainerd(h.config); err != nil {
		return nil, err
	}
	command := node.ContainerdCommand(h.config)
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
	h.stop = func() {
		_ = process.Process.Signal(os.Interrupt)
		_ = process.Wait()
		_ = exec.Command("sh", "-c", `grep " $1/" /proc/self/mounts | cut -d" " -f2 | sort -r | xargs -r umount -l; rm -rf "$1"`, "sh", dir).Run()
	}
	started = h
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := client.New(h.config.ContainerdSocket, client.WithDefaultNamespace("slipway-jobs"), client.WithTimeout(30*time.Second))
	if err != nil {
		return nil, fmt.Errorf("%w; log: %s", err, logOf(dir))
	}
	defer c.Close()
	archive, err := baseArchive(ctx)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	images, err := c.Import(ctx, file)
	if err != nil {
		return nil, err
	}
	for _, one := range images {
		if err := client.NewImage(c, one).Unpack(ctx, "overlayfs"); err != nil {
			return nil, err
		}
	}
	return h, nil
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

// executor makes an executor on the host's containerd.
func (h *host) executor(t testing.TB, change func(*containerd.Config)) *containerd.Executor {
	t.Helper()
	config := containerd.Config{
		Socket: h.config.ContainerdSocket, Dir: filepath.Join(h.dir, "jobs"), DefaultImage: baseImage,
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

func TestConformance(t *testing.T) {
	h := needHost(t)
	runnertest.Run(t, runnertest.Setup{Executor: h.executor(t, nil), BuildsDir: containerd.BuildsDir, Image: "debian:bookworm-slim"})
}
