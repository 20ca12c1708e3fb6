package release

import (
	"context"
	"slices"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// memory is a Store for tests.
type memory struct {
	manifests    []Manifest
	syncs        []Sync
	attempts     []Attempt
	settled      map[int64]bool
	environments []Environment
	writes       int // of attempts
	settings     map[int64]Settings
}

func (m *memory) PutManifest(_ context.Context, one Manifest) error {
	if !slices.ContainsFunc(m.manifests, func(o Manifest) bool { return o.SHA == one.SHA }) {
		m.manifests = append(m.manifests, one)
	}
	return nil
}

func (m *memory) Manifest(_ context.Context, _ int64, sha string) (Manifest, error) {
	for _, one := range m.manifests {
		if one.SHA == sha {
			return one, nil
		}
	}
	return Manifest{}, delivery.Errorf(delivery.NotFound, "unknown")
}

func (m *memory) Manifests(_ context.Context, _ int64, sha string) ([]Manifest, error) {
	out := []Manifest{}
	for _, one := range m.manifests {
		if sha == "" || one.SourceSHA == sha {
			out = append(out, one)
		}
	}
	if sha == "" {
		slices.Reverse(out)
	}
	return out, nil
}

func (m *memory) PutSync(_ context.Context, one Sync) error {
	for i := range m.syncs {
		if m.syncs[i].Application == one.Application && m.syncs[i].Revision == one.Revision {
			m.syncs[i] = one
			return nil
		}
	}
	m.syncs = append(m.syncs, one)
	return nil
}

func (m *memory) Sync(_ context.Context, application, revision string) (Sync, error) {
	for _, one := range m.syncs {
		if one.Application == application && one.Revision == revision {
			return one, nil
		}
	}
	return Sync{}, delivery.Errorf(delivery.NotFound, "unknown")
}

func (m *memory) Syncs(_ context.Context, _ int64, from time.Time) ([]Sync, error) {
	var out []Sync
	for _, one := range m.syncs {
		if !one.Started.Before(from) {
			out = append(out, one)
		}
	}
	return out, nil
}

func (m *memory) PutAttempt(_ context.Context, a *Attempt, settled bool) error {
	if m.settled == nil {
		m.settled = map[int64]bool{}
	}
	m.writes++
	if a.ID == 0 {
		a.ID = int64(len(m.attempts) + 1)
		m.attempts = append(m.attempts, Attempt{})
	}
	copied := *a
	copied.Progress = slices.Clone(a.Progress)
	m.attempts[a.ID-1], m.settled[a.ID] = copied, settled
	return nil
}

func (m *memory) find(is func(Attempt) bool, newestFirst bool) []Attempt {
	out := []Attempt{}
	for _, a := range m.attempts {
		if is(a) {
			a.Progress = slices.Clone(a.Progress)
			out = append(out, a)
		}
	}
	if newestFirst {
		slices.Reverse(out)
	}
	return out
}

func (m *memory) Attempts(_ context.Context, _ int64, sha string) ([]Attempt, error) {
	return m.find(func(a Attempt) bool { return sha == "" || a.SHA == sha }, sha == ""), nil
}

func (m *memory) RolloutAttempts(_ context.Context, ns, name string, _ int) ([]Attempt, error) {
	return m.find(func(a Attempt) bool { return a.Namespace == ns && a.Rollout == name }, true), nil
}

func (m *memory) Unsettled(context.Context) ([]Attempt, error) {
	return m.find(func(a Attempt) bool { return !m.settled[a.ID] }, false), nil
}

func (m *memory) PutEnvironment(_ context.Context, e Environment) error {
	m.environments = slices.DeleteFunc(m.environments, func(o Environment) bool { return o.Namespace == e.Namespace && o.Rollout == e.Rollout })
	m.environments = append(m.environments, e)
	return nil
}

func (m *memory) Environments(context.Context, int64) ([]Environment, error) {
	return slices.Clone(m.environments), nil
}

func (m *memory) Settings(_ context.Context, projectID int64) (Settings, error) {
	v, ok := m.settings[projectID]
	if !ok {
		return v, delivery.Errorf(delivery.NotFound, "unknown")
	}
	return v, nil
}

func (m *memory) PutSettings(_ context.Context, projectID int64, v Settings) error {
	m.settings = map[int64]Settings{projectID: v}
	return nil
}

func (m *memory) DeleteProject(_ context.Context, id int64) error {
	m.manifests = slices.DeleteFunc(m.manifests, func(x Manifest) bool { return x.ProjectID == id })
	m.attempts = slices.DeleteFunc(m.attempts, func(x Attempt) bool { return x.ProjectID == id })
	m.environments = slices.DeleteFunc(m.environments, func(x Environment) bool { return x.ProjectID == id })
	return nil
}
