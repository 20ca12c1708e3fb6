//go:build e2e

package cluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
	"github.com/slipwayhq/slipway/internal/node"
)

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// fetch gets a URL as a stranger, from the host or, with a dialer, from
// elsewhere.
func fetch(ctx context.Context, url string, dial dialer) (status int, body string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a stranger has no authority to verify by
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

// TestKill kills each program in turn, then all at once. The pods must not
// notice.
func TestKill(t *testing.T) {
	n, ctx := start(t, "kill")
	deploy(t, ctx, n)
	pod := strings.Fields(kubectl(t, ctx, n, "get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].status.podIP}"))[0]
	before := kubectl(t, ctx, n, "get", "pods", "-o", podState)
	for _, killed := range [][]string{{lab.Cluster}, {lab.Containerd}, {lab.Cluster, lab.Containerd}, {lab.Containerd, lab.Cluster}} {
		t.Run(strings.Join(killed, "+"), func(t *testing.T) {
			must(t, n.Kill(killed...))
			status, body, err := fetch(ctx, "http://"+pod+":8080", n.Dial)
			if err != nil || status != 200 || !strings.HasPrefix(body, "hello from") {
				t.Errorf("the pod answers %d %q while %v is away (%v)", status, body, killed, err)
			}
			must(t, n.Start(ctx))
			ready(t, ctx, n)
			checkWorkload(t, ctx, n)
			// A pod created now proves that every part works together again.
			kubectl(t, ctx, n, "run", "probe", "--image="+lab.TestImage, "--restart=Never", "--", "lookup", "hello")
			kubectl(t, ctx, n, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/probe", "--timeout=60s")
			kubectl(t, ctx, n, "delete", "pod/probe", "--timeout=60s")
			if after := kubectl(t, ctx, n, "get", "pods", "-o", podState); after != before {
				t.Errorf("pods before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestRootCause takes containerd away: the health must blame it, and nothing
// that does not depend on it.
func TestRootCause(t *testing.T) {
	n, ctx := start(t, "cause")
	must(t, n.Kill(lab.Containerd))
	eventually(t, ctx, "containerd is blamed", func() error {
		health, err := n.Health(ctx)
		if err != nil {
			return err
		}
		for _, c := range health.Components {
			if c.Name == "containerd" && !c.Ready && strings.Contains(c.Message, "does not answer") {
				return nil
			}
		}
		return fmt.Errorf("health is %+v", health)
	})
	kubectl(t, ctx, n, "get", "nodes")
	must(t, n.StartProgram(lab.Containerd))
	ready(t, ctx, n)
}

// TestDown checks that a stopped node leaves nothing, and that a second start
// finds what it had.
func TestDown(t *testing.T) {
	n, ctx := start(t, "down")
	deploy(t, ctx, n)
	// Host ports are made of iptables rules by a CNI plugin.
	apply(t, ctx, n, `
apiVersion: v1
kind: Pod
metadata: {name: door}
spec:
  containers: [{name: c, image: `+lab.TestImage+`, ports: [{containerPort: 8080, hostPort: 18080}]}]
`)
	kubectl(t, ctx, n, "wait", "--for=condition=Ready", "pod/door", "--timeout=60s")
	answers(t, ctx, "http://"+n.Config.Node.IP+":18080", "hello from door")
	must(t, n.Down(ctx))
	if left := leftovers(t, n); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	must(t, n.Start(ctx))
	ready(t, ctx, n)
	kubectl(t, ctx, n, "wait", "--for=condition=Ready", "pod/store", "--timeout=60s")
	kubectl(t, ctx, n, "rollout", "status", "deployment/hello", "--timeout=60s")
	checkWorkload(t, ctx, n)
	// Killed programs and a clean-up without them, as after a crash of all.
	must(t, n.Kill(lab.Containerd, lab.Cluster))
	must(t, n.Down(ctx))
	if left := leftovers(t, n); len(left) > 0 {
		t.Errorf("left behind after a kill:\n%s", strings.Join(left, "\n"))
	}
}

// TestKilledWhileStarting kills slipway-cluster at many moments of its first
// start, when keys, certificates and the store are being made.
func TestKilledWhileStarting(t *testing.T) {
	n, ctx := create(t, "early")
	for _, delay := range []time.Duration{5, 20, 50, 100, 200, 400, 800, 1500, 2500, 4000} {
		must(t, n.Start(ctx))
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(delay * time.Millisecond): // the moment is what is tested
		}
		must(t, n.Kill(lab.Cluster))
	}
	must(t, n.Start(ctx))
	ready(t, ctx, n)
	must(t, n.ImportTestImage(ctx))
	deploy(t, ctx, n)
	checkWorkload(t, ctx, n)
}

// TestReboot does to a node what a reboot does: everything is gone at once, and
// only the data directory stays.
func TestReboot(t *testing.T) {
	n, ctx := start(t, "boot")
	deploy(t, ctx, n)
	must(t, n.Kill(lab.Cluster, lab.Containerd))
	shims, contained, err := n.PodProcesses()
	must(t, err)
	for _, pid := range append(contained, shims...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	must(t, node.Unmount(n.Config.DataDir))
	must(t, n.Inside(func() error { return exec.Command("ip", "link", "delete", n.Config.Network.Bridge).Run() }))
	must(t, os.WriteFile(filepath.Join(n.Config.DataDir, "containerd", "boot-id"), []byte("another boot\n"), 0o600))
	must(t, n.Start(ctx))
	ready(t, ctx, n)
	kubectl(t, ctx, n, "wait", "--for=condition=Ready", "pod/store", "--timeout=90s")
	kubectl(t, ctx, n, "rollout", "status", "deployment/hello", "--timeout=90s")
	checkWorkload(t, ctx, n)
}

// TestFirewall runs a node behind a firewall that drops what it does not know.
func TestFirewall(t *testing.T) {
	iptables := func(n *lab.Node, rules ...string) {
		must(t, n.Inside(func() error {
			for _, rule := range rules {
				if out, err := exec.Command("iptables", strings.Fields(rule)...).CombinedOutput(); err != nil {
					return fmt.Errorf("iptables %s: %w: %s", rule, err, out)
				}
			}
			return nil
		}))
	}
	n, ctx := start(t, "wall", func(n *lab.Node) {
		iptables(n, "-A INPUT -i lo -j ACCEPT", "-A INPUT -i eth0 -j ACCEPT", "-P INPUT DROP", "-P FORWARD DROP")
	})
	deploy(t, ctx, n)
	checkWorkload(t, ctx, n)
	kubectl(t, ctx, n, "exec", "store", "--", "/program", "lookup", "kubernetes.default")
	must(t, n.Down(ctx))
	must(t, n.Inside(func() error {
		rules, err := exec.Command("iptables", "-S").Output()
		if err == nil && (strings.Contains(string(rules), "slipway") || !strings.Contains(string(rules), "-P FORWARD DROP")) {
			err = fmt.Errorf("the firewall is not as it was:\n%s", rules)
		}
		return err
	}))
}

// TestFullDisk starts a node on a disk without space: a sentence must tell, not
// a stack.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := lab.New(ctx, "/tmp", "sw-full")
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	must(t, unix.Mount("tmpfs", n.Config.DataDir, "tmpfs", 0, "size=20m"))
	defer func() { must(t, unix.Unmount(n.Config.DataDir, unix.MNT_DETACH)) }()
	const want = "is full: "
	if err := n.Start(ctx); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("preparing the node: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(n.Config.DataDir, "logs"), 0o700))
	must(t, n.StartProgram(lab.Cluster))
	_, err = n.WaitReady(ctx)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("starting the cluster: %v", err)
	}
}

// leftovers lists processes, mounts, interfaces, nftables tables, cgroups and
// files outside the data directory that belong to the node.
func leftovers(t *testing.T, n *lab.Node) (left []string) {
	t.Helper()
	add := func(kind, what string) { left = append(left, kind+" "+what) }
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range commands {
		raw, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(raw), n.Config.DataDir+"/") {
			add("process", strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.Config.DataDir+"/") {
			add("mount", line)
		}
	}
	must(t, n.Inside(func() error {
		links, err := exec.Command("ip", "-brief", "link").Output()
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(links)) {
			if name := strings.Fields(line)[0]; name != "lo" && !strings.HasPrefix(name, "eth0") && !strings.HasPrefix(name, "ifb") {
				add("interface", line)
			}
		}
		tables, err := exec.Command("nft", "list", "tables").Output()
		if len(tables) > 0 {
			add("nftables", string(tables))
		}
		return err
	}))
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasSuffix(path, n.Config.CgroupRoot) {
			add("cgroup", path)
		}
		return nil // cgroups of others come and go
	})
	must(t, err)
	for _, pattern := range []string{"/var/lib/cni/results/" + n.Config.Instance + "-*", "/run/netns/cni-*"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			add("file", file)
		}
	}
	return left
}
