package web_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"

	ciTemplates "github.com/slipwayhq/slipway/gitlab-ci"
	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
	"github.com/slipwayhq/slipway/internal/store/forgedb"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
	"github.com/slipwayhq/slipway/internal/web"
)

// site is the pages on real services with a database of their own.
type site struct {
	t       testing.TB
	ctx     context.Context
	access  *access.Service
	forge   *forge.Service
	engine  *pipeline.Engine
	server  *httptest.Server
	root    delivery.Identity
	people  map[string]delivery.Identity
	cookies map[string]string
	runner  *pipelinetest.Runner
	records *forgedb.Store
	pages   *web.Server
	mux     *http.ServeMux
	db      *store.DB
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteWith(t, nil)
}

// newSiteWith changes what the pages are made of.
func newSiteWith(t testing.TB, change func(*web.Deps)) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	return openSite(t, ctx, cancel, change)
}

func openSite(t testing.TB, ctx context.Context, cancel context.CancelFunc, change func(*web.Deps)) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, ctx: ctx, people: map[string]delivery.Identity{}, cookies: map[string]string{}}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	s.must(err)
	box, err := seal.New(make([]byte, seal.KeySize))
	s.must(err)
	s.access = access.New(access.Options{Store: accessdb.New(db, box), Log: log})
	mux := http.NewServeMux()
	s.server = httptest.NewServer(mux)
	s.records = forgedb.New(db, box)
	s.forge, err = forge.New(forge.Options{Store: s.records, Access: s.access, Root: filepath.Join(dir, "repositories"), RunDir: filepath.Join(dir, "run"),
		ExternalURL: s.server.URL, SSHPort: 2222, Log: log})
	s.must(err)
	s.must(s.forge.Recover(ctx))
	ports := ciPorts{s}
	s.engine, err = pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: ports, Users: ports, Repositories: ciRepositories{ports}, Log: log,
		Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: s.server.URL,
		Templates: func(name string) ([]byte, error) { return fs.ReadFile(ciTemplates.Templates(), name) }})
	s.must(err)
	s.access.SetJobTokens(s.engine)
	s.engine.RegisterRunnerRoutes(mux)
	deps := web.Deps{Access: s.access, Forge: s.forge, Pipelines: s.engine, Metrics: sampleMetrics{}, Routes: sampleRoutes, Timeline: &sampleTimeline{}, ExternalURL: s.server.URL, Log: log}
	if change != nil {
		change(&deps)
	}
	s.pages, err = web.New(deps)
	s.must(err)
	s.mux, s.db = mux, db
	mux.Handle("/", s.pages)
	var wg sync.WaitGroup
	wg.Go(func() { s.engine.Run(ctx) })
	wg.Go(func() { _ = s.forge.Run(ctx) }) // it ends with ctx
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
		cancel()
		wg.Wait()
		s.forge.Close()
		db.Close()
	})
	_, err = s.access.EnsureAdministrator(ctx)
	s.must(err)
	u, err := s.access.UserByName(ctx, "root")
	s.must(err)
	s.root = delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: "root"}
	s.people["root"] = s.root
	_, token, err := s.engine.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, Description: "test runner", RunUntagged: true})
	s.must(err)
	s.runner = &pipelinetest.Runner{URL: s.server.URL, Token: token, System: "s_1"}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// person makes a user who can sign in.
func (s *site) person(name string) delivery.Identity {
	s.t.Helper()
	const password = "correct horse battery"
	u, err := s.access.CreateUser(s.ctx, s.root, access.NewUser{Username: name, Name: strings.ToUpper(name[:1]) + name[1:], Email: name + "@example.com", Password: password})
	s.must(err)
	s.people[name] = delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: name}
	secret, _, err := s.access.SignIn(s.ctx, name, password, "", "127.0.0.1", "test")
	s.must(err)
	s.cookies[name] = secret
	return s.people[name]
}

// project makes a project with files on main and people in it.
func (s *site) project(path string, files map[string]string, members map[string]delivery.Role) delivery.Project {
	s.t.Helper()
	group, name, _ := strings.Cut(path, "/")
	if _, _, err := s.access.VisibleGroup(s.ctx, s.root, group); delivery.IsNotFound(err) {
		_, err := s.access.CreateGroup(s.ctx, s.root, access.NewGroup{Path: group})
		s.must(err)
	}
	p, err := s.forge.CreateProject(s.ctx, s.root, forge.NewProject{NamespacePath: group, Path: name, Readme: true})
	s.must(err)
	for who, role := range members {
		_, err := s.access.SetMember(s.ctx, s.root, delivery.Owner, access.Member{User: *s.people[who].User, Role: role, ProjectID: p.ID})
		s.must(err)
	}
	if len(files) > 0 {
		s.commit(p, "Add files", files)
	}
	p, err = s.forge.Project(s.ctx, p.ID)
	s.must(err)
	return p
}

func (s *site) commit(p delivery.Project, message string, files map[string]string) {
	s.t.Helper()
	n := delivery.NewCommit{Branch: "main", Message: message}
	for name, body := range files {
		action := "create"
		if _, err := s.forge.ReadFile(s.ctx, p.ID, "main", name, 1<<20); err == nil {
			action = "update"
		}
		n.Actions = append(n.Actions, delivery.CommitAction{Action: action, Path: name, Content: []byte(body)})
	}
	_, err := s.forge.CommitFiles(s.ctx, s.root, p, n)
	s.must(err)
}

// pushed waits for the newest pipeline of main's commit.
func (s *site) pushed(p delivery.Project) pipeline.Pipeline {
	s.t.Helper()
	head, err := s.forge.ResolveRef(s.ctx, p.ID, "main")
	s.must(err)
	for {
		changed := s.engine.ProjectChanged(p.ID)
		made, err := s.engine.RefPipeline(s.ctx, p.ID, "main")
		if err == nil && made.SHA == head {
			return made
		}
		if err != nil && !delivery.IsNotFound(err) {
			s.t.Fatal(err)
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			s.t.Fatal("no pipeline was made for the push")
		}
	}
}

// take gives the next job to the runner, running.
func (s *site) take() *delivery.JobSpec {
	s.t.Helper()
	spec, err := s.runner.Request(s.ctx)
	if err != nil || spec == nil {
		s.t.Fatalf("request: %v, %v", spec, err)
	}
	if code, status, err := s.runner.Update(s.ctx, spec, "running", "", 0, nil); err != nil || code != 200 || status != "running" {
		s.t.Fatalf("accept: %d %s %v", code, status, err)
	}
	return spec
}

// end writes the job's log and ends it.
func (s *site) end(spec *delivery.JobSpec, state, log string) {
	s.t.Helper()
	reason := ""
	if state == "failed" {
		reason = pipeline.ReasonScript
	}
	if log != "" {
		if code, _, err := s.runner.Trace(s.ctx, spec, 0, []byte(log)); err != nil || code != 202 {
			s.t.Fatalf("trace: %d %v", code, err)
		}
	}
	if code, _, err := s.runner.Update(s.ctx, spec, state, reason, 0, []byte(log)); err != nil || code != 200 {
		s.t.Fatalf("end of %s: %d %v", spec.JobInfo.Name, code, err)
	}
}

// archive stores files as the artifacts of a running job.
func (s *site) archive(spec *delivery.JobSpec, files map[string]string) {
	s.t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, body := range files {
		f, err := z.Create(name)
		s.must(err)
		_, err = io.WriteString(f, body)
		s.must(err)
	}
	s.must(z.Close())
	s.upload(spec, "archive", "zip", "artifacts.zip", b.Bytes())
}

func (s *site) upload(spec *delivery.JobSpec, kind, format, name string, body []byte) {
	s.t.Helper()
	if code, err := s.runner.Upload(s.ctx, spec, kind, format, name, body); err != nil || code != 201 {
		s.t.Fatalf("upload: %d %v", code, err)
	}
}

// do sends a request as a person, "" for nobody, without following redirects.
func (s *site) do(who, method, path string, form url.Values, header ...string) *http.Response {
	s.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(s.ctx, method, s.server.URL+path, body)
	s.must(err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if who != "" {
		req.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: s.cookies[who]})
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	s.must(err)
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// page reads a page that must be there.
func (s *site) page(who, path string) *goquery.Document {
	s.t.Helper()
	resp := s.do(who, http.MethodGet, path, nil)
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	s.must(err)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s as %q: %s: %s", path, who, resp.Status, text(doc, "main p"))
	}
	return doc
}

// status is what a person gets for a request.
func (s *site) status(who, method, path string, form url.Values) int {
	s.t.Helper()
	return s.do(who, method, path, form).StatusCode
}

// post sends a form and returns where the answer leads.
func (s *site) post(who, path string, pairs ...string) string {
	s.t.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	resp := s.do(who, http.MethodPost, path, form)
	if resp.StatusCode != http.StatusSeeOther {
		doc, err := goquery.NewDocumentFromReader(resp.Body)
		s.must(err)
		s.t.Fatalf("POST %s as %s: %s: %s", path, who, resp.Status, text(doc, ".alert, main p"))
	}
	return resp.Header.Get("Location")
}

func text(doc *goquery.Document, selector string) string {
	return strings.Join(strings.Fields(doc.Find(selector).Text()), " ")
}

func (s *site) has(doc *goquery.Document, selector string, want string) {
	s.t.Helper()
	if got := text(doc, selector); !strings.Contains(got, want) {
		s.t.Errorf("%s is %q; want %q in it", selector, got, want)
	}
}

func (s *site) count(doc *goquery.Document, selector string, want int) {
	s.t.Helper()
	if got := doc.Find(selector).Length(); got != want {
		s.t.Errorf("%d of %s; want %d", got, selector, want)
	}
}

// ciPorts are the engine's views of accounts, projects and repositories.
type ciPorts struct{ s *site }

func (a ciPorts) Project(ctx context.Context, id int64) (delivery.Project, error) {
	return a.s.forge.Project(ctx, id)
}
func (a ciPorts) ProjectByPath(ctx context.Context, path string) (delivery.Project, error) {
	return a.s.access.Project(ctx, path)
}
func (a ciPorts) Ancestors(ctx context.Context, id int64) ([]delivery.Group, error) {
	p, err := a.s.forge.Project(ctx, id)
	if err != nil {
		return nil, err
	}
	g, _, err := a.s.access.VisibleGroup(ctx, a.s.root, p.Namespace.FullPath)
	if delivery.IsNotFound(err) {
		return nil, nil
	}
	return []delivery.Group{g}, err
}
func (a ciPorts) RoleIn(ctx context.Context, userID, projectID int64) (delivery.Role, error) {
	u, err := a.s.access.User(ctx, userID)
	if err != nil {
		return 0, err
	}
	return a.s.access.UserRole(ctx, u, projectID)
}
func (a ciPorts) JobRoleIn(ctx context.Context, userID, jobProjectID, projectID int64) (delivery.Role, error) {
	u, err := a.s.access.User(ctx, userID)
	if err != nil {
		return 0, err
	}
	who := delivery.Identity{Kind: delivery.JobToken, User: &u, ProjectID: jobProjectID}
	return a.s.access.RoleIn(ctx, who, delivery.Project{ID: projectID})
}
func (a ciPorts) User(ctx context.Context, id int64) (delivery.User, error) {
	return a.s.access.User(ctx, id)
}

type ciRepositories struct{ ciPorts }

func (a ciRepositories) ReadFile(ctx context.Context, id int64, revision, path string) ([]byte, error) {
	return a.s.forge.ReadFile(ctx, id, revision, path, 1<<20)
}
func (a ciRepositories) Paths(ctx context.Context, id int64, revision string) ([]string, error) {
	return a.s.forge.ListFiles(ctx, id, revision)
}
func (a ciRepositories) ChangedPaths(ctx context.Context, id int64, from, to string) ([]string, error) {
	return a.s.forge.ChangedPaths(ctx, id, from, to)
}
func (a ciRepositories) Commit(ctx context.Context, id int64, revision string) (delivery.Commit, error) {
	return a.s.forge.Commit(ctx, id, revision)
}
func (a ciRepositories) Ref(ctx context.Context, id int64, name string) (delivery.Ref, error) {
	p, err := a.s.forge.Project(ctx, id)
	if err != nil {
		return delivery.Ref{}, err
	}
	if short, ok := strings.CutPrefix(name, "refs/tags/"); ok {
		return a.s.forge.Tag(ctx, p, short)
	}
	ref, err := a.s.forge.Branch(ctx, p, strings.TrimPrefix(name, "refs/heads/"))
	if delivery.IsNotFound(err) {
		return a.s.forge.Tag(ctx, p, name)
	}
	return ref, err
}
func (a ciRepositories) Tags(ctx context.Context, id int64) ([]delivery.Ref, error) {
	p, err := a.s.forge.Project(ctx, id)
	if err != nil {
		return nil, err
	}
	return a.s.forge.Tags(ctx, p, forge.RefOptions{})
}
func (a ciRepositories) MergeBase(ctx context.Context, id int64, x, y string) (string, error) {
	return a.s.forge.MergeBase(ctx, id, x, y)
}
func (a ciRepositories) SetRef(ctx context.Context, id int64, name, sha string) error {
	if sha == "" {
		return a.s.forge.DeleteRef(ctx, id, name)
	}
	return a.s.forge.CreateRef(ctx, id, name, sha)
}
func (a ciRepositories) Protected(ctx context.Context, id int64, name string, tag bool) (bool, error) {
	if tag {
		return a.s.forge.TagProtected(ctx, id, name)
	}
	return a.s.forge.BranchProtected(ctx, id, name)
}
func (a ciRepositories) MayUpdate(ctx context.Context, userID, id int64, name string, tag bool) (bool, error) {
	u, err := a.s.access.User(ctx, userID)
	if err != nil {
		return false, err
	}
	p, err := a.s.forge.Project(ctx, id)
	if err != nil {
		return false, err
	}
	if tag {
		role, err := a.s.access.UserRole(ctx, u, id)
		return role >= delivery.Developer, err
	}
	ok, _, err := a.s.forge.CanPush(ctx, delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}, p, name)
	return ok, err
}

// junit is a report with one test of each outcome.
const junit = `<testsuite name="unit"><testcase classname="shop.cart" name="adds" time="0.12"/><testcase classname="shop.cart" name="removes" time="0.31"><failure message="expected 1">AssertionError: expected 1, got 2
  at cart.py:14</failure></testcase><testcase classname="shop.cart" name="later"><skipped/></testcase></testsuite>`

// sampleLog is what a runner writes: sections, colours, progress.
func sampleLog() string {
	var b strings.Builder
	b.WriteString("section_start:1700000000:prepare_executor\r\x1b[0K\x1b[0;m\x1b[36;1mPreparing the executor\x1b[0;m\r\n")
	b.WriteString("Using the image debian:bookworm-slim\r\n")
	b.WriteString("section_end:1700000003:prepare_executor\r\x1b[0Ksection_start:1700000003:step_script\r\x1b[0K\x1b[0;m\x1b[36;1mExecuting \"step_script\"\x1b[0;m\r\n")
	b.WriteString("\x1b[32;1m$ make test\x1b[0;m\r\nprogress 10%\rprogress 100%\n")
	for i := range 60 {
		fmt.Fprintf(&b, "test %d \x1b[32mok\x1b[0m <b>&\n", i)
	}
	b.WriteString("\x1b[31mone failed\x1b[0m\nsection_end:1700000065:step_script\r\x1b[0K\n\x1b[32;1mJob succeeded\x1b[0;m\n")
	return b.String()
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// oldMirror stores a mirror to an address that would be refused today.
func (s *site) oldMirror(p delivery.Project, address string) {
	s.t.Helper()
	_, err := s.records.SetMirror(s.ctx, forge.Mirror{ProjectID: p.ID, URL: address, Enabled: true, Interval: time.Hour, NextAt: time.Now(), Status: "none"})
	s.must(err)
}

// makeAdmin lets a person administrate.
func (s *site) makeAdmin(name string) {
	s.t.Helper()
	yes := true
	u, err := s.access.UpdateUser(s.ctx, s.root, s.people[name].User.ID, access.UserChange{Admin: &yes})
	s.must(err)
	s.people[name] = delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: name}
}
