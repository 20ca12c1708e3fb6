package node

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestContainerdProbe(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "c.sock")
	probe, err := NewContainerdProbe(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	if err := probe.Serves(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without a socket: %v", err)
	}

	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(l) }() // ends with Stop
	defer server.Stop()
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for err = probe.Serves(deadline); err != nil && deadline.Err() == nil; err = probe.Serves(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Error(err)
	}
	state.Shutdown()
	if err := probe.Serves(deadline); err == nil || err.Error() != "containerd is NOT_SERVING" {
		t.Errorf("one that ends: %v", err)
	}
}

// A process that hangs: the kernel accepts connections, and nobody answers.
func TestContainerdProbeOfASilentOne(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "c.sock")
	silent, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	probe, err := NewContainerdProbe(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := probe.Serves(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
