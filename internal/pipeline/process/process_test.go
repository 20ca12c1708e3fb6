package process

import (
	"errors"
	"strings"
	"testing"
)

// script is a tiny language of pipelines: "name@stage:when needs(a,b) flags",
// events and expected statuses. Flags: allow, resource, bridge.
type script struct {
	name  string
	jobs  string
	steps []string // "event job" or "job=status ..." or "pipeline=status"
}

func build(t *testing.T, text string) *Pipeline {
	t.Helper()
	var stages []string
	var jobs []Job
	at := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(text), ";") {
		fields := strings.Fields(line)
		name, stage, _ := strings.Cut(fields[0], "@")
		stage, when, _ := strings.Cut(stage, ":")
		w, err := ParseWhen(when)
		if err != nil {
			t.Fatal(err)
		}
		index := -1
		for i, s := range stages {
			if s == stage {
				index = i
			}
		}
		if index < 0 {
			index = len(stages)
			stages = append(stages, stage)
		}
		j := Job{Name: name, Stage: index, When: w}
		for _, f := range fields[1:] {
			switch {
			case f == "allow":
				j.AllowFailure = true
			case f == "resource":
				j.Resource = true
			case f == "bridge":
				j.Bridge = true
			default:
				j.DAG = true
				for _, n := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(f, "needs("), ")"), ",") {
					if n != "" {
						j.Needs = append(j.Needs, at[n])
					}
				}
			}
		}
		at[name] = len(jobs)
		jobs = append(jobs, j)
	}
	p, err := New(stages, jobs)
	if err != nil {
		t.Fatal(err)
	}
	p.Process()
	return p
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, s := range []script{
		{"a blocking manual job holds the stages after it", "build@a; gate@b:manual; deploy@c", []string{
			"success build", "gate=manual deploy=created pipeline=manual", "play gate", "gate=pending pipeline=running", "success gate", "deploy=pending pipeline=running"}},
		{"an optional manual job does not", "gate@a:manual allow; deploy@b", []string{"gate=manual deploy=pending pipeline=pending"}},
		{"always runs after a failure", "build@a; clean@b:always; deploy@c", []string{"drop build", "clean=pending deploy=created", "success clean", "deploy=skipped pipeline=failed"}},
		{"always does not run after a cancellation", "build@a; clean@b:always", []string{"cancel build", "clean=skipped pipeline=canceled"}},
		{"on_failure is skipped after success", "build@a; rescue@b:on_failure; deploy@c", []string{"success build", "rescue=skipped deploy=pending"}},
		{"an allowed failure counts as success", "lint@a allow; deploy@b", []string{"drop lint", "deploy=pending", "success deploy", "pipeline=success"}},
		{"a delayed job waits for its time", "later@a:delayed; deploy@b", []string{"later=scheduled pipeline=scheduled deploy=created", "due later", "later=pending", "success later", "deploy=pending"}},
		{"a delayed job can be unscheduled", "later@a:delayed", []string{"unschedule later", "later=manual pipeline=manual", "play later", "later=pending"}},
		{"a job with needs overtakes its stage", "slow@a; fast@a; test@b needs(fast)", []string{"success fast", "slow=pending test=pending"}},
		{"no needs start at once", "build@a; lint@b needs()", []string{"lint=pending"}},
		{"skipping follows needs", "build@a; test@b needs(build); deploy@c needs(test)", []string{"drop build", "test=skipped deploy=skipped pipeline=failed"}},
		{"a skipped need skips a job that runs always", "build@a; test@b needs(build); clean@c:always needs(test)", []string{"drop build", "test=skipped clean=pending"}},
		{"a resource is waited for", "deploy@a resource", []string{"deploy=waiting_for_resource pipeline=waiting_for_resource", "acquire deploy", "deploy=pending pipeline=pending"}},
		{"a canceling job ends as canceled", "build@a; test@b", []string{"run build", "start_cancel build", "build=canceling pipeline=running test=created", "drop build", "build=canceled test=skipped pipeline=canceled"}},
		{"a retry gives skipped jobs another chance", "build@a; test@b; deploy@c", []string{"drop build", "deploy=skipped", "retry build", "build=pending test=created deploy=created pipeline=running"}},
		{"a retried manual job starts at once", "build@a; gate@b:manual", []string{"success build", "play gate", "drop gate", "retry gate", "gate=pending"}},
		{"a bridge is never delayed", "child@a:delayed bridge", []string{"child=pending"}},
		{"a job that was not accepted goes back", "build@a", []string{"run build", "requeue build", "build=pending"}},
		{"a pipeline goes on when a manual job is played late", "build@a; gate@a:manual allow", []string{"success build", "pipeline=success", "play gate", "pipeline=running", "drop gate", "pipeline=success"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			p := build(t, s.jobs)
			for _, step := range s.steps {
				if !strings.Contains(step, "=") {
					word, name, _ := strings.Cut(step, " ")
					e, err := ParseEvent(word)
					if err != nil {
						t.Fatal(err)
					}
					for i := range p.Jobs {
						if p.Jobs[i].Name == name {
							if err := p.Apply(i, e); err != nil {
								t.Fatal(err)
							}
						}
					}
					continue
				}
				for _, want := range strings.Fields(step) {
					name, status, _ := strings.Cut(want, "=")
					got := p.Status
					for i := range p.Jobs {
						if p.Jobs[i].Name == name {
							got = p.Jobs[i].Status
						}
					}
					if got.String() != status {
						t.Errorf("after %q: %s is %s; want %s", step, name, got, status)
					}
				}
			}
		})
	}
}

func TestRefusedTransitionsChangeNothing(t *testing.T) {
	t.Parallel()
	p := build(t, "build@a; test@b")
	var refused *TransitionError
	if err := p.Apply(1, EventRun); !errors.As(err, &refused) || refused.From != Created || p.Jobs[1].Status != Created {
		t.Errorf("running a created job: %v, %s", err, p.Jobs[1].Status)
	}
	if err := p.Apply(0, EventRetry); !errors.As(err, &refused) {
		t.Errorf("retrying a pending job: %v", err)
	}
}

func TestCircularNeedsAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := New([]string{"a"}, []Job{{Name: "x", DAG: true, Needs: []int{1}}, {Name: "y", DAG: true, Needs: []int{0}}}); err == nil {
		t.Error("a circle of needs is accepted")
	}
	if _, err := New([]string{"a"}, []Job{{Name: "x", Needs: []int{7}}}); err == nil {
		t.Error("a need out of range is accepted")
	}
}

func TestStatusNamesAreReversible(t *testing.T) {
	t.Parallel()
	for s := range statusCount {
		if back, err := ParseStatus(s.String()); err != nil || back != s {
			t.Errorf("%d: %v %v", s, back, err)
		}
	}
}
