package forge_test

import (
	"context"
	"errors"
	"log/slog"
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
	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/forge/rest"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
	"github.com/slipwayhq/slipway/internal/store/forgedb"
)

// world is a running forge with a few people in it.
type world struct {
	t      testing.TB
	dir    string
	db     *store.DB
	access *access.Service
	forge  *forge.Service
	server *httptest.Server
	router *api.Router
	jobs   *fakeJobs
	root   delivery.Identity
	people map[string]delivery.Identity
	tokens map[string]string
}

type fakeJobs struct {
	mu     sync.Mutex
	claims map[string]delivery.JobClaim
}

func (f *fakeJobs) JobByToken(_ context.Context, token string) (delivery.JobClaim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.claims[token]
	if !ok {
		return c, delivery.Errorf(delivery.NotFound, "no such job")
	}
	return c, nil
}

func newWorld(t testing.TB, change ...func(*forge.Options)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), jobs: &fakeJobs{claims: map[string]delivery.JobClaim{}}, people: map[string]delivery.Identity{}, tokens: map[string]string{}}
	w.open(change...)
	ctx := context.Background()
	if _, err := w.access.EnsureAdministrator(ctx); err != nil {
		t.Fatal(err)
	}
	u, err := w.access.UserByName(ctx, "root")
	if err != nil {
		t.Fatal(err)
	}
	w.root = delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: "root"}
	w.people["root"] = w.root
	w.tokens["root"] = w.token("root", "api")
	return w
}

func (w *world) open(change ...func(*forge.Options)) {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("FORGE_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	db, err := store.Open(context.Background(), filepath.Join(w.dir, "db", "slipway.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		w.t.Fatal(err)
	}
	w.access = access.New(access.Options{Store: accessdb.New(db, box), JobTokens: w.jobs, Log: log})
	mux := http.NewServeMux()
	w.server = httptest.NewServer(mux)
	o := forge.Options{Store: forgedb.New(db, box), Access: w.access, Root: filepath.Join(w.dir, "repositories"), RunDir: filepath.Join(w.dir, "run"),
		ExternalURL: w.server.URL, SSHPort: 2222, Log: log, LocalRequests: true}
	for _, c := range change {
		c(&o)
	}
	w.forge, err = forge.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.forge.Recover(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	router := api.NewRouter(w.access, w.access, log)
	rest.Register(router, w.forge, w.access, "test")
	w.access.RegisterAPI(router, w.server.URL)
	w.router = router
	git := w.forge.GitHandler()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case forge.IsGit(r):
			git.ServeHTTP(rw, r)
		default:
			router.ServeHTTP(rw, r)
		}
	})
	w.t.Cleanup(w.close)
}

func (w *world) close() {
	w.server.Close()
	w.forge.Close()
	w.db.Close()
}

// person makes a user with an API token.
func (w *world) person(name string) delivery.Identity {
	w.t.Helper()
	u, err := w.access.CreateUser(context.Background(), w.root, access.NewUser{Username: name, Email: name + "@example.com"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.people[name] = delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: name}
	w.tokens[name] = w.token(name, "api")
	return w.people[name]
}

func (w *world) token(name string, scopes ...string) string {
	w.t.Helper()
	_, secret, err := w.access.CreatePersonalToken(context.Background(), w.root, w.people[name].User.ID, access.NewToken{Name: "test", Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

func (w *world) group(who, path string) delivery.Group {
	w.t.Helper()
	g, err := w.access.CreateGroup(context.Background(), w.people[who], access.NewGroup{Path: path})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) project(who, namespace, path string, change ...func(*forge.NewProject)) delivery.Project {
	w.t.Helper()
	n := forge.NewProject{NamespacePath: namespace, Path: path}
	for _, c := range change {
		c(&n)
	}
	p, err := w.forge.CreateProject(context.Background(), w.people[who], n)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) member(p delivery.Project, name string, role delivery.Role) {
	w.t.Helper()
	_, err := w.access.SetMember(context.Background(), w.root, delivery.Owner, access.Member{User: *w.people[name].User, Role: role, ProjectID: p.ID})
	if err != nil {
		w.t.Fatal(err)
	}
}

// url is the address of a project for git, with the person's token.
func (w *world) url(p delivery.Project, name string) string {
	return strings.Replace(w.server.URL, "http://", "http://"+name+":"+w.tokens[name]+"@", 1) + "/" + p.FullPath + ".git"
}

// git runs git as a person would, and fails the test if it fails.
func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	out, err := w.tryGit(dir, args...)
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) tryGit(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.com"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// clone makes a working copy with one commit on main, not pushed yet.
func (w *world) workingCopy(p delivery.Project, name string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	w.git(dir, "init", "-q", "-b", "main")
	w.git(dir, "remote", "add", "origin", w.url(p, name))
	w.commit(dir, "README.md", "# hello\n", "First")
	return dir
}

func (w *world) commit(dir, file, content, message string) string {
	w.t.Helper()
	full := filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.git(dir, "add", "-A")
	w.git(dir, "commit", "-q", "-m", message)
	return strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))
}

// events returns the pushed events stored so far.
func (w *world) events(p delivery.Project) []delivery.Pushed {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var out []delivery.Pushed
	stop := errors.New("stop")
	// A marker tells where the stream ends.
	name := "test-" + w.t.Name() + time.Now().String()
	if err := w.db.Write(ctx, func(t *store.Tx) error { return t.Emit("test_marker", 0, name) }); err != nil {
		w.t.Fatal(err)
	}
	sub, done := context.WithCancel(ctx)
	err := w.db.Consume(sub, name, nil, func(_ context.Context, e delivery.Event) error {
		var marker string
		if e.Kind == "test_marker" && e.Decode(&marker) == nil && marker == name {
			done()
			return stop
		}
		if e.Kind == delivery.EventPushed && e.ProjectID == p.ID {
			var v delivery.Pushed
			if err := e.Decode(&v); err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	done()
	if ctx.Err() != nil {
		w.t.Fatal(err)
	}
	return out
}
