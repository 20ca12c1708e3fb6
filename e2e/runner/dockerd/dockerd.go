// Package dockerd gives tests and benchmarks a real Docker Engine to stand
// beside: Debian's packages, unpacked and not installed.
//
// It owns the packages in the user's cache folder and, while a test runs, the
// daemon in a network namespace of its own with its link to this host. It takes
// all of that away at the test's end. It needs root, Debian's apt-get and dpkg,
// and a package mirror; without them tests are skipped with the reason.
package dockerd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// link names and numbers what one process's engine has in this host's network,
// so that several may run.
type link struct {
	name                     string // of the namespace, this host's interface and its table
	host, daemon, containers string
}

func ownLink() link {
	n := os.Getpid() % 250
	return link{name: fmt.Sprintf("swd%d", os.Getpid()), host: fmt.Sprintf("10.97.%d.1", n), daemon: fmt.Sprintf("10.97.%d.2", n), containers: fmt.Sprintf("10.98.%d.1/24", n)}
}

// Daemon is a running Docker Engine.
type Daemon struct {
	// Version is the engine's, such as 20.10.24.
	Version string

	programs, dir string
	link          link
}

// Start starts an engine, which ends with the test. Any registry is reached
// without TLS.
func Start(t testing.TB) *Daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, program := range []string{"apt-get", "dpkg", "ip", "nft", "nsenter", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no Docker Engine to compare with: needs %s", program)
		}
	}
	programs, err := fetch()
	if err != nil {
		t.Skipf("no Docker Engine to compare with: Debian's packages cannot be had: %v", err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "sw-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{programs: programs, dir: dir, link: ownLink()}
	t.Cleanup(func() {
		// Mounts of the engine live on where it was killed.
		_ = exec.Command("sh", "-c", `grep " $1/" /proc/self/mounts | cut -d" " -f2 | sort -r | xargs -r umount -l; rm -rf "$1"`, "sh", dir).Run()
	})
	d.network(t)
	d.run(t)
	return d
}

// Client is the path of a real docker command line program.
func Client(t testing.TB) string {
	t.Helper()
	programs, err := fetch()
	if err != nil {
		t.Skipf("no docker program: Debian's packages cannot be had: %v", err)
	}
	return filepath.Join(programs, "usr/bin/docker")
}

// packages are unpacked together.
var packages = []string{"docker.io", "containerd", "runc", "tini"}

// fetch downloads the packages once for this user and returns the folder they
// are unpacked in.
func fetch() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "slipway-bench", "docker")
	if _, err := os.Stat(filepath.Join(dir, "usr/sbin/dockerd")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "docker-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	download := exec.Command("timeout", append([]string{"120", "apt-get", "download"}, packages...)...)
	download.Dir = work
	if out, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download: %w: %s", err, bytes.TrimSpace(out))
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return "", err
	}
	root := filepath.Join(work, "root")
	for _, archive := range archives {
		if out, err := exec.Command("dpkg", "-x", archive, root).CombinedOutput(); err != nil {
			return "", fmt.Errorf("unpack %s: %w: %s", filepath.Base(archive), err, out)
		}
	}
	// Another test may have been faster.
	if err := os.Rename(root, dir); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return dir, nil
}

// network makes the daemon's namespace, with a way out by this host.
func (d *Daemon) network(t testing.TB) {
	t.Helper()
	away := func() {
		// None of these need be there.
		_ = exec.Command("ip", "netns", "delete", d.link.name).Run()
		_ = exec.Command("ip", "link", "delete", d.link.name).Run()
		_ = exec.Command("nft", "delete", "table", "ip", d.link.name).Run()
	}
	away() // what a killed test left
	t.Cleanup(away)
	// Forwarding stays on: other tests and instances need it too.
	script := fmt.Sprintf(`set -e
ip netns add %[1]s
ip link add %[1]s type veth peer name eth0 netns %[1]s
ip address add %[2]s/30 dev %[1]s
ip link set %[1]s up
ip -n %[1]s address add %[3]s/30 dev eth0
ip -n %[1]s link set lo up
ip -n %[1]s link set eth0 up
ip -n %[1]s route add default via %[2]s
nft 'table ip %[1]s { chain out { type nat hook postrouting priority srcnat; ip saddr %[3]s oifname != "%[1]s" masquerade; }; }'
echo 1 > /proc/sys/net/ipv4/ip_forward
`, d.link.name, d.link.host, d.link.daemon)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("network of the Docker Engine: %v: %s", err, out)
	}
}

func (d *Daemon) socket() string { return "unix://" + filepath.Join(d.dir, "docker.sock") }

func (d *Daemon) environment() []string {
	return []string{"PATH=" + filepath.Join(d.programs, "usr/bin") + ":" + filepath.Join(d.programs, "usr/sbin") + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + d.dir, "DOCKER_HOST=" + d.socket(), "DOCKER_CONFIG=" + filepath.Join(d.dir, "config"), "DOCKER_BUILDKIT=1", "LC_ALL=C.UTF-8"}
}

// run starts the daemon and waits until it serves.
func (d *Daemon) run(t testing.TB) {
	t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "dockerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	// Not `ip netns exec`: its mounts hide the cgroups.
	daemon := exec.Command("nsenter", "--net=/run/netns/"+d.link.name, filepath.Join(d.programs, "usr/sbin/dockerd"), "--data-root", filepath.Join(d.dir, "data"),
		"--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"), "--host", d.socket(), "--bip", d.link.containers,
		"--storage-driver", "overlay2", "--insecure-registry", "0.0.0.0/0")
	daemon.Env, daemon.Stdout, daemon.Stderr = d.environment(), log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- daemon.Wait() }()
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = daemon.Process.Kill()
			<-exited
		}
		log.Close()
	})
	var out []byte
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		select {
		case err := <-exited:
			exited <- err
			raw, _ := os.ReadFile(log.Name())
			t.Fatalf("the Docker Engine ended: %v\n%s", err, raw[max(0, len(raw)-3000):])
		default:
		}
		if out, err = d.Command("version", "--format", "{{.Server.Version}}").Output(); err == nil {
			d.Version = strings.TrimSpace(string(out))
			return
		}
	}
	raw, _ := os.ReadFile(log.Name())
	t.Fatalf("the Docker Engine does not serve: %v\n%s", err, raw[max(0, len(raw)-3000):])
}

// Command is a docker command line on this engine.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(d.programs, "usr/bin/docker"), args...)
	command.Env = d.environment()
	return command
}

// Shell is a script in whose PATH is this engine's docker.
func (d *Daemon) Shell(script string) *exec.Cmd {
	command := exec.Command("/bin/bash", "-c", script)
	command.Env = d.environment()
	return command
}

// Must runs a docker command line and returns what it prints.
func (d *Daemon) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Load gives the engine an image under a name.
func (d *Daemon) Load(t testing.TB, image v1.Image, as string) {
	t.Helper()
	tag, err := name.NewTag(as)
	if err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(tarball.Write(tag, image, writer)) }()
	load := d.Command("load")
	load.Stdin = reader
	out, err := load.CombinedOutput()
	reader.CloseWithError(err)
	if err != nil {
		t.Fatalf("docker load: %v: %s", err, out)
	}
}
