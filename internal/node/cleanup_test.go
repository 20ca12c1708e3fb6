package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMountPoints(t *testing.T) {
	t.Parallel()
	const mountinfo = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /data/containerd/state/a/rootfs rw - overlay overlay rw
31 30 0:41 / /data/containerd/state/a/rootfs/with\040space rw - tmpfs tmpfs rw
32 22 0:42 / /database rw - tmpfs tmpfs rw
33 22 0:43 / /data rw - tmpfs tmpfs rw
`
	want := []string{"/data/containerd/state/a/rootfs", "/data/containerd/state/a/rootfs/with space", "/data"}
	if got := mountPoints([]byte(mountinfo), "/data"); !slices.Equal(got, want) {
		t.Errorf("mount points %q, want %q", got, want)
	}
}

func TestContainerProcesses(t *testing.T) {
	t.Parallel()
	const socket = "/data/run/containerd.sock"
	shim := func(address string) []string {
		return []string{"/opt/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "x", "-address", address}
	}
	table := []process{
		{10, 1, shim(socket)},
		{11, 10, []string{"/program"}},
		{12, 11, []string{"sh", "-address", socket}}, // no shim, but below one
		{20, 1, shim("/other/containerd.sock")},
		{21, 20, []string{"/program"}},
		{30, 1, []string{"/opt/bin/containerd"}},
		{31, 30, shim(socket)},
	}
	shims, contained := containerProcesses(table, socket)
	if !slices.Equal(shims, []int{10, 31}) || !slices.Equal(contained, []int{11, 12}) {
		t.Errorf("shims %v, contained %v", shims, contained)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]struct {
		parent  int
		running bool
	}{
		"7 (sh) S 5 7 7 0":           {5, true},
		"7 (a) b (c) R 6 7 7 0":      {6, true},
		"7 (sh) Z 5 7 7 0":           {0, false},
		"":                           {0, false},
		"7 (unfinished":              {0, false},
		"7 (sh) S notanumber 7 7 0 ": {0, false},
	} {
		if parent, running := parseStat([]byte(stat)); parent != want.parent || running != want.running {
			t.Errorf("%q: parent %d, running %v", stat, parent, running)
		}
	}
}

func TestWaitGone(t *testing.T) {
	t.Parallel()
	command := exec.Command("sleep", "600")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if left := waitGone(done, []int{pid}, time.Minute); !slices.Equal(left, []int{pid}) {
		t.Errorf("left %v, want the running process %d", left, pid)
	}
	if err := signalAll([]int{pid}, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Not waited for yet: a zombie counts as gone.
	if left := waitGone(context.Background(), []int{pid}, time.Minute); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	_ = command.Wait() // reports the kill
	if err := signalAll([]int{pid}, unix.SIGKILL); err != nil {
		t.Errorf("signalling a process that is gone: %v", err)
	}
}

func TestIptablesLeftovers(t *testing.T) {
	t.Parallel()
	const saved = `# Generated
*nat
:PREROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -i a0 -m comment --comment slipway-a -j ACCEPT
-A FORWARD -i ab0 -m comment --comment slipway-ab -j ACCEPT
-A FORWARD -j DOCKER-USER
COMMIT
`
	kept, changed := withoutOurRules([]byte(saved), "slipway-a")
	const want = `# Generated
*nat
:PREROUTING ACCEPT [0:0]
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -i ab0 -m comment --comment slipway-ab -j ACCEPT
-A FORWARD -j DOCKER-USER
COMMIT
`
	if !changed || string(kept) != want {
		t.Errorf("changed %v, kept:\n%s", changed, kept)
	}
	if tables := untouchedTables(kept); !slices.Equal(tables, []string{"nat"}) {
		t.Errorf("untouched tables %v, want nat", tables)
	}
	if _, changed := withoutOurRules(kept, "slipway-a"); changed {
		t.Error("a second pass still changes something")
	}
}

func TestRemoveLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, target := range map[string]string{"ours": "/data/pod-logs/x/0.log", "theirs": "/var/log/pods/x/0.log", "near": "/data/pod-logs-2/x"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLinks(dir, "/data/pod-logs"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if !slices.Equal(left, []string{"near", "theirs"}) {
		t.Errorf("left %v", left)
	}
	if err := removeLinks(filepath.Join(dir, "absent"), "/data"); err != nil {
		t.Errorf("absent directory: %v", err)
	}
}

func TestNeedsRule(t *testing.T) {
	t.Parallel()
	for printed, want := range map[string]bool{
		"-P FORWARD ACCEPT\n":                           false,
		"-P FORWARD DROP\n":                             true,
		"-P FORWARD ACCEPT\n-A FORWARD -j ufw-before\n": true,
	} {
		if got := needsRule(printed, "FORWARD"); got != want {
			t.Errorf("%q: %v", printed, got)
		}
	}
}
