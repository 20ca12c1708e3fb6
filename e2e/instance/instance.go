//go:build e2e

// Package instance starts real Slipway instances for end-to-end tests: each
// with its own data directory, names, ports and network namespace, all of
// which are gone when the test ends.
package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/leftover"
)

// Instance is a running (or stopped) platform.
type Instance struct {
	t       *testing.T
	Name    string
	Config  string // path of its configuration file
	DataDir string
	Address string // its address, reachable from the test
	URL     string // of web, API, git and registry
	Bin     string // folder of the programs
}

// With returns the instance as seen by a subtest.
func (i *Instance) With(t *testing.T) *Instance {
	own := *i
	own.t = t
	return &own
}

// Root returns the repository's folder.
func Root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// New prepares an instance without starting it. The name is at most 9 letters
// and digits and unique among tests; number (0 to 63) selects its networks.
// extra is YAML added to its configuration. What a killed run left is taken away
// before.
func New(t *testing.T, name string, number int, extra string) *Instance {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts containers and networks")
	}
	bin := os.Getenv("SLIPWAY_BIN")
	if bin == "" {
		bin = filepath.Join(Root(t), "bin")
	}
	bin, err := filepath.EvalSymlinks(bin)
	if err == nil {
		_, err = os.Stat(filepath.Join(bin, "slipway"))
	}
	if err != nil {
		t.Fatalf("the programs are not built: run `make build` first (%v)", err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	alone, err := leftover.Alone(waiting, "instance-"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := alone(); err != nil {
			t.Error(err)
		}
	})
	// The data directory is on the disk, not on a memory file system, and short
	// enough for the sockets in it.
	base, err := os.MkdirTemp("/var/tmp", "sw-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	i := &Instance{t: t, Name: name, Bin: bin, DataDir: filepath.Join(base, "d"), Config: filepath.Join(base, "c.yaml")}
	i.Address = fmt.Sprintf("10.199.%d.2", 64+number)
	i.URL = "http://" + i.Address + ":8080"
	text := fmt.Sprintf("name: %s\ndata_dir: %s\nnetwork: {namespace: %s, link_cidr: 10.199.%d.0/30}\n%s\n", name, i.DataDir, name, 64+number, extra)
	if err := os.WriteFile(i.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := leftover.Claim(t.Context(), leftover.Run{Dir: base, Bin: bin, Namespace: name,
		Down: []string{filepath.Join(bin, "slipway"), "--config", i.Config, "down"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			i.dumpLogs()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if out, err := i.command(ctx, "down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		// Whatever ran in it, jobs and builds among them.
		if groups, err := filepath.Glob("/sys/fs/cgroup/*/" + name); err != nil || groups != nil {
			t.Errorf("down left cgroups: %v, %v", groups, err)
		}
		if err := os.RemoveAll(base); err != nil {
			t.Errorf("remove %s: %v", base, err)
		}
		if t.Failed() {
			return // the next run looks for what may be left
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// Up starts the instance in the background and waits until it is ready.
//
// It also sees to it that the platform keeps nothing of what its starter had
// open: a lock that it inherits would stay held for as long as it runs.
func (i *Instance) Up() string {
	i.t.Helper()
	mine, inherited, err := os.Pipe()
	if err != nil {
		i.t.Fatal(err)
	}
	defer mine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := i.command(ctx, "up", "--detach", "--timeout", "180s")
	cmd.ExtraFiles = []*os.File{inherited}
	out, err := cmd.CombinedOutput()
	inherited.Close()
	if err != nil {
		i.t.Fatalf("slipway up: %v\n%s", err, out)
	}
	if err := mine.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		i.t.Fatal(err)
	}
	if _, err := mine.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		i.t.Errorf("the platform keeps what its starter had open: %v", err)
	}
	return string(out)
}

func (i *Instance) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(i.Bin, "slipway"), append([]string{"--config", i.Config}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Try runs a slipway command and returns its output and error.
func (i *Instance) Try(args ...string) (string, error) {
	i.t.Helper()
	return i.TryWithin(5*time.Minute, args...)
}

// TryWithin is Try with a deadline of its own.
func (i *Instance) TryWithin(within time.Duration, args ...string) (string, error) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	out, err := i.command(ctx, args...).CombinedOutput()
	return string(out), err
}

// Run runs a slipway command that must succeed.
func (i *Instance) Run(args ...string) string {
	i.t.Helper()
	out, err := i.Try(args...)
	if err != nil {
		i.t.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// RunInput is Run with standard input.
func (i *Instance) RunInput(stdin string, args ...string) string {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := i.command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		i.t.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Kubectl runs kubectl against the instance's cluster.
func (i *Instance) Kubectl(args ...string) string {
	i.t.Helper()
	return i.Run(append([]string{"kubectl"}, args...)...)
}

// Component is a component's status.
type Component struct {
	Name      string
	State     string
	Message   string
	RootCause string `json:"root_cause"`
	PID       int
	Restarts  int
	Seconds   float64
}

// Status returns the components by name, and whether everything is ready.
func (i *Instance) Status() (map[string]Component, bool) {
	i.t.Helper()
	out, err := i.Try("status", "--json")
	var r struct {
		Ready      bool
		Components []Component
	}
	if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
		i.t.Logf("status: %v %v\n%s", err, jsonErr, out)
		return nil, false
	}
	m := map[string]Component{}
	for _, c := range r.Components {
		m[c.Name] = c
	}
	return m, r.Ready
}

// Eventually waits until ok returns true, or fails after the time given.
func (i *Instance) Eventually(what string, within time.Duration, ok func() bool) {
	i.t.Helper()
	Eventually(i.t, what, within, ok)
}

// Eventually waits until ok returns true, or fails after the time given.
func Eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("did not happen within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// Get fetches a URL and returns status and body; 0 when there is no answer.
func (i *Instance) Get(url string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// dumpLogs shows the ends of all logs of a failed test.
func (i *Instance) dumpLogs() {
	names, _ := filepath.Glob(filepath.Join(i.DataDir, "logs", "*.log"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			continue
		}
		lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
		i.t.Logf("--- %s\n%s", filepath.Base(name), bytes.Join(lines[max(0, len(lines)-25):], []byte("\n")))
	}
}
