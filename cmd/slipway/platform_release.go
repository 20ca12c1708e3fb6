package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/observe/metrics"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/rollout"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/store/releasedb"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// releaseComponents makes the release timeline. It serves what it has kept
// even while the cluster is away.
func (p *platform) releaseComponents(context.Context) ([]supervise.Component, error) {
	o := release.Options{
		Store: releasedb.New(p.db), Code: codeForReleases{p.forge}, Pipelines: pipelinesForReleases{p.pipelines, p.access},
		Members: membersForReleases{p.access, p.forge}, Log: p.log,
	}
	if p.registry != nil {
		o.Images = imagesForReleases{p.registry, p.scanner, p.pipelines, p.externalHost()}
	}
	if p.metrics != nil {
		o.Metrics = numbers{p.metrics}
	}
	cluster := &rolloutsForReleases{platform: p}
	if p.GitOps.Enabled {
		o.Rollouts = cluster
	}
	s := release.New(o)
	p.releases = s
	s.Register(p.api, forge.CanRead)
	loops := []func(context.Context) error{s.Run, p.consume("release", s.Handle)}
	comps := []supervise.Component{{Name: "releases", Unit: supervise.Func{RunFunc: func(ctx context.Context) error { return together(ctx, loops...) }}}}
	if p.GitOps.Enabled {
		comps = append(comps, supervise.Component{Name: "release-watch", After: []string{"slipway-gitops"}, Unit: supervise.Func{
			RunFunc: func(ctx context.Context) error { return cluster.watch(ctx, s) },
		}})
	}
	return comps, nil
}

// rolloutsForReleases implements release.Rollouts on the cluster, which may
// come later than the pages.
type rolloutsForReleases struct {
	platform *platform
}

func (a *rolloutsForReleases) clients() (*gitops.Client, *rollout.Client, error) {
	kube, err := a.platform.clusterClient()
	if err != nil {
		return nil, nil, err
	}
	return gitops.NewClient(kube), rollout.NewClient(kube), nil
}

// act does something with the rollouts of the cluster, if it is there.
func (a *rolloutsForReleases) act(do func(*rollout.Client) error) error {
	_, c, err := a.clients()
	if err != nil {
		return err
	}
	return do(c)
}

// watch tells the timeline of every change. Applications come first, because
// they name the environments of their rollouts.
func (a *rolloutsForReleases) watch(ctx context.Context, s *release.Service) error {
	applications, rollouts, err := a.clients()
	if err != nil {
		return err
	}
	list, err := applications.List(ctx)
	if err != nil {
		return err
	}
	for _, one := range list {
		s.ObserveApplication(applicationState(one))
	}
	return together(ctx,
		func(ctx context.Context) error {
			a.platform.applications.Run(ctx, applications, func(c gitops.Change) {
				if c.After != nil {
					s.ObserveApplication(applicationState(c.After))
				}
			})
			return nil
		},
		a.platform.followPolicy,
		func(ctx context.Context) error {
			return rollouts.Watch(ctx, nil, func(c rollout.Change) {
				if c.After == nil {
					s.ObserveRollout(release.RolloutState{Namespace: c.Before.Namespace, Name: c.Before.Name, Gone: true})
					return
				}
				s.ObserveRollout(rolloutState(c.After))
			})
		})
}

func applicationState(a *gitops.Application) release.ApplicationState {
	s := release.ApplicationState{Name: a.Name, Namespace: a.Destination.Namespace, Health: a.Health.Status, Error: a.Failed(), Revision: a.Sync.Revision}
	if len(a.Sources) > 0 {
		s.RepoURL, s.Path = a.Sources[0].RepoURL, a.Sources[0].Path
	}
	for i := len(a.History) - 1; i >= 0; i-- {
		h := a.History[i]
		if h.Source.RepoURL == "" || h.Source.RepoURL == s.RepoURL {
			s.History = append(s.History, release.Sync{Revision: h.Revision, Phase: "Succeeded", By: h.By, Started: first(h.Started, h.Deployed), Finished: moment(h.Deployed)})
		}
	}
	if o := a.Operation; o != nil {
		s.Operation = &release.Sync{Revision: o.Revision, Phase: o.Phase, Message: o.Message, By: o.By, Started: o.Started, Finished: moment(o.Finished)}
	}
	return s
}

func first(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t.UTC()
		}
	}
	return time.Time{}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func rolloutState(r *rollout.Rollout) release.RolloutState {
	s := release.RolloutState{
		Namespace: r.Namespace, Name: r.Name, Application: r.Application, Strategy: r.Strategy, Phase: r.Phase, Message: r.Message,
		Aborted: r.Aborted, AbortedAt: r.AbortedAt, Paused: r.Paused, PauseReason: r.PauseReason, Step: r.Step, Weight: r.Weight,
		StableHash: r.StableHash, CurrentHash: r.CurrentHash, Images: r.Images,
	}
	for _, st := range r.Steps {
		s.Steps = append(s.Steps, release.Step{Kind: st.Kind, Text: st.Text, Weight: st.Weight})
	}
	return s
}

// Versions implements release.Rollouts.
func (a *rolloutsForReleases) Versions(ctx context.Context, namespace, name string) ([]release.Version, error) {
	_, rollouts, err := a.clients()
	if err != nil {
		return nil, err
	}
	list, err := rollouts.Revisions(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	var out []release.Version
	for i := len(list) - 1; i >= 0; i-- {
		v := release.Version{Number: list[i].Number, Hash: list[i].Hash, Images: list[i].Images, Created: list[i].Created}
		for _, run := range list[i].Analyses {
			v.Analyses = append(v.Analyses, analysisForReleases(run))
		}
		out = append(out, v)
	}
	return out, nil
}

func analysisForReleases(run rollout.Analysis) release.Analysis {
	out := release.Analysis{Name: run.Name, Kind: run.Kind, Phase: run.Phase, Message: run.Message, Started: run.Started.UTC(), Finished: moment(run.Finished)}
	for _, m := range run.Metrics {
		metric := release.Metric{Name: m.Name, Phase: m.Phase, Message: m.Message, Condition: m.SuccessCondition}
		for _, one := range m.Measurements {
			v := release.Measurement{At: one.At.UTC(), Text: one.Text, Phase: one.Phase}
			if !math.IsNaN(one.Value) && !math.IsInf(one.Value, 0) {
				v.Value = &one.Value
			}
			metric.Measurements = append(metric.Measurements, v)
		}
		out.Metrics = append(out.Metrics, metric)
	}
	return out
}

// Promote implements release.Rollouts.
func (a *rolloutsForReleases) Promote(ctx context.Context, namespace, name string) error {
	return a.act(func(c *rollout.Client) error { return c.Promote(ctx, namespace, name) })
}

// PromoteFull implements release.Rollouts.
func (a *rolloutsForReleases) PromoteFull(ctx context.Context, namespace, name string) error {
	return a.act(func(c *rollout.Client) error { return c.PromoteFull(ctx, namespace, name) })
}

// Abort implements release.Rollouts.
func (a *rolloutsForReleases) Abort(ctx context.Context, namespace, name string) error {
	return a.act(func(c *rollout.Client) error { return c.Abort(ctx, namespace, name) })
}

// Retry implements release.Rollouts.
func (a *rolloutsForReleases) Retry(ctx context.Context, namespace, name string) error {
	return a.act(func(c *rollout.Client) error { return c.Retry(ctx, namespace, name) })
}

// codeForReleases implements release.Code.
type codeForReleases struct{ forge *forge.Service }

// Project implements release.Code.
func (a codeForReleases) Project(ctx context.Context, id int64) (delivery.Project, error) {
	return a.forge.Project(ctx, id)
}

// Commit implements release.Code.
func (a codeForReleases) Commit(ctx context.Context, projectID int64, sha string) (delivery.Commit, error) {
	return a.forge.Commit(ctx, projectID, sha)
}

// CommitsBetween implements release.Code.
func (a codeForReleases) CommitsBetween(ctx context.Context, projectID int64, from, to string, limit int) ([]delivery.Commit, error) {
	return a.forge.CommitsBetween(ctx, projectID, from, to, limit)
}

// Recent implements release.Code.
func (a codeForReleases) Recent(ctx context.Context, p delivery.Project, limit int) ([]delivery.Commit, error) {
	if p.Empty {
		return nil, nil
	}
	return a.forge.Commits(ctx, p.ID, forge.LogOptions{Rev: p.DefaultBranch, Limit: limit})
}

// ProjectOfURL implements release.Code.
func (a codeForReleases) ProjectOfURL(ctx context.Context, repoURL string) (delivery.Project, error) {
	path, ok := gitops.ProjectPath(a.forge.ExternalURL(), repoURL)
	if !ok {
		return delivery.Project{}, delivery.Errorf(delivery.NotFound, "The repository %s is not on this platform.", repoURL)
	}
	return a.forge.ProjectByPath(ctx, path)
}

// membersForReleases implements release.Members.
type membersForReleases struct {
	access *access.Service
	forge  *forge.Service
}

// RoleIn implements release.Members.
func (a membersForReleases) RoleIn(ctx context.Context, who delivery.Identity, projectID int64) (delivery.Role, error) {
	p, err := a.forge.Project(ctx, projectID)
	if err != nil {
		return delivery.NoAccess, err
	}
	return a.access.RoleIn(ctx, who, p)
}

// UserRole implements release.Members.
func (a membersForReleases) UserRole(ctx context.Context, userID, projectID int64) (delivery.Role, error) {
	u, err := a.access.User(ctx, userID)
	if delivery.IsNotFound(err) {
		return delivery.NoAccess, nil
	}
	if err != nil {
		return delivery.NoAccess, err
	}
	return a.access.UserRole(ctx, u, projectID)
}

// pipelinesForReleases implements release.Pipelines.
type pipelinesForReleases struct {
	pipelines *pipeline.Engine
	access    *access.Service
}

// SourceOfJob implements release.Pipelines.
func (a pipelinesForReleases) SourceOfJob(ctx context.Context, jobID int64) (projectID int64, sha string, err error) {
	err = a.pipelines.View(ctx, func(tx pipeline.Tx) error {
		j, err := tx.Job(jobID)
		if err != nil {
			return err
		}
		p, err := tx.Pipeline(j.PipelineID)
		projectID, sha = p.ProjectID, p.SHA
		return err
	})
	return projectID, sha, err
}

// OfCommit implements release.Pipelines.
func (a pipelinesForReleases) OfCommit(ctx context.Context, projectID int64, sha string) ([]release.Pipeline, error) {
	out := []release.Pipeline{}
	var users []int64
	err := a.pipelines.View(ctx, func(tx pipeline.Tx) error {
		list, _, err := tx.Pipelines(pipeline.PipelineFilter{ProjectID: projectID, SHA: sha, WithoutMany: true}, pipeline.Page{Limit: 10})
		if err != nil {
			return err
		}
		for _, p := range list {
			jobs, err := tx.PipelineJobs(p.ID)
			if err != nil {
				return err
			}
			users = append(users, p.UserID)
			one := release.Pipeline{
				ID: p.ID, Ref: p.Ref, Source: p.Source, Status: p.Status, Error: p.YAMLErrors, Created: p.CreatedAt.UTC(),
				Started: moment(p.StartedAt), Finished: moment(p.FinishedAt), Jobs: []release.Job{},
			}
			for _, j := range jobs {
				one.Jobs = append(one.Jobs, release.Job{
					ID: j.ID, Name: j.Name, Stage: j.Stage, Status: j.Status, AllowFailure: j.AllowFailure, Reason: j.FailureReason,
					Environment: j.Environment, Started: moment(j.StartedAt), Finished: moment(j.FinishedAt),
				})
			}
			out = append(out, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, id := range users {
		u, err := a.access.User(ctx, id)
		if err != nil && !delivery.IsNotFound(err) {
			return nil, err
		}
		out[i].By = u.Username
	}
	return out, nil
}

// imagesForReleases implements release.Images.
type imagesForReleases struct {
	registry  *registry.Registry
	scans     *scan.Service
	pipelines *pipeline.Engine
	host      string
}

// Source implements release.Images.
func (a imagesForReleases) Source(ctx context.Context, reference string) (int64, string, error) {
	rest, ok := strings.CutPrefix(reference, a.host+"/")
	if !ok {
		return 0, "", delivery.Errorf(delivery.NotFound, "The image %s is not in this registry.", reference)
	}
	name, ref := rest, "latest"
	if path, digest, ok := strings.Cut(rest, "@"); ok {
		name, ref = path, digest
		if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
			name = name[:i]
		}
	} else if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") {
		name, ref = rest[:i], rest[i+1:]
	}
	image, err := a.registry.Image(ctx, name, ref)
	if err != nil {
		return 0, "", err
	}
	if image.JobID == 0 {
		return image.ProjectID, "", nil
	}
	_, sha, err := pipelinesForReleases{pipelines: a.pipelines}.SourceOfJob(ctx, image.JobID)
	if delivery.IsNotFound(err) {
		err = nil // the pipeline was deleted
	}
	return image.ProjectID, sha, err
}

// OfJobs implements release.Images.
func (a imagesForReleases) OfJobs(ctx context.Context, projectID int64, jobIDs []int64) ([]release.Image, error) {
	out := []release.Image{}
	if len(jobIDs) == 0 {
		return out, nil
	}
	list, err := a.registry.ImagesByJobs(ctx, jobIDs)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.ProjectID != projectID || i.Subject != "" || strings.HasSuffix(i.Repository, "/cache") {
			continue
		}
		one := release.Image{Repository: i.Repository, Digest: i.Digest, Tags: slices.Clone(i.Tags), Size: i.Size, Pushed: i.PushedAt.UTC(), JobID: i.JobID}
		if a.scans != nil {
			result, err := a.scans.Result(ctx, i.Digest)
			switch {
			case err == nil:
				one.Scan = &release.Scan{Status: string(result.Status), Error: result.Error, Counts: result.Counts, Ended: moment(result.EndedAt)}
			case !delivery.IsNotFound(err):
				return nil, err
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// numbers implements release.Metrics.
type numbers struct{ metrics *metrics.Metrics }

// Number implements release.Metrics.
func (a numbers) Number(ctx context.Context, query string, at time.Time) (float64, bool, error) {
	r, err := a.metrics.Query(ctx, query, at)
	if errors.Is(err, metrics.ErrNotOpen) {
		return 0, false, &delivery.Error{Kind: delivery.Unavailable, Message: "The metrics are not open yet.", Err: err}
	}
	if err != nil || len(r.Series) == 0 || len(r.Series[0].Points) == 0 {
		return 0, false, err
	}
	points := r.Series[0].Points
	v := points[len(points)-1].Value
	return v, !math.IsNaN(v) && !math.IsInf(v, 0), nil
}
