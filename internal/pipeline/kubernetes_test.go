package pipeline_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// clusters grants what it is asked for and notes it.
type clusters struct{ asked []pipeline.ClusterRequest }

func (c *clusters) JobAccess(_ context.Context, r pipeline.ClusterRequest) (pipeline.ClusterAccess, error) {
	c.asked = append(c.asked, r)
	if r.Wanted == "other" {
		return pipeline.ClusterAccess{}, delivery.Errorf(delivery.Invalid, "The environment may not change the namespace other.")
	}
	return pipeline.ClusterAccess{Kubeconfig: "kubeconfig of " + r.Environment, Namespace: "shop", Token: "the-token-of-the-job"}, nil
}

func TestJobsGetAccessToTheCluster(t *testing.T) {
	t.Parallel()
	c := &clusters{}
	w := newWorld(t, func(cfg *pipeline.Config) { cfg.Clusters = c })
	w.set(func(s *pipeline.ProjectSettings) {
		s.Namespaces = []pipeline.NamespaceGrant{{Environment: "prod*", Namespace: "shop", Protected: true}, {Environment: "staging", Namespace: "next"}}
	})
	config := `
plain: {stage: build, script: x}
review: {stage: build, script: x, environment: review}
asks:
  stage: test
  script: x
  timeout: 20 minutes
  environment: {name: review, kubernetes: {namespace: "$CI_PROJECT_NAME"}}
prod: {stage: deploy, script: x, environment: production}
wrong: {stage: .post, script: x, environment: {name: review, kubernetes: {namespace: other}}}
`
	p := w.create(config)
	for _, name := range []string{"plain", "review"} {
		spec := w.run(name, "success")
		if _, ok := variable(spec, "KUBECONFIG"); ok {
			t.Errorf("%s gets access that it did not ask for", name)
		}
	}
	spec := w.run("asks", "success")
	kubeconfig, _ := variable(spec, "KUBECONFIG")
	token, _ := variable(spec, "KUBE_TOKEN")
	if kubeconfig.Value != "kubeconfig of review" || !kubeconfig.File || !token.Masked {
		t.Errorf("%+v %+v", kubeconfig, token)
	}
	if got := c.asked[0]; got.Wanted != "app" || len(got.Granted) != 0 || got.Slug != "review" || got.Lifetime != 21*time.Minute {
		t.Errorf("asked for %+v", got)
	}
	spec = w.run("prod", "success")
	if v, _ := variable(spec, "KUBE_NAMESPACE"); v.Value != "shop" || len(c.asked[1].Granted) != 1 {
		t.Errorf("%+v, asked for %+v", v, c.asked[1])
	}
	go w.runner.Request(w.ctx)
	w.eventually("the job that wants too much fails", func() bool { return w.jobs(p.ID)["wrong"].Status == "failed" })
	j := w.jobs(p.ID)["wrong"]
	if j.FailureReason != pipeline.ReasonUnmet {
		t.Errorf("it failed with %s", j.FailureReason)
	}
	var log strings.Builder
	if err := w.engine.FollowLog(w.ctx, j.ID, 0, func(_ int64, b []byte) error { log.Write(b); return nil }); err != nil || !strings.Contains(log.String(), "namespace other") {
		t.Errorf("log %q %v", log.String(), err)
	}
}

func TestNamespacesOfProtectedBranchesOnly(t *testing.T) {
	t.Parallel()
	c := &clusters{}
	w := newWorld(t, func(cfg *pipeline.Config) { cfg.Clusters = c })
	w.set(func(s *pipeline.ProjectSettings) {
		s.Namespaces = []pipeline.NamespaceGrant{{Environment: "*", Namespace: "shop", Protected: true}}
	})
	w.forge.Commit(7, "feature", "change", map[string]string{".gitlab-ci.yml": "prod: {script: x, environment: production}"})
	if _, err := w.engine.Create(w.ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "feature", Source: pipeline.SourceWeb}); err != nil {
		t.Fatal(err)
	}
	if spec := w.run("prod", "success"); len(c.asked) != 0 {
		_, ok := variable(spec, "KUBECONFIG")
		t.Errorf("an unprotected branch asked for %+v, got %v", c.asked, ok)
	}
}

func TestResourceGroupModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{"oldest_first": "1 2 3", "newest_first": "3 2 1", "newest_ready_first": "3 2 1", "unordered": "1 2 3"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.set(func(s *pipeline.ProjectSettings) { s.AutoCancel = "disabled" })
			config := "first: {stage: build, script: x}\nship: {stage: deploy, script: x, resource_group: boat}\n"
			holder := w.create("ship: {script: x, resource_group: boat}")
			held := w.take()
			number := map[int64]string{}
			for _, n := range []string{"1", "2", "3"} {
				p := w.createFiles(map[string]string{".gitlab-ci.yml": config, "n": n})
				number[p.ID] = n
				w.run("first", "success")
			}
			if err := w.engine.SetResourceMode(w.ctx, 7, "boat", mode); err != nil {
				t.Fatal(err)
			}
			w.end(held, "success")
			var got []string
			for range 3 {
				got = append(got, number[w.run("ship", "success").JobInfo.PipelineID])
			}
			if strings.Join(got, " ") != want {
				t.Errorf("order %v; want %s", got, want)
			}
			w.wantJobs(holder.ID, map[string]string{"ship": "success"})
		})
	}
}

func TestOldestFirstWaitsForJobsThatAreNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.set(func(s *pipeline.ProjectSettings) { s.AutoCancel = "disabled" })
	once := w.create("ship: {script: x, resource_group: boat}")
	w.run("ship", "success")
	w.wantJobs(once.ID, map[string]string{"ship": "success"})
	if err := w.engine.SetResourceMode(w.ctx, 7, "boat", "oldest_first"); err != nil {
		t.Fatal(err)
	}
	old := w.create("first: {stage: build, script: x}\nship: {stage: deploy, script: x, resource_group: boat}")
	first := w.take()
	newer := w.createFiles(map[string]string{".gitlab-ci.yml": "ship: {script: x, resource_group: boat}", "n": "2"})
	w.wantJobs(newer.ID, map[string]string{"ship": "waiting_for_resource"})
	w.end(first, "failed") // the older one will not come
	w.wantJobs(old.ID, map[string]string{"ship": "skipped"})
	w.run("ship", "success")
	w.wantJobs(newer.ID, map[string]string{"ship": "success"})
	if err := w.engine.SetResourceMode(w.ctx, 7, "boat", "sideways"); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("an unknown mode: %v", err)
	}
}
