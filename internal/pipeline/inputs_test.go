package pipeline_test

import (
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestManualJobWithInputs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := w.create(`
ship:
  when: manual
  inputs: {target: {default: staging, options: [staging, production]}}
  script: ship --to ${{ job.inputs.target }}
`)
	id := w.jobs(p.ID)["ship"].ID
	for name, value := range map[string]string{"target": "moon", "tarjet": "staging"} {
		if _, err := w.engine.PlayJob(w.ctx, 1, id, nil, map[string]string{name: value}); delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%s %s: %v", name, value, err)
		}
	}
	if _, err := w.engine.PlayJob(w.ctx, 1, id, nil, map[string]string{"target": "production"}); err != nil {
		t.Fatal(err)
	}
	spec := w.run("ship", "failed")
	if got := spec.Steps[0].Script[0]; got != "ship --to production" {
		t.Errorf("script %q", got)
	}
	if _, err := w.engine.RetryJob(w.ctx, 1, id); err != nil {
		t.Fatal(err)
	}
	if got := w.run("ship", "success").Steps[0].Script[0]; got != "ship --to production" {
		t.Errorf("script of the retry %q", got)
	}
	w.create("ship: {inputs: {target: {default: staging}}, script: 'ship --to ${{ job.inputs.target }}'}")
	if got := w.run("ship", "success").Steps[0].Script[0]; got != "ship --to staging" {
		t.Errorf("script by default %q", got)
	}
}
