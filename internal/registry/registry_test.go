package registry_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	container "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sirupsen/logrus"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/registrydb"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	m.Run()
}

// people is the accounts and projects of the tests: the user "own" is owner,
// "main" maintainer, "dev" developer and "rep" reporter of every project, "nobody" is a member of none, "admin" an
// administrator; each has its name as password. A job token is "job-<project
// id>". Projects are created by name.
type people struct {
	mu       sync.Mutex
	projects map[string]delivery.Project
}

func (p *people) add(path string, visibility delivery.Visibility) delivery.Project {
	p.mu.Lock()
	defer p.mu.Unlock()
	project := delivery.Project{ID: int64(len(p.projects) + 1), FullPath: path, Visibility: visibility}
	p.projects[path] = project
	return project
}

var users = map[string]*delivery.User{
	"dev": {ID: 1, Username: "dev"}, "rep": {ID: 2, Username: "rep"}, "nobody": {ID: 3, Username: "nobody"}, "admin": {ID: 4, Username: "admin", Admin: true},
	"main": {ID: 5, Username: "main"}, "own": {ID: 6, Username: "own"},
}

func (p *people) SignIn(_ context.Context, username, secret string) (delivery.Identity, error) {
	if username == "gitlab-ci-token" {
		id, job := int64(0), int64(77)
		if n, _ := fmt.Sscanf(secret, "job-%d-%d", &id, &job); n > 0 {
			return delivery.Identity{Kind: delivery.JobToken, User: users["dev"], Name: username, ProjectID: id, JobID: job, Scopes: []string{delivery.ScopeJob}}, nil
		}
	}
	if u := users[username]; u != nil && secret == username {
		return delivery.Identity{Kind: delivery.SessionUser, User: u, Name: username}, nil
	}
	return delivery.Identity{}, delivery.Errorf(delivery.Unauthenticated, "The username or password is wrong.")
}

func (p *people) VisibleProject(_ context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, project := range p.projects {
		if !strings.EqualFold(path, ref) && ref != strconv.FormatInt(project.ID, 10) {
			continue
		}
		role := delivery.NoAccess
		switch {
		case who.Kind == delivery.SystemActor || who.User != nil && who.User.Admin:
			role = delivery.Owner
		case who.User != nil && who.User.Username == "own":
			role = delivery.Owner
		case who.User != nil && who.User.Username == "main":
			role = delivery.Maintainer
		case who.User != nil && who.User.Username == "dev":
			role = delivery.Developer
		case who.User != nil && who.User.Username == "rep":
			role = delivery.Reporter
		}
		if role == delivery.NoAccess && project.Visibility != delivery.Public && (project.Visibility != delivery.Internal || who.User == nil) {
			break
		}
		return project, role, nil
	}
	return delivery.Project{}, 0, delivery.Errorf(delivery.NotFound, "Project Not Found")
}

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type fixture struct {
	*registry.Registry
	t      *testing.T
	db     *store.DB
	people *people
	clock  *clock
	server *httptest.Server
	host   string
}

func start(t *testing.T, change func(*registry.Config)) *fixture {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fixture{t: t, db: db, people: &people{projects: map[string]delivery.Project{}}, clock: &clock{at: time.Now()}}
	cfg := registry.Config{
		Dir: t.TempDir(), Index: registrydb.New(db), Accounts: f.people, Projects: f.people, Now: f.clock.now,
		Log: slog.New(slog.DiscardHandler), MinFree: 1, Upstreams: []registry.Upstream{},
	}
	if change != nil {
		change(&cfg)
	}
	f.Registry, err = registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Registry.Close() })
	mux := http.NewServeMux()
	mux.Handle("/v2/", f.Handler())
	mux.Handle("/jwt/auth", f.TokenHandler())
	f.server = httptest.NewServer(mux)
	t.Cleanup(f.server.Close)
	f.host = strings.TrimPrefix(f.server.URL, "http://")
	return f
}

func (f *fixture) ref(s string) name.Reference {
	f.t.Helper()
	ref, err := name.ParseReference(f.host+"/"+s, name.Insecure)
	if err != nil {
		f.t.Fatal(err)
	}
	return ref
}

func as(user string) remote.Option {
	return remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: user, Password: user}))
}

func asJob(project int64) remote.Option {
	return remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "gitlab-ci-token", Password: fmt.Sprintf("job-%d", project)}))
}

func image(t *testing.T, layers int64) container.Image {
	t.Helper()
	img, err := random.Image(1024, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, img interface {
	Digest() (container.Hash, error)
}) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func (f *fixture) push(ref string, img container.Image, who remote.Option) {
	f.t.Helper()
	if err := remote.Write(f.ref(ref), img, who); err != nil {
		f.t.Fatalf("push %s: %v", ref, err)
	}
}

// events returns the image events so far.
func (f *fixture) events() []delivery.ImagePushed {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	var out []delivery.ImagePushed
	var last int64
	err := f.db.Read(ctx, func(t *store.Tx) error {
		return t.QueryRow(`SELECT COALESCE(MAX(id), 0) FROM events`).Scan(&last)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if last == 0 {
		return nil
	}
	stop, end := context.WithCancel(ctx)
	defer end()
	f.db.Consume(stop, f.t.Name()+fmt.Sprint(time.Now().UnixNano()), nil, func(_ context.Context, e delivery.Event) error {
		var p delivery.ImagePushed
		if err := e.Decode(&p); err != nil {
			f.t.Error(err)
		}
		out = append(out, p)
		if e.ID == last {
			end()
		}
		return nil
	})
	return out
}

func TestPushAndPull(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	project := f.people.add("Group/App", delivery.Private)
	img := image(t, 3)
	f.push("group/app:v1", img, asJob(project.ID))
	f.push("group/app/worker/deep:v1", img, as("dev"))

	got, err := remote.Image(f.ref("group/app:v1"), as("rep"))
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(t, got) != digestOf(t, img) {
		t.Error("another image came back")
	}
	repos, err := f.Repositories(t.Context(), project.ID)
	if err != nil || len(repos) != 2 || repos[0].Path != "group/app" || repos[0].Tags != 1 {
		t.Fatalf("repositories: %+v, %v", repos, err)
	}
	known, err := f.Image(t.Context(), "group/app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	var want int64
	layers, _ := img.Layers()
	for _, l := range layers {
		n, _ := l.Size()
		want += n
	}
	config, _ := img.RawConfigFile()
	want += int64(len(config))
	if len(known.Layers()) != 3 || known.Size != want || known.JobID != 77 || known.UserID != 1 || strings.Join(known.Tags, " ") != "v1" {
		t.Errorf("image: %+v, want size %d", known, want)
	}
	if made, err := f.ImagesByJobs(t.Context(), []int64{5, 77}); err != nil || len(made) != 1 || made[0].Digest != known.Digest || made[0].Repository != "group/app" {
		t.Errorf("images of the job: %+v, %v", made, err)
	}
	// Another pipeline's job makes the same image: both made it.
	again := authn.FromConfig(authn.AuthConfig{Username: "gitlab-ci-token", Password: fmt.Sprintf("job-%d-78", project.ID)})
	if err := remote.Put(f.ref("group/app:v1"), img, remote.WithAuth(again)); err != nil {
		t.Fatal(err)
	}
	for _, job := range []int64{77, 78} {
		if made, err := f.ImagesByJobs(t.Context(), []int64{job}); err != nil || len(made) != 1 || made[0].Digest != known.Digest {
			t.Errorf("images of job %d: %+v, %v", job, made, err)
		}
	}
	if size, err := f.ProjectSize(t.Context(), project.ID); err != nil || size != want {
		t.Errorf("the project has %d bytes, want %d once for both repositories (%v)", size, want, err)
	}
	events := f.events()
	if len(events) != 3 || events[2].JobID != 78 || events[0].Repository != "group/app" || events[0].Tag != "v1" || events[0].Size != want || events[0].JobID != 77 || events[0].Digest != known.Digest {
		t.Errorf("events: %+v", events)
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	private := f.people.add("g/private", delivery.Private)
	internal := f.people.add("g/internal", delivery.Internal)
	public := f.people.add("g/public", delivery.Public)
	img := image(t, 1)
	for _, p := range []delivery.Project{private, internal, public} {
		f.push(p.FullPath+":v1", img, as("dev"))
	}
	wrong := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "dev", Password: "wrong"}))
	user, secret := f.NodeCredential()
	node := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: user, Password: secret}))
	anonymous := remote.WithAuth(authn.Anonymous)
	for _, c := range []struct {
		who        string
		as         remote.Option
		path       string
		pull, push bool
	}{
		{"developer", as("dev"), "g/private", true, true},
		{"reporter", as("rep"), "g/private", true, false},
		{"stranger", as("nobody"), "g/private", false, false},
		{"stranger", as("nobody"), "g/internal", true, false},
		{"stranger", as("nobody"), "g/public", true, false},
		{"anonymous", anonymous, "g/private", false, false},
		{"anonymous", anonymous, "g/internal", false, false},
		{"anonymous", anonymous, "g/public", true, false},
		{"wrong password", wrong, "g/public", false, false},
		{"own job", asJob(private.ID), "g/private", true, true},
		{"another job", asJob(public.ID), "g/private", true, false}, // its user may read
		{"node", node, "g/private", true, false},
		{"nobody's path", as("dev"), "g/none", false, false},
		{"admin", as("admin"), "g/private", true, true},
	} {
		t.Run(c.who+" "+c.path, func(t *testing.T) {
			_, err := remote.Head(f.ref(c.path+":v1"), c.as)
			if (err == nil) != c.pull {
				t.Errorf("pull: %v", err)
			}
			err = remote.Write(f.ref(c.path+":new"), img, c.as)
			if (err == nil) != c.push {
				t.Errorf("push: %v", err)
			}
			if err == nil {
				if err := remote.Delete(f.ref(c.path+":new"), c.as); err != nil {
					t.Errorf("delete: %v", err)
				}
			} else if err := remote.Delete(f.ref(c.path+":v1"), c.as); err == nil {
				t.Error("it could delete")
			}
		})
	}
}

// breaking is an Index whose RecordPush fails while on is set.
type breaking struct {
	registry.Index
	on atomic.Bool
}

func (b *breaking) RecordPush(ctx context.Context, image registry.Image, tag string, at time.Time) error {
	if b.on.Load() {
		return &delivery.Error{Kind: delivery.Unavailable, Message: "The database is away."}
	}
	return b.Index.RecordPush(ctx, image, tag, at)
}

func TestQuota(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *registry.Config) { c.ProjectQuota = 5000 })
	f.people.add("g/app", delivery.Private)
	f.people.add("g/free", delivery.Private)
	img := image(t, 3) // 3 layers of about 1.1 kB
	f.push("g/app:v1", img, as("dev"))
	f.push("g/app:same", img, as("dev")) // takes nothing more
	err := remote.Write(f.ref("g/app:v2"), image(t, 3), as("dev"))
	if err == nil || !strings.Contains(err.Error(), "may keep 5.0 kB of images") {
		t.Errorf("over quota: %v", err)
	}
	f.push("g/free:v1", image(t, 3), as("dev"))
}

func TestFullDiskRefusesPushes(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *registry.Config) { c.MinFree = 1 << 60 })
	f.people.add("g/app", delivery.Private)
	err := remote.Write(f.ref("g/app:v1"), image(t, 1), as("dev"))
	if err == nil || !strings.Contains(err.Error(), "disk is nearly full") {
		t.Errorf("push: %v", err)
	}
}
