package web_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	forgerest "github.com/slipwayhq/slipway/internal/forge/rest"
	pipelinerest "github.com/slipwayhq/slipway/internal/pipeline/rest"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/store/registrydb"
	"github.com/slipwayhq/slipway/internal/store/releasedb"
	"github.com/slipwayhq/slipway/internal/store/scandb"
	"github.com/slipwayhq/slipway/internal/web"
)

// classes is the file that says of every route who may use it. A route that is
// not in it fails the test: whoever adds one decides.
const classes = "testdata/routes.txt"

// visitor is one kind of caller. Those without a role may not know of the
// private project and group.
type visitor struct {
	name   string
	cookie string // a browser
	header string // and value: a program
	value  string
	role   delivery.Role
}

// anyRoute is a registered route with its class.
type anyRoute struct {
	area, pattern, class string
}

func (r anyRoute) String() string { return r.area + "\t" + r.pattern + "\t" + r.class }

// walk is the platform's whole listener with a private project and group.
type walk struct {
	*site
	project delivery.Project
	group   delivery.Group
	router  *api.Router
}

// newWalk serves what the platform serves: pages, REST, git, LFS, registry.
func newWalk(t *testing.T) *walk {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // thousands of requests
	s := openSite(t, ctx, cancel, func(d *web.Deps) { d.ExternalURL = "http://slipway.test" })
	w := &walk{site: s}
	log := slog.New(slog.DiscardHandler)
	w.router = api.NewRouter(s.access, s.access, log)
	s.access.RegisterAPI(w.router, s.server.URL)
	forgerest.Register(w.router, s.forge, s.access, "test")
	pipelinerest.Register(w.router, s.engine, s.access)
	reg, err := registry.New(registry.Config{Dir: t.TempDir(), Index: registrydb.New(s.db), Accounts: registryAccounts{s}, Projects: s.access, Log: log, MinFree: 1, Upstreams: []registry.Upstream{}})
	s.must(err)
	t.Cleanup(func() { reg.Close() })
	reg.Routes(w.router, "slipway.test")
	scans, err := scan.New(scan.Config{Program: "/bin/false", Dir: t.TempDir(), Store: scandb.New(s.db), Images: reg, Log: log})
	s.must(err)
	scans.Routes(w.router, nil)
	release.New(release.Options{Store: releasedb.New(s.db), Log: log}).Register(w.router, forge.CanRead)
	s.mux.Handle("/api/v4/", w.router)
	s.mux.Handle("/v2/", reg.Handler())
	s.mux.Handle("/jwt/auth", reg.TokenHandler())
	git := s.forge.GitHandler()
	s.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if forge.IsGit(r) {
			git.ServeHTTP(rw, r)
			return
		}
		s.mux.ServeHTTP(rw, r)
	})
	return w
}

type registryAccounts struct{ s *site }

func (a registryAccounts) SignIn(ctx context.Context, username, secret string) (delivery.Identity, error) {
	return a.s.access.AuthenticateBasic(ctx, username, secret, "127.0.0.1")
}

// registered lists every route of the listener.
func (w *walk) registered() []anyRoute {
	var out []anyRoute
	for _, p := range w.pages.Patterns() {
		out = append(out, anyRoute{area: p.Area, pattern: p.Pattern})
	}
	for _, p := range w.router.Patterns() {
		out = append(out, anyRoute{area: "api", pattern: p})
	}
	for _, p := range forge.GitRoutes() {
		out = append(out, anyRoute{area: "git", pattern: p})
	}
	for _, p := range []string{"GET /manifests/latest", "HEAD /manifests/latest", "PUT /manifests/latest", "DELETE /manifests/latest", "GET /tags/list", "POST /blobs/uploads/", "GET /blobs/sha256:" + strings.Repeat("0", 64)} {
		out = append(out, anyRoute{area: "registry", pattern: p})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].area+out[i].pattern < out[j].area+out[j].pattern })
	return out
}

// classified reads the file of classes.
func (w *walk) classified() map[string]string {
	f, err := os.Open(classes)
	w.must(err)
	defer f.Close()
	out := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text := lines.Text(); text != "" && !strings.HasPrefix(text, "#") {
			parts := strings.Split(text, "\t")
			if len(parts) != 3 {
				w.t.Fatalf("%s: a line is not area, pattern and class: %q", classes, text)
			}
			out[parts[0]+"\t"+parts[1]] = parts[2]
		}
	}
	return out
}

// address fills the names of a pattern. Numbers that are not there are 999, so
// that what a route would change does not exist.
func (w *walk) address(r anyRoute, project, projectID, group, groupID string) (method, path string) {
	method, path, ok := strings.Cut(r.pattern, " ")
	if !ok {
		method, path = http.MethodGet, r.pattern
	}
	path = strings.TrimSuffix(path, "{$}")
	if strings.Contains(path, "/pipelines/{id}") || strings.Contains(path, "/jobs/{id}") {
		path = strings.Replace(path, "{id}", "1", 1)
	}
	values := map[string]string{"project": projectID, "group": groupID, "branch": "spare", "tag": "v1", "path...": "main/README.md", "archive": "archive.tar.gz", "iid": "1", "sha": "main", "range...": "main...spare",
		"name": "main", "tab": "jobs", "user": "999", "trigger": "push_events", "namespace": "root", "kind": "branch", "action": "retry", "lock": "999", "oid": strings.Repeat("a", 64), "size": "5", "environment": "production", "file": "x", "key": "999"}
	if r.area == "api" && strings.Contains(path, "{path}") {
		values["path"] = "README.md"
	}
	for strings.Contains(path, "{") {
		name := path[strings.Index(path, "{")+1 : strings.Index(path, "}")]
		value, ok := values[name]
		if !ok {
			value = "999"
		}
		path = strings.Replace(path, "{"+name+"}", value, 1)
	}
	switch r.area {
	case "api":
		path = "/api/v4" + path
	case "project":
		if path = "/" + project + "/-" + path; strings.HasSuffix(path, "/-/") {
			path = "/" + project
		}
	case "group":
		path = "/groups/" + group + "/-" + path
	case "git":
		path = "/" + project + ".git" + path
	case "registry":
		path = "/v2/" + project + path
	}
	return method, path
}

// ask sends a request and returns the answer, in which the project's and the
// group's names are made the same.
func (w *walk) ask(v visitor, r anyRoute, method, path string) (int, string) {
	w.t.Helper()
	var body io.Reader
	media := "application/json"
	if method != http.MethodGet && method != http.MethodHead {
		body = strings.NewReader("{}")
		if r.area == "project" || r.area == "group" || r.area == "global" {
			body, media = strings.NewReader("x=y"), "application/x-www-form-urlencoded"
		}
	}
	req, err := http.NewRequestWithContext(w.ctx, method, w.server.URL+path, body)
	w.must(err)
	if body != nil {
		req.Header.Set("Content-Type", media)
	}
	switch {
	case v.cookie != "" && (r.area == "git" || r.area == "registry"):
		req.SetBasicAuth("x", v.value) // the programs of this area send no cookies
	case v.cookie != "":
		req.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: v.cookie})
	case v.header != "" && (r.area == "git" || r.area == "registry"):
		req.SetBasicAuth("x", v.value)
	case v.header != "":
		req.Header.Set(v.header, v.value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return http.StatusInternalServerError, err.Error() // such as a handler that panicked
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil && res.StatusCode < 300 {
		w.t.Fatalf("%s %s as %s: %v", method, path, v.name, err)
	}
	text := string(raw) + res.Header.Get("Location") + res.Header.Get("WWW-Authenticate")
	for _, name := range []string{w.project.FullPath, "acme/absent", "/groups/" + w.group.FullPath, "/groups/void", "/" + strconv.FormatInt(w.project.ID, 10), "/424242", "/" + strconv.FormatInt(w.group.ID, 10)} {
		for _, slash := range []string{"/", "%2f", "%2F"} {
			text = strings.ReplaceAll(text, strings.ReplaceAll(name, "/", slash), "~")
		}
	}
	return res.StatusCode, text
}

// role reads the least role of a class.
func roleOf(class string) (delivery.Role, bool) {
	for _, r := range []delivery.Role{delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner} {
		if r.String() == class {
			return r, true
		}
	}
	return 0, false
}

// visitors makes everyone who comes.
func (w *walk) visitors() []visitor {
	out := []visitor{{name: "nobody"}}
	for _, p := range []struct {
		name string
		role delivery.Role
	}{{"stranger", 0}, {"guest", delivery.Guest}, {"reporter", delivery.Reporter}, {"developer", delivery.Developer}, {"maintainer", delivery.Maintainer}} {
		who := w.person(p.name)
		_, token, err := w.access.CreatePersonalToken(w.ctx, who, who.User.ID, access.NewToken{Name: "walk", Scopes: []string{"api"}})
		w.must(err)
		if p.role > 0 {
			_, err := w.access.SetMember(w.ctx, w.root, delivery.Owner, access.Member{User: *who.User, Role: p.role, ProjectID: w.project.ID})
			w.must(err)
			_, err = w.access.SetMember(w.ctx, w.root, delivery.Owner, access.Member{User: *who.User, Role: p.role, GroupID: w.group.ID})
			w.must(err)
		}
		out = append(out, visitor{name: p.name, cookie: w.cookies[p.name], value: token, role: p.role})
	}
	_, token, err := w.access.CreatePersonalToken(w.ctx, w.root, w.people["stranger"].User.ID, access.NewToken{Name: "x", Scopes: []string{"api"}})
	w.must(err)
	out = append(out, visitor{name: "a stranger's token", header: "PRIVATE-TOKEN", value: token})
	other := w.site.project("other/app", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n"}, map[string]delivery.Role{"stranger": delivery.Owner})
	_, token, err = w.access.CreateProjectToken(w.ctx, w.root, other, delivery.Owner, access.NewToken{Name: "x", Scopes: []string{"api"}})
	w.must(err)
	out = append(out, visitor{name: "a token of another project", header: "PRIVATE-TOKEN", value: token})
	g, _, err := w.access.VisibleGroup(w.ctx, w.root, "other")
	w.must(err)
	_, token, err = w.access.CreateGroupToken(w.ctx, w.root, g, delivery.Owner, access.NewToken{Name: "x", Scopes: []string{"api"}})
	w.must(err)
	out = append(out, visitor{name: "a token of another group", header: "PRIVATE-TOKEN", value: token})
	_, token, err = w.access.CreateDeployToken(w.ctx, w.root, other.ID, 0, access.NewToken{Name: "x", Scopes: []string{"read_repository", "read_registry", "write_registry"}})
	w.must(err)
	out = append(out, visitor{name: "a deploy token of another project", header: "DEPLOY-TOKEN", value: token})
	w.pushed(other)
	for {
		spec := w.take()
		if spec.JobInfo.ProjectID == other.ID {
			return append(out, visitor{name: "a job of another project", header: "JOB-TOKEN", value: spec.Token})
		}
	}
}

// TestEveryRouteOfEverythingWithEveryRole walks what is registered, all of it,
// as everyone. Who may not know of the project or the group gets exactly what
// one that does not exist gives; who may, but has too low a role, is refused;
// nobody gets an internal error. Each route's class is in the file.
func TestEveryRouteOfEverythingWithEveryRole(t *testing.T) {
	t.Parallel()
	w := newWalk(t)
	w.person("owner")
	w.project = w.site.project("acme/secret", map[string]string{".gitlab-ci.yml": "job:\n  script: echo\n"}, nil)
	var err error
	w.group, err = w.access.CreateGroup(w.ctx, w.root, access.NewGroup{Path: "crew"})
	w.must(err)
	_, err = w.forge.CreateTag(w.ctx, w.root, w.project, "v1", "main", "")
	w.must(err)
	_, err = w.forge.CreateBranch(w.ctx, w.root, w.project, "spare", "main")
	w.must(err)
	_, err = w.forge.CommitFiles(w.ctx, w.root, w.project, delivery.NewCommit{Branch: "topic", StartBranch: "main", Message: "Topic", Actions: []delivery.CommitAction{{Action: "create", Path: "x", Content: []byte("x")}}})
	w.must(err)
	_, err = w.forge.CreateMergeRequest(w.ctx, w.root, w.project, forge.NewMergeRequest{SourceProject: w.project, SourceBranch: "topic", Title: "T"})
	w.must(err)
	w.pushed(w.project)
	visitors := w.visitors()

	known := w.classified()
	for _, r := range w.registered() {
		key := r.area + "\t" + r.pattern
		class, ok := known[key]
		if !ok {
			t.Errorf("the route is not classified; decide who may use it and add to %s:\n%s\t%s", classes, key, w.measure(visitors, r))
			continue
		}
		delete(known, key)
		r.class = class
		w.check(visitors, r)
	}
	for key := range known {
		t.Errorf("%s has a class in %s but is not registered", key, classes)
	}
}

// scoped reports whether a route is about a project or a group.
func scoped(r anyRoute) bool {
	return r.area == "project" || r.area == "group" || r.area == "git" || r.area == "registry" || strings.Contains(r.pattern, "{project}") || strings.Contains(r.pattern, "{group}")
}

func (w *walk) check(visitors []visitor, r anyRoute) {
	w.t.Helper()
	method, path := w.address(r, w.project.FullPath, strconv.FormatInt(w.project.ID, 10), w.group.FullPath, strconv.FormatInt(w.group.ID, 10))
	_, absent := w.address(r, "acme/absent", "424242", "void", "424242")
	class, own := strings.CutSuffix(r.class, "+")   // the route itself goes on to refuse some
	class, shallow := strings.CutSuffix(class, "*") // who may would need an engine that is not here
	least, byRole := roleOf(class)
	for _, v := range visitors {
		if shallow && (v.role >= least && v.role > 0 || !byRole) || class == "session" && v.name != "nobody" {
			continue
		}
		status, body := w.ask(v, r, method, path)
		if status >= 500 && status != http.StatusNotImplemented && status != http.StatusServiceUnavailable {
			w.t.Errorf("%s as %s: %d %.300s", r, v.name, status, body)
		}
		refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusNotFound || status == http.StatusSeeOther && strings.Contains(body, "/users/sign_in")
		switch {
		case scoped(r) && v.role == 0:
			again, same := w.ask(v, r, method, absent)
			if status != again || body != same || status < 300 {
				w.t.Errorf("%s as %s is told from one that does not exist: %d %.300s; %d %.300s", r, v.name, status, body, again, same)
			}
		case scoped(r) && !byRole:
			w.t.Errorf("%s: the class of a route of a project or group is a role", r)
		case scoped(r) && v.role < least && !refused:
			w.t.Errorf("%s as %s: %d %.300s; it needs %s", r, v.name, status, body, least)
		case scoped(r) && v.role >= least && !own && (status == http.StatusUnauthorized || status == http.StatusForbidden):
			w.t.Errorf("%s as %s: %d %.300s; %s is enough", r, v.name, status, body, least)
		case scoped(r):
		case class == "signed" && v.name == "nobody" && !refused, class == "admin" && !refused:
			w.t.Errorf("%s as %s: %d %.300s; it is for %s", r, v.name, status, body, class)
		case class != "signed" && class != "admin" && class != "anyone" && class != "session":
			w.t.Errorf("%s: the class is anyone, signed, admin or session", r)
		}
	}
}

// measure proposes a class for a new route: what it does at present.
func (w *walk) measure(visitors []visitor, r anyRoute) string {
	method, path := w.address(r, w.project.FullPath, strconv.FormatInt(w.project.ID, 10), w.group.FullPath, strconv.FormatInt(w.group.ID, 10))
	if !scoped(r) {
		class := "admin"
		for _, v := range visitors {
			status, body := w.ask(v, r, method, path)
			if status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusNotFound || strings.Contains(body, "/users/sign_in?") && status == http.StatusSeeOther {
				continue
			}
			if v.name == "nobody" {
				return "anyone"
			}
			class = "signed"
		}
		return class
	}
	class, last := "owner", 0
	for i := len(visitors) - 1; i >= 0; i-- {
		v := visitors[i]
		if v.role == 0 {
			continue
		}
		status, _ := w.ask(v, r, method, path)
		if status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusNotFound && last != 0 && last != http.StatusNotFound {
			break
		}
		class, last = v.role.String(), status
	}
	return class
}
