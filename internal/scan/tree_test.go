package scan

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Trees that are sent at the same time wait, on no disk, for their turn.
func TestTreesWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Dir: t.TempDir()}, trees: make(chan struct{}, 1)}
	s.trees <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ScanTree(ctx, Scan{Type: TypeFS}, bytes.NewReader(nil)); delivery.KindOf(err) != delivery.Canceled {
		t.Errorf("%v", err)
	}
}

func TestTreeOfTooManyFiles(t *testing.T) {
	t.Parallel()
	pipe := &endless{}
	pipe.tar = tar.NewWriter(&pipe.buf)
	err := extract(t.Context(), pipe, t.TempDir(), 1<<30, 1000)
	if delivery.KindOf(err) != delivery.TooLarge || pipe.entries < 1000 {
		t.Errorf("%v after %d entries", err, pipe.entries)
	}
}

// endless is a tar stream of empty files that never ends.
type endless struct {
	buf     bytes.Buffer
	tar     *tar.Writer
	entries int
}

func (e *endless) Read(p []byte) (int, error) {
	for e.buf.Len() == 0 {
		e.entries++
		if err := e.tar.WriteHeader(&tar.Header{Name: "same", Typeflag: tar.TypeReg, Mode: 0o600}); err != nil {
			return 0, err
		}
	}
	return e.buf.Read(p)
}
