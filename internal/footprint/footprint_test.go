package footprint

import "testing"

func TestOwnFile(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"00400000-01000000 r-xp 00000000 fe:00 1 /bin/my prog": true,
		"00400000-01000000 rw-p 00000000 fe:00 1 /bin/my prog": false,
		"00400000-01000000 r--p 00000000 fe:00 1 /lib/libc.so": false,
		"7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]":      false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":          false,
		"zz-01000000 r-xp 00000000 fe:00 1 /bin/my prog":       false,
	} {
		if _, _, ok := ownFile(line, "/bin/my prog"); ok != want {
			t.Errorf("%s: %v, want %v", line, ok, want)
		}
	}
	if start, end, _ := ownFile("00400000-00600000 r-xp 00000000 fe:00 1 /bin/my prog", "/bin/my prog"); start != 0x400000 || end != 0x600000 {
		t.Errorf("range %x-%x", start, end)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	if _, err := Trim(); err != nil {
		t.Error(err)
	}
}
