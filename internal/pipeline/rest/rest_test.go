package rest_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/command/project"
	commandrest "github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/pipeline/rest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

// callers authenticates by the value of PRIVATE-TOKEN: root, dev or reporter.
type callers struct{ forge *pipelinetest.Forge }

func (c callers) Authenticate(r *http.Request) (delivery.Identity, error) {
	ids := map[string]int64{"root": 1, "dev": 2, "reporter": 3}
	id := ids[r.Header.Get("PRIVATE-TOKEN")]
	if id == 0 {
		return delivery.Identity{}, nil
	}
	u, err := c.forge.User(r.Context(), id)
	return delivery.Identity{Kind: delivery.PersonalToken, User: &u, Scopes: []string{"api"}}, err
}

func (c callers) VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	if who.User == nil || ref != "7" && ref != "group/app" {
		return delivery.Project{}, 0, &delivery.Error{Kind: delivery.NotFound, Message: "Project Not Found"}
	}
	p, err := c.forge.Project(ctx, 7)
	if err != nil {
		return p, 0, err
	}
	role, err := c.forge.RoleIn(ctx, who.User.ID, 7)
	return p, role, err
}

func (c callers) VisibleGroup(ctx context.Context, who delivery.Identity, ref string) (delivery.Group, delivery.Role, error) {
	if who.User == nil || ref != "100" && ref != "group" {
		return delivery.Group{}, 0, &delivery.Error{Kind: delivery.NotFound, Message: "Group Not Found"}
	}
	role, err := c.forge.RoleIn(ctx, who.User.ID, 7)
	return delivery.Group{ID: 100, Path: "group", FullPath: "group", Name: "group"}, role, err
}

type site struct {
	t      *testing.T
	ctx    context.Context
	forge  *pipelinetest.Forge
	engine *pipeline.Engine
	url    string
	runner *pipelinetest.Runner
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	dir := t.TempDir()
	forge := pipelinetest.NewForge()
	forge.AddProject(7, "group/app")
	forge.AddUser(delivery.User{ID: 2, Username: "dev"}, 7, delivery.Developer)
	forge.AddUser(delivery.User{ID: 3, Username: "reporter"}, 7, delivery.Reporter)
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	e, err := pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: forge, Users: forge, Repositories: pipelinetest.Repositories{Forge: forge},
		MergeRequests: forge, Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	rt := api.NewRouter(callers{forge}, callers{forge}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	rest.Register(rt, e, callers{forge})
	e.RegisterRunnerRoutes(mux)
	mux.Handle("/api/v4/", rt)
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		srv.CloseClientConnections()
		srv.Close()
		db.Close()
	})
	return &site{t: t, ctx: ctx, forge: forge, engine: e, url: srv.URL, runner: &pipelinetest.Runner{URL: srv.URL, System: "s_1"}}
}

func (s *site) client(token string) *gitlab.Client {
	s.t.Helper()
	c, err := gitlab.NewClient(token, gitlab.WithBaseURL(s.url), gitlab.WithCustomRetryMax(0))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *site) take() *delivery.JobSpec {
	s.t.Helper()
	spec, err := s.runner.Request(s.ctx)
	if err != nil || spec == nil {
		s.t.Fatal(spec, err)
	}
	if code, _, err := s.runner.Update(s.ctx, spec, "running", "", 0, nil); code != 200 || err != nil {
		s.t.Fatal(code, err)
	}
	return spec
}

const config = `
build:
  stage: build
  script: make
  artifacts: {paths: [out]}
manual:
  stage: test
  script: make
  when: manual
`

func TestPipelinesAndJobsThroughGitLabsClient(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := s.client("root")
	sha, _ := s.forge.Commit(7, "main", "first", map[string]string{".gitlab-ci.yml": config})
	made, _, err := root.Users.CreateUserRunner(&gitlab.CreateUserRunnerOptions{RunnerType: gitlab.Ptr("instance_type"), Description: gitlab.Ptr("r1")})
	if err != nil {
		t.Fatal(err)
	}
	s.runner.Token = made.Token
	if _, err := root.Runners.VerifyRegisteredRunner(&gitlab.VerifyRegisteredRunnerOptions{Token: &made.Token}); err != nil {
		t.Errorf("verify: %v", err)
	}
	p, _, err := root.Pipelines.CreatePipeline("group/app", &gitlab.CreatePipelineOptions{Ref: gitlab.Ptr("main"),
		Variables: &[]*gitlab.PipelineVariableOptions{{Key: gitlab.Ptr("WHO"), Value: gitlab.Ptr("me")}}})
	if err != nil {
		t.Fatal(err)
	}
	if p.SHA != sha || p.Status != "pending" || p.User == nil || p.User.Username != "root" || p.DetailedStatus == nil {
		t.Errorf("pipeline %+v", p)
	}
	vars, _, err := root.Pipelines.GetPipelineVariables(7, p.ID)
	if err != nil || len(vars) != 1 || vars[0].Value != "me" {
		t.Errorf("variables %v %v", vars, err)
	}
	spec := s.take()
	log := []byte("one\ntwo\n")
	if code, _, err := s.runner.Trace(s.ctx, spec, 0, log); code != 202 || err != nil {
		t.Fatal(code, err)
	}
	if code, err := s.runner.Upload(s.ctx, spec, "archive", "zip", "artifacts.zip", []byte("PK")); code != 201 || err != nil {
		t.Fatal(code, err)
	}
	if code, _, err := s.runner.Update(s.ctx, spec, "success", "", 0, log); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	jobs, _, err := root.Jobs.ListPipelineJobs(7, p.ID, nil)
	if err != nil || len(jobs) != 2 {
		t.Fatalf("jobs %v %v", jobs, err)
	}
	build, manual := jobs[1], jobs[0]
	if build.Name != "build" || build.Status != "success" || build.ArtifactsFile.Size != 2 || build.Runner.Description != "r1" || build.Pipeline.ID != p.ID {
		t.Errorf("job %+v", build)
	}
	trace, _, err := root.Jobs.GetTraceFile(7, build.ID)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(trace); string(text) != string(log) {
		t.Errorf("trace %q", text)
	}
	archive, _, err := root.Jobs.GetJobArtifacts(7, build.ID)
	if err != nil || archive.Size() != 2 {
		t.Errorf("artifacts %v", err)
	}
	if manual.Status != "manual" {
		t.Errorf("manual job is %s", manual.Status)
	}
	if _, resp, err := s.client("reporter").Jobs.PlayJob(7, manual.ID, nil); err == nil || resp.StatusCode != 403 {
		t.Errorf("a reporter plays a job: %v", err)
	}
	if _, resp, err := s.client("dev").Jobs.PlayJob(7, manual.ID, nil); err == nil || resp.StatusCode != 403 {
		t.Errorf("a developer plays a job on a protected branch: %v", err)
	}
	if j, _, err := root.Jobs.PlayJob(7, manual.ID, nil); err != nil || j.Status != "pending" {
		t.Errorf("play: %v %v", j, err)
	}
	if c, _, err := root.Pipelines.CancelPipelineBuild(7, p.ID); err != nil || c.Status != "canceled" && c.Status != "success" {
		t.Errorf("cancel: %+v %v", c, err)
	}
	if c, _, err := root.Pipelines.RetryPipelineBuild(7, p.ID); err != nil {
		t.Errorf("retry: %+v %v", c, err)
	}
	list, resp, err := root.Pipelines.ListProjectPipelines(7, &gitlab.ListProjectPipelinesOptions{Ref: gitlab.Ptr("main")})
	if err != nil || len(list) != 1 || resp.TotalItems != 1 {
		t.Errorf("list: %v %v", list, err)
	}
	if latest, _, err := root.Pipelines.GetLatestPipeline(7, nil); err != nil || latest.ID != p.ID {
		t.Errorf("latest: %v %v", latest, err)
	}
	if _, err := root.Pipelines.DeletePipeline(7, p.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, resp, _ := root.Pipelines.GetPipeline(7, p.ID); resp.StatusCode != 404 {
		t.Errorf("deleted pipeline: %s", resp.Status)
	}
}

func TestErrorsOfTheConfigurationReachTheCaller(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := s.client("root")
	s.forge.Commit(7, "main", "first", map[string]string{".gitlab-ci.yml": "build:\n  scrpt: make\n"})
	_, resp, err := root.Pipelines.CreatePipeline(7, &gitlab.CreatePipelineOptions{Ref: gitlab.Ptr("main")})
	if err == nil || resp.StatusCode != 400 || !strings.Contains(err.Error(), "base") || !strings.Contains(err.Error(), "scrpt") {
		t.Errorf("create: %v", err)
	}
	lint, _, err := root.Validate.ProjectLint(7, nil)
	if err != nil || lint.Valid || !strings.Contains(strings.Join(lint.Errors, "\n"), ".gitlab-ci.yml:2:3: ") {
		t.Errorf("lint: %+v %v", lint, err)
	}
	good, _, err := root.Validate.ProjectNamespaceLint(7, &gitlab.ProjectNamespaceLintOptions{Content: gitlab.Ptr(config)})
	if err != nil || !good.Valid || !strings.Contains(good.MergedYaml, "build") {
		t.Errorf("lint: %+v %v", good, err)
	}
}

func TestVariablesSchedulesTriggersAndEnvironments(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := s.client("root")
	s.forge.Commit(7, "main", "first", map[string]string{".gitlab-ci.yml": config})

	v, _, err := root.ProjectVariables.CreateVariable(7, &gitlab.CreateProjectVariableOptions{Key: gitlab.Ptr("KEY"), Value: gitlab.Ptr("secret-value"), Masked: gitlab.Ptr(true)})
	if err != nil || v.Value != "secret-value" || v.EnvironmentScope != "*" {
		t.Errorf("variable %+v %v", v, err)
	}
	if _, _, err := root.ProjectVariables.CreateVariable(7, &gitlab.CreateProjectVariableOptions{Key: gitlab.Ptr("KEY"), Value: gitlab.Ptr("x")}); err == nil {
		t.Error("the same key twice")
	}
	if _, _, err := root.ProjectVariables.CreateVariable(7, &gitlab.CreateProjectVariableOptions{Key: gitlab.Ptr("M"), Value: gitlab.Ptr("x"), Masked: gitlab.Ptr(true)}); err == nil {
		t.Error("a short masked value")
	}
	if v, _, err = root.ProjectVariables.UpdateVariable(7, "KEY", &gitlab.UpdateProjectVariableOptions{Value: gitlab.Ptr("other-value")}); err != nil || v.Value != "other-value" || !v.Masked {
		t.Errorf("update %+v %v", v, err)
	}
	if _, err := root.ProjectVariables.RemoveVariable(7, "KEY", nil); err != nil {
		t.Error(err)
	}
	if _, _, err := root.GroupVariables.CreateVariable("group", &gitlab.CreateGroupVariableOptions{Key: gitlab.Ptr("G"), Value: gitlab.Ptr("g")}); err != nil {
		t.Error(err)
	}
	if _, _, err := root.InstanceVariables.CreateVariable(&gitlab.CreateInstanceVariableOptions{Key: gitlab.Ptr("I"), Value: gitlab.Ptr("i")}); err != nil {
		t.Error(err)
	}
	if _, resp, err := s.client("dev").ProjectVariables.ListVariables(7, nil); err == nil || resp.StatusCode != 403 {
		t.Errorf("a developer lists variables: %v", err)
	}

	sc, _, err := root.PipelineSchedules.CreatePipelineSchedule(7, &gitlab.CreatePipelineScheduleOptions{Description: gitlab.Ptr("nightly"), Ref: gitlab.Ptr("main"),
		Cron: gitlab.Ptr("0 1 * * *"), CronTimezone: gitlab.Ptr("Europe/Berlin")})
	if err != nil || sc.NextRunAt == nil || sc.Owner.Username != "root" {
		t.Fatalf("schedule %+v %v", sc, err)
	}
	if _, _, err := root.PipelineSchedules.CreatePipelineSchedule(7, &gitlab.CreatePipelineScheduleOptions{Description: gitlab.Ptr("bad"), Ref: gitlab.Ptr("main"), Cron: gitlab.Ptr("every day")}); err == nil {
		t.Error("a bad cron expression")
	}
	if _, _, err := root.PipelineSchedules.CreatePipelineScheduleVariable(7, sc.ID, &gitlab.CreatePipelineScheduleVariableOptions{Key: gitlab.Ptr("A"), Value: gitlab.Ptr("b")}); err != nil {
		t.Error(err)
	}
	if _, err := root.PipelineSchedules.RunPipelineSchedule(7, sc.ID); err != nil {
		t.Error(err)
	}
	if sc, _, err = root.PipelineSchedules.GetPipelineSchedule(7, sc.ID); err != nil || sc.LastPipeline == nil || len(sc.Variables) != 1 {
		t.Errorf("schedule %+v %v", sc, err)
	}

	tr, _, err := root.PipelineTriggers.AddPipelineTrigger(7, &gitlab.AddPipelineTriggerOptions{Description: gitlab.Ptr("hook")})
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := s.client("").PipelineTriggers.RunPipelineTrigger(7, &gitlab.RunPipelineTriggerOptions{Ref: gitlab.Ptr("main"), Token: &tr.Token, Variables: map[string]string{"X": "y"}})
	if err != nil || p.Source != "trigger" {
		t.Errorf("trigger %+v %v", p, err)
	}
	if _, resp, err := root.PipelineTriggers.RunPipelineTrigger(7, &gitlab.RunPipelineTriggerOptions{Ref: gitlab.Ptr("main"), Token: gitlab.Ptr("glptt-wrong")}); err == nil || resp.StatusCode != 404 {
		t.Errorf("wrong trigger token: %v", err)
	}

	env, _, err := root.Environments.CreateEnvironment(7, &gitlab.CreateEnvironmentOptions{Name: gitlab.Ptr("review/x")})
	if err != nil || env.Tier != "development" {
		t.Errorf("environment %+v %v", env, err)
	}
	if env, _, err = root.Environments.StopEnvironment(7, env.ID, nil); err != nil || env.State != "stopped" {
		t.Errorf("stop %+v %v", env, err)
	}
	if _, err := root.Environments.DeleteEnvironment(7, env.ID); err != nil {
		t.Error(err)
	}
	if _, _, err := root.Deployments.ListProjectDeployments(7, nil); err != nil {
		t.Error(err)
	}
	if rs, _, err := root.Runners.ListAllRunners(nil); err != nil || len(rs) != 0 {
		t.Errorf("runners %v %v", rs, err)
	}
	pr, _, err := root.Users.CreateUserRunner(&gitlab.CreateUserRunnerOptions{RunnerType: gitlab.Ptr("project_type"), ProjectID: gitlab.Ptr(int64(7)), TagList: &[]string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if d, _, err := root.Runners.UpdateRunnerDetails(pr.ID, &gitlab.UpdateRunnerDetailsOptions{Paused: gitlab.Ptr(true)}); err != nil || !d.Paused || len(d.TagList) != 2 || len(d.Projects) != 1 {
		t.Errorf("runner %+v %v", d, err)
	}
	if _, err := root.Runners.DeleteRegisteredRunnerByID(pr.ID); err != nil {
		t.Error(err)
	}
}

func TestArtifactsByRefKeepAndErase(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := s.client("root")
	s.forge.Commit(7, "main", "first", map[string]string{".gitlab-ci.yml": config + "  artifacts: {paths: [x], access: maintainer}\n"})
	_, token, err := s.engine.CreateRunner(s.ctx, pipeline.NewRunner{Kind: pipeline.GroupRunner, OwnerID: 100, RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	s.runner.Token = token
	if _, _, err := root.Pipelines.CreatePipeline(7, &gitlab.CreatePipelineOptions{Ref: gitlab.Ptr("main")}); err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	z := zip.NewWriter(&body)
	f, err := z.Create("out/result.txt")
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("42"))
	z.Close()
	spec := s.take()
	if code, err := s.runner.Upload(s.ctx, spec, "archive", "zip", "artifacts.zip", body.Bytes()); code != 201 || err != nil {
		t.Fatal(code, err)
	}
	if code, _, err := s.runner.Update(s.ctx, spec, "success", "", 0, nil); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	archive, _, err := root.Jobs.DownloadArtifactsFile(7, "main", &gitlab.DownloadArtifactsFileOptions{Job: gitlab.Ptr("build")})
	if err != nil || archive.Len() != body.Len() {
		t.Errorf("by ref: %v", err)
	}
	one, _, err := root.Jobs.DownloadSingleArtifactsFileByTagOrBranch(7, "main", "out/result.txt", &gitlab.DownloadArtifactsFileOptions{Job: gitlab.Ptr("build")})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(one); string(text) != "42" {
		t.Errorf("raw by ref: %q", text)
	}
	if _, resp, err := root.Jobs.DownloadSingleArtifactsFile(7, spec.ID, "out/none.txt"); err == nil || resp.StatusCode != 404 {
		t.Errorf("a file that is not there: %v", err)
	}
	jobs, _, err := root.Jobs.ListProjectJobs(7, &gitlab.ListJobsOptions{Scope: &[]gitlab.BuildStateValue{gitlab.Manual}})
	if err != nil || len(jobs) != 1 {
		t.Fatalf("manual jobs: %v %v", jobs, err)
	}
	if _, _, err := root.Jobs.PlayJob(7, jobs[0].ID, nil); err != nil {
		t.Fatal(err)
	}
	spec = s.take()
	if code, err := s.runner.Upload(s.ctx, spec, "archive", "zip", "artifacts.zip", body.Bytes()); code != 201 || err != nil {
		t.Fatal(code, err)
	}
	if code, _, err := s.runner.Update(s.ctx, spec, "success", "", 0, nil); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	if _, resp, err := s.client("dev").Jobs.GetJobArtifacts(7, spec.ID); err == nil || resp.StatusCode != 403 {
		t.Errorf("a developer downloads what is for maintainers: %v", err)
	}
	if j, _, err := root.Jobs.KeepArtifacts(7, spec.ID); err != nil || j.ArtifactsExpireAt != nil {
		t.Errorf("keep: %+v %v", j, err)
	}
	if j, _, err := root.Jobs.EraseJob(7, spec.ID); err != nil || j.ErasedAt == nil || len(j.Artifacts) != 0 {
		t.Errorf("erase: %+v %v", j, err)
	}
	if _, resp, _ := root.Jobs.GetJobArtifacts(7, spec.ID); resp.StatusCode != 404 {
		t.Errorf("erased artifacts: %s", resp.Status)
	}
}

// TestWhyAJobWaits: the API and the command line tell it, in the same words as
// the pages.
func TestWhyAJobWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root := s.client("root")
	s.forge.Commit(7, "main", "first", map[string]string{".gitlab-ci.yml": `
plain: {script: make}
picky: {script: make, tags: [gpu]}
held: {script: make, resource_group: shop}
holder: {script: make, resource_group: shop}
later: {script: make, when: manual}
`})
	_, token, err := s.engine.CreateRunner(s.ctx, pipeline.NewRunner{Kind: pipeline.GroupRunner, OwnerID: 100, RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := root.Pipelines.CreatePipeline(7, &gitlab.CreatePipelineOptions{Ref: gitlab.Ptr("main")})
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) (string, error) {
		c := project.New(func() (*commandrest.Client, error) { return &commandrest.Client{URL: s.url, Token: "root"}, nil })
		var out bytes.Buffer
		c.SetArgs(append([]string{"jobs", "group/app"}, args...))
		c.SetOut(&out)
		err := c.ExecuteContext(s.ctx)
		return out.String(), err
	}
	reasons := func() map[string]string {
		out, err := command("--json", "--ref", "main")
		if err != nil {
			t.Fatal(err)
		}
		var jobs []struct {
			Name  string
			Waits string `json:"waiting_reason"`
		}
		if err := json.Unmarshal([]byte(out), &jobs); err != nil || len(jobs) != 5 {
			t.Fatalf("%s: %v", out, err)
		}
		all := map[string]string{}
		for _, j := range jobs {
			all[j.Name] = j.Waits
		}
		return all
	}
	const tags, silent = "No active runner has the tags of this job. Add a runner with them, or change the job's tags.", "The runners that could take this job have not been heard of for a while."
	got := reasons()
	waits := map[string]bool{got["held"]: true, got["holder"]: true}
	if got["picky"] != tags || got["plain"] != silent || got["later"] != "" || !waits[silent] || !waits["Another job holds the resource group shop."] {
		t.Errorf("before a runner came: %q", got)
	}
	s.runner.Token = token
	if spec := s.take(); spec.JobInfo.Name != "plain" {
		t.Fatal(spec.JobInfo.Name)
	}
	if got := reasons(); got["plain"] != "" || got["picky"] != tags {
		t.Errorf("with a runner: %q", got)
	}
	for _, args := range [][]string{nil, {"--pipeline", strconv.FormatInt(p.ID, 10)}} {
		if out, err := command(args...); err != nil || !strings.Contains(out, "picky") || !strings.Contains(out, tags) {
			t.Errorf("%v: %s %v", args, out, err)
		}
	}
	if _, err := command("--ref", "none"); !delivery.IsNotFound(err) || !strings.Contains(err.Error(), "No pipeline of none of group/app has run.") {
		t.Errorf("no pipeline: %v", err)
	}
}
