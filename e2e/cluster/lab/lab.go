// Package lab runs a Slipway node for end-to-end tests and benchmarks: the
// real containerd and slipway-cluster, in a data directory and a network
// namespace of their own, without the supervisor.
//
// It must run as root and needs the built programs. A Node is for one
// goroutine at a time.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/e2e/leftover"
	"github.com/slipwayhq/slipway/internal/node"
)

// TestImage is the image of e2e/cluster/testpod, imported by ImportTestImage.
const TestImage = "localhost/slipway/testpod:1"

// The programs of a node.
const (
	Containerd = "containerd"
	Cluster    = "slipway-cluster"
)

// Node is one node and what runs on it.
type Node struct {
	Config    node.Config
	namespace namespace
	release   func() error // of its record
	running   map[string]*program
}

type program struct {
	process *os.Process
	ended   chan struct{}
}

// Programs is the directory of the built programs: $SLIPWAY_BIN, or bin/ at the
// root of the repository.
func Programs() (string, error) {
	if dir := os.Getenv("SLIPWAY_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := repository()
	return filepath.Join(root, "bin"), err
}

func repository() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// New makes a node called name (at most 8 characters) with an empty data
// directory below dir, which must be a short path. Nothing runs yet. Destroy
// must be called in the end.
func New(ctx context.Context, dir, name string) (*Node, error) {
	bin, err := Programs()
	if err != nil {
		return nil, err
	}
	for _, needed := range []string{Containerd, Cluster, "slipway-tools", "slipway-pause"} {
		if _, err := os.Stat(filepath.Join(bin, needed)); err != nil {
			return nil, fmt.Errorf("build the programs first (make build), or set SLIPWAY_BIN: %w", err)
		}
	}
	n := &Node{namespace: newNamespace(name), running: map[string]*program{}}
	n.Config = node.Config{
		Instance: "sw-" + name, DataDir: filepath.Join(dir, name), BinDir: bin,
		Node: node.NodeConfig{IP: n.namespace.ip, Name: name},
	}
	if err := n.Config.SetDefaults(); err != nil {
		return nil, err
	}
	n.release, err = leftover.Claim(ctx, leftover.Run{Dir: n.Config.DataDir, Bin: bin, Node: &n.Config, Namespace: n.namespace.name})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(n.Config.DataDir, "logs"), 0o700); err != nil {
		return nil, err
	}
	return n, n.namespace.create(ctx)
}

// HostIP is the host's address as the node and its pods reach it.
func (n *Node) HostIP() string { return n.namespace.host }

// Start prepares the host and starts containerd and slipway-cluster, those of
// them that do not run. It does not wait.
func (n *Node) Start(ctx context.Context) error {
	if err := n.Inside(func() error { return node.Prepare(ctx, n.Config) }); err != nil {
		return err
	}
	if err := n.StartProgram(Containerd); err != nil {
		return err
	}
	return n.StartProgram(Cluster)
}

// Inside calls f on a thread in the node's network namespace.
func (n *Node) Inside(f func() error) error { return leftover.Inside(n.namespace.name, f) }

// Dial opens a connection from within the node's network namespace to a
// literal address. It has the signature of http.Transport.DialContext.
func (n *Node) Dial(ctx context.Context, network, address string) (connection net.Conn, err error) {
	err = n.Inside(func() error {
		// One literal address is dialled on the calling thread.
		connection, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return connection, err
}

// StartProgram starts Containerd or Cluster unless it runs.
func (n *Node) StartProgram(name string) error {
	if n.running[name] != nil {
		return nil
	}
	command := exec.Command(filepath.Join(n.Config.BinDir, name))
	if name == Containerd {
		prepared := node.ContainerdCommand(n.Config)
		command = exec.Command(prepared.Path, prepared.Args...)
		command.Env = append(os.Environ(), prepared.Env...)
	} else {
		path := filepath.Join(n.Config.DataDir, "run", name+".json")
		raw, err := json.MarshalIndent(n.Config, "", "  ")
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, raw, 0o600)); err != nil {
			return err
		}
		command.Args = append(command.Args, "--config", path)
	}
	log, err := os.OpenFile(n.LogFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.Inside(command.Start); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	started := &program{command.Process, make(chan struct{})}
	go func() {
		_ = command.Wait() // how it ended is in its log
		close(started.ended)
	}()
	n.running[name] = started
	return nil
}

// LogFile is where a program's output goes.
func (n *Node) LogFile(program string) string {
	return filepath.Join(n.Config.DataDir, "logs", program+".log")
}

// PID is the process of a running program.
func (n *Node) PID(program string) int { return n.running[program].process.Pid }

// Kill ends programs with SIGKILL, all of them before it waits.
func (n *Node) Kill(programs ...string) error {
	return n.end(syscall.SIGKILL, 10*time.Second, programs...)
}

// Terminate ends programs with SIGTERM within the 15 s a supervisor gives.
func (n *Node) Terminate(programs ...string) error {
	return n.end(syscall.SIGTERM, 15*time.Second, programs...)
}

func (n *Node) end(signal syscall.Signal, limit time.Duration, programs ...string) error {
	var failed []error
	for _, name := range programs {
		if p := n.running[name]; p != nil {
			if err := p.process.Signal(signal); !errors.Is(err, os.ErrProcessDone) {
				failed = append(failed, err)
			}
		}
	}
	deadline := time.After(limit)
	for _, name := range programs {
		p := n.running[name]
		if p == nil {
			continue
		}
		select {
		case <-p.ended:
			delete(n.running, name)
		case <-deadline:
			return fmt.Errorf("%s did not end within %s", name, limit)
		}
	}
	return errors.Join(failed...)
}

// Component and Health are the answer of slipway-cluster's health socket.
type Component struct {
	Name    string
	Ready   bool
	Message string
	Seconds float64
}

// Health is the state of the cluster.
type Health struct {
	Ready      bool
	Components []Component
}

// Message says which components are not ready, and why.
func (h Health) Message() string {
	var lines []string
	for _, c := range h.Components {
		if !c.Ready {
			lines = append(lines, c.Name+": "+c.Message)
		}
	}
	return strings.Join(lines, "; ")
}

// Health asks slipway-cluster.
func (n *Node) Health(ctx context.Context) (Health, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.Config.HealthSocket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cluster/readyz", nil)
	if err != nil {
		return Health{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return Health{}, err
	}
	defer response.Body.Close()
	var health Health
	return health, json.NewDecoder(response.Body).Decode(&health)
}

// WaitReady waits until every component is ready. The error shows what is not,
// or the end of the log when slipway-cluster has ended.
func (n *Node) WaitReady(ctx context.Context) (Health, error) {
	var last Health
	err := Until(ctx, func() error {
		select {
		case <-n.running[Cluster].ended:
			return permanent{fmt.Errorf("slipway-cluster has ended:\n%s", tail(n.LogFile(Cluster)))}
		default:
		}
		health, err := n.Health(ctx)
		if err != nil {
			return err
		}
		last = health
		if !health.Ready {
			return errors.New(health.Message())
		}
		return nil
	})
	return last, err
}

func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-3000):])
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// Until calls f again and again until it succeeds, and returns its last error
// when the context ends.
func Until(ctx context.Context, f func() error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if p, ok := errors.AsType[permanent](err); ok {
			return p.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// Kubectl runs kubectl as the administrator and returns its standard output.
func (n *Node) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	return n.KubectlInput(ctx, "", arguments...)
}

// KubectlInput is Kubectl with a standard input.
func (n *Node) KubectlInput(ctx context.Context, input string, arguments ...string) (string, error) {
	command := n.KubectlCommand(ctx, arguments...)
	command.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// KubectlCommand is kubectl as the administrator, to be started by the caller.
func (n *Node) KubectlCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(n.Config.BinDir, "slipway-tools"), append([]string{"kubectl", "--kubeconfig", n.Config.Kubeconfig}, arguments...)...)
	command.Env = append(os.Environ(), "HOME="+n.Config.DataDir) // kubectl's cache is removed with the node
	return command
}

// ImportTestImage builds TestImage and imports it.
func (n *Node) ImportTestImage(ctx context.Context) error {
	path := filepath.Join(n.Config.DataDir, "testpod")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", path, "github.com/slipwayhq/slipway/e2e/cluster/testpod")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build testpod: %w: %s", err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := node.WriteProgramImage(&archive, TestImage, content); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tar", archive.Bytes(), 0o600); err != nil {
		return err
	}
	return node.ImportImage(ctx, n.Config, node.KubernetesNamespace, path+".tar")
}

// Down stops the programs and cleans the host up, as the supervisor does.
func (n *Node) Down(ctx context.Context) error {
	return errors.Join(
		n.Terminate(Cluster), n.Terminate(Containerd),
		n.Inside(func() error { return node.Cleanup(ctx, n.Config, false) }),
	)
}

// Destroy is Down, and then removes namespace and data. It does what it can.
func (n *Node) Destroy(ctx context.Context) error {
	failed := n.Down(ctx)
	if failed != nil {
		failed = errors.Join(failed, n.Kill(Cluster, Containerd),
			n.Inside(func() error { return node.Cleanup(ctx, n.Config, false) }))
	}
	if err := errors.Join(failed, n.namespace.remove(ctx), os.RemoveAll(n.Config.DataDir)); err != nil {
		return err // the next run looks for what may be left
	}
	return n.release()
}
