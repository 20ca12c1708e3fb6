package pipeline_test

import (
	"testing"

	"github.com/slipwayhq/slipway/internal/pipeline"
)

const twoStages = `
stages: [build, test]
build:
  stage: build
  script: make
test:
  stage: test
  script: make test
`

func TestPushBecomesAPipelineThatRunnersFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	sha := w.push("main", map[string]string{".gitlab-ci.yml": twoStages})
	spec := w.take()
	if spec.JobInfo.Name != "build" || spec.GitInfo.SHA != sha || spec.Token == "" || spec.Steps[0].Script[0] != "make" {
		t.Errorf("job %+v", spec)
	}
	log := []byte("hello\nworld\n")
	if code, at, err := w.runner.Trace(w.ctx, spec, 0, log); code != 202 || at != "0-12" || err != nil {
		t.Errorf("trace: %d %s %v", code, at, err)
	}
	if code, at, _ := w.runner.Trace(w.ctx, spec, 20, log); code != 416 || at != "0-12" {
		t.Errorf("gap in trace: %d %s", code, at)
	}
	if code, _, _ := w.runner.Update(w.ctx, spec, "success", "", 0, []byte("other")); code != 412 {
		t.Errorf("wrong checksum: %d", code)
	}
	if code, at, err := w.runner.Trace(w.ctx, spec, 0, log); code != 202 || at != "0-12" || err != nil {
		t.Errorf("trace again: %d %s %v", code, at, err)
	}
	if code, _, _ := w.runner.Update(w.ctx, spec, "success", "", 0, log); code != 200 {
		t.Errorf("end: %d", code)
	}
	p := w.pipeline(spec.JobInfo.PipelineID)
	if p.Source != pipeline.SourcePush || p.Ref != "main" || p.Status != "running" || w.forge.Pinned["refs/pipelines/1"] != sha {
		t.Errorf("pipeline %+v", p)
	}
	w.run("test", "success")
	if p := w.pipeline(p.ID); p.Status != "success" || p.FinishedAt.IsZero() {
		t.Errorf("pipeline %+v", p)
	}
}

func TestEventsMakeOnePipelineOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.push("main", map[string]string{".gitlab-ci.yml": twoStages})
	w.run("build", "success")
	w.restart()
	w.run("test", "success")
	var total int
	if err := w.store.View(w.ctx, func(tx pipeline.Tx) error {
		var err error
		_, total, err = tx.Pipelines(pipeline.PipelineFilter{ProjectID: 7}, pipeline.Page{Limit: 10})
		return err
	}); err != nil || total != 1 {
		t.Errorf("%d pipelines, %v", total, err)
	}
}
