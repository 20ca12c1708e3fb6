package demo

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go"

	"github.com/slipwayhq/slipway/internal/rollout"
)

const (
	staging    = "shortener-staging"
	production = "shortener-production"
	blueGreen  = "shortener-blue-green"
	rolloutObj = "shortener"
)

// firstRelease: pipeline green, image in the registry with its scan, manifest
// commit, sync, first rollout, the application answers.
func (d *Demo) firstRelease(ctx context.Context) (string, error) {
	sha, err := d.app.release(ctx, "1.0.0", "0")
	if err != nil && strings.Contains(err.Error(), "nothing to commit") {
		sha, err = d.app.push(ctx, "First version", nil)
	}
	if err != nil {
		return "", err
	}
	pipeline, err := d.pipeline(ctx, sha)
	if err != nil {
		return "", err
	}
	size, err := d.image(ctx, sha)
	if err != nil {
		return "", err
	}
	if err := d.applyRoot(ctx); err != nil {
		return "", err
	}
	r, err := d.settled(ctx, production, func(r *rollout.Rollout) bool { return r.Phase == "Healthy" && r.Ready > 0 })
	if err != nil {
		return "", err
	}
	if _, err := d.visitor("shortener").serves(ctx, "1.0.0"); err != nil {
		return "", d.explain(ctx, production, fmt.Errorf("version 1.0.0 is not served: %w", err))
	}
	if _, err := d.visitor("shortener-staging").serves(ctx, "1.0.0"); err != nil {
		return "", d.explain(ctx, staging, fmt.Errorf("version 1.0.0 is not served in staging: %w", err))
	}
	return fmt.Sprintf("pipeline %d green, image of %.0f MB scanned, synced, %d pods, 1.0.0 served", pipeline.ID, float64(size)/1e6, r.Ready), nil
}

// goodCanary: rising weights under traffic, green analysis, promotion.
func (d *Demo) goodCanary(ctx context.Context) (string, error) {
	v := d.visitor("shortener")
	t := v.start(ctx)
	defer t.stop()
	pushed := time.Now()
	sha, err := d.app.release(ctx, "1.1.0", "0")
	if err != nil {
		return "", err
	}
	d.share("git push", time.Since(pushed))
	pipeline, err := d.pipeline(ctx, sha)
	if err != nil {
		return "", err
	}
	d.pipelineShares(ctx, pipeline, pushed)
	changed := func() { d.share("synced: the cluster has the new version", time.Since(pushed)) }
	weights, r, err := d.follow(ctx, production, changed, func(r *rollout.Rollout) bool { return r.Phase == "Healthy" && r.Step == len(r.Steps) })
	if err != nil {
		return "", err
	}
	if _, err := v.serves(ctx, "1.1.0"); err != nil {
		return "", fmt.Errorf("version 1.1.0 is not served after its promotion: %w", err)
	}
	answers := t.stop()
	got := count(answers)
	if bad := failures(got); bad > 0 {
		return "", fmt.Errorf("%d of %d requests failed during the canary: %v", bad, got.all, got.failed)
	}
	var first time.Time
	for _, a := range answers {
		if a.version == "1.1.0" && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
	}
	d.share("first request served by v1.1.0", first.Sub(pushed))
	for _, w := range []int32{20, 50} {
		if !weights[w] {
			return "", fmt.Errorf("the weight of %d %% was never set; seen: %v", w, keys(weights))
		}
	}
	measured, err := d.measurements(ctx, production, r.CurrentHash)
	if err != nil {
		return "", err
	}
	if measured.successful == 0 || measured.failed > 0 {
		return "", fmt.Errorf("the analysis has %d good and %d bad measurements", measured.successful, measured.failed)
	}
	if _, err := d.visitor("shortener-staging").serves(ctx, "1.1.0"); err != nil {
		return "", d.explain(ctx, staging, fmt.Errorf("version 1.1.0 was not promoted in staging: %w", err))
	}
	return fmt.Sprintf("weights %v, %d good measurements, %d requests, none failed", keys(weights), measured.successful, got.all), nil
}

// badCanary: red analysis, automatic rollback, users served by the version
// before, the reverting commit.
func (d *Demo) badCanary(ctx context.Context) (string, error) {
	v := d.visitor("shortener")
	t := v.start(ctx)
	defer t.stop()
	sha, err := d.app.release(ctx, "1.2.0-bad", "1")
	if err != nil {
		return "", err
	}
	if _, err := d.pipeline(ctx, sha); err != nil {
		return "", err
	}
	_, r, err := d.follow(ctx, production, func() {}, func(r *rollout.Rollout) bool { return r.Aborted })
	if err != nil {
		return "", fmt.Errorf("the bad version was not taken back: %w", err)
	}
	d.Say("   aborted: %s", r.Message)
	if _, err := v.serves(ctx, "1.1.0"); err != nil {
		return "", fmt.Errorf("version 1.1.0 does not serve everybody after the abort: %w", err)
	}
	got := count(t.stop())
	if own := got.failed[""] + got.failed["1.1.0"]; own > 0 {
		return "", fmt.Errorf("%d requests failed that the bad version did not answer: %v", own, got.failed)
	}
	if got.versions["1.1.0"] == 0 || got.failed["1.2.0-bad"] == 0 {
		return "", fmt.Errorf("the traffic does not show the story: %v, failed %v", got.versions, got.failed)
	}
	measured, err := d.measurements(ctx, production, r.CurrentHash)
	if err != nil {
		return "", err
	}
	if measured.failed == 0 {
		return "", errors.New("the rollout was aborted without a failed measurement")
	}
	// Staging has no users; its smoke test must have come to the same verdict.
	if _, err := d.settled(ctx, staging, func(r *rollout.Rollout) bool { return r.Aborted }); err != nil {
		return "", fmt.Errorf("staging did not take the bad version back: %w", err)
	}
	d.Say("   staging: taken back by its smoke test")
	reverts, err := d.revertEverywhere(ctx)
	if err != nil {
		return "", err
	}
	share := 100 * float64(got.versions["1.2.0-bad"]) / float64(got.all)
	return fmt.Sprintf("analysis red, rolled back by itself, in staging too; 1.1.0 served throughout, the bad version saw %.0f %% of %d requests; reverted by %s", share, got.all, strings.Join(reverts, " and ")), nil
}

// revertEverywhere takes the newest release out of git in both environments,
// so that nothing asks for it any more, and waits until all their users have
// the version before. It returns the short names of the commits.
func (d *Demo) revertEverywhere(ctx context.Context) ([]string, error) {
	var reverts []string
	for _, environment := range []string{"production", "staging"} {
		sha, err := d.revert(ctx, "shortener-"+environment, environment)
		if err != nil {
			return nil, err
		}
		reverts = append(reverts, sha[:8])
	}
	for _, name := range []string{"shortener", "shortener-staging"} {
		if _, err := d.visitor(name).serves(ctx, "1.1.0"); err != nil {
			return nil, fmt.Errorf("%s does not serve 1.1.0 after the revert: %w", d.host(name), err)
		}
	}
	return reverts, nil
}

// blueGreen: preview, switch, instant switch back.
func (d *Demo) blueGreen(ctx context.Context) (string, error) {
	pipelines, _, err := d.api.Pipelines.ListProjectPipelines(d.app.project.ID, &gitlab.ListProjectPipelinesOptions{Ref: gitlab.Ptr("main")}, gitlab.WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("list pipelines: %w", err)
	}
	sort.Slice(pipelines, func(i, j int) bool { return pipelines[i].ID < pipelines[j].ID })
	if len(pipelines) < 2 {
		return "", fmt.Errorf("there are %d pipelines, two are needed", len(pipelines))
	}
	if err := d.play(ctx, pipelines[0].ID, "deploy-blue-green"); err != nil {
		return "", err
	}
	active, preview := d.visitor("shortener-blue-green"), d.visitor("shortener-preview")
	if _, err := active.serves(ctx, "1.0.0"); err != nil {
		return "", d.explain(ctx, blueGreen, fmt.Errorf("1.0.0 is not active: %w", err))
	}
	if err := d.play(ctx, pipelines[1].ID, "deploy-blue-green"); err != nil {
		return "", err
	}
	if _, err := preview.serves(ctx, "1.1.0"); err != nil {
		return "", d.explain(ctx, blueGreen, fmt.Errorf("1.1.0 is not shown as a preview: %w", err))
	}
	if a := active.visit(ctx); a.version != "1.0.0" {
		return "", fmt.Errorf("users see %q although nobody has switched", a.version)
	}
	if _, err := d.settled(ctx, blueGreen, func(r *rollout.Rollout) bool { return r.Paused }); err != nil {
		return "", err
	}
	t := active.start(ctx)
	defer t.stop()
	asked := time.Now()
	if err := d.Rollouts.Promote(ctx, blueGreen, rolloutObj); err != nil {
		return "", fmt.Errorf("promote: %w", err)
	}
	switched, err := active.serves(ctx, "1.1.0")
	if err != nil {
		return "", d.explain(ctx, blueGreen, fmt.Errorf("1.1.0 did not become active: %w", err))
	}
	there := switched.Sub(asked)
	if _, err := d.settled(ctx, blueGreen, func(r *rollout.Rollout) bool { return r.Phase == "Healthy" }); err != nil {
		return "", err
	}
	asked = time.Now()
	if _, err := d.revertCommit(ctx, "blue-green"); err != nil {
		return "", err
	}
	back, err := active.serves(ctx, "1.0.0")
	if err != nil {
		return "", d.explain(ctx, blueGreen, fmt.Errorf("the way back did not work: %w", err))
	}
	got := count(t.stop())
	if bad := failures(got); bad > 0 {
		return "", fmt.Errorf("%d of %d requests failed while switching: %v", bad, got.all, got.failed)
	}
	return fmt.Sprintf("preview seen, switched in %.1f s, back in %.1f s from the commit, %d requests, none failed", there.Seconds(), back.Sub(asked).Seconds(), got.all), nil
}

func failures(t tally) int {
	n := 0
	for _, v := range t.failed {
		n += v
	}
	return n
}

func keys(m map[int32]bool) []int32 {
	var out []int32
	for k := range m {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}
