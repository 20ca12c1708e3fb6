package web

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// rolloutView is one Rollout as it happens.
type rolloutView struct {
	*rollout.Rollout
	Place     release.Place
	Project   *delivery.Project // whose commits it runs; nil where that is not known
	MayAct    bool
	Every     int      // milliseconds until the page looks again
	Services  []string // that lead to its stable pods
	Addresses []string // of those
	Revisions []rolloutRevision
	Events    []rollout.Event
	Shares    []rolloutShare
	Git       *rolloutGit // what git asks for and is not served; nil where they agree
	Buttons   []rolloutButton
}

type rolloutButton struct{ Action, Name, Class, Confirm string }

// rolloutShare is a version's measured part of the traffic.
type rolloutShare struct {
	Role    string
	Hash    string
	Rate    float64 // requests per second
	Percent float64
}

type rolloutRevision struct {
	rollout.Revision
	Analyses    []rolloutAnalysis
	Experiments []rolloutExperiment // newest first
	Undo        bool
}

type rolloutExperiment struct {
	rollout.Experiment
	Analyses []rolloutAnalysis
}

type rolloutAnalysis struct {
	rollout.Analysis
	Metrics []rolloutMetric
}

// rolloutMetric is a metric with what its chart needs.
type rolloutMetric struct {
	rollout.Metric
	Key    string // tells the chart apart while the page is renewed
	Points string // JSON: [[unix seconds, value or null], ...]; "" with no value to draw
	Line   string // the limit as a number; "" where there is none to draw
	Wanted string // in words, such as ">= 0.95"
	Good   int
	Bad    int
	Last   string
}

// rolloutGit is the difference between git and the cluster after an abort.
type rolloutGit struct {
	Wanted, Served []string // images
	Project        *delivery.Project
	Commit         delivery.Commit
	Good, Bad      string
	Files          []fileDiff
	Problem        string // why the commits are not shown
	MayRevert      bool
}

// shownEvents and shownRevisions bound the page.
const (
	shownEvents    = 20
	shownRevisions = 10
)

// shortImage shortens the digest of an image reference to twelve digits.
func shortImage(reference string) string {
	name, digest, ok := strings.Cut(reference, "@sha256:")
	if !ok || len(digest) <= 12 {
		return reference
	}
	return name + "@sha256:" + digest[:12]
}

func (s *Server) fillRollout(r *Request, client *rollout.Client, v *rolloutView) error {
	ctx := r.Context()
	revisions, err := client.Revisions(ctx, v.Namespace, v.Name)
	if err != nil {
		return err
	}
	if v.Events, err = client.Events(ctx, v.Namespace, v.Name, shownEvents); err != nil {
		return err
	}
	for i, one := range revisions {
		if i >= shownRevisions && one.Role == "" {
			continue
		}
		v.Revisions = append(v.Revisions, viewRevision(v.Rollout, one, v.MayAct))
	}
	if v.Place.ProjectID != 0 && s.Forge != nil {
		p, err := s.Forge.Project(ctx, v.Place.ProjectID)
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
		if err == nil {
			v.Project = &p
		}
	}
	v.Shares = s.rolloutShares(ctx, v.Rollout, revisions)
	if v.Aborted && v.StableHash != v.CurrentHash {
		v.Git = s.rolloutDifference(r, v, revisions)
	}
	v.Buttons = rolloutButtons(v)
	v.Every = 1500
	if v.Phase == "Healthy" {
		v.Every = 4000
	}
	return nil
}

// rolloutButtons are the actions that fit the state.
func rolloutButtons(v *rolloutView) []rolloutButton {
	if !v.MayAct {
		return nil
	}
	moving := v.Progressing() && v.StableHash != ""
	var out []rolloutButton
	add := func(when bool, b rolloutButton) {
		if when {
			out = append(out, b)
		}
	}
	add(v.Aborted, rolloutButton{"retry", "Retry", "primary", ""})
	byUser := v.PauseReason == "user"
	add(byUser, rolloutButton{"resume", "Resume", "primary", ""})
	add(moving && !byUser, rolloutButton{"promote", "Promote", "primary", ""})
	add(moving, rolloutButton{"promote-full", "Promote fully", "", "Skip all remaining steps and analyses?"})
	add(moving && !byUser, rolloutButton{"pause", "Pause", "", ""})
	add(moving, rolloutButton{"abort", "Abort", "danger", "Send everybody back to the stable version?"})
	add(!moving && !v.Aborted, rolloutButton{"restart", "Restart pods", "", "Replace all pods, one after another?"})
	return out
}

func viewRevision(ro *rollout.Rollout, one rollout.Revision, mayAct bool) rolloutRevision {
	v := rolloutRevision{Revision: one, Undo: mayAct && one.Hash != ro.CurrentHash}
	v.Analyses = viewAnalyses(one.Analyses)
	for _, e := range slices.Backward(one.Experiments) {
		v.Experiments = append(v.Experiments, rolloutExperiment{e, viewAnalyses(e.Analyses)})
	}
	return v
}

// viewAnalyses turns the newest to the front.
func viewAnalyses(list []rollout.Analysis) []rolloutAnalysis {
	var out []rolloutAnalysis
	for _, one := range slices.Backward(list) {
		run := rolloutAnalysis{Analysis: one}
		for _, m := range one.Metrics {
			run.Metrics = append(run.Metrics, viewRolloutMetric(run.Name, m))
		}
		out = append(out, run)
	}
	return out
}

func viewRolloutMetric(run string, m rollout.Metric) rolloutMetric {
	v := rolloutMetric{Metric: m, Key: run + "/" + m.Name, Last: "–"}
	points := make([][2]any, 0, len(m.Measurements))
	drawn := false
	for _, one := range m.Measurements {
		point := [2]any{one.At.Unix(), nil}
		if !math.IsNaN(one.Value) && !math.IsInf(one.Value, 0) {
			point[1] = one.Value
			drawn = true
			v.Last = strconv.FormatFloat(one.Value, 'g', 4, 64)
		} else if v.Last = "no number"; one.Text == "" || len(m.Query) == 0 {
			v.Last = "–" // of a Job, or of a text
		}
		points = append(points, point)
		switch one.Phase {
		case "Successful":
			v.Good++
		case "Failed", "Error":
			v.Bad++
		}
	}
	b, err := json.Marshal(points)
	if err != nil {
		b = []byte("[]") // cannot be: numbers and nulls only
	}
	if drawn {
		v.Points = string(b)
	}
	if m.Operator != "" {
		v.Line = strconv.FormatFloat(m.Limit, 'g', -1, 64)
		v.Wanted = m.Operator + " " + v.Line
		if m.Fails {
			v.Wanted = "not " + v.Wanted
		}
	}
	return v
}

// rolloutShares asks the metrics which version answers what part of the
// requests; nothing where there is no traffic or no answer.
func (s *Server) rolloutShares(ctx context.Context, ro *rollout.Rollout, revisions []rollout.Revision) []rolloutShare {
	if s.Metrics == nil || ro.StableHash == ro.CurrentHash {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	query := fmt.Sprintf("sum by (revision) (rate(slipway_ingress_requests_total{namespace=%q,revision=~%q}[30s]))", ro.Namespace, ro.StableHash+"|"+ro.CurrentHash)
	result, err := s.Metrics.Query(ctx, query, time.Now())
	if err != nil {
		return nil // the page is about the rollout; the metrics page tells of their trouble
	}
	total := 0.0
	var out []rolloutShare
	for _, series := range result.Series {
		if n := len(series.Points); n > 0 && series.Points[n-1].Value > 0 {
			share := rolloutShare{Hash: series.Labels["revision"], Rate: series.Points[n-1].Value}
			for _, one := range revisions {
				if one.Hash == share.Hash {
					share.Role = one.Role
				}
			}
			total += share.Rate
			out = append(out, share)
		}
	}
	for i := range out {
		out[i].Percent = 100 * out[i].Rate / total
	}
	slices.SortFunc(out, func(a, b rolloutShare) int { return int(math.Copysign(1, b.Rate-a.Rate)) })
	return out
}

// rolloutDifference says what git asks for and the cluster does not serve.
func (s *Server) rolloutDifference(r *Request, v *rolloutView, revisions []rollout.Revision) *rolloutGit {
	g := &rolloutGit{Wanted: v.Images}
	for _, one := range revisions {
		if one.Hash == v.StableHash {
			g.Served = one.Images
		}
	}
	if err := s.rolloutCommits(r, v, g); err != nil {
		g.Problem = delivery.UserMessage(err)
	}
	return g
}

// rolloutCommits adds the manifests' difference, where the caller may read
// their repository.
func (s *Server) rolloutCommits(r *Request, v *rolloutView, g *rolloutGit) error {
	if v.Application == "" || s.Forge == nil {
		return delivery.Errorf(delivery.NotFound, "It belongs to no Application; its manifests are not known.")
	}
	apps, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	app, err := apps.Get(r.Context(), v.Application)
	if err != nil {
		return err
	}
	plan, err := gitops.PlanReversal(app, 0)
	if err != nil {
		return err
	}
	path, ok := gitops.ProjectPath(s.Forge.ExternalURL(), plan.RepoURL)
	if !ok {
		return delivery.Errorf(delivery.Invalid, "The repository %s is not on this platform; revert the commit where it is.", plan.RepoURL)
	}
	project, role, err := s.Access.VisibleProject(r.Context(), r.Who, path)
	if err != nil {
		return err
	}
	g.Project, g.Good, g.Bad = &project, plan.Good, plan.Bad
	if g.Commit, err = s.Forge.Commit(r.Context(), project.ID, plan.Bad); err != nil {
		return err
	}
	files, err := s.Forge.Diff(r.Context(), project.ID, plan.Good, plan.Bad, plan.Paths, forge.DiffLimits{Files: 20, FileBytes: 20 << 10, Bytes: 100 << 10})
	if err != nil {
		return err
	}
	g.Files = diffFiles(files)
	taken := v.Place.Attempt != nil && v.Place.Attempt.Takeback != nil && v.Place.Attempt.Takeback.Commit != ""
	g.MayRevert = v.MayAct && role >= delivery.Developer && !taken
	return nil
}
