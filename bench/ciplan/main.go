// Command ciplan measures `slipway ci plan` as a whole process on a generated pipeline with includes,
// extends, matrix and needs, beside gitlab-ci-local on the same file when it is installed.
//
//	go run ./bench/ciplan -slipway bin/slipway -alternative node_modules/.bin/gitlab-ci-local
//
// It owns the generator and the timing; it imports the standard library only.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

type options struct {
	jobs, runs           int
	slipway, alternative string
	folder               string
	json                 bool
}

// result is what one program took.
type result struct {
	Program string  `json:"program"`
	Jobs    int     `json:"jobs"`
	Runs    int     `json:"runs"`
	Median  float64 `json:"median_ms"`
	Worst   float64 `json:"worst_ms"`
}

func main() {
	var o options
	flag.IntVar(&o.jobs, "jobs", 1000, "jobs in the plan, at least 100")
	flag.IntVar(&o.runs, "runs", 15, "measured runs of slipway; the alternative gets a third")
	flag.StringVar(&o.slipway, "slipway", "bin/slipway", "program to measure")
	flag.StringVar(&o.alternative, "alternative", "", "gitlab-ci-local to measure beside it; empty: skip")
	flag.StringVar(&o.folder, "folder", "", "keep the generated pipeline here; default: a temporary folder")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "ciplan:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	folder := o.folder
	if folder == "" {
		var err error
		if folder, err = os.MkdirTemp("", "ciplan-"); err != nil {
			return err
		}
		defer os.RemoveAll(folder)
	}
	if err := generate(folder, o.jobs); err != nil {
		return err
	}
	slipway, err := filepath.Abs(o.slipway)
	if err != nil {
		return err
	}
	ours, err := measure(folder, o.runs, countPlan, slipway, "ci", "plan", "--json")
	if err != nil {
		return err
	}
	ours.Program = "slipway ci plan"
	results := []result{ours}
	if ours.Jobs != o.jobs {
		return fmt.Errorf("the plan has %d jobs instead of %d", ours.Jobs, o.jobs)
	}
	if o.alternative != "" {
		program, err := filepath.Abs(o.alternative)
		if err != nil {
			return err
		}
		// It reads git's remote and branch.
		if err := gitInit(folder); err != nil {
			return err
		}
		other, err := measure(folder, max(1, o.runs/3), countList, program, "--list-json")
		if err != nil {
			return err
		}
		other.Program = "gitlab-ci-local --list-json"
		results = append(results, other)
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(results)
	}
	for _, r := range results {
		fmt.Printf("%-30s %5d jobs  median %7.1f ms  worst %7.1f ms  (%d runs)\n", r.Program, r.Jobs, r.Median, r.Worst, r.Runs)
	}
	return nil
}

// measure runs a program in a folder, once to warm the disk cache and then `runs` times.
func measure(folder string, runs int, count func([]byte) (int, error), program string, args ...string) (result, error) {
	var r result
	times := make([]float64, 0, runs)
	// A file, since the alternative loses what does not fit into a pipe when it exits.
	out, err := os.CreateTemp("", "ciplan-out-")
	if err != nil {
		return r, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	for i := 0; i <= runs; i++ {
		if err := out.Truncate(0); err != nil {
			return r, err
		}
		if _, err := out.Seek(0, 0); err != nil {
			return r, err
		}
		c := exec.Command(program, args...)
		c.Dir = folder
		var errs bytes.Buffer
		c.Stdout, c.Stderr = out, &errs
		start := time.Now()
		err := c.Run()
		took := time.Since(start)
		if err != nil {
			return r, fmt.Errorf("%s: %w\n%s", program, err, errs.String())
		}
		if i == 0 {
			text, err := os.ReadFile(out.Name())
			if err != nil {
				return r, err
			}
			if r.Jobs, err = count(text); err != nil {
				return r, fmt.Errorf("%s: %w", program, err)
			}
			continue
		}
		times = append(times, float64(took.Microseconds())/1000)
	}
	sort.Float64s(times)
	r.Runs, r.Median, r.Worst = runs, times[len(times)/2], times[len(times)-1]
	return r, nil
}

func countPlan(out []byte) (int, error) {
	var plan struct{ Jobs []json.RawMessage }
	err := json.Unmarshal(out, &plan)
	return len(plan.Jobs), err
}

func countList(out []byte) (int, error) {
	var jobs []json.RawMessage
	err := json.Unmarshal(out, &jobs)
	return len(jobs), err
}

func gitInit(folder string) error {
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"remote", "add", "origin", "git@gitlab.example.com:group/project.git"},
		{"add", "-A"},
		{"-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "generated"},
	} {
		if _, err := os.Stat(filepath.Join(folder, ".git", "refs", "heads", "main")); err == nil {
			return nil
		}
		c := exec.Command("git", args...)
		c.Dir = folder
		if out, err := c.CombinedOutput(); err != nil && args[0] != "remote" {
			return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

const (
	groups     = 10 // included files
	matrixSize = 4  // jobs of one matrix
)

// generate writes a pipeline whose plan has exactly `jobs` jobs: every included file holds builds,
// a matrix of tests per build, and deployments that need them.
func generate(folder string, jobs int) error {
	if jobs < 100 {
		return fmt.Errorf("at least 100 jobs, not %d", jobs)
	}
	if err := os.MkdirAll(filepath.Join(folder, "ci"), 0o755); err != nil {
		return err
	}
	write := func(name, text string) error {
		return os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644)
	}
	if err := write("ci/base.yml", baseFile); err != nil {
		return err
	}
	var root strings.Builder
	root.WriteString(rootFile)
	left := jobs
	for g := range groups {
		share := left / (groups - g)
		left -= share
		fmt.Fprintf(&root, "  - local: ci/group%d.yml\n", g)
		if err := write(fmt.Sprintf("ci/group%d.yml", g), group(g, share)); err != nil {
			return err
		}
	}
	return write(".gitlab-ci.yml", root.String())
}

const rootFile = `stages: [build, test, deploy]
workflow:
  rules:
    - if: $CI_COMMIT_TAG
    - if: $CI_COMMIT_BRANCH
variables:
  REGISTRY: registry.example.com
  IMAGE: $REGISTRY/$CI_PROJECT_PATH
default:
  image: debian:bookworm-slim
  tags: [linux]
  retry: {max: 1, when: [runner_system_failure]}
include:
  - local: ci/base.yml
`

const baseFile = `.rules:
  rules:
    - if: $CI_PIPELINE_SOURCE == "schedule"
      when: never
    - if: $CI_COMMIT_BRANCH =~ /^(main|release-.*)$/ || $CI_COMMIT_TAG
    - if: $CI_COMMIT_BRANCH
.base:
  extends: .rules
  before_script:
    - echo "job $CI_JOB_NAME"
    - ./prepare.sh
  cache:
    key: {files: [package-lock.json], prefix: $CI_JOB_STAGE}
    paths: [.cache/]
.build:
  extends: .base
  stage: build
  variables: {KIND: build, LEVEL: "1"}
  artifacts: {paths: [out/], expire_in: 1 week}
.test:
  extends: .base
  stage: test
  variables: {KIND: test}
  script: [!reference [.base, before_script], ./test.sh "$SHARD"]
  artifacts: {when: always, reports: {junit: report.xml}}
.deploy:
  extends: [.base]
  stage: deploy
  variables: {KIND: deploy}
  environment: {name: review/$CI_COMMIT_REF_SLUG, url: https://review.example.com}
`

// group is one included file with `share` jobs.
func group(g, share int) string {
	var b strings.Builder
	for i := 0; share > 0; i++ {
		name := fmt.Sprintf("service-%d-%d", g, i)
		fmt.Fprintf(&b, "build %s:\n  extends: .build\n  variables: {SERVICE: %s}\n  script: [make -C %s build, make -C %s package]\n", name, name, name, name)
		share--
		if share >= matrixSize {
			fmt.Fprintf(&b, "test %s:\n  extends: .test\n  needs: [build %s]\n  parallel:\n    matrix:\n      - SHARD: [a, b]\n        PLATFORM: [amd64, arm64]\n", name, name)
			share -= matrixSize
			if share > 0 {
				fmt.Fprintf(&b, "deploy %s:\n  extends: .deploy\n  needs: [test %s, {job: build %s, artifacts: true}]\n  script: [./deploy.sh %s]\n", name, name, name, name)
				share--
			}
		}
	}
	return b.String()
}
