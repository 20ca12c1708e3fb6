package pipeline_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// set changes the settings of project 7.
func (w *world) set(fn func(*pipeline.ProjectSettings)) {
	w.t.Helper()
	if _, err := w.engine.ChangeProjectSettings(w.ctx, 7, func(s *pipeline.ProjectSettings) error { fn(s); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

const deployConfig = "workflow: {auto_cancel: {on_new_commit: none}}\ndeploy: {script: x, environment: production, resource_group: production}\n"

// version commits another version of a deploying project and makes its pipeline.
func (w *world) version(n int) pipeline.Pipeline {
	w.t.Helper()
	return w.createFiles(map[string]string{".gitlab-ci.yml": deployConfig, "version": fmt.Sprint(n)})
}

func TestOutdatedDeploymentFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	old := w.version(1)
	w.set(func(s *pipeline.ProjectSettings) {})
	if err := w.engine.Update(w.ctx, func(tx pipeline.Tx) error { return tx.SetResourceMode(7, "production", "newest_first") }); err != nil {
		t.Fatal(err)
	}
	first := w.take() // of the old one; another two wait
	middle := w.version(2)
	newest := w.version(3)
	w.end(first, "success")
	w.run("deploy", "success")
	w.wantJobs(newest.ID, map[string]string{"deploy": "success"})
	// The middle one is older than what was deployed: asking for it fails it.
	last := w.version(4)
	w.run("deploy", "success")
	w.wantJobs(last.ID, map[string]string{"deploy": "success"})
	j := w.jobs(middle.ID)["deploy"]
	if j.Status != "failed" || j.FailureReason != pipeline.ReasonStaleDeployment {
		t.Errorf("the outdated job is %s, %s", j.Status, j.FailureReason)
	}
	var log strings.Builder
	if err := w.engine.FollowLog(w.ctx, j.ID, 0, func(_ int64, p []byte) error { log.Write(p); return nil }); err != nil || !strings.Contains(log.String(), "A newer deployment to production") {
		t.Errorf("log %q, %v", log.String(), err)
	}

	// Going back on purpose works, more than once.
	back := w.jobs(old.ID)["deploy"]
	var d pipeline.Deployment
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		var err error
		d, err = tx.DeploymentByJob(back.ID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.engine.Redeploy(w.ctx, 1, d.ID); err != nil {
			t.Fatal(err)
		}
		w.run("deploy", "success")
	}
	w.set(func(s *pipeline.ProjectSettings) { s.RollbackAllowed = false })
	if _, err := w.engine.RetryJob(w.ctx, 1, w.jobs(newest.ID)["deploy"].ID); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("going back where it is not allowed: %v", err)
	}
	if _, err := w.engine.RetryPipeline(w.ctx, 1, middle.ID); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("going back with a whole pipeline: %v", err)
	}
}

func TestOutdatedDeploymentsMayBeAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.set(func(s *pipeline.ProjectSettings) { s.ForwardDeployment = false })
	if err := w.engine.Update(w.ctx, func(tx pipeline.Tx) error { return tx.SetResourceMode(7, "production", "newest_first") }); err != nil {
		t.Fatal(err)
	}
	w.version(1)
	first := w.take()
	middle := w.version(2)
	w.version(3)
	w.end(first, "success")
	w.run("deploy", "success")
	w.run("deploy", "success")
	w.wantJobs(middle.ID, map[string]string{"deploy": "success"})
}

func TestMergeRequestPipelinesOfProtectedBranches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	v := pipeline.Variable{Owner: pipeline.OwnerProject, OwnerID: 7, Key: "SECRET", Value: "for-protected-only", Environment: "*", Protected: true}
	if err := w.engine.CheckVariable(&v); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Update(w.ctx, func(tx pipeline.Tx) error { return tx.InsertVariable(&v) }); err != nil {
		t.Fatal(err)
	}
	config := map[string]string{".gitlab-ci.yml": "job: {script: x, rules: [{if: $CI_MERGE_REQUEST_IID}]}"}
	w.forge.Commit(7, "main", "change", config)
	sha, _ := w.forge.Commit(7, "next", "change", config)
	w.forge.AddUser(delivery.User{ID: 2, Username: "dev"}, 7, delivery.Developer)
	mr := delivery.MergeRequest{ID: 5, IID: 1, ProjectID: 7, SourceProjectID: 7, SourceBranch: "next", TargetBranch: "main", State: "opened", HeadSHA: sha}
	seen := func(user int64) bool {
		t.Helper()
		if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: user, Source: pipeline.SourceMergeRequest, MergeRequest: &mr}); err != nil {
			t.Fatal(err)
		}
		_, ok := variable(w.run("job", "success"), "SECRET")
		return ok
	}
	if seen(1) {
		t.Error("the merge request of an unprotected branch sees a protected variable")
	}
	w.forge.Protect(7, "next")
	if !seen(1) {
		t.Error("the merge request of two protected branches does not see the variable")
	}
	if seen(2) {
		t.Error("a user who may not update the target sees the variable")
	}
	w.set(func(s *pipeline.ProjectSettings) { s.ProtectMergeRequests = false })
	if seen(1) {
		t.Error("the setting has no effect")
	}
}

func TestProjectSettingsReachPipelinesAndJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.forge.AddUser(delivery.User{ID: 2, Username: "dev"}, 7, delivery.Developer)
	w.set(func(s *pipeline.ProjectSettings) {
		s.BuildTimeout, s.GitDepth, s.GitStrategy, s.AutoCancel, s.RestrictVariables, s.SeparateCaches = 1200, 5, "clone", "disabled", true, false
	})
	config := "job: {script: x, interruptible: true, cache: {key: k, paths: [a]}}"
	old := w.create(config)
	w.createFiles(map[string]string{".gitlab-ci.yml": config, "x": "y"})
	if s := w.pipeline(old.ID).Status; s != "pending" {
		t.Errorf("the older pipeline is %s although canceling is turned off", s)
	}
	spec := w.take()
	if spec.RunnerInfo.Timeout != 1200 || spec.GitInfo.Depth != 5 || spec.AllowGitFetch || spec.Cache[0].Key != "k" {
		t.Errorf("timeout %d, depth %d, fetch %v, cache %q", spec.RunnerInfo.Timeout, spec.GitInfo.Depth, spec.AllowGitFetch, spec.Cache[0].Key)
	}
	w.forge.Commit(7, "dev", "change", map[string]string{".gitlab-ci.yml": config})
	given := pipeline.Request{ProjectID: 7, UserID: 2, Ref: "dev", Source: pipeline.SourceWeb, Variables: []pipeline.VariableValue{{Key: "A", Value: "b"}}}
	if _, err := w.engine.Create(w.ctx, given); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("a developer gives variables: %v", err)
	}
	w.set(func(s *pipeline.ProjectSettings) { s.JobsEnabled = false })
	given.Variables = nil
	if _, err := w.engine.Create(w.ctx, given); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("a pipeline although they are turned off: %v", err)
	}
}

func TestProjectFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	put := func(admin bool, body string) error {
		return w.engine.ChangeProjectFields(w.ctx, 7, admin, func(v any) error { return json.Unmarshal([]byte(body), v) })
	}
	if err := put(false, `{"build_timeout": 900, "builds_access_level": "disabled", "name": "app"}`); err != nil {
		t.Fatal(err)
	}
	fields, err := w.engine.ProjectFields(w.ctx, 7)
	if err != nil || fields["build_timeout"] != 900.0 || fields["jobs_enabled"] != false || fields["builds_access_level"] != "disabled" || fields["ci_default_git_depth"] != 20.0 {
		t.Errorf("%v %v", fields, err)
	}
	for body, kind := range map[string]delivery.Kind{
		`{"build_timeout": 5}`: delivery.Invalid, `{"build_git_strategy": "copy"}`: delivery.Invalid, `{"auto_cancel_pending_pipelines": "x"}`: delivery.Invalid,
		`{"kubernetes_namespaces": [{"environment_scope": "*", "namespace": "shop"}]}`: delivery.Forbidden,
	} {
		if err := put(false, body); delivery.KindOf(err) != kind {
			t.Errorf("%s: %v", body, err)
		}
	}
	for body, kind := range map[string]delivery.Kind{
		`{"kubernetes_namespaces": [{"environment_scope": "*", "namespace": "kube-system"}]}`: delivery.Invalid,
		`{"kubernetes_namespaces": [{"environment_scope": "*", "namespace": "shop"}]}`:        "",
		`{"build_timeout": 1000}`: "",
	} {
		if err := put(true, body); delivery.KindOf(err) != kind {
			t.Errorf("%s: %v", body, err)
		}
	}
	if s, err := w.engine.ProjectSettings(w.ctx, 7); err != nil || len(s.Namespaces) != 1 {
		t.Errorf("%+v %v", s, err)
	}
}
