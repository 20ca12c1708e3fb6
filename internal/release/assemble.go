package release

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Shown is how many releases an overview lists where nobody asks for less.
const Shown = 30

// Release assembles the line of one commit. It is a NotFound for a commit that
// the repository does not have.
func (s *Service) Release(ctx context.Context, p delivery.Project, sha string) (Release, error) {
	c, err := s.code.Commit(ctx, p.ID, sha)
	if err != nil {
		return Release{}, err
	}
	r := Release{Project: p.FullPath, SHA: c.SHA, Commit: commitOf(c), Pipelines: []Pipeline{}, Images: []Image{}, Environments: []Deployment{}}
	if r.Pipelines, err = s.pipelines.OfCommit(ctx, p.ID, c.SHA); err != nil {
		return r, err
	}
	if s.images != nil {
		var jobs []int64
		for _, pipe := range r.Pipelines {
			for _, j := range pipe.Jobs {
				jobs = append(jobs, j.ID)
			}
		}
		if r.Images, err = s.images.OfJobs(ctx, p.ID, jobs); err != nil {
			return r, err
		}
	}
	// The project's own image comes before those with a name below it.
	slices.SortStableFunc(r.Images, func(a, b Image) int { return strings.Compare(a.Repository, b.Repository) })
	if r.Environments, err = s.deployments(ctx, p, c.SHA); err != nil {
		return r, err
	}
	r.Status, r.Sentence, r.Live = judge(r.Pipelines, r.Environments, s.now())
	r.Stages, r.Line = stages(r, s.now()), line(r)
	return r, nil
}

func commitOf(c delivery.Commit) Commit {
	return Commit{SHA: c.SHA, Title: c.Title(), Author: c.Author.Name, At: c.Committer.When.UTC()}
}

// deployments joins manifests, syncs, attempts and environments of a commit.
func (s *Service) deployments(ctx context.Context, p delivery.Project, sha string) ([]Deployment, error) {
	manifests, err := s.store.Manifests(ctx, p.ID, sha)
	if err != nil {
		return nil, err
	}
	attempts, err := s.store.Attempts(ctx, p.ID, sha)
	if err != nil {
		return nil, err
	}
	environments, err := s.store.Environments(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	out := group(manifests, attempts)
	for i := range out {
		d := &out[i]
		for _, e := range environments {
			if e.Name == d.Environment && (d.Namespace == "" || d.Namespace == e.Namespace) {
				place(d, e, sha)
			}
		}
		if d.Syncs, err = s.syncsOf(ctx, *d); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// group collects what belongs to one environment, in the order of its first
// change.
func group(manifests []Manifest, attempts []Attempt) []Deployment {
	var out []Deployment
	find := func(environment string) *Deployment {
		for i := range out {
			if out[i].Environment == environment {
				return &out[i]
			}
		}
		out = append(out, Deployment{Environment: environment, Manifests: []Manifest{}, Syncs: []Sync{}, Attempts: []Attempt{}, Actions: []string{}})
		return &out[len(out)-1]
	}
	for _, m := range manifests {
		d := find(m.Environment)
		d.Manifests = append(d.Manifests, m)
	}
	for _, a := range attempts {
		d := find(a.Environment)
		d.Attempts = append(d.Attempts, lists(a))
		d.Namespace, d.Rollout, d.Application = a.Namespace, a.Rollout, a.Application
	}
	return out
}

// lists makes lists of what is empty, so that the document has no null where a
// reader iterates.
func lists(a Attempt) Attempt {
	if a.Steps == nil {
		a.Steps = []Step{}
	}
	if a.Progress == nil {
		a.Progress = []Progress{}
	}
	a.Analyses = append([]Analysis{}, a.Analyses...)
	for i := range a.Analyses {
		run := &a.Analyses[i]
		run.Metrics = append([]Metric{}, run.Metrics...)
		for j := range run.Metrics {
			if run.Metrics[j].Measurements == nil {
				run.Metrics[j].Measurements = []Measurement{}
			}
		}
	}
	return a
}

// place says what an environment serves of a release, and what may be done.
func place(d *Deployment, e Environment, sha string) {
	if d.Namespace == "" {
		d.Namespace, d.Rollout, d.Application = e.Namespace, e.Rollout, e.Application
	}
	for i, v := range e.Serving {
		if i == 0 {
			d.Now = v.SHA
		}
		if v.SHA == sha {
			d.Weight += v.Weight
			if d.Role == "" {
				d.Role, d.Since = v.Role, v.Since
			}
		}
	}
	if e.Gone || d.Role == "" {
		return
	}
	last := len(d.Attempts) - 1
	switch {
	case last < 0:
	case d.Attempts[last].Result == "":
		d.Actions = append(d.Actions, ActPromote, ActPromoteFull, ActAbort, ActRevert)
	case d.Attempts[last].Result == Aborted:
		d.Actions = append(d.Actions, ActRetry, ActRevert)
	case d.Weight > 0 && (d.Attempts[last].FromHash != "" || d.Attempts[last].Recovered):
		d.Actions = append(d.Actions, ActRevert)
	}
	if d.Application == "" {
		d.Actions = slices.DeleteFunc(d.Actions, func(a string) bool { return a == ActRevert })
	}
}

// syncsOf finds the sync that brought each manifest commit: of its own
// revision, or the first one after it, when several commits were synced at once.
func (s *Service) syncsOf(ctx context.Context, d Deployment) ([]Sync, error) {
	out := []Sync{}
	for _, m := range d.Manifests {
		list, err := s.store.Syncs(ctx, m.ConfigProjectID, m.At.Add(-time.Minute))
		if err != nil {
			return nil, err
		}
		var found *Sync
		for i := range list {
			one := &list[i]
			if one.Environment != d.Environment || d.Application != "" && one.Application != d.Application {
				continue
			}
			if one.Revision == m.SHA {
				found = one
				break
			}
			if found == nil && !one.Started.Before(m.At) {
				found = one
			}
		}
		if found != nil && !slices.ContainsFunc(out, func(s Sync) bool { return s.Application == found.Application && s.Revision == found.Revision }) {
			out = append(out, *found)
		}
	}
	return out, nil
}

// Overview assembles what runs of a project, and its newest releases, of which
// limit are looked for.
func (s *Service) Overview(ctx context.Context, p delivery.Project, limit int) (Overview, error) {
	o := Overview{Project: p.FullPath, Environments: []Environment{}, Releases: []Summary{}}
	environments, err := s.store.Environments(ctx, p.ID)
	if err != nil {
		return o, err
	}
	manifests, err := s.store.Manifests(ctx, p.ID, "")
	if err != nil {
		return o, err
	}
	attempts, err := s.store.Attempts(ctx, p.ID, "")
	if err != nil {
		return o, err
	}
	for _, e := range environments {
		if e.Gone {
			continue
		}
		if err := s.explain(ctx, p, &e, manifests, attempts); err != nil {
			return o, err
		}
		o.Environments = append(o.Environments, e)
	}
	slices.SortFunc(o.Environments, func(a, b Environment) int {
		if d := rank(a.Name) - rank(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	o.Releases, err = s.summaries(ctx, p, limit, o.Environments, manifests, attempts)
	return o, err
}

// rank puts production first.
func rank(environment string) int {
	switch {
	case strings.HasPrefix(environment, "prod"):
		return 0
	case strings.HasPrefix(environment, "stag"):
		return 2
	}
	return 1
}

// explain adds to an environment why it serves what it serves, and what changed.
func (s *Service) explain(ctx context.Context, p delivery.Project, e *Environment, manifests []Manifest, attempts []Attempt) error {
	e.Changes = []Commit{}
	for i := range e.Serving {
		v := &e.Serving[i]
		if v.SHA == "" {
			continue
		}
		c, err := s.code.Commit(ctx, p.ID, v.SHA)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		v.Title = c.Title()
	}
	if len(e.Serving) == 0 {
		return nil
	}
	now := e.Serving[0]
	for i := range manifests { // newest first
		if m := manifests[i]; m.Environment == e.Name && (m.Reverts != "" && m.SourceSHA != now.SHA || m.Reverts == "" && m.SourceSHA == now.SHA) {
			e.Reason = &m
			break
		}
	}
	e.Why = why(*e, attempts)
	before := previous(attempts, *e, now)
	if before == "" || before == now.SHA {
		return nil
	}
	commits, err := s.code.CommitsBetween(ctx, p.ID, before, now.SHA, 10)
	if delivery.IsNotFound(err) {
		return nil // history was rewritten
	}
	if err != nil {
		return err
	}
	for _, c := range commits {
		e.Changes = append(e.Changes, commitOf(c))
	}
	return nil
}

// previous returns the commit that was served before the one that is now.
func previous(attempts []Attempt, e Environment, now Served) string {
	seen := false
	for _, a := range attempts { // newest first
		if a.Namespace != e.Namespace || a.Rollout != e.Rollout || a.Result != Promoted {
			continue
		}
		if a.SHA == now.SHA {
			seen = true
			if a.FromSHA != "" && a.FromSHA != now.SHA {
				// A way back brings no new commits; the first time did.
				continue
			}
			continue
		}
		if seen {
			return a.SHA
		}
	}
	return ""
}

// summaries lists releases: the newest commits that have a pipeline or a
// deployment.
func (s *Service) summaries(ctx context.Context, p delivery.Project, limit int, environments []Environment, manifests []Manifest, attempts []Attempt) ([]Summary, error) {
	commits, err := s.code.Recent(ctx, p, limit)
	if err != nil && !delivery.IsNotFound(err) {
		return nil, err
	}
	known := map[string]bool{}
	for _, c := range commits {
		known[c.SHA] = true
	}
	for _, a := range attempts {
		if a.SHA == "" || known[a.SHA] || len(commits) >= 2*limit {
			continue
		}
		known[a.SHA] = true
		c, err := s.code.Commit(ctx, p.ID, a.SHA)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	slices.SortStableFunc(commits, func(a, b delivery.Commit) int { return b.Committer.When.Compare(a.Committer.When) })
	out := []Summary{}
	for _, c := range commits {
		pipelines, err := s.pipelines.OfCommit(ctx, p.ID, c.SHA)
		if err != nil {
			return nil, err
		}
		var mine []Manifest
		for i := len(manifests) - 1; i >= 0; i-- {
			if manifests[i].SourceSHA == c.SHA {
				mine = append(mine, manifests[i])
			}
		}
		var tried []Attempt
		for i := len(attempts) - 1; i >= 0; i-- {
			if attempts[i].SHA == c.SHA {
				tried = append(tried, attempts[i])
			}
		}
		list := group(mine, tried)
		for i := range list {
			for _, e := range environments {
				if e.Name == list[i].Environment {
					place(&list[i], e, c.SHA)
				}
			}
		}
		sum := Summary{SHA: c.SHA, Title: c.Title(), Author: c.Author.Name, At: c.Committer.When.UTC(), Environments: []string{}}
		sum.Status, sum.Sentence, sum.Live = judge(pipelines, list, s.now())
		for _, d := range list {
			if d.Weight > 0 {
				sum.Environments = append(sum.Environments, d.Environment)
			}
		}
		if sum.Status == Unbuilt {
			continue
		}
		out = append(out, sum)
	}
	return out, nil
}
