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
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/runner"
	"github.com/slipwayhq/slipway/internal/runner/local"
)

// Place is where the jobs of `slipway ci run` run.
type Place struct {
	Executor  runner.Executor
	BuildsDir string // where jobs see their builds folder; empty: the host's own path
	Tools     []runner.ToolMount
	Limits    runner.Limits
	MaxLimits runner.Limits
	Memory    int64  // bytes for all jobs; 0: no limit
	Notice    string // what people should know about the place; may be empty
	// Credentials let jobs pull images.
	Credentials []delivery.JobCredential
	// Close gives back what the place holds; may be nil.
	Close func(context.Context) error
}

// Executors are the values of --executor.
const (
	ExecutorAuto       = "auto"       // containers where jobs name images and they can be had
	ExecutorContainers = "containers" // or an error
	ExecutorHost       = "host"       // processes of this host
)

// Places finds a place for jobs. wanted is one of the values of --executor;
// images reports whether a job names an image or a service.
type Places func(ctx context.Context, wanted string, images bool) (Place, error)

// OnHost is the place for jobs that have no other; reason says why.
func OnHost(reason string) Place {
	p := Place{Executor: local.New()}
	if reason != "" {
		p.Notice = "Jobs run as processes of this host, without their images and services: " + reason
	}
	return p
}

func hostOnly(_ context.Context, wanted string, images bool) (Place, error) {
	const reason = "containers need a running platform on this machine, and root."
	if wanted == ExecutorContainers {
		return Place{}, delivery.Errorf(delivery.Unavailable, "There are no containers here: %s", reason)
	}
	if !images || wanted == ExecutorHost {
		return OnHost(""), nil
	}
	return OnHost(reason), nil
}

type runOptions struct {
	event
	places     Places
	executor   string
	concurrent int
	artifacts  string
	verbose    bool
	json       bool
}

func runCommand(places Places) *cobra.Command {
	o := runOptions{places: places}
	c := &cobra.Command{
		Use:   "run [FILE] [JOB...]",
		Short: "Run the pipeline on the working copy, before the push",
		Long: "Run the pipeline on the working copy as it is, files that are not committed included. The jobs run\n" +
			"in a checkout of their own, so the working copy is not touched. With names, only those jobs and what\n" +
			"they need run; manual jobs, and jobs of an environment, run only when they are named.\n\n" +
			"Jobs that name images run in containers where Slipway runs on this machine and the caller is root;\n" +
			"otherwise they are processes of this host.",
		Example: "  slipway ci run\n  slipway ci run .gitlab-ci.yml test lint\n  slipway ci run --tag v1.0.0 --var DEBUG=1\n  sudo slipway ci run --executor containers",
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
	c.Flags().StringVar(&o.executor, "executor", ExecutorAuto, "where jobs run: auto, containers or host")
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
	if o.executor != ExecutorAuto && o.executor != ExecutorContainers && o.executor != ExecutorHost {
		return usage(c, fmt.Errorf("--executor is %s, %s or %s", ExecutorAuto, ExecutorContainers, ExecutorHost))
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
	for i := range selected.Jobs {
		filled, err := selected.Jobs[i].WithInputs(nil)
		if err != nil {
			return err
		}
		selected.Jobs[i] = *filled
	}
	result, err := o.execute(c, f, facts, selected, names)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "slipway: %s\n", delivery.UserMessage(err))
		return exitError(exitInvalid)
	}
	if o.json {
		err = output.JSON(c.OutOrStdout(), result)
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
	place, err := o.places(c.Context(), o.executor, wantsImages(plan))
	if err != nil {
		return nil, err
	}
	if place.Close != nil {
		defer func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 30*time.Second)
			defer cancel()
			if err := place.Close(closing); err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "slipway: the containers' networks were not removed: %v\n", err)
			}
		}()
	}
	if place.Notice != "" {
		fmt.Fprintln(c.ErrOrStderr(), place.Notice)
	}
	dir, err := os.MkdirTemp("", "slipway-ci-run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // users of containers pass through to their builds
		return nil, err
	}
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
	coordinator.credentials = place.Credentials
	worker, err := runner.New(runner.Config{
		Dir: runnerDir, BuildsDir: place.BuildsDir, Name: "slipway ci run", Repositories: snapshot, Concurrent: o.concurrent,
		Tools: place.Tools, Limits: place.Limits, MaxLimits: place.MaxLimits, MemoryBudget: place.Memory,
	}, coordinator, place.Executor)
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

// wantsImages reports whether a job that would run names an image or services.
func wantsImages(plan *gitlabci.Pipeline) bool {
	for i := range plan.Jobs {
		if j := &plan.Jobs[i]; j.Trigger == nil && (j.Image != nil || len(j.Services) > 0) {
			return true
		}
	}
	return false
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
