package forge_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// background runs the forge's background work until the test ends.
func (w *world) background() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.forge.Run(ctx) // ends with ctx's error
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, fn func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !fn() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestJobTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	app := w.project("ann", "", "app", func(n *forge.NewProject) { n.Readme = true })
	gitops := w.project("ann", "", "gitops", func(n *forge.NewProject) { n.Readme = true })
	w.jobs.claims["glcbt-1"] = delivery.JobClaim{JobID: 77, ProjectID: app.ID, UserID: w.people["ann"].User.ID}
	w.tokens[access.JobTokenUser] = "glcbt-1"
	dir := t.TempDir()
	w.git(dir, "clone", "-q", w.url(app, access.JobTokenUser), "app")
	if out, err := w.tryGit(dir, "clone", w.url(gitops, access.JobTokenUser), "gitops"); err == nil {
		t.Errorf("a job read a project that does not list its own: %s", out)
	}
	if err := w.access.SetAllowance(t.Context(), w.root, gitops.ID, app.ID, false); err != nil {
		t.Fatal(err)
	}
	w.git(dir, "clone", "-q", w.url(gitops, access.JobTokenUser), "gitops")
	w.commit(dir+"/gitops", "image.txt", "v2", "Deploy")
	out, err := w.tryGit(dir+"/gitops", "push", "origin", "HEAD:main")
	if err == nil || !strings.Contains(out, "does not let the job's token push") {
		t.Errorf("a job pushed: %s", out)
	}
	if err := w.access.SetAllowance(t.Context(), w.root, gitops.ID, app.ID, true); err != nil {
		t.Fatal(err)
	}
	w.git(dir+"/gitops", "push", "-q", "origin", "HEAD:main")
	events := w.events(gitops)
	if last := events[len(events)-1]; last.ByJob != 77 || last.UserID != w.people["ann"].User.ID {
		t.Errorf("%+v", last)
	}
	if out, err := w.tryGit(dir+"/app", "push", "origin", "HEAD:refs/heads/x"); err == nil {
		t.Errorf("a job pushed to its own project: %s", out)
	}
	delete(w.jobs.claims, "glcbt-1")
	if out, err := w.tryGit(dir+"/app", "fetch", "origin"); err == nil {
		t.Errorf("the token of an ended job works: %s", out)
	}
}

// receiver is a server that records webhooks.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*http.Request
	body []map[string]any
	fail int // answer 500 so often
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		var body map[string]any
		if json.Unmarshal(raw, &body) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.fail > 0 {
			r.fail--
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		r.got, r.body = append(r.got, req), append(r.body, body)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) find(kind string) (*http.Request, map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, b := range r.body {
		if b["object_kind"] == kind {
			return r.got[i], b
		}
	}
	return nil, nil
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.background()
	r := newReceiver(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	c := w.client("ann")
	hook := must[*gitlab.ProjectHook](t)(c.Projects.AddProjectHook(p.ID, &gitlab.AddProjectHookOptions{URL: gitlab.Ptr(r.URL + "/hook"), Token: gitlab.Ptr("secret"), PushEvents: gitlab.Ptr(true), TagPushEvents: gitlab.Ptr(true), MergeRequestsEvents: gitlab.Ptr(true), NoteEvents: gitlab.Ptr(true)}))
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main")
	eventually(t, "push hook", func() bool { _, b := r.find("push"); return b != nil })
	req, body := r.find("push")
	if req.Header.Get("X-Gitlab-Event") != "Push Hook" || req.Header.Get("X-Gitlab-Token") != "secret" {
		t.Errorf("%v", req.Header)
	}
	project := body["project"].(map[string]any)
	if project["web_url"] != w.server.URL+"/ann/app" || project["git_http_url"] != w.server.URL+"/ann/app.git" || !strings.HasPrefix(project["git_ssh_url"].(string), "ssh://git@127.0.0.1:2222/") {
		t.Errorf("%v", project)
	}
	commits := body["commits"].([]any)
	if len(commits) != 1 || commits[0].(map[string]any)["added"].([]any)[0] != "README.md" {
		t.Errorf("%v", commits)
	}
	w.git(dir, "push", "-q", "origin", "main:topic")
	w.git(dir, "tag", "v1")
	w.git(dir, "push", "-q", "origin", "v1")
	eventually(t, "tag hook", func() bool { _, b := r.find("tag_push"); return b != nil })
	w.commit(dir, "x", "x", "Second")
	w.git(dir, "push", "-q", "origin", "main:topic")
	mr := must[*gitlab.MergeRequest](t)(c.MergeRequests.CreateMergeRequest(p.ID, &gitlab.CreateMergeRequestOptions{Title: gitlab.Ptr("T"), SourceBranch: gitlab.Ptr("topic"), TargetBranch: gitlab.Ptr("main")}))
	must[*gitlab.Note](t)(c.Notes.CreateMergeRequestNote(p.ID, mr.IID, &gitlab.CreateMergeRequestNoteOptions{Body: gitlab.Ptr("hello")}))
	eventually(t, "merge request and note hooks", func() bool {
		_, a := r.find("merge_request")
		_, b := r.find("note")
		return a != nil && b != nil
	})
	// A push moves the merge request.
	sha := w.commit(dir, "y", "y", "Third")
	w.git(dir, "push", "-q", "origin", "main:topic")
	eventually(t, "merge request moved", func() bool {
		m, err := w.forge.MergeRequest(t.Context(), p.ID, mr.IID)
		return err == nil && m.HeadSHA == sha
	})
	// And one to the target branch that has its commits merges it.
	w.git(dir, "push", "-q", "origin", "main")
	eventually(t, "merge request merged by a push", func() bool {
		m, err := w.forge.MergeRequest(t.Context(), p.ID, mr.IID)
		return err == nil && m.State == "merged"
	})
	// A failed delivery is in the log and can be sent again.
	r.mu.Lock()
	r.fail = 1
	before := len(r.got)
	r.mu.Unlock()
	if err := w.forge.TestHook(t.Context(), p, forge.Hook{ID: hook.ID, URL: hook.URL}, w.people["ann"]); err != nil {
		t.Fatal(err)
	}
	var failed forge.Delivery
	eventually(t, "failed delivery", func() bool {
		list, _, err := w.forge.Deliveries(t.Context(), hook.ID, 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			if d.Status == 500 {
				failed = d
				return true
			}
		}
		return false
	})
	if failed.NextAt.IsZero() || failed.RequestHeaders["X-Gitlab-Token"] == "secret" {
		t.Errorf("%+v", failed)
	}
	if err := w.forge.Resend(t.Context(), forge.Hook{ID: hook.ID, URL: hook.URL}, failed.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "delivery sent again", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) > before })
}

func TestWebhooksDoNotReachTheLocalNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *forge.Options) { o.LocalRequests = false })
	w.background()
	r := newReceiver(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	if _, err := w.forge.SetHook(t.Context(), w.people["ann"], forge.Hook{HookOwner: forge.HookOwner{ProjectID: p.ID}, URL: r.URL, Push: true}); err == nil {
		t.Error("a hook to the loopback address was accepted")
	}
	// A name that leads to the loopback address is found out when connecting.
	h, err := w.forge.SetHook(t.Context(), w.people["ann"], forge.Hook{HookOwner: forge.HookOwner{ProjectID: p.ID}, URL: strings.Replace(r.URL, "127.0.0.1", "localhost", 1), Push: true})
	if err != nil {
		t.Fatal(err)
	}
	w.git(w.workingCopy(p, "ann"), "push", "-q", "origin", "main")
	eventually(t, "delivery refused", func() bool {
		list, _, err := w.forge.Deliveries(t.Context(), h.ID, 10, 0)
		return err == nil && len(list) == 1 && strings.Contains(list[0].Error, "local network")
	})
	if _, err := w.forge.CreateProject(t.Context(), w.people["ann"], forge.NewProject{Path: "x", ImportURL: r.URL + "/a/b.git"}); err == nil {
		t.Error("an import from the loopback address was accepted")
	}
	// The platform's own hooks may.
	if err := w.forge.EnsureSystemHook(t.Context(), forge.Hook{Name: "own", URL: r.URL, Push: true}); err != nil {
		t.Fatal(err)
	}
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main:other")
	eventually(t, "system hook", func() bool { _, b := r.find("push"); return b != nil })
}

func TestImportAndMirrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("ann")
	source := w.project("ann", "", "source")
	dir := w.workingCopy(source, "ann")
	w.git(dir, "branch", "-m", "trunk")
	w.git(dir, "tag", "v1")
	w.git(dir, "push", "-q", "origin", "trunk", "v1")
	copied, err := w.forge.CreateProject(t.Context(), w.people["ann"], forge.NewProject{Path: "copy", ImportURL: w.url(source, "ann")})
	if err != nil {
		t.Fatal(err)
	}
	if copied.Empty || copied.DefaultBranch != "trunk" {
		t.Errorf("%+v", copied)
	}
	m, err := w.forge.SetMirror(t.Context(), w.people["ann"], forge.Mirror{ProjectID: copied.ID, URL: w.url(source, "ann"), Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(m.URL, "glpat") {
		t.Error("the mirror's address has the password in it")
	}
	sha := w.commit(dir, "more", "more", "More")
	w.git(dir, "push", "-q", "origin", "trunk", "trunk:second")
	state := func(m forge.Mirror) forge.Mirror {
		list, err := w.forge.Mirrors(t.Context(), m.ProjectID)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	w.background()
	eventually(t, "pull mirror", func() bool { return state(m).Status == "finished" })
	for _, ref := range []string{"refs/heads/trunk", "refs/heads/second"} {
		if got, _, err := w.forge.RefExists(t.Context(), copied.ID, ref); err != nil || got != sha {
			t.Errorf("%s: %s %v", ref, got, err)
		}
	}
	if e := w.events(copied); len(e) != 3 {
		t.Errorf("%+v", e)
	}
	backup := w.project("ann", "", "backup")
	push, err := w.forge.SetMirror(t.Context(), w.people["ann"], forge.Mirror{ProjectID: source.ID, Push: true, URL: w.url(backup, "ann"), Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "push mirror", func() bool { return state(push).Status == "finished" })
	if got, _, err := w.forge.RefExists(t.Context(), backup.ID, "refs/heads/trunk"); err != nil || got != sha {
		t.Errorf("push mirror: %s %v", got, err)
	}
	// A failure is recorded, and asking for it again tries again.
	pull := state(m)
	pull.URL = w.server.URL + "/ann/nothing.git"
	if pull, err = w.forge.SetMirror(t.Context(), w.people["ann"], pull); err != nil || pull.Password == "" {
		t.Fatalf("the same server keeps the credentials: %v", err)
	}
	if err := w.forge.SyncMirror(t.Context(), pull); err != nil {
		t.Fatal(err)
	}
	eventually(t, "failed mirror", func() bool { now := state(m); return now.Status == "failed" && now.LastError != "" })
	// Another server does not get the credentials of the first.
	pull.URL = strings.Replace(w.server.URL, "127.0.0.1", "localhost", 1) + "/ann/source.git"
	if _, err = w.forge.SetMirror(t.Context(), w.people["ann"], pull); err != nil {
		t.Fatal(err)
	}
	if now := state(m); now.Username != "" || now.Password != "" {
		t.Error("another server got the credentials")
	}
}

func TestLFS(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git-lfs"); err != nil {
		t.Skip("git-lfs is not installed")
	}
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	w.git(dir, "lfs", "install", "--local")
	w.git(dir, "lfs", "track", "*.bin")
	content := strings.Repeat("large ", 10000)
	w.commit(dir, "a.bin", content, "LFS")
	if out, err := w.tryGit(dir, "push", "origin", "main"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	pointer, err := w.forge.ReadFile(t.Context(), p.ID, "main", "a.bin", 1000)
	if err != nil {
		t.Fatal(err)
	}
	oid, size, isPointer := forge.LFSPointer(pointer)
	if !isPointer || size != int64(len(content)) {
		t.Fatalf("%q", pointer)
	}
	clone := t.TempDir()
	w.git(clone, "clone", "-q", w.url(p, "ann"), "x")
	w.git(clone+"/x", "lfs", "install", "--local")
	w.git(clone+"/x", "lfs", "pull")
	got, err := os.ReadFile(filepath.Join(clone, "x", "a.bin"))
	if err != nil || string(got) != content {
		t.Errorf("%d bytes came back (%v)", len(got), err)
	}
	// Who may not see the project gets nothing, and content must be what it
	// says.
	w.person("eve")
	for _, c := range []struct {
		who, method, body string
		status            int
	}{{"eve", "GET", "", 404}, {"", "GET", "", 401}, {"eve", "PUT", content, 404}, {"ann", "PUT", "other", 400}, {"ann", "GET", "", 200}} {
		path := "/ann/app.git/gitlab-lfs/objects/" + oid
		if c.method == "PUT" {
			path += "/5"
		}
		req, err := http.NewRequest(c.method, w.server.URL+path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.who != "" {
			req.SetBasicAuth(c.who, w.tokens[c.who])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%+v: %d", c, res.StatusCode)
		}
	}
}
