package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// stages runs everything between the preparation and the report.
func (j *job) stages(ctx context.Context) error {
	err := j.log.Section("get_sources", "Getting source from Git repository", func() error {
		return j.sources(j.errs, false).get(ctx)
	})
	if err == nil {
		err = j.openProject()
	}
	if err == nil && len(j.spec.Cache) > 0 {
		err = j.log.Section("restore_cache", "Restoring cache", func() error { return j.restoreCaches(ctx) })
	}
	if err == nil && j.hasDependencies() {
		err = j.log.Section("download_artifacts", "Downloading artifacts", func() error { return j.downloadArtifacts(ctx) })
	}
	ready := err == nil
	if ready {
		err = j.userScripts(ctx)
	}
	if j.project == nil || ctx.Err() != nil {
		return err
	}
	// The job may have replaced its own folder.
	if openErr := j.openProject(); openErr != nil {
		return errors.Join(err, openErr)
	}
	succeeded := err == nil
	if section, title := "archive_cache", "Saving cache for successful job"; ready && j.savesCache(succeeded) {
		if !succeeded {
			section, title = "archive_cache_on_failure", "Saving cache for failed job"
		}
		cacheErr := j.log.Section(section, title, func() error { return j.saveCaches(ctx, succeeded) })
		if err == nil {
			err = cacheErr
		}
	}
	if section, title := "upload_artifacts_on_success", "Uploading artifacts for successful job"; ready && j.savesArtifacts(succeeded) {
		if !succeeded {
			section, title = "upload_artifacts_on_failure", "Uploading artifacts for failed job"
		}
		uploadErr := j.log.Section(section, title, func() error { return j.uploadArtifacts(ctx, succeeded) })
		if err == nil {
			err = uploadErr
		}
	}
	cleanup := func() error { return j.builds.RemoveAll(j.relativeDir() + ".tmp") }
	if cleanErr := j.log.Section("cleanup_file_variables", "Cleaning up project directory and file based variables", cleanup); cleanErr != nil {
		j.runner.logger.Warn("remove file variables", "job", j.spec.ID, "error", cleanErr)
	}
	return err
}

func (j *job) hasDependencies() bool {
	for _, dependency := range j.spec.Dependencies {
		if dependency.ArtifactsFile.Filename != "" {
			return true
		}
	}
	return false
}

func (j *job) savesCache(succeeded bool) bool {
	for _, cache := range j.spec.Cache {
		if due(cache.When, succeeded) && (len(cache.Paths) > 0 || cache.Untracked) {
			return true
		}
	}
	return false
}

func (j *job) savesArtifacts(succeeded bool) bool {
	for _, artifact := range j.spec.Artifacts {
		if due(artifact.When, succeeded) && (len(artifact.Paths) > 0 || artifact.Untracked) {
			return true
		}
	}
	return false
}

// userScripts runs the steps and then after_script, which also runs after a
// failure, a cancellation and a script timeout, but not after the job's own.
func (j *job) userScripts(ctx context.Context) error {
	scriptCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j.mu.Lock()
	outer := j.cancel
	j.cancel = cancel
	j.mu.Unlock()
	// A cancellation that came before takes effect here too.
	limited, stop := j.limit(scriptCtx, "RUNNER_SCRIPT_TIMEOUT", 0)
	defer stop()
	var err error
	for _, step := range j.spec.Steps {
		if step.Name == "after_script" {
			continue
		}
		if err = j.step(limited, step, j.variables); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if limited.Err() != nil {
		err = context.Cause(limited)
	}
	if errors.Is(err, errCanceled) {
		j.log.Warn("script canceled externally (UI, API)")
	}
	afterErr := j.afterScript(ctx, err)
	j.setCancel(outer)
	if afterErr == nil || ctx.Err() != nil {
		return err
	}
	ignored := j.variables.Get("AFTER_SCRIPT_IGNORE_ERRORS")
	if ignored == "" || j.variables.Bool("AFTER_SCRIPT_IGNORE_ERRORS") {
		j.log.Warn("after_script failed, but job will continue unaffected: %v", afterErr)
		return err
	}
	if err == nil {
		err = afterErr
	}
	return err
}

// limit bounds a stage by a variable that holds a duration.
func (j *job) limit(ctx context.Context, variable string, normal time.Duration) (context.Context, context.CancelFunc) {
	limit := normal
	if text := j.variables.Get(variable); text != "" {
		given, err := time.ParseDuration(text)
		if err != nil || given <= 0 {
			j.log.Warn("Ignoring malformed %s timeout: %s", variable, text)
		} else {
			limit = given
		}
	}
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, &JobError{Reason: ReasonTimeout, Message: "script timeout: context deadline exceeded"})
}

func (j *job) step(ctx context.Context, step delivery.JobStep, variables Variables) error {
	if len(step.Script) == 0 {
		return nil
	}
	stage := "step_" + strings.ToLower(step.Name)
	return j.log.Section(stage, fmt.Sprintf("Executing %q stage of the job script", stage), func() error {
		return j.script(ctx, stage, variables, "", step.Script)
	})
}

func (j *job) afterScript(ctx context.Context, result error) error {
	for _, step := range j.spec.Steps {
		if step.Name != "after_script" || len(step.Script) == 0 {
			continue
		}
		status := "success"
		if errors.Is(result, errCanceled) {
			status = "canceled"
		} else if result != nil {
			status = "failed"
		}
		limited, stop := j.limit(ctx, "RUNNER_AFTER_SCRIPT_TIMEOUT", 5*time.Minute)
		defer stop()
		return j.log.Section("after_script", "Running after_script", func() error {
			err := j.script(limited, "after_script", j.variables.With("CI_JOB_STATUS", status), "Running after script...", step.Script)
			return causeOf(limited, err)
		})
	}
	return nil
}

// script has the environment run user commands.
func (j *job) script(ctx context.Context, stage string, variables Variables, notice string, lines []string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := scriptText(variables, j.projectDir, notice, lines, j.variables.Bool("CI_DEBUG_TRACE"))
	err := j.environment.Exec(ctx, Script{Stage: stage, Text: text, Stdout: j.out, Stderr: j.errs})
	if failed := j.trace.failure(); failed != nil {
		return failed
	}
	var exit *ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		// The script may have failed because nothing could be written.
		if free, diskErr := j.runner.disk.free(); diskErr == nil && free < 0 {
			return &JobError{Reason: ReasonSystem, ExitCode: exit.Code, Err: syscall.ENOSPC}
		}
	}
	return err
}

func (j *job) runHook(ctx context.Context, name string) error {
	for _, hook := range j.spec.Hooks {
		if hook.Name == name && len(hook.Script) > 0 {
			return j.script(ctx, "get_sources", j.variables, "", hook.Script)
		}
	}
	return nil
}

// relativeDir is the project folder below the builds folder.
func (j *job) relativeDir() string {
	return strings.TrimPrefix(strings.TrimPrefix(j.projectDir, j.buildsDir()), "/")
}

func (j *job) buildsDir() string {
	if j.environment != nil {
		return j.environment.BuildsDir()
	}
	return j.shownBuilds
}

// openProject opens the project folder; a link in its place is not followed
// out of the builds folder.
func (j *job) openProject() error {
	if j.project != nil {
		if err := j.project.Close(); err != nil {
			return fmt.Errorf("close project folder: %w", err)
		}
		j.project = nil
	}
	root, err := j.builds.OpenRoot(j.relativeDir())
	if err != nil {
		return &JobError{Reason: ReasonScript, Message: "the project folder is gone", Err: err}
	}
	j.project = root
	return nil
}
