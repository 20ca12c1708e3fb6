package supervise

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// eventually waits for a condition with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

type fake struct {
	name   string
	events *[]string
	mu     *sync.Mutex
	down   atomic.Pointer[string]
	fail   chan error
}

func (f *fake) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*f.events = append(*f.events, f.name+" "+s)
}

func (f *fake) Run(ctx context.Context) error {
	f.note("start")
	select {
	case <-ctx.Done():
		f.note("stop")
		return nil
	case err := <-f.fail:
		return err
	}
}

func (f *fake) Ready(context.Context) error {
	if why := f.down.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

func TestOrderRootCauseRestart(t *testing.T) {
	t.Parallel()
	var events []string
	var mu sync.Mutex
	units := map[string]*fake{}
	unit := func(name string) *fake {
		units[name] = &fake{name: name, events: &events, mu: &mu, fail: make(chan error)}
		return units[name]
	}
	m, err := New(quiet, []Component{
		{Name: "gitops", After: []string{"cluster"}, Unit: unit("gitops")},
		{Name: "cluster", After: []string{"containerd"}, Unit: unit("cluster")},
		{Name: "containerd", Unit: unit("containerd")},
		{Name: "web", Unit: unit("web")},
	}, WithPoll(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	why := "no space left"
	units["containerd"].down.Store(&why)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	find := func(name string) Status {
		for _, s := range m.Status() {
			if s.Name == name {
				return s
			}
		}
		t.Fatalf("no %s", name)
		return Status{}
	}
	eventually(t, "web is ready beside a broken containerd", func() bool { return find("web").State == Ready })
	eventually(t, "gitops names the root cause", func() bool {
		s := find("gitops")
		return s.State == Waiting && s.RootCause == "containerd" && strings.Contains(s.Message, why)
	})
	units["containerd"].down.Store(nil)
	eventually(t, "everything is ready", func() bool { return m.WaitReady(ctx) == nil })

	units["cluster"].fail <- errors.New("crashed")
	eventually(t, "the crash is counted", func() bool { return find("cluster").Restarts == 1 })
	eventually(t, "cluster is ready again", func() bool { return find("cluster").State == Ready })
	if s := find("web"); s.State != Ready || s.Restarts != 0 {
		t.Errorf("web was touched: %+v", s)
	}

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	got := strings.Join(events, ", ")
	if !strings.HasSuffix(got, "web stop, gitops stop, cluster stop, containerd stop") {
		t.Errorf("stopped in the wrong order: %s", got)
	}
}

func TestOneMissedProbeIsNoOutage(t *testing.T) {
	t.Parallel()
	var probes atomic.Int64
	m, err := New(quiet, []Component{{Name: "a", Unit: Func{ReadyFunc: func(context.Context) error {
		if probes.Add(1) == 2 {
			return errors.New("slow")
		}
		return nil
	}}}}, WithPoll(time.Millisecond), WithProgress(func(s Status) {
		if s.State == Degraded {
			t.Error("one missed probe degraded the component")
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	eventually(t, "five probes", func() bool { return probes.Load() > 5 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDeclarationsAreChecked(t *testing.T) {
	t.Parallel()
	for _, comps := range [][]Component{
		{{Name: "a", After: []string{"b"}}},
		{{Name: "a"}, {Name: "a"}},
		{{Name: "a", After: []string{"b"}}, {Name: "b", After: []string{"a"}}},
	} {
		if _, err := New(quiet, comps); err == nil {
			t.Errorf("accepted %+v", comps)
		}
	}
}

func TestChildIsAdoptedAndReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := func(fingerprint string, keep bool) *Child {
		return &Child{
			Path: "/bin/sh", Args: []string{"-c", "echo up; exec tail -f /dev/null"},
			PIDFile: filepath.Join(dir, "c.pid"), LogFile: filepath.Join(dir, "c.log"),
			Fingerprint: fingerprint, Log: quiet, ReadyFunc: func(context.Context) error { return nil },
			KeepOnStop: func() bool { return keep }, StopWithin: 5 * time.Second,
		}
	}
	// run lets the child run until it has a process, then stops the supervisor's side.
	run := func(c *Child) int {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		pid := 0
		eventually(t, "a process", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("ended instead of running: %v", err)
			default:
			}
			pid = c.PID()
			return pid != 0
		})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return pid
	}
	first := run(child("one", true))
	if second := run(child("one", true)); second != first {
		t.Errorf("process %d was not adopted but replaced by %d", first, second)
	}
	third := run(child("two", false))
	if third == first {
		t.Error("a process with another configuration was adopted")
	}
	for _, pid := range []int{first, third} {
		eventually(t, "the process is gone", func() bool {
			_, err := startTime(pid)
			return err != nil
		})
	}
}

func TestChildFailureIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &Child{Path: "/bin/sh", Args: []string{"-c", "sleep 0.2; exit 3"}, PIDFile: filepath.Join(dir, "p"), LogFile: filepath.Join(dir, "l"), Log: quiet}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	c.Path = "/does/not/exist"
	if err := c.Run(t.Context()); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

func TestRotationKeepsTheWriterGoing(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "a.log")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString(strings.Repeat("x", 100))
	if err := rotate(name, 50); err != nil {
		t.Fatal(err)
	}
	f.WriteString("after")
	now, _ := os.ReadFile(name)
	old, _ := os.ReadFile(name + ".1")
	if string(now) != "after" || len(old) != 100 {
		t.Errorf("%q and %d bytes", now, len(old))
	}
}

func TestSilentProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var silent atomic.Bool
	c := &Child{Path: "/bin/sleep", Args: []string{"60"}, PIDFile: filepath.Join(dir, "p"), LogFile: filepath.Join(dir, "l"), Log: quiet,
		ReadyFunc: func(ctx context.Context) error {
			if silent.Load() {
				<-ctx.Done()
			}
			return ctx.Err()
		}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() { stop(); <-ended }()
	eventually(t, "the program runs", func() bool { return c.PID() != 0 })
	asked := func() string {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if err := c.Ready(short); err != nil {
			return err.Error()
		}
		return ""
	}
	silent.Store(true)
	if got := asked(); got != "starting (does not answer yet)" {
		t.Errorf("before its first answer: %s", got)
	}
	silent.Store(false)
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	silent.Store(true)
	if got := asked(); !strings.Contains(got, "runs but does not answer") || !strings.Contains(got, "slipway logs sleep") {
		t.Errorf("a silent program: %s", got)
	}
	pid := c.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	eventually(t, "the signal is named", func() bool { return strings.Contains(asked(), "kill -CONT") })
}

func TestPartsOfASilentProgramAreNotKnown(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts, as the kernel does for a stopped process, and says nothing
	c := &Child{Path: "/bin/x", Socket: socket, pid: os.Getpid(), answered: true, parts: []Part{{Name: "etcd", Ready: true}}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
	if parts := c.Parts(); len(parts) != 0 {
		t.Errorf("parts are shown as they were: %+v", parts)
	}
}
