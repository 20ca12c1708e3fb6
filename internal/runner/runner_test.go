package runner

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestBudgetAdmitsInOrder(t *testing.T) {
	t.Parallel()
	b := &budget{total: 1600e6}
	ctx := context.Background()
	quiet := func(string) { t.Error("had to wait") }
	first, err := b.acquire(ctx, 1000e6, time.Hour, quiet)
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan string, 2)
	admitted := make(chan string, 2)
	wait := func(name string, size int64) {
		release, err := b.acquire(ctx, size, time.Hour, func(reason string) { reasons <- reason })
		if err != nil {
			t.Error(err)
			return
		}
		release()
		admitted <- name
	}
	go wait("large", 1000e6)
	if got := <-reasons; got != "waiting for 1.0 GB, 0.6 GB free" {
		t.Errorf("the reason is %q", got)
	}
	go wait("small", 100e6)
	<-reasons // it waits although it would fit
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.acquire(canceled, 1, time.Hour, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled wait ended with %v", err)
	}
	if len(admitted) > 0 {
		t.Error("a small job overtook a large one")
	}
	first()
	<-admitted
	<-admitted
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used != 0 || len(b.queue) != 0 {
		t.Errorf("%d bytes and %d waiters are left", b.used, len(b.queue))
	}
}

func TestBudgetGivesEverythingToAJobThatIsTooLarge(t *testing.T) {
	t.Parallel()
	b := &budget{total: 100}
	release, err := b.acquire(context.Background(), 1000, time.Hour, func(string) { t.Error("had to wait") })
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestVariablesExpandOnceAndKeepTheLast(t *testing.T) {
	t.Parallel()
	v := NewVariables("/tmp/p.tmp", []delivery.JobVariable{
		{Key: "A", Value: "1"}, {Key: "B", Value: "$A ${A} $NONE $$"}, {Key: "C", Value: "$A", Raw: true}, {Key: "F", Value: "content", File: true}, {Key: "A", Value: "2"},
	}).Expanded()
	for key, want := range map[string]string{"A": "2", "B": "2 2  $", "C": "$A", "F": "/tmp/p.tmp/F", "NONE": ""} {
		if got := v.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if v.Value("F") != "content" {
		t.Errorf("the file has %q", v.Value("F"))
	}
	if got := strings.Join(NewVariables("/t", []delivery.JobVariable{{Key: "GOOD", Value: "x"}, {Key: "not good", Value: "x"}}).Environ(), " "); got != "GOOD=x" {
		t.Errorf("the environment is %q", got)
	}
}

func TestQuantities(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"512Mi": 512 << 20, "2G": 2e9, "1.5Gi": 3 << 29, "1000": 1000} {
		if got, err := ParseQuantity(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1Gi", "1Q", "9999999Ti"} {
		if _, err := ParseQuantity(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	var words bytes.Buffer
	log := NewLog(&words, false, time.Now)
	spec := &delivery.JobSpec{Credentials: []delivery.JobCredential{{Type: "registry", URL: "http://reg.example:5000/", Username: "gitlab-ci-token", Password: "p"}}}
	variables := NewVariables("", []delivery.JobVariable{{Key: "DOCKER_AUTH_CONFIG", File: true,
		Value: `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="}}}`}})
	got := credentials(spec, variables, log)
	if len(got) != 2 || got[0].Host != "docker.io" || got[0].Username != "u" || got[0].Password != "p:w" || got[1].Host != "reg.example:5000" {
		t.Errorf("got %+v", got)
	}
	credentials(spec, NewVariables("", []delivery.JobVariable{{Key: "DOCKER_AUTH_CONFIG", Value: "nonsense hunter2"}}), log)
	if !strings.Contains(words.String(), "Ignoring DOCKER_AUTH_CONFIG") || strings.Contains(words.String(), "hunter2") {
		t.Errorf("said %q", words.String())
	}
}

func TestStamperHeadsEveryLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Date(2026, 11, 23, 5, 28, 45, 495403000, time.UTC)
	s := newStamper(&out, "01O", func() time.Time { return now })
	for _, piece := range []string{"a li", "ne\nprogress 1\r", "progress 2\n", "tail"} {
		if _, err := s.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const head = "2026-11-23T05:28:45.495403Z 01O"
	want := head + " a line\n" + head + " progress 1\r\n" + head + "+progress 2\n" + head + " tail\n"
	if out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}

func TestTraceHasALimit(t *testing.T) {
	t.Parallel()
	tr, err := openTrace(filepath.Join(t.TempDir(), "trace"), nil, 1, "", 10, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	for range 3 {
		if _, err := tr.Write([]byte("0123456")); err != nil {
			t.Fatal(err)
		}
	}
	tr.force()
	if _, err := tr.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(tr.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); !strings.HasPrefix(text, "0123456012\n") || strings.Count(text, "exceeded limit of 10 bytes") != 1 || !strings.HasSuffix(text, "last words") {
		t.Errorf("the trace is %q", text)
	}
}

func TestExtractStaysInItsFolder(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	for _, names := range [][]string{{"../evil"}, {"/evil"}, {"link", "link/evil"}, {"a/../../evil"}} {
		var archive bytes.Buffer
		w := zip.NewWriter(&archive)
		for _, name := range names {
			header := &zip.FileHeader{Name: name}
			header.SetMode(0o644)
			content := "x"
			if name == "link" {
				header.SetMode(fs.ModeSymlink | 0o777)
				content = outside
			}
			entry, err := w.CreateHeader(header)
			if err == nil {
				_, err = entry.Write([]byte(content))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		reader, root := unpacking(t, archive.Bytes())
		if err := extractZip(t.Context(), reader, root); err == nil {
			t.Errorf("%v was extracted", names)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("%v wrote outside: %v %v", names, left, err)
		}
	}
}

// unpacking opens an archive and a folder to extract it to.
func unpacking(t *testing.T, archive []byte) (*zip.Reader, *os.Root) {
	t.Helper()
	reader, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return reader, root
}

// TestExtractEndsWithItsJob: an archive that unpacks to far more than it is
// must not go on when the job has ended for the space it takes.
func TestExtractEndsWithItsJob(t *testing.T) {
	t.Parallel()
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	entry, err := w.Create("large")
	if err == nil {
		_, err = entry.Write(make([]byte, 1<<20))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	reader, root := unpacking(t, archive.Bytes())
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errDiskFull)
	if err := extractZip(ctx, reader, root); !errors.Is(err, errDiskFull) {
		t.Errorf("the archive was extracted: %v", err)
	}
	if _, err := io.Copy(io.Discard, until(ctx, strings.NewReader("more"))); !errors.Is(err, errDiskFull) {
		t.Errorf("reading went on: %v", err)
	}
}

func TestPathWriterShowsTheJobsPath(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := &pathWriter{w: &out, from: []byte("/var/lib/x/sources"), to: []byte("/builds/group/app")}
	for _, piece := range []string{"Cloning into '/var/lib/x/sou", "rces/sub'...\n50%\r", "fatal: /var/lib/x/sources"} {
		if _, err := w.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil || out.String() != "Cloning into '/builds/group/app/sub'...\n50%\rfatal: /builds/group/app" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestCacheStoreKeepsItsBudget(t *testing.T) {
	t.Parallel()
	store := &cacheStore{dir: t.TempDir(), budget: 25}
	for i, key := range []string{"old", "used", "new"} {
		file := store.file(7, key)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, 10), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.trim(); err != nil {
		t.Fatal(err)
	}
	for key, kept := range map[string]bool{"old": false, "used": true, "new": true} {
		if _, err := os.Stat(store.file(7, key)); (err == nil) != kept {
			t.Errorf("%s: %v", key, err)
		}
	}
	if strings.Contains(store.file(7, "../../etc"), "..") {
		t.Error("a key leads out of the store")
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		reason string
		code   int
		system bool
	}{
		{&ExitError{3}, ReasonScript, 3, false},
		{&JobError{Reason: ReasonImagePull}, ReasonImagePull, 0, false},
		{errInterrupted, ReasonSystem, 0, true},
		{errors.New("disk"), ReasonSystem, 0, true},
	} {
		if reason, code, system := failure(test.err); reason != test.reason || code != test.code || system != test.system {
			t.Errorf("%v: %s %d %v", test.err, reason, code, system)
		}
	}
	if text := plainError(&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}); !strings.Contains(text, "no space left on the runner's disk") {
		t.Errorf("a full disk reads %q", text)
	}
}

// TestPaceOfATrace: what a quiet job says is forwarded at once, a talkative one
// is held to the interval.
func TestPaceOfATrace(t *testing.T) {
	t.Parallel()
	p := pace{every: 200 * time.Millisecond}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	quick := 0
	for p.next(now) == quickPause {
		quick++
		now = now.Add(quickPause)
	}
	if quick != quickPieces {
		t.Errorf("%d quick pieces, want %d", quick, quickPieces)
	}
	now = now.Add(350 * time.Millisecond)
	if got := p.next(now); got != quickPause {
		t.Errorf("after a while it waits %s", got)
	}
	for range 30 {
		now = now.Add(p.next(now))
	}
	slow := 0
	for begin := now; now.Sub(begin) < 2*time.Second; slow++ {
		now = now.Add(p.next(now))
	}
	if slow > 22 {
		t.Errorf("%d pieces in 2 s from a job that never stops", slow)
	}
}
