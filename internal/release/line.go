package release

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// line puts everything that happened to a release in order.
func line(r Release) []Entry {
	out := []Entry{{At: r.Commit.At, Stage: "commit", Status: "success", Text: "Commit " + short(r.SHA), Detail: r.Commit.Title + " · " + r.Commit.Author}}
	for _, p := range r.Pipelines {
		out = append(out, Entry{At: p.Created.UTC(), Stage: "pipeline", Status: "created", Text: fmt.Sprintf("Pipeline #%d was created", p.ID), Detail: p.By})
		for _, j := range p.Jobs {
			if j.Finished != nil && j.Started != nil {
				out = append(out, Entry{At: *j.Finished, Stage: "job", Status: j.Status, Environment: j.Environment,
					Text: fmt.Sprintf("Job %s: %s", j.Name, j.Status), Detail: "took " + seconds(j.Finished.Sub(*j.Started))})
			}
		}
		if p.Finished != nil {
			out = append(out, Entry{At: *p.Finished, Stage: "pipeline", Status: p.Status, Text: fmt.Sprintf("Pipeline #%d: %s", p.ID, p.Status), Detail: p.Error})
		}
	}
	for _, i := range r.Images {
		out = append(out, Entry{At: i.Pushed.UTC(), Stage: "image", Status: "success", Text: "Image " + i.Repository, Detail: i.Digest})
		if i.Scan != nil && i.Scan.Ended != nil {
			out = append(out, Entry{At: *i.Scan.Ended, Stage: "scan", Status: i.Scan.Status, Text: "Scan of the image: " + findings(*i.Scan), Detail: i.Scan.Error})
		}
	}
	for _, d := range r.Environments {
		out = append(out, d.line()...)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return a.At.Compare(b.At) })
	return out
}

func (d Deployment) line() []Entry {
	var out []Entry
	add := func(at time.Time, stage, status, text, detail string) {
		out = append(out, Entry{At: at.UTC(), Stage: stage, Environment: d.Environment, Status: status, Text: text, Detail: detail})
	}
	for _, m := range d.Manifests {
		stage := "manifest"
		if m.Reverts != "" {
			stage = "revert"
		}
		add(m.At, stage, "success", m.Title, m.ConfigProject+" "+short(m.SHA)+" · "+m.By)
	}
	for _, s := range d.Syncs {
		at := s.Started
		if s.Finished != nil {
			at = *s.Finished
		}
		add(at, "sync", strings.ToLower(s.Phase), fmt.Sprintf("Argo CD synced %s to %s: %s", s.Application, short(s.Revision), s.Phase), s.Message)
	}
	for _, a := range d.Attempts {
		add(a.Started, "rollout", "running", "The rollout began in "+d.Environment, a.Image)
		for i, p := range a.Progress {
			if i > 0 && p.Weight != a.Progress[i-1].Weight {
				add(p.At, "rollout", strings.ToLower(p.Phase), fmt.Sprintf("%d %% of the users", p.Weight), p.Message)
			} else if i > 0 && p.Paused && !a.Progress[i-1].Paused {
				add(p.At, "rollout", "paused", "Paused", p.Message)
			}
		}
		for _, run := range a.Analyses {
			if run.Finished != nil {
				add(*run.Finished, "analysis", strings.ToLower(run.Phase), "Analysis "+run.Name+": "+run.Phase, run.Message)
			}
		}
		if a.Ended != nil {
			switch a.Result {
			case Promoted:
				add(*a.Ended, "rollout", "success", "Serves all users of "+d.Environment, "")
			case Aborted:
				add(*a.Ended, "rollout", "failed", "Aborted in "+d.Environment+"; all users went back to "+orUnknown(a.FromSHA), cause(a))
			case Replaced:
				add(*a.Ended, "rollout", "canceled", "A newer version replaced it in "+d.Environment, "")
			case Withdrawn:
				add(*a.Ended, "rollout", "canceled", "The rollout was deleted", "")
			}
		}
	}
	return out
}

// findings counts what a scan found, worst first.
func findings(s Scan) string {
	if s.Status == "failed" {
		return "failed"
	}
	var parts []string
	for _, severity := range []string{"CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"} {
		if n := s.Counts[severity]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(severity)))
		}
	}
	if len(parts) == 0 {
		return "nothing found"
	}
	return strings.Join(parts, ", ")
}
