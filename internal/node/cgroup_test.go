package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeCgroup makes a version 2 cgroup directory with the controllers.
func fakeCgroup(t *testing.T, dir, controllers string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(controllers+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEnableControllers(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	fakeCgroup(t, mount, "cpuset cpu io memory hugetlb pids rdma")
	fakeCgroup(t, filepath.Join(mount, "slipway"), "cpuset cpu memory pids")
	if err := enableControllers(mount, "/slipway"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{mount, filepath.Join(mount, "slipway")} {
		// A plain file keeps what was written last; the order is that of podControllers.
		last, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil || !strings.HasPrefix(string(last), "+") {
			t.Errorf("%s delegates %q (%v)", dir, last, err)
		}
	}
	fakeCgroup(t, filepath.Join(mount, "slipway"), "cpu memory pids")
	err := enableControllers(mount, "/slipway")
	if err == nil || !strings.Contains(err.Error(), "lacks the controller cpuset") {
		t.Errorf("error is %v", err)
	}
}

func TestInheritCpuset(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	child := filepath.Join(parent, "child")
	for dir, values := range map[string]string{parent: "0-1", child: ""} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(values+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if err := inheritCpuset(child); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(child, "cpuset.cpus")); err != nil || strings.TrimSpace(string(got)) != "0-1" {
			t.Errorf("child has %q (%v)", got, err)
		}
	}
	if err := inheritCpuset(t.TempDir()); err != nil {
		t.Errorf("a hierarchy without cpuset: %v", err)
	}
}

func TestRaise(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "setting")
	for _, step := range []struct{ present, want string }{{"128\n", "1024"}, {"1024\n", "1024\n"}, {"9000\n", "9000\n"}} {
		if err := os.WriteFile(path, []byte(step.present), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := raise(path, 1024); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Errorf("%q became %q, want %q (%v)", step.present, got, step.want, err)
		}
	}
}
