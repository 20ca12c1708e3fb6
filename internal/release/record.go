package release

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// history is how many attempts of a rollout are looked at.
const history = 50

// RolloutChanged records a change of a Rollout.
func (s *Service) RolloutChanged(ctx context.Context, r RolloutState, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts, err := s.store.RolloutAttempts(ctx, r.Namespace, r.Name, history)
	if err != nil {
		return err
	}
	if r.Gone {
		return s.gone(ctx, r, attempts, at)
	}
	if r.CurrentHash == "" || len(r.Images) == 0 {
		return nil // the controller has not seen it yet
	}
	if len(attempts) == 0 {
		if attempts, err = s.recover(ctx, r); err != nil {
			return err
		}
	}
	last := newest(attempts)
	again, err := s.again(ctx, last, r)
	if err != nil {
		return err
	}
	if last == nil || last.Hash != r.CurrentHash || again || last.Result == Aborted && !r.Aborted && r.StableHash != r.CurrentHash {
		if last != nil && last.Result == "" {
			last.Result, last.Ended = Replaced, pointer(at)
			if err := s.store.PutAttempt(ctx, last, false); err != nil {
				return err
			}
		}
		begun, err := s.begin(ctx, r, attempts, at)
		if err != nil {
			return err
		}
		attempts = append([]Attempt{begun}, attempts...)
		last = &attempts[0]
	}
	before := *last
	advance(last, r, at)
	if last.ID == 0 || !reflect.DeepEqual(before, *last) {
		if err := s.store.PutAttempt(ctx, last, false); err != nil {
			return err
		}
	}
	return s.environment(ctx, r, attempts, at)
}

// missing is the phase of an attempt whose rollout was deleted.
const missing = "Missing"

// again reports whether a rollout of the same version is another one: it was
// deleted and made anew, or its image belongs to a project only now, as that
// was deleted and made anew.
func (s *Service) again(ctx context.Context, last *Attempt, r RolloutState) (bool, error) {
	if last == nil || last.Phase == missing {
		return last != nil, nil
	}
	if last.ProjectID != 0 {
		return false, nil
	}
	var found Attempt
	err := s.source(ctx, &found, r.Images)
	return found.ProjectID != 0, err
}

func newest(list []Attempt) *Attempt {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// begin makes the attempt of a version that was not seen before.
func (s *Service) begin(ctx context.Context, r RolloutState, earlier []Attempt, at time.Time) (Attempt, error) {
	a := Attempt{
		Environment: s.environmentName(r), Namespace: r.Namespace, Rollout: r.Name, Application: r.Application,
		Strategy: r.Strategy, Hash: r.CurrentHash, Steps: r.Steps, Started: at.UTC(),
	}
	if r.StableHash != r.CurrentHash {
		a.FromHash = r.StableHash
		if from := byHash(earlier, r.StableHash); from != nil {
			a.FromSHA = from.SHA
		}
	}
	if err := s.source(ctx, &a, r.Images); err != nil {
		return a, err
	}
	if a.FromHash != "" {
		var err error
		if a.Before, err = s.measure(ctx, r.Namespace, a.FromHash, at, time.Minute); err != nil {
			s.log.Warn("metrics before a rollout are not there", "rollout", r.Namespace+"/"+r.Name, "err", err)
		}
	}
	return a, nil
}

// source finds the commit behind an attempt's images.
func (s *Service) source(ctx context.Context, a *Attempt, images []string) error {
	for i, image := range images {
		if i == 0 {
			a.Image = image
		}
		if s.images == nil {
			return nil
		}
		project, sha, err := s.images.Source(ctx, image)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		a.Image, a.ProjectID, a.SHA = image, project, sha
		return nil
	}
	return nil
}

func (s *Service) environmentName(r RolloutState) string {
	if k, ok := s.applications[r.Application]; ok {
		return k.environment
	}
	return r.Namespace
}

// byHash returns the newest attempt of a version, one whose project is known
// and that was promoted if there is one.
func byHash(list []Attempt, hash string) *Attempt {
	worth := func(a *Attempt) int {
		n := 0
		if a.ProjectID != 0 {
			n += 2
		}
		if a.Result == Promoted {
			n++
		}
		return n
	}
	var found *Attempt
	for i := range list {
		if list[i].Hash == hash && hash != "" && (found == nil || worth(&list[i]) > worth(found)) {
			found = &list[i]
		}
	}
	return found
}

// advance brings an attempt to the state of its rollout.
func advance(a *Attempt, r RolloutState, at time.Time) {
	if len(r.Steps) > 0 {
		a.Steps = r.Steps
	}
	a.Application, a.Strategy = r.Application, r.Strategy
	if a.Result == Promoted && r.StableHash == r.CurrentHash {
		a.Phase, a.Message = r.Phase, r.Message // its health goes on, the rollout is over
		return
	}
	if a.Result == Aborted && r.Phase != "Degraded" {
		return // something else is on its way; why it was aborted stays
	}
	p := Progress{At: at.UTC(), Phase: r.Phase, Step: r.Step, Weight: r.Weight, Paused: r.Paused, Message: r.Message}
	a.Phase, a.Message, a.Step, a.Weight, a.Paused = r.Phase, r.Message, r.Step, r.Weight, r.Paused
	if a.Strategy == "canary" && r.StableHash != r.CurrentHash || r.StableHash == r.CurrentHash {
		a.TopWeight = max(a.TopWeight, r.Weight)
	}
	if n := len(a.Progress); n == 0 || !sameProgress(a.Progress[n-1], p) {
		a.Progress = append(a.Progress, p)
	}
	switch {
	case r.Aborted && r.StableHash != r.CurrentHash:
		if a.Result == "" {
			end := r.AbortedAt
			if end.IsZero() {
				end = at
			}
			a.Result, a.Ended = Aborted, pointer(end)
		}
	case r.StableHash == r.CurrentHash && r.Phase == "Healthy":
		a.Result, a.Ended = Promoted, pointer(at)
	}
}

// sameProgress ignores messages that only count replicas.
func sameProgress(a, b Progress) bool {
	return a.Phase == b.Phase && a.Step == b.Step && a.Weight == b.Weight && a.Paused == b.Paused
}

// recover reads the versions that the cluster still knows of a rollout that is
// seen for the first time. Which version each came from is not known any more.
func (s *Service) recover(ctx context.Context, r RolloutState) ([]Attempt, error) {
	if s.rollouts == nil {
		return nil, nil
	}
	versions, err := s.rollouts.Versions(ctx, r.Namespace, r.Name)
	if err != nil {
		return nil, err
	}
	var out []Attempt
	for _, v := range versions {
		if v.Hash == r.CurrentHash && r.StableHash != r.CurrentHash {
			continue // on its way: the rollout tells
		}
		a := Attempt{
			Environment: s.environmentName(r), Namespace: r.Namespace, Rollout: r.Name, Application: r.Application, Strategy: r.Strategy,
			Hash: v.Hash, Started: v.Created.UTC(), Steps: r.Steps, Analyses: v.Analyses, Recovered: true, Result: Promoted, Phase: "Healthy",
		}
		end := v.Created
		for _, run := range v.Analyses {
			if run.Finished != nil && run.Finished.After(end) {
				end = *run.Finished
			}
			if v.Hash != r.StableHash && (run.Phase == "Failed" || run.Phase == "Error") {
				a.Result, a.Phase = Aborted, "Degraded"
			}
		}
		a.Ended = pointer(end)
		if err := s.source(ctx, &a, v.Images); err != nil {
			return nil, err
		}
		if err := s.store.PutAttempt(ctx, &a, true); err != nil {
			return nil, err
		}
		out = append([]Attempt{a}, out...)
	}
	return out, nil
}

// gone ends what was on its way in a rollout that was deleted.
func (s *Service) gone(ctx context.Context, r RolloutState, attempts []Attempt, at time.Time) error {
	last := newest(attempts)
	if last == nil {
		return nil
	}
	if last.Result == "" {
		last.Result, last.Ended = Withdrawn, pointer(at)
	}
	last.Phase = missing
	if err := s.store.PutAttempt(ctx, last, true); err != nil {
		return err
	}
	if last.ProjectID == 0 {
		return nil
	}
	return s.store.PutEnvironment(ctx, Environment{
		Name: last.Environment, Namespace: r.Namespace, Rollout: r.Name, Application: last.Application, ProjectID: last.ProjectID,
		Phase: missing, Gone: true, Updated: at.UTC(),
	})
}

// environment records who is served by which version.
func (s *Service) environment(ctx context.Context, r RolloutState, attempts []Attempt, at time.Time) error {
	e := Environment{
		Name: s.environmentName(r), Namespace: r.Namespace, Rollout: r.Name, Application: r.Application, ConfigProjectID: s.applications[r.Application].configProjectID,
		Phase: r.Phase, Message: r.Message, Paused: r.Paused, PauseReason: r.PauseReason, Aborted: r.Aborted, Updated: at.UTC(),
	}
	first, second := "stable", "canary"
	if r.Strategy == "blueGreen" {
		first, second = "active", "preview"
	}
	add := func(hash, role string, weight int32) {
		v := Served{Hash: hash, Role: role, Weight: weight}
		if a := byHash(attempts, hash); a != nil {
			v.SHA, v.Image = a.SHA, a.Image
			if a.Result == Promoted {
				v.Since = a.Ended
			}
			if e.ProjectID == 0 {
				e.ProjectID = a.ProjectID
			}
		}
		e.Serving = append(e.Serving, v)
	}
	switch {
	case r.StableHash == r.CurrentHash:
		add(r.CurrentHash, first, 100)
	case r.StableHash == "":
		add(r.CurrentHash, second, r.Weight)
	case r.Strategy == "blueGreen" && r.Weight == 100:
		add(r.CurrentHash, first, 100) // switched; the old one is kept for the way back
	default:
		add(r.StableHash, first, 100-r.Weight)
		add(r.CurrentHash, second, r.Weight)
	}
	slices.SortStableFunc(e.Serving, func(a, b Served) int { return int(b.Weight - a.Weight) })
	if e.ProjectID == 0 {
		return nil // runs nothing of this platform
	}
	return s.store.PutEnvironment(ctx, e)
}

// afterwards is how long after its end an attempt is measured once more.
const afterwards = time.Minute

// follow reads what the rollout itself does not tell; soon reports whether it
// should be called again shortly.
func (s *Service) follow(ctx context.Context, a *Attempt) (soon bool, err error) {
	now := s.now()
	ended := a.Ended != nil
	if !ended && quiet(*a, now) && !running(a.Analyses) && now.Sub(s.refreshed[a.ID]) < idleEvery {
		return false, nil
	}
	s.refreshed[a.ID] = now
	before := *a
	if s.rollouts != nil && (!ended || now.Sub(*a.Ended) < 2*afterwards) {
		versions, e := s.rollouts.Versions(ctx, a.Namespace, a.Rollout)
		if e != nil && !delivery.IsNotFound(e) {
			err = e
		}
		for _, v := range versions {
			if v.Hash == a.Hash && len(v.Analyses) > 0 {
				a.Analyses = since(v.Analyses, a.Started)
			}
		}
	}
	again := s.autoRevert(ctx, a)
	settled := false
	if ended {
		span := max(30*time.Second, min(10*time.Minute, a.Ended.Sub(a.Started)))
		var e1, e2 error
		a.During, e1 = s.measure(ctx, a.Namespace, a.Hash, *a.Ended, span)
		// The measurement is final once its time has come.
		settled = now.Sub(*a.Ended) >= afterwards && !again
		until := a.Ended.Add(afterwards)
		if !settled {
			until = now
		}
		if span := until.Sub(*a.Ended); span >= 10*time.Second {
			a.After, e2 = s.measure(ctx, a.Namespace, "", until, span)
		}
		err = errors.Join(err, e1, e2)
		if err != nil {
			settled = now.Sub(*a.Ended) > time.Hour // what is not there by then will not come
		}
	}
	if settled || !reflect.DeepEqual(before, *a) {
		if e := s.store.PutAttempt(ctx, a, settled); e != nil {
			return true, errors.Join(err, e)
		}
	}
	if settled {
		delete(s.refreshed, a.ID)
	}
	return !settled && err == nil, err
}

// quiet reports whether an attempt waits for somebody or has not moved lately.
func quiet(a Attempt, now time.Time) bool {
	n := len(a.Progress)
	return a.Paused || n > 0 && now.Sub(a.Progress[n-1].At) > time.Minute
}

func running(list []Analysis) bool {
	return slices.ContainsFunc(list, func(a Analysis) bool { return a.Finished == nil })
}

// since drops the analyses of an earlier attempt with the same version.
func since(list []Analysis, start time.Time) []Analysis {
	var out []Analysis
	for _, a := range list {
		if !a.Started.Before(start.Add(-30 * time.Second)) {
			out = append(out, a)
		}
	}
	return out
}

// measure reads the traffic of a version, or of a whole namespace with hash
// "", over the time before at. The metrics are those of the ingress.
func (s *Service) measure(ctx context.Context, namespace, hash string, at time.Time, span time.Duration) (*Measures, error) {
	if s.metrics == nil {
		return nil, nil
	}
	match := fmt.Sprintf("namespace=%q", namespace)
	if hash != "" {
		match += fmt.Sprintf(",revision=%q", hash)
	}
	window := fmt.Sprintf("[%ds]", int(span.Seconds()))
	m := &Measures{At: at.UTC(), Seconds: span.Seconds()}
	for _, q := range []struct {
		to    **float64
		query string
	}{
		{&m.Requests, fmt.Sprintf("sum(rate(slipway_ingress_requests_total{%s}%s))", match, window)},
		{&m.ErrorShare, fmt.Sprintf(`(sum(rate(slipway_ingress_requests_total{%[1]s,code=~"5.."}%[2]s)) or vector(0)) / sum(rate(slipway_ingress_requests_total{%[1]s}%[2]s))`, match, window)},
		{&m.P95, fmt.Sprintf("histogram_quantile(0.95, sum by (le) (rate(slipway_ingress_request_duration_seconds_bucket{%s}%s)))", match, window)},
	} {
		v, ok, err := s.metrics.Number(ctx, q.query, at)
		if err != nil {
			return nil, fmt.Errorf("release: measure %s: %w", namespace, err)
		}
		if ok && v == v {
			*q.to = &v
		}
	}
	return m, nil
}
