package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/local"
)

// Executor makes the executor of `slipway ci run` and names the folder its jobs see their builds in;
// an empty name is the host's own path.
type Executor func(ctx context.Context) (executor runner.Executor, buildsDir string, err error)

func shellExecutor(context.Context) (runner.Executor, string, error) { return local.New(), "", nil }

type runOptions struct {
	event
	executor   Executor
	concurrent int
	artifacts  string
	verbose    bool
	json       bool
}

func runCommand(executor Executor) *cobra.Command {
	o := runOptions{executor: executor}
	c := &cobra.Command{
		Use:   "run [FILE] [JOB...]",
		Short: "Run the pipeline on the working copy, before the push",
		Long: "Run the pipeline on the working copy as it is, files that are not committed included. The jobs run\n" +
			"in a checkout of their own, so the working copy is not touched. With names, only those jobs and what\n" +
			"they need run; manual jobs, and jobs of an environment, run only when they are named.",
		Example: "  slipway ci run\n  slipway ci run .gitlab-ci.yml test lint\n  slipway ci run --tag v1.0.0 --var DEBUG=1",
		RunE: func(c *cobra.Command, args []string) error {
			file, jobs := splitRunArgs(args)
			f, err := open(c, file)
			if err != nil {
				return err
			}
			return o.run(c, f, jobs)
		},
	}
	o.flags(c)
	c.Flags().IntVar(&o.concurrent, "concurrent", runtime.NumCPU(), "most jobs at a time")
	c.Flags().StringVar(&o.artifacts, "artifacts", "", "keep the jobs' artifacts in this folder")
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "show the runner's own words too")
	c.Flags().BoolVar(&o.json, "json", false, "print the result as JSON; the jobs' output goes to standard error")
	return c
}

// splitRunArgs tells the file from names of jobs: the first argument is a file when it looks like one
// or is there.
func splitRunArgs(args []string) (file, jobs []string) {
	if len(args) == 0 {
		return nil, nil
	}
	if _, err := os.Stat(args[0]); err == nil || strings.HasSuffix(args[0], ".yml") || strings.HasSuffix(args[0], ".yaml") {
		return args[:1], args[1:]
	}
	return nil, args
}

func (o *runOptions) run(c *cobra.Command, f *file, names []string) error {
	if o.concurrent < 1 {
		return usage(c, errors.New("--concurrent must be at least 1"))
	}
	config, facts, diags, err := o.compile(c, f)
	if err != nil {
		return err
	}
	if diags.Failed() {
		return fail(c, o.json, diags)
	}
	plan, more := gitlabci.Plan(c.Context(), config, facts)
	if more.Failed() {
		return fail(c, o.json, f.placed(more))
	}
	writeFindings(c.ErrOrStderr(), diags)
	if !plan.Run {
		fmt.Fprintf(c.ErrOrStderr(), "No pipeline: %s.\n", plan.Reason)
		return nil
	}
	selected, err := selectJobs(plan, names)
	if err != nil {
		return usage(c, err)
	}
	result, err := o.execute(c, f, facts, selected, names)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "slipway: %s\n", delivery.UserMessage(err))
		return exitError(exitInvalid)
	}
	if o.json {
		err = writeJSON(c.OutOrStdout(), result)
	} else {
		result.write(c.OutOrStdout())
	}
	if err == nil && result.Status != "success" {
		err = exitError(exitInvalid)
	}
	return err
}

// execute runs the selected jobs to their end.
func (o *runOptions) execute(c *cobra.Command, f *file, facts gitlabci.Context, plan *gitlabci.Pipeline, names []string) (*runResult, error) {
	dir, err := os.MkdirTemp("", "slipway-ci-run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	snapshot, err := takeSnapshot(c.Context(), f.folder, dir, facts)
	if err != nil {
		return nil, err
	}
	runnerDir, err := runnerFolder(dir, snapshot.root)
	if err != nil {
		return nil, err
	}
	out := io.Writer(c.OutOrStdout())
	if o.json {
		out = c.ErrOrStderr()
	}
	coordinator, err := newCoordinator(plan, facts, snapshot, dir, &printer{w: out, colour: isTerminal(out), verbose: o.verbose}, names)
	if err != nil {
		return nil, err
	}
	executor, buildsDir, err := o.executor(c.Context())
	if err != nil {
		return nil, err
	}
	worker, err := runner.New(runner.Config{
		Dir: runnerDir, BuildsDir: buildsDir, Name: "slipway ci run", Repositories: snapshot, Concurrent: o.concurrent,
	}, coordinator, executor)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	go func() {
		defer stop()
		select {
		case <-coordinator.done:
		case <-ctx.Done():
		}
	}()
	if err := worker.Run(ctx); err != nil {
		return nil, err
	}
	if o.artifacts != "" {
		if err := coordinator.keepArtifacts(o.artifacts); err != nil {
			return nil, err
		}
	}
	return coordinator.result(), nil
}

// runnerFolder makes the runner's folder; caches outlive it, one set per working copy.
func runnerFolder(dir, root string) (string, error) {
	folder := filepath.Join(dir, "runner")
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "slipway", "ci-run", gitlabci.Slug(root))
	if err := errors.Join(os.MkdirAll(cache, 0o700), os.MkdirAll(folder, 0o711)); err != nil {
		return "", err
	}
	return folder, os.Symlink(cache, filepath.Join(folder, "cache"))
}

// selectJobs keeps the named jobs with all they need. No names keep everything.
func selectJobs(plan *gitlabci.Pipeline, names []string) (*gitlabci.Pipeline, error) {
	if len(names) == 0 {
		return plan, nil
	}
	index := make(map[string]int, len(plan.Jobs))
	for i := range plan.Jobs {
		index[plan.Jobs[i].Name] = i
	}
	keep := make([]bool, len(plan.Jobs))
	var add func(i int)
	add = func(i int) {
		if keep[i] {
			return
		}
		keep[i] = true
		for _, n := range plan.Jobs[i].Needs {
			add(index[n.Job])
		}
		for _, d := range plan.Jobs[i].Dependencies {
			add(index[d])
		}
	}
	for _, name := range names {
		found := false
		for i := range plan.Jobs {
			if named(&plan.Jobs[i], name) {
				found = true
				add(i)
			}
		}
		if !found {
			return nil, fmt.Errorf("no job %q would run; slipway ci plan lists them", name)
		}
	}
	out := *plan
	out.Jobs = nil
	for i := range plan.Jobs {
		if keep[i] {
			out.Jobs = append(out.Jobs, plan.Jobs[i])
		}
	}
	return &out, nil
}

// named reports whether a name stands for the job: its own, or that of all instances.
func named(j *gitlabci.Job, name string) bool { return j.Name == name || j.Group == name }
