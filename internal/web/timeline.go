package web

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/release"
)

// Timeline is what the pages of releases show and do.
type Timeline interface {
	// Overview lists the newest releases among about limit commits.
	Overview(ctx context.Context, p delivery.Project, limit int) (release.Overview, error)
	Release(ctx context.Context, p delivery.Project, sha string) (release.Release, error)
	// Act does an action of the package release and says what happened.
	Act(ctx context.Context, who delivery.Identity, p delivery.Project, sha, environment, action string) (string, error)
}

func (s *Server) timelineRoutes() {
	s.handleProject("GET /running", delivery.Guest, s.runningPart)
	s.handleProject("GET /releases-timeline", delivery.Guest, s.timelinePage)
	s.handleProject("GET /releases-timeline/{sha}", delivery.Guest, s.releaseTimelinePage)
	s.handleProject("POST /releases-timeline/{sha}/act", delivery.Developer, s.timelineAct)
}

// timelineView is a project's first screen: what runs where, and its releases.
type timelineView struct {
	Project *delivery.Project
	release.Overview
	Live string
}

func (s *Server) timelinePage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	o, err := s.Timeline.Overview(r.Context(), *r.Project, release.Shown)
	if err != nil {
		return err
	}
	v := timelineView{Project: r.Project, Overview: o, Live: projectPath(r.Project.FullPath, "releases-timeline")}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "timeline", "timeline", v)
	}
	return s.render(w, r, http.StatusOK, "timeline", Page{Title: "Release timeline", Active: "timeline", Data: v})
}

// onFront is how many releases the first screen of a project lists.
const onFront = 3

// frontView is what runs of a project, on its first screen.
type frontView struct {
	Project      *delivery.Project
	Environments []release.Environment
	Releases     []release.Summary
	Live         string
}

// front answers what is running, since when, why and what changed; nil where
// nothing is deployed.
func (s *Server) front(r *Request) (*frontView, error) {
	if s.Timeline == nil {
		return nil, nil
	}
	o, err := s.Timeline.Overview(r.Context(), *r.Project, 3*onFront)
	if err != nil || len(o.Environments) == 0 {
		return nil, err
	}
	return &frontView{r.Project, o.Environments, o.Releases[:min(onFront, len(o.Releases))], projectPath(r.Project.FullPath, "running")}, nil
}

// runningPart keeps the first screen fresh.
func (s *Server) runningPart(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	v, err := s.front(r)
	if err != nil {
		return err
	}
	if v == nil || r.Header.Get("X-Fragment") == "" {
		return redirect(w, r, projectPath(r.Project.FullPath), "")
	}
	return s.fragment(w, "project", "timeline-front", v)
}

// releaseView is the line of one commit.
type releaseView struct {
	Project *delivery.Project
	release.Release
	Deployments []deploymentView
	Live        string
	Every       int // milliseconds
	MayAct      bool
	Base        string
	Spans       []spanView
}

// spanView is one stage drawn on the scale of the whole release.
type spanView struct {
	release.Stage
	Took        string
	Until       float64 // seconds from the beginning of the pipeline to its end
	Left, Width float64 // per cent
}

func viewSpans(list []release.Stage) []spanView {
	end := 0.0
	for _, s := range list {
		end = max(end, s.After+s.Seconds)
	}
	var out []spanView
	for _, s := range list {
		out = append(out, spanView{s, humanSeconds(s.Seconds), s.After + s.Seconds, 100 * s.After / max(end, 0.001), max(0.5, 100*s.Seconds/max(end, 0.001))})
	}
	return out
}

// deploymentView is one environment with what is drawn of it.
type deploymentView struct {
	release.Deployment
	Attempts []attemptView
	Buttons  []timelineButton
	NowShort string
	State    string // of the dot: success, running, failed or empty
}

type timelineButton struct{ Action, Name, Class, Confirm string }

type attemptView struct {
	release.Attempt
	Took    string
	State   string // for the badge
	Word    string
	Steps   []stepView
	Metrics []metricView
	Compare []compareRow
}

type stepView struct{ Text, State string } // done, now, stopped or todo

type metricView struct {
	release.Metric
	Analysis string
	Last     string
	Wanted   string
	Good     int
	Bad      int
	Points   []pointView
}

type pointView struct{ State, Title string }

// compareRow is one quantity before, during and after a rollout.
type compareRow struct{ Name, Before, During, After string }

func (s *Server) releaseTimelinePage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	one, err := s.Timeline.Release(r.Context(), *r.Project, r.PathValue("sha"))
	if err != nil {
		return err
	}
	v := releaseView{Project: r.Project, Release: one, Base: projectPath(r.Project.FullPath, "releases-timeline", one.SHA), MayAct: r.Role >= delivery.Developer && r.Who.User != nil, Every: 10000}
	v.Live = v.Base
	if one.Live {
		v.Every = 2000
	}
	v.Spans = viewSpans(one.Stages)
	slices.Reverse(v.Line)
	for _, d := range one.Environments {
		v.Deployments = append(v.Deployments, viewDeployment(d, one.SHA))
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "timeline_release", "release", v)
	}
	return s.render(w, r, http.StatusOK, "timeline_release", Page{Title: "Release " + short(one.SHA), Active: "timeline", Data: v})
}

// timelineAct does an action on a deployment and comes back.
func (s *Server) timelineAct(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	sha := r.PathValue("sha")
	notice, err := s.Timeline.Act(r.Context(), r.Who, *r.Project, sha, r.FormValue("environment"), r.FormValue("action"))
	if err != nil {
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "releases-timeline", url.PathEscape(sha)), notice)
}

var timelineButtons = map[string]timelineButton{
	release.ActPromote:     {release.ActPromote, "Promote", "primary", ""},
	release.ActPromoteFull: {release.ActPromoteFull, "Promote fully", "", "Skip all steps and measurements that remain?"},
	release.ActAbort:       {release.ActAbort, "Abort", "danger", "Take all users back to the version before?"},
	release.ActRetry:       {release.ActRetry, "Retry", "", "Start the rollout again from its first step?"},
	release.ActRevert:      {release.ActRevert, "Revert in git", "danger", "Commit the state before into the GitOps repository?"},
}

func viewDeployment(d release.Deployment, sha string) deploymentView {
	v := deploymentView{Deployment: d}
	if d.Now != sha {
		v.NowShort = short(d.Now)
	}
	for _, action := range d.Actions {
		if b, ok := timelineButtons[action]; ok {
			v.Buttons = append(v.Buttons, b)
		}
	}
	if n := len(d.Attempts); n > 0 {
		switch d.Attempts[n-1].Result {
		case "":
			v.State = "running"
		case release.Aborted:
			v.State = "failed"
			if d.Weight == 0 {
				v.Role = "" // nobody is served by it any more
			}
		}
	}
	if d.Weight > 0 && v.State == "" {
		v.State = "success"
	}
	for i := len(d.Attempts) - 1; i >= 0; i-- {
		v.Attempts = append(v.Attempts, viewAttempt(d.Attempts[i]))
	}
	return v
}

var attemptWords = map[string][2]string{ // result -> state of the badge, word
	release.Promoted: {"success", "Promoted"}, release.Aborted: {"failed", "Aborted"},
	release.Replaced: {"canceled", "Replaced"}, release.Withdrawn: {"canceled", "Deleted"},
}

func viewAttempt(a release.Attempt) attemptView {
	v := attemptView{Attempt: a, State: strings.ToLower(a.Phase), Word: a.Phase}
	if w, ok := attemptWords[a.Result]; ok {
		v.State, v.Word = w[0], w[1]
	}
	if a.Ended != nil && a.Ended.After(a.Started) && !a.Recovered {
		v.Took = humanSeconds(a.Ended.Sub(a.Started).Seconds())
	}
	stopped := a.Step
	if a.Result == release.Aborted { // the controller goes back to the first step
		for _, p := range a.Progress {
			stopped = max(stopped, p.Step)
		}
	}
	for i, st := range a.Steps {
		one := stepView{st.Text, "todo"}
		switch {
		case a.Result == release.Promoted || i < stopped:
			one.State = "done"
		case i == stopped && a.Result == "":
			one.State = "now"
		case i == stopped && a.Result == release.Aborted:
			one.State = "stopped"
		}
		v.Steps = append(v.Steps, one)
	}
	for _, run := range a.Analyses {
		for _, m := range run.Metrics {
			v.Metrics = append(v.Metrics, viewMetric(run, m))
		}
	}
	v.Compare = compare(a)
	return v
}

// shownPoints is how many measurements are drawn.
const shownPoints = 40

func viewMetric(run release.Analysis, m release.Metric) metricView {
	v := metricView{Metric: m, Analysis: run.Kind, Wanted: release.Wanted(m.Condition)}
	for i, one := range m.Measurements {
		value := one.Text
		if one.Value != nil {
			value = strconv.FormatFloat(*one.Value, 'g', 4, 64)
		}
		state := strings.ToLower(one.Phase)
		switch one.Phase {
		case "Successful":
			v.Good++
			state = "success"
		case "Failed", "Error":
			v.Bad++
			state = "failed"
		}
		v.Last = value
		if i >= len(m.Measurements)-shownPoints {
			v.Points = append(v.Points, pointView{state, value + " at " + one.At.Format(time.TimeOnly) + ": " + one.Phase})
		}
	}
	return v
}

func compare(a release.Attempt) []compareRow {
	asked := func(m *release.Measures) bool { return m != nil && m.ErrorShare != nil }
	if !asked(a.Before) && !asked(a.During) && !asked(a.After) {
		return nil // nobody asked for anything
	}
	cell := func(m *release.Measures, pick func(*release.Measures) *float64, write func(float64) string) string {
		if m == nil || pick(m) == nil {
			return "–"
		}
		return write(*pick(m))
	}
	row := func(name string, pick func(*release.Measures) *float64, write func(float64) string) compareRow {
		return compareRow{name, cell(a.Before, pick, write), cell(a.During, pick, write), cell(a.After, pick, write)}
	}
	return []compareRow{
		row("Requests per second", func(m *release.Measures) *float64 { return m.Requests }, func(f float64) string { return fmt.Sprintf("%.1f", f) }),
		row("Failed requests", func(m *release.Measures) *float64 { return m.ErrorShare }, func(f float64) string { return fmt.Sprintf("%.1f %%", 100*f) }),
		row("95 % answered within", func(m *release.Measures) *float64 { return m.P95 }, func(f float64) string { return fmt.Sprintf("%.0f ms", 1000*f) }),
	}
}

var releaseWords = map[string][2]string{ // status -> state of the badge, word
	release.Building: {"running", "Building"}, release.Built: {"canceled", "Built"}, release.Failed: {"failed", "Failed"},
	release.Deploying: {"running", "Deploying"}, release.Serving: {"success", "Serving"}, release.RolledBack: {"failed", "Rolled back"},
	release.Superseded: {"canceled", "Superseded"}, release.Unbuilt: {"canceled", "No pipeline"},
}

// timelineFuncs are what the templates of releases may call.
func timelineFuncs() template.FuncMap {
	return template.FuncMap{
		"releaseState": func(status string) string { return releaseWords[status][0] },
		"releaseWord":  func(status string) string { return releaseWords[status][1] },
		"lower":        strings.ToLower,
		"at":           func(t *time.Time) time.Time { return *t },
		"took": func(from, to *time.Time) string {
			if from == nil || to == nil {
				return ""
			}
			return humanSeconds(to.Sub(*from).Seconds())
		},
		"severities": func(counts map[string]int) []string {
			var out []string
			for _, severity := range []string{"CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"} {
				if n := counts[severity]; n > 0 {
					out = append(out, fmt.Sprintf("%d %s", n, strings.ToLower(severity)))
				}
			}
			return out
		},
	}
}
