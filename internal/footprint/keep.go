package footprint

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// interval is the least time between two trims: one costs a garbage
	// collection and reads of what is needed again of the program's file.
	interval = 5 * time.Minute
	// latest is the most time between two trims of a program that is at rest all
	// the time: what trickles in is given back too.
	latest = 30 * time.Minute
	// look is how often the use of the processor is looked at.
	look = 15 * time.Second
	// rest is the share of one core below which a program is at rest.
	rest = 0.15
	// restPercent is the garbage collector's percentage at rest, when a program
	// allocates so little that collecting more often costs next to nothing.
	restPercent = 20
)

// Keep trims once after settle, when the program's start is over, and again
// whenever the program comes to rest after it was busy, or has been at rest for
// long, until ctx ends. At rest
// the garbage collector leaves less room for growth; the percentage that was
// set before comes back while the program is busy, and when Keep returns. It
// returns the first error of Trim: then the memory stays as it is.
func Keep(ctx context.Context, settle time.Duration) error {
	if !wait(ctx, settle) {
		return nil
	}
	if _, err := Trim(); err != nil {
		return err
	}
	normal := debug.SetGCPercent(restPercent)
	defer debug.SetGCPercent(normal)
	p := pace{trimmed: time.Now()}
	for {
		share, err := share(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		was := p.busy
		busy, trim := p.step(time.Now(), share)
		if busy && !was {
			debug.SetGCPercent(normal)
		} else if was && !busy {
			debug.SetGCPercent(restPercent)
		}
		if !trim {
			continue
		}
		if _, err := Trim(); err != nil {
			return err
		}
	}
}

// pace decides when to trim.
type pace struct {
	trimmed time.Time // when last
	busy    bool      // at the last look
	due     bool      // it was busy since
}

// step takes the share of a core that was used until now.
func (p *pace) step(now time.Time, share float64) (busy, trim bool) {
	p.busy = share >= rest
	p.due = p.due || p.busy || now.Sub(p.trimmed) >= latest
	if p.busy || !p.due || now.Sub(p.trimmed) < interval {
		return p.busy, false
	}
	p.trimmed, p.due = now, false
	return false, true
}

// share measures which share of one core the process uses until the next look
// or the end of ctx.
func share(ctx context.Context) (float64, error) {
	before, err := used()
	if err != nil {
		return 0, err
	}
	wait(ctx, look)
	after, err := used()
	return (after - before).Seconds() / look.Seconds(), err
}

// wait reports whether the time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// used is the processor time that the process has used.
func used() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("footprint: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
