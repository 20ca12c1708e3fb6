package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

func TestForgetEarlierBoot(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	id := filepath.Join(t.TempDir(), "boot_id")
	address := filepath.Join(c.ipamDir(), c.Instance, "10.42.0.2")
	image := filepath.Join(c.ContainerdRoot(), "image")
	for step, test := range []struct {
		id   string
		kept bool
	}{{"one\n", true}, {"one\n", true}, {"two\n", false}} {
		for _, path := range []string{address, image} {
			if err := wholefile.Write(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(id, []byte(test.id), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := forgetEarlierBoot(c, id); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(address); (err == nil) != test.kept {
			t.Errorf("step %d: the pod's address is kept: %v, want %v", step, err == nil, test.kept)
		}
		if _, err := os.Stat(image); err != nil {
			t.Errorf("step %d: %v", step, err)
		}
	}
}
