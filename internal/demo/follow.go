package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go"

	"github.com/slipwayhq/slipway/internal/rollout"
)

// pipeline waits until the pipeline of a commit has succeeded, telling of each
// job, and fails with the end of a failed job's log.
func (d *Demo) pipeline(ctx context.Context, sha string) (*gitlab.Pipeline, error) {
	with := gitlab.WithContext(ctx)
	project := d.app.project.ID
	var id int64
	shown := map[string]string{}
	var last *gitlab.Pipeline
	err := until(ctx, 200*time.Millisecond, func() (bool, error) {
		if id == 0 {
			list, _, err := d.api.Pipelines.ListProjectPipelines(project, &gitlab.ListProjectPipelinesOptions{SHA: &sha}, with)
			if err != nil {
				return false, fmt.Errorf("list pipelines: %w", err)
			}
			if len(list) == 0 {
				return false, nil
			}
			id = list[0].ID
		}
		var err error
		if last, _, err = d.api.Pipelines.GetPipeline(project, id, with); err != nil {
			return false, fmt.Errorf("pipeline %d: %w", id, err)
		}
		jobs, _, err := d.api.Jobs.ListPipelineJobs(project, id, &gitlab.ListJobsOptions{ListOptions: gitlab.ListOptions{PerPage: 100}}, with)
		if err != nil {
			return false, fmt.Errorf("jobs of pipeline %d: %w", id, err)
		}
		for _, j := range jobs {
			if shown[j.Name] != j.Status && (j.Status == "success" || j.Status == "failed") {
				d.Say("   job %-18s %s  %.1f s", j.Name, j.Status, j.Duration)
			}
			shown[j.Name] = j.Status
			if j.Status == "failed" && !j.AllowFailure {
				return false, d.jobFailed(ctx, j)
			}
		}
		switch last.Status {
		case "success":
			return true, nil
		case "failed", "canceled", "skipped":
			return false, fmt.Errorf("pipeline %d is %s: %s", id, last.Status, yamlErrors(last))
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		status := "was not created"
		if last != nil {
			status = "is still " + last.Status
		}
		err = fmt.Errorf("the pipeline of %s %s: jobs %v", sha[:8], status, shown)
	}
	return last, err
}

func yamlErrors(p *gitlab.Pipeline) string {
	if p.YamlErrors != "" {
		return p.YamlErrors
	}
	return "see its jobs"
}

func (d *Demo) jobFailed(ctx context.Context, j *gitlab.Job) error {
	reason := fmt.Errorf("job %s failed (%s): %s", j.Name, j.FailureReason, j.WebURL)
	trace, _, err := d.api.Jobs.GetTraceFile(d.app.project.ID, j.ID, gitlab.WithContext(ctx))
	if err != nil {
		return reason
	}
	buf := make([]byte, 1<<20)
	n, err := trace.ReadAt(buf, 0)
	if n == 0 && err != nil {
		return reason
	}
	lines := strings.Split(strings.TrimRight(string(buf[:n]), "\n"), "\n")
	return fmt.Errorf("%w\n   | %s", reason, strings.Join(lines[max(0, len(lines)-15):], "\n   | "))
}

// image checks that the image of a commit is in the registry and returns its
// size in bytes.
func (d *Demo) image(ctx context.Context, sha string) (int64, error) {
	with := gitlab.WithContext(ctx)
	repos, _, err := d.api.ContainerRegistry.ListProjectRegistryRepositories(d.app.project.ID, nil, with)
	if err != nil {
		return 0, fmt.Errorf("list images: %w", err)
	}
	for _, r := range repos {
		if r.Path != d.app.project.PathWithNamespace {
			continue
		}
		tag, _, err := d.api.ContainerRegistry.GetRegistryRepositoryTagDetail(d.app.project.ID, r.ID, sha[:8], with)
		if err != nil {
			return 0, fmt.Errorf("the image tag %s: %w", sha[:8], err)
		}
		return tag.TotalSize, nil
	}
	return 0, fmt.Errorf("the registry has no image %s", d.app.project.PathWithNamespace)
}

// settled waits for a state of a rollout.
func (d *Demo) settled(ctx context.Context, namespace string, ok func(*rollout.Rollout) bool) (*rollout.Rollout, error) {
	var last *rollout.Rollout
	err := until(ctx, 200*time.Millisecond, func() (bool, error) {
		r, err := d.Rollouts.Get(ctx, namespace, rolloutObj)
		if err != nil {
			return false, nil // not there yet
		}
		last = r
		return ok(r), nil
	})
	if err != nil {
		return last, d.explain(ctx, namespace, fmt.Errorf("the rollout in %s did not get there: %w", namespace, err))
	}
	return last, nil
}

// follow watches a new version roll out and collects the weights it passes.
// changed is called when the cluster has the new version.
func (d *Demo) follow(ctx context.Context, namespace string, changed func(), done func(*rollout.Rollout) bool) (map[int32]bool, *rollout.Rollout, error) {
	before, err := d.Rollouts.Get(ctx, namespace, rolloutObj)
	if err != nil {
		return nil, nil, err
	}
	weights := map[int32]bool{}
	moved := before.StableHash != before.CurrentHash
	var lastWeight int32 = -1
	r, err := d.settled(ctx, namespace, func(r *rollout.Rollout) bool {
		if !moved && (r.CurrentHash != before.CurrentHash || r.StableHash != r.CurrentHash) {
			moved = true
			changed()
		}
		if moved && r.Weight != lastWeight {
			lastWeight = r.Weight
			weights[r.Weight] = true
			d.Say("   canary weight %d %%", r.Weight)
		}
		return moved && done(r)
	})
	return weights, r, err
}

type measured struct{ successful, failed int }

// measurements counts what the analyses of a version measured.
func (d *Demo) measurements(ctx context.Context, namespace, hash string) (measured, error) {
	revisions, err := d.Rollouts.Revisions(ctx, namespace, rolloutObj)
	if err != nil {
		return measured{}, err
	}
	var m measured
	for _, r := range revisions {
		if r.Hash != hash {
			continue
		}
		for _, a := range r.Analyses {
			for _, metric := range a.Metrics {
				for _, one := range metric.Measurements {
					switch one.Phase {
					case "Successful":
						m.successful++
					case "Failed":
						m.failed++
					}
				}
			}
		}
	}
	return m, nil
}

// revert takes the newest change of an environment back by a commit and waits
// until the rollout is healthy again.
func (d *Demo) revert(ctx context.Context, namespace, environment string) (string, error) {
	sha, err := d.revertCommit(ctx, environment)
	if err != nil {
		return "", err
	}
	_, err = d.settled(ctx, namespace, func(r *rollout.Rollout) bool { return !r.Aborted && r.Phase == "Healthy" })
	return sha, err
}

func (d *Demo) revertCommit(ctx context.Context, environment string) (string, error) {
	with := gitlab.WithContext(ctx)
	path := "environments/" + environment
	commits, _, err := d.api.Commits.ListCommits(d.config.project.ID, &gitlab.ListCommitsOptions{Path: &path, RefName: gitlab.Ptr("main")}, with)
	if err != nil || len(commits) == 0 {
		return "", fmt.Errorf("find the manifest commit of %s: %w", environment, err)
	}
	c, _, err := d.api.Commits.RevertCommit(d.config.project.ID, commits[0].ID, &gitlab.RevertCommitOptions{Branch: gitlab.Ptr("main")}, with)
	if err != nil {
		return "", fmt.Errorf("revert %s: %w", commits[0].ShortID, err)
	}
	return c.ID, nil
}

// play starts a manual job and waits for its success.
func (d *Demo) play(ctx context.Context, pipeline int64, name string) error {
	with := gitlab.WithContext(ctx)
	jobs, _, err := d.api.Jobs.ListPipelineJobs(d.app.project.ID, pipeline, &gitlab.ListJobsOptions{ListOptions: gitlab.ListOptions{PerPage: 100}}, with)
	if err != nil {
		return fmt.Errorf("jobs of pipeline %d: %w", pipeline, err)
	}
	for _, j := range jobs {
		if j.Name != name {
			continue
		}
		if _, _, err := d.api.Jobs.PlayJob(d.app.project.ID, j.ID, nil, with); err != nil {
			return fmt.Errorf("play %s: %w", name, err)
		}
		return until(ctx, 200*time.Millisecond, func() (bool, error) {
			now, _, err := d.api.Jobs.GetJob(d.app.project.ID, j.ID, with)
			if err != nil {
				return false, fmt.Errorf("job %s: %w", name, err)
			}
			if now.Status == "failed" {
				return false, d.jobFailed(ctx, now)
			}
			return now.Status == "success", nil
		})
	}
	return fmt.Errorf("pipeline %d has no job %s", pipeline, name)
}

// explain adds what Argo CD and the rollout say to an error.
func (d *Demo) explain(ctx context.Context, namespace string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if a, appErr := d.Apps.Get(ctx, namespace); appErr == nil {
		err = fmt.Errorf("%w\n   application %s: %s, %s %s %s", err, a.Name, a.Sync.Status, a.Health.Status, a.Health.Message, a.Failed())
	} else {
		err = fmt.Errorf("%w\n   application %s: %v", err, namespace, appErr)
	}
	if r, getErr := d.Rollouts.Get(ctx, namespace, rolloutObj); getErr == nil {
		err = fmt.Errorf("%w\n   rollout: %s %s, step %d of %d, %d of %d ready", err, r.Phase, r.Message, r.Step, len(r.Steps), r.Ready, r.Desired)
	}
	return err
}

// share notes when a stage of the second release was done, counted from the
// push.
func (d *Demo) share(stage string, since time.Duration) {
	d.shares = append(d.shares, Share{Stage: stage, Seconds: since.Seconds()})
}

// pipelineShares notes when each job of a pipeline was done.
func (d *Demo) pipelineShares(ctx context.Context, p *gitlab.Pipeline, pushed time.Time) {
	jobs, _, err := d.api.Jobs.ListPipelineJobs(d.app.project.ID, p.ID, &gitlab.ListJobsOptions{ListOptions: gitlab.ListOptions{PerPage: 100}}, gitlab.WithContext(ctx))
	if err != nil {
		return
	}
	for i := len(jobs) - 1; i >= 0; i-- {
		if jobs[i].FinishedAt != nil {
			d.share("job "+jobs[i].Name, jobs[i].FinishedAt.Sub(pushed))
		}
	}
}

// Close deletes the working copies.
func (d *Demo) Close() error {
	return errors.Join(d.app.close(), d.config.close())
}
