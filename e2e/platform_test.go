//go:build e2e

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/instance"
)

// left lists what an instance may leave on the machine.
func left(t *testing.T, i *instance.Instance) []string {
	t.Helper()
	var found []string
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, i.DataDir) {
			found = append(found, "mount "+line)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), i.DataDir) {
			found = append(found, "process "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.Contains(l.Name, i.Name) {
			found = append(found, "interface "+l.Name)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + i.Name, "/sys/fs/cgroup/" + i.Name, "/run/netns/" + i.Name} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(tables), "\n") {
		if strings.Contains(line, i.Name) {
			found = append(found, line)
		}
	}
	return found
}

func TestPlatformLife(t *testing.T) {
	i := instance.New(t, "swlife", 0, "gitops: {enabled: false}")

	t.Run("up names every component", func(t *testing.T) {
		i := i.With(t)
		out := i.Up()
		for _, want := range []string{"containerd", "slipway-cluster", "Ready after"} {
			if !strings.Contains(out, want) {
				t.Errorf("up does not mention %q:\n%s", want, out)
			}
		}
	})
	t.Run("kubectl answers", func(t *testing.T) {
		i := i.With(t)
		if out := i.Kubectl("get", "nodes"); !strings.Contains(out, " Ready ") {
			t.Error(out)
		}
		link := exec.Command(filepath.Join(i.DataDir, "bin", "kubectl"), "get", "ns")
		link.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(i.DataDir, "kubeconfig"))
		if out, err := link.CombinedOutput(); err != nil || !strings.Contains(string(out), "kube-system") {
			t.Errorf("by its own name: %v %s", err, out)
		}
	})
	t.Run("pods see the certificate authority", func(t *testing.T) {
		i := i.With(t)
		const env = `-o=jsonpath={.spec.containers[0].env[?(@.name=="SSL_CERT_DIR")].value}`
		i.Eventually("the policy counts", time.Minute, func() bool {
			return strings.HasSuffix(i.Kubectl("run", "trusting", "--image=localhost/slipway/pause:1", "--dry-run=server", env), ":"+trustDir)
		})
		if out := i.Kubectl("run", "alone", "--image=localhost/slipway/pause:1", "--labels=slipway.dev/trust=false", "--dry-run=server", env); out != "" {
			t.Errorf("a pod that does not want it: %s", out)
		}
		if out := i.Kubectl("-n", "default", "get", "configmap", "slipway-ca", "-o=jsonpath={.data}"); !strings.Contains(out, "ca.crt") || strings.Contains(out, "ca-bundle.crt") {
			t.Errorf("the ConfigMap has %.200s", out)
		}
		i.Kubectl("run", "trusting", "--image=localhost/slipway/pause:1", "--image-pull-policy=Never")
		root := containerRoot(i, "trusting")
		for _, name := range []string{"ca.crt", "ca-bundle.crt"} {
			host, err := os.ReadFile(filepath.Join(i.DataDir, "trust", name))
			if err != nil {
				t.Fatal(err)
			}
			if seen, err := os.ReadFile(filepath.Join(root, trustDir, name)); err != nil || string(seen) != string(host) {
				t.Errorf("the pod's %s: %v, %d bytes", name, err, len(seen))
			}
		}
		// The folder is the host's: what changes there is there.
		added := filepath.Join(i.DataDir, "trust", "added")
		if err := os.WriteFile(added, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(added)
		if _, err := os.Stat(filepath.Join(root, trustDir, "added")); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile(filepath.Join(filepath.Dir(root), "mountinfo"))
		if err != nil || !regexp.MustCompile(` `+trustDir+` ro,`).Match(mounts) {
			t.Errorf("the folder is not read-only: %v\n%s", err, mounts)
		}
		i.Kubectl("delete", "pod", "trusting", "--grace-period=0", "--force")
	})
	t.Run("secrets are root's alone", func(t *testing.T) {
		i := i.With(t)
		for _, name := range []string{"kubeconfig", "run/slipway-cluster.json"} {
			info, err := os.Stat(filepath.Join(i.DataDir, name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
	})
	t.Run("a second up says so", func(t *testing.T) {
		i := i.With(t)
		out, err := i.Try("up")
		if err == nil || !strings.Contains(out, "already runs") || !strings.Contains(out, "slipway down") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("status shows budget and use", func(t *testing.T) {
		i := i.With(t)
		out := i.Run("status")
		for _, want := range []string{"BUDGET", "slipway-cluster", "headroom", "total"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	})
	t.Run("killed programs come back", func(t *testing.T) {
		i := i.With(t)
		for _, name := range []string{"slipway-cluster", "containerd", "slipway"} {
			before, _ := i.Status()
			pid := before[name].PID
			if name == "slipway" {
				pid = lockPID(t, i)
			}
			if pid == 0 {
				t.Fatalf("no process of %s in %+v", name, before)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			i.Eventually(name+" is replaced and everything is ready", 90*time.Second, func() bool {
				now, ready := i.Status()
				if name == "slipway" {
					return ready && lockPID(t, i) != pid
				}
				return ready && now[name].PID != 0 && now[name].PID != pid
			})
		}
		if out := i.Kubectl("get", "nodes"); !strings.Contains(out, " Ready ") {
			t.Error(out)
		}
	})
	t.Run("pods outlive every program", func(t *testing.T) {
		i := i.With(t)
		i.Kubectl("run", "still", "--image=localhost/slipway/pause:1", "--image-pull-policy=Never")
		i.Kubectl("wait", "--for=condition=Ready", "pod/still", "--timeout=60s")
		identity := func() string {
			return i.Kubectl("get", "pod", "still", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
		}
		before := identity()
		if !strings.HasSuffix(before, " 0") {
			t.Fatalf("the pod has restarted already: %s", before)
		}
		now, _ := i.Status()
		for _, pid := range []int{lockPID(t, i), now["slipway-cluster"].PID, now["containerd"].PID} {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		i.Eventually("everything is ready after all programs were killed at once", 120*time.Second, func() bool {
			again, ready := i.Status()
			return ready && again["slipway-cluster"].PID != now["slipway-cluster"].PID
		})
		if after := identity(); after != before {
			t.Errorf("after the kill the pod is %s, before %s", after, before)
		}
		i.Run("down", "--keep-workloads")
		i.Up()
		if after := identity(); after != before {
			t.Errorf("after down --keep-workloads and up the pod is %s, before %s", after, before)
		}
	})
	t.Run("tools answer", func(t *testing.T) {
		i := i.With(t)
		for _, args := range [][]string{{"helm", "list", "-A"}, {"kustomize", "version"}, {"ctr", "version"}, {"kubectl", "version"}, {"rollouts", "version"}, {"version"}, {"config", "print"}, {"config", "check"}, {"install", "--print"}, {"completion", "bash"}} {
			if out := i.Run(args...); strings.TrimSpace(out) == "" {
				t.Errorf("slipway %s says nothing", strings.Join(args, " "))
			}
		}
		if out, err := i.Try("doctor", "--json"); !strings.Contains(out, `"check"`) {
			t.Errorf("doctor: %v %s", err, out)
		}
	})
	t.Run("down leaves nothing", func(t *testing.T) {
		i := i.With(t)
		i.Run("down")
		if found := left(t, i); found != nil {
			t.Errorf("left on the machine:\n%s", strings.Join(found, "\n"))
		}
		out, err := i.Try("status")
		if err == nil || !strings.Contains(out, "does not run") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("reset leaves no file", func(t *testing.T) {
		i := i.With(t)
		if out, err := i.Try("reset"); err == nil || !strings.Contains(out, "Nothing was deleted") {
			t.Errorf("reset without an answer: %v %s", err, out)
		}
		i.RunInput("reset\n", "reset")
		if _, err := os.Stat(i.DataDir); !os.IsNotExist(err) {
			t.Errorf("the data directory is still there: %v", err)
		}
	})
}

// trustDir is where pods see the certificates.
const trustDir = "/etc/slipway/certs"

// containerRoot is the root folder of a pod's only container, once it runs.
func containerRoot(i *instance.Instance, pod string) string {
	var pid string
	i.Eventually("the pod "+pod+" runs", time.Minute, func() bool {
		_, id, _ := strings.Cut(i.Kubectl("get", "pod", pod, "-o=jsonpath={.status.containerStatuses[0].containerID}"), "containerd://")
		for line := range strings.Lines(i.Run("ctr", "--namespace", "k8s.io", "tasks", "ls")) {
			if f := strings.Fields(line); id != "" && len(f) == 3 && f[0] == id && f[2] == "RUNNING" {
				pid = f[1]
			}
		}
		return pid != ""
	})
	return filepath.Join("/proc", pid, "root")
}

func lockPID(t *testing.T, i *instance.Instance) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(i.DataDir, "run", "slipway.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

func TestStartIsRefusedWithASentence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	i := instance.New(t, "swport", 1, "")
	// Without a namespace of its own, so that it meets this test's port.
	text := "name: swport\ndata_dir: " + i.DataDir + "\ncluster: {enabled: false}\ngitops: {enabled: false}\ningress: {enabled: false}\nweb: {port: " + strconv.Itoa(port) + "}\n"
	if err := os.WriteFile(i.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := i.Try("up")
	if err == nil || !strings.Contains(out, "is in use by") || !strings.Contains(out, "(process "+strconv.Itoa(os.Getpid())+")") || strings.Contains(out, "goroutine") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(i.Config, []byte(text+"wbe: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = i.Try("up")
	if err == nil || !strings.Contains(out, `c.yaml: line 7: unknown key "wbe"`) {
		t.Errorf("%v\n%s", err, out)
	}
	os.WriteFile(i.Config, []byte(text), 0o600)
}
