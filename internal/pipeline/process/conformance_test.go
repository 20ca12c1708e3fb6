package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// conformanceFolder returns the folder of shared conformance data: the
// environment's, or ../shared/conformance beside the module.
func conformanceFolder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLIPWAY_CONFORMANCE")
	if dir == "" {
		at, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
				break
			}
			if filepath.Dir(at) == at {
				t.Fatal("no go.mod above the test")
			}
			at = filepath.Dir(at)
		}
		dir = filepath.Join(at, "..", "shared", "conformance")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no conformance data at %s: set SLIPWAY_CONFORMANCE to its folder", dir)
	}
	return dir
}

type expectation struct {
	Pipeline string            `yaml:"pipeline"`
	Stages   map[string]string `yaml:"stages"`
	Jobs     map[string]string `yaml:"jobs"`
}

type processingCase struct {
	Config yaml.Node `yaml:"config"`
	Init   struct {
		Expect expectation `yaml:"expect"`
	} `yaml:"init"`
	Transitions []struct {
		Event  string      `yaml:"event"`
		Jobs   []string    `yaml:"jobs"`
		Expect expectation `yaml:"expect"`
	} `yaml:"transitions"`
}

func TestConformancePipelineProcessing(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(conformanceFolder(t), "pipeline-processing", "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("the folder has no cases")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c processingCase
			if err := yaml.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(&c.Config)
			if err != nil {
				t.Fatal(err)
			}
			p, retries, groups := planned(t, text)
			p.Process()
			assign(p, groups)
			compare(t, "init", p, c.Init.Expect)
			for n, step := range c.Transitions {
				if err := happen(p, retries, step.Event, step.Jobs); err != nil {
					t.Fatalf("transition %d: %v", n, err)
				}
				assign(p, groups)
				compare(t, fmt.Sprintf("transition %d (%s %v)", n, step.Event, step.Jobs), p, step.Expect)
			}
		})
	}
}

// assign gives every free resource group to the first job that waits for it.
func assign(p *process.Pipeline, groups map[string]string) {
	held := map[string]bool{}
	for _, j := range p.Jobs {
		switch j.Status {
		case process.Preparing, process.Pending, process.Running, process.Canceling:
			held[groups[j.Name]] = true
		}
	}
	for i, j := range p.Jobs {
		if g := groups[j.Name]; j.Status == process.WaitingForResource && !held[g] {
			held[g] = true
			if err := p.Apply(i, process.EventAcquire); err != nil {
				panic(err)
			}
		}
	}
}

// happen applies an event to the named jobs, or to the whole pipeline.
func happen(p *process.Pipeline, retries []int, event string, jobs []string) error {
	if jobs == nil {
		switch event {
		case "retry":
			p.Retry()
		case "cancel":
			p.Cancel(nil)
		default:
			return fmt.Errorf("%s is not an event of pipelines", event)
		}
		return nil
	}
	for _, name := range jobs {
		index := -1
		for i := range p.Jobs {
			if p.Jobs[i].Name == name {
				index = i
			}
		}
		if index < 0 {
			return fmt.Errorf("there is no job %q", name)
		}
		e, err := process.ParseEvent(event)
		if err != nil {
			return err
		}
		if err := p.Change(index, e); err != nil {
			return err
		}
		if e == process.EventDrop && p.Jobs[index].Attempt < retries[index] {
			if err := p.Change(index, process.EventRetry); err != nil {
				return err
			}
		}
	}
	p.Process()
	return nil
}

func compare(t *testing.T, step string, p *process.Pipeline, want expectation) {
	t.Helper()
	if want.Pipeline != "" && p.Status.String() != want.Pipeline {
		t.Errorf("%s: pipeline is %s; want %s", step, p.Status, want.Pipeline)
	}
	if want.Stages != nil && len(want.Stages) != len(p.Stages) {
		t.Errorf("%s: stages %v; want %v", step, p.StageNames, want.Stages)
	}
	for i, name := range p.StageNames {
		if w := want.Stages[name]; want.Stages != nil && p.Stages[i].String() != w {
			t.Errorf("%s: stage %s is %s; want %s", step, name, p.Stages[i], w)
		}
	}
	if want.Jobs != nil && len(want.Jobs) != len(p.Jobs) {
		t.Errorf("%s: there are %d jobs; want %d", step, len(p.Jobs), len(want.Jobs))
	}
	for _, j := range p.Jobs {
		if w := want.Jobs[j.Name]; want.Jobs != nil && j.Status.String() != w {
			t.Errorf("%s: job %s is %s; want %s", step, j.Name, j.Status, w)
		}
	}
}
