package toolwire_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

// FuzzServe: whatever a job writes to its endpoint, the endpoint ends.
func FuzzServe(f *testing.F) {
	f.Add([]byte("C\x00\x00\x00\x02{}"))
	f.Add([]byte("C\x00\x00\x00\x18{\"tool\":\"docker\",\"args\":1}"))
	f.Add([]byte("C\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- toolwire.Serve(context.Background(), ours, func(ctx context.Context, s *toolwire.Session) int {
				_, _ = io.Copy(io.Discard, io.LimitReader(s.Stdin(), 1<<10))
				return 0
			})
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = theirs.Write(sent)
		theirs.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the endpoint hangs")
		}
	})
}
