package release

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// judge says what became of a release, in a word and a sentence.
func judge(pipelines []Pipeline, list []Deployment, now time.Time) (status, sentence string, live bool) {
	for _, d := range list {
		live = live || moving(d, now)
	}
	if len(pipelines) > 0 && !finished(pipelines[0].Status) {
		live = true
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Deployment) int { return rank(a.Environment) - rank(b.Environment) })
	for _, d := range list {
		if len(d.Attempts) > 0 && d.Attempts[len(d.Attempts)-1].Result == "" && d.Role != "" {
			return Deploying, underway(d), true
		}
	}
	var serving []string
	best, worst := -1, -1 // the first environment that it serves, that it did not get into
	trouble, text := "", ""
	for i, d := range list {
		if d.Weight > 0 {
			serving = append(serving, fmt.Sprintf("%d %% of %s", d.Weight, d.Environment))
			if best < 0 {
				best = i
			}
		}
		if worst >= 0 {
			continue
		}
		if text = undone(d); text != "" {
			trouble, worst = RolledBack, i
		} else if text = unsynced(d); text != "" {
			trouble, worst = Failed, i
		}
		sentence = text
	}
	if worst < 0 && len(pipelines) > 0 && pipelines[0].Status == "failed" {
		trouble, sentence, worst = Failed, failure(pipelines[0], list), 0
	}
	serves := "Serves " + enumerate(serving) + "."
	switch {
	case worst >= 0 && best >= 0 && best < worst:
		return Serving, serves + " " + sentence, live
	case worst >= 0 && best >= 0:
		return trouble, sentence + " " + serves, live
	case worst >= 0:
		return trouble, sentence, live
	}
	switch {
	case len(serving) > 0:
		return Serving, serves, live
	case anywhere(list, func(d Deployment) bool { return promoted(d) != nil }):
		return Superseded, "Served until a later version came.", live
	case len(pipelines) == 0 && len(list) == 0:
		return Unbuilt, "No pipeline ran for this commit.", false
	case len(pipelines) > 0 && !finished(pipelines[0].Status):
		return Building, building(pipelines[0]), true
	case len(list) > 0:
		return Deploying, "The manifest is committed; the cluster has not begun to roll it out.", live
	case pipelines[0].Status == "canceled" || pipelines[0].Status == "skipped":
		return Built, fmt.Sprintf("Pipeline #%d was %s; nothing was deployed.", pipelines[0].ID, pipelines[0].Status), live
	}
	return Built, fmt.Sprintf("Pipeline #%d passed; nothing was deployed.", pipelines[0].ID), live
}

func anywhere(list []Deployment, is func(Deployment) bool) bool { return slices.ContainsFunc(list, is) }

func finished(status string) bool {
	return status == "success" || status == "failed" || status == "canceled" || status == "skipped" || status == "manual"
}

// moving reports whether a deployment changes by itself, or has just ended.
func moving(d Deployment, now time.Time) bool {
	if n := len(d.Attempts); n > 0 {
		a := d.Attempts[n-1]
		return a.Ended == nil && a.Result == "" || a.Ended != nil && now.Sub(*a.Ended) < 2*afterwards
	}
	n := len(d.Manifests)
	return n > 0 && now.Sub(d.Manifests[n-1].At) < 10*time.Minute
}

func promoted(d Deployment) *Attempt {
	for i := range d.Attempts {
		if d.Attempts[i].Result == Promoted {
			return &d.Attempts[i]
		}
	}
	return nil
}

func building(p Pipeline) string {
	var jobs []string
	for _, j := range p.Jobs {
		if j.Status == "running" {
			jobs = append(jobs, j.Name)
		}
	}
	if len(jobs) == 0 {
		return fmt.Sprintf("Pipeline #%d is %s.", p.ID, strings.ReplaceAll(p.Status, "_", " "))
	}
	return fmt.Sprintf("Pipeline #%d runs: %s.", p.ID, enumerate(jobs))
}

func underway(d Deployment) string {
	a := d.Attempts[len(d.Attempts)-1]
	switch {
	case a.Strategy == "blueGreen" && a.Paused:
		return fmt.Sprintf("Ready as a preview in %s; it waits for its promotion.", d.Environment)
	case a.Strategy == "blueGreen":
		return fmt.Sprintf("Starts as a preview in %s.", d.Environment)
	case a.Phase == "Degraded":
		return fmt.Sprintf("Stuck in %s at %d %%: %s", d.Environment, a.Weight, sentence(a.Message))
	}
	text := fmt.Sprintf("Canary in %s: %d %% of the users", d.Environment, a.Weight)
	if a.Step < len(a.Steps) {
		text += fmt.Sprintf(", step %d of %d (%s)", a.Step+1, len(a.Steps), a.Steps[a.Step].Text)
	}
	return text + "."
}

// undone tells of an attempt that was aborted, or of a commit that took the
// version back; "" where neither was the last word.
func undone(d Deployment) string {
	var back *Manifest
	for i := range d.Manifests {
		if d.Manifests[i].Reverts != "" {
			back = &d.Manifests[i]
		} else {
			back = nil // deployed again
		}
	}
	n := len(d.Attempts)
	if n > 0 && d.Attempts[n-1].Result == Aborted {
		a := d.Attempts[n-1]
		text := "Aborted in " + d.Environment
		if !a.Recovered {
			text += fmt.Sprintf(" at %d %%", a.TopWeight)
			if a.Ended != nil {
				text += " after " + seconds(a.Ended.Sub(a.Started))
			}
		}
		who := "The platform took all users back to "
		if cause(a) == byHand {
			who = "All users went back to "
		}
		text += ": " + cause(a) + " " + who + orUnknown(a.FromSHA)
		if back != nil {
			return text + fmt.Sprintf("; commit %s took it out of git.", short(back.SHA))
		}
		if t := a.Takeback; t != nil && t.Error != "" {
			return text + "; git still asks for it, and the automatic revert failed: " + sentence(t.Error)
		}
		return text + "; git still asks for it: revert the manifest commit, or retry."
	}
	if back != nil && d.Weight == 0 {
		return fmt.Sprintf("Taken back in %s by commit %s of %s.", d.Environment, short(back.SHA), back.By)
	}
	return ""
}

func orUnknown(sha string) string {
	if sha == "" {
		return "the version before"
	}
	return short(sha)
}

// cause says in a sentence why an attempt was aborted.
func cause(a Attempt) string {
	for _, run := range a.Analyses {
		for _, m := range run.Metrics {
			if m.Phase != "Failed" && m.Phase != "Error" {
				continue
			}
			text := m.Name + " failed"
			for i := len(m.Measurements) - 1; i >= 0; i-- {
				if one := m.Measurements[i]; one.Phase == "Failed" && one.Value != nil {
					text += " with " + number(*one.Value)
					break
				}
			}
			if m.Condition != "" {
				text += " (wanted " + Wanted(m.Condition) + ")"
			}
			return text + "."
		}
	}
	if text := abortPrefix.ReplaceAllString(a.Message, ""); text != "" {
		return sentence(text)
	}
	return byHand
}

const byHand = "by hand."

// abortPrefix begins the message of Argo Rollouts; without more it was a person.
var abortPrefix = regexp.MustCompile(`^(RolloutAborted: )?Rollout aborted update to revision \d+(: )?`)

func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return "the reason was not told."
	}
	return strings.TrimSuffix(text, ".") + "."
}

var comparisons = regexp.MustCompile(`result(?:\[0\])?\s*(>=|<=|>|<|==)\s*(-?[0-9.]+)`)

// Wanted shortens a success condition to the comparison that a person looks
// for, such as ">= 0.95"; a condition without one stays as it is.
func Wanted(condition string) string {
	if m := comparisons.FindAllStringSubmatch(condition, -1); len(m) > 0 {
		last := m[len(m)-1]
		return last[1] + " " + last[2]
	}
	return condition
}

// unsynced tells of a sync that failed.
func unsynced(d Deployment) string {
	n := len(d.Syncs)
	if n == 0 {
		return ""
	}
	if s := d.Syncs[n-1]; s.Phase == "Failed" || s.Phase == "Error" {
		return fmt.Sprintf("Argo CD could not sync %s: %s The cluster keeps what it runs.", d.Environment, sentence(s.Message))
	}
	return ""
}

// failure tells of a failed pipeline.
func failure(p Pipeline, list []Deployment) string {
	text := fmt.Sprintf("Pipeline #%d failed", p.ID)
	var jobs []string
	for _, j := range p.Jobs {
		if j.Status == "failed" && !j.AllowFailure {
			name := j.Name
			if j.Reason != "" {
				name += " (" + strings.ReplaceAll(j.Reason, "_", " ") + ")"
			}
			jobs = append(jobs, name)
		}
	}
	switch {
	case p.Error != "":
		text += ": " + sentence(p.Error)
	case len(jobs) > 0:
		text += " in " + enumerate(jobs) + "."
	default:
		text += "."
	}
	if !anywhere(list, func(d Deployment) bool { return len(d.Attempts) > 0 }) {
		text += " Nothing was deployed; what runs goes on."
	}
	return text
}

// why says why an environment serves what it serves.
func why(e Environment, attempts []Attempt) string {
	for _, a := range attempts { // newest first
		if a.Namespace != e.Namespace || a.Rollout != e.Rollout {
			continue
		}
		switch {
		case a.Result == "" && e.Phase == "Degraded":
			return fmt.Sprintf("%s does not get through: %s", short(a.SHA), sentence(a.Message))
		case a.Result == "" && a.FromHash != "":
			return fmt.Sprintf("%s is on its way.", short(a.SHA))
		case a.Result == "":
			return "Its first version starts."
		case a.Result == Aborted:
			return fmt.Sprintf("%s was aborted: %s", short(a.SHA), cause(a))
		}
		break
	}
	switch {
	case e.Reason == nil:
		return ""
	case e.Reason.Reverts != "":
		return fmt.Sprintf("%s took a later version back.", e.Reason.By)
	}
	return fmt.Sprintf("%s deployed it.", e.Reason.By)
}

func enumerate(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

func short(sha string) string { return sha[:min(8, len(sha))] }

func number(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }

func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
