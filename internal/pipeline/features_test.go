package pipeline_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func variable(spec *delivery.JobSpec, key string) (delivery.JobVariable, bool) {
	for _, v := range spec.Variables {
		if v.Key == key {
			return v, true
		}
	}
	return delivery.JobVariable{}, false
}

func TestFailureRetriesAndBlocksWhatFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
build: {stage: build, script: x, retry: 1}
test: {stage: test, script: x}
clean: {stage: test, script: x, when: on_failure}
`)
	first := w.run("build", "failed")
	second := w.run("build", "failed")
	if first.ID == second.ID {
		t.Error("the retry has the same number")
	}
	w.run("clean", "success")
	w.wantJobs(p.ID, map[string]string{"build": "failed", "test": "skipped", "clean": "success"})
	if s := w.pipeline(p.ID).Status; s != "failed" {
		t.Errorf("pipeline is %s", s)
	}
	if code, _, _ := w.runner.Update(w.ctx, first, "running", "", 0, nil); code != 200 {
		t.Errorf("late update of an ended job: %d", code)
	}
	if _, err := w.engine.RetryPipeline(w.ctx, 1, p.ID); err != nil {
		t.Fatal(err)
	}
	w.run("build", "success")
	w.run("test", "success")
	w.wantJobs(p.ID, map[string]string{"build": "success", "test": "success", "clean": "success"})
}

func TestAllowedExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
build: {stage: build, script: x, allow_failure: {exit_codes: [42]}}
test: {stage: test, script: x}
`)
	spec := w.take()
	if code, _, err := w.runner.Update(w.ctx, spec, "failed", "script_failure", 42, nil); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	w.run("test", "success")
	if s := w.pipeline(p.ID).Status; s != "success" {
		t.Errorf("pipeline is %s", s)
	}
}

func TestManualDelayedAndCanceledJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
later: {stage: build, script: x, when: delayed, start_in: 10 minutes}
gate: {stage: test, script: x, when: manual, allow_failure: false}
after: {stage: deploy, script: x}
`)
	w.wantJobs(p.ID, map[string]string{"later": "scheduled", "gate": "created"})
	w.clock.Advance(11 * time.Minute)
	w.run("later", "success")
	w.wantJobs(p.ID, map[string]string{"gate": "manual", "after": "created"})
	if s := w.pipeline(p.ID).Status; s != "manual" {
		t.Errorf("pipeline is %s", s)
	}
	gate := w.jobs(p.ID)["gate"]
	if _, err := w.engine.PlayJob(w.ctx, 1, gate.ID, []pipeline.VariableValue{{Key: "CHOICE", Value: "blue"}}, nil); err != nil {
		t.Fatal(err)
	}
	spec := w.take()
	if v, _ := variable(spec, "CHOICE"); v.Value != "blue" {
		t.Errorf("variable of the manual job: %+v", v)
	}
	if _, err := w.engine.CancelPipeline(w.ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	if code, status, _ := w.runner.Update(w.ctx, spec, "running", "", 0, nil); code != 200 || status != "canceled" {
		t.Errorf("update of a canceled job: %d %s", code, status)
	}
	w.wantJobs(p.ID, map[string]string{"gate": "canceled", "after": "canceled"})
}

func TestGracefulCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.runner.Graceful = true
	p := w.create("build: {script: x}")
	spec := w.take()
	if _, err := w.engine.CancelPipeline(w.ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	if _, status, _ := w.runner.Update(w.ctx, spec, "running", "", 0, nil); status != "canceling" {
		t.Errorf("status %s", status)
	}
	w.end(spec, "failed")
	w.wantJobs(p.ID, map[string]string{"build": "canceled"})
	if s := w.pipeline(p.ID).Status; s != "canceled" {
		t.Errorf("pipeline is %s", s)
	}
}

func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte(text))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.Bytes()
}

func TestArtifactsDotenvAndReportsReachLaterJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
build:
  stage: build
  script: x
  artifacts: {paths: [out], expire_in: 1 day, reports: {dotenv: build.env, junit: junit.xml}}
other: {stage: build, script: x}
test: {stage: test, script: x}
alone: {stage: test, script: x, needs: []}
`)
	var spec *delivery.JobSpec
	for range 3 { // build, other and alone start at once
		s := w.take()
		if s.JobInfo.Name == "build" {
			spec = s
			continue
		}
		if len(s.Dependencies) != 0 {
			t.Errorf("%s depends on %v", s.JobInfo.Name, s.Dependencies)
		}
		w.end(s, "success")
	}
	if len(spec.Artifacts) != 3 || spec.Artifacts[0].Format != "zip" || spec.Artifacts[1].Type != "dotenv" {
		t.Errorf("artifacts %+v", spec.Artifacts)
	}
	body := archive(t, map[string]string{"out/a.txt": "A", "out/b/c.txt": "C"})
	for _, up := range []struct {
		kind, format string
		body         []byte
		want         int
	}{
		{"archive", "zip", body, 201}, {"dotenv", "gzip", zipped("not a variable"), 400}, {"dotenv", "gzip", zipped("VERSION=1.2\nNAME=\"x y\"\n"), 201},
		{"junit", "gzip", zipped(`<testsuite><testcase name="a" time="0.5"/><testcase name="b"><failure message="no">trace</failure></testcase></testsuite>`), 201},
	} {
		if code, err := w.runner.Upload(w.ctx, spec, up.kind, up.format, "file", up.body); code != up.want || err != nil {
			t.Errorf("upload of %s: %d %v", up.kind, code, err)
		}
	}
	w.end(spec, "success")
	next := w.take()
	if len(next.Dependencies) != 1 || next.Dependencies[0].ArtifactsFile.Size != int64(len(body)) {
		t.Fatalf("dependencies %+v", next.Dependencies)
	}
	if v, _ := variable(next, "NAME"); v.Value != "x y" {
		t.Errorf("dotenv variable %+v", v)
	}
	if code, got, err := w.runner.Download(w.ctx, next.Dependencies[0]); code != 200 || !bytes.Equal(got, body) || err != nil {
		t.Errorf("download: %d %v", code, err)
	}
	stolen := next.Dependencies[0]
	stolen.Token = "glcbt-wrong"
	if code, _, _ := w.runner.Download(w.ctx, stolen); code != 403 {
		t.Errorf("download with a wrong token: %d", code)
	}
	w.end(next, "success")
	if code, _, _ := w.runner.Download(w.ctx, next.Dependencies[0]); code != 403 {
		t.Errorf("download with the token of an ended job: %d", code)
	}
	list, err := w.engine.ArtifactEntries(w.ctx, spec.ID, "out")
	if err != nil || len(list) != 2 || list[0].Path != "out/b/" || list[1].Path != "out/a.txt" {
		t.Errorf("entries %+v %v", list, err)
	}
	report, err := w.engine.TestReport(w.ctx, p.ID)
	if err != nil || report.TotalCount != 2 || report.FailedCount != 1 || !strings.Contains(report.Suites[0].Cases[0].SystemOutput, "trace") {
		t.Errorf("report %+v %v", report, err)
	}
	w.clock.Advance(31 * 24 * time.Hour)
	if f, err := w.engine.OpenArtifact(w.ctx, spec.ID, "archive"); err != nil {
		t.Errorf("the artifacts of the newest successful pipeline are gone: %v", err)
	} else {
		f.Body.Close()
	}
	newer := w.create("build: {script: x}")
	w.run("build", "success")
	if s := w.pipeline(newer.ID).Status; s != "success" {
		t.Errorf("the newer pipeline is %s", s)
	}
	w.clock.Advance(2 * time.Minute)
	w.eventually("the artifacts of the older pipeline expire", func() bool {
		_, err := w.engine.OpenArtifact(w.ctx, spec.ID, "archive")
		return delivery.IsNotFound(err)
	})
}

func TestVariablesFollowThePrecedence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	put := func(owner string, id int64, key, value, scope string, protected, masked bool) {
		v := pipeline.Variable{Owner: owner, OwnerID: id, Key: key, Value: value, Environment: scope, Protected: protected, Masked: masked}
		if err := w.engine.CheckVariable(&v); err != nil {
			t.Fatal(err)
		}
		if err := w.engine.Update(w.ctx, func(tx pipeline.Tx) error { return tx.InsertVariable(&v) }); err != nil {
			t.Fatal(err)
		}
	}
	put("instance", 0, "A", "instance", "*", false, false)
	put("group", 100, "A", "group", "*", false, false)
	put("group", 100, "B", "group", "*", false, false)
	put("project", 7, "A", "project", "*", false, false)
	put("project", 7, "A", "project for staging", "staging", false, false)
	put("project", 7, "SECRET", "hunter2-hunter2", "*", true, true)
	put("project", 7, "C", "project", "*", false, false)
	w.forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": `
variables: {A: yaml, D: "$B and $E", E: "nested $CI_COMMIT_BRANCH"}
plain: {script: x}
staged: {script: x, environment: staging}
`})
	w.forge.Commit(7, "open", "change", map[string]string{".gitlab-ci.yml": "plain: {script: x}"})
	if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: "web", Variables: []pipeline.VariableValue{{Key: "C", Value: "given"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		spec := w.take()
		want := map[string]string{"A": "project", "B": "group", "C": "given", "D": "group and nested main", "SECRET": "hunter2-hunter2", "CI_JOB_NAME": spec.JobInfo.Name, "CI_COMMIT_BRANCH": "main"}
		if spec.JobInfo.Name == "staged" {
			want["A"], want["CI_ENVIRONMENT_NAME"] = "project for staging", "staging"
		}
		for key, value := range want {
			if v, _ := variable(spec, key); v.Value != value {
				t.Errorf("%s: %s = %q; want %q", spec.JobInfo.Name, key, v.Value, value)
			}
		}
		log := []byte("the secret is hunt")
		w.runner.Trace(w.ctx, spec, 0, log)
		more := []byte("er2-hunter2, and hunter2-hunter2 again\n")
		w.runner.Trace(w.ctx, spec, int64(len(log)), more)
		if code, _, _ := w.runner.Update(w.ctx, spec, "success", "", 0, append(log, more...)); code != 200 {
			t.Errorf("end: %d", code)
		}
		var got bytes.Buffer
		if err := w.engine.FollowLog(w.ctx, spec.ID, 0, func(_ int64, piece []byte) error { got.Write(piece); return nil }); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(got.String(), "hunter") || strings.Count(got.String(), "[MASKED]") != 2 {
			t.Errorf("log %q", got.String())
		}
	}
	if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "open", Source: "web"}); err != nil {
		t.Fatal(err)
	}
	if spec := w.take(); spec != nil {
		if _, ok := variable(spec, "SECRET"); ok {
			t.Error("a protected variable reached an unprotected branch")
		}
	}
}

func TestResourceGroupRunsOneAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	config := "workflow: {auto_cancel: {on_new_commit: none}}\ndeploy: {script: x, resource_group: production, environment: production}"
	a := w.create(config)
	b := w.create(config)
	w.wantJobs(a.ID, map[string]string{"deploy": "pending"})
	w.wantJobs(b.ID, map[string]string{"deploy": "waiting_for_resource"})
	w.run("deploy", "failed")
	w.wantJobs(b.ID, map[string]string{"deploy": "pending"})
	w.run("deploy", "success")
	var ds []pipeline.Deployment
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		var err error
		ds, _, err = tx.Deployments(7, 0, "", true, pipeline.Page{Limit: 10})
		return err
	}); err != nil || len(ds) != 2 || ds[0].Status != "failed" || ds[1].Status != "success" {
		t.Errorf("deployments %+v %v", ds, err)
	}
}

func TestEnvironmentIsStoppedByItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
review:
  stage: deploy
  script: x
  environment: {name: "review/$CI_COMMIT_REF_SLUG", url: "https://$CI_ENVIRONMENT_SLUG.example.com", on_stop: stop, auto_stop_in: 1 hour}
stop:
  stage: deploy
  script: x
  when: manual
  environment: {name: "review/$CI_COMMIT_REF_SLUG", action: stop}
`)
	w.run("review", "success")
	env := func() pipeline.Environment {
		var e pipeline.Environment
		if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
			var err error
			e, err = tx.EnvironmentByName(7, "review/main")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := env(); e.State != "available" || !strings.HasPrefix(e.ExternalURL, "https://review-main") || e.AutoStopAt.IsZero() {
		t.Errorf("environment %+v", e)
	}
	w.clock.Advance(time.Hour + 2*time.Minute)
	w.eventually("the stop job is played", func() bool { return w.jobs(p.ID)["stop"].Status == "pending" })
	w.run("stop", "success")
	if e := env(); e.State != "stopped" {
		t.Errorf("environment %+v", e)
	}
}

func TestDeletedBranchStopsItsEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.push("topic", map[string]string{".gitlab-ci.yml": `
review: {script: x, environment: {name: review, on_stop: stop}}
stop: {script: x, when: manual, environment: {name: review, action: stop}}
`})
	w.run("review", "success")
	if err := w.emit(delivery.EventPushed, delivery.Pushed{Ref: "refs/heads/topic", Before: "1", After: delivery.ZeroSHA, UserID: 1}); err != nil {
		t.Fatal(err)
	}
	w.run("stop", "success")
}

func TestChildAndDownstreamPipelines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.forge.AddProject(8, "group/other")
	w.forge.Commit(8, "main", "change", map[string]string{".gitlab-ci.yml": "deploy: {script: x}"})
	p := w.createFiles(map[string]string{
		"child.yml": "inner: {script: x}",
		".gitlab-ci.yml": `
variables: {PASSED: "on $CI_COMMIT_BRANCH"}
child: {stage: build, trigger: {include: child.yml, strategy: depend}}
other: {stage: deploy, trigger: group/other}
`})
	spec := w.take()
	if v, _ := variable(spec, "PASSED"); spec.JobInfo.Name != "inner" || v.Value != "on main" {
		t.Errorf("child job %s, variable %+v", spec.JobInfo.Name, v)
	}
	w.wantJobs(p.ID, map[string]string{"child": "running", "other": "created"})
	child := w.pipeline(spec.JobInfo.PipelineID)
	if !child.Child || child.ParentID != p.ID || child.Source != pipeline.SourceParentPipeline {
		t.Errorf("child %+v", child)
	}
	w.end(spec, "success")
	spec = w.take()
	if down := w.pipeline(spec.JobInfo.PipelineID); down.ProjectID != 8 || down.Source != pipeline.SourcePipeline || down.Child {
		t.Errorf("downstream %+v", down)
	}
	w.eventually("the parent succeeds", func() bool { return w.pipeline(p.ID).Status == "success" })
	w.end(spec, "success")
}

func TestNewPushCancelsTheOlderPipeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.push("main", map[string]string{".gitlab-ci.yml": twoStages})
	w.eventually("the first pipeline", func() bool { return w.count() == 1 })
	w.push("main", map[string]string{"a": "b"})
	w.eventually("the second pipeline", func() bool { return w.count() == 2 })
	w.eventually("the first is canceled", func() bool { return w.pipeline(1).Status == "canceled" })
	if p := w.pipeline(1); p.AutoCanceledBy != 2 {
		t.Errorf("pipeline %+v", p)
	}
}

func TestScheduleRunsOnTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": twoStages})
	s := pipeline.Schedule{ProjectID: 7, OwnerID: 1, Description: "nightly", Ref: "main", Cron: "0 1 * * *", Timezone: "Europe/Berlin", Active: true}
	if err := w.engine.PutSchedule(w.ctx, &s); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC); !s.NextRun.Equal(want) {
		t.Errorf("next run %v; want %v", s.NextRun, want)
	}
	w.clock.Advance(15*time.Hour + time.Second)
	w.eventually("the scheduled pipeline", func() bool { return w.count() == 1 })
	if p := w.pipeline(1); p.Source != pipeline.SourceSchedule || p.ScheduleID != s.ID {
		t.Errorf("pipeline %+v", p)
	}
	w.eventually("the next run is planned", func() bool {
		var now pipeline.Schedule
		err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
			var err error
			now, err = tx.Schedule(s.ID)
			return err
		})
		return err == nil && now.NextRun.After(s.NextRun)
	})
	w.clock.Advance(24 * time.Hour)
	w.eventually("the next day's pipeline", func() bool { return w.count() == 2 })
}

func TestSilentRunnersAndTimeouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create("slow: {script: x, timeout: 10 minutes}\nlost: {script: x}")
	a, b := w.take(), w.take()
	if a.JobInfo.Name != "slow" {
		a, b = b, a
	}
	_ = b
	w.clock.Advance(4 * time.Minute)
	w.runner.Update(w.ctx, a, "running", "", 0, nil)
	w.clock.Advance(4 * time.Minute)
	w.eventually("the lost job fails", func() bool { return w.jobs(p.ID)["lost"].FailureReason == pipeline.ReasonStuck })
	w.runner.Update(w.ctx, a, "running", "", 0, nil)
	w.clock.Advance(4 * time.Minute)
	w.eventually("the slow job fails", func() bool { return w.jobs(p.ID)["slow"].FailureReason == pipeline.ReasonTimeout })
}

// takeBuiltin makes the built-in runner, which takes a job.
func (w *world) takeBuiltin() *delivery.JobSpec {
	w.t.Helper()
	r, err := w.engine.EnsureBuiltinRunner(w.ctx, "built-in", nil, 24*time.Hour, delivery.RunnerInfo{})
	if err != nil {
		w.t.Fatal(err)
	}
	spec, err := w.engine.RequestJob(w.ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return spec
}

// TestARunnerKeepsAJobThatWaits: a runner may hold a job that it cannot start
// yet; the job stays pending and shows what it and those behind it wait for.
func TestARunnerKeepsAJobThatWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create("first: {script: x}\nsecond: {script: x}\nthird: {script: x}")
	spec := w.takeBuiltin()
	hold := delivery.JobUpdate{State: delivery.JobPending, Waiting: "waiting for 1.0 GB, 0.6 GB free"}
	for range 4 { // longer than an offer lasts
		ack, err := w.engine.UpdateJob(w.ctx, spec.ID, spec.Token, hold)
		if err != nil || ack.Status != "pending" {
			t.Fatalf("%+v %v", ack, err)
		}
		w.clock.Advance(40 * time.Second)
	}
	jobs := w.jobs(p.ID)
	for name, want := range map[string]string{"first": hold.Waiting, "second": fmt.Sprintf("next in the queue; job %d is %s", spec.ID, hold.Waiting),
		"third": fmt.Sprintf("1 job before it in the queue; job %d is %s", spec.ID, hold.Waiting)} {
		if got := w.engine.Waiting(jobs[name].ID); got != want || jobs[name].Status != "pending" {
			t.Errorf("%s is %s, %q; want %q", name, jobs[name].Status, got, want)
		}
	}
	if _, err := w.engine.UpdateJob(w.ctx, spec.ID, "glcbt-wrong", hold); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("another token: %v", err)
	}
	if ack, err := w.engine.UpdateJob(w.ctx, spec.ID, spec.Token, delivery.JobUpdate{State: delivery.JobRunning}); err != nil || ack.Status != "running" {
		t.Errorf("accepted as %+v: %v", ack, err)
	}
	if got := w.engine.Waiting(spec.ID); got != "" {
		t.Errorf("a running job waits: %q", got)
	}
}

func TestAJobThatIsNotAcceptedIsOfferedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.create("build: {script: x}")
	first, err := w.runner.Request(w.ctx)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	w.clock.Advance(2 * time.Minute)
	second := w.take()
	if second.ID != first.ID || second.Token == first.Token {
		t.Errorf("second offer %d %v", second.ID, second.Token == first.Token)
	}
	if code, _, _ := w.runner.Update(w.ctx, first, "running", "", 0, nil); code != 403 {
		t.Errorf("accepting too late: %d", code)
	}
	w.end(second, "success")
}

func TestARestartKeepsJobsTracesAndSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	v := pipeline.Variable{Owner: pipeline.OwnerProject, OwnerID: 7, Key: "SECRET", Value: "hunter2-hunter2", Masked: true}
	if err := w.engine.CheckVariable(&v); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Update(w.ctx, func(tx pipeline.Tx) error { return tx.InsertVariable(&v) }); err != nil {
		t.Fatal(err)
	}
	p := w.create("build: {script: x}\nlater: {script: x, when: delayed, start_in: 1 hour}\nqueued: {script: x, tags: [none]}")
	spec := w.take()
	first := []byte("a secret: hunter2-")
	if code, _, err := w.runner.Trace(w.ctx, spec, 0, first); code != 202 || err != nil {
		t.Fatal(code, err)
	}
	w.restart()
	rest := []byte("hunter2 and more\n")
	if code, at, err := w.runner.Trace(w.ctx, spec, 0, first); code != 202 || at != "0-18" || err != nil {
		t.Fatal(code, at, err)
	}
	if code, _, err := w.runner.Trace(w.ctx, spec, int64(len(first)), rest); code != 202 || err != nil {
		t.Fatal(code, err)
	}
	if code, _, err := w.runner.Update(w.ctx, spec, "success", "", 0, append(append([]byte{}, first...), rest...)); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	var got strings.Builder
	if err := w.engine.FollowLog(w.ctx, spec.ID, 0, func(_ int64, piece []byte) error { got.Write(piece); return nil }); err != nil {
		t.Fatal(err)
	}
	if got.String() != "a secret: [MASKED]******* and more\n" {
		t.Errorf("log %q", got.String())
	}
	w.wantJobs(p.ID, map[string]string{"build": "success", "later": "scheduled", "queued": "pending"})
	w.clock.Advance(61 * time.Minute)
	w.run("later", "success")
}

// TestALostJobSaysSo: the built-in runner begins anew, as after a crash, and
// the job that it had ends with the reason in its log and is tried again.
func TestALostJobSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create("one: {script: x}")
	spec := w.takeBuiltin()
	if _, err := w.engine.UpdateJob(w.ctx, spec.ID, spec.Token, delivery.JobUpdate{State: delivery.JobRunning}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.engine.AppendTrace(w.ctx, spec.ID, spec.Token, 0, []byte("half a li")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.engine.EnsureBuiltinRunner(w.ctx, "built-in", nil, 24*time.Hour, delivery.RunnerInfo{}); err != nil {
		t.Fatal(err)
	}
	next := w.jobs(p.ID)["one"]
	log, err := w.engine.OpenLog(w.ctx, &pipeline.Job{ID: spec.ID, ProjectID: next.ProjectID, Status: "failed"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text := make([]byte, log.Size)
	if _, err := log.ReadAt(text, 0); err != nil || !strings.HasPrefix(string(text), "half a li\n") || !strings.Contains(string(text), "the runner was stopped or restarted while the job ran") {
		t.Errorf("%q %v", text, err)
	}
	if next.ID == spec.ID || next.Status != "pending" {
		t.Errorf("not tried again: %+v", next)
	}
}
