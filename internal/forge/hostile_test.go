package forge_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1" //nolint:gosec // git's packs end with it
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func TestHostileNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	ctx := t.Context()
	marker := filepath.Join(t.TempDir(), "marker")
	for _, rev := range []string{"-h", "--output=" + marker, "main:README.md", "main^{tree}", "@{u}", "main@{1}", ":/x", "main..main", "a\nb", "a\x00b", strings.Repeat("a", 5000), "refs/../../etc", "$(touch " + marker + ")", "main~99999999999999", "HEAD^{/x}", "*"} {
		if sha, err := w.forge.ResolveRef(ctx, p.ID, rev); !delivery.IsNotFound(err) {
			t.Errorf("revision %q: %q %v", rev, sha, err)
		}
		if _, err := w.forge.CreateBranch(ctx, w.people["ann"], p, rev, "main"); err == nil {
			t.Errorf("branch %q was made", rev)
		}
	}
	for _, path := range []string{"../../../etc/passwd", "a/../b", "/etc/passwd", "README.md/x", "-x", "a\nb", ".git/config", "a//b", strings.Repeat("x/", 3000)} {
		if body, err := w.forge.ReadFile(ctx, p.ID, "main", path, 1000); err == nil {
			t.Errorf("path %q gave %q", path, body)
		}
		if _, err := w.forge.OpenArchive(ctx, p, "main", path, "zip"); err == nil {
			t.Errorf("archive of %q", path)
		}
	}
	for _, format := range []string{"", "exe", "tar.gz; id", "../zip"} {
		if _, err := w.forge.OpenArchive(ctx, p, "main", "", format); err == nil {
			t.Errorf("archive format %q", format)
		}
	}
	for _, name := range []string{"", "..", ".", "a/b", "-x", "x.git", "x.lock", "a b", "a\x00b", "ä", strings.Repeat("x", 300)} {
		if _, err := w.forge.CreateProject(ctx, w.people["ann"], forge.NewProject{Path: name}); err == nil {
			t.Errorf("project %q was made", name)
		}
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a name was run as a command")
	}
}

// post sends a body to one of git's addresses.
func (w *world) post(who, service, encoding string, p delivery.Project, body io.Reader) (int, string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", w.server.URL+"/"+p.FullPath+".git/"+service, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-"+service+"-request")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	req.SetBasicAuth(who, w.tokens[who])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return res.StatusCode, err.Error()
	}
	return res.StatusCode, string(out)
}

func TestMalformedPushes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	before, err := w.forge.ResolveRef(t.Context(), p.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(bytes.Repeat([]byte{0}, 1<<20)) //nolint:errcheck // a buffer does not fail
	z.Close()
	command := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/x\x00 report-status\n"
	line := func(s string) string {
		const hex = "0123456789abcdef"
		n := len(s) + 4
		return string([]byte{hex[n>>12&15], hex[n>>8&15], hex[n>>4&15], hex[n&15]}) + s
	}
	for name, c := range map[string]struct {
		body     string
		encoding string
	}{
		"nothing":       {"", ""},
		"flush":         {"0000", ""},
		"noise":         {"this is not git's protocol", ""},
		"long length":   {"ffff", ""},
		"no pack":       {line(command) + "0000", ""},
		"broken pack":   {line(command) + "0000PACK\x00\x00\x00\x02\x00\x00\x00\x09garbage", ""},
		"empty pack":    {line(command) + "0000PACK\x00\x00\x00\x02\x00\x00\x00\x00" + strings.Repeat("x", 20), ""},
		"not gzip":      {"plain", "gzip"},
		"a gzip bomb":   {zipped.String(), "gzip"},
		"new encoding":  {"x", "br"},
		"strange ref":   {line(strings.Repeat("0", 40)+" "+before+" refs/heads/../../x\x00report-status\n") + "0000", ""},
		"hidden ref":    {line(strings.Repeat("0", 40)+" "+before+" refs/pipelines/1\x00report-status\n") + "0000", ""},
		"internal ref":  {line(strings.Repeat("0", 40)+" "+before+" refs/slipway/x\x00report-status\n") + "0000", ""},
		"line of zeros": {strings.Repeat("\x00", 10000), ""},
	} {
		for _, service := range []string{"git-receive-pack", "git-upload-pack"} {
			if status, body := w.post("ann", service, c.encoding, p, strings.NewReader(c.body)); status >= 500 {
				t.Errorf("%s to %s: %d %s", name, service, status, body)
			}
		}
	}
	if n := len(w.events(p)); n != 1 {
		t.Errorf("%d events", n)
	}
	pending, err := w.forge.PendingPushes(t.Context())
	if err != nil || len(pending) != 0 {
		t.Errorf("pushes left over: %+v %v", pending, err)
	}
	for _, ref := range []string{"refs/pipelines/1", "refs/slipway/x", "refs/heads/x"} {
		if _, exists, err := w.forge.RefExists(t.Context(), p.ID, ref); err != nil || exists {
			t.Errorf("%s exists (%v)", ref, err)
		}
	}
	if after, err := w.forge.ResolveRef(t.Context(), p.ID, "main"); err != nil || after != before {
		t.Errorf("main moved: %s %v", after, err)
	}
}

func TestPushOverTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *forge.Options) { o.MaxPushBytes = 100 << 10 })
	w.person("ann")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main")
	noise := make([]byte, 400<<10)
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, noise); err != nil {
		t.Fatal(err)
	}
	w.commit(dir, "big", string(noise), "Big")
	out, err := w.tryGit(dir, "push", "origin", "main")
	if err == nil || !strings.Contains(out, "maximum allowed size") {
		t.Errorf("%v %s", err, out)
	}
	if n := len(w.events(p)); n != 1 {
		t.Errorf("%d events", n)
	}
	// Nothing of it stays behind.
	left, err := filepath.Glob(filepath.Join(w.forge.RepositoryPath(p.ID), "objects", "tmp_objdir*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// TestManyConnectionsAndSlowClients opens 1,000 connections at once beside
// clients that begin a request and say nothing more. Each of the 1,000 is
// served or told to come back later; memory stays bounded.
func TestManyConnectionsAndSlowClients(t *testing.T) {
	w := newWorld(t) // not parallel: it measures the memory of the process
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	// Half of the headers; a whole header of a fetch, and of a push, without
	// its body: none of these holds a git process.
	var slow []net.Conn
	basic := base64.StdEncoding.EncodeToString([]byte("ann:" + w.tokens["ann"]))
	for i := range 60 {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		service := []string{"git-upload-pack", "git-receive-pack"}[i%2]
		text := "POST /ann/app.git/" + service + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nAuthorization: Basic " + basic + "\r\n"
		if i%3 > 0 {
			text += "Content-Type: application/x-" + service + "-request\r\n\r\n"
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	defer func() {
		for _, c := range slow {
			c.Close()
		}
	}()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const many = 1000
	var wg sync.WaitGroup
	errs := make(chan string, many)
	var served, later atomic.Int32
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range many {
		wg.Go(func() {
			// Advertisements to pushers cost a process each.
			service := []string{"git-upload-pack", "git-receive-pack"}[i%2]
			req, err := http.NewRequest("GET", w.server.URL+"/ann/app.git/info/refs?service="+service, nil)
			if err != nil {
				errs <- err.Error()
				return
			}
			req.SetBasicAuth("ann", w.tokens["ann"])
			res, err := client.Do(req)
			if err != nil {
				errs <- err.Error()
				return
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			switch {
			case err != nil:
				errs <- err.Error()
			case res.StatusCode == http.StatusOK:
				served.Add(1)
			case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
				later.Add(1)
			default:
				errs <- res.Status
			}
		})
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		t.Error(e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d MiB stay in use", grown>>20)
	}
	if sys := after.Sys; sys > 1<<30 {
		t.Errorf("the process took %d MiB", sys>>20)
	}
	t.Logf("%d served, %d told to come back; heap %d MiB, from the system %d MiB", served.Load(), later.Load(), after.HeapAlloc>>20, after.Sys>>20)
	if served.Load() < many/4 {
		t.Errorf("only %d of %d were served", served.Load(), many)
	}
	w.git(t.TempDir(), "clone", "-q", w.url(p, "ann"), "x")
}

func TestConcurrentPushesAndCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := w.forge.CommitFiles(t.Context(), w.people["ann"], p, delivery.NewCommit{Branch: "main", Message: "Change", Actions: []delivery.CommitAction{{Action: "create", Path: string(rune('a' + i)), Content: []byte("x")}}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n, err := w.forge.CountCommits(t.Context(), p.ID, "main", "")
	if err != nil || n != 9 {
		t.Errorf("%d commits %v", n, err)
	}
	if e := w.events(p); len(e) != 9 {
		t.Errorf("%d events", len(e))
	}
	for i, e := range w.events(p) {
		if i > 0 && e.Before != w.events(p)[i-1].After {
			t.Error("the events are out of order")
		}
	}
}

func TestRestoreAndSearch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	commit := func(action, path, content string) string {
		t.Helper()
		c, err := w.forge.CommitFiles(t.Context(), w.people["ann"], p, delivery.NewCommit{Branch: "main", Message: "Change", Actions: []delivery.CommitAction{{Action: action, Path: path, Content: []byte(content)}}})
		if err != nil {
			t.Fatal(err)
		}
		return c.SHA
	}
	good := commit("create", "prod/image", "v1")
	bad := commit("update", "prod/image", "v2-bad")
	commit("create", "other", "stays")
	restore := func() (delivery.Commit, error) {
		return w.forge.Restore(t.Context(), w.people["ann"], p, forge.RestoreOptions{Branch: "main", Paths: []string{"prod"}, Good: good, Bad: bad, Message: "Take v2 back"})
	}
	if _, err := restore(); err != nil {
		t.Fatal(err)
	}
	if got, err := w.forge.ReadFile(t.Context(), p.ID, "main", "prod/image", 100); err != nil || string(got) != "v1" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := restore(); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("twice: %v", err)
	}
	body, kind, err := w.forge.PushHook(t.Context(), p, delivery.Pushed{Ref: "refs/heads/main", Before: good, After: "refs/heads/main"})
	if err != nil || kind != "Push Hook" || !strings.Contains(string(body), `"modified":[]`) || !strings.Contains(string(body), `"added":["other"]`) {
		t.Errorf("the whole push on one commit: %s %s %v", kind, body, err)
	}
	commit("update", "prod/image", "v3")
	if _, err := restore(); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("changed again: %v", err)
	}
	found, err := w.forge.SearchCode(t.Context(), p.ID, "main", "STAYS", "", 10)
	if err != nil || len(found) != 1 || found[0].Path != "other" || found[0].Line != 1 {
		t.Errorf("%+v %v", found, err)
	}
	if err := w.forge.Maintain(t.Context(), p.ID, true); err != nil {
		t.Error(err)
	}
	if _, err := exec.Command("git", "-C", w.forge.RepositoryPath(p.ID), "fsck", "--strict").CombinedOutput(); err != nil {
		t.Error(err)
	}
}

// TestPushOptionsCannotSpeakForGit pushes with options that hold lines of the
// talk between the hook and the platform.
func TestPushOptionsCannotSpeakForGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	w.person("eve")
	p := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	w.member(p, "eve", delivery.Developer)
	c, err := w.forge.CommitFiles(t.Context(), w.people["eve"], p, delivery.NewCommit{Branch: "topic", StartBranch: "main", Message: "Topic", Actions: []delivery.CommitAction{{Action: "create", Path: "x", Content: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	main, err := w.forge.ResolveRef(t.Context(), p.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	pack := []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00")
	sum := sha1.Sum(pack)
	for _, option := range []string{"plain", "x\nend", "x\nhook post-receive\nend", "x\nobjects /tmp", "end\n", "\nend\nhook pre-receive"} {
		body := line(main+" "+c.SHA+" refs/heads/main\x00 report-status push-options object-format=sha1") + "0000" + line(option) + "0000" + string(pack) + string(sum[:])
		status, answer := w.post("eve", "git-receive-pack", "", p, strings.NewReader(body))
		if now, err := w.forge.ResolveRef(t.Context(), p.ID, "main"); err != nil || now != main {
			t.Fatalf("the option %q moved a protected branch: %d %s", option, status, answer)
		}
		if !strings.Contains(answer, "ng refs/heads/main") && status < 400 {
			t.Errorf("the option %q: %d %q", option, status, answer)
		}
	}
}
