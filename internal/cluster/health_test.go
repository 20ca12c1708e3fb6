package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

func testBoard() *board {
	b := newBoard(time.Now())
	b.add("etcd")
	b.add("api", "etcd")
	b.add("kubelet", "api")
	return b
}

func read(t *testing.T, b *board) (int, Health) {
	t.Helper()
	recorder := httptest.NewRecorder()
	b.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	var health Health
	if err := json.NewDecoder(recorder.Body).Decode(&health); err != nil {
		t.Fatal(err)
	}
	return recorder.Code, health
}

func TestBoardNamesTheRootCause(t *testing.T) {
	t.Parallel()
	b := testBoard()
	b.set("etcd", errors.New("disk full"))
	b.set("kubelet", errors.New("connection refused"))
	code, health := read(t, b)
	if code != http.StatusServiceUnavailable || health.Ready {
		t.Errorf("status %d, ready %v", code, health.Ready)
	}
	for i, want := range []string{"disk full", "waits for etcd", "waits for api"} {
		if got := health.Components[i].Message; got != want {
			t.Errorf("%s: %q, want %q", health.Components[i].Name, got, want)
		}
	}
	for _, name := range []string{"etcd", "api", "kubelet"} {
		b.set(name, nil)
	}
	code, health = read(t, b)
	if code != http.StatusOK || !health.Ready {
		t.Errorf("status %d, ready %v", code, health.Ready)
	}
	first := health.Components[2].Seconds
	if first <= 0 {
		t.Errorf("the kubelet took %v s", first)
	}
	b.set("kubelet", errors.New("runtime is down"))
	if code, health = read(t, b); code != http.StatusServiceUnavailable || health.Components[2].Message != "runtime is down" {
		t.Errorf("status %d, %+v", code, health.Components[2])
	}
	b.set("kubelet", nil)
	if _, health = read(t, b); health.Components[2].Seconds != first {
		t.Error("the time to ready changed with a later interruption")
	}
}

func TestBoardWatch(t *testing.T) {
	t.Parallel()
	b := testBoard()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answers := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.watch(ctx, "etcd", func(context.Context) error { return <-answers })
	}()
	answers <- errors.New("not yet")
	answers <- nil
	if err := b.wait(ctx, "etcd"); err != nil {
		t.Fatal(err)
	}
	cancel()
	close(answers)
	<-done
	if err := b.wait(ctx, "api"); err == nil {
		t.Error("waiting ended although the component was never ready")
	}
}

func TestBoardServesOnSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	// The socket of a killed predecessor.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b := testBoard()
	ended := make(chan error, 1)
	go func() { ended <- b.serve(ctx, socket) }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://health/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if ctx.Err() != nil {
			t.Fatal("never served")
		}
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status %d", response.StatusCode)
		}
		break
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}

func TestFailedLines(t *testing.T) {
	t.Parallel()
	const body = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]hook failed\nreadyz check failed\n"
	if got := failedLines(body); got != "etcd failed: reason withheld; hook failed" {
		t.Errorf("%q", got)
	}
	if got := failedLines("Unauthorized\n"); got != "Unauthorized" {
		t.Errorf("%q", got)
	}
}
