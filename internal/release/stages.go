package release

import (
	"slices"
	"time"
)

// Stage is a part of the way from the push to the users, with its time.
type Stage struct {
	Name        string     `json:"name"`
	Environment string     `json:"environment,omitempty"`
	Began       time.Time  `json:"began_at"`
	Ended       *time.Time `json:"ended_at"`
	Seconds     float64    `json:"seconds"` // of its own; so far where it has not ended
	After       float64    `json:"after"`   // seconds from the beginning of the pipeline until this one began
}

// stages says how long each part took: the stages of the newest pipeline, and
// for each environment the sync, the first share of the users and all of them.
func stages(r Release, now time.Time) []Stage {
	out := []Stage{}
	if len(r.Pipelines) == 0 {
		return out
	}
	p := r.Pipelines[0]
	add := func(name, environment string, began time.Time, ended *time.Time) {
		s := Stage{Name: name, Environment: environment, Began: began.UTC(), Ended: ended, After: max(0, began.Sub(p.Created).Seconds())}
		if ended == nil {
			ended = &now
		}
		s.Seconds = max(0, ended.Sub(began).Seconds())
		out = append(out, s)
	}
	for _, s := range jobStages(p) {
		add(s.Name, "", s.Began, s.Ended)
	}
	for _, d := range r.Environments {
		i := slices.IndexFunc(d.Manifests, func(m Manifest) bool { return m.Reverts == "" && !m.At.Before(p.Created) })
		if i < 0 {
			continue // deployed by an earlier pipeline of the commit
		}
		m := d.Manifests[i]
		for _, s := range d.Syncs {
			if s.Finished != nil && !s.Finished.Before(m.At) {
				add("sync", d.Environment, m.At, s.Finished)
				break
			}
		}
		for _, a := range d.Attempts {
			if a.Recovered || a.Started.Before(m.At) {
				continue
			}
			addAttempt(add, d.Environment, a)
			break
		}
	}
	return out
}

func addAttempt(add func(string, string, time.Time, *time.Time), environment string, a Attempt) {
	if i := slices.IndexFunc(a.Progress, func(p Progress) bool { return p.Weight > 0 }); i >= 0 {
		add("first users", environment, a.Started, &a.Progress[i].At)
	}
	switch a.Result {
	case Promoted:
		add("all users", environment, a.Started, a.Ended)
	case Aborted:
		add("taken back", environment, a.Started, a.Ended)
	case "":
		add("rollout", environment, a.Started, nil)
	}
}

// jobStages joins the jobs of each stage: from the first one's start to the
// last one's end, in the order in which they began.
func jobStages(p Pipeline) []Stage {
	var out []Stage
	for _, j := range p.Jobs {
		if j.Started == nil {
			continue
		}
		i := slices.IndexFunc(out, func(s Stage) bool { return s.Name == j.Stage })
		if i < 0 {
			out = append(out, Stage{Name: j.Stage, Began: *j.Started, Ended: j.Finished})
			continue
		}
		s := &out[i]
		if j.Started.Before(s.Began) {
			s.Began = *j.Started
		}
		if s.Ended != nil && (j.Finished == nil || j.Finished.After(*s.Ended)) {
			s.Ended = j.Finished
		}
	}
	slices.SortStableFunc(out, func(a, b Stage) int { return a.Began.Compare(b.Began) })
	return out
}
