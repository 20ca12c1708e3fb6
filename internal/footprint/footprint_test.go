package footprint

import (
	"context"
	"testing"
	"time"
)

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

func TestKeepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Keep(ctx, time.Hour); err != nil {
		t.Error(err)
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	p := pace{trimmed: start}
	for _, step := range []struct {
		at         time.Time
		share      float64
		busy, trim bool
	}{
		{at(30), 0.05, false, false},
		{at(400), 0.05, false, false}, // nothing has been busy: nothing to give back
		{at(430), 0.90, true, false},
		{at(460), 0.05, false, true},
		{at(490), 0.90, true, false},
		{at(520), 0.05, false, false}, // too early
		{at(770), 0.05, false, true},
		{at(800), 0.05, false, false},
		{at(770 + 1800), 0.05, false, true}, // long at rest
	} {
		busy, trim := p.step(step.at, step.share)
		if busy != step.busy || trim != step.trim {
			t.Errorf("after %s: busy %v, trim %v", step.at.Sub(start), busy, trim)
		}
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	if _, err := Trim(); err != nil {
		t.Error(err)
	}
}
