package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func box(t *testing.T, fill byte) *Box {
	t.Helper()
	b, err := New(bytes.Repeat([]byte{fill}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	a, b := box(t, 1), box(t, 2)
	sealed := a.Seal("secret")
	if v, err := a.Open(sealed); v != "secret" || err != nil {
		t.Error(v, err)
	}
	if _, err := b.Open(sealed); delivery.KindOf(err) != delivery.Stalled {
		t.Error(err)
	}
	if strings.Contains(sealed, "secret") || a.Seal("secret") == sealed {
		t.Error("the value shows")
	}
	if _, err := New([]byte("short")); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestColumns(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	stored := b.Column("mirrors.password", "hunter2")
	if v, err := b.OpenColumn("mirrors.password", stored); v != "hunter2" || err != nil {
		t.Error(v, err)
	}
	if _, err := b.OpenColumn("hooks.token", stored); delivery.KindOf(err) != delivery.Stalled {
		t.Errorf("a value moved to another column: %v", err)
	}
	if v, err := b.OpenColumn("mirrors.password", "from before"); v != "from before" || err != nil {
		t.Error(v, err)
	}
	if b.Column("x", "") != "" || !IsSealed("") || !IsSealed(stored) || IsSealed("from before") {
		t.Error("what is sealed is not told from what is not")
	}
}

func TestLoadKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys", "ci.key")
	k1, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	k2, err := LoadKey(path)
	if err != nil || !bytes.Equal(k1, k2) {
		t.Error("the key is not kept", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
}
