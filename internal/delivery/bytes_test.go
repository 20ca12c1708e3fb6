package delivery

import "testing"

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1536: "1.5 kB", 44_300_000: "44.3 MB", 999_960_000: "1.0 GB", 7_000_000_000_000_000: "7000.0 TB"} {
		if got := BytesText(n); got != want {
			t.Errorf("%d bytes are written as %q, not %q", n, got, want)
		}
	}
}
