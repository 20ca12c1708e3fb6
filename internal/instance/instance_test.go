package instance

import (
	"context"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestOnlyOneRuns(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	if d.Running() {
		t.Error("running before anyone started")
	}
	lock, err := d.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Acquire(); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("the second start: %v", err)
	}
	if !d.Running() || d.PID() != os.Getpid() {
		t.Error("not seen as running")
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if d.Running() {
		t.Error("still running")
	}
}

func TestControlSocket(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	if err := d.Call(t.Context(), "GET", "/status", nil, nil); delivery.KindOf(err) != delivery.Unavailable {
		t.Errorf("call without an instance: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"ok":true}`)) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		w.Write([]byte(`{"message":"not now"}`))
	})
	ended := make(chan error, 1)
	go func() { ended <- d.ServeControl(ctx, mux) }()
	var out struct{ OK bool }
	for !out.OK {
		if err := d.Call(t.Context(), "GET", "/status", nil, &out); err != nil && delivery.KindOf(err) != delivery.Unavailable {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatal("never served")
		}
	}
	if err := d.Call(t.Context(), "POST", "/down", map[string]bool{"x": true}, nil); delivery.KindOf(err) != delivery.Conflict || delivery.UserMessage(err) != "not now" {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNamespaceAddresses(t *testing.T) {
	t.Parallel()
	n := Namespace{Name: "slipway-e2e-long-name", Link: netip.MustParsePrefix("10.199.4.0/30")}
	if n.Address() != "10.199.4.2" || n.gateway().String() != "10.199.4.1" || len(n.hostLink()) > 15 {
		t.Errorf("%s %s %s", n.Address(), n.gateway(), n.hostLink())
	}
}
