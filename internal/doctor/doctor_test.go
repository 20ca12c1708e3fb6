package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestBusyPortNamesItsOwner(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	got := ports(t.Context(), Settings{Ports: map[int]string{port: "web.port"}})
	if len(got) != 1 || got[0].Severity != Fatal || !strings.Contains(got[0].Message, "(process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("%+v", got)
	}
	if got := ports(t.Context(), Settings{Ports: map[int]string{port: "web.port"}, Running: true}); got != nil {
		t.Errorf("a running instance's own port was reported: %+v", got)
	}
}

func TestMissingProgramsAndMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "trivy"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	got := programs(t.Context(), Settings{BinDir: dir, Programs: []string{"trivy", "containerd"}})
	if err := Err(got); err == nil || !strings.Contains(err.Error(), "containerd") || strings.Contains(err.Error(), "trivy") || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
	if got := memory(t.Context(), Settings{Budget: 1 << 60}); got[0].Severity != Warning {
		t.Errorf("%+v", got)
	}
	if got := disk(t.Context(), Settings{DataDir: filepath.Join(dir, "not", "there")}); got[0].Severity == Fatal && strings.Contains(got[0].Message, "examined") {
		t.Errorf("%+v", got)
	}
}

func TestEveryFindingSaysSomething(t *testing.T) {
	t.Parallel()
	for _, f := range Run(t.Context(), Settings{DataDir: "/", Cluster: true}) {
		if f.Check == "" || f.Message == "" || (f.Severity == Fatal && f.Fix == "" && f.Check != "ports" && f.Check != "disk") {
			t.Errorf("%+v", f)
		}
	}
}
